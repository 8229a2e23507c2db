"""Whom a case exposed, pair by pair: plain, slow and obviously right.

Reads a policy's TOML document itself and shares no code with the pipeline. Instants and lengths are in ms, UTC; a pair of visits
is compared with every rule of the policy in turn, and windows of 24 hours are tried at every edge.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
BOUNDS = ("low", "middle", "high")


class Visit(NamedTuple):
    """A visit; `ended_by` as in the view `visits`."""

    visitor: str
    venue: str
    category: str
    start: int
    left: int
    ended_by: str
    party: int = 1


@dataclass(frozen=True)
class Case:
    """What a report says of a case."""

    reported_at: int
    onset: date | None = None
    specimen: date | None = None
    infectious_from: int | None = None
    infectious_until: int | None = None


class Exposure(NamedTuple):
    """A pair of visits; tiers by name."""

    case_visit: Visit
    other_visit: Visit
    overlap_from: int
    overlap_until: int
    low: int
    middle: int
    high: int
    cumulative: int
    tier: str
    tier_low: str
    tier_high: str
    exact: bool


Policy = Mapping[str, Any]


def local_day(instant: int, zone: tzinfo) -> date:
    """The day that the calendar on the wall shows."""
    return datetime.fromtimestamp(instant / 1000, UTC).astimezone(zone).date()


@lru_cache(maxsize=10_000)
def first_instant(day: date, zone: tzinfo) -> int:
    """When a day begins, found by looking at the wall's calendar every quarter of an hour."""
    step = 15 * MINUTE
    instant = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000 - DAY
    while local_day(instant, zone) < day:
        instant += step
    return instant


def anchor(case: Case, zone: tzinfo) -> tuple[str, date]:
    """The day that windows and weights are counted from."""
    if case.onset:
        return "onset", case.onset
    return "specimen", case.specimen or local_day(case.reported_at, zone)


def infectious_window(case: Case, policy: Policy, zone: tzinfo) -> tuple[int, int]:
    """[from, until)."""
    kind, day = anchor(case, zone)
    days = policy["infectious"]
    start = first_instant(day - timedelta(days=days[f"days_before_{kind}"]), zone)
    until = first_instant(day + timedelta(days=days[f"days_after_{kind}"] + 1), zone)
    return (
        start if case.infectious_from is None else case.infectious_from,
        until if case.infectious_until is None else case.infectious_until,
    )


def of_category(table: Mapping[str, int], category: str) -> int:
    return table[category] if category in table else table["default"]


def end_of(visit: Visit, bound: str, policy: Policy) -> int:
    """When the visit ended if nobody who did not check out stayed, stayed as expected, stayed until the automatic end."""
    if visit.ended_by == "check_out" or bound == "high":
        return visit.left
    if bound == "low":
        return visit.start
    if policy["automatic_expiry"]["treatment"] == "full":
        return visit.left
    stay = of_category(policy["automatic_expiry"]["expected_minutes"], visit.category) * MINUTE
    return min(visit.start + stay, visit.left)


def counted(visit: Visit, policy: Policy) -> bool:
    return visit.ended_by == "check_out" or policy["automatic_expiry"]["treatment"] != "drop"


def quarter_hours_outward(start: int, end: int) -> tuple[int, int]:
    quarter = 15 * MINUTE
    return start // quarter * quarter, (end // quarter + 1) * quarter


def ten_minute_intervals(start: int, end: int) -> tuple[int, int]:
    """As many intervals as come closest to the length, at the side that the stay fills better."""
    ten = 10 * MINUTE
    intervals = int(Fraction(end - start, ten) + Fraction(1, 2))
    in_first = (start // ten + 1) * ten - start
    in_last = end - end // ten * ten
    if in_last > in_first:
        last = (end // ten + 1) * ten
        return last - intervals * ten, last
    first = start // ten * ten
    return first, first + intervals * ten


def bound_interval(visit: Visit, bound: str, window: tuple[int, int], policy: Policy) -> tuple[int, int] | None:
    """The case's interval as one bound alone has it."""
    rule = policy["exposure"]
    start = visit.start
    if rule["rounding"] == "slots_30":
        if not window[0] <= start < window[1]:
            return None
        half_hour = 30 * MINUTE
        slots = of_category(rule["slots"], visit.category)
        return (start // half_hour - slots) * half_hour, (start // half_hour + 1 + slots) * half_hour
    stay = end_of(visit, bound, policy) - start
    if stay < rule["minimum_stay_minutes"] * MINUTE:
        return None
    end = start + stay + rule["aerosol_minutes"] * MINUTE + min(stay, rule["aerosol_up_to_stay_minutes"] * MINUTE)
    if start >= window[1] or (end <= window[0] and start < window[0]):
        return None
    start, end = max(start, window[0]), min(end, window[1])
    if rule["rounding"] == "outward_15":
        return quarter_hours_outward(start, end)
    if rule["rounding"] == "nearest_10":
        return ten_minute_intervals(start, end)
    return start, end


def case_interval(visit: Visit, window: tuple[int, int], policy: Policy) -> dict[str, tuple[int, int] | None]:
    """By bound; what a lower bound has outside a higher one is cut away."""
    within: tuple[int, int] | None = None
    intervals: dict[str, tuple[int, int] | None] = {}
    for bound in reversed(BOUNDS):
        interval = bound_interval(visit, bound, window, policy)
        if bound != "high" and interval is not None:
            interval = None if within is None else (max(interval[0], within[0]), min(interval[1], within[1]))
        intervals[bound] = within = interval
    return intervals


def meet(interval: tuple[int, int], visit: Visit, boundary: str) -> bool:
    start, end = interval
    if boundary == "half_open":
        return max(start, visit.start) < min(end, visit.left)
    if boundary == "closed":
        return max(start, visit.start) <= min(end, visit.left)
    if boundary == "strict_check_in":
        return start < visit.start < end
    assert boundary == "closed_check_in"
    return start <= visit.start <= end


def overlap(interval: tuple[int, int] | None, visit: Visit, bound: str, policy: Policy) -> tuple[int, int]:
    """[from, until); without length where there is none."""
    if interval is None:
        return 0, 0
    start = max(interval[0], visit.start)
    return start, max(start, min(interval[1], end_of(visit, bound, policy)))


def largest_sum(
    overlaps: Sequence[tuple[int, int]], case: Case, policy: Policy, zone: tzinfo, weighted: bool
) -> Fraction:
    """The most that lies in any window of the policy; weighted: × weight of the day."""
    kind, day_zero = anchor(case, zone)
    weights = policy.get("weights") if weighted else None

    def weight(day: date) -> Fraction:
        if weights is None:
            return Fraction(1)
        named = weights[kind].get(str((day - day_zero).days), weights["otherwise"])
        return Fraction(str(named))

    def held(start: int, end: int) -> Fraction:
        total = Fraction(0)
        for begin, until in overlaps:
            at, stop = max(begin, start), min(until, end)
            if weights is None:
                total += max(stop - at, 0)
                continue
            while at < stop:
                day = local_day(at, zone)
                cut = min(stop, first_instant(day + timedelta(days=1), zone))
                total += (cut - at) * weight(day)
                at = cut
        return total

    window = policy["exposure"]["cumulative"]
    overlaps = [(start, end) for start, end in overlaps if start < end]
    if not overlaps:
        return Fraction(0)
    first, last = min(start for start, _ in overlaps), max(end for _, end in overlaps)
    if window == "infectious_period":
        return held(first, last)
    if window == "calendar_day":
        days = [local_day(first, zone) + timedelta(days=i) for i in range((last - first) // DAY + 2)]
        return max(held(first_instant(day, zone), first_instant(day + timedelta(days=1), zone)) for day in days)
    edges = {edge for pair in overlaps for edge in pair}
    return max(held(tau, tau + DAY) for edge in edges for tau in (edge, edge - DAY))


def tier_of(sum_ms: Fraction, policy: Policy) -> str:
    name = "below"
    for tier in policy["tiers"]:
        if "at_least_minutes" in tier:
            reached = sum_ms >= tier["at_least_minutes"] * MINUTE
        else:
            reached = sum_ms > tier["more_than_minutes"] * MINUTE
        if reached:
            name = tier["name"]
    return name


def exposures(case: Case, visitor: str, visits: Sequence[Visit], policy: Policy, zone: tzinfo) -> list[Exposure]:
    """Every pair of a visit of the case's `visitor` and another's, sorted."""
    window = infectious_window(case, policy, zone)
    pairs = []
    for own in visits:
        if own.visitor != visitor or not counted(own, policy):
            continue
        intervals = case_interval(own, window, policy)
        high = intervals["high"]
        if high is None:
            continue
        for other in visits:
            if other.visitor == visitor or other.venue != own.venue or not counted(other, policy):
                continue
            if meet(high, other, policy["exposure"]["boundary"]):
                pairs.append((own, other, {b: overlap(intervals[b], other, b, policy) for b in BOUNDS}))

    of_visitor = defaultdict(list)
    for own, other, overlaps in pairs:
        of_visitor[other.visitor].append((own, other, overlaps))
    exposed = []
    for theirs in of_visitor.values():
        of_bound = {b: [overlaps[b] for _, _, overlaps in theirs] for b in BOUNDS}
        cumulative = largest_sum(of_bound["middle"], case, policy, zone, weighted=False)
        tiers = {b: tier_of(largest_sum(of_bound[b], case, policy, zone, weighted=True), policy) for b in BOUNDS}
        exact = all(visit.ended_by == "check_out" for own, other, _ in theirs for visit in (own, other))
        for own, other, overlaps in theirs:
            low, middle, high_ms = (overlaps[b][1] - overlaps[b][0] for b in BOUNDS)
            exposed.append(
                Exposure(
                    own,
                    other,
                    *overlaps["high"],
                    low,
                    middle,
                    high_ms,
                    int(cumulative),
                    tiers["middle"],
                    tiers["low"],
                    tiers["high"],
                    exact,
                )
            )
    return sorted(exposed)
