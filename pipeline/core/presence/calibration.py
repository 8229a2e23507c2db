"""How many people stand behind a scan, from head counts at the door: the one thing that scans cannot tell.

Gates or cameras count N people at a venue and minute; the model expects E named ones there. By category, ΣN/ΣE is the hidden
factor. It is taken robustly, because cameras fail: at a venue the weighted median of N/E with the weights E; over a category's
venues the mean of the logs with Huber's weights. It is then pulled towards 1, the more the less the counts say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.core.presence.grid import Integers

Floats = npt.NDArray[np.float64]

#: Counts of a category, and venues that they come from, below which nothing is learned of it.
FEWEST_COUNTS: Final = 20
FEWEST_VENUES: Final = 3
#: Fewer people expected than this, and chance alone makes the ratio: such a count is left out. The choice is by what is
#: expected, never by what was counted, so it does not bend the ratio.
LEAST_EXPECTED: Final = 5.0
#: What is believed before any count: no hidden people, give or take 20 %. Chosen, not measured.
_PRIOR_SPREAD: Final = 0.2
#: Spread of the factor between venues before any count, which counts as much as this many venues.
_VENUE_SPREAD: Final = 0.03
_VENUE_SPREAD_WEIGHT: Final = 3.0
#: Beyond so many standard deviations a venue's pull grows no further; with that, 95 % as efficient as the mean where nothing is
#: wrong (Huber 1964).
_HUBER: Final = 1.345
_ROUNDS: Final = 30
#: Factors outside are taken for a broken counter, or another door than the scans'.
_RANGE: Final = (0.2, 5.0)


@dataclass(frozen=True, slots=True)
class Hidden:
    """People behind a scan over those it names, from head counts; 1 where every scan names everybody.

    With M people behind a scan that names m, `mean`: ΣM/Σm; `square`: ΣM²/Σm²; `product`: ΣM·m/Σm². `spread`: standard deviation
    of the mean between venues, over the mean.
    """

    mean: float = 1.0
    square: float = 1.0
    product: float = 1.0
    spread: float = _VENUE_SPREAD


@dataclass(frozen=True, slots=True)
class HeadCounts:
    """Head counts beside what the model expects there and then; columns of equal length, in persons."""

    #: Codes of category and venue.
    category: Integers
    venue: Integers
    counted: Floats
    #: Named people expected, the standard deviation of that, and the sum over the same visits of the named persons' squares,
    #: weighed alike.
    expected: Floats
    deviation: Floats
    squares: Floats


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a category's head counts say; None where too few, of `counts` at `venues`, could be used."""

    hidden: Hidden | None
    counts: int
    venues: int


def calibrate(head: HeadCounts, categories: int) -> list[Calibration]:
    """The hidden factors of each category, 0 … `categories` − 1."""
    usable = head.expected >= LEAST_EXPECTED
    return [_calibrated(head, np.flatnonzero(usable & (head.category == c))) for c in range(categories)]


def _calibrated(head: HeadCounts, rows: Integers) -> Calibration:
    venues = np.unique(head.venue[rows])
    if len(rows) < FEWEST_COUNTS or len(venues) < FEWEST_VENUES:
        return Calibration(None, len(rows), len(venues))
    at = [rows[head.venue[rows] == venue] for venue in venues]
    ratios = np.array([_weighted_median(head.counted[i] / head.expected[i], head.expected[i]) for i in at])
    logs = np.log(np.clip(ratios, *_RANGE))
    # A venue's counts share the error of its stretch and share of check-outs: more of them do not make it smaller.
    unknown = np.array([float(np.mean(head.deviation[i] / head.expected[i])) ** 2 for i in at])
    between = _between(logs, unknown)
    middle, variance = _huber(logs, unknown + between)
    trust = _PRIOR_SPREAD**2 / (_PRIOR_SPREAD**2 + variance)
    mean = exp(trust * middle)
    # What is left unknown of the mean is the same at all venues of the category; a single one's interval must hold it too.
    spread = sqrt(between + trust * variance)
    return Calibration(
        hidden_of(mean, spread, float(head.expected[rows].sum() / head.squares[rows].sum())), len(rows), len(venues)
    )


def hidden_of(mean: float, spread: float, persons_per_square: float) -> Hidden:
    """The moments that belong to a mean, which head counts alone cannot tell apart.

    A mean above 1: every named person brings others along, a Poisson number with expectation `mean` − 1. Below 1: each named
    person is there with probability `mean`. persons_per_square: Σm/Σm².
    """
    chance = mean - 1 if mean >= 1 else mean * (1 - mean)
    return Hidden(mean, mean**2 + chance * persons_per_square, mean, spread)


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    low, high = np.searchsorted(reached, reached[-1] / 2, "left"), np.searchsorted(reached, reached[-1] / 2, "right")
    return float(values[order[low]] + values[order[min(int(high), len(order) - 1)]]) / 2


def _between(logs: Floats, unknown: Floats) -> float:
    """Variance of the log factor between venues: what differs more than the model's own uncertainty explains."""
    # From the median and the median distance to it, so that one broken counter does not make all venues uncertain.
    spread = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
    seen = max(spread**2 - float(np.median(unknown)), 0.0)
    weights = len(logs), _VENUE_SPREAD_WEIGHT
    return float(np.average([seen, _VENUE_SPREAD**2], weights=weights))


def _huber(logs: Floats, variances: Floats) -> tuple[float, float]:
    """Huber's mean of the venues' log factors, and its variance."""
    middle = float(np.median(logs))
    weights = 1 / variances
    for _ in range(_ROUNDS):
        off = np.abs(logs - middle) / np.sqrt(variances)
        weights = np.minimum(1.0, _HUBER / np.maximum(off, 1e-9)) / variances
        middle = float(np.average(logs, weights=weights))
    return middle, float(1 / weights.sum())


def thousandths(hidden: Sequence[Hidden]) -> npt.NDArray[np.uint16]:
    """As a model keeps them: mean, square, product and spread in thousandths, (C, 4)."""
    rows = [(one.mean, one.square, one.product, one.spread) for one in hidden]
    return np.rint(1000 * np.array(rows).reshape(-1, 4)).astype(np.uint16)


def from_thousandths(row: npt.NDArray[np.uint16]) -> Hidden:
    """One row of `thousandths` again."""
    return Hidden(*(int(value) / 1000 for value in row))
