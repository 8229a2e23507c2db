"""Crowding alerts in the store: rows of alerts, and a venue's alerts computed again from its stored visits."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import names
from pipeline.core.alert_book import AlertChange, AlertHistory
from pipeline.core.crowding import Alert, Estimated, Levels, alert_id
from pipeline.core.levels import LEVELS
from pipeline.core.pools import HARD_LIMIT, I64, NONE, Names
from pipeline.core.shard import Shard
from pipeline.store.estimated_rows import moves_of_venue
from pipeline.store.tables import integers, place_table, strings
from pipeline.store.writer import of_venues, quoted_all, quoted_pairs, store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

_VENUES_PER_QUERY: Final = 2000
_ALERT: Final = (
    "venue_id, toInt8(level), toUnixTimestamp64Milli(raised_at), "
    f"ifNull(toUnixTimestamp64Milli(cleared_at), {NONE}), peak, capacity"
)


def alert_table(changes: Sequence[AlertChange], venues: Names, version: int) -> pa.Table:
    """Rows of `alert_rows`, versions `version`, `version` + 1, …"""
    offsets, data = names.texts(venues, np.array([change.venue for change in changes], np.int32))
    ids = [data[offsets[i] : offsets[i + 1]].tobytes().decode() for i in range(len(changes))]
    alerts = [change.alert for change in changes]
    return pa.table(
        {
            "venue_id": strings(ids),
            "level": strings([LEVELS[alert.level] for alert in alerts]),
            "raised_at": pa.array([alert.raised_at for alert in alerts], pa.int64()).cast(pa.timestamp("ms")),
            "alert_id": strings([alert_id(venue, a.level, a.raised_at) for venue, a in zip(ids, alerts, strict=True)]),
            "cleared_at": pa.array(
                [None if alert.cleared_at == NONE else alert.cleared_at for alert in alerts], pa.int64()
            ).cast(pa.timestamp("ms")),
            "peak": pa.array([alert.peak for alert in alerts], pa.uint32()),
            "capacity": pa.array([alert.capacity for alert in alerts], pa.uint32()),
            "version": pa.array(range(version, version + len(changes)), pa.uint64()),
            "is_deleted": pa.array([change.deleted for change in changes]).cast(pa.uint8()),
        }
    )


def unfinished_alerts(client: Client, left: str) -> dict[str, int]:
    """Per venue, when (ms) the first alert was raised of which a write that did not end may have left a row: `left_behind`."""
    with store_errors():
        rows = client.query(
            f"SELECT venue_id, toUnixTimestamp64Milli(min(raised_at)) FROM alert_rows WHERE {left} GROUP BY venue_id"
        ).result_rows
    return {str(venue): int(raised_at) for venue, raised_at in rows}


def alerts_since(client: Client, condition: str, since: int | None = None) -> list[tuple[str, Alert]]:
    """The stored alerts of the venues of a condition that were not cleared by `since` (ms); without it those in force."""
    cleared = "0" if since is None else f"cleared_at > fromUnixTimestamp64Milli({max(since, 0)}, 'UTC')"
    with store_errors():
        rows = client.query(
            f"SELECT {_ALERT} FROM alert_rows FINAL WHERE {condition} AND (cleared_at IS NULL OR {cleared})"
        ).result_rows
    return [(str(row[0]), Alert(*(int(value) for value in row[1:]))) for row in rows]


def alerts_of_venues(client: Client, since: dict[str, int]) -> dict[str, list[Alert]]:
    """Of each venue, the stored alerts that were not cleared by its instant (ms)."""
    venues = sorted(since)
    found: dict[str, list[Alert]] = {}
    for i in range(0, len(venues), _VENUES_PER_QUERY):
        part = venues[i : i + _VENUES_PER_QUERY]
        for venue, alert in alerts_since(client, of_venues(part), min(since[venue] for venue in part)):
            if alert.cleared_at == NONE or alert.cleared_at > since[venue]:
                found.setdefault(venue, []).append(alert)
    return found


def told_upto(client: Client, places: Sequence[tuple[str, int]]) -> int:
    """The version up to which every alert of some partitions has been told."""
    with store_errors():
        rows = client.query(
            f"SELECT max(version) FROM told_rows WHERE (topic, partition) IN ({quoted_pairs(places)}) GROUP BY topic, partition"
        ).result_rows
    return min((int(row[0]) for row in rows), default=0) if len(rows) == len(places) else 0


def told_table(places: Sequence[tuple[str, int]], version: int) -> pa.Table:
    """Rows of `told_rows`."""
    return place_table(places, version)


def changed_alerts(client: Client, scope: str, since: int, until: int) -> list[tuple[str, Alert, bool]]:
    """Alerts with a row whose version is in [since, until), as they stand: venue, alert, and whether it is taken back."""
    return _newest_alerts(client, f"version >= {since} AND version < {until} AND {scope}")


def changed_ids(client: Client, scope: str, since: int, until: int) -> list[str]:
    """The ids of `changed_alerts`."""
    with store_errors():
        rows = client.query(
            f"SELECT DISTINCT alert_id FROM alert_rows WHERE version >= {since} AND version < {until} AND {scope}"
        ).result_rows
    return [str(row[0]) for row in rows]


def newer_alerts(client: Client, ids: Sequence[str], since: int) -> list[tuple[str, Alert, bool]]:
    """Of some alerts those with a row whose version is `since` or later, as they stand: as `changed_alerts`."""
    found = []
    for i in range(0, len(ids), _VENUES_PER_QUERY):
        some = quoted_all(ids[i : i + _VENUES_PER_QUERY])
        found += _newest_alerts(client, f"version >= {since} AND alert_id IN ({some})")
    return found


def _newest_alerts(client: Client, condition: str) -> list[tuple[str, Alert, bool]]:
    with store_errors():
        rows = client.query(
            f"SELECT {_ALERT}, is_deleted FROM (SELECT * FROM alert_rows WHERE {condition} "
            "ORDER BY version DESC LIMIT 1 BY venue_id, level, raised_at) ORDER BY venue_id, raised_at"
        ).result_rows
    return [(str(row[0]), Alert(*(int(value) for value in row[1:-1])), bool(row[-1])) for row in rows]


def first_arrivals(client: Client, scope: str) -> dict[str, int]:
    """When (ms) the first stored visit of each venue of a scope began."""
    with store_errors():
        rows = client.query(
            f"SELECT venue_id, toUnixTimestamp64Milli(min(checked_in_at)) FROM visit_rows FINAL WHERE {scope} GROUP BY venue_id"
        ).result_rows
    return {str(venue): int(first) for venue, first in rows}


@dataclass(frozen=True, slots=True)
class Asked:
    """A venue whose alerts are to be computed again, from `since` (ms) on: what was decided up to then is right in the store.

    `stored`: its alerts that were not cleared by then.
    """

    venue: str
    levels: Levels
    stored: list[Alert]
    since: int

    @property
    def raised(self) -> dict[int, int]:
        """When (ms) each alert was raised that was in force at `since`, by level."""
        return {
            alert.level: alert.raised_at
            for alert in self.stored
            if alert.raised_at <= self.since and (alert.cleared_at == NONE or alert.cleared_at > self.since)
        }

    @property
    def start(self) -> int:
        """From when (ms) on its visits matter."""
        return min([self.since - self.levels.look_back, *self.raised.values()])


def alert_histories(
    client: Client,
    asked: Iterable[Asked],
    reach: tuple[int, int],
    as_of: int,
    estimates: Callable[[Shard, I64], Estimated | None] | None = None,
) -> Iterator[tuple[str, AlertHistory]]:
    """Venues' alerts from their stored visits, up to what memory holds, in any order.

    `reach`: the shard's `changes_from` and `cells_from` (ms). `estimates`: where alerts are judged by them, those at the ends of
    minutes, from a shard that knows one venue and its moves alone.
    """
    until = min(reach[0], as_of)
    # Those that go back as far are asked for together, so that nobody's whole past is read for one venue's sake.
    wanted = sorted(asked, key=lambda each: each.start)
    for i in range(0, len(wanted), _VENUES_PER_QUERY):
        part = wanted[i : i + _VENUES_PER_QUERY]
        visits = _visits_of(client, {each.venue: each.start for each in part}, until)
        for each, some in zip(part, visits, strict=True):
            refine = None
            if estimates is not None:
                refine = partial(estimates, moves_of_venue(client, each.venue, each.start, until))
            yield each.venue, _history(each, some, until, reach[1], refine)


def _history(
    asked: Asked,
    visits: tuple[I64, I64, I64],
    until: int,
    cells_from: int,
    estimates: Callable[[I64], Estimated | None] | None,
) -> AlertHistory:
    levels = asked.levels
    at, persons = _curve(*visits, asked.start, until)
    in_force = {level: (raised_at, 0) for level, raised_at in asked.raised.items()}
    judged = None
    if estimates is not None:
        at, persons, judged = levels.refined(at, persons, until, estimates)
    true, _ = levels.alerts(at, persons, until, asked.since, in_force, judged)
    before = {}
    for alert in true:
        if alert.cleared_at == NONE and alert.raised_at < cells_from:
            inside = (np.append(at[1:], until + 1) > alert.raised_at) & (at < cells_from)
            before[alert.level] = int(persons[inside].max(initial=0))
    return AlertHistory(asked.stored, true, before)


def _visits_of(client: Client, starts: Mapping[str, int], until: int) -> list[tuple[I64, I64, I64]]:
    # Of each venue (began, left, persons) of the visits that last until after its start, and began by `until`.
    earliest = min(starts.values())
    with store_errors():
        visits = client.query_arrow(
            "SELECT venue_id, toUnixTimestamp64Milli(checked_in_at) AS start, toUnixTimestamp64Milli(left_at) AS left, "
            f"party_size AS party FROM visit_rows FINAL WHERE {of_venues(starts)} "
            f"AND checked_in_at <= fromUnixTimestamp64Milli({max(until, 0)}, 'UTC') "
            f"AND checked_in_at >= fromUnixTimestamp64Milli({max(earliest - HARD_LIMIT, 0)}, 'UTC') "
            f"AND left_at > fromUnixTimestamp64Milli({max(earliest, 0)}, 'UTC')"
        )
    code = pc.index_in(visits["venue_id"].cast(pa.string()), value_set=strings(list(starts))).to_numpy()
    order = np.argsort(code, kind="stable")
    ends = np.searchsorted(code[order], np.arange(len(starts) + 1))
    columns = [integers(visits, column)[order] for column in ("start", "left", "party")]
    found = []
    for i, start in enumerate(starts.values()):
        began, left, party = (column[ends[i] : ends[i + 1]] for column in columns)
        there = left > max(start, 0)
        found.append((began[there], left[there], party[there]))
    return found


def _curve(began: I64, left: I64, party: I64, start: int, until: int) -> tuple[I64, I64]:
    instants = np.concatenate([[start], np.maximum(began, start), left])
    change = np.concatenate([[0], party, -party])
    at, place = np.unique(instants, return_inverse=True)
    persons = np.cumsum(np.bincount(place, weights=change, minlength=len(at)).astype(np.int64))
    inside = at <= until
    return at[inside].astype(np.int64), persons[inside]
