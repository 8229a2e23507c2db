"""Models of presence in the store: kept for ever, one of them in force."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: Before any event time.
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
        rows = client.query(
            "SELECT model_version, made_at, first_day, last_day, body, figures FROM model_rows FINAL ORDER BY made_at"
        ).result_rows
    # The driver gives times of UTC without a zone.
    return [StoredModel(version, at.replace(tzinfo=UTC), *rest) for version, at, *rest in rows]


def use_model(client: Client, version: str, since: datetime | None = None) -> None:
    """Let a model hold for all event times from `since` on, or for all there are; an empty `version`: none.

    Raises StoreUnavailableError.
    """
    with store_errors():
        number = client.query("SELECT max(version) + 1 FROM model_use_rows").result_rows[0][0]
        row = {
            "model_version": pa.array([version]),
            "since": pa.array([since or BEGINNING], pa.timestamp("ms", "UTC")),
            "version": pa.array([number], pa.uint64()),
        }
        client.insert_arrow("model_use_rows", pa.table(row))


def used_models(client: Client) -> list[tuple[str, datetime]]:
    """Which model ("" for none) was put in force when, the oldest first. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query("SELECT model_version, since FROM model_use_rows ORDER BY version").result_rows
    return [(version, since.replace(tzinfo=UTC)) for version, since in rows]


def model_in_force(client: Client) -> StoredModel | None:
    """The model that holds now. Raises StoreUnavailableError."""
    used = used_models(client)
    return _stored(client, used[-1][0]) if used else None


def model_at(client: Client, at: datetime) -> StoredModel | None:
    """The model that holds for an event time: of what is said of it, the last. Raises StoreUnavailableError."""
    said = [version for version, since in used_models(client) if since <= at]
    return _stored(client, said[-1]) if said else None


def newest_learned_day(client: Client) -> date | None:
    """The last day that any model has learned which was ever put in force. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(
            "SELECT max(last_day) FROM model_rows WHERE model_version IN (SELECT model_version FROM model_use_rows)"
        ).result_rows
    day: date | None = rows[0][0]
    return day


def _stored(client: Client, version: str) -> StoredModel | None:
    return next((model for model in stored_models(client) if model.version == version), None)
