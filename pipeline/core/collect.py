"""Forgetting what no scan within the late window can change any more, so that memory stays bounded.

Kept are: of each pair, the scans from its first visit that began within 24 hours before the horizon (an earlier one cannot be
closed by a scan after the horizon), and any scan after the horizon (to know its duplicates); and the cells of that time.
"""

from pipeline.core.fold import Visits, add_pair, append_scan, fold_chain, settle_tail
from pipeline.core.jit import kernel, wide
from pipeline.core.pools import I32, I64, NONE, U8, Cells, Events, Pairs, Scans, Venues


@kernel
def longest_chain(pairs: Pairs, scans: Scans) -> int:
    """The most scans that any pair has."""
    longest = 0
    for row in range(pairs.used[0]):
        length = 0
        scan = pairs.rows[row].head
        while scan != NONE:
            length += 1
            scan = scans.rows[scan].next
        longest = max(longest, length)
    return longest


@kernel
def keep_from(
    horizon: int, cells_from: int, pairs: Pairs, scans: Scans, venues: Venues, visits: Visits, kept: I64
) -> int:
    """For each pair the time (ms) from which its scans are kept, into `kept`; the number of scans kept in all."""
    total = 0
    for row in range(pairs.used[0]):
        kept[row] = horizon
        count = fold_chain(scans, pairs.rows[row].head, venues.rows[pairs.rows[row].key >> 32].limit, visits)
        for i in range(count):
            if visits.start[i] >= cells_from:
                kept[row] = min(horizon, visits.start[i])
                break
        scan = pairs.rows[row].head
        while scan != NONE:
            if scans.rows[scan].at >= kept[row]:
                total += 1
            scan = scans.rows[scan].next
    return total


@kernel
def mark_visitors(pairs: Pairs, scans: Scans, kept: I64, live: U8) -> None:
    """Set live[visitor code] for every pair that keeps a scan."""
    for row in range(pairs.used[0]):
        scan = pairs.rows[row].tail
        if scan != NONE and scans.rows[scan].at >= kept[row]:
            live[pairs.rows[row].key & 0xFFFFFFFF] = 1


@kernel
def copy_pairs(
    pairs: Pairs,
    scans: Scans,
    venues: Venues,
    kept: I64,
    visitor: I32,
    new_pairs: Pairs,
    new_scans: Scans,
    visits: Visits,
) -> None:
    """Copy what is kept; `visitor` maps old visitor codes to new ones."""
    for row in range(pairs.used[0]):
        scan = pairs.rows[row].tail
        if scan == NONE or scans.rows[scan].at < kept[row]:
            continue
        venue = pairs.rows[row].key >> 32
        new_row = add_pair(new_pairs, (venue << 32) | wide(visitor[pairs.rows[row].key & 0xFFFFFFFF]))
        scan = pairs.rows[row].head
        while scan != NONE:
            if scans.rows[scan].at >= kept[row]:
                append_scan(
                    new_pairs,
                    new_scans,
                    new_row,
                    scans.rows[scan].at,
                    scans.rows[scan].kind,
                    scans.rows[scan].party,
                    scans.rows[scan].fresh,
                )
            scan = scans.rows[scan].next
        count = fold_chain(new_scans, new_pairs.rows[new_row].head, venues.rows[venue].limit, visits)
        settle_tail(new_pairs, new_row, visits, count)


@kernel
def copy_cells(
    venue_count: int,
    from_minute: int,
    venues: Venues,
    cells: Cells,
    events: Events,
    new_cells: Cells,
    new_events: Events,
) -> None:
    """Copy the cells from `from_minute` (since the epoch) on; what the others leave behind becomes each venue's base."""
    for venue in range(venue_count):
        cell = venues.rows[venue].first
        venues.rows[venue].first = NONE
        venues.rows[venue].last = NONE
        venues.rows[venue].near = NONE
        venues.rows[venue].far = NONE
        before = NONE
        while cell != NONE:
            if cells.rows[cell].minute < from_minute:
                venues.rows[venue].carried = cells.rows[cell].occupancy
                cell = cells.rows[cell].next
                continue
            new = new_cells.used[0]
            new_cells.used[0] = new + 1
            new_cells.rows[new].venue = venue
            new_cells.rows[new].minute = cells.rows[cell].minute
            new_cells.rows[new].arrivals = cells.rows[cell].arrivals
            new_cells.rows[new].departures = cells.rows[cell].departures
            new_cells.rows[new].occupancy = cells.rows[cell].occupancy
            new_cells.rows[new].peak = cells.rows[cell].peak
            new_cells.rows[new].over = cells.rows[cell].over
            new_cells.rows[new].shown = cells.rows[cell].shown
            new_cells.rows[new].area = cells.rows[cell].area
            new_cells.rows[new].contact = cells.rows[cell].contact
            new_cells.rows[new].dirty = cells.rows[cell].dirty
            new_cells.rows[new].prev = before
            new_cells.rows[new].next = NONE
            new_cells.rows[new].events = NONE
            if before == NONE:
                venues.rows[venue].first = new
            else:
                new_cells.rows[before].next = new
            event = cells.rows[cell].events
            while event != NONE:
                copy = new_events.used[0]
                new_events.used[0] = copy + 1
                new_events.rows[copy].ms = events.rows[event].ms
                new_events.rows[copy].delta = events.rows[event].delta
                new_events.rows[copy].next = new_cells.rows[new].events
                new_cells.rows[new].events = copy
                event = events.rows[event].next
            before = new
            cell = cells.rows[cell].next
        venues.rows[venue].last = before
        venues.rows[venue].near = before
        venues.rows[venue].far = before
