"""The contract's sections 1 to 5 once more, as plainly as can be: what the log says that the views must show.

Imports nothing of the pipeline, nor of the other tests: a mistake made there cannot be made here by import. Instants are epoch
milliseconds, UTC; intervals are half-open.
"""

import hashlib
import json
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
HARD_LIMIT: Final = DAY
FUTURE: Final = 5 * MINUTE
LARGEST: Final = 65_536

#: What occurred lies in [FIRST, LAST): from 1970-01-02 until before 2106-01-01, UTC.
FIRST: Final = DAY
LAST: Final = 4_291_747_200_000
#: RFC 8259 leaves to the reader how many arrays and objects a value may be in, and how many digits may be before the point.
DEEPEST: Final = 200
MOST_DIGITS: Final = 4_300

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SOURCE = re.compile(r"[A-Za-z0-9._:-]{1,32}")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)
_EPOCH = datetime(1970, 1, 1)


class Record(NamedTuple):
    """A record of check-ins."""

    partition: int
    offset: int
    timestamp: int
    value: bytes | None


class Scan(NamedTuple):
    """A valid scan."""

    venue: str
    visitor: str
    kind: str
    at: int
    party: int
    event: str
    source: str

    @property
    def identity(self) -> tuple[str, str, str, int]:
        """What makes two scans one."""
        return self[:4]


class Visit(NamedTuple):
    """A visit: [start, left)."""

    venue: str
    visitor: str
    start: int
    left: int
    ended: str
    party: int


class Crowding(NamedTuple):
    """When a venue is crowded: from `raise_at` of its capacity for `raise_for`, until below `clear_below` for `clear_for`.

    Shares in thousandths, times in ms.
    """

    raise_at: int
    raise_for: int
    clear_below: int
    clear_for: int


class Case(NamedTuple):
    """A reported case, infectious in [since, until)."""

    case: str
    visitor: str
    since: int
    until: int


class _RefusedError(Exception):
    pass


def _refuse(reason: str) -> Any:
    raise _RefusedError(reason)


def judge(record: Record, retention: int | None) -> Scan | str:
    """The scan that a record holds, or the first reason why it is a dead letter. `retention` in ms: of the clock `wall`.

    Where the contract leaves room it is read as docs/decisions/012-readings-of-the-contract.md says.
    """
    try:
        return _judge(record, retention)
    except _RefusedError as refused:
        return str(refused)


def _judge(record: Record, retention: int | None) -> Scan:
    value = record.value
    if value is None:
        _refuse("not_json")
    assert value is not None
    if len(value) > LARGEST:
        _refuse("too_large")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        _refuse("not_utf8")
    fields = _fields(text)
    for name in ("event_id", "venue_id", "visitor_id"):
        if not isinstance(fields.get(name), str) or not _ID.fullmatch(fields[name]):
            _refuse("schema")
    if fields.get("event_type") not in ("check_in", "check_out"):
        _refuse("schema")
    party = fields.get("party_size", 1)
    if type(party) is not int or not 1 <= party <= 50:
        _refuse("schema")
    source = fields.get("source", "app")
    if not isinstance(source, str) or not _SOURCE.fullmatch(source):
        _refuse("schema")
    at = instant(fields.get("occurred_at"))
    if retention is not None:
        if at < record.timestamp - retention:
            _refuse("too_old")
        if at > record.timestamp + FUTURE:
            _refuse("from_the_future")
    return Scan(fields["venue_id"], fields["visitor_id"], fields["event_type"], at, party, fields["event_id"], source)


class _Members(list[tuple[str, Any]]):
    """An object's members as they are written: of equal keys all."""


def _fields(text: str) -> dict[str, Any]:
    try:
        value = json.loads(
            text, object_pairs_hook=_Members, parse_int=_integer, parse_float=_fraction, parse_constant=_no_number
        )
        _look_into(value)
    except (ValueError, RecursionError):
        _refuse("not_json")
    return dict(value) if isinstance(value, _Members) else _refuse("schema")


def _integer(text: str) -> int:
    if len(text.removeprefix("-")) > MOST_DIGITS:
        raise ValueError("too long")
    return int(text)


def _fraction(text: str) -> float:
    _integer(re.split("[.eE]", text)[0])
    return float(text)


def _no_number(text: str) -> Any:
    # Python's reader knows NaN and Infinity; JSON does not.
    raise ValueError(text)


def _look_into(value: Any, depth: int = 0) -> None:
    """ValueError for half a surrogate pair, or too deep a value, anywhere in it: also where an equal key comes later."""
    if depth > DEEPEST:
        raise ValueError("too deep")
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for each in value:
            for part in each if isinstance(each, tuple) else (each,):
                _look_into(part, depth + 1)


def instant(text: object) -> int:
    """The epoch milliseconds of an RFC 3339 time; what is none is refused."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        _refuse("schema")
    assert match is not None
    *numbers, fraction, sign, hours, minutes = match.groups()
    try:
        local = datetime(*map(int, numbers))  # type: ignore[arg-type]
    except ValueError:
        _refuse("schema")
    at = (local - _EPOCH) // timedelta(milliseconds=1) + int(((fraction or "") + "000")[:3])
    if sign:
        at -= (1 if sign == "+" else -1) * (int(hours) * HOUR + int(minutes) * MINUTE)
    return at if FIRST <= at < LAST else _refuse("schema")


def winners(scans: Iterable[Scan]) -> list[Scan]:
    """One scan of each identity: the larger party, then the smaller event id, then the smaller source."""
    found: dict[tuple[str, str, str, int], Scan] = {}
    for scan in scans:
        other = found.setdefault(scan.identity, scan)
        if (-scan.party, scan.event, scan.source) < (-other.party, other.event, other.source):
            found[scan.identity] = scan
    return list(found.values())


def fold(scans: Iterable[Scan], stay_of: Mapping[str, int], stay: int, as_of: int) -> list[Visit]:
    """Section 2. `stay_of`: venue → max stay in ms, else `stay`."""
    pairs = defaultdict(list)
    for scan in scans:
        pairs[scan.venue, scan.visitor].append(scan)
    return [visit for (venue, _), some in pairs.items() for visit in _fold_pair(some, stay_of.get(venue, stay), as_of)]


def _fold_pair(scans: Iterable[Scan], limit: int, as_of: int) -> Iterator[Visit]:
    began: Scan | None = None
    for scan in sorted(scans, key=lambda each: (each.at, each.kind)):  # "check_in" < "check_out"
        if scan.kind == "check_in":
            if began and scan.at >= began.at + limit:
                yield _visit(began, began.at + limit, "expired")
                began = None
            began = began or scan
        elif began:
            real = scan.at - began.at <= HARD_LIMIT
            yield _visit(began, scan.at, "check_out") if real else _visit(began, began.at + limit, "expired")
            began = None
    if began:
        end = began.at + limit
        yield _visit(began, end, "expired" if as_of >= end else "open")


def _visit(began: Scan, left: int, ended: str) -> Visit:
    return Visit(began.venue, began.visitor, began.at, left, ended, began.party)


class Presence:
    """How many persons are at one venue, at every instant."""

    def __init__(self, visits: list[Visit]) -> None:
        self.visits = visits
        steps: dict[int, int] = defaultdict(int)
        for visit in visits:
            steps[visit.start] += visit.party
            steps[visit.left] -= visit.party
        # A venue of an hour's overload has a hundred thousand steps: they are looked up, not gone through, for each minute.
        self._at = sorted(steps)
        self._persons = [0, *accumulate(steps[at] for at in self._at)]

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(persons, ms) of each piece of [start, end)."""
        first, last = bisect_right(self._at, start), bisect_left(self._at, end)
        bounds = pairwise([start, *self._at[first:last], end])
        for persons, (since, until) in zip(self._persons[first : last + 1], bounds, strict=True):
            yield persons, until - since

    def just_before(self, instant: int) -> int:
        """Persons there until an instant (ms), whether or not they leave at it."""
        return self._persons[bisect_left(self._at, instant)]


Row = tuple[Any, ...]


def views(visits: Iterable[Visit], capacity_of: Mapping[str, int], as_of: int) -> dict[str, set[Row]]:
    """The rows of the views of sections 2 and 3. Of `occupancy_now` only the venues with anyone present."""
    found: dict[str, set[Row]] = {
        name: set() for name in ("visits", "occupancy_minutes", "occupancy_hours", "rolling_occupancy", "occupancy_now")
    }
    venues = defaultdict(list)
    for visit in visits:
        venues[visit.venue].append(visit)
        found["visits"].add(tuple(visit))
    for venue, some in venues.items():
        there, capacity = Presence(some), capacity_of.get(venue)
        found["occupancy_minutes"] |= {(venue, *row) for row in _minutes(there, as_of)}
        found["occupancy_hours"] |= {(venue, *row) for row in _hours(there, capacity, as_of)}
        found["rolling_occupancy"] |= {(venue, *row) for row in _windows(there, as_of)}
        now = sum(visit.party for visit in some if visit.start <= as_of < visit.left)
        if now:
            found["occupancy_now"].add((venue, now, capacity, now / capacity if capacity else None))
    return found


def _moves(visits: list[Visit], width: int, as_of: int) -> tuple[dict[int, int], dict[int, int]]:
    arrivals: dict[int, int] = defaultdict(int)
    departures: dict[int, int] = defaultdict(int)
    for visit in visits:
        arrivals[visit.start // width] += visit.party
        if visit.left <= as_of:
            departures[visit.left // width] += visit.party
    return arrivals, departures


def _minutes(there: Presence, as_of: int) -> Iterator[Row]:
    arrivals, departures = _moves(there.visits, MINUTE, as_of)
    for minute in arrivals.keys() | departures.keys():
        end = (minute + 1) * MINUTE
        peak = max(persons for persons, _ in there.pieces(minute * MINUTE, end))
        yield minute * 60, arrivals.get(minute, 0), departures.get(minute, 0), there.just_before(end), peak


def _hours(there: Presence, capacity: int | None, as_of: int) -> Iterator[Row]:
    arrivals, departures = _moves(there.visits, HOUR, as_of)
    hours = arrivals.keys() | departures.keys()
    for visit in there.visits:
        if visit.left > visit.start:
            last = min((visit.left - 1) // HOUR, as_of // HOUR)
            hours |= set(range(visit.start // HOUR, last + 1))
    for hour in hours:
        pieces = list(there.pieces(hour * HOUR, (hour + 1) * HOUR))
        yield (
            hour * 3600,
            arrivals.get(hour, 0),
            departures.get(hour, 0),
            sum(persons * ms for persons, ms in pieces) / HOUR,
            max(persons for persons, _ in pieces),
            sum(ms for persons, ms in pieces if capacity is not None and persons > capacity) / MINUTE,
            sum(persons * (persons - 1) // 2 * ms for persons, ms in pieces) / MINUTE,
        )


def _windows(there: Presence, as_of: int) -> Iterator[Row]:
    end = as_of // MINUTE * MINUTE
    for width in (15, 60):
        start = end - width * MINUTE
        arrived = [visit for visit in there.visits if start <= visit.start < end]
        left = sorted(visit.left - visit.start for visit in there.visits if start <= visit.left < end)
        present = [v for v in there.visits if v.start < end and v.left > start and v.left > v.start]
        if not (arrived or left or present):
            continue
        pieces = list(there.pieces(start, end))
        middle = (left[(len(left) - 1) // 2] + left[len(left) // 2]) / (2 * MINUTE) if left else None
        yield (
            f"{width}m",
            end // 1000,
            sum(visit.party for visit in arrived),
            len({visit.visitor for visit in present}),
            max(persons for persons, _ in pieces),
            sum(persons * ms for persons, ms in pieces) / (width * MINUTE),
            middle,
        )


def alerts(
    visits: Iterable[Visit], capacity_of: Mapping[str, int], rules: Mapping[str, Crowding], as_of: int
) -> set[Row]:
    """The rows of `crowding_alerts`, by level as `rules` say; `cleared_at` None while it lasts."""
    venues = defaultdict(list)
    for visit in visits:
        if visit.venue in capacity_of:
            venues[visit.venue].append(visit)
    found: set[Row] = set()
    for venue, some in venues.items():
        there, capacity = Presence(some), capacity_of[venue]
        first = min(visit.start for visit in some)
        for level, rule in rules.items():
            for raised, cleared in _crowdings(there, capacity, rule, first, as_of):
                peak = max(persons for persons, _ in there.pieces(raised, as_of + 1 if cleared is None else cleared))
                name = hashlib.sha256(f"{venue}|{level}|{raised}".encode()).hexdigest()[:16]
                found.add((name, venue, level, raised, cleared, peak, capacity))
    return found


def _crowdings(
    there: Presence, capacity: int, rule: Crowding, first: int, as_of: int
) -> Iterator[tuple[int, int | None]]:
    # Nobody is there before `first`, so nothing can be raised.
    raised: int | None = None
    held, end = 0, first
    for persons, lasts in there.pieces(first, max(as_of, first + 1)):
        end += lasts
        share = 1000 * persons
        wanted = share >= rule.raise_at * capacity if raised is None else share < rule.clear_below * capacity
        held = held + lasts if wanted else 0
        needed = rule.raise_for if raised is None else rule.clear_for
        if not wanted or held < needed:
            continue
        turn, held = end - (held - needed), 0
        if turn > as_of:
            break
        if raised is None:
            raised = turn
        else:
            yield raised, turn
            raised = None
    if raised is not None:
        yield raised, None


def exposures(visits: Iterable[Visit], cases: Iterable[Case]) -> set[Row]:
    """Of `exposures` by a policy without tail, rounding or least stay, such as `who`: (case, visitor, venue, from, until).

    `until` of a visit that was not checked out of is its automatic end.
    """
    by_venue, by_visitor = defaultdict(list), defaultdict(list)
    for visit in visits:
        by_venue[visit.venue].append(visit)
        by_visitor[visit.visitor].append(visit)
    return {
        (case.case, other.visitor, own.venue, start, end)
        for case in cases
        for own in by_visitor[case.visitor]
        for other in by_venue[own.venue]
        if other.visitor != case.visitor
        and (start := max(own.start, other.start, case.since)) < (end := min(own.left, other.left, case.until))
    }


def warnings(visits: Iterable[Visit], cases: Iterable[Case]) -> set[Row]:
    """Of `venue_warnings` by such a policy: (venue, from, until, cases); touching ones are one."""
    by_visitor = defaultdict(list)
    for visit in visits:
        by_visitor[visit.visitor].append(visit)
    spans = defaultdict(list)
    for case in cases:
        for own in by_visitor[case.visitor]:
            start, end = max(own.start, case.since), min(own.left, case.until)
            if start < end:
                spans[own.venue].append((start, end, case.case))
    found: set[Row] = set()
    for venue, some in spans.items():
        merged: list[tuple[int, int, set[str]]] = []
        for start, end, name in sorted(some):
            if merged and start <= merged[-1][1]:
                begun, until, names = merged[-1]
                merged[-1] = begun, max(until, end), names | {name}
            else:
                merged.append((start, end, {name}))
        found |= {(venue, start, end, len(names)) for start, end, names in merged}
    return found


def digest(value: bytes | None) -> str:
    """SHA-256, as the view dead_letters has it."""
    return hashlib.sha256(value or b"").hexdigest()
