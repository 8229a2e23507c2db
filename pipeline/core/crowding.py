"""When a venue is crowded: a state machine with hysteresis over the exact step function of its counted occupancy.

An alert of a level is raised at the instant at which occupancy has been at or over a share of the capacity for long enough, and
cleared at the instant at which it has then been under a lower share for long enough. In place of the count, an estimate of
those really there may be judged, from minute to minute (`Levels.refined`). So alerts follow from the visits, the capacity, the
rules, the models in use and the clock alone; a later scan that changes the visits changes the alerts. Whatever happened up to an
instant was decided by what was there before it: a change from an instant on leaves every raising and clearing up to that
instant as it was, and from there on the machine goes on from them and from the longest hold before (`Levels.look_back`).
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple

import numpy as np

from pipeline.core.cells import last_before
from pipeline.core.jit import kernel, sort_first, wide
from pipeline.core.levels import CLEARED_BELOW_PROBABILITY, LEVELS, RAISED_AT_PROBABILITY, Rule
from pipeline.core.pools import I32, I64, MINUTE, NEVER, NONE, U8, Cells, Events, Venues
from pipeline.core.presence.crowding import probability_over

_SHIFT: Final = 1 << 20

#: Who is estimated at the ends of minutes (since the epoch): expected in tenths of a person, NONE where there is no estimate,
#: and high in persons.
Estimated = tuple[I64, I64]


class Alert(NamedTuple):
    """One crowding of a venue. `level` is an index of LEVELS; times in ms since the epoch, UTC.

    `cleared_at` is NONE while it lasts; `peak` is the most persons present from `raised_at` until it was cleared (or the clock).
    """

    level: int
    raised_at: int
    cleared_at: int
    peak: int
    capacity: int


class Levels:
    """The rules of one venue, in persons."""

    def __init__(self, rules: tuple[Rule, ...], capacity: int, basis: str = "counted") -> None:
        """`rules`: for each of LEVELS. `capacity` in persons; NONE if unknown, nothing is raised then. `basis`: see BASES."""
        self.capacity = capacity
        self._basis = basis
        known = rules if capacity != NONE else ()
        self._rules = known
        self._limits = tuple(
            (_ceiling(rule.raise_at * capacity), rule.raise_for, _ceiling(rule.clear_below * capacity), rule.clear_for)
            for rule in known
        )
        #: The fewest persons at which anything can be raised; NEVER without a capacity.
        self.lowest = min((limits[0] for limits in self._limits), default=NEVER)
        #: The longest hold, in ms.
        self.look_back = max((max(limits[1], limits[3]) for limits in self._limits), default=0)
        #: What `measure` is at least where an estimate can raise anything; NEVER without a capacity.
        self.least = min((self._least(rule.raise_at) for rule in known), default=NEVER)

    @property
    def bounds(self) -> tuple[tuple[int, int, int, int], ...]:
        """For each of LEVELS the persons at which it is raised, for how long (ms), and the same of clearing; NONE where never."""
        return self._limits or ((NONE, 0, 0, 0),) * len(LEVELS)

    def __eq__(self, other: object) -> bool:
        """Whether both raise and clear alike."""
        return isinstance(other, Levels) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        return self.capacity, self._limits, self._basis

    def _least(self, share: int) -> int:
        if self._basis == "probability":
            return 10 * (share * self.capacity // 1000) + 5
        return -(-share * self.capacity // 100) if self._basis == "expected" else 10 * _ceiling(share * self.capacity)

    def measure(self, estimated: Estimated) -> I64:
        """Of estimates what is compared with `least`, in tenths of a person; NONE where there is no estimate."""
        expected, high = estimated
        return np.where(expected == NONE, NONE, 10 * high) if self._basis == "high" else expected

    def refined(
        self, at: I64, persons: I64, until: int, ask: Callable[[I64], Estimated | None]
    ) -> tuple[I64, I64, I64 | None]:
        """The steps of a counted curve cut where minutes begin, and of each level and step whether it raises (1) or clears (−1).

        In minute m the estimate at the end of minute m − 1 is judged, which is known when m begins; where there is none, the
        count, and None in place of all if no minute has one. `ask` gives estimates at the ends of minutes since the epoch, None
        where no model is in use. at, persons and until as for `alerts`.
        """
        if not self._limits:
            return at, persons, None
        # A curve from before all time begins with nobody, who is cleared by any basis.
        begin = int(at[0]) if at[0] >= 0 else int(at[1]) if len(at) > 1 else until
        minutes = np.arange(begin // MINUTE, until // MINUTE + 1)
        estimated = ask(minutes - 1)
        if estimated is None:
            return at, persons, None
        cut = np.union1d(at, minutes[1:] * MINUTE)
        present = persons[np.searchsorted(at, cut, "right") - 1]
        place = np.maximum(cut // MINUTE - minutes[0], 0)
        known = (estimated[0][place] != NONE) & (cut >= begin)
        judged = np.stack([by_estimate[place] for by_estimate in self._judge(*estimated)])
        return cut, present, np.where(known, judged, np.stack([_judge_count(present, each) for each in self._limits]))

    def _judge(self, expected: I64, high: I64) -> list[I64]:
        found = []
        for rule, (raise_at, _, clear_below, _) in zip(self._rules, self._limits, strict=True):
            if self._basis == "expected":
                raises = 100 * expected >= rule.raise_at * self.capacity
                clears = 100 * expected < rule.clear_below * self.capacity
            elif self._basis == "high":
                raises, clears = high >= raise_at, high < clear_below
            else:
                most = rule.raise_at * self.capacity // 1000
                over = np.array(
                    [probability_over(max(e, 0) / 10, max(h, 0), most) for e, h in zip(expected, high, strict=True)]
                )
                raises, clears = over >= RAISED_AT_PROBABILITY, over < CLEARED_BELOW_PROBABILITY
            found.append(raises.astype(np.int64) - clears)
        return found

    def alerts(
        self,
        at: I64,
        persons: I64,
        until: int,
        since: int,
        in_force: dict[int, tuple[int, int]],
        judged: I64 | None = None,
    ) -> tuple[list[Alert], int]:
        """The alerts in force after `since`, and the earliest instant after `until` at which holding on changes one, or NONE.

        `persons[i]` are present from `at[i]` (ms, rising) up to the next one, the last up to and including `until`. The curve
        begins `look_back` before `since` or earlier. `in_force`: the alerts in force at `since`, as level → (raised_at, the most
        persons from then until at[0]). `judged`: of each level and step whether it raises (1) or clears (−1), as `refined` gives
        it; by the count if None.
        """
        found: list[Alert] = []
        due = NONE
        rows = np.zeros((len(at) + 1, 3), np.int64)
        used = np.zeros(2, np.int64)
        for level, limits in enumerate(self._limits):
            raised, peak = in_force.get(level, (NONE, 0))
            turns = _judge_count(persons, limits) if judged is None else judged[level]
            _follow(at, persons, turns, until, since, limits[1], limits[3], raised, peak, rows, used)
            for raised_at, cleared_at, most in rows[: used[0]].tolist():
                found.append(Alert(level, raised_at, cleared_at, most, self.capacity))
            if used[1] != NONE:
                due = int(used[1]) if due == NONE else min(due, int(used[1]))
        return found, due


def _ceiling(thousandths: int) -> int:
    return -(-thousandths // 1000)


def _judge_count(persons: I64, limits: tuple[int, int, int, int]) -> I64:
    return (persons >= limits[0]).astype(np.int64) - (persons < limits[2])


def alert_id(venue: str, level: int, raised_at: int) -> str:
    """What names an alert everywhere: 16 hexadecimal digits of SHA-256 of venue|level|raised_at (ms since the epoch)."""
    return sha256(f"{venue}|{LEVELS[level]}|{raised_at}".encode()).hexdigest()[:16]


@kernel
def _follow(
    at: I64,
    persons: I64,
    turns: I64,
    until: int,
    since: int,
    raise_for: int,
    clear_for: int,
    raised: int,
    peak: int,
    rows: I64,
    used: I64,
) -> None:
    # Within one step at most one thing happens: what raises does not clear, and the reverse.
    run = wide(NONE)
    needed = raise_for
    count = 0
    steps = len(at)
    for i in range(steps):
        last = i + 1 == steps
        end = until if last else at[i + 1]
        present = persons[i]
        if raised == NONE:
            holds = turns[i] > 0
            needed = raise_for
        else:
            holds = turns[i] < 0
            needed = clear_for
            if end > raised or last:
                peak = max(peak, present)
        if not holds:
            run = NONE
        elif run == NONE:
            run = at[i]
        turn = run + needed
        if run != NONE and since < turn <= end:
            if raised == NONE:
                raised = turn
                peak = present if turn < end or last else 0
            else:
                rows[count, 0] = raised
                rows[count, 1] = turn
                rows[count, 2] = peak
                count += 1
                raised = NONE
            run = NONE
    if raised != NONE:
        rows[count, 0] = raised
        rows[count, 1] = NONE
        rows[count, 2] = peak
        count += 1
    used[0] = count
    used[1] = NONE if run == NONE else run + needed


# --- the curve of a venue in memory


@kernel
def read_curve(
    venues: Venues,
    cells: Cells,
    events: Events,
    venue: int,
    from_minute: int,
    until: int,
    at: I64,
    persons: I64,
    scratch: I64,
    need: I64,
) -> int:
    """The steps of a venue's occupancy from the start of `from_minute` up to `until` (ms), both included; returns how many.

    Cells up to there must have been computed. NONE where the arrays are shorter than need[0]: make room and call again.
    """
    before = last_before(venues, cells, venue, from_minute)
    first = venues.rows[venue].first if before == NONE else cells.rows[before].next
    need[0] = 1
    cell = first
    while cell != NONE and wide(cells.rows[cell].minute) * MINUTE <= until:
        event = cells.rows[cell].events
        while event != NONE:
            need[0] += 1
            event = events.rows[event].next
        cell = cells.rows[cell].next
    if need[0] > len(at):
        return NONE
    present = wide(venues.rows[venue].carried if before == NONE else cells.rows[before].occupancy)
    at[0] = wide(from_minute) * MINUTE
    persons[0] = present
    count = 1
    cell = first
    while cell != NONE and wide(cells.rows[cell].minute) * MINUTE <= until:
        start = wide(cells.rows[cell].minute) * MINUTE
        held = 0
        event = cells.rows[cell].events
        while event != NONE:
            scratch[held] = wide(events.rows[event].ms) * _SHIFT + events.rows[event].delta + _SHIFT // 2
            held += 1
            event = events.rows[event].next
        sort_first(scratch, held)
        i = 0
        while i < held and start + scratch[i] // _SHIFT <= until:
            ms = scratch[i] // _SHIFT
            while i < held and scratch[i] // _SHIFT == ms:
                present += scratch[i] % _SHIFT - _SHIFT // 2
                i += 1
            if at[count - 1] == start + ms:
                persons[count - 1] = present
            else:
                at[count] = start + ms
                persons[count] = present
                count += 1
        cell = cells.rows[cell].next
    return count


@kernel
def most_present(venues: Venues, cells: Cells, venue: int, from_minute: int, until_minute: int) -> int:
    """The most persons present at any instant of [from_minute, until_minute); 0 if there is none. Cells must be computed."""
    if from_minute >= until_minute:
        return 0
    before = last_before(venues, cells, venue, from_minute)
    cell = venues.rows[venue].first if before == NONE else cells.rows[before].next
    present = wide(venues.rows[venue].carried if before == NONE else cells.rows[before].occupancy)
    most = wide(0)
    minute = wide(from_minute)
    while minute < until_minute:
        here = wide(until_minute) if cell == NONE else min(wide(until_minute), wide(cells.rows[cell].minute))
        if here > minute:
            most = max(most, present)
        if here >= until_minute:
            break
        most = max(most, wide(cells.rows[cell].peak))
        present = wide(cells.rows[cell].occupancy)
        minute = here + 1
        cell = cells.rows[cell].next
    return most


@kernel
def next_look(venues: Venues, cells: Cells, events: Events, venue: int, as_of: int, lowest: int) -> int:
    """When (ms) occupancy next changes in a minute that has `lowest` persons or more, as known at `as_of` (ms); NONE if never."""
    minute = as_of // MINUTE
    before = last_before(venues, cells, venue, minute)
    cell = venues.rows[venue].first if before == NONE else cells.rows[before].next
    while cell != NONE:
        if cells.rows[cell].peak >= lowest:
            if cells.rows[cell].minute > minute:
                return wide(cells.rows[cell].minute) * MINUTE
            event = cells.rows[cell].events
            while event != NONE:
                if wide(minute) * MINUTE + events.rows[event].ms > as_of:
                    return as_of + 1
                event = events.rows[event].next
        cell = cells.rows[cell].next
    return NONE


class Looks(NamedTuple):
    """Venues to be looked at, and since when (ms): arrays of one length.

    `bounds`, `look_back` and `lowest` as in Levels. `in_force[look, level]`: of the alert in force at since[look] when it was
    raised, or NONE, and the most persons from then until memory begins.
    """

    venue: I32
    since: I64
    bounds: I64
    look_back: I64
    lowest: I32
    in_force: I64


@kernel
def look(
    first: int,
    looks: Looks,
    until: int,
    cells_from: int,
    venues: Venues,
    cells: Cells,
    events: Events,
    at: I64,
    persons: I64,
    turns: I64,
    rows: I64,
    step: I64,
    scratch: I64,
    found: I64,
    due: I64,
    used: I64,
    need: I64,
) -> int:
    """What `Levels.alerts` does, by the count, for each of many venues: look first, first + 1, … of them.

    Alerts are added to `found` as look, level, raised_at, cleared_at, peak, from row used[0] on; due[look] is when the venue is
    to be looked at again, and when a hold is over that is under way, NONE if never. Memory begins at `cells_from` (ms). Returns
    how far it came: if not to the end, make room for need[0] steps, events and alerts more, and go on from there. `at`, `persons`
    and `turns` are room for as many steps, `rows` for one row more, `step` for two numbers.
    """
    venue, since, bounds, look_back, lowest, in_force = looks
    for i in range(first, len(venue)):
        begin = (since[i] - look_back[i]) // MINUTE
        for level in range(bounds.shape[1]):
            # From where an alert in force was raised, so that the curve tells its peak.
            if in_force[i, level, 0] >= cells_from:
                begin = min(begin, in_force[i, level, 0] // MINUTE)
        count = read_curve(venues, cells, events, venue[i], begin, until, at, persons, scratch, need)
        need[0] = max(need[0], 2 * count + 2)
        if count == NONE or len(found) - used[0] < bounds.shape[1] * (count + 1):
            return i
        due[i, 1] = NONE
        lasts = False
        for level in range(bounds.shape[1]):
            raise_at, clear_below = bounds[i, level, 0], bounds[i, level, 2]
            if raise_at == NONE:
                continue
            for k in range(count):
                turns[k] = (persons[k] >= raise_at) - (persons[k] < clear_below)
            raised, peak = in_force[i, level, 0], in_force[i, level, 1]
            if raised != NONE and raised < cells_from:
                peak = max(peak, most_present(venues, cells, venue[i], cells_from // MINUTE, begin))
            _follow(
                at[:count],
                persons[:count],
                turns[:count],
                until,
                since[i],
                bounds[i, level, 1],
                bounds[i, level, 3],
                raised,
                peak,
                rows,
                step,
            )
            for k in range(step[0]):
                row = used[0]
                used[0] = row + 1
                found[row, 0], found[row, 1] = i, level
                found[row, 2], found[row, 3], found[row, 4] = rows[k, 0], rows[k, 1], rows[k, 2]
                lasts = lasts or rows[k, 1] == NONE
            if step[1] != NONE and (due[i, 1] == NONE or step[1] < due[i, 1]):
                due[i, 1] = step[1]
        change = next_look(venues, cells, events, venue[i], until, 0 if lasts else lowest[i])
        due[i, 0] = due[i, 1] if change == NONE or (due[i, 1] != NONE and due[i, 1] < change) else change
    return len(venue)


@kernel
def mark_reaching(venues: Venues, cells: Cells, venue_count: int, from_minute: int, lowest: I32, reaching: U8) -> None:
    """Set reaching[venue] where lowest[venue] persons or more are present at the start of `from_minute` or in a minute since."""
    for venue in range(venue_count):
        before = last_before(venues, cells, venue, from_minute)
        cell = venues.rows[venue].first if before == NONE else cells.rows[before].next
        if wide(venues.rows[venue].carried if before == NONE else cells.rows[before].occupancy) >= lowest[venue]:
            reaching[venue] = 1
        while cell != NONE and reaching[venue] == 0:
            if cells.rows[cell].peak >= lowest[venue]:
                reaching[venue] = 1
            cell = cells.rows[cell].next
