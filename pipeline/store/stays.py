"""Which max stay the stored visits follow, so that a changed setting folds them again instead of mixing two rules."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from pipeline.store.tables import place_table
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: Max stay in ms by category; that of all others under OTHERS.
Stays = Mapping[str, int]
OTHERS: Final = ""


def stay_of(stays: Stays, category: str) -> int:
    """The max stay of a category, in ms."""
    return stays.get(category, stays[OTHERS])


def followed(client: Client, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Stays]:
    """What the visits of these places (topic, partition) follow, where that is known. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query("SELECT topic, partition, stays FROM stay_rows FINAL").result_rows
    known = {(row[0], int(row[1])): json.loads(row[2]) for row in rows}
    return {place: known[place] for place in places if place in known}


def followed_table(places: Sequence[tuple[str, int]], stays: Stays, version: int) -> pa.Table:
    """Rows of `stay_rows`: the visits of these places follow `stays`."""
    return place_table(places, version, stays=pa.scalar(json.dumps(dict(stays), sort_keys=True)))
