"""How full a venue is, in words: the same for the API, the page and the map."""

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Level = Literal["unknown", "quiet", "busy", "nearly_full", "full"]

#: In this order; `unknown` is a venue without a capacity.
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
#: Shares of the capacity from which a venue is busy, nearly full (below it a crowding alert clears) and full (one is raised).
BOUNDS: Final = (0.5, 0.9, 1.0)


def level_codes(persons: NDArray[np.float64], capacity: NDArray[np.float64]) -> NDArray[np.int8]:
    """The index in LEVELS of each venue; `capacity` is NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = 1 + np.searchsorted(np.array(BOUNDS), np.where(capacity > 0, persons / capacity, 0.0), "right")
    return np.where(capacity > 0, codes, 0).astype(np.int8)


def level_of(persons: float, capacity: float | None) -> Level:
    """The level of one venue."""
    if not capacity:
        return "unknown"
    return LEVELS[1 + sum(persons / capacity >= bound for bound in BOUNDS)]
