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
        scan = pairs.head[row]
        while scan != NONE:
            length += 1
            scan = scans.next[scan]
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
        count = fold_chain(scans, pairs.head[row], venues.limit[pairs.key[row] >> 32], visits)
        for i in range(count):
            if visits.start[i] >= cells_from:
                kept[row] = min(horizon, visits.start[i])
                break
        scan = pairs.head[row]
        while scan != NONE:
            if scans.at[scan] >= kept[row]:
                total += 1
            scan = scans.next[scan]
    return total


@kernel
def mark_visitors(pairs: Pairs, scans: Scans, kept: I64, live: U8) -> None:
    """Set live[visitor code] for every pair that keeps a scan."""
    for row in range(pairs.used[0]):
        scan = pairs.tail[row]
        if scan != NONE and scans.at[scan] >= kept[row]:
            live[pairs.key[row] & 0xFFFFFFFF] = 1


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
        scan = pairs.tail[row]
        if scan == NONE or scans.at[scan] < kept[row]:
            continue
        venue = pairs.key[row] >> 32
        new_row = add_pair(new_pairs, (venue << 32) | wide(visitor[pairs.key[row] & 0xFFFFFFFF]))
        scan = pairs.head[row]
        while scan != NONE:
            if scans.at[scan] >= kept[row]:
                append_scan(
                    new_pairs,
                    new_scans,
                    new_row,
                    scans.at[scan],
                    scans.kind[scan],
                    scans.party[scan],
                    scans.fresh[scan],
                )
            scan = scans.next[scan]
        count = fold_chain(new_scans, new_pairs.head[new_row], venues.limit[venue], visits)
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
        cell = venues.first[venue]
        venues.first[venue] = NONE
        venues.last[venue] = NONE
        venues.near[venue] = NONE
        venues.far[venue] = NONE
        before = NONE
        while cell != NONE:
            if cells.minute[cell] < from_minute:
                venues.base[venue] = cells.occupancy[cell]
                cell = cells.next[cell]
                continue
            new = new_cells.used[0]
            new_cells.used[0] = new + 1
            new_cells.venue[new] = venue
            new_cells.minute[new] = cells.minute[cell]
            new_cells.arrivals[new] = cells.arrivals[cell]
            new_cells.departures[new] = cells.departures[cell]
            new_cells.occupancy[new] = cells.occupancy[cell]
            new_cells.peak[new] = cells.peak[cell]
            new_cells.over[new] = cells.over[cell]
            new_cells.shown[new] = cells.shown[cell]
            new_cells.area[new] = cells.area[cell]
            new_cells.contact[new] = cells.contact[cell]
            new_cells.dirty[new] = cells.dirty[cell]
            new_cells.prev[new] = before
            new_cells.next[new] = NONE
            new_cells.events[new] = NONE
            if before == NONE:
                venues.first[venue] = new
            else:
                new_cells.next[before] = new
            event = cells.events[cell]
            while event != NONE:
                copy = new_events.used[0]
                new_events.used[0] = copy + 1
                new_events.ms[copy] = events.ms[event]
                new_events.delta[copy] = events.delta[event]
                new_events.next[copy] = new_cells.events[new]
                new_cells.events[new] = copy
                event = events.next[event]
            before = new
            cell = cells.next[cell]
        venues.last[venue] = before
        venues.near[venue] = before
        venues.far[venue] = before
