"""Whom a case exposed: its visits as intervals, met by others' visits, added up and put into tiers by the policy.

Every length has three bounds, because a visit without a check-out has no known end: LOW, where nobody who did not check out
stayed at all; MIDDLE, what the policy takes for its minutes; HIGH, where all of them stayed until the automatic end. Where all
checked out the three are one. Integer ms throughout; the result does not depend on the order of the visits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.core.jit import kernel
from pipeline.core.pools import ENDED_CHECK_OUT, HOUR, I32, I64, MINUTE, U8, Column
from pipeline.core.tracing.policy import WEIGHT_UNIT, Boundary, Cumulative, Expiry, Policy, Rounding
from pipeline.core.tracing.window import Midnight, Window

#: The first axis of whatever has bounds.
LOW: Final = 0
MIDDLE: Final = 1
HIGH: Final = 2

_DAY: Final = 24 * HOUR
_QUARTER: Final = 15 * MINUTE
_TEN: Final = 10 * MINUTE
_HALF_HOUR: Final = 30 * MINUTE


@dataclass(frozen=True, slots=True)
class Stays:
    """Visits as columns of equal length; a visit is present in [`start`, `left`), ms since the epoch, UTC."""

    #: Codes from 0 on: equal where the pseudonyms, or the venues, are. Work and memory grow with the largest.
    visitor: I32
    venue: I32
    #: The venue's category, as a position in the caller's list of them.
    category: Column
    start: I64
    #: The check-out, or the automatic end.
    left: I64
    #: pools.ENDED_*.
    ended: U8
    #: Persons.
    party: U8

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: Column | slice) -> Self:
        """The visits at these positions, of this mask or of this stretch."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Intervals:
    """When each of a case's visits exposes others: [`start`, `until`) or [`start`, `until`], as the boundary rule has it.

    `start` and `until` have shape (3, intervals), by bound; each bound lies within the next. An empty one ends where it starts.
    """

    #: Position of the visit.
    visit: I64
    start: I64
    until: I64


@dataclass(frozen=True, slots=True)
class Exposures:
    """One row a pair of the case's visit and another visitor's, in the order of their positions. Lengths in ms."""

    case_visit: I64
    other_visit: I64
    #: The overlap at its longest; `high_ms` is its length.
    overlap_from: I64
    overlap_until: I64
    low_ms: I64
    #: What the policy takes for the minutes.
    middle_ms: I64
    high_ms: I64
    #: The most that the other visitor was exposed to this case within any window of the policy, of `middle_ms`.
    cumulative_ms: I64
    #: Codes of `Policy.tier_names`, from the cumulative minutes and their weights; what follows from the other bounds beside it.
    tier: Column
    tier_low: Column
    tier_high: Column
    #: All visits of this case and this visitor that met have a check-out: the three tiers are one.
    exact: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.case_visit)


def ends_of(stays: Stays, policy: Policy, categories: Sequence[str]) -> I64:
    """When each visit ended, by bound: shape (3, visits), ms since the epoch, UTC. A check-out is the same in all three."""
    real = stays.ended == ENDED_CHECK_OUT
    if policy.automatic_expiry.treatment is Expiry.FULL:
        middle = stays.left
    else:
        middle = np.minimum(stays.start + policy.expected_stays(categories)[stays.category], stays.left)
    return np.stack([np.where(real, stays.left, stays.start), np.where(real, stays.left, middle), stays.left])


def case_intervals(case: Stays, window: Window, policy: Policy, categories: Sequence[str]) -> Intervals:
    """The intervals in which the case's visits expose others; visits outside the window or too short have none.

    The stay and the aerosol tail after it, cut to the infectious window, then rounded. With slots only the check-in counts, and
    it must be in the window.
    """
    rule = policy.exposure
    visit = np.flatnonzero(_counted(case, policy))
    kept = case.take(visit)
    if rule.rounding is Rounding.SLOTS_30:
        present = np.tile((window.start <= kept.start) & (kept.start < window.until), (3, 1))
        slot = kept.start - kept.start % _HALF_HOUR
        around = policy.slots(categories)[kept.category] * _HALF_HOUR
        start, until = np.tile(slot - around, (3, 1)), np.tile(slot + around + _HALF_HOUR, (3, 1))
    else:
        ends = ends_of(kept, policy, categories)
        stay = ends - kept.start
        ends = ends + rule.aerosol_minutes * MINUTE + np.minimum(stay, rule.aerosol_up_to_stay_minutes * MINUTE)
        present = stay >= rule.minimum_stay_minutes * MINUTE
        present &= (kept.start < window.until) & ((ends > window.start) | (kept.start >= window.start))
        start, until = _rounded(
            np.maximum(np.tile(kept.start, (3, 1)), window.start), np.minimum(ends, window.until), rule.rounding
        )
    until = np.where(present, until, start)
    # Rounding may move a shorter stay's interval out of a longer one's, and bounds would cross.
    for bound in (MIDDLE, LOW):
        start[bound] = np.maximum(start[bound], start[bound + 1])
        until[bound] = np.minimum(until[bound], until[bound + 1])
    there = present[HIGH]
    return Intervals(visit[there], start[:, there], np.maximum(start, until)[:, there])


def exposures(
    case: Stays, others: Stays, window: Window, policy: Policy, categories: Sequence[str], midnight: Midnight
) -> Exposures:
    """Everybody whom one case exposed.

    case: the visits of the case's visitor. others: visits at the same venues, in any order; those of the case's own visitor are
    left out. categories: the names that `Stays.category` counts. midnight: of the setting `timezone`.
    """
    intervals = case_intervals(case, window, policy, categories)
    which, other = _meetings(intervals, case, others, policy)
    ends = ends_of(others.take(other), policy, categories)
    start = np.maximum(intervals.start[:, which], others.start[other])
    until = np.maximum(np.minimum(intervals.until[:, which], ends), start)
    real = case.ended[intervals.visit[which]] == ENDED_CHECK_OUT
    real &= others.ended[other] == ENDED_CHECK_OUT
    visitor = others.visitor[other].astype(np.int64)
    visitors = int(visitor.max(initial=-1)) + 1
    exact = np.ones(visitors, np.bool_)
    exact[visitor[~real]] = False

    cumulative = _most(visitor, visitors, start[MIDDLE], until[MIDDLE], window, policy, midnight, weighted=False)
    needed = [tier.needed for tier in policy.tiers]
    tiers = np.empty((3, visitors), np.int8)
    for bound in (LOW, MIDDLE, HIGH):
        if bound != MIDDLE and exact.all():
            continue
        if policy.weights is None and bound == MIDDLE:
            score = cumulative * WEIGHT_UNIT
        else:
            score = _most(visitor, visitors, start[bound], until[bound], window, policy, midnight, weighted=True)
        tiers[bound] = np.searchsorted(needed, score, "right")
    if exact.all():
        tiers[:] = tiers[MIDDLE]
    low, middle, high = until - start
    return Exposures(
        case_visit=intervals.visit[which],
        other_visit=other,
        overlap_from=start[HIGH],
        overlap_until=until[HIGH],
        low_ms=low,
        middle_ms=middle,
        high_ms=high,
        cumulative_ms=cumulative[visitor],
        tier=tiers[MIDDLE, visitor],
        tier_low=tiers[LOW, visitor],
        tier_high=tiers[HIGH, visitor],
        exact=exact[visitor],
    )


def _counted(stays: Stays, policy: Policy) -> NDArray[np.bool_]:
    if policy.automatic_expiry.treatment is Expiry.DROP:
        return np.asarray(stays.ended == ENDED_CHECK_OUT)
    return np.ones(len(stays), np.bool_)


def _rounded(start: I64, until: I64, rounding: Rounding) -> tuple[I64, I64]:
    if rounding is Rounding.OUTWARD_15:
        return start - start % _QUARTER, until - until % _QUARTER + _QUARTER
    if rounding is Rounding.NEAREST_10:
        length = (until - start + _TEN // 2) // _TEN * _TEN
        first, last = start - start % _TEN, until - until % _TEN
        by_end = until - last > first + _TEN - start
        start = np.where(by_end, last + _TEN - length, first)
        return start, start + length
    return start, until


def _meetings(intervals: Intervals, case: Stays, others: Stays, policy: Policy) -> tuple[I64, I64]:
    """Positions of the interval and of the other's visit of every pair that meets, in order."""
    empty = np.zeros(0, np.int64)
    if not len(intervals.visit) or not len(others):
        return empty, empty
    venue = case.venue[intervals.visit].astype(np.int64)
    start, until = intervals.start[HIGH], intervals.until[HIGH]
    # Sorted by venue and start, the visits that can meet an interval are one stretch, as none is longer than `longest`.
    origin = int(others.start.min())
    span = int(others.start.max()) - origin + 2
    longest = int((others.left - others.start).max())
    key = others.venue.astype(np.int64) * span + (others.start - origin)
    order = _order(key)
    key = key[order]
    first = np.searchsorted(key, venue * span + np.clip(start - longest - origin, 0, span - 1))
    last = np.searchsorted(key, venue * span + np.clip(until - origin, -1, span - 1), "right")
    count = np.maximum(last - first, 0)
    which = np.repeat(np.arange(len(count)), count)
    other = np.arange(len(others))[order][np.arange(len(which)) + np.repeat(first - (np.cumsum(count) - count), count)]

    came, left = others.start[other], others.left[other]
    start, until = start[which], until[which]
    boundary = policy.exposure.boundary
    if boundary is Boundary.HALF_OPEN:
        meet = np.maximum(start, came) < np.minimum(until, left)
    elif boundary is Boundary.CLOSED:
        meet = np.maximum(start, came) <= np.minimum(until, left)
    elif boundary is Boundary.STRICT_CHECK_IN:
        meet = (start < came) & (came < until)
    else:
        meet = (start <= came) & (came <= until)
    meet &= others.visitor[other] != case.visitor[intervals.visit[which]]
    meet &= _counted(others, policy)[other]
    which, other = which[meet], other[meet]
    order = _order(which * len(others) + other)
    return which[order], other[order]


def _order(key: I64) -> I64 | slice:
    # Looking costs little beside sorting, and whoever has many visits has them sorted.
    if np.all(key[1:] >= key[:-1]):
        return slice(None)
    return np.argsort(key)


def _most(
    visitor: I64,
    visitors: int,
    start: I64,
    until: I64,
    window: Window,
    policy: Policy,
    midnight: Midnight,
    *,
    weighted: bool,
) -> I64:
    """By visitor, the largest sum of the lengths within any window of the policy; in ms, × thousandths if weighted."""
    most = np.zeros(visitors, np.int64)
    weights = policy.weights if weighted else None
    cumulative = policy.exposure.cumulative
    if not len(start):
        return most
    weight = np.full(len(start), WEIGHT_UNIT if weighted else 1, np.int64)
    if weights is not None or cumulative is Cumulative.CALENDAR_DAY:
        days, begins = _days(int(start.min()), int(until.max()), midnight)
        row, day, start, until = _split(start, until, begins)
        visitor, weight = visitor[row], weight[row]
        if weights is not None:
            by_day = [weights.of(window.relative_to, (date - window.day).days) for date in days]
            weight = np.array(by_day, np.int64)[day]
        if cumulative is Cumulative.CALENDAR_DAY:
            part, visitor_day = np.unique(visitor * len(days) + day, return_inverse=True)
            sums = np.zeros(len(part), np.int64)
            np.add.at(sums, visitor_day, (until - start) * weight)
            np.maximum.at(most, part // len(days), sums)
            return most
    if cumulative is Cumulative.INFECTIOUS_PERIOD:
        np.add.at(most, visitor, (until - start) * weight)
        return most
    return _most_in_a_day(visitor, visitors, start, until, weight)


def _most_in_a_day(visitor: I64, visitors: int, start: I64, until: I64, weight: I64) -> I64:
    """The largest Σ weight × length within [τ, τ + 24 h), by visitor."""
    most = np.zeros(visitors, np.int64)
    count = np.bincount(visitor, minlength=visitors)
    # Most visitors were met once: that needs no sorting, which is the dearest part.
    once = count[visitor] == 1
    most[visitor[once]] = np.minimum(until[once] - start[once], _DAY) * weight[once]
    if once.all():
        return most
    visitor, start, until, weight = visitor[~once], start[~once], until[~once], weight[~once]
    count[count == 1] = 0
    first = np.concatenate([[0], np.cumsum(count)])
    # One key of visitor and time: sorting that is several times faster than sorting by two.
    span = int(until.max() - start.min()) + 1
    by_start, by_end = (
        np.argsort(visitor * span + (start - start.min())),
        np.argsort(visitor * span + (until - until.min())),
    )
    _sweep_days(first, start[by_start], weight[by_start], until[by_end], weight[by_end], most)
    return most


@kernel
def _sweep_days(first: I64, start: I64, start_weight: I64, end: I64, end_weight: I64, most: I64) -> None:
    # A visitor's starts and ends are in [first[visitor], first[visitor + 1]), each sorted. What [τ, τ + 24 h) holds grows or
    # shrinks evenly in between: it is largest with τ at a start, or 24 h before an end. The weighted time up to an instant t is
    # t × slope − moment, with slope and moment summed over the starts up to t, less those over the ends.
    for visitor in range(len(most)):
        low, high = first[visitor], first[visitor + 1]
        for from_ends in range(2):
            started = ended = later_started = later_ended = low
            slope = moment = later_slope = later_moment = 0
            for candidate in range(low, high):
                tau = end[candidate] - _DAY if from_ends else start[candidate]
                while started < high and start[started] <= tau:
                    slope += start_weight[started]
                    moment += start_weight[started] * (start[started] - start[low])
                    started += 1
                while ended < high and end[ended] <= tau:
                    slope -= end_weight[ended]
                    moment -= end_weight[ended] * (end[ended] - start[low])
                    ended += 1
                while later_started < high and start[later_started] <= tau + _DAY:
                    later_slope += start_weight[later_started]
                    later_moment += start_weight[later_started] * (start[later_started] - start[low])
                    later_started += 1
                while later_ended < high and end[later_ended] <= tau + _DAY:
                    later_slope -= end_weight[later_ended]
                    later_moment -= end_weight[later_ended] * (end[later_ended] - start[low])
                    later_ended += 1
                tau -= start[low]
                held = (tau + _DAY) * later_slope - later_moment - (tau * slope - moment)
                most[visitor] = max(most[visitor], held)


def _days(first: int, last: int, midnight: Midnight) -> tuple[list[date], I64]:
    """The local days that [first, last] may touch, and when each begins."""
    day = datetime.fromtimestamp(first // 1000, UTC).date() - timedelta(days=1)
    end = datetime.fromtimestamp(last // 1000, UTC).date() + timedelta(days=1)
    days = [day + timedelta(days=i) for i in range((end - day).days + 1)]
    return days, np.array([midnight(day) for day in days], np.int64)


def _split(start: I64, until: I64, begins: I64) -> tuple[I64, I64, I64, I64]:
    """Cut [start, until) where a day begins: the row each piece is of, the position of its day, its start and its end."""
    first = np.searchsorted(begins, start, "right") - 1
    last = np.maximum(np.searchsorted(begins, until) - 1, first)
    count = last - first + 1
    row = np.repeat(np.arange(len(start)), count)
    day = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + first[row]
    ends = np.append(begins[1:], np.iinfo(np.int64).max)
    return row, day, np.maximum(start[row], begins[day]), np.minimum(until[row], ends[day])
