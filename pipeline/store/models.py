"""Models of presence in the store: kept for ever; for every event time at most one of them holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from pipeline.store.tables import place_table
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: Before any event time.
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

_MODELS: Final = "SELECT model_version, made_at, first_day, last_day, body, figures FROM model_rows FINAL"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model with its origin: the closed days it was fitted to (None of a cold start), and how well it fits (JSON)."""

    version: str
    made_at: datetime
    first_day: date | None
    last_day: date | None
    body: str
    figures: str


def save_model(client: Client, model: StoredModel) -> None:
    """Keep a model; the same one again changes nothing. Raises StoreUnavailableError."""
    row = pa.table(
        {
            "model_version": pa.array([model.version]),
            "made_at": pa.array([model.made_at], pa.timestamp("ms", "UTC")),
            "first_day": pa.array([model.first_day], pa.date32()),
            "last_day": pa.array([model.last_day], pa.date32()),
            "body": pa.array([model.body]),
            "figures": pa.array([model.figures]),
            "version": pa.array([1], pa.uint64()),
        }
    )
    with store_errors():
        client.insert_arrow("model_rows", row)


def stored_models(client: Client) -> list[StoredModel]:
    """All models, the oldest first. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(f"{_MODELS} ORDER BY made_at").result_rows
    return [_model(row) for row in rows]


@dataclass(frozen=True, slots=True)
class ModelUse:
    """That a model ("" for none) holds for all event times from `since` on, said at `said_at`; a higher number was said later."""

    number: int
    version: str
    since: datetime
    said_at: datetime

    @property
    def minute(self) -> int:
        """`since` in minutes since the epoch. It is on an hour, so that an hour has one model."""
        return int(self.since.timestamp()) // 3600 * 60


def use_model(client: Client, version: str, since: datetime | None = None) -> None:
    """Let a model hold for all event times from `since` (on an hour) on, or for all there are; an empty `version`: none.

    Raises StoreUnavailableError.
    """
    with store_errors():
        number = client.query("SELECT max(version) + 1 FROM model_use_rows").result_rows[0][0]
        row = {
            "model_version": pa.array([version]),
            "since": pa.array([since or BEGINNING], pa.timestamp("ms", "UTC")),
            "said_at": pa.array([datetime.now(UTC)], pa.timestamp("ms", "UTC")),
            "version": pa.array([number], pa.uint64()),
        }
        client.insert_arrow("model_use_rows", pa.table(row))


def used_models(client: Client) -> list[ModelUse]:
    """Which model was put in force when, in the order in which it was said. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(
            "SELECT version, model_version, toUnixTimestamp64Milli(since), toUnixTimestamp64Milli(said_at) "
            "FROM model_use_rows ORDER BY version"
        ).result_rows
    return [
        ModelUse(int(number), version, *(datetime.fromtimestamp(at / 1000, UTC) for at in times))
        for number, version, *times in rows
    ]


def since_of(model: StoredModel, uses: Sequence[ModelUse]) -> datetime | None:
    """From when on a model is put in force if nobody says: the day after the last one that it learned from, or, where no model
    was in force before, the beginning. None where there is no telling: it learned from no day, and would replace another.
    """
    if not any(use.version for use in uses):
        return BEGINNING
    if model.last_day is None:
        return None
    return datetime.combine(model.last_day, time(), UTC) + timedelta(1)


def model_at(client: Client, at: datetime) -> StoredModel | None:
    """The model that holds for an event time: of what was said of it, the last. Raises StoreUnavailableError."""
    said = [use.version for use in used_models(client) if use.minute * 60 <= at.timestamp()]
    return stored_model(client, said[-1]) if said and said[-1] else None


def stored_model(client: Client, version: str) -> StoredModel | None:
    """The model of that version, if there is one. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(f"{_MODELS} WHERE model_version = {{version:String}}", {"version": version}).result_rows
    return _model(rows[0]) if rows else None


def _model(row: Sequence[Any]) -> StoredModel:
    version, made_at, *rest = row
    # The driver gives times of UTC without a zone.
    return StoredModel(version, made_at.replace(tzinfo=UTC), *rest)


def applied_use(client: Client, places: Sequence[tuple[str, int]]) -> int:
    """The number of the last use that all rows of these places (topic, partition) follow; 0 for none.

    Raises StoreUnavailableError.
    """
    with store_errors():
        rows = client.query("SELECT topic, partition, number FROM model_applied_rows FINAL").result_rows
    known = {(row[0], int(row[1])): int(row[2]) for row in rows}
    return min((known.get(place, 0) for place in places), default=0)


def applied_table(places: Sequence[tuple[str, int]], number: int, version: int) -> pa.Table:
    """Rows of `model_applied_rows`."""
    return place_table(places, version, number=pa.scalar(number, pa.uint64()))


def newest_learned_day(client: Client) -> date | None:
    """The last day that any model has learned which was ever put in force. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(
            "SELECT max(last_day) FROM model_rows WHERE model_version IN (SELECT model_version FROM model_use_rows)"
        ).result_rows
    day: date | None = rows[0][0]
    return day
