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

    `texts` is a table of name, category, area and timezone; `capacity` is NaN where there is none. `version` tells one state of
    the registry from another.
    """

    version: tuple[int, int]
    ids: pa.Array
    index: dict[str, int]
    texts: pa.Table
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    capacity: NDArray[np.float64]

    def text(self, column: str, row: int) -> str | None:
        """One venue's name, category, area or time zone."""
        value: str | None = self.texts[column][row].as_py()
        return value


@dataclass(frozen=True, slots=True)
class Estimates:
    """What is estimated, by row of `places`; NaN where nothing is. It changes with the minute, and a reading is each second's."""

    version: tuple[int, int]
    places: Places
    figures: dict[str, NDArray[np.float64]]
    model_version: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reading. Arrays are by row of `places`; NaN where there is no capacity or no estimate."""

    standing: Standing
    places: Places
    estimates: Estimates
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
    """The view `occupancy_now` in columns; of the registry and the estimates what `before` knows is kept while it holds.

    Asking the view itself takes two to three times the CPU time. Raises StoreUnavailableError.
    """
    # The clock first: figures may then be newer than as_of says, never older.
    standing = Standing(**ask_rows(client, sql("standing"))[0])
    registry = _version(client, "registry_version")
    counted = ask_arrow(client, sql("counted"))
    places = before.places if before is not None else None
    rows = pyarrow.compute.index_in(counted["venue_id"], places.ids) if places is not None else None
    if places is None or rows is None or places.version != registry or rows.null_count:
        places = _read_places(client, counted["venue_id"], registry)
        rows = pyarrow.compute.index_in(counted["venue_id"], places.ids)
    estimates = _read_estimates(client, places, before.estimates if before is not None else None)
    here = np.asarray(rows.to_numpy(), np.int64)
    occupancy, is_counted = np.zeros(len(places.ids)), np.zeros(len(places.ids), np.bool_)
    occupancy[here], is_counted[here] = _floats(counted["occupancy"]), True
    return Snapshot(
        standing,
        places,
        estimates,
        occupancy,
        places.capacity,
        **{name: np.where(is_counted, figures, np.nan) for name, figures in estimates.figures.items()},
        level=level_codes(occupancy, places.capacity),
        model_version=estimates.model_version,
    )


def _version(client: Client, question: str) -> tuple[int, int]:
    found = ask_rows(client, sql(question))[0]
    return found["records"], found["newest"]


def _read_estimates(client: Client, places: Places, before: Estimates | None) -> Estimates:
    version = _version(client, "estimates_version")
    if before is not None and before.version == version and before.places is places:
        return before
    table = ask_arrow(client, sql("estimates"))
    rows = pyarrow.compute.index_in(table["venue_id"], places.ids)
    known = table.filter(rows.is_valid())
    here = np.asarray(rows.drop_null().to_numpy(), np.int64)
    figures = {}
    for name in ESTIMATE:
        figures[name] = np.full(len(places.ids), np.nan)
        figures[name][here] = _floats(known[name])
    return Estimates(version, places, figures, pyarrow.compute.max(known["model_version"]).as_py())


def _read_places(client: Client, counted: pa.ChunkedArray, version: tuple[int, int]) -> Places:
    registered = ask_arrow(client, sql("registry"))
    known = pyarrow.compute.unique(pa.chunked_array([*_texts(registered["venue_id"]), *_texts(counted)], pa.string()))
    ids = known.take(pyarrow.compute.sort_indices(known))
    rows = registered.take(pyarrow.compute.index_in(ids, pa.chunked_array(_texts(registered["venue_id"]), pa.string())))
    texts = pa.table(
        {
            "name": pyarrow.compute.coalesce(pyarrow.compute.if_else(_empty(rows["name"]), None, rows["name"]), ids),
            "category": rows["category"].fill_null("unknown"),
            "area": rows["area"],
            "timezone": rows["timezone"],
        }
    ).combine_chunks()
    return Places(
        version,
        ids,
        {name: row for row, name in enumerate(ids.to_pylist())},
        texts,
        _floats(rows["latitude"]),
        _floats(rows["longitude"]),
        _floats(rows["capacity"]),
    )


def _texts(column: pa.ChunkedArray) -> list[pa.Array]:
    chunks: list[pa.Array] = column.cast(pa.string()).chunks
    return chunks


def _empty(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pyarrow.compute.equal(column, "")


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
