"""Venues whose scans fall far below their own pattern: the same hour of the same weekday in the weeks before."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Weeks looked back upon, and how many there must be: a median of two still needs both to be high.
WEEKS: Final = 8
FEWEST_WEEKS: Final = 2
#: Below so many persons expected in the hour nothing is said: an empty hour is then no surprise.
FEWEST_EXPECTED: Final = 30
#: How far one week's hour strays from another's beside chance, as a share. The project's assumption: weather, holidays nearby.
SPREAD: Final = 0.25
#: So many standard deviations below what is expected are far. At 3, chance and SPREAD alone do it in one hour of 700.
FAR: Final = 3.0


def undercounts(
    arrivals: NDArray[np.int64], before: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Which venues had far too few arrivals in an hour, what was expected, and the fewest that would not be far below it.

    `arrivals` (persons) has one number a venue, `before[venue]` those of the weeks before, at least FEWEST_WEEKS, 0 where there
    was nobody. Expected is their median, which one odd week does not move far; its variance that of Poisson counts, m, and of
    the spread between weeks, (SPREAD·m)².
    """
    expected = np.median(before, axis=1) if before.size else np.zeros(len(arrivals))
    fewest = np.maximum(expected - FAR * np.sqrt(expected + (SPREAD * expected) ** 2), 0.0)
    return (expected >= FEWEST_EXPECTED) & (arrivals < fewest), expected, fewest
