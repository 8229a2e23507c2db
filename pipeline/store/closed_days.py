"""The visits of days that are over, as a model of presence is fitted to them: how long, and what came next."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from pipeline.core.presence.evidence import NONE, Visits
from pipeline.store.tables import integers
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: A day counts as closed this long after its end (UTC): its visits' check-outs, late scans included, are then there but for
#: the few who stay longer.
CLOSED_AFTER: Final = timedelta(hours=12)

#: Visits of one slice.
_SLICE: Final = 1_000_000


def closed_days(client: Client) -> list[date]:
    """The UTC days with visits that are closed by the store's clock, oldest first. Raises StoreUnavailableError."""
    now = clock_of(client)
    with store_errors():
        days = client.query("SELECT DISTINCT toDate(checked_in_at) AS day FROM visit_rows ORDER BY day").result_rows
    return [
        day
        for (day,) in days
        if datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(1) + CLOSED_AFTER <= now
    ]


def covered_days(client: Client) -> tuple[date, date] | None:
    """The first UTC day with anybody ever, though its visits may be gone, and the last that is closed by the store's clock.

    The last may be before the first. None of a store without anybody. Raises StoreUnavailableError.
    """
    with store_errors():
        rows, first = client.query("SELECT count(), toDate(min(hour)) FROM hour_rows").result_rows[0]
    last = clock_of(client) - timedelta(1) - CLOSED_AFTER
    return (first, last.date()) if rows else None


def clock_of(client: Client) -> datetime:
    """The store's clock (`as_of`), UTC; 1970 of an empty store. Raises StoreUnavailableError."""
    with store_errors():
        as_of = client.query("SELECT toUnixTimestamp64Milli(toDateTime64(as_of, 3, 'UTC')) FROM clock").result_rows
    return datetime.fromtimestamp(as_of[0][0] / 1000 if as_of else 0, UTC)


def categories(client: Client) -> list[str]:
    """The categories of registered venues and that of the others, sorted."""
    with store_errors():
        rows = client.query("SELECT DISTINCT category FROM venues").result_rows
    return sorted({"unknown", *(row[0] for row in rows)})


def places_of(client: Client) -> dict[str, tuple[str, str | None]]:
    """The category and the time zone of each registered venue. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query("SELECT venue_id, category, timezone FROM venues").result_rows
    return {venue: (category, zone or None) for venue, category, zone in rows}


def venues_of(client: Client, days: list[date]) -> list[str]:
    """The venues with visits on these UTC days, sorted. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(
            "SELECT DISTINCT venue_id FROM visit_rows WHERE toDate(checked_in_at) IN {days:Array(Date)} ORDER BY venue_id",
            {"days": days},
        ).result_rows
    return [row[0] for row in rows]


def read_day(client: Client, day: date, categories: list[str], venues: list[str]) -> Iterator[Visits]:
    """The visits that began on a UTC day, in slices by visitor; codes count in the given lists, which must name them all.

    Raises StoreUnavailableError.
    """
    with store_errors():
        count = client.query("SELECT count() FROM visit_rows WHERE toDate(checked_in_at) = {day:Date}", {"day": day})
        zones = [
            row[0] for row in client.query("SELECT DISTINCT timezone FROM venues WHERE timezone != ''").result_rows
        ]
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    slices = 1 + count.result_rows[0][0] // _SLICE
    parameters = {
        "day": day,
        "zones": ["", *zones],
        "offsets": [0, *(utc_offset(zone, noon) for zone in zones)],
        "slices": slices,
    }
    for number in range(slices):
        with store_errors():
            table = client.query_arrow(presence_sql("closed_day"), {**parameters, "slice": number}, use_strings=True)
        if table.num_rows:
            yield _columns(table, categories, venues)


def utc_offset(zone: str, at: datetime) -> int:
    """Minutes that a time zone's clocks are ahead of UTC at an instant."""
    offset = at.astimezone(ZoneInfo(zone)).utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) // 60


def _columns(table: pa.Table, categories: list[str], venues: list[str]) -> Visits:
    def codes(column: str, names: list[str]) -> NDArray[np.int64]:
        found = pyarrow.compute.index_in(table[column].cast(pa.string()), pa.array(names, pa.string()))
        return np.asarray(found.fill_null(NONE), np.int64)

    return Visits(
        codes("venue_id", venues),
        codes("category", categories),
        integers(table, "arrival_minute"),
        integers(table, "dwell"),
        integers(table, "next_in"),
        codes("next_category", categories),
    )


@cache
def presence_sql(name: str) -> str:
    """A query of `sql/presence`, by its name."""
    return resources.files("pipeline.store").joinpath("sql", "presence", f"{name}.sql").read_text(encoding="utf-8")
