"""What one closed day tells about stays: integer histograms, and how they come from the day's visits.

Two parts of a day, in whatever order and however cut, add up to the same evidence as the whole. Every array is one
`SELECT count() … GROUP BY` over the day's visits; the docstring of each names its keys.
"""

from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from pipeline.core.presence.grid import (
    BLOCK_OF_MINUTE,
    BLOCKS,
    COMPARED_BLOCKS,
    MILLI_LOG_OF_MINUTE,
    MINUTES_OF_DAY,
    STAY_BIN,
    STEP_OF_MINUTE,
    STEPS,
    WALK_BIN,
    Integers,
)

#: In a column of minutes or categories: there is none.
NONE: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Counts of visits that began on one closed day. All arrays are int64; C categories, V venues.

    "Next" is the same visitor's next check-in at another venue that day.
    """

    #: All visits, shape (C, blocks). GROUP BY category, block.
    visits: Integers
    #: Visits with a check-out by their stay, shape (C, blocks, steps). GROUP BY category, block, step of the stay.
    stays: Integers
    #: Visits without a check-out that have a next, by the time from check-in to check-in, shape (C, blocks, C, steps).
    #: GROUP BY category, block, category of the next, step of that time.
    unclosed: Integers
    #: Visits begun before 16:00 with a check-out and a next not before it, by stay and by the walk from check-out to check-in,
    #: shape (C, C, 48, 48). GROUP BY category, category of the next, bin of the stay, bin of the walk.
    walks: Integers
    #: Visits begun before 16:00 with a check-out whose next came before it, shape (C, C).
    #: GROUP BY category, category of the next.
    inside: Integers
    #: Visits, shape (V,). GROUP BY venue.
    venue_visits: Integers
    #: Visits with a check-out, shape (V, blocks). GROUP BY venue, block.
    venue_stays: Integers
    #: Sum of the log stay, in thousandths, over visits with a check-out, shape (V,). GROUP BY venue.
    venue_log_stay: Integers

    @classmethod
    def none(cls, categories: int, venues: int) -> Self:
        """Evidence of nothing: what sums begin with."""
        stay_bins, walk_bins = STEPS // STAY_BIN, STEPS // WALK_BIN
        shapes = (
            (categories, BLOCKS),
            (categories, BLOCKS, STEPS),
            (categories, BLOCKS, categories, STEPS),
            (categories, categories, stay_bins, walk_bins),
            (categories, categories),
            (venues,),
            (venues, BLOCKS),
            (venues,),
        )
        return cls(*(np.zeros(shape, np.int64) for shape in shapes))

    def __add__(self, other: Self) -> Self:
        """The evidence of both parts of a day. Raises ValueError if they count other venues or categories."""
        if self.visits.shape != other.visits.shape or self.venue_visits.shape != other.venue_visits.shape:
            raise ValueError("evidence adds up only over the same categories and venues")
        return type(self)(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Evidence):
            return NotImplemented
        return all(np.array_equal(getattr(self, field.name), getattr(other, field.name)) for field in fields(self))

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Visits:
    """Columns of one closed day's visits, of equal length, of any integer type. NONE (−1) where there is nothing."""

    #: Codes 0 … V−1 and 0 … C−1.
    venue: npt.NDArray[np.integer]
    category: npt.NDArray[np.integer]
    #: Local minute of the day of the check-in, 0–1439.
    arrival: npt.NDArray[np.integer]
    #: Whole minutes from check-in to check-out; NONE without a check-out. Longer than a day counts as a day.
    stay: npt.NDArray[np.integer]
    #: Whole minutes from the check-in to the same visitor's next check-in at another venue, and that venue's category.
    next_after: npt.NDArray[np.integer]
    next_category: npt.NDArray[np.integer]


def gather(visits: Visits, categories: int, venues: int) -> Evidence:
    """Count the visits that began on one closed day, or any part of them."""
    out = Evidence.none(categories, venues)
    block = BLOCK_OF_MINUTE[visits.arrival]
    stay = np.minimum(visits.stay, MINUTES_OF_DAY - 1)
    following = np.minimum(visits.next_after, MINUTES_OF_DAY - 1)
    closed, followed = stay != NONE, following != NONE
    np.add.at(out.visits, (visits.category, block), 1)
    np.add.at(out.venue_visits, visits.venue, 1)

    i = np.flatnonzero(closed)
    np.add.at(out.stays, (visits.category[i], block[i], STEP_OF_MINUTE[stay[i]]), 1)
    np.add.at(out.venue_stays, (visits.venue[i], block[i]), 1)
    np.add.at(out.venue_log_stay, visits.venue[i], MILLI_LOG_OF_MINUTE[stay[i]])

    i = np.flatnonzero(~closed & followed)
    np.add.at(out.unclosed, (visits.category[i], block[i], visits.next_category[i], STEP_OF_MINUTE[following[i]]), 1)

    compared = closed & followed & (block < COMPARED_BLOCKS)
    i = np.flatnonzero(compared & (following < stay))
    np.add.at(out.inside, (visits.category[i], visits.next_category[i]), 1)

    i = np.flatnonzero(compared & (following >= stay))
    stay_bin = STEP_OF_MINUTE[stay[i]] // STAY_BIN
    walk_bin = STEP_OF_MINUTE[following[i] - stay[i]] // WALK_BIN
    np.add.at(out.walks, (visits.category[i], visits.next_category[i], stay_bin, walk_bin), 1)
    return out
