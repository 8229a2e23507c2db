"""Releases in the store: drawn once, there before they are told, and the same ever after."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pipeline.settings import Settings
from pipeline.store.decisions import Decisions, as_stored, insert_release
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

Kind = Literal["suppressed", "private"]
_LATEST: Final = (1 << 64) - 1
#: How long, on a ClickHouse server, an insert may take of somebody else who had looked before ours was there, in seconds.
_RIVALS_SECONDS: Final = 10.0


class Figure(NamedTuple):
    """One row. `hour` in seconds since the epoch; None: all areas or categories, or a number that is hidden or not counted."""

    hour: int
    area: str | None
    category: str | None
    arrivals: int | None
    occupancy: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """All that was released of one UTC day in one way; `epsilon`: what it spent, 0 of a table without noise."""

    kind: Kind
    day: date
    drawn_at: datetime
    epsilon: float
    method: Mapping[str, object]
    figures: Sequence[Figure]
    #: When it began to be kept, in ms since the epoch; 0 before that.
    kept_at_ms: int = 0

    def content(self) -> dict[str, object]:
        """Everything but the digest, as JSON has it."""
        return {
            "kind": self.kind,
            "day": self.day.isoformat(),
            "drawn_at": self.drawn_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "epsilon": self.epsilon,
            "method": self.method,
            "columns": list(Figure._fields),
            "rows": [[f"{datetime.fromtimestamp(each.hour, UTC):%FT%TZ}", *each[1:]] for each in self.figures],
        }

    @property
    def digest(self) -> str:
        """The SHA-256 of its content, in canonical JSON (sorted keys, no blanks)."""
        return sha256(json.dumps(self.content(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Listed(NamedTuple):
    """That a release is there; the fields are those of `Release`."""

    kind: Kind
    day: date
    drawn_at: datetime
    epsilon: float
    digest: str


def start_of(day: date) -> int:
    """When a UTC day begins, in seconds since the epoch."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def persons_by_cell(client: Client, day: date) -> list[dict[str, Any]]:
    """Persons who arrived, and visitors, by hour, area and category (None: all of them). Raises StoreUnavailableError."""
    return _ask(client, "persons", {"start": start_of(day)})


def visitors_by_cell(client: Client, day: date, cells: int, key: tuple[int, int]) -> list[dict[str, Any]]:
    """A row for each hour, area and category with anybody: arrivals and occupancy at the hour's end, in visitors.

    Each visitor counts in `cells` of them at most, chosen by a hash under `key`, 64 bits each. Raises StoreUnavailableError.
    """
    return _ask(client, "visitors", {"start": start_of(day), "cells": cells, "key_1": key[0], "key_2": key[1]})


def pairs_of_registry(client: Client) -> set[tuple[str, str]]:
    """Every (area, category) with a venue, and the pair of venues that nobody registered. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query("SELECT DISTINCT ifNull(area, ''), category FROM venues").result_rows
    return {("", "unknown"), *((area, category) for area, category in rows)}


def rivals_seconds(settings: Settings) -> float:
    """After how long it is certain which release of a day holds: at once in an embedded store, which has one owner."""
    return 0.0 if settings.clickhouse_url is None else _RIVALS_SECONDS


def settled_release(client: Client, kind: Kind, day: date, rivals: float) -> Release | None:
    """What was released of a day, once no other can take its place: waits for that. Raises StoreUnavailableError."""
    while (held := stored_release(client, kind, day)) is not None:
        wait = rivals - (time.time_ns() // 1_000_000 - held.kept_at_ms) / 1000
        if wait <= 0:
            break
        time.sleep(wait)
    return held


def keep_first(client: Client, release: Release, decisions: Decisions | None, rivals: float = 0.0) -> Release:
    """Keep a release, unless its day has one of its kind; returns what holds, as `settled_release`.

    It is in `decisions` first, where there are any. Raises StoreUnavailableError.
    """
    if (earlier := settled_release(client, release.kind, release.day, rivals)) is not None:
        return earlier

    row = json.dumps(
        {
            "kind": release.kind,
            "day": release.day.isoformat(),
            "drawn_at": as_stored(release.drawn_at),
            "epsilon": release.epsilon,
            "method": json.dumps(release.method, sort_keys=True),
            **{name: [getattr(each, name) for each in release.figures] for name in Figure._fields},
            "sha256": release.digest,
            "precedence": _LATEST - time.time_ns() // 1_000_000,
        }
    ).encode()
    if decisions is not None:
        row = decisions.keep_release(release.kind, release.day.isoformat(), row)
    with store_errors():
        insert_release(client, row)
    held = settled_release(client, release.kind, release.day, rivals)
    assert held is not None, "an acknowledged insert is there"
    return held


def stored_release(client: Client, kind: Kind, day: date, settled: float = 0.0) -> Release | None:
    """What was released of a day; None if nothing was so many seconds ago. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(
            "SELECT toUnixTimestamp64Milli(drawn_at), epsilon, method, arrayMap(h -> toUnixTimestamp(h), hour), area, category, "
            "arrivals, occupancy, precedence FROM release_rows FINAL WHERE kind = {kind:String} AND toString(day) = {day:String} "
            "AND precedence >= {precedence:UInt64}",
            # As text: a calendar has days that ClickHouse's Date has not.
            {"kind": kind, "day": day.isoformat(), "precedence": _least_precedence(settled)},
        ).result_rows
    if not rows:
        return None
    drawn_ms, epsilon, method, *columns, precedence = rows[0]
    figures = [Figure(*values) for values in zip(*columns, strict=True)]
    drawn_at = datetime.fromtimestamp(drawn_ms / 1000, UTC)
    return Release(kind, day, drawn_at, epsilon, json.loads(method), figures, _LATEST - precedence)


def _least_precedence(settled: float) -> int:
    return _LATEST - (time.time_ns() // 1_000_000 - int(settled * 1000))


def released_days(client: Client, settled: float = 0.0) -> list[Listed]:
    """Every release that was there so many seconds ago, the newest day first. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(
            "SELECT kind, day, toUnixTimestamp64Milli(drawn_at), epsilon, sha256 FROM release_rows FINAL "
            "WHERE precedence >= {precedence:UInt64} ORDER BY day DESC, kind",
            {"precedence": _least_precedence(settled)},
        ).result_rows
    return [Listed(kind, day, datetime.fromtimestamp(ms / 1000, UTC), *rest) for kind, day, ms, *rest in rows]


def _ask(client: Client, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with store_errors():
        return list(client.query(_sql(name), parameters).named_results())


@cache
def _sql(name: str) -> str:
    return resources.files("pipeline.store").joinpath("sql", "release", f"{name}.sql").read_text(encoding="utf-8")
