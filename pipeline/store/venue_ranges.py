"""Venues in ranges: what one query reads of a day that is too large for one answer.

Every large table is sorted by venue first, so a range reads its own rows and no others, and a query's memory does not grow with
the day.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipeline.store.writer import quoted, store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any


def ranges(counts: Iterable[tuple[str, int]], most: int) -> Iterator[str]:
    """SQL conditions on venue_id that take in each venue of (venue, rows), sorted by venue, once.

    A range has at most `most` rows, or is one venue.
    """
    first, last, held = "", "", 0
    for venue, rows in counts:
        if held and held + rows > most:
            yield _between(first, last)
            held = 0
        first, last, held = venue if not held else first, venue, held + rows
    if held:
        yield _between(first, last)


def ranges_of(client: Client, table: str, condition: str, most: int) -> Iterator[str]:
    """The ranges of the venues that have rows in a table under a condition; rows of one key that are not merged yet all count.

    Raises StoreUnavailableError.
    """
    with store_errors():
        counts = client.query(
            f"SELECT venue_id, count() FROM {table} WHERE {condition} GROUP BY venue_id ORDER BY venue_id"
        ).result_rows
    return ranges(((str(venue), int(rows)) for venue, rows in counts), most)


def _between(first: str, last: str) -> str:
    return f"venue_id >= {quoted(first)} AND venue_id <= {quoted(last)}"
