"""Rolling windows [end − width, end): who came, how many different visitors, the peak, the mean, the median stay."""

from typing import NamedTuple

import numpy as np

from pipeline.core.cells import last_before
from pipeline.core.fold import Visits, fold_chain, new_visits
from pipeline.core.jit import kernel, wide
from pipeline.core.pools import I32, I64, MINUTE, NONE, U8, Cells, Pairs, Scans, Venues


class WindowRows(NamedTuple):
    """One row a venue with anyone present, or any arrival or departure, in the window.

    `area` in person-ms; `dwell_sum` = the two middle stays of those who left in the window, added, in ms; NONE if none left.
    """

    venue: I32
    arrivals: I32
    visitors: I32
    peak: I32
    area: I64
    dwell_sum: I64


@kernel
def _visits_in_window(
    first: int,
    start: int,
    end: int,
    pairs: Pairs,
    scans: Scans,
    venues: Venues,
    visits: Visits,
    visitors: I32,
    dwell: I64,
    used: I64,
) -> int:
    # dwell[i] = venue << 32 | stay in ms: sorting it groups the stays by venue, each group in order.
    for row in range(first, pairs.used[0]):
        if pairs.rows[row].last_left < start:
            continue
        length = 1
        scan = pairs.rows[row].head
        while scan != NONE:
            length += 1
            scan = scans.rows[scan].next
        if length > len(visits.start) or used[0] + length > len(dwell):
            used[1] = length
            return row
        venue = pairs.rows[row].key >> 32
        count = fold_chain(scans, pairs.rows[row].head, venues.rows[venue].limit, visits)
        present = False
        for i in range(count):
            entered = visits.start[i]
            left = visits.left[i]
            if entered < end and left > start and left > entered:
                present = True
            if start <= left < end:
                dwell[used[0]] = (venue << 32) | (left - entered)
                used[0] += 1
        if present:
            visitors[venue] += 1
    return pairs.used[0]


@kernel
def _median_sums(dwell: I64, sums: I64) -> None:
    i = 0
    while i < len(dwell):
        venue = dwell[i] >> 32
        j = i
        while j < len(dwell) and dwell[j] >> 32 == venue:
            j += 1
        low = dwell[i + (j - i - 1) // 2] & 0xFFFFFFFF
        high = dwell[i + (j - i) // 2] & 0xFFFFFFFF
        sums[venue] = low + high
        i = j


@kernel
def _sweep_cells(
    venue_count: int,
    start: int,
    end: int,
    venues: Venues,
    cells: Cells,
    arrivals: I32,
    peak: I32,
    area: I64,
    active: U8,
) -> None:
    for venue in range(venue_count):
        before = last_before(venues, cells, venue, start)
        cell = venues.rows[venue].first if before == NONE else cells.rows[before].next
        occupancy = wide(venues.rows[venue].carried if before == NONE else cells.rows[before].occupancy)
        minute = start
        while True:
            inside = cell != NONE and cells.rows[cell].minute < end
            until = cells.rows[cell].minute if inside else end
            if until > minute:
                area[venue] += occupancy * (until - minute) * MINUTE
                peak[venue] = max(peak[venue], occupancy)
            if not inside:
                break
            if cells.rows[cell].arrivals > 0 or cells.rows[cell].departures > 0:
                active[venue] = 1
            arrivals[venue] += cells.rows[cell].arrivals
            area[venue] += cells.rows[cell].area
            peak[venue] = max(peak[venue], cells.rows[cell].peak)
            occupancy = wide(cells.rows[cell].occupancy)
            minute = cells.rows[cell].minute + 1
            cell = cells.rows[cell].next
        if peak[venue] > 0:
            active[venue] = 1


def rolling_windows(
    end_minute: int, width: int, venue_count: int, pairs: Pairs, scans: Scans, venues: Venues, cells: Cells
) -> WindowRows:
    """The windows of `width` minutes that end before `end_minute` (since the epoch).

    Every cell before `end_minute` must have been computed (`occupancy.advance` up to there).
    """
    start_minute = end_minute - width
    arrivals = np.zeros(venue_count, np.int32)
    visitors = np.zeros(venue_count, np.int32)
    peak = np.zeros(venue_count, np.int32)
    area = np.zeros(venue_count, np.int64)
    active = np.zeros(venue_count, np.uint8)
    _sweep_cells(venue_count, start_minute, end_minute, venues, cells, arrivals, peak, area, active)

    dwell = np.empty(4096, np.int64)
    used = np.zeros(2, np.int64)
    visits = new_visits(64)
    row = 0
    while True:
        row = _visits_in_window(
            row, start_minute * MINUTE, end_minute * MINUTE, pairs, scans, venues, visits, visitors, dwell, used
        )
        if row == int(pairs.used[0]):
            break
        length = int(used[1])
        if length > len(visits.start):
            visits = new_visits(2 * length)
        dwell = np.concatenate([dwell, np.empty(len(dwell) + length, np.int64)])
    sums = np.full(venue_count, NONE, np.int64)
    _median_sums(np.sort(dwell[: used[0]]), sums)

    rows = np.flatnonzero(active).astype(np.int32)
    return WindowRows(rows, arrivals[rows], visitors[rows], peak[rows], area[rows], sums[rows])
