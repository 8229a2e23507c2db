"""What the store said last about the present: every venue's occupancy, in columns, in the order of the ids."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from pipeline.api.levels import level_codes
from pipeline.api.questions import sql
from pipeline.api.reader import ask_arrow, ask_rows

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: The columns of `Places.texts`.
TEXTS: Final = ("name", "category", "area", "timezone")
#: What of a venue is estimated, and what changes its row.
ESTIMATE: Final = ("expected", "low", "high", "share")
_FIGURES: Final = ("occupancy", "capacity", *ESTIMATE)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the pipeline stands by the store: instants in ms since the epoch (0: none), counts of check-ins since the start."""

    clock: str
    as_of: int
    newest: int
    consumed: int
    accepted: int
    stored: int
    duplicates: int
    dead_lettered: int


@dataclass(frozen=True, slots=True)
class Places:
    """The venues' registered facts, by row; an unregistered venue has its id for a name and category unknown.

    `texts` is a table of name, category, area and timezone. `version` tells one state of the registry from another.
    """

    version: tuple[int, int]
    ids: pa.Array
    index: dict[str, int]
    texts: pa.Table
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]

    def text(self, column: str, row: int) -> str | None:
        """One venue's name, category, area or time zone."""
        value: str | None = self.texts[column][row].as_py()
        return value


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reading. Arrays are by row of `places`; NaN where there is no capacity or no estimate."""

    standing: Standing
    places: Places
    occupancy: NDArray[np.float64]
    capacity: NDArray[np.float64]
    expected: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    share: NDArray[np.float64]
    level: NDArray[np.int8]
    model_version: str | None

    def __len__(self) -> int:
        return len(self.occupancy)

    def row(self, venue_id: str) -> int | None:
        """A venue's row; None if there is no such venue."""
        return self.places.index.get(venue_id)

    def changed_since(self, other: "Snapshot") -> NDArray[np.bool_] | None:
        """Which rows differ from another reading of the same venues; None if the venues differ."""
        if other.places is not self.places or other.model_version != self.model_version:
            return None
        changed = np.zeros(len(self), np.bool_)
        for figure in _FIGURES:
            one, two = getattr(self, figure), getattr(other, figure)
            changed |= (one != two) & ~(np.isnan(one) & np.isnan(two))
        return changed


def read_snapshot(client: Client, before: Snapshot | None) -> Snapshot:
    """Read the present; what `before` knows of the registry is kept while it holds. Raises StoreUnavailableError."""
    # The clock first: figures may then be newer than as_of says, never older.
    standing = Standing(**ask_rows(client, sql("standing"))[0])
    newest = ask_rows(client, sql("registry_version"))[0]
    table = ask_arrow(client, sql("now"))
    ids = _whole(table["venue_id"])
    version = newest["records"], newest["newest"]
    places = before.places if before is not None else None
    if places is None or places.version != version or not places.ids.equals(ids):
        places = _read_places(client, ids, version)
    occupancy, capacity = _floats(table["occupancy"]), _floats(table["capacity"])
    models = pyarrow.compute.max(table["model_version"]).as_py()
    return Snapshot(
        standing,
        places,
        occupancy,
        capacity,
        _floats(table["expected"]),
        _floats(table["low"]),
        _floats(table["high"]),
        _floats(table["check_out_share"]),
        level_codes(occupancy, capacity),
        models,
    )


def _read_places(client: Client, ids: pa.Array, version: tuple[int, int]) -> Places:
    registered = ask_arrow(client, sql("registry"))
    where = pyarrow.compute.index_in(ids, _whole(registered["venue_id"]))
    rows = registered.take(where)
    texts = pa.table(
        {
            "name": pyarrow.compute.coalesce(pyarrow.compute.if_else(_empty(rows["name"]), None, rows["name"]), ids),
            "category": rows["category"].fill_null("unknown"),
            "area": rows["area"],
            "timezone": rows["timezone"],
        }
    ).combine_chunks()
    names = ids.to_pylist()
    return Places(
        version,
        ids,
        {name: row for row, name in enumerate(names)},
        texts,
        _floats(rows["latitude"]),
        _floats(rows["longitude"]),
    )


def _empty(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pyarrow.compute.equal(column, "")


def _whole(column: pa.ChunkedArray) -> pa.Array:
    array = column.cast(pa.string()).combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
