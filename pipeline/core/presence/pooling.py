"""How venues differ from their category: in the stay and in the share that checks out, each pulled towards the category.

A venue with little evidence is like its category, one with much like itself (empirical Bayes). The spreads between venues and
between a venue's days come from the evidence by moments, where there is enough.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.core.presence.grid import Integers
from pipeline.core.presence.smoothing import Floats

#: Assumed where the evidence cannot tell: spread of the log stay between venues, and between one venue's days; and the visits
#: for which the category's share of check-outs counts at a venue.
VENUE_SPREAD: Final = 0.2
DAY_SPREAD: Final = 0.08
SHARE_VISITS: Final = 20.0
#: Pairs of visits (n − 1, summed) from which on moments are believed.
_ENOUGH: Final = 200
_SHARE_VISITS_RANGE: Final = (2.0, 10_000.0)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Of each venue of a category: by how much the log of its stays exceeds the category's, and the spread of that today."""

    mean: Floats
    spread: Floats
    #: Variance of the log stay among the category's visits that these means explain.
    explained: float


@dataclass(frozen=True, slots=True)
class Share:
    """Of each venue of a category: the share of visits with a check-out, 0 < share < 1, and the spread of its log odds."""

    mean: Floats
    spread: Floats


def stretches(excess: Floats, stays: Integers, weights: Floats, variance: float) -> Stretch:
    """How the venues of a category stretch the stay.

    excess: sum of the log stay over that of the category's same blocks, shape (days, venues). stays: visits with a check-out,
    same shape. weights: of the days, (days,). variance: of the log stay within the category's blocks, between venues included.
    """
    pairs = np.maximum(stays - 1, 0).sum()
    venue_variance, day_variance = VENUE_SPREAD**2, DAY_SPREAD**2
    total, days_seen = stays.sum(axis=0), (stays > 0).sum(axis=0)
    if pairs >= _ENOUGH:
        some = np.maximum(stays, 1)
        # E[excess²] = n·variance + n(n−1)·(between venues + between days), and across two days only venues agree.
        both = float(((excess**2 - stays * variance) / some).sum() / pairs)
        day_variance = min(day_variance, max(both, 0.0))
        venue_variance = max(both - day_variance, 0.0)
        apart = total**2 - (stays**2).sum(axis=0)
        if apart[days_seen > 1].sum() >= _ENOUGH:
            per_venue = np.maximum(total, 1)
            across = (excess.sum(axis=0) ** 2 - (excess**2).sum(axis=0)) / per_venue
            venue_variance = float(np.clip(across.sum() / (apart / per_venue).sum(), 0.0, max(both, 0.0)))
            day_variance = max(both - venue_variance, 0.0)
    within = max(variance - venue_variance - day_variance, 0.1 * variance)
    seen = np.maximum(weights @ stays, 1e-9)
    present = weights[:, None] * (stays > 0)
    days = np.maximum(present.sum(axis=0) ** 2 / np.maximum((present**2).sum(axis=0), 1e-9), 1e-9)
    trust = venue_variance / np.maximum(venue_variance + within / seen + day_variance / days, 1e-12)
    mean = trust * (weights @ excess) / seen
    spread = np.sqrt(venue_variance * (1 - trust) + day_variance)
    explained = float(venue_variance * np.average(trust, weights=np.maximum(total, 1e-9))) if len(total) else 0.0
    return Stretch(mean, spread, explained)


def shares(visits: Floats, checked: Floats) -> Share:
    """The share of check-outs of the venues of a category, from their weighed counts of all visits and of those checked out."""
    everyone = float(visits.sum())
    # Half a visit of either kind: a share of 0 or 1 is never certain.
    common = (checked.sum() + 0.5) / (everyone + 1.0)
    believed = SHARE_VISITS
    pairs = np.maximum(visits - 1, 0).sum()
    if pairs >= _ENOUGH:
        # E[(checked − n·share)²] = n·share(1−share) + n(n−1)·(between venues).
        binomial = common * (1 - common)
        between = float((((checked - visits * common) ** 2 - visits * binomial) / np.maximum(visits, 1)).sum() / pairs)
        believed = float(np.clip(binomial / max(between, 1e-9) - 1, *_SHARE_VISITS_RANGE))
    mean = (checked + believed * common) / (visits + believed)
    spread = 1 / np.sqrt((visits + believed + 1) * mean * (1 - mean))
    return Share(mean, spread)
