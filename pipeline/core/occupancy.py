"""Occupancy per venue, minute and hour, from the cells: computed where something changed, up to the clock.

All figures are exact integers (persons, person-milliseconds); readers divide once. A minute's `occupancy` and `peak`, and an
hour's integrals, follow from the visits alone; only `departures`, and whether a row exists yet, depend on the clock `as_of`.
"""

from typing import Final, NamedTuple

import numpy as np

from pipeline.core.cells import last_before
from pipeline.core.jit import kernel, sort_first, wide
from pipeline.core.pools import I32, I64, MINUTE, NEVER, NONE, U8, Cells, Events, Venues, rows_of

_SHIFT: Final = 1 << 20
#: Nobody stays longer than 24 hours after the last event, so between two cells lie at most this many hours with anyone present.
_MOST_HOURS: Final = 26


class MinuteRows(NamedTuple):
    """Changed rows of `occupancy_minutes`; `minute` since the epoch; `deleted` where the row is no more."""

    venue: I32
    minute: I32
    arrivals: I32
    departures: I32
    occupancy: I32
    peak: I32
    deleted: U8
    used: I64


class HourRows(NamedTuple):
    """Changed rows of `occupancy_hours`; `hour` since the epoch; `area` person-ms; `contact`, `over` ms."""

    venue: I32
    hour: I32
    arrivals: I32
    departures: I32
    peak: I32
    over: I32
    area: I64
    contact: I64
    deleted: U8
    used: I64


class NowRows(NamedTuple):
    """Venues whose occupancy at the clock changed, in persons."""

    venue: I32
    occupancy: I32
    used: I64


def new_minute_rows(capacity: int) -> MinuteRows:
    """No rows yet."""
    return MinuteRows(*rows_of(capacity, *[np.int32] * 6, np.uint8))


def new_hour_rows(capacity: int) -> HourRows:
    """No rows yet."""
    return HourRows(*rows_of(capacity, *[np.int32] * 6, np.int64, np.int64, np.uint8))


def new_now_rows(capacity: int) -> NowRows:
    """No rows yet."""
    return NowRows(*rows_of(capacity, np.int32, np.int32))


@kernel
def contact_rate(persons: int) -> int:
    """Pairs of persons present together: n(n−1)/2."""
    return persons * (persons - 1) // 2


@kernel
def _compute_cell(cells: Cells, events: Events, cell: int, base: int, capacity: int, scratch: I64) -> None:
    # Sweep the minute's events in time order; those of one instant count together, so that a visit of no length is never
    # present and a place that empties and fills in the same millisecond does not seem fuller than it was.
    count = 0
    event = cells.rows[cell].events
    while event != NONE:
        scratch[count] = wide(events.rows[event].ms) * _SHIFT + events.rows[event].delta + _SHIFT // 2
        count += 1
        event = events.rows[event].next
    if count > 1:
        if count > 24:
            sort_first(scratch, count)
        else:
            for i in range(1, count):
                value = scratch[i]
                j = i - 1
                while j >= 0 and scratch[j] > value:
                    scratch[j + 1] = scratch[j]
                    j -= 1
                scratch[j + 1] = value
    persons = wide(base)
    since = wide(0)
    peak = wide(-1)
    area = wide(0)
    contact = wide(0)
    over = wide(0)
    i = 0
    while i < count:
        ms = scratch[i] // _SHIFT
        if ms > since:
            lasted = ms - since
            area += persons * lasted
            contact += contact_rate(persons) * lasted
            if capacity != NONE and persons > capacity:
                over += lasted
            peak = max(peak, persons)
            since = ms
        while i < count and scratch[i] // _SHIFT == ms:
            persons += scratch[i] % _SHIFT - _SHIFT // 2
            i += 1
    lasted = MINUTE - since
    area += persons * lasted
    contact += contact_rate(persons) * lasted
    if capacity != NONE and persons > capacity:
        over += lasted
    cells.rows[cell].peak = max(peak, persons)
    cells.rows[cell].occupancy = persons
    cells.rows[cell].area = area
    cells.rows[cell].contact = contact
    cells.rows[cell].over = over


@kernel
def advance(
    first: int,
    venue_count: int,
    as_of: int,
    end_hour: int,
    old_hour: int,
    emit: bool,
    venues: Venues,
    cells: Cells,
    events: Events,
    minutes: MinuteRows,
    hours: HourRows,
    now: NowRows,
    scratch: I64,
    need: I64,
) -> int:
    """Compute every cell that waits for it, in venues `first` … `venue_count` − 1, up to the end of `end_hour` (since the epoch).

    `as_of` is the clock (ms), `old_hour` the clock's hour at the last call. Without `emit` no rows are written, as after loading.
    Returns the venue reached. If that is not `venue_count`, make room (`need[0]` rows more, and `scratch` as long) and call again
    from there.
    """
    end_minute = end_hour * 60 + 59
    as_of_minute = as_of // MINUTE
    as_of_hour = as_of_minute // 60
    for venue in range(first, venue_count):
        start = NEVER
        if venues.rows[venue].changed <= end_minute:
            start = venues.rows[venue].changed
        if venues.rows[venue].due <= as_of_minute:
            start = min(start, venues.rows[venue].due)
        if end_hour > old_hour and venues.rows[venue].present > 0:
            start = min(start, (old_hour + 1) * 60)
        # Rows after `end_minute` have never been written: their estimates are made when they are.
        moved = venues.rows[venue].moved
        moved_to = venues.rows[venue].moved_to
        if moved <= end_minute:
            start = min(start, moved)
        if start == NEVER and venues.rows[venue].now != NONE:
            continue
        start = min(start, as_of_minute)
        capacity = venues.rows[venue].capacity
        hour = start // 60
        before = last_before(venues, cells, venue, hour * 60)
        cell = venues.rows[venue].first if before == NONE else cells.rows[before].next
        # A venue is computed whole or not at all: stopping half-way would lose what the rest depends on.
        need[0] = 1
        touched = 1
        walk = cell
        while walk != NONE and cells.rows[walk].minute <= end_minute:
            touched += 1
            need[0] = max(need[0], wide(cells.rows[walk].arrivals + cells.rows[walk].departures))
            walk = cells.rows[walk].next
        longest = need[0]
        need[0] = max(longest, _MOST_HOURS * touched)
        if (
            longest > len(scratch)
            or minutes.used[0] + touched > len(minutes.venue)
            or hours.used[0] + min(_MOST_HOURS * touched, end_hour - hour + 1) > len(hours.venue)
            or now.used[0] == len(now.venue)
        ):
            return venue
        occupancy = wide(venues.rows[venue].carried if before == NONE else cells.rows[before].occupancy)
        # What the last computation started this hour with: where it differs, every figure downstream differs.
        old_occupancy = occupancy
        now_occupancy = occupancy
        present = wide(0)
        due = NEVER
        resume = min(as_of_hour, old_hour + 1, (venues.rows[venue].upto + 1) // 60)
        if venues.rows[venue].due <= as_of_minute:
            resume = min(resume, venues.rows[venue].due // 60)
        while hour <= end_hour:
            if (
                hour < resume
                and hour * 60 > venues.rows[venue].late
                and hour * 60 > moved_to
                and occupancy == old_occupancy
                and not venues.rows[venue].forced
            ):
                # A late scan's effect has ended, and nothing else changed until now.
                hour = resume
                before = last_before(venues, cells, venue, hour * 60)
                cell = venues.rows[venue].first if before == NONE else cells.rows[before].next
                occupancy = wide(venues.rows[venue].carried if before == NONE else cells.rows[before].occupancy)
                old_occupancy = occupancy
                now_occupancy = occupancy
            nothing = occupancy == 0 and old_occupancy == 0
            if nothing and hour > start // 60 and (cell == NONE or cells.rows[cell].minute >= (hour + 1) * 60):
                if cell == NONE:
                    break
                hour = cells.rows[cell].minute // 60
                continue
            arrivals = 0
            departures = 0
            peak = wide(0)
            area = wide(0)
            contact = wide(0)
            over = wide(0)
            hour_changed = (
                venues.rows[venue].forced != 0 or hour == start // 60 or hour > old_hour or occupancy != old_occupancy
            ) or (moved // 60 <= hour and hour * 60 <= moved_to)
            minute = hour * 60
            while True:
                stop = (hour + 1) * 60
                inside = cell != NONE and cells.rows[cell].minute < stop
                until = cells.rows[cell].minute if inside else stop
                if until > minute:
                    lasted = wide(until - minute) * MINUTE
                    area += occupancy * lasted
                    contact += contact_rate(occupancy) * lasted
                    if capacity != NONE and occupancy > capacity:
                        over += lasted
                    peak = max(peak, occupancy)
                if not inside:
                    break
                shows = cells.rows[cell].peak
                ends = wide(cells.rows[cell].occupancy)
                changed = cells.rows[cell].dirty != 0
                if changed or occupancy != old_occupancy:
                    _compute_cell(cells, events, cell, occupancy, capacity, scratch)
                    changed = changed or cells.rows[cell].peak != shows or cells.rows[cell].occupancy != ends
                    hour_changed = True
                here = cells.rows[cell].minute
                left = cells.rows[cell].departures
                if here == as_of_minute:
                    left = 0
                    now_occupancy = occupancy
                    event = cells.rows[cell].events
                    while event != NONE:
                        if events.rows[event].ms <= as_of - wide(here) * MINUTE:
                            now_occupancy += events.rows[event].delta
                            if events.rows[event].delta < 0:
                                left -= events.rows[event].delta
                        elif due == NEVER:
                            due = here
                        event = events.rows[event].next
                elif here > as_of_minute:
                    left = 0
                    if due == NEVER:
                        due = here
                else:
                    now_occupancy = wide(cells.rows[cell].occupancy)
                visible = cells.rows[cell].arrivals > 0 or left > 0
                if visible and (changed or cells.rows[cell].shown != left or moved <= here <= moved_to):
                    if emit:
                        _emit_minute(minutes, cells, cell, left, 0)
                    hour_changed = True
                    cells.rows[cell].shown = left
                elif not visible and cells.rows[cell].shown != NONE:
                    if emit:
                        _emit_minute(minutes, cells, cell, 0, 1)
                    hour_changed = True
                    cells.rows[cell].shown = NONE
                cells.rows[cell].dirty = 0
                arrivals += cells.rows[cell].arrivals
                departures += left
                area += cells.rows[cell].area
                contact += cells.rows[cell].contact
                over += cells.rows[cell].over
                peak = max(peak, wide(cells.rows[cell].peak))
                occupancy = wide(cells.rows[cell].occupancy)
                old_occupancy = ends
                minute = here + 1
                cell = cells.rows[cell].next
            if hour_changed and emit:
                row = hours.used[0]
                hours.used[0] = row + 1
                hours.venue[row] = venue
                hours.hour[row] = hour
                hours.arrivals[row] = arrivals
                hours.departures[row] = departures
                hours.peak[row] = peak
                hours.over[row] = over
                hours.area[row] = area
                hours.contact[row] = contact
                shown = arrivals > 0 or departures > 0 or (peak > 0 and hour <= as_of_hour)
                hours.deleted[row] = 0 if shown else 1
            if hour == as_of_hour:
                present = occupancy
            hour += 1
        venues.rows[venue].changed = NEVER if cell == NONE else cells.rows[cell].minute
        venues.rows[venue].due = due
        venues.rows[venue].forced = 0
        venues.rows[venue].upto = end_minute
        venues.rows[venue].late = NONE
        venues.rows[venue].moved = NEVER
        venues.rows[venue].moved_to = NONE
        venues.rows[venue].present = max(present, occupancy)
        if now_occupancy != venues.rows[venue].now:
            venues.rows[venue].now = now_occupancy
            if emit:
                _emit_now(now, venue, now_occupancy)
    return venue_count


@kernel
def _emit_now(now: NowRows, venue: int, occupancy: int) -> None:
    row = now.used[0]
    now.used[0] = row + 1
    now.venue[row] = venue
    now.occupancy[row] = occupancy


@kernel
def _emit_minute(minutes: MinuteRows, cells: Cells, cell: int, left: int, deleted: int) -> None:
    row = minutes.used[0]
    minutes.used[0] = row + 1
    minutes.venue[row] = cells.rows[cell].venue
    minutes.minute[row] = cells.rows[cell].minute
    minutes.arrivals[row] = cells.rows[cell].arrivals
    minutes.departures[row] = left
    minutes.occupancy[row] = cells.rows[cell].occupancy
    minutes.peak[row] = cells.rows[cell].peak
    minutes.deleted[row] = deleted
