"""Scans paired into visits: the fold of the contract's section 2, and its repair when a scan comes late.

A scan that is the newest of its pair (nearly all are) continues the fold from where it stands. Any other is put into its
place in the pair's chain; the chain is folded before and after, and the difference is what changes. So the result is that of
folding the sorted set, whatever the order of arrival.
"""

from typing import Final, NamedTuple

import numpy as np

from pipeline.core.cells import add_event, add_visit, remove_event, remove_visit
from pipeline.core.columns import CHECK_IN
from pipeline.core.jit import kernel, wide
from pipeline.core.moves import note, note_visit
from pipeline.core.pools import (
    ENDED_CHECK_OUT,
    ENDED_EXPIRED,
    ENDED_OPEN,
    HARD_LIMIT,
    I32,
    I64,
    NONE,
    U8,
    Cells,
    Events,
    Moves,
    Pairs,
    Scans,
    Venues,
    rows_of,
)

#: What became of a scan. An ANCIENT one lies before what memory holds: the store corrects it.
STORED: Final = 0
DUPLICATE: Final = 1
ANCIENT: Final = 2

_LOW: Final = 0xFFFFFFFF

#: Scans whose pairs are touched before they are folded, so that the processor waits for many at once instead of for each in turn.
BLOCK: Final = 64


class VisitRows(NamedTuple):
    """Changed visits in the order of the changes: a later row of the same (venue, visitor, start) replaces an earlier one."""

    venue: I32
    visitor: I32
    start: I64
    left: I64
    ended: U8
    party: U8
    deleted: U8
    used: I64


def new_visit_rows(capacity: int) -> VisitRows:
    """No rows yet."""
    return VisitRows(*rows_of(capacity, np.int32, np.int32, np.int64, np.int64, np.uint8, np.uint8, np.uint8))


class Visits(NamedTuple):
    """Room for the visits of one chain: start, left (ms), how they ended, persons."""

    start: I64
    left: I64
    ended: U8
    party: U8


def new_visits(capacity: int) -> Visits:
    """Room for `capacity` visits."""
    return Visits(
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.uint8),
        np.zeros(capacity, np.uint8),
    )


@kernel
def _close(visits: Visits, count: int, start: int, left: int, ended: int, party: int) -> int:
    visits.start[count] = start
    visits.left[count] = left
    visits.ended[count] = ended
    visits.party[count] = party
    return count + 1


@kernel
def fold_chain(scans: Scans, head: int, limit: int, visits: Visits) -> int:
    """Fold one pair's chain of scans from `head` into `visits` (which needs as much room as the chain is long): their number."""
    count = 0
    opened = NONE
    party = 0
    scan = head
    while scan != NONE:
        at = scans.rows[scan].at
        if scans.rows[scan].kind == CHECK_IN:
            if opened != NONE and at >= opened + limit:
                count = _close(visits, count, opened, opened + limit, ENDED_EXPIRED, party)
                opened = NONE
            if opened == NONE:
                opened = at
                party = scans.rows[scan].party
        elif opened != NONE:
            if at - opened <= HARD_LIMIT:
                count = _close(visits, count, opened, at, ENDED_CHECK_OUT, party)
            else:
                count = _close(visits, count, opened, opened + limit, ENDED_EXPIRED, party)
            opened = NONE
        scan = scans.rows[scan].next
    if opened != NONE:
        count = _close(visits, count, opened, opened + limit, ENDED_OPEN, party)
    return count


@kernel
def _mixed(key: int) -> int:
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(29))  # type: ignore[return-value]


@kernel
def key_slot(pairs: Pairs, key: int) -> int:
    """The slot that holds the pair's row + 1, or the empty one where it belongs."""
    mask = len(pairs.slots) - 1
    slot = wide(_mixed(key) & np.uint64(mask))  # type: ignore[arg-type]
    while pairs.slots[slot] != 0 and pairs.rows[pairs.slots[slot] - 1].key != key:
        slot = (slot + 1) & mask
    return slot


@kernel
def rebuild_slots(pairs: Pairs, slots: I32) -> None:
    """Fill a new table for the pairs there are."""
    fresh = Pairs(slots, pairs.rows, pairs.used)
    for row in range(pairs.used[0]):
        slots[key_slot(fresh, pairs.rows[row].key)] = row + 1


@kernel
def add_pair(pairs: Pairs, key: int) -> int:
    """The pair's row, a new one with an empty chain if it is not known. Needs room for one pair."""
    slot = key_slot(pairs, key)
    row = pairs.slots[slot] - 1
    if row < 0:
        row = pairs.used[0]
        pairs.used[0] = row + 1
        pairs.slots[slot] = row + 1
        pairs.rows[row].key = key
        pairs.rows[row].head = NONE
        pairs.rows[row].tail = NONE
        pairs.rows[row].opened = NONE
        pairs.rows[row].last_left = NONE
        pairs.rows[row].far = NONE
        pairs.rows[row].party = 0
    return row


@kernel
def settle_tail(pairs: Pairs, row: int, visits: Visits, count: int) -> None:
    """Remember where the fold of a pair stands after all its scans."""
    pairs.rows[row].opened = NONE
    pairs.rows[row].last_left = NONE
    pairs.rows[row].far = NONE
    if count > 0:
        pairs.rows[row].last_left = visits.left[count - 1]
        pairs.rows[row].party = visits.party[count - 1]
        if visits.ended[count - 1] == ENDED_OPEN:
            pairs.rows[row].opened = visits.start[count - 1]


@kernel
def _emit(
    rows: VisitRows, venue: int, visitor: int, start: int, left: int, ended: int, party: int, deleted: int
) -> None:
    row = rows.used[0]
    rows.used[0] = row + 1
    rows.venue[row] = venue
    rows.visitor[row] = visitor
    rows.start[row] = start
    rows.left[row] = left
    rows.ended[row] = ended
    rows.party[row] = party
    rows.deleted[row] = deleted


@kernel
def emit_difference(
    rows: VisitRows, venue: int, visitor: int, old: Visits, old_count: int, new: Visits, new_count: int
) -> None:
    """Write what turns one pair's visits from `old` into `new` (both by start). Needs room for old_count + new_count rows."""
    i = 0
    j = 0
    while i < old_count or j < new_count:
        if j == new_count or (i < old_count and old.start[i] < new.start[j]):
            _emit(rows, venue, visitor, old.start[i], old.left[i], old.ended[i], old.party[i], 1)
            i += 1
        elif i == old_count or new.start[j] < old.start[i]:
            _emit(rows, venue, visitor, new.start[j], new.left[j], new.ended[j], new.party[j], 0)
            j += 1
        else:
            if old.left[i] != new.left[j] or old.ended[i] != new.ended[j] or old.party[i] != new.party[j]:
                _emit(rows, venue, visitor, new.start[j], new.left[j], new.ended[j], new.party[j], 0)
            i += 1
            j += 1


@kernel
def _count_difference(
    venues: Venues,
    cells: Cells,
    events: Events,
    cells_from: int,
    venue: int,
    old: Visits,
    old_count: int,
    new: Visits,
    new_count: int,
) -> None:
    i = 0
    j = 0
    while i < old_count or j < new_count:
        if j == new_count or (i < old_count and old.start[i] < new.start[j]):
            remove_visit(venues, cells, events, cells_from, venue, old.start[i], old.left[i], old.party[i])
            i += 1
        elif i == old_count or new.start[j] < old.start[i]:
            add_visit(venues, cells, events, cells_from, venue, new.start[j], new.left[j], new.party[j])
            j += 1
        else:
            if old.left[i] != new.left[j] or old.party[i] != new.party[j]:
                remove_visit(venues, cells, events, cells_from, venue, old.start[i], old.left[i], old.party[i])
                add_visit(venues, cells, events, cells_from, venue, new.start[j], new.left[j], new.party[j])
            i += 1
            j += 1


@kernel
def closing(visits: Visits, count: int, i: int) -> int:
    """When something shows that visit `i` of `count` is over: its check-out, or the pair's next visit there; NONE if nothing."""
    if visits.ended[i] == ENDED_CHECK_OUT:
        return visits.left[i]
    return visits.start[i + 1] if i + 1 < count else NONE


@kernel
def _note_difference(
    venues: Venues,
    moves: Moves,
    cells_from: int,
    venue: int,
    old: Visits,
    old_count: int,
    new: Visits,
    new_count: int,
) -> None:
    i = 0
    j = 0
    while i < old_count or j < new_count:
        gone = j == new_count or (i < old_count and old.start[i] <= new.start[j])
        come = i == old_count or (j < new_count and new.start[j] <= old.start[i])
        was = closing(old, old_count, i) if gone else NONE
        is_now = closing(new, new_count, j) if come else NONE
        if not (gone and come and was == is_now and old.party[i] == new.party[j]):
            if gone:
                note_visit(venues, moves, cells_from, venue, old.start[i], was, -wide(old.party[i]))
            if come:
                note_visit(venues, moves, cells_from, venue, new.start[j], is_now, wide(new.party[j]))
        i += gone
        j += come


@kernel
def append_scan(pairs: Pairs, scans: Scans, row: int, at: int, kind: int, party: int, fresh: int) -> None:
    """Put a scan at the end of a pair's chain. Needs room for one scan."""
    scan = scans.used[0]
    scans.used[0] = scan + 1
    scans.rows[scan].at = at
    scans.rows[scan].kind = kind
    scans.rows[scan].party = party
    scans.rows[scan].fresh = fresh
    scans.rows[scan].next = NONE
    tail = pairs.rows[row].tail
    if tail == NONE:
        pairs.rows[row].head = scan
    else:
        scans.rows[tail].next = scan
    pairs.rows[row].tail = scan


@kernel
def _continue_fold(
    pairs: Pairs,
    venues: Venues,
    cells: Cells,
    events: Events,
    moves: Moves,
    rows: VisitRows,
    cells_from: int,
    row: int,
    at: int,
    kind: int,
    party: int,
) -> None:
    # One step of fold_chain, with its effects written at once. At most three rows of each pool.
    venue = pairs.rows[row].key >> 32
    visitor = pairs.rows[row].key & _LOW
    limit = venues.rows[venue].limit
    opened = pairs.rows[row].opened
    size = wide(pairs.rows[row].party)
    if kind == CHECK_IN:
        if opened != NONE and at >= opened + limit:
            _emit(rows, venue, visitor, opened, opened + limit, ENDED_EXPIRED, size, 0)
            note(venues, moves, cells_from, venue, at, opened, -size)
            opened = NONE
        if opened == NONE:
            note(venues, moves, cells_from, venue, at, at, wide(party))
            pairs.rows[row].opened = at
            pairs.rows[row].party = party
            pairs.rows[row].last_left = at + limit
            pairs.rows[row].far = add_visit(venues, cells, events, cells_from, venue, at, at + limit, party)
            _emit(rows, venue, visitor, at, at + limit, ENDED_OPEN, party, 0)
    elif opened != NONE:
        pairs.rows[row].opened = NONE
        if at - opened <= HARD_LIMIT:
            remove_event(venues, cells, events, cells_from, venue, opened + limit, -size, pairs.rows[row].far)
            add_event(venues, cells, events, cells_from, venue, at, -size, False)
            note(venues, moves, cells_from, venue, at, opened, -size)
            pairs.rows[row].last_left = at
            _emit(rows, venue, visitor, opened, at, ENDED_CHECK_OUT, size, 0)
        else:
            _emit(rows, venue, visitor, opened, opened + limit, ENDED_EXPIRED, size, 0)


@kernel
def _touch_pairs(
    first: int, until: int, order: I64, venue: I32, visitor: I32, pairs: Pairs, scans: Scans, slots: I64
) -> int:
    # What is returned is of no use, but without it there would be no touching.
    touched = 0
    mask = np.uint64(len(pairs.slots) - 1)
    for k in range(first, until):
        key = (wide(venue[order[k]]) << 32) | wide(visitor[order[k]])
        slots[k - first] = wide(_mixed(key) & mask)  # type: ignore[arg-type]
        touched += pairs.slots[slots[k - first]]
    for k in range(first, until):
        row = pairs.slots[slots[k - first]] - 1
        if row >= 0:
            touched += pairs.rows[row].tail
    for k in range(first, until):
        row = pairs.slots[slots[k - first]] - 1
        if row >= 0 and pairs.rows[row].tail != NONE:
            touched += scans.rows[pairs.rows[row].tail].kind
    return touched


@kernel
def _short(pool_rows: int, used: int, room: int) -> bool:
    return used + room > pool_rows


@kernel
def apply_scans(
    first: int,
    order: I64,
    venue: I32,
    visitor: I32,
    kind: U8,
    at: I64,
    party: U8,
    outcome: U8,
    horizon: int,
    cells_from: int,
    pairs: Pairs,
    scans: Scans,
    venues: Venues,
    cells: Cells,
    events: Events,
    moves: Moves,
    rows: VisitRows,
    old: Visits,
    new: Visits,
    slots: I64,
    need: I64,
) -> int:
    """Take scans order[first], order[first + 1], …: any order will do. What became of each goes into `outcome`, changed visits
    into `rows`.

    Returns how far it came. If that is not the end, some array was too short: make room for `need[0]` more rows in each and
    call again from there. `need[1]` is of no use; `slots` is room for BLOCK numbers.
    """
    touched_until = first
    for k in range(first, len(order)):
        if k == touched_until:
            touched_until = min(k + BLOCK, len(order))
            need[1] = _touch_pairs(k, touched_until, order, venue, visitor, pairs, scans, slots)
        i = order[k]
        if at[i] < horizon:
            outcome[i] = ANCIENT
            continue
        need[0] = 4
        if (
            _short(len(pairs.rows), pairs.used[0], 1)
            or _short(len(scans.rows), scans.used[0], 1)
            or _short(len(cells.rows), cells.used[0], 4)
            or _short(len(events.rows), events.used[0], 4)
            or (moves.used[1] != 0 and _short(len(moves.rows), moves.used[0], 4))
            or _short(len(rows.start), rows.used[0], 4)
        ):
            return k
        row = add_pair(pairs, (wide(venue[i]) << 32) | wide(visitor[i]))
        tail = pairs.rows[row].tail
        if (
            tail == NONE
            or scans.rows[tail].at < at[i]
            or (scans.rows[tail].at == at[i] and scans.rows[tail].kind < kind[i])
        ):
            append_scan(pairs, scans, row, at[i], kind[i], party[i], 0)
            _continue_fold(pairs, venues, cells, events, moves, rows, cells_from, row, at[i], kind[i], party[i])
            outcome[i] = STORED
            continue

        before = NONE
        here = pairs.rows[row].head
        while scans.rows[here].at < at[i] or (scans.rows[here].at == at[i] and scans.rows[here].kind < kind[i]):
            before = here
            here = scans.rows[here].next
        known = scans.rows[here].at == at[i] and scans.rows[here].kind == kind[i]
        if known and party[i] <= scans.rows[here].party:
            outcome[i] = STORED if scans.rows[here].fresh else DUPLICATE
            scans.rows[here].fresh = 0
            continue

        length = 2
        scan = pairs.rows[row].head
        while scan != NONE:
            length += 1
            scan = scans.rows[scan].next
        need[0] = 4 * length
        if (
            _short(len(cells.rows), cells.used[0], need[0])
            or _short(len(events.rows), events.used[0], need[0])
            or (moves.used[1] != 0 and _short(len(moves.rows), moves.used[0], need[0]))
            or _short(len(rows.start), rows.used[0], need[0])
            or length > len(old.start)
        ):
            return k

        limit = venues.rows[venue[i]].limit
        old_count = fold_chain(scans, pairs.rows[row].head, limit, old)
        if known:
            outcome[i] = STORED if scans.rows[here].fresh else DUPLICATE
            scans.rows[here].fresh = 0
            scans.rows[here].party = party[i]
        else:
            outcome[i] = STORED
            scan = scans.used[0]
            scans.used[0] = scan + 1
            scans.rows[scan].at = at[i]
            scans.rows[scan].kind = kind[i]
            scans.rows[scan].party = party[i]
            scans.rows[scan].fresh = 0
            scans.rows[scan].next = here
            if before == NONE:
                pairs.rows[row].head = scan
            else:
                scans.rows[before].next = scan
        new_count = fold_chain(scans, pairs.rows[row].head, limit, new)
        settle_tail(pairs, row, new, new_count)
        _count_difference(venues, cells, events, cells_from, venue[i], old, old_count, new, new_count)
        _note_difference(venues, moves, cells_from, venue[i], old, old_count, new, new_count)
        emit_difference(rows, venue[i], visitor[i], old, old_count, new, new_count)
    return len(order)
