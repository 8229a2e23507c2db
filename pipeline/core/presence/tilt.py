"""How the stays of those who do not check out differ from the others', learned from what follows a stay.

The time to the next check-in elsewhere is seen for both groups, the stay only for those who check out. If what follows a stay is
alike for both, that time is a shadow of the stay (Miao et al., shadow variables for data missing not at random), and the
others' stays are the seen ones weighted by stay^tilt (exponential tilting: Riddles, Kim & Im 2016): exact where the log odds of
a check-out are linear in the log stay. Without a pace of their own, a slower walk would pass for a longer stay.

One category's evidence may not tell the two apart. People are much the same at all of them, so tilts and paces of categories
are drawn from one distribution each, whose centre and width come from all of them together (a hierarchical model).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from pipeline.core.presence.grid import CENTRES, MINUTES_OF_DAY, STAY_BIN, STEP, STEP_OF_MINUTE, STEPS, WALK_BIN
from pipeline.core.presence.smoothing import Floats, finer, smooth_density, spread_minutes

#: Spreads of what is believed before the evidence: of the tilt in standard deviations of the log stay, of the log pace. Chosen,
#: not measured: checking out depends on the stay, and the pace on checking out, but neither by much.
TILT_SPREAD: Final = 0.7
PACE_SPREAD: Final = 0.3
#: How far a category's tilt and pace may be from the common ones: widths that are weighed against each other. Chosen as well.
_TILT_WIDTHS: Final = (0.1, 0.2, 0.4, 0.8)
_PACE_WIDTHS: Final = (0.05, 0.1, 0.2, 0.4)
#: The values that are weighed against each other: out to three spreads.
_TILTS: Final = np.linspace(-3 * TILT_SPREAD, 3 * TILT_SPREAD, 211)
_PACES: Final = np.linspace(-3 * PACE_SPREAD, 3 * PACE_SPREAD, 37)
#: Share of the seen times that nothing explains: keeps a tail of the curves from ruling out what was seen.
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


@dataclass(frozen=True, slots=True)
class Followed:
    """One category's visits that have a next check-in.

    walks: with a check-out, by stay and walk, (48, 48). unclosed: without one, by the time to the next check-in, (144,).
    log_spread: standard deviation of the log stay. mix: what the others' venues and hours make of the stay.
    """

    walks: Floats
    unclosed: Floats
    log_spread: float
    mix: Mix


#: Of a category without evidence.
NOT_FOLLOWED: Final = Followed(np.zeros((48, 48)), np.zeros(STEPS), 1.0, Mix(0.0, 0.0, 1.0))


def tilts_of(categories: Sequence[Followed]) -> list[Tilt]:
    """The posterior means and spreads of the tilts, in the order of the categories."""
    likelihoods = [np.exp(found - found.max()) for found in map(_log_likelihood, categories)]
    posteriors = _posteriors(likelihoods)
    return [_summary(posterior, one.log_spread) for posterior, one in zip(posteriors, categories, strict=True)]


def _log_likelihood(one: Followed) -> Floats:
    """Of every tilt and pace, (211, 37): the times to the others' next check-in, against those that stays and walks make."""
    seen = one.unclosed.reshape(-1, WALK_BIN).sum(axis=1)
    checked, others = one.walks.sum(), seen.sum()
    found = np.zeros((len(_TILTS), len(_PACES)))
    if not (checked and others):
        return found
    stays = finer(smooth_density(spread_minutes(one.walks.sum(axis=1))))
    middle = float(stays @ CENTRES)
    slope, walks = _walks_given(one.walks, middle)
    # Powers act on the stay relative to the category's own middle, to keep the numbers small; a constant factor cancels.
    tilted = np.exp(np.outer(_TILTS / one.log_spread, CENTRES - middle)) * stays
    tilted /= tilted.sum(axis=1, keepdims=True)
    others_stays = np.exp(one.mix.others(np.asarray(CENTRES, np.float64)))[:, None]
    log_walk = CENTRES[None, :] + slope * (CENTRES[:, None] - middle)
    for j, pace in enumerate(_PACES):
        # The difference of two whole minutes is right on average, and the bins are of minutes + ½.
        paced = np.exp(pace) * np.maximum(np.exp(log_walk) - 0.5, 0.0)
        minutes = np.minimum((others_stays + paced).astype(np.int64), MINUTES_OF_DAY - 1)
        to = STEP_OF_MINUTE[minutes] // WALK_BIN + len(seen) * np.arange(STEPS)[:, None]
        times = np.bincount(to.ravel(), np.tile(walks, STEPS), STEPS * len(seen)).reshape(STEPS, -1)
        expected = (1 - _UNEXPLAINED) * (tilted @ times) + _UNEXPLAINED / len(seen)
        found[:, j] = np.log(expected) @ seen
    # What is expected is known only as well as the checked-out cases tell it: as if there were no more of the others.
    return found * checked / (checked + others)


def _walks_given(walks: Floats, middle: float) -> tuple[float, Floats]:
    """The density of the log walk at a middling stay, (144,), and by how much a stay longer by one shifts it."""
    walks = spread_minutes(spread_minutes(walks.T).T)
    stay, walk = CENTRES.reshape(-1, STAY_BIN).mean(axis=1), CENTRES.reshape(-1, WALK_BIN).mean(axis=1)
    count = float(walks.sum())
    away: Floats = stay - float(walks.sum(axis=1) @ stay) / count
    slope = float(away @ walks @ walk) / max(float(walks.sum(axis=1) @ away**2), STEP**2 * count)
    # In bins, each case shared between the two that its middling walk lies between.
    at = np.clip((walk[None, :] - slope * (stay[:, None] - middle) - walk[0]) / (WALK_BIN * STEP), 0, len(walk) - 1.001)
    low = at.astype(np.int64)
    upper = (at - low) * walks
    shared = np.bincount(np.append(low, low + 1), np.append(walks - upper, upper), len(walk)).astype(np.float64)
    return slope, finer(smooth_density(shared))


def _posteriors(likelihoods: Sequence[Floats]) -> list[Floats]:
    """Of each category the posterior over (tilt, pace), given all the others'."""
    log_prior = -0.5 * ((_TILTS[:, None] / TILT_SPREAD) ** 2 + (_PACES[None, :] / PACE_SPREAD) ** 2)
    # By category, one posterior for each pair of widths, and the logarithm of what it weighs.
    parts: list[list[tuple[float, Floats]]] = [[] for _ in likelihoods]
    for tilt_width, pace_width in product(_TILT_WIDTHS, _PACE_WIDTHS):
        near, beside = _near(_TILTS, tilt_width), _near(_PACES, pace_width)
        # What each category tells about the common values, its own integrated out.
        told = [np.log(np.maximum(near @ one @ beside.T, 1e-300)) for one in likelihoods]
        common = log_prior + sum(told, np.zeros_like(log_prior))
        for one, own, part in zip(likelihoods, told, parts, strict=True):
            others = common - own
            peak = float(others.max())
            part.append((peak, one * (near.T @ np.exp(others - peak) @ beside)))
    posteriors = []
    for part in parts:
        most = max(weight for weight, _ in part)
        total = sum((np.exp(weight - most) * one for weight, one in part), np.zeros_like(log_prior))
        posteriors.append(total / total.sum())
    return posteriors


def _near(values: Floats, width: float) -> Floats:
    """How likely each value (columns) is around each common one (rows)."""
    density = np.exp(-0.5 * ((values[None, :] - values[:, None]) / width) ** 2)
    found: Floats = density / density.sum(axis=1, keepdims=True)
    return found


def _summary(posterior: Floats, log_spread: float) -> Tilt:
    by_tilt = posterior.sum(axis=1)
    mean = float(by_tilt @ _TILTS)
    # Closer than the values stand apart, the posterior cannot tell.
    spread = max(float(np.sqrt(by_tilt @ (_TILTS - mean) ** 2)), float(_TILTS[1] - _TILTS[0]))
    return Tilt(mean / log_spread, spread / log_spread, float(posterior.sum(axis=0) @ _PACES))
