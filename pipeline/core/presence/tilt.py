"""How the stays of those who do not check out differ from the others', learned from what follows a stay.

The time to the next check-in elsewhere is seen for both groups, the stay only for those who check out. If what follows a stay is
alike for both, that time is a shadow of the stay (Miao et al., shadow variables for data missing not at random), and the
others' stays are the seen ones weighted by stay^tilt (exponential tilting: Riddles, Kim & Im 2016). Without a pace of their own,
a slower walk would pass for a longer stay.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.core.presence.grid import CENTRES, STAY_BIN, STEP, STEPS, WALK_BIN

Floats = npt.NDArray[np.float64]

#: Spreads of what is believed before the evidence: of the tilt in standard deviations of the log stay, of the log pace. Chosen,
#: not measured: checking out depends on the stay, and the pace on checking out, but neither by much.
TILT_SPREAD: Final = 0.7
PACE_SPREAD: Final = 0.3
#: The values that are weighed against each other: out to three spreads.
_TILTS: Final = np.linspace(-3 * TILT_SPREAD, 3 * TILT_SPREAD, 211)
_PACES: Final = np.linspace(-3 * PACE_SPREAD, 3 * PACE_SPREAD, 37)
#: Points that stand for a bin, by stay and by walk: its middle alone would pile the sums up in few bins.
_POINTS: Final = 3
#: Share of the seen times that nothing explains: keeps an empty bin of the table from ruling out what was seen.
_UNEXPLAINED: Final = 0.002


@dataclass(frozen=True, slots=True)
class Tilt:
    """The others' stays have the density of the seen ones times stay^`power`; `spread` is the power's standard deviation."""

    power: float
    spread: float
    #: Log of how much slower they get to the next check-in.
    pace: float


@dataclass(frozen=True, slots=True)
class Mix:
    """What the others' log stays are for their venues and hours alone, which is no tilt: another middle, another width."""

    middle: float
    others_middle: float
    widening: float

    def others(self, log_stay: Floats) -> Floats:
        """A seen log stay as it would be at the others' venues and hours."""
        return self.others_middle + self.widening * (log_stay - self.middle)


def tilt_of(walks: Floats, closed: Floats, unclosed: Floats, log_spread: float, mix: Mix) -> Tilt:
    """The posterior mean and spread of the tilt of one category.

    walks: visits with a check-out by stay and walk, (48, 48). closed, unclosed: visits with and without a check-out by the time
    to the next check-in, (144,).
    log_spread: standard deviation of the log stay. mix: what the others' venues and hours make of the stay.

    A bin's count is negative binomial: Poisson around an expectation that is known only as well as the bin's checked-out cases
    tell it.
    """
    seen, own = (times.reshape(-1, WALK_BIN).sum(axis=1) for times in (unclosed, closed))
    checked, others = walks.sum(), seen.sum()
    # Powers act on the stay relative to the category's own middle, to keep the numbers small; a constant factor cancels.
    stays = _points(STAY_BIN)
    middle = np.average(stays.mean(axis=1), weights=walks.sum(axis=1)) if checked else 0.0
    tilted = np.exp(np.outer(_TILTS / log_spread, stays.mean(axis=1) - middle))
    log_posterior = -0.5 * ((_TILTS[:, None] / TILT_SPREAD) ** 2 + (_PACES[None, :] / PACE_SPREAD) ** 2)
    if checked and others:
        known = own + 0.5
        # Bins blur the sums. What they make of the checked-out visits' own times, which are known, corrects for it.
        sharper = (own + 0.5) / (_table(walks, stays, 0.0).sum(axis=0) + 0.5)
        for j, pace in enumerate(_PACES):
            expected = tilted @ _table(walks, mix.others(stays), pace) * sharper
            expected /= expected.sum(axis=1, keepdims=True)
            expected = others * ((1 - _UNEXPLAINED) * expected + _UNEXPLAINED / len(seen))
            log_posterior[:, j] += np.log(expected) @ seen - np.log(expected + known) @ (seen + known)
    posterior = np.exp(log_posterior - log_posterior.max())
    posterior /= posterior.sum()
    by_tilt = posterior.sum(axis=1)
    mean = float(by_tilt @ _TILTS)
    spread = float(np.sqrt(by_tilt @ (_TILTS - mean) ** 2))
    # Closer than the values stand apart, the posterior cannot tell.
    spread = max(spread, float(_TILTS[1] - _TILTS[0]))
    return Tilt(mean / log_spread, spread / log_spread, float(posterior.sum(axis=0) @ _PACES))


def _points(bin_steps: int) -> Floats:
    """Log minutes of the points of every bin, shape (bins, points)."""
    starts = CENTRES[::bin_steps] - STEP / 2
    return starts[:, None] + (np.arange(_POINTS) + 0.5) / _POINTS * bin_steps * STEP


def _table(walks: Floats, stays: Floats, pace: float) -> Floats:
    """Visits by stay and by stay + e^pace · walk, shape (48, 48)."""
    bins, width = STEPS // WALK_BIN, WALK_BIN * STEP
    # The difference of two whole minutes is right on average, and the bins are of minutes + ½.
    paced = np.exp(pace) * np.maximum(np.exp(_points(WALK_BIN)) - 0.5, 0.0)
    sums = np.exp(stays)[:, None, :, None] + paced[None, :, None, :]
    to = np.clip((np.log(sums) / width).astype(np.int64), 0, bins - 1)
    rows = np.arange(len(stays))[:, None, None, None]
    weights = np.broadcast_to(walks[:, :, None, None] / _POINTS**2, to.shape)
    table = np.bincount((rows * bins + to).ravel(), weights.ravel(), len(stays) * bins)
    return table.astype(np.float64).reshape(len(stays), bins)
