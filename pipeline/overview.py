"""All venues at a glance: a bounded number of figures however many there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: At most so many categories and areas are told apart; the others are `OTHER`.
MOST_NAMES: Final = 50
#: The fullest venues that are shown.
MOST_VENUES: Final = 10
OTHER: Final = "other"
#: What a venue is called by its occupancy over its capacity, and from which ratio on.
FULLNESS: Final = (("empty", 0.0), ("below_half", 0.0), ("half", 0.5), ("near", 0.9), ("full", 1.0))
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Overview:
    """Venues by (category, fullness); persons present by area; the highest ratios, falling; alerts in force by level."""

    venues: Mapping[tuple[str, str], int]
    persons: Mapping[str, int]
    fullest: Sequence[float]
    alerts: Mapping[str, int]


NOTHING_SEEN: Final = Overview({}, {}, (), {})


class Groups:
    """Names of venues' groups (categories, areas) as small integers."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._of_venue: list[int] = []

    def add(self, name: str) -> None:
        """The next venue belongs to this group."""
        self._of_venue.append(self._codes.setdefault(name, len(self._codes)))

    @property
    def count(self) -> int:
        """Venues so far."""
        return len(self._of_venue)

    def bounded(self, weight: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]]:
        """The names of the heaviest groups and OTHER, and each venue's place among them; `weight` by venue."""
        of_venue = np.array(self._of_venue, np.int64)
        names = list(self._codes)
        weights = np.bincount(of_venue, weights=weight, minlength=len(names))
        kept = np.argsort(-weights, kind="stable")[:MOST_NAMES]
        place = np.full(len(names), len(kept), np.int64)
        place[kept] = np.arange(len(kept))
        return [*(names[i] for i in kept), OTHER], place[of_venue]


def overview(
    occupancy: NDArray[np.int32],
    capacity: NDArray[np.int32],
    categories: Groups,
    areas: Groups,
    alerts: Mapping[str, int],
) -> Overview:
    """From each venue's persons present and capacity (NONE where unknown), and its groups."""
    persons = np.maximum(occupancy.astype(np.int64), 0)
    known = capacity > 0
    ratio = np.where(known, persons / np.maximum(capacity, 1), 0.0)
    bounds = np.array([bound for _, bound in FULLNESS[2:]])
    band = np.where(persons == 0, 0, 1 + np.searchsorted(bounds, ratio, side="right"))
    band = np.where(known, band, len(FULLNESS))
    bands = [*(name for name, _ in FULLNESS), UNKNOWN]
    names, place = categories.bounded(np.ones(len(persons), np.int64))
    counts = np.bincount(place * len(bands) + band, minlength=len(names) * len(bands)).reshape(-1, len(bands))
    venues = {
        (name, bands[b]): int(counts[i, b])
        for i, name in enumerate(names)
        for b in range(len(bands))
        if counts[i].any()
    }
    names, place = areas.bounded(persons)
    present = np.bincount(place, weights=persons, minlength=len(names))
    by_area = {name: int(present[i]) for i, name in enumerate(names) if present[i] or name != OTHER}
    fullest = -np.sort(-ratio[known & (persons > 0)])[:MOST_VENUES]
    return Overview(venues, by_area, fullest.tolist(), dict(alerts))
