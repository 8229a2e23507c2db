"""Which record of the registry a venue's stored rows follow: noted by venue, because versions cannot tell.

Workers read the registry side by side, so two may give different records one version, or the older record the higher one. Who
takes over by versions alone may leave a venue's visits as the record before would have them.
"""

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.core.shard import VenueRules
from pipeline.store.tables import strings
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any


def record_of(rules: VenueRules) -> int:
    """A number for what the registry says of a venue that its rows depend on: category, time zone and capacity."""
    return _record(rules.place, rules.capacity)


@lru_cache(100_000)
def _record(place: tuple[str, str | None], capacity: int) -> int:
    return int.from_bytes(blake2b(repr((*place, capacity)).encode(), digest_size=8).digest(), "big")


def followed_table(records: Mapping[bytes, int], version: int) -> pa.Table:
    """Rows of `followed_rows`."""
    return pa.table(
        {
            "venue_id": strings([venue.decode() for venue in records]),
            "record": pa.array(list(records.values()), pa.uint64()),
            "version": pa.array([version] * len(records), pa.uint64()),
        }
    )


def read_followed(client: Client, scope: str) -> dict[bytes, int]:
    """The record that each venue of a scope follows; those of an older release are not noted. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(f"SELECT venue_id, record FROM followed_rows FINAL WHERE {scope}").result_rows
    return {str(venue).encode(): int(record) for venue, record in rows}
