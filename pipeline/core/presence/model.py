"""The model of a day: curves of stay by category and arrival block, and how each venue differs. Frozen integers with a version.

A model is a function of the closed days' evidence and of the stated assumptions, of nothing else. Like the policy it is an input
of the estimate: the same scans and the same model give the same numbers, on any machine and in any number of shards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from hashlib import sha256
from math import erf, exp, log, sqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.core.presence.calibration import Hidden, thousandths
from pipeline.core.presence.closing import Stays, stays_of
from pipeline.core.presence.evidence import Evidence
from pipeline.core.presence.grid import BLOCKS, CENTRES, COMPARED_BLOCKS, EDGES, STEP, STEPS, Integers
from pipeline.core.presence.pooling import DAY_SPREAD, VENUE_SPREAD, Share, Stretch, shares, stretches
from pipeline.core.presence.smoothing import Floats
from pipeline.core.presence.tilt import NOT_FOLLOWED, TILT_SPREAD, Followed, Mix, Tilt, tilts_of

#: A probability of one, in 16 bits.
ONE: Final = 65_535
#: Arrival bins of open visits at a venue.
BINS: Final = 64
#: Closed days that a model looks back on, the days in which a day's weight halves, and the weight of yesterday.
DAYS: Final = 28
HALF_LIFE: Final = 7.0
_FULL_WEIGHT: Final = 1024
#: Check-outs of a category in those days below which nothing is learned.
FEWEST_CHECK_OUTS: Final = 50
#: Visits for which the category counts in each of its blocks.
_CATEGORY_VISITS: Final = 60
#: A pair of categories closes (the next check-in proves the visit's end) with at least so many checked-out cases, and less than
#: this share of them still inside.
_FEWEST_PAIRS: Final = 30
_INSIDE: Final = 0.02
#: Classes of venues: the stretch in steps of the grid; the log odds of a check-out in eighths.
MOST_STRETCH: Final = 20
ODDS_STEP: Final = 0.125
MOST_ODDS: Final = 64


class Source(IntEnum):
    """Where a category's curves come from."""

    #: There is no estimate.
    NONE = 0
    #: An assumed dwell, before there is evidence.
    ASSUMED = 1
    LEARNED = 2


@dataclass(frozen=True, slots=True)
class Dwell:
    """An assumed lognormal stay: median in minutes, and sigma of its log."""

    median: float
    sigma: float


@dataclass(frozen=True, slots=True)
class Kind:
    """What is given of a category: the width of its arrival bins in minutes, and a dwell for want of evidence, or None."""

    bin_minutes: int
    assumed: Dwell | None = None


def bin_minutes_of(dwell: Dwell) -> int:
    """The narrowest width of 1, 2, 4, 8 or 16 minutes at which 64 bins hold all but the longest 0.05 % of such stays."""
    longest = dwell.median * exp(3.3 * dwell.sigma)
    return next((width for width in (1, 2, 4, 8) if width * BINS >= longest), 16)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Curves and venues in integers. C categories, V venues; curves are uint16 (65535 = 1) at the 145 edges of the age grid."""

    #: Source and width of the arrival bins in minutes by category, (C,) each.
    source: npt.NDArray[np.uint8]
    bin_minutes: npt.NDArray[np.uint8]
    #: Share of those who check out, and of the others, whose stay is longer than an age: (C, blocks, 145).
    checked: npt.NDArray[np.uint16]
    others: npt.NDArray[np.uint16]
    #: The others' with the tilt one standard deviation lower and higher.
    others_low: npt.NDArray[np.uint16]
    others_high: npt.NDArray[np.uint16]
    #: Share of the others' visits that count as open at an age: 1 unless a next check-in elsewhere closes a visit.
    open_others: npt.NDArray[np.uint16]
    #: Pairs of categories of which the second proves the end of a visit to the first, (C, C) of 0 and 1.
    closes: npt.NDArray[np.uint8]
    #: Tilt and log pace of the others, in thousandths, (C,). For people; the curves hold them already.
    tilt: npt.NDArray[np.int16]
    pace: npt.NDArray[np.int16]
    #: By venue, (V,): category; stretch of the log stay in steps of 0.05; log odds of a check-out in eighths.
    category: npt.NDArray[np.int16]
    stretch: npt.NDArray[np.int8]
    odds: npt.NDArray[np.int8]
    #: Their standard deviations, in thousandths of the log stay and of the log odds.
    stretch_spread: npt.NDArray[np.uint16]
    odds_spread: npt.NDArray[np.uint16]
    #: People behind a scan by category: mean, square, product and spread of `Hidden` in thousandths, (C, 4).
    hidden: npt.NDArray[np.uint16]
    #: Why a category has no estimate, or an assumed one; empty where it is learned.
    reasons: tuple[str, ...]
    #: SHA-256, in hex, of all of the above but the reasons.
    version: str


def fit(
    days: Mapping[int, Evidence], today: int, category: Integers, kinds: Sequence[Kind], *, moved_on: bool = False
) -> Model:
    """The model for `today` from closed days, by their number; of these the 28 before today count.

    category: of each venue, (V,). moved_on: whether, in the numbers to be estimated from, a next check-in elsewhere of a pair
    that closes (`Model.closes`) ends a visit without a check-out. The order of the days does not matter.
    """
    ages = {today - 1 - day: evidence for day, evidence in days.items() if today - DAYS <= day < today}
    used = [ages[age] for age in sorted(ages)] or [Evidence.none(len(kinds), len(category))]
    weights = np.array(
        [round(_FULL_WEIGHT * 2 ** (-age / HALF_LIFE)) for age in sorted(ages)] or [_FULL_WEIGHT], np.int64
    )
    pooled = _Pooled(used, weights)
    begun = [_begun(pooled, c, category == c) for c in range(len(kinds))]
    tilts = tilts_of([one.followed for one in begun])
    curves = [_curves_of(pooled, c, kinds[c], begun[c], tilts[c], moved_on) for c in range(len(kinds))]
    stretch, stretch_spread, log_odds, odds_spread = np.zeros((4, len(category)))
    stretch_spread += sqrt(VENUE_SPREAD**2 + DAY_SPREAD**2)
    for c, found in enumerate(curves):
        here = category == c
        if found.stretch is not None:
            stretch[here], stretch_spread[here] = found.stretch.mean, found.stretch.spread
        log_odds[here], odds_spread[here] = np.log(found.share.mean / (1 - found.share.mean)), found.share.spread
    arrays: dict[str, Any] = {
        "source": np.array([found.source for found in curves], np.uint8),
        "bin_minutes": np.array([kind.bin_minutes for kind in kinds], np.uint8),
        "checked": _sixteen_bits([found.checked for found in curves]),
        "others": _sixteen_bits([found.others[0] for found in curves]),
        "others_low": _sixteen_bits([found.others[1] for found in curves]),
        "others_high": _sixteen_bits([found.others[2] for found in curves]),
        "open_others": _sixteen_bits([found.open_others for found in curves]),
        "closes": np.array([pooled.closes(c) for c in range(len(kinds))], np.uint8),
        "tilt": np.array([round(1000 * found.tilt.power) for found in curves], np.int16),
        "pace": np.array([round(1000 * found.tilt.pace) for found in curves], np.int16),
        "category": category.astype(np.int16),
        "stretch": np.clip(np.rint(stretch / STEP), -MOST_STRETCH, MOST_STRETCH).astype(np.int8),
        "odds": np.clip(np.rint(log_odds / ODDS_STEP), -MOST_ODDS, MOST_ODDS).astype(np.int8),
        "stretch_spread": np.clip(np.rint(1000 * np.hypot(stretch_spread, STEP / sqrt(12))), 0, ONE).astype(np.uint16),
        "odds_spread": np.clip(np.rint(1000 * np.hypot(odds_spread, ODDS_STEP / sqrt(12))), 0, ONE).astype(np.uint16),
        "hidden": thousandths([Hidden()] * len(kinds)),
    }
    # Whoever is there counts as open, whatever the two curves' rounding and sampling says.
    arrays["open_others"] = np.maximum.reduce(
        [arrays[name] for name in ("open_others", "others", "others_low", "others_high")]
    )
    model = Model(**arrays, reasons=tuple(found.reason for found in curves), version="")
    return replace(model, version=version_of(model))


def version_of(model: Model) -> str:
    """SHA-256, in hex, of all of a model but its reasons."""
    digest = sha256(b"presence 2")
    for field in fields(model):
        array = getattr(model, field.name)
        if isinstance(array, np.ndarray):
            digest.update(f"{field.name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def calibrated(model: Model, hidden: Sequence[Hidden]) -> Model:
    """The same model with what head counts say, by category; another version, unless they say the same."""
    counted = replace(model, hidden=thousandths(hidden))
    return replace(counted, version=version_of(counted))


@dataclass(frozen=True, slots=True)
class _Curves:
    """What is found of one category, before it is rounded."""

    source: Source
    reason: str
    checked: Floats
    #: At the tilt, below and above it.
    others: tuple[Floats, Floats, Floats]
    open_others: Floats
    tilt: Tilt
    stretch: Stretch | None
    share: Share


class _Pooled:
    """The days' evidence with their weights."""

    def __init__(self, days: Sequence[Evidence], weights: Integers) -> None:
        self.days = days
        self.weights = weights / _FULL_WEIGHT
        # Sums of integers, so that nothing depends on an order.
        self.visits, self.stays, self.unclosed, self.walks = (
            sum(int(weight) * getattr(day, name) for day, weight in zip(days, weights, strict=True)) / _FULL_WEIGHT
            for name in ("visits", "stays", "unclosed", "walks")
        )

    def check_outs(self, c: int) -> int:
        """Of the category, each day counted in full."""
        return sum(int(day.stays[c].sum()) for day in self.days)

    def closes(self, c: int) -> npt.NDArray[np.bool_]:
        """Which categories' check-ins prove the end of a visit to `c`, (C,)."""
        inside = sum(day.inside[c] for day in self.days)
        followed = inside + sum(day.walks[c].sum(axis=(1, 2)) for day in self.days)
        return (followed >= _FEWEST_PAIRS) & (inside < _INSIDE * followed)


@dataclass(frozen=True, slots=True)
class _Begun:
    """What is known of one category before its tilt is."""

    check_outs: int
    stays: Stays | None
    #: Visits without a check-out by block.
    silent: Floats
    narrower: float
    followed: Followed
    stretch: Stretch | None
    share: Share


def _begun(pooled: _Pooled, c: int, here: npt.NDArray[np.bool_]) -> _Begun:
    checked = np.array([day.venue_stays[here].sum(axis=1) for day in pooled.days])
    visits = np.array([day.venue_visits[here] for day in pooled.days])
    share = shares(pooled.weights @ visits, pooled.weights @ checked)
    stays, silent = pooled.stays[c], pooled.visits[c] - pooled.stays[c].sum(axis=1)
    if pooled.check_outs(c) < FEWEST_CHECK_OUTS:
        return _Begun(pooled.check_outs(c), None, silent, 1.0, NOT_FOLLOWED, None, share)
    found = stays_of(stays)
    means = found.seen @ CENTRES
    variance = max(float((stays * (CENTRES - means[:, None]) ** 2).sum() / max(stays.sum(), 1e-9)), STEP**2)
    excess = np.array([day.venue_log_stay[here] / 1000 - day.venue_stays[here] @ means for day in pooled.days])
    stretch = stretches(excess, checked, pooled.weights, variance)
    closes = pooled.closes(c)
    followed = Followed(
        pooled.walks[c, closes].sum(axis=0),
        pooled.unclosed[c][:COMPARED_BLOCKS, closes].sum(axis=(0, 1)),
        sqrt(float(found.natural[0] @ (CENTRES - found.natural[0] @ CENTRES) ** 2)),
        _mix(
            stays[:COMPARED_BLOCKS].sum(axis=0) / max(stays[:COMPARED_BLOCKS].sum(), 1e-9),
            [
                (stretch.mean, pooled.weights @ checked, pooled.weights @ (visits - checked)),
                (means[:COMPARED_BLOCKS], stays[:COMPARED_BLOCKS].sum(axis=1), silent[:COMPARED_BLOCKS]),
            ],
        ),
    )
    # A venue's own curve is narrower than its category's: what the stretches explain is taken out again.
    narrower = sqrt(max(1 - stretch.explained / variance, 0.05))
    return _Begun(pooled.check_outs(c), found, silent, narrower, followed, stretch, share)


def _curves_of(pooled: _Pooled, c: int, kind: Kind, begun: _Begun, tilt: Tilt, moved_on: bool) -> _Curves:
    if begun.stays is None:
        return _without_evidence(kind, begun.check_outs, begun.share)
    powers = (tilt.power, tilt.power - tilt.spread, tilt.power + tilt.spread)
    open_others = np.ones((BLOCKS, STEPS + 1))
    if moved_on:
        moved = pooled.unclosed[c][:, pooled.closes(c)].sum(axis=1)
        moved_share = moved.sum(axis=0) / max(begun.silent.sum(), 1e-9)
        blended_moves = (moved + _CATEGORY_VISITS * moved_share) / (begun.silent + _CATEGORY_VISITS)[:, None]
        open_others[:, 1:] -= np.cumsum(blended_moves, axis=1)
    return _Curves(
        Source.LEARNED,
        "",
        _longer(begun.stays.seen, begun.narrower),
        tuple(_longer(begun.stays.tilted(power), begun.narrower) for power in powers),  # type: ignore[arg-type]
        open_others,
        tilt,
        begun.stretch,
        begun.share,
    )


def _without_evidence(kind: Kind, seen: int, share: Share) -> _Curves:
    short = f"{seen} check-outs in {DAYS} days, {FEWEST_CHECK_OUTS} needed"
    if kind.assumed is None:
        none = np.zeros((BLOCKS, STEPS + 1))
        return _Curves(Source.NONE, short, none, (none, none, none), none, Tilt(0, 0, 0), None, share)
    median, sigma = kind.assumed.median, kind.assumed.sigma

    def curve(shift: float) -> Floats:
        longer = [0.5 - 0.5 * erf((edge - log(median) - shift) / sigma / sqrt(2)) for edge in EDGES]
        return np.tile(longer, (BLOCKS, 1))

    # A lognormal times stay^power is the lognormal shifted by power · sigma².
    others = (curve(0.0), curve(-TILT_SPREAD * sigma), curve(TILT_SPREAD * sigma))
    reason = f"{short}: assumed, median {median:g} min and sigma {sigma:g}"
    tilt = Tilt(0.0, TILT_SPREAD / sigma, 0.0)
    return _Curves(Source.ASSUMED, reason, curve(0.0), others, np.ones((BLOCKS, STEPS + 1)), tilt, None, share)


def _mix(profile: Floats, groups: Sequence[tuple[Floats, Floats, Floats]]) -> Mix:
    """How the others' venues and hours move and widen the seen stays: of each group its means, and both groups' visits there."""
    middle = float(profile @ CENTRES)
    variance = others_variance = float(profile @ (CENTRES - middle) ** 2) + STEP**2
    others_middle = middle
    for means, checked, others in groups:
        for visits, sign in ((checked, -1), (others, 1)):
            share = visits / max(visits.sum(), 1e-9)
            others_middle += sign * float(share @ means)
            others_variance += sign * float(share @ (means - share @ means) ** 2)
    return Mix(middle, others_middle, sqrt(max(others_variance / variance, 0.25)))


def _longer(density: Floats, narrower: float) -> Floats:
    """Share of stays longer than each edge, (blocks, 145), with the log stay drawn together around its mean."""
    out = np.empty((len(density), STEPS + 1))
    for row, mean, longer in zip(density, density @ CENTRES, out, strict=True):
        left = np.maximum(1 - np.append(0.0, np.cumsum(row)), 0.0)
        longer[:] = np.interp(EDGES, mean + narrower * (EDGES - mean), left, left=1.0, right=0.0)
    return out


def _sixteen_bits(probabilities: Sequence[Floats]) -> npt.NDArray[np.uint16]:
    return np.rint(ONE * np.clip(probabilities, 0.0, 1.0)).astype(np.uint16)
