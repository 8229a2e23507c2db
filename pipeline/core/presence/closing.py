"""A category's stays by block of arrival: how long people stay of themselves, and which stays were ended by closing.

Before the evening people leave when they like. Near the closing hour many stays end before they would have: such a stay tells that
its own length is above what was seen, which matters where checking out depends on that length. Closing hours are not known and
differ between venues, so they are read off the leaving rates: what exceeds the category's own is closing.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.core.presence.grid import BLOCKS, CENTRES, COMPARED_BLOCKS, STEP, STEPS
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
    """What counts of stays by block, (blocks, 144), tell."""
    counts = spread_minutes(counts)
    law = _own_law(counts[:COMPARED_BLOCKS])
    middle = float(law @ CENTRES)
    ahead = _from_here_on(counts)
    natural, seen, closed = np.zeros((3, BLOCKS, STEPS))
    shifts = np.arange(-_MOST_SHIFT, _MOST_SHIFT + 1)
    rates = np.array([_rates(np.interp(CENTRES - shift * STEP, CENTRES, law, left=0, right=0)) for shift in shifts])
    before = 0.0
    for b in range(BLOCKS):
        expected = ahead[b] * rates
        excess = counts[b] > expected
        surprise = 2 * (
            counts[b] * np.log(np.maximum(counts[b], 1e-9) / np.maximum(expected, 1e-9)) - counts[b] + expected
        )
        cost = np.where(excess, np.minimum(surprise, _CLOSING), surprise).sum(axis=1)
        best = int(np.argmin(cost + ((shifts - before) / _SHIFT_SPREAD) ** 2))
        before = float(shifts[best])
        natural[b] = np.interp(CENTRES - before * STEP, CENTRES, law, left=0, right=0)
        natural[b] /= natural[b].sum()
        by_closing = excess[best] & (surprise[best] > _CLOSING)
        share = np.where(by_closing, 1 - expected[best] / np.maximum(counts[b], 1e-9), 0.0)
        rate = np.where(by_closing, counts[b] / np.maximum(ahead[b], 1e-9), rates[best])
        staying = np.cumprod(1 - np.minimum(rate, 1.0))
        fitted = np.append(1.0, staying[:-1]) - staying
        seen[b] = counts[b] + _FITTED_VISITS * fitted / max(fitted.sum(), 1e-9)
        seen[b] /= seen[b].sum()
        closed[b] = share
    return Stays(natural, seen, closed)


def _own_law(counts: Floats) -> Floats:
    """The density of stays that nothing ends, (144,): of the earlier blocks, each moved to the common middle."""
    total = counts.sum()
    common = float(counts.sum(axis=0) @ CENTRES) / total
    aligned = np.zeros(STEPS)
    for row in counts[counts.sum(axis=1) > 0]:
        moved = row @ CENTRES / row.sum() - common
        at = np.clip((np.arange(STEPS) - moved / STEP), 0, STEPS - 1.001)
        low = at.astype(np.int64)
        aligned += np.bincount(low, row * (1 - at + low), STEPS) + np.bincount(low + 1, row * (at - low), STEPS)
    return finer(smooth_density(aligned.reshape(-1, 3).sum(axis=1)))


def _rates(density: Floats) -> Floats:
    """Share of those still there who leave in each step."""
    found: Floats = density / np.maximum(_from_here_on(density), 1e-12)
    return np.minimum(found, 1.0)


def _from_here_on(counts: npt.NDArray[np.floating]) -> Floats:
    found: Floats = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    return found
