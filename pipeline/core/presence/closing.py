"""A category's stays by block of arrival: how long people stay of themselves, and which stays were ended by closing.

Before the evening people leave when they like. Near the closing hour many stays end before they would have: such a stay tells
only that its own length is above what was seen, which matters where checking out depends on that length. Closing hours are not
known and differ between venues, so they are read off the leaving rates: what exceeds the category's own is closing.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.core.presence.grid import BLOCKS, CENTRES, COMPARED_BLOCKS, STAY_BIN, STEP, STEPS
from pipeline.core.presence.smoothing import Floats, finer, smooth_density, spread_minutes

#: How far a block's own stays may lie from the category's, in steps, and the spread of that from one block to the next.
_MOST_SHIFT: Final = 20
_SHIFT_SPREAD: Final = 3.0
#: Twice the log-likelihood at which one step's leaving is taken for closing: two standard deviations.
_CLOSING: Final = 4.0
#: Visits for which the fitted law counts beside a block's own.
_FITTED_VISITS: Final = 60


@dataclass(frozen=True, slots=True)
class Stays:
    """Stays by block. `natural`: by the category's own law, around its middle, (blocks, 144); `seen`: as they were, (blocks,
    144), every row with sum 1; `closed`: share of the seen ones of a step that closing ended, (blocks, 144).
    """

    natural: Floats
    seen: Floats
    closed: Floats

    def tilted(self, power: float) -> Floats:
        """The seen stays weighted by what they would have been to the power, (blocks, 144), every row with sum 1."""
        own = np.exp(power * (CENTRES - (self.natural @ CENTRES)[:, None]))
        weighed, left = self.natural * own, self.natural
        beyond = _from_here_on(weighed) / np.maximum(_from_here_on(left), 1e-300)
        found = self.seen * ((1 - self.closed) * own + self.closed * beyond)
        return found / found.sum(axis=1, keepdims=True)


def stays_of(counts: Floats) -> Stays:
    """What counts of stays by block, (blocks, 144), tell; there must be some."""
    counts = spread_minutes(counts)
    shifts = np.arange(-_MOST_SHIFT, _MOST_SHIFT + 1)
    law = _own_law(counts)
    laws = np.array([np.interp(CENTRES - shift * STEP, CENTRES, law, left=0, right=0) for shift in shifts])
    rates = np.minimum(laws / np.maximum(_from_here_on(laws), 1e-12), 1.0)
    still_there = _from_here_on(counts)
    natural, seen, closed = np.zeros((3, BLOCKS, STEPS))
    before = 0
    for b in range(BLOCKS):
        expected = still_there[b] * rates
        ratio = np.log(np.maximum(counts[b], 1e-9) / np.maximum(expected, 1e-9))
        deviance = 2 * (counts[b] * ratio - counts[b] + expected)
        # Closing may end any number of stays; that nobody leaves, it does not explain.
        excess = counts[b] > expected
        cost = np.where(excess, np.minimum(deviance, _CLOSING), deviance).sum(axis=1)
        best = int(np.argmin(cost + ((shifts - before) / _SHIFT_SPREAD) ** 2))
        before = int(shifts[best])
        by_closing = excess[best] & (deviance[best] > _CLOSING)
        closed[b] = np.where(by_closing, 1 - expected[best] / np.maximum(counts[b], 1e-9), 0.0)
        natural[b] = laws[best] / laws[best].sum()
        rate = np.where(by_closing, counts[b] / np.maximum(still_there[b], 1e-9), rates[best])
        staying = np.cumprod(1 - np.minimum(rate, 1.0))
        fitted = np.append(1.0, staying[:-1]) - staying
        blended = counts[b] + _FITTED_VISITS * fitted / fitted.sum()
        seen[b] = blended / blended.sum()
    return Stays(natural, seen, closed)


def _own_law(counts: Floats) -> Floats:
    """The density of stays that nothing ends, (144,): of arrivals before 16:00, each block moved to the common middle.

    A category that nobody visits before 16:00 has only the stays that it has.
    """
    free = counts[:COMPARED_BLOCKS] if counts[:COMPARED_BLOCKS].sum() else counts
    middle = float(free.sum(axis=0) @ CENTRES) / free.sum()
    aligned = np.zeros(STEPS)
    for row in free[free.sum(axis=1) > 0]:
        moved = (row @ CENTRES / row.sum() - middle) / STEP
        at = np.clip(np.arange(STEPS) - moved, 0, STEPS - 1.001)
        low = at.astype(np.int64)
        aligned += np.bincount(low, row * (1 - at + low), STEPS) + np.bincount(low + 1, row * (at - low), STEPS)
    return finer(smooth_density(aligned.reshape(-1, STAY_BIN).sum(axis=1)))


def _from_here_on(counts: npt.NDArray[np.floating]) -> Floats:
    found: Floats = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    return found
