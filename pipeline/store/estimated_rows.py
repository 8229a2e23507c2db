"""Visits from the store as the log of moves has them: when each began, and when something showed that it was over."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core.moves import REACH
from pipeline.core.pools import MINUTE
from pipeline.core.shard import Shard, VenueRules
from pipeline.store.tables import integers, texts_of
from pipeline.store.venue_ranges import ranges, ranges_of
from pipeline.store.writer import quoted, store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: Visits read at once, and rows of minutes whose estimates are made anew at once.
_VISITS: Final = 500_000
_ROWS: Final = 250_000


def closings(condition: str, given: str = "") -> str:
    """SELECT venue_id, start, left, persons, closed (ms; −1 where nothing closed it) of the visits that meet a condition.

    The condition must let through, with a visit, the later ones of its pair that may close it. `given`: a WITH clause for it.
    """
    return f"""
        SELECT venue_id, start, left, persons, multiIf(ended = 'check_out', left, next = 0, -1, next) AS closed
        FROM
        (
            {given}
            SELECT venue_id, ended, toInt64(party_size) AS persons,
                   toUnixTimestamp64Milli(checked_in_at) AS start, toUnixTimestamp64Milli(left_at) AS left,
                   leadInFrame(start) OVER (
                       PARTITION BY venue_id, visitor_id ORDER BY checked_in_at
                       ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS next
            FROM visit_rows FINAL
            WHERE {condition}
        )
    """


def load_moves(client: Client, shard: Shard, scope: str) -> None:
    """Log the moves of the venues of `scope` that matter to what the shard holds. Raises StoreUnavailableError."""
    since = f"checked_in_at >= fromUnixTimestamp64Milli({max(shard.moves_from, 0)}, 'UTC') AND {scope}"
    for venues in ranges_of(client, "visit_rows", since, _VISITS):
        _log(client, shard, f"{since} AND {venues}")


def _log(client: Client, shard: Shard, condition: str) -> None:
    visits = _read(client, f"SELECT venue_id, start, closed, persons FROM ({closings(condition)})")
    if visits.num_rows:
        buffer, (venue,) = texts_of(visits["venue_id"])
        shard.load_moves(buffer, venue, *(integers(visits, name) for name in ("start", "closed", "persons")))


def moves_of_venue(client: Client, venue: str, start: int, until: int) -> Shard:
    """A shard that knows one venue, and its moves for estimates from the minute before `start` up to `until` (both ms).

    Raises StoreUnavailableError.
    """
    shard = Shard(lambda _venue: VenueRules(0))
    shard.keep_moves()
    shard.codes_of([venue.encode()])
    since = max(start // MINUTE - 1 - REACH, 0) * MINUTE
    _log(
        client,
        shard,
        f"venue_id = {quoted(venue)} AND checked_in_at >= fromUnixTimestamp64Milli({since}, 'UTC') "
        f"AND checked_in_at <= fromUnixTimestamp64Milli({max(until, 0)}, 'UTC')",
    )
    return shard


@dataclass(frozen=True, slots=True)
class Piece:
    """Some venues' minutes and hours of one UTC day as they are stored, without version and estimate, and a shard that holds the
    moves for them.
    """

    day: date
    shard: Shard
    minutes: pa.Table
    hours: pa.Table

    def codes(self, rows: pa.Table) -> NDArray[np.int32]:
        """The codes of the venues of rows in `shard`."""
        if not rows.num_rows:
            return np.zeros(0, np.int32)
        buffer, (venue,) = texts_of(rows["venue_id"])
        return self.shard.know_venues(buffer, venue)


def pieces(client: Client, scope: str, since: int) -> Iterator[Piece]:
    """All stored minutes and hours of the venues of `scope` from `since` (minutes since the epoch, on an hour) on.

    Those from before the first stored visit stay as they are: retention has dropped what they were made from. Raises
    StoreUnavailableError.
    """
    first_visit = _rows(
        client, "SELECT intDiv(toUnixTimestamp64Milli(min(checked_in_at)), 3600000) * 60 FROM visit_rows"
    )
    since = max(since, int(first_visit[0][0]))
    for day, venues in _cuts(client, scope, since):
        begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
        shard = Shard(lambda _venue: VenueRules(0))
        shard.keep_moves()
        _log(
            client,
            shard,
            f"checked_in_at >= {_instant(begin - timedelta(minutes=REACH))} "
            f"AND checked_in_at < {_instant(begin + timedelta(1))} AND {venues}",
        )
        tables = [
            _read(client, f"SELECT {columns} FROM {table} FINAL WHERE {_of_day(time, day, since)} AND {venues}")
            for table, time, columns in (
                (
                    "minute_rows",
                    "minute",
                    "venue_id, toUnixTimestamp(minute) AS minute, arrivals, departures, occupancy, peak",
                ),
                (
                    "hour_rows",
                    "hour",
                    "venue_id, toUnixTimestamp(hour) AS hour, arrivals, departures, peak, area_ms, over_ms, contact_ms",
                ),
            )
        ]
        yield Piece(day, shard, *tables)


def _cuts(client: Client, scope: str, since: int) -> Iterator[tuple[date, str]]:
    # UTC days, and ranges of venues with so many rows that they are written at once.
    tables = (("minute_rows", "minute"), ("hour_rows", "hour"))
    days = {
        row[0]
        for table, time in tables
        for row in _rows(
            client,
            f"SELECT DISTINCT toDate({time}) FROM {table} WHERE {time} >= toDateTime({since * 60}, 'UTC') AND {scope}",
        )
    }
    for day in sorted(days):
        counted = " UNION ALL ".join(
            f"SELECT venue_id, count() AS rows FROM {table} WHERE {_of_day(time, day, since)} AND {scope} GROUP BY venue_id"
            for table, time in tables
        )
        counts = _rows(client, f"SELECT venue_id, sum(rows) FROM ({counted}) GROUP BY venue_id ORDER BY venue_id")
        for venues in ranges(((str(venue), int(rows)) for venue, rows in counts), _ROWS):
            yield day, f"{venues} AND {scope}"


def _of_day(time: str, day: date, since: int) -> str:
    return f"toDate({time}) = '{day}' AND {time} >= toDateTime({since * 60}, 'UTC')"


def _instant(at: datetime) -> str:
    return f"fromUnixTimestamp64Milli({max(int(at.timestamp()), 0) * 1000}, 'UTC')"


def _rows(client: Client, sql: str) -> list[tuple[Any, ...]]:
    with store_errors():
        rows: list[tuple[Any, ...]] = client.query(sql).result_rows
    return rows


def _read(client: Client, sql: str) -> pa.Table:
    with store_errors():
        return client.query_arrow(sql)
