"""What the live page shows of one reading, as plain values ready for JSON, and what changed from one to the next. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow.compute
from numpy.typing import NDArray

from pipeline.api.levels import LEVELS, level_codes, level_of
from pipeline.api.snapshot import Places, Snapshot

#: Venues in each list of the fullest, and areas at most.
TOP: Final = 10
AREAS: Final = 100
#: The map shows at most so many places; venues nearer to each other than a cell is wide are one.
CELLS: Final = 2_000
#: The narrowest cell, in degrees: about 200 m.
_NARROWEST: Final = 0.002
#: How much wider the next one is that is tried.
_WIDER: Final = 1.25

Section = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Grid:
    """The map's places. `cell` is each venue's, -1 without a position; `fixed` is latitude, longitude, venues, and of a single
    venue its id and name."""

    places: Places
    cell: NDArray[np.int64]
    fixed: list[list[Any]]


@dataclass(frozen=True, slots=True)
class View:
    """All that the page shows. `figures`, `top`, `areas`, `alerts` and `health` are sent whole when they changed; of the
    map's cells, people and level (an index in LEVELS) of those that changed."""

    sections: dict[str, Section]
    grid: Grid | None
    people: NDArray[np.int64]
    level: NDArray[np.int8]

    def whole(self) -> Section:
        """The first message to a page."""
        cells = self.grid.fixed if self.grid else []
        now = [[int(people), int(level)] for people, level in zip(self.people, self.level, strict=True)]
        return {**self.sections, "levels": LEVELS, "map": {"fixed": cells, "now": now}}

    def delta(self, before: "View") -> Section | None:
        """What differs from `before`; None where only a whole message can tell."""
        if self.grid is not before.grid:
            return None
        changed: Section = {name: value for name, value in self.sections.items() if before.sections.get(name) != value}
        cells = np.flatnonzero((self.people != before.people) | (self.level != before.level))
        if len(cells):
            changed["cells"] = [[int(i), int(self.people[i]), int(self.level[i])] for i in cells]
        return changed


def iso(milliseconds: int) -> str:
    """An instant in ms since the epoch as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make_grid(places: Places) -> Grid:
    """Cells as narrow as their number allows."""
    known = np.flatnonzero(~(np.isnan(places.latitude) | np.isnan(places.longitude)))
    cell = np.full(len(places.ids), -1, np.int64)
    size, latitude, longitude = _NARROWEST, places.latitude[known], places.longitude[known]
    while True:
        # One number a square: numbers sort a hundred times as fast as pairs. There are fewer than a million in a row.
        squares = np.floor(latitude / size).astype(np.int64) * 1_000_000 + np.floor(longitude / size).astype(np.int64)
        _, codes, counts = np.unique(squares, return_inverse=True, return_counts=True)
        if len(counts) <= CELLS:
            break
        size *= _WIDER
    codes = codes.reshape(-1)
    cell[known] = codes
    middle_lat = np.bincount(codes, latitude, len(counts)) / np.maximum(counts, 1)
    middle_lon = np.bincount(codes, longitude, len(counts)) / np.maximum(counts, 1)
    fixed: list[list[Any]] = [
        [round(float(lat), 4), round(float(lon), 4), int(count), None, None]
        for lat, lon, count in zip(middle_lat, middle_lon, counts, strict=True)
    ]
    for row, code in zip(known.tolist(), codes.tolist(), strict=True):
        if counts[code] == 1:
            fixed[code][3:] = [places.ids[row].as_py(), places.text("name", row)]
    return Grid(places, cell, fixed)


def make_view(
    snapshot: Snapshot | None,
    grid: Grid | None,
    sparklines: Mapping[str, Sequence[int]],
    alerts: Section,
    health: Section,
) -> View:
    """Put one reading into the page's terms; without a reading there is health only."""
    if snapshot is None or grid is None:
        return View({"health": health, "alerts": alerts}, None, np.zeros(0, np.int64), np.zeros(0, np.int8))
    cells = len(grid.fixed)
    on_map = grid.cell >= 0
    people = np.bincount(grid.cell[on_map], snapshot.occupancy[on_map], cells).astype(np.int64)
    # Of many venues one is always full: a place is as full as its venues are together, of those with a capacity.
    with_room = on_map & (snapshot.capacity > 0)
    inside, room = (
        np.bincount(grid.cell[with_room], figure[with_room], cells).astype(np.float64)
        for figure in (snapshot.occupancy, snapshot.capacity)
    )
    level = level_codes(inside, room)
    sections = {
        "figures": _figures(snapshot),
        "top": _top(snapshot, sparklines),
        "areas": {"items": area_figures(snapshot)[:AREAS]},
        "alerts": alerts,
        "health": health,
    }
    return View(sections, grid, people, level)


def _figures(snapshot: Snapshot) -> Section:
    estimated = ~np.isnan(snapshot.expected)
    counted = snapshot.occupancy.sum()
    with np.errstate(invalid="ignore"):
        crowded = snapshot.expected >= snapshot.capacity
        share = snapshot.share[estimated]
        weight = snapshot.occupancy[estimated]
    return {
        "people": int(counted),
        # A venue without an estimate counts as counted, so that the two sums are of the same venues.
        "expected": round(float(np.where(estimated, snapshot.expected, snapshot.occupancy).sum()))
        if estimated.any()
        else None,
        "check_out_share": round(float(np.average(share, weights=weight)), 3) if weight.sum() else None,
        "venues": len(snapshot),
        "open": int(np.count_nonzero(snapshot.occupancy > 0)),
        "full": int(np.count_nonzero(snapshot.level == LEVELS.index("full"))),
        "nearly_full": int(np.count_nonzero(snapshot.level == LEVELS.index("nearly_full"))),
        "full_expected": int(np.count_nonzero(crowded)) if estimated.any() else None,
        "model_version": snapshot.model_version,
        "as_of": iso(snapshot.standing.as_of),
        "clock": snapshot.standing.clock,
    }


def top_rows(snapshot: Snapshot) -> dict[str, list[int]]:
    """The rows of the venues with the most people, and of the fullest by their capacity: as counted, and as expected."""

    def of_capacity(people: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(np.where(snapshot.capacity > 0, people / snapshot.capacity, 0))

    lists = {
        "people": snapshot.occupancy,
        "fullness": of_capacity(snapshot.occupancy),
        "expected_fullness": of_capacity(snapshot.expected),
    }
    found = {}
    for name, value in lists.items():
        most = np.argpartition(-value, min(TOP, len(value) - 1))[:TOP] if len(value) else np.zeros(0, np.int64)
        most = most[np.lexsort((most, -value[most]))]
        found[name] = [int(row) for row in most if value[row] > 0]
    return found


def _top(snapshot: Snapshot, sparklines: Mapping[str, Sequence[int]]) -> Section:
    def shown(row: int) -> Section:
        venue = venue_now(snapshot, row)
        expected = snapshot.expected[row]
        level = None if np.isnan(expected) else level_of(float(expected), venue["capacity"])
        return {**venue, "expected_level": level, "spark": [*sparklines.get(venue["venue_id"], ()), venue["occupancy"]]}

    return {name: [shown(row) for row in rows] for name, rows in top_rows(snapshot).items()}


def venue_now(snapshot: Snapshot, row: int) -> Section:
    """One venue as every list shows it."""
    places = snapshot.places
    occupancy, capacity = int(snapshot.occupancy[row]), snapshot.capacity[row]
    return {
        "venue_id": places.ids[row].as_py(),
        "name": places.text("name", row),
        "category": places.text("category", row),
        "area": places.text("area", row),
        "timezone": places.text("timezone", row),
        **presence(snapshot, row, occupancy, capacity),
    }


def presence(snapshot: Snapshot, row: int, occupancy: int, capacity: float) -> Section:
    """How many are at a venue, counted and estimated."""
    known = not np.isnan(capacity) and capacity > 0
    return {
        "occupancy": occupancy,
        "capacity": int(capacity) if not np.isnan(capacity) else None,
        "ratio": round(occupancy / float(capacity), 4) if known else None,
        "level": LEVELS[snapshot.level[row]],
        "estimate": _estimate(snapshot, row),
    }


def _estimate(snapshot: Snapshot, row: int) -> Section | None:
    if np.isnan(snapshot.expected[row]):
        return None
    share = float(snapshot.share[row])
    return {
        "expected": float(snapshot.expected[row]),
        "low": int(snapshot.low[row]),
        "high": int(snapshot.high[row]),
        "check_out_share": None if np.isnan(share) else share,
        "model_version": snapshot.model_version,
    }


def area_figures(snapshot: Snapshot) -> list[Section]:
    """Every area with its sums, by most people; venues without an area are under the empty name."""
    encoded = pyarrow.compute.fill_null(snapshot.places.texts["area"].combine_chunks(), "").dictionary_encode()
    if hasattr(encoded, "chunks"):
        encoded = encoded.chunk(0)
    codes = np.asarray(encoded.indices, np.int64)
    names = encoded.dictionary.to_pylist()

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(codes, values.astype(np.float64), len(names)).astype(np.float64)

    estimated = ~np.isnan(snapshot.expected)
    people = total(snapshot.occupancy)
    expected = total(np.where(estimated, snapshot.expected, snapshot.occupancy))
    has_estimate = total(estimated) > 0
    capacity = total(np.nan_to_num(snapshot.capacity))
    # Only people at venues with a capacity may be compared with it.
    of_capacity = total(np.where(snapshot.capacity > 0, snapshot.occupancy, 0))
    venues, open_ = np.bincount(codes, minlength=len(names)), total(snapshot.occupancy > 0)
    full = total(snapshot.level == LEVELS.index("full"))
    order = np.lexsort((np.arange(len(names)), -people))
    return [
        {
            "area": names[i],
            "venues": int(venues[i]),
            "open": int(open_[i]),
            "people": int(people[i]),
            "expected": round(float(expected[i]), 1) if has_estimate[i] else None,
            "capacity": int(capacity[i]),
            "ratio": round(float(of_capacity[i] / capacity[i]), 4) if capacity[i] else None,
            "full": int(full[i]),
        }
        for i in order.tolist()
    ]
