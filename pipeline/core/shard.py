"""The state of one partition: `(state, batch of scans) → (state, changed rows)`, and the clock moved on.

Pure: no I/O, no clock of its own, no randomness. What it gives is a function of the set of scans it was given, the venues'
rules and the clock; never of order, duplicates or batch boundaries.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline.core import collect, crowding, fold, names, occupancy, rolling
from pipeline.core.cells import add_event, add_visits, force_cells
from pipeline.core.columns import ScanColumns, Text
from pipeline.core.jit import kernel, wide
from pipeline.core.levels import LONGEST_HOLD, Rule
from pipeline.core.moves import REACH, add_moves, order_moves
from pipeline.core.pools import (
    HARD_LIMIT,
    HOUR,
    I32,
    I64,
    MINUTE,
    NONE,
    U8,
    Cells,
    Events,
    Moves,
    Names,
    Pairs,
    Scans,
    Venues,
    bytes_held,
    crowded,
    grown_venues,
    make_room,
    new_cells,
    new_events,
    new_moves,
    new_names,
    new_pairs,
    new_scans,
    new_slots,
    new_venues,
)

#: Before any scan: everything lies after it.
BEGINNING = -(1 << 60)

#: `cells_from` lies so long (ms) before the horizon.
KEPT_BACK = HARD_LIMIT + LONGEST_HOLD

_ROWS = 4096
#: Moves out of order are put in order once they are so many, and more than a quarter of the others.
_UNORDERED_MOVES = 100_000


@dataclass(frozen=True, slots=True)
class VenueRules:
    """What the fold and the figures need to know of a venue: max stay in ms, capacity in persons (NONE if unknown).

    `place`, its category and time zone, is what estimates go by, `crowding`, a rule for each of LEVELS, what alerts do; the
    shard has no use for them.
    """

    limit: int
    capacity: int = NONE
    place: tuple[str, str | None] = ("unknown", None)
    crowding: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows that changed since the last `take_changes`, with the names that their codes stand for.

    `moved`: by venue code, the first minute (since the epoch) whose estimate may have changed; NEVER where none has.
    """

    venue_names: Names
    visitor_names: Names
    visits: fold.VisitRows
    minutes: occupancy.MinuteRows
    hours: occupancy.HourRows
    now: occupancy.NowRows
    moved: I32

    @property
    def rows(self) -> int:
        """How many rows there are in all."""
        return sum(int(rows.used[0]) for rows in (self.visits, self.minutes, self.hours, self.now))


@dataclass(frozen=True, slots=True)
class Correction:
    """One pair's history as the store has it, to take the place of what memory holds of it.

    `scans` (at, kind, party, fresh as in `Shard.load`), sorted: those that memory is to hold. `gone` and `come` (start, left,
    party): visits to be counted no longer, or from now on. `moves` (start, closed, persons): visits in the log of moves; their
    opposite, with persons < 0.
    """

    venue: bytes
    visitor: bytes
    scans: tuple[I64, U8, U8, U8]
    gone: list[tuple[int, int, int]]
    come: list[tuple[int, int, int]]
    moves: list[tuple[int, int, int]]


@kernel
def _load(
    venue: I32,
    visitor: I32,
    kind: U8,
    at: I64,
    party: U8,
    fresh: U8,
    cells_from: int,
    pairs: Pairs,
    scans: Scans,
    venues: Venues,
    cells: Cells,
    events: Events,
    moves: Moves,
    rows: fold.VisitRows,
) -> None:
    for i in range(len(at)):
        row = fold.add_pair(pairs, (wide(venue[i]) << 32) | wide(visitor[i]))
        fold.append_scan(pairs, scans, row, at[i], kind[i], party[i], fresh[i])
        rows.used[0] = 0
        fold._continue_fold(pairs, venues, cells, events, moves, rows, cells_from, row, at[i], kind[i], party[i])
    rows.used[0] = 0


@kernel
def _carry_in(
    venue: I32,
    left: I64,
    party: U8,
    cells_from: int,
    venues: Venues,
    cells: Cells,
    events: Events,
) -> None:
    for i in range(len(venue)):
        venues.rows[venue[i]].carried += party[i]
        add_event(venues, cells, events, cells_from, venue[i], left[i], -wide(party[i]), True)


class Shard:
    """Pairing and occupancy of one partition's venues, in memory."""

    def __init__(self, rules: Callable[[bytes], VenueRules]) -> None:
        """`rules` gives the rules of a venue by its id; it is asked once, when the venue is first seen."""
        self._rules = rules
        self.venue_names: Names = new_names()
        self.visitor_names: Names = new_names()
        self._pairs: Pairs = new_pairs()
        self._scans: Scans = new_scans()
        self._events: Events = new_events()
        self._cells: Cells = new_cells()
        self._venues: Venues = new_venues()
        self._moves: Moves = new_moves(kept=False)
        self._ordered_moves = 0
        self._known_venues = 0
        self._need = np.zeros(2, np.int64)
        self._slots = np.zeros(fold.BLOCK, np.int64)
        self._scratch = np.zeros(256, np.int64)
        self._old, self._new = fold.new_visits(64), fold.new_visits(64)
        self._hour = BEGINNING // HOUR
        #: Scans before this (ms, on an hour) are ANCIENT: not in memory.
        self.horizon = BEGINNING
        #: The newest `occurred_at` seen (ms).
        self.newest = BEGINNING
        # Scans taken by hour of occurrence: what a later horizon would let go of.
        self._taken: Counter[int] = Counter()
        self._reset_rows()

    def _reset_rows(self) -> None:
        self._visit_rows = fold.new_visit_rows(_ROWS)
        self._minute_rows = occupancy.new_minute_rows(_ROWS)
        self._hour_rows = occupancy.new_hour_rows(_ROWS)
        self._now_rows = occupancy.new_now_rows(_ROWS)
        self._moved = np.zeros(0, np.int32)

    @property
    def changes_from(self) -> int:
        """No scan that memory takes changes occupancy before this (ms, on an hour)."""
        return self.reach_of(self.horizon)[0]

    @property
    def cells_from(self) -> int:
        """Arrivals and departures before this (ms, on an hour) are history: only the store has them one by one."""
        return self.reach_of(self.horizon)[1]

    @staticmethod
    def reach_of(horizon: int) -> tuple[int, int]:
        """`changes_from` and `cells_from` of a horizon: what crowding looks back upon is kept beside what can change."""
        if horizon == BEGINNING:
            return BEGINNING, BEGINNING
        return horizon - HARD_LIMIT, horizon - KEPT_BACK

    @property
    def scans_held(self) -> int:
        """Scans in memory."""
        return int(self._scans.used[0])

    @property
    def pairs_held(self) -> int:
        """Pairs of venue and visitor in memory."""
        return int(self._pairs.used[0])

    @property
    def venue_count(self) -> int:
        """Venues seen."""
        return self._known_venues

    def bytes_held(self) -> int:
        """Memory of the state, in bytes."""
        return bytes_held(
            self.venue_names,
            self.visitor_names,
            self._pairs,
            self._scans,
            self._events,
            self._cells,
            self._venues,
            self._moves,
        )

    def open_visits(self) -> int:
        """Visits that a check-out could still close."""
        return int(np.count_nonzero(self._pairs.rows["opened"][: self.pairs_held] != NONE))

    def _intern_venues(self, buffer: U8, text: Text) -> I32:
        self.venue_names, codes = names.intern(self.venue_names, buffer, text)
        count = int(self.venue_names.used[0])
        if count > self._known_venues:
            self._venues = grown_venues(self._venues, count)
            fresh = np.arange(self._known_venues, count, dtype=np.int32)
            offsets, data = names.texts(self.venue_names, fresh)
            for i, code in enumerate(fresh):
                rules = self._rules(data[offsets[i] : offsets[i + 1]].tobytes())
                self._venues.rows["limit"][code] = rules.limit
                self._venues.rows["capacity"][code] = rules.capacity
            self._known_venues = count
        return codes

    def _intern_visitors(self, buffer: U8, text: Text) -> I32:
        self.visitor_names, codes = names.intern(self.visitor_names, buffer, text)
        return codes

    def _make_room(self, room: int) -> None:
        make_room(self._pairs, room)
        if crowded(self._pairs.slots, len(self._pairs.rows)):
            slots = new_slots(len(self._pairs.rows))
            fold.rebuild_slots(self._pairs, slots)
            self._pairs = self._pairs._replace(slots=slots)
        make_room(self._scans, room)
        make_room(self._events, room)
        make_room(self._cells, room)
        if self._moves.used[1]:
            make_room(self._moves, room)

    def apply(self, columns: ScanColumns, venue: I32 | None = None) -> U8:
        """Take scans in any order; for each whether it was STORED, a DUPLICATE, or ANCIENT (not taken: the store's business).

        `venue`: the codes of their venues, if they are known already.
        """
        count = len(columns)
        outcome = np.zeros(count, np.uint8)
        if not count:
            return outcome
        venue = self._intern_venues(columns.buffer, columns.venue_id) if venue is None else venue
        visitor = self._intern_visitors(columns.buffer, columns.visitor_id)
        self.newest = max(self.newest, int(columns.occurred_at.max()))
        self._count_hours(columns.occurred_at)
        # Any order gives the same result; that of the venues has what each needs in the processor's cache.
        order = names.order_by(venue, self._known_venues)
        at = 0
        while True:
            at = fold.apply_scans(
                at,
                order,
                venue,
                visitor,
                columns.event_type,
                columns.occurred_at,
                columns.party_size,
                outcome,
                self.horizon,
                self.cells_from,
                self._pairs,
                self._scans,
                self._venues,
                self._cells,
                self._events,
                self._moves,
                self._visit_rows,
                self._old,
                self._new,
                self._slots,
                self._need,
            )
            if at == count:
                return outcome
            room = int(self._need[0])
            self._make_room(room)
            self._visit_rows = _longer_rows(self._visit_rows, room)
            if room > len(self._old.start):
                self._old, self._new = fold.new_visits(2 * room), fold.new_visits(2 * room)

    def advance(self, as_of: int, *, emit: bool = True) -> None:
        """Compute all that changed, with the clock at `as_of` (ms; never less than before)."""
        end_hour = max(as_of, min(self.newest, as_of + HOUR)) // HOUR
        moved = self._venues.rows["moved"][: self._known_venues].copy()
        np.minimum(moved[: len(self._moved)], self._moved, out=moved[: len(self._moved)])
        self._moved = moved
        venue = 0
        while True:
            venue = occupancy.advance(
                venue,
                self._known_venues,
                as_of,
                end_hour,
                self._hour,
                emit,
                self._venues,
                self._cells,
                self._events,
                self._minute_rows,
                self._hour_rows,
                self._now_rows,
                self._scratch,
                self._need,
            )
            if venue == self._known_venues:
                break
            room = int(self._need[0])
            self._minute_rows = _longer_rows(self._minute_rows, room)
            self._hour_rows = _longer_rows(self._hour_rows, room)
            self._now_rows = _longer_rows(self._now_rows, 1)
            if room > len(self._scratch):
                self._scratch = np.zeros(2 * room, np.int64)
        self._hour = as_of // HOUR

    def take_changes(self) -> Changes:
        """The rows that changed since the last call."""
        changes = Changes(
            self.venue_names,
            self.visitor_names,
            self._visit_rows,
            self._minute_rows,
            self._hour_rows,
            self._now_rows,
            self._moved,
        )
        self._reset_rows()
        return changes

    def rolling(self, as_of: int, width: int) -> rolling.WindowRows:
        """The rolling windows of `width` minutes before the last full minute at `as_of` (ms). Call `advance(as_of)` first."""
        return rolling.rolling_windows(
            as_of // MINUTE, width, self._known_venues, self._pairs, self._scans, self._venues, self._cells
        )

    def curve(self, venue: int, from_minute: int, until: int) -> tuple[I64, I64]:
        """A venue's occupancy as steps: `persons[i]` present from `at[i]` (ms), the first one the start of `from_minute` (since
        the epoch), the last one at `until` (ms) or before. Call `advance(until)` first.
        """
        at, persons = np.zeros(256, np.int64), np.zeros(256, np.int64)
        while True:
            count = crowding.read_curve(
                self._venues,
                self._cells,
                self._events,
                venue,
                from_minute,
                until,
                at,
                persons,
                self._scratch,
                self._need,
            )
            if count != NONE:
                return at[:count], persons[:count]
            room = int(self._need[0])
            at, persons = np.zeros(room, np.int64), np.zeros(room, np.int64)
            if room > len(self._scratch):
                self._scratch = np.zeros(2 * room, np.int64)

    def most_present(self, venue: int, from_minute: int, until_minute: int) -> int:
        """The most persons at a venue at any instant of [from_minute, until_minute), minutes since the epoch."""
        return crowding.most_present(self._venues, self._cells, venue, from_minute, until_minute)

    def next_look(self, venue: int, as_of: int, lowest: int) -> int:
        """When (ms) occupancy next changes in a minute with `lowest` persons or more, as known at `as_of`; NONE if never."""
        return crowding.next_look(self._venues, self._cells, self._events, venue, as_of, lowest)

    def crowded(self, looks: crowding.Looks, until: int) -> tuple[I64, I64]:
        """The alerts by the count of many venues, and what is due of each: see `crowding.look`. Call `advance(until)` first."""
        count, levels = looks.bounds.shape[:2]
        (at, persons, turns), rows = np.zeros((3, 256), np.int64), np.zeros((257, 3), np.int64)
        step = np.zeros(2, np.int64)
        found, due, used = np.zeros((count + 1024, 5), np.int64), np.zeros((count, 2), np.int64), np.zeros(1, np.int64)
        here = 0
        while True:
            here = crowding.look(
                here,
                looks,
                until,
                self.cells_from,
                self._venues,
                self._cells,
                self._events,
                at,
                persons,
                turns,
                rows,
                step,
                self._scratch,
                found,
                due,
                used,
                self._need,
            )
            if here == count:
                return found[: used[0]], due
            room = int(self._need[0])
            if room > len(at):
                (at, persons, turns), rows = np.zeros((3, room), np.int64), np.zeros((room + 1, 3), np.int64)
            if room > len(self._scratch):
                self._scratch = np.zeros(2 * room, np.int64)
            longer = np.zeros((len(found) + max(len(found), levels * room), 5), np.int64)
            longer[: used[0]] = found[: used[0]]
            found = longer

    def reaching(self, from_minute: int, lowest: I32) -> I32:
        """The codes of the venues where lowest[code] persons or more are present at the start of a minute or later."""
        reaching = np.zeros(self._known_venues, np.uint8)
        crowding.mark_reaching(self._venues, self._cells, self._known_venues, from_minute, lowest, reaching)
        return np.flatnonzero(reaching).astype(np.int32)

    def keep_moves(self) -> None:
        """Keep a log of moves from now on; those of the visits loaded before are for `load_moves` to add."""
        self._moves.used[1] = 1

    @property
    def moves_from(self) -> int:
        """Visits that began before this (ms) matter to no estimate of a minute in memory."""
        return max(self.cells_from - REACH * MINUTE, BEGINNING)

    def load_moves(self, buffer: U8, venue_id: Text, start: I64, closed: I64, persons: I64) -> None:
        """Log visits from the store, as they are: no estimate changes by it. `closed` in ms, NONE where nothing closed one."""
        venue = self._intern_venues(buffer, venue_id)
        make_room(self._moves, 2 * len(venue))
        marks = self._venues.rows[["moved", "moved_to"]].copy()
        add_moves(self._venues, self._moves, self.cells_from, venue, start, closed, persons)
        self._venues.rows[["moved", "moved_to"]] = marks

    def logged_moves(self) -> tuple[I32, Moves]:
        """Of each venue the first row of its moves, NONE without any, and the log: for minutes since `cells_from` only."""
        unordered = int(self._moves.used[0]) - self._ordered_moves
        if unordered > max(_UNORDERED_MOVES, self._ordered_moves // 4):
            self._order_moves()
        return np.ascontiguousarray(self._venues.rows["moves"][: self._known_venues]), self._moves

    def _order_moves(self) -> None:
        count = int(self._moves.used[0])
        ordered = new_moves(kept=bool(self._moves.used[1]), capacity=max(count + count // 4, 1024))
        order_moves(self._known_venues, self.cells_from, self._venues, self._moves, ordered)
        self._moves, self._ordered_moves = ordered, int(ordered.used[0])

    def presence(self) -> tuple[I32, I32]:
        """By venue code: persons present at the clock (NONE before they were counted), and the capacity (NONE if unknown)."""
        rows = self._venues.rows[: self._known_venues]
        return rows["now"].copy(), rows["capacity"].copy()

    def venue_ids(self, codes: I32 | None = None) -> list[bytes]:
        """The ids of some venues by code, or of all."""
        wanted = np.arange(self._known_venues, dtype=np.int32) if codes is None else codes
        offsets, data = names.texts(self.venue_names, wanted)
        return [data[offsets[i] : offsets[i + 1]].tobytes() for i in range(len(wanted))]

    def load(self, columns: ScanColumns, fresh: U8) -> None:
        """Take scans from the store, all of a pair's at once and in any order, of pairs not in memory; no rows come of it.

        `fresh` marks those that were stored but not accounted for before a crash: they count as STORED when they come again.
        """
        count = len(columns)
        if not count:
            return
        venue = self._intern_venues(columns.buffer, columns.venue_id)
        visitor = self._intern_visitors(columns.buffer, columns.visitor_id)
        self._make_room(4 * count + 4)
        # By venue, not by pair: an arrival then lies beside the one before.
        order = names.sorted_rows(venue, self._known_venues, columns.occurred_at, columns.event_type.astype(np.int64))
        _load(
            venue[order],
            visitor[order],
            columns.event_type[order],
            columns.occurred_at[order],
            columns.party_size[order],
            fresh[order],
            self.cells_from,
            self._pairs,
            self._scans,
            self._venues,
            self._cells,
            self._events,
            new_moves(kept=False),
            self._visit_rows,
        )
        self.newest = max(self.newest, int(columns.occurred_at.max()))
        self._count_hours(columns.occurred_at)

    def carry_in(self, buffer: U8, venue_id: Text, left: I64, party: U8) -> None:
        """Take visits from the store that began before `cells_from` and end after: nothing can change them but a correction."""
        venue = self._intern_venues(buffer, venue_id)
        self._make_room(len(venue) + 1)
        _carry_in(venue, left, party, self.cells_from, self._venues, self._cells, self._events)

    def know_venues(self, buffer: U8, venue_id: Text) -> I32:
        """Make venues known that may have no scans in memory, so that they have a row in `occupancy_now`; their codes."""
        return self._intern_venues(buffer, venue_id)

    def correct(self, corrections: list[Correction]) -> None:
        """Replace what memory holds of some pairs by what the store says; figures that change are given by `advance`."""
        for correction in corrections:
            buffer = np.frombuffer(correction.venue + correction.visitor, np.uint8)
            venue_length = len(correction.venue)
            venue = int(self._intern_venues(buffer, _text(0, venue_length))[0])
            visitor = int(self._intern_visitors(buffer, _text(venue_length, len(correction.visitor)))[0])
            at, kind, party, fresh = correction.scans
            self._make_room(4 * (len(at) + len(correction.gone) + len(correction.come)) + 4)
            for visits, remove in ((correction.gone, True), (correction.come, False)):
                if visits:
                    start, left, persons = (np.array(column, np.int64) for column in zip(*visits, strict=True))
                    codes = np.full(len(visits), venue, np.int32)
                    add_visits(
                        self._venues, self._cells, self._events, self.cells_from, codes, start, left, persons, remove
                    )
            if correction.moves:
                start, closed, persons = (np.array(column, np.int64) for column in zip(*correction.moves, strict=True))
                make_room(self._moves, 2 * len(start))
                codes = np.full(len(start), venue, np.int32)
                add_moves(self._venues, self._moves, self.cells_from, codes, start, closed, persons)
            row = fold.add_pair(self._pairs, (venue << 32) | visitor)
            self._pairs.rows["head"][row] = self._pairs.rows["tail"][row] = NONE
            for i in range(len(at)):
                fold.append_scan(self._pairs, self._scans, row, int(at[i]), int(kind[i]), int(party[i]), int(fresh[i]))
            if len(at) > len(self._old.start):
                self._old, self._new = fold.new_visits(2 * len(at)), fold.new_visits(2 * len(at))
            count = fold.fold_chain(
                self._scans, int(self._pairs.rows["head"][row]), int(self._venues.rows["limit"][venue]), self._old
            )
            fold.settle_tail(self._pairs, row, self._old, count)

    def count_visits(
        self,
        buffer: U8,
        venue_id: Text,
        start: I64,
        left: I64,
        party: I64,
    ) -> None:
        """Count visits for occupancy alone, without the scans they come from."""
        venue = self._intern_venues(buffer, venue_id)
        self._make_room(2 * len(venue) + 2)
        add_visits(self._venues, self._cells, self._events, self.cells_from, venue, start, left, party, False)

    def rewrite(self, venue: bytes, minutes: I64, since: int) -> None:
        """Have a venue's rows since `since` (ms) written again, and those of `minutes` deleted where there is nothing to show."""
        code = int(self._intern_venues(np.frombuffer(venue, np.uint8), _text(0, len(venue)))[0])
        self._make_room(len(minutes) + 1)
        force_cells(self._venues, self._cells, code, minutes, since // MINUTE)

    def rewrite_now(self) -> None:
        """Have the occupancy at the clock written again for every venue."""
        self._venues.rows["now"] = NONE

    def codes_of(self, venues: list[bytes]) -> I32:
        """The codes of some venues, which become known."""
        lengths = np.array([len(venue) for venue in venues], np.int32)
        start = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if venues else np.zeros(0, np.int64)
        return self._intern_venues(np.frombuffer(b"".join(venues), np.uint8), Text(start, lengths))

    def knows(self, venue: bytes) -> bool:
        """Whether the venue has been seen."""
        return bool(names.find(self.venue_names, np.frombuffer(venue, np.uint8), _text(0, len(venue)))[0] >= 0)

    def follows(self, venue: bytes, rules: VenueRules) -> bool:
        """Whether a venue that has been seen has these rules, but for its place."""
        row = self._venues.rows[int(self.codes_of([venue])[0])]
        return bool(row["limit"] == rules.limit and row["capacity"] == rules.capacity)

    def set_rules(self, venue: bytes, rules: VenueRules) -> bool:
        """Change a venue's rules. Returns whether its visits must be corrected from the store, because max stay changed."""
        buffer = np.frombuffer(venue, np.uint8)
        known = int(names.find(self.venue_names, buffer, _text(0, len(venue)))[0])
        if known < 0:
            return False
        if self._venues.rows["capacity"][known] != rules.capacity:
            self._venues.rows["capacity"][known] = rules.capacity
            self.rewrite(venue, np.zeros(0, np.int64), self.cells_from)
        changed = int(self._venues.rows["limit"][known]) != rules.limit
        self._venues.rows["limit"][known] = rules.limit
        return changed

    def _count_hours(self, at: I64) -> None:
        hours, counts = np.unique(at // HOUR, return_counts=True)
        self._taken.update(dict(zip(hours.tolist(), counts.tolist(), strict=True)))

    def collect_due(self, horizon: int) -> bool:
        """Whether enough could be forgotten with this horizon (ms) for `collect` to be worth its time: a third of the scans."""
        if horizon <= self.horizon or self.scans_held < 100_000:
            return False
        return sum(n for hour, n in self._taken.items() if hour * HOUR < horizon - HARD_LIMIT) * 3 > self.scans_held

    def collect(self, horizon: int) -> None:
        """Forget what no scan since `horizon` (ms, on an hour) can change. Call `advance` first, up to the horizon or later."""
        self.horizon = max(self.horizon, horizon)
        longest = collect.longest_chain(self._pairs, self._scans) + 1
        visits = fold.new_visits(longest)
        kept = np.empty(self.pairs_held, np.int64)
        total = collect.keep_from(self.horizon, self.cells_from, self._pairs, self._scans, self._venues, visits, kept)
        live = np.zeros(int(self.visitor_names.used[0]), np.uint8)
        collect.mark_visitors(self._pairs, self._scans, kept, live)
        codes = np.flatnonzero(live).astype(np.int32)
        offsets, data = names.texts(self.visitor_names, codes)
        text = Text(offsets[:-1].astype(np.int64), np.diff(offsets))
        self.visitor_names, fresh = names.intern(new_names(), data, text)
        visitor = np.zeros(len(live), np.int32)
        visitor[codes] = fresh

        pairs, scans = new_pairs(), new_scans()
        make_room(scans, total + 1)
        make_room(pairs, total + 1)
        pairs = pairs._replace(slots=new_slots(len(pairs.rows)))
        collect.copy_pairs(self._pairs, self._scans, self._venues, kept, visitor, pairs, scans, visits)
        self._pairs, self._scans = pairs, scans

        cells, events = new_cells(), new_events()
        make_room(cells, int(self._cells.used[0]))
        make_room(events, int(self._events.used[0]))
        collect.copy_cells(
            self._known_venues, self.cells_from // MINUTE, self._venues, self._cells, self._events, cells, events
        )
        self._cells, self._events = cells, events
        self._order_moves()
        self._taken = Counter({hour: n for hour, n in self._taken.items() if hour * HOUR >= self.cells_from})

    def start_at(self, horizon: int) -> None:
        """Set the horizon (ms, on an hour) of a shard that is about to be loaded."""
        self.horizon = horizon


def horizon_of(watermark: int, late_window: int) -> int:
    """Where ANCIENT ends when the typical newest scan is at `watermark`; both in ms. On an hour."""
    return (watermark - late_window) // HOUR * HOUR if watermark != BEGINNING else BEGINNING


def _text(start: int, length: int) -> Text:
    return Text(np.array([start], np.int64), np.array([length], np.int32))


Rows = TypeVar("Rows", fold.VisitRows, occupancy.MinuteRows, occupancy.HourRows, occupancy.NowRows)


def _longer_rows(rows: Rows, room: int) -> Rows:
    needed = int(rows.used[0]) + room
    size = len(rows.venue)
    if needed <= size:
        return rows
    while size < needed:
        size *= 2
    columns = []
    for name, column in zip(rows._fields, rows, strict=True):
        if name == "used":
            columns.append(column)
        else:
            longer = np.zeros(size, column.dtype)
            longer[: len(column)] = column
            columns.append(longer)
    return type(rows)(*columns)
