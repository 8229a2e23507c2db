"""What the views must show for a set of scans: plain, slow and obviously right.

An implementation of the contract that shares no code with the pipeline, for tests to compare with. Instants are epoch
milliseconds; minutes, hours and window ends epoch seconds; all UTC; intervals half-open. Every float is one division of
exact integers, so it can be compared with `==`.
"""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise
from math import ceil, exp, floor, log, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

#: The contract's section 2.
DEFAULT_MAX_STAY = 4 * HOUR
HARD_LIMIT = 24 * HOUR


@dataclass(frozen=True, order=True)
class Scan:
    """A valid scan, as it was sent."""

    venue_id: str
    visitor_id: str
    event_type: str
    occurred_at_ms: int
    party_size: int = 1
    event_id: str = "e"
    source: str = "app"


def line_of(scan: Scan) -> bytes:
    """The scan as a line of a file, or the value of a record."""
    occurred_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=scan.occurred_at_ms)
    record = {
        "event_id": scan.event_id,
        "event_type": scan.event_type,
        "venue_id": scan.venue_id,
        "visitor_id": scan.visitor_id,
        "occurred_at": occurred_at.isoformat(timespec="milliseconds"),
        "party_size": scan.party_size,
        "source": scan.source,
    }
    return json.dumps(record).encode()


class ScanRow(NamedTuple):
    """A row of `scans`."""

    event_id: str
    event_type: str
    venue_id: str
    visitor_id: str
    occurred_at: int
    party_size: int
    source: str


class Visit(NamedTuple):
    """A row of `visits`."""

    venue_id: str
    visitor_id: str
    checked_in_at: int
    left_at: int
    ended_by: str
    party_size: int


class MinuteRow(NamedTuple):
    """A row of `occupancy_minutes`."""

    venue_id: str
    minute: int
    arrivals: int
    departures: int
    occupancy: int
    peak: int


class HourRow(NamedTuple):
    """A row of `occupancy_hours`."""

    venue_id: str
    hour: int
    arrivals: int
    departures: int
    mean_occupancy: float
    peak: int
    minutes_over_capacity: float
    person_contact_minutes: float


class RollingRow(NamedTuple):
    """A row of `rolling_occupancy`."""

    venue_id: str
    window: str
    window_end: int
    arrivals: int
    unique_visitors: int
    peak: int
    mean_occupancy: float
    median_dwell_minutes: float | None


class NowRow(NamedTuple):
    """A row of `occupancy_now`, of a venue with anyone present."""

    venue_id: str
    occupancy: int
    capacity: int | None
    ratio: float | None
    as_of: int


class AlertRow(NamedTuple):
    """A row of `crowding_alerts`."""

    alert_id: str
    venue_id: str
    level: str
    raised_at: int
    cleared_at: int | None
    peak: int
    capacity: int


class CrowdingRule(NamedTuple):
    """Raised at `raise_at` of the capacity (a decimal) for `raise_for` ms, cleared below `clear_below` for `clear_for` ms."""

    raise_at: str
    raise_for: int
    clear_below: str
    clear_for: int


#: What the settings say where nothing else is set.
DEFAULT_CROWDING = {
    "warning": CrowdingRule("1", 2 * MINUTE, "0.9", 5 * MINUTE),
    "critical": CrowdingRule("1.1", MINUTE, "0.9", 5 * MINUTE),
}


#: View → the type of its rows. Rows are compared as sets of plain tuples.
ROWS: dict[str, type[tuple[Any, ...]]] = {
    "scans": ScanRow,
    "visits": Visit,
    "occupancy_minutes": MinuteRow,
    "occupancy_hours": HourRow,
    "rolling_occupancy": RollingRow,
    "occupancy_now": NowRow,
    "crowding_alerts": AlertRow,
}

Views = dict[str, set[tuple[Any, ...]]]


def expected_views(
    scans: Iterable[Scan],
    max_stay: Mapping[str, int] | None = None,
    capacities: Mapping[str, int] | None = None,
    as_of: int | None = None,
    crowding: Mapping[str, Mapping[str, CrowdingRule]] | None = None,
) -> Views:
    """The rows of every view, by the view's name.

    `max_stay`: venue → milliseconds, 4 h where absent. `capacities`: venue → persons, none where absent. `as_of`: the
    pipeline's clock in milliseconds; None is the `events` clock, the latest `occurred_at`. `crowding`: venue → level → rule, the
    defaults where absent. No scans, no rows.
    """
    winners = winning_scans(scans)
    if not winners:
        return {view: set() for view in ROWS}
    capacities = capacities or {}
    if as_of is None:
        as_of = max(scan.occurred_at_ms for scan in winners)
    visits = fold(winners, max_stay or {}, as_of)
    by_venue = defaultdict(list)
    for visit in visits:
        by_venue[visit.venue_id].append(visit)
    views: Views = {view: set() for view in ROWS}
    views["scans"] = {
        ScanRow(s.event_id, s.event_type, s.venue_id, s.visitor_id, s.occurred_at_ms, s.party_size, s.source)
        for s in winners
    }
    views["visits"] = set(visits)
    for venue_id, there in by_venue.items():
        capacity = capacities.get(venue_id)
        views["occupancy_minutes"].update(_minutes(venue_id, there, as_of))
        views["occupancy_hours"].update(_hours(venue_id, there, capacity, as_of))
        views["rolling_occupancy"].update(_rolling(venue_id, there, as_of))
        views["occupancy_now"].update(_now(venue_id, there, capacity, as_of))
        if capacity is not None:
            for level, rule in (crowding or {}).get(venue_id, DEFAULT_CROWDING).items():
                views["crowding_alerts"].update(_alerts(venue_id, there, capacity, level, rule, as_of))
    return views


def winning_scans(scans: Iterable[Scan]) -> list[Scan]:
    """One scan for each identity: the larger party, then the smaller event id, then the smaller source."""
    identities = defaultdict(list)
    for scan in scans:
        identities[scan.venue_id, scan.visitor_id, scan.event_type, scan.occurred_at_ms].append(scan)
    return [min(same, key=lambda s: (-s.party_size, s.event_id, s.source)) for same in identities.values()]


def fold(winners: Iterable[Scan], max_stay: Mapping[str, int], as_of: int) -> list[Visit]:
    """Pair the scans of each venue and visitor into visits; takes one scan for each identity."""
    pairs = defaultdict(list)
    for scan in winners:
        pairs[scan.venue_id, scan.visitor_id].append(scan)
    visits = []
    for (venue_id, _), theirs in pairs.items():
        limit = max_stay.get(venue_id, DEFAULT_MAX_STAY)
        opened: Scan | None = None
        for scan in sorted(theirs, key=lambda s: (s.occurred_at_ms, s.event_type != "check_in")):
            now = scan.occurred_at_ms
            if scan.event_type == "check_in":
                if opened is not None and now >= opened.occurred_at_ms + limit:
                    visits.append(_closed(opened, opened.occurred_at_ms + limit, "expired"))
                    opened = None
                if opened is None:
                    opened = scan
            elif opened is not None:
                if now - opened.occurred_at_ms <= HARD_LIMIT:
                    visits.append(_closed(opened, now, "check_out"))
                else:
                    visits.append(_closed(opened, opened.occurred_at_ms + limit, "expired"))
                opened = None
        if opened is not None:
            left_at = opened.occurred_at_ms + limit
            visits.append(_closed(opened, left_at, "expired" if as_of >= left_at else "open"))
    return visits


class Stay(NamedTuple):
    """A visit as an estimate sees it: [`checked_in_at`, `closed_at`), or with no end if nothing showed one."""

    checked_in_at: int
    closed_at: int | None
    party_size: int


def stays(scans: Iterable[Scan], max_stay: Mapping[str, int]) -> dict[str, list[Stay]]:
    """The visits of each venue; a check-out closes one, or the pair's next visit there. Automatic ends do not."""
    by_pair = defaultdict(list)
    for visit in fold(winning_scans(scans), max_stay, 0):
        by_pair[visit.venue_id, visit.visitor_id].append(visit)
    found = defaultdict(list)
    for (venue_id, _), visits in by_pair.items():
        visits.sort(key=lambda visit: visit.checked_in_at)
        for visit, following in zip(visits, [*visits[1:], None], strict=True):
            end = following.checked_in_at if following else None
            closed_at = visit.left_at if visit.ended_by == "check_out" else end
            found[venue_id].append(Stay(visit.checked_in_at, closed_at, visit.party_size))
    return dict(found)


@dataclass(frozen=True)
class VenueModel:
    """What a model says of one venue. Curves: by block of the day, at the edges of the ages, of 65535."""

    version: str
    checked: list[list[int]]
    others: list[list[int]]
    others_low: list[list[int]]
    others_high: list[list[int]]
    open_others: list[list[int]]
    odds: int
    odds_spread: int
    stretch: int
    stretch_spread: int
    bin_minutes: int
    offset: int
    hidden: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 0.03)

    def share(self, more: int = 0) -> float:
        """Of visits with a check-out; `more`: eighths of the log odds."""
        return 1 / (1 + exp(-(self.odds + more) / 8))

    def weight(self, others: list[list[int]], block: int, age: float, longer: int = 0, more: int = 0) -> int:
        """The probability, of 65535, that the person of an open visit of that age (minutes) is there."""
        step = max(0, min(144, round(20 * log(max(age, 0.5)))))
        edge = max(0, min(144, step - self.stretch + longer))
        share = round(2**20 * self.share(more))
        checked = share * self.checked[block][edge]
        still_open = checked + (2**20 - share) * self.open_others[block][edge]
        return 65535 * (checked + (2**20 - share) * others[block][edge]) // max(still_open, 1)

    def sums(self, there: Iterable[Stay], minute: int) -> list[int]:
        """At the end of a minute since the epoch: persons, squares, squared weights, by stretch, by odds, by tilt."""
        total = [0] * 6
        for stay in there:
            arrived = stay.checked_in_at // MINUTE
            bin_start = arrived // self.bin_minutes * self.bin_minutes
            closed = stay.closed_at is not None and stay.closed_at // MINUTE <= minute
            if arrived > minute or closed or minute // self.bin_minutes - arrived // self.bin_minutes >= 64:
                continue
            passed = min(self.bin_minutes, minute + 1 - bin_start)
            age = minute + 1 - bin_start - passed / 2
            block = bisect_right(BLOCK_STARTS, (bin_start + self.offset) % 1440) - 1
            weight = self.weight(self.others, block, age)
            parts = (
                stay.party_size * weight,
                stay.party_size**2 * weight,
                stay.party_size**2 * weight**2,
                stay.party_size * (self.weight(self.others, block, age, -1) - self.weight(self.others, block, age, 1)),
                stay.party_size
                * (self.weight(self.others, block, age, 0, 1) - self.weight(self.others, block, age, 0, -1)),
                stay.party_size
                * ((self.weight(self.others_high, block, age) - self.weight(self.others_low, block, age)) // 2),
            )
            total = [one + part for one, part in zip(total, parts, strict=True)]
        return total

    def estimate(self, there: Sequence[Stay], minutes: Sequence[int]) -> tuple[float, float, float]:
        """(expected, low, high) before rounding, as the mean over the ends of some minutes."""
        each = [self.sums(there, minute) for minute in minutes]
        persons, squares, squared, by_stretch, by_odds, by_tilt = (
            sum(column) / len(minutes) for column in zip(*each, strict=True)
        )
        mean, square, product, spread = self.hidden
        expected = mean * persons / 65535
        chance = square * squares / 65535 + (mean**2 - 2 * mean * product) * squared / 65535**2
        unknown = (mean / 65535) ** 2 * (
            (by_stretch / 0.1 * self.stretch_spread / 1000) ** 2
            + (by_odds / 0.25 * self.odds_spread / 1000) ** 2
            + by_tilt**2
        )
        half = 1.645 * sqrt(max(chance, 0) + unknown + (spread * expected) ** 2)
        return expected, max(expected - half, 0), expected + half


#: Local minutes at which a block of arrivals begins.
BLOCK_STARTS = (0, 360, 480, 600, 720, 840, 960, 1080, 1140, 1200, 1260, 1320)


def holds(shown: tuple[float, int, int], exact: tuple[float, float, float]) -> bool:
    """Whether an estimate as shown is the exact one, rounded: to a tenth, down, up. A hair's breadth is left to the computer."""
    return (
        abs(shown[0] - exact[0]) <= 0.05 + 1e-6
        and floor(exact[1] - 1e-6) <= shown[1] <= floor(exact[1] + 1e-6)
        and ceil(exact[2] - 1e-6) <= shown[2] <= ceil(exact[2] + 1e-6)
    )


def _closed(opening: Scan, left_at: int, ended_by: str) -> Visit:
    return Visit(opening.venue_id, opening.visitor_id, opening.occurred_at_ms, left_at, ended_by, opening.party_size)


class Curve:
    """The persons present at every instant, as a step function of the visits of one venue."""

    def __init__(self, visits: Iterable[Visit]) -> None:
        change: dict[int, int] = defaultdict(int)
        for visit in visits:
            change[visit.checked_in_at] += visit.party_size
            change[visit.left_at] -= visit.party_size
        self._instants = sorted(change)
        self._levels = []
        level = 0
        for instant in self._instants:
            level += change[instant]
            self._levels.append(level)

    def at(self, instant: int) -> int:
        """The persons present at an instant."""
        before = bisect_right(self._instants, instant)
        return self._levels[before - 1] if before else 0

    def steps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(persons, milliseconds) of each step within [start, end)."""
        inside = self._instants[bisect_right(self._instants, start) : bisect_right(self._instants, end - 1)]
        edges = [start, *inside, end]
        for left, right in pairwise(edges):
            yield self.at(left), right - left

    def peak(self, start: int, end: int) -> int:
        """The most persons present at any instant of [start, end)."""
        return max(persons for persons, _ in self.steps(start, end))

    def held(self, condition: Callable[[int], bool], start: int, end: int) -> bool:
        """Whether the condition holds for the persons present at every instant of [start, end)."""
        return all(condition(persons) for persons, _ in self.steps(start, end))

    def person_ms(self, start: int, end: int) -> int:
        """The time spent present within [start, end), summed over persons."""
        return sum(persons * length for persons, length in self.steps(start, end))

    def contact_ms(self, start: int, end: int) -> int:
        """The time that pairs of persons were present together within [start, end), summed over pairs."""
        return sum(persons * (persons - 1) // 2 * length for persons, length in self.steps(start, end))

    def ms_over(self, capacity: int, start: int, end: int) -> int:
        """The time within [start, end) with more persons present than `capacity`."""
        return sum(length for persons, length in self.steps(start, end) if persons > capacity)


def _floor(instant: int, width: int) -> int:
    return instant // width * width


def _arrivals(visits: Iterable[Visit], width: int) -> dict[int, int]:
    """Persons who checked in, by the start of their cell of `width` milliseconds."""
    counts: dict[int, int] = defaultdict(int)
    for visit in visits:
        counts[_floor(visit.checked_in_at, width)] += visit.party_size
    return counts


def _departures(visits: Iterable[Visit], width: int, as_of: int) -> dict[int, int]:
    """Persons who left at or before `as_of`, by the start of their cell of `width` milliseconds."""
    counts: dict[int, int] = defaultdict(int)
    for visit in visits:
        if visit.left_at <= as_of:
            counts[_floor(visit.left_at, width)] += visit.party_size
    return counts


def _minutes(venue_id: str, visits: list[Visit], as_of: int) -> Iterator[MinuteRow]:
    arrivals, departures, curve = _arrivals(visits, MINUTE), _departures(visits, MINUTE, as_of), Curve(visits)
    for minute in arrivals.keys() | departures.keys():
        end = minute + MINUTE
        staying = sum(visit.party_size for visit in visits if visit.checked_in_at < end and visit.left_at >= end)
        yield MinuteRow(
            venue_id=venue_id,
            minute=minute // SECOND,
            arrivals=arrivals.get(minute, 0),
            departures=departures.get(minute, 0),
            occupancy=staying,
            peak=curve.peak(minute, end),
        )


def _hours(venue_id: str, visits: list[Visit], capacity: int | None, as_of: int) -> Iterator[HourRow]:
    arrivals, departures, curve = _arrivals(visits, HOUR), _departures(visits, HOUR, as_of), Curve(visits)
    present = {
        hour
        for visit in visits
        for hour in range(_floor(visit.checked_in_at, HOUR), visit.left_at, HOUR)
        if visit.left_at > visit.checked_in_at and hour <= as_of
    }
    for hour in arrivals.keys() | departures.keys() | present:
        end = hour + HOUR
        yield HourRow(
            venue_id=venue_id,
            hour=hour // SECOND,
            arrivals=arrivals.get(hour, 0),
            departures=departures.get(hour, 0),
            mean_occupancy=curve.person_ms(hour, end) / HOUR,
            peak=curve.peak(hour, end),
            minutes_over_capacity=(0 if capacity is None else curve.ms_over(capacity, hour, end)) / MINUTE,
            person_contact_minutes=curve.contact_ms(hour, end) / MINUTE,
        )


def _rolling(venue_id: str, visits: list[Visit], as_of: int) -> Iterator[RollingRow]:
    curve, end = Curve(visits), _floor(as_of, MINUTE)
    for minutes in (15, 60):
        start = end - minutes * MINUTE
        arrived = [visit for visit in visits if start <= visit.checked_in_at < end]
        left = [visit for visit in visits if start <= visit.left_at < end]
        present = [v for v in visits if v.checked_in_at < end and v.left_at > start and v.left_at > v.checked_in_at]
        if arrived or left or present:
            yield RollingRow(
                venue_id=venue_id,
                window=f"{minutes}m",
                window_end=end // SECOND,
                arrivals=sum(visit.party_size for visit in arrived),
                unique_visitors=len({visit.visitor_id for visit in present}),
                peak=curve.peak(start, end),
                mean_occupancy=curve.person_ms(start, end) / (minutes * MINUTE),
                median_dwell_minutes=_median_minutes([visit.left_at - visit.checked_in_at for visit in left]),
            )


def _median_minutes(durations: list[int]) -> float | None:
    if not durations:
        return None
    ordered, middle = sorted(durations), len(durations) // 2
    return (ordered[middle] + ordered[-middle - 1]) / (2 * MINUTE)


def _now(venue_id: str, visits: list[Visit], capacity: int | None, as_of: int) -> Iterator[NowRow]:
    persons = sum(visit.party_size for visit in visits if visit.checked_in_at <= as_of < visit.left_at)
    if persons:
        yield NowRow(venue_id, persons, capacity, None if capacity is None else persons / capacity, as_of)


def _alerts(
    venue_id: str, visits: list[Visit], capacity: int, level: str, rule: CrowdingRule, as_of: int
) -> Iterator[AlertRow]:
    """At every instant at which a hold may be long enough, in order: whether it is is read off the whole curve."""
    curve = Curve(visits)
    high, low = Fraction(rule.raise_at) * capacity, Fraction(rule.clear_below) * capacity
    changes = {instant for visit in visits for instant in (visit.checked_in_at, visit.left_at)}

    def held(raises: bool, start: int, end: int) -> bool:
        return curve.held(lambda persons: persons >= high if raises else persons < low, start, end)

    return _turns(venue_id, curve, capacity, level, rule, as_of, changes, held)


def judged_alerts(
    venue_id: str,
    visits: list[Visit],
    capacity: int,
    level: str,
    as_of: int,
    basis: str,
    estimate: Callable[[int], tuple[float, float, float] | None],
) -> Iterator[AlertRow]:
    """The alerts by the default rule where in each minute the estimate at the end of the one before is judged, or the count.

    `estimate` gives (expected, low, high) before rounding at the end of a minute since the epoch, or None.
    """
    curve, rule = Curve(visits), DEFAULT_CROWDING[level]
    share, low = Fraction(rule.raise_at), Fraction(rule.clear_below)
    changes = {instant for visit in visits for instant in (visit.checked_in_at, visit.left_at)}
    begin = min(changes) // MINUTE
    minutes = range(begin, as_of // MINUTE + 1)
    estimates = {minute: estimate(minute - 1) for minute in minutes}

    def judge(instant: int, raises: bool) -> bool:
        found = estimates.get(instant // MINUTE)
        if found is None:
            return curve.at(instant) >= share * capacity if raises else curve.at(instant) < low * capacity
        expected, high = Fraction(round(10 * found[0]), 10), ceil(found[2])
        if basis == "probability":
            deviation = (high - float(expected)) / 1.645
            over = float(expected) - floor(share * capacity) - 0.5
            probability = NormalDist().cdf(over / deviation) if deviation else float(over > 0)
            return probability >= 0.5 if raises else probability < 0.2
        present = expected if basis == "expected" else high
        return present >= share * capacity if raises else present < low * capacity

    starts = changes | {minute * MINUTE for minute in minutes}
    ordered = sorted(starts)

    def held(raises: bool, start: int, end: int) -> bool:
        inside = ordered[bisect_right(ordered, start) : bisect_right(ordered, end - 1)]
        return all(judge(at, raises) for at in [start, *inside])

    return _turns(venue_id, curve, capacity, level, rule, as_of, starts, held)


def _turns(
    venue_id: str,
    curve: Curve,
    capacity: int,
    level: str,
    rule: CrowdingRule,
    as_of: int,
    changes: set[int],
    held: Callable[[bool, int, int], bool],
) -> Iterator[AlertRow]:
    """`held`: whether what raises (or else what clears) was there at every instant of [start, end)."""
    moments = {change + hold for change in changes for hold in (rule.raise_for, rule.clear_for)}
    raised_at = None
    ends: list[tuple[int, int | None]] = []
    for moment in sorted(moment for moment in moments if moment <= as_of):
        if raised_at is None and held(True, moment - rule.raise_for, moment):
            raised_at = moment
        elif raised_at is not None and held(False, moment - rule.clear_for, moment):
            ends.append((raised_at, moment))
            raised_at = None
    if raised_at is not None:
        ends.append((raised_at, None))
    for raised_at, cleared_at in ends:
        name = sha256(f"{venue_id}|{level}|{raised_at}".encode()).hexdigest()[:16]
        peak = curve.peak(raised_at, as_of + 1 if cleared_at is None else cleared_at)
        yield AlertRow(name, venue_id, level, raised_at, cleared_at, peak, capacity)
