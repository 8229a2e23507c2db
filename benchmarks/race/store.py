"""Where the peers in Python write: ClickHouse embedded in their own process, in Arrow, as this pipeline does.

A row replaces an older one with its key (ReplacingMergeTree), so writing one twice does no harm.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import clickhouse_connect
import pyarrow as pa

from benchmarks.race.job import Visit

#: Rows waiting at which a peer should write; below some ten thousand, the cost of an insert shows.
FULL: Final = 50_000

_TABLES: Final = (
    """CREATE TABLE visits (venue String, visitor String, start Int64, left Int64, ended LowCardinality(String), persons UInt8,
    version UInt64, deleted UInt8) ENGINE = ReplacingMergeTree(version, deleted) ORDER BY (venue, visitor, start)""",
    """CREATE TABLE minutes (venue String, minute Int64, arrivals Int64, departures Int64, version UInt64)
    ENGINE = ReplacingMergeTree(version) ORDER BY (venue, minute)""",
)


class Store:
    """Rows gathered, of which the newest of each key is written by `flush`. For one thread."""

    def __init__(self, folder: Path) -> None:
        """Open the engine in a new folder."""
        self._client: Any = clickhouse_connect.get_client(interface="chdb", path=str(folder))
        for table in _TABLES:
            self._client.command(table)
        self._visits: dict[tuple[str, str, int], tuple[int, str, int, int]] = {}
        self._minutes: dict[tuple[str, int], tuple[int, int]] = {}
        self._version = 0

    def visits(self, venue: str, visitor: str, visits: Iterable[Visit], gone: Iterable[int] = ()) -> None:
        """Note a pair's visits as they are now, and the starts of those that are no more."""
        for start, left, ended, persons in visits:
            self._visits[venue, visitor, start] = left, ended, persons, 0
        for start in gone:
            self._visits[venue, visitor, start] = 0, "", 0, 1

    def minute(self, venue: str, minute: int, arrivals: int, departures: int) -> None:
        """Note the counts of a minute as they are now."""
        self._minutes[venue, minute] = arrivals, departures

    @property
    def waiting(self) -> int:
        """Rows not written yet."""
        return len(self._visits) + len(self._minutes)

    def flush(self) -> None:
        """Write all rows that wait."""
        self._version += 1
        if self._visits:
            venue, visitor, start = zip(*self._visits, strict=True)
            left, ended, persons, deleted = zip(*self._visits.values(), strict=True)
            self._insert(
                "visits",
                venue=pa.array(venue),
                visitor=pa.array(visitor),
                start=pa.array(start, pa.int64()),
                left=pa.array(left, pa.int64()),
                ended=pa.array(ended),
                persons=pa.array(persons, pa.uint8()),
                version=pa.repeat(pa.scalar(self._version, pa.uint64()), len(start)),
                deleted=pa.array(deleted, pa.uint8()),
            )
            self._visits.clear()
        if self._minutes:
            venue, minute = zip(*self._minutes, strict=True)
            arrivals, departures = zip(*self._minutes.values(), strict=True)
            self._insert(
                "minutes",
                venue=pa.array(venue),
                minute=pa.array(minute, pa.int64()),
                arrivals=pa.array(arrivals, pa.int64()),
                departures=pa.array(departures, pa.int64()),
                version=pa.repeat(pa.scalar(self._version, pa.uint64()), len(minute)),
            )
            self._minutes.clear()

    def close(self) -> None:
        """Write what waits, and close the engine."""
        self.flush()
        with suppress(RuntimeError):
            self._client.close()

    def _insert(self, table: str, **columns: Any) -> None:
        self._client.insert_arrow(table, pa.table(columns))
