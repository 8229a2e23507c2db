"""A day unlike the learned ones: by how much stays are longer or shorter today, from the check-outs so far.

Who came an hour ago and has checked out stayed less than an hour: the short stays are seen first. So a stay counts against what
the model expects of stays that ended by now, not of all (truncation; Lagakos; Höhle & an der Heiden 2014). A venue's stays so
far are drawn towards its category's, and those towards the learned days'.
"""

from dataclasses import dataclass, replace
from math import sqrt
from typing import Final, Self

import numpy as np

from pipeline.core.presence.evidence import NONE, Visits
from pipeline.core.presence.grid import (
    BLOCK_OF_MINUTE,
    BLOCK_STARTS,
    CENTRES,
    COMPARED_BLOCKS,
    EDGES,
    MILLI_LOG_OF_MINUTE,
    MINUTES_OF_DAY,
    STEP,
    Integers,
)
from pipeline.core.presence.model import MOST_STRETCH, ONE, Model, Source, version_of
from pipeline.core.presence.smoothing import Floats

#: What is believed of a category's day before its check-outs: the spread of its log stays around the learned days'. Chosen.
DAY_SPREAD: Final = 0.2
_HOURS: Final = 24
#: Arrivals of the hours before 16:00 are compared: later, closing ends stays that would have been longer.
_COMPARED_HOURS: Final = BLOCK_STARTS[COMPARED_BLOCKS] // 60
#: Parts of an hour of arrival, each taken for its middle.
_PARTS: Final = 4
_ROUNDS: Final = 4
#: No stays are taken for longer or shorter than by this.
_MOST: Final = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class StaysSoFar:
    """Today's visits with a check-out up to now. All arrays are int64 and add up; V venues, local hours of arrival."""

    #: Number of visits, and the sum of their log stays in thousandths, (V, 24) each. GROUP BY venue, hour of arrival.
    stays: Integers
    log_stay: Integers
    #: Local minute of the day that it is now at the venue, (V,); NONE (−1) where there was no such visit.
    now: Integers

    def __add__(self, other: Self) -> Self:
        """Of two sets of visits at the same moment."""
        return type(self)(self.stays + other.stays, self.log_stay + other.log_stay, np.maximum(self.now, other.now))


@dataclass(frozen=True, slots=True, eq=False)
class Shifts:
    """By how much the log stay is above the model's today, in hundredths, and the spread of that in thousandths."""

    #: (C,): the category as a whole. For people: the venues' hold it already.
    category: Integers
    category_spread: Integers
    #: (V,): the venue. `spread` takes the place of the model's.
    venue: Integers
    venue_spread: Integers


def stays_so_far(visits: Visits, now_minute: int, venues: int) -> StaysSoFar:
    """Count the check-outs before `now_minute` (local minute of the day) of today's visits at venues of one time zone."""
    shape = (venues, _HOURS)
    out = StaysSoFar(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(venues, NONE, np.int64))
    i = np.flatnonzero((visits.stay != NONE) & (visits.arrival + visits.stay < now_minute))
    to = (visits.venue[i], visits.arrival[i] // 60)
    np.add.at(out.stays, to, 1)
    np.add.at(out.log_stay, to, MILLI_LOG_OF_MINUTE[np.minimum(visits.stay[i], MINUTES_OF_DAY - 1)])
    out.now[visits.venue[i]] = now_minute
    return out


def shifts_of(model: Model, so_far: StaysSoFar) -> Shifts:
    """What the check-outs so far tell about today's stays.

    Of a venue with information I about its own shift, whose stretch has the spread q, the shift is ŝ with variance 1/I around the
    category's, of which it tells with the precision 1/(q² + 1/I). Expectations are a lognormal's response to a shift.
    """
    category = np.zeros(len(model.source))
    category_spread = np.full(len(model.source), DAY_SPREAD)
    shift, spread = np.zeros(len(model.category)), model.stretch_spread / 1000
    come = so_far.stays[:, :_COMPARED_HOURS].sum(axis=1) > 0
    for c in np.flatnonzero(model.source == Source.LEARNED):
        here = np.flatnonzero((model.category == c) & come)
        moments, own, at = _Moments(model, int(c)), spread[here], np.zeros(len(here))
        common, variance = 0.0, DAY_SPREAD**2
        for _ in range(_ROUNDS):
            score, information = moments.score(so_far, here, model.stretch[here] * STEP + at)
            found, noise = at + score / information, 1 / information
            precision = 1 / (own**2 + noise)
            variance = 1 / (precision.sum() + 1 / DAY_SPREAD**2)
            common = float(precision @ found) * variance
            trust = own**2 * precision
            at = np.clip(common + trust * (found - common), -_MOST, _MOST)
            after = np.sqrt(trust * noise + (1 - trust) ** 2 * variance)
        category[c], category_spread[c] = common, sqrt(variance)
        elsewhere = np.flatnonzero((model.category == c) & ~come)
        shift[elsewhere], spread[elsewhere] = common, np.hypot(spread[elsewhere], sqrt(variance))
        shift[here], spread[here] = at, after
    return Shifts(
        np.rint(100 * category).astype(np.int64),
        np.rint(1000 * category_spread).astype(np.int64),
        np.rint(100 * shift).astype(np.int64),
        np.rint(1000 * spread).astype(np.int64),
    )


def shifted(model: Model, shifts: Shifts) -> Model:
    """The model with today's stays: a model like any other, with its own version."""
    steps = model.stretch + shifts.venue / (100 * STEP)
    changed = replace(
        model,
        stretch=np.clip(np.rint(steps), -MOST_STRETCH, MOST_STRETCH).astype(np.int8),
        stretch_spread=np.clip(np.rint(np.hypot(shifts.venue_spread, 1000 * STEP / sqrt(12))), 0, ONE).astype(
            np.uint16
        ),
    )
    return replace(changed, version=version_of(changed))


class _Moments:
    """Of one category's stays with a check-out: how many end by an age, with the sums of their log and its square."""

    def __init__(self, model: Model, c: int) -> None:
        longer = model.checked[c].astype(np.float64) / ONE
        density = longer[:, :-1] - longer[:, 1:]
        zero = np.zeros((len(density), 1))
        self._upto = [np.append(zero, np.cumsum(density * CENTRES**power, axis=1), axis=1) for power in range(3)]
        mean = (density * CENTRES).sum(axis=1)
        self._variance = np.maximum((density * CENTRES**2).sum(axis=1) - mean**2, STEP**2)

    def score(self, so_far: StaysSoFar, venues: Integers, stretch: Floats) -> tuple[Floats, Floats]:
        """The derivative of the log-likelihood by the shift at each venue, and the information."""
        score, information = np.zeros(len(venues)), np.full(len(venues), 1e-9)
        for hour in range(_COMPARED_HOURS):
            block = BLOCK_OF_MINUTE[60 * hour]
            middles = 60 * hour + 60 * (np.arange(_PARTS) + 0.5) / _PARTS
            age = np.maximum(so_far.now[venues][:, None] - middles[None, :], 1e-3)
            at = np.log(age) - stretch[:, None]
            ended, first, second = (np.interp(at, EDGES, upto[block]).sum(axis=1) for upto in self._upto)
            ended = np.maximum(ended, 1e-9)
            mean, variance = first / ended, self._variance[block]
            seen_variance = np.clip(second / ended - mean**2, 0.0, variance)
            count = so_far.stays[venues, hour]
            score += (so_far.log_stay[venues, hour] / 1000 - count * (mean + stretch)) / variance
            information += count * seen_variance / variance**2
        return score, information
