"""Occupancy per venue, minute and hour, from the cells: computed where something changed, up to the clock.

All figures are exact integers (persons, person-milliseconds); readers divide once. A minute's `occupancy` and `peak`, and an
hour's integrals, follow from the visits alone; only `departures`, and whether a row exists yet, depend on the clock `as_of`.
"""

from typing import Final, NamedTuple

import numpy as np

from pipeline.core.cells import last_before
from pipeline.core.jit import kernel, wide
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
    event = cells.events[cell]
    while event != NONE:
        scratch[count] = wide(events.ms[event]) * _SHIFT + events.delta[event] + _SHIFT // 2
        count += 1
        event = events.next[event]
    if count > 1:
        if count > 24:
            scratch[:count] = np.sort(scratch[:count])
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
    cells.peak[cell] = max(peak, persons)
    cells.occupancy[cell] = persons
    cells.area[cell] = area
    cells.contact[cell] = contact
    cells.over[cell] = over


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
        if venues.changed[venue] <= end_minute:
            start = venues.changed[venue]
        if venues.due[venue] <= as_of_minute:
            start = min(start, venues.due[venue])
        if end_hour > old_hour and venues.present[venue] > 0:
            start = min(start, (old_hour + 1) * 60)
        if start == NEVER and venues.now[venue] != NONE:
            continue
        start = min(start, as_of_minute)
        capacity = venues.capacity[venue]
        hour = start // 60
        before = last_before(venues, cells, venue, hour * 60)
        cell = venues.first[venue] if before == NONE else cells.next[before]
        # A venue is computed whole or not at all: stopping half-way would lose what the rest depends on.
        need[0] = 1
        touched = 1
        walk = cell
        while walk != NONE and cells.minute[walk] <= end_minute:
            touched += 1
            need[0] = max(need[0], wide(cells.arrivals[walk] + cells.departures[walk]))
            walk = cells.next[walk]
        longest = need[0]
        need[0] = max(longest, _MOST_HOURS * touched)
        if (
            longest > len(scratch)
            or minutes.used[0] + touched > len(minutes.venue)
            or hours.used[0] + min(_MOST_HOURS * touched, end_hour - hour + 1) > len(hours.venue)
            or now.used[0] == len(now.venue)
        ):
            return venue
        occupancy = wide(venues.base[venue] if before == NONE else cells.occupancy[before])
        # What the last computation started this hour with: where it differs, every figure downstream differs.
        old_occupancy = occupancy
        now_occupancy = occupancy
        present = wide(0)
        due = NEVER
        resume = min(as_of_hour, old_hour + 1, (venues.upto[venue] + 1) // 60)
        if venues.due[venue] <= as_of_minute:
            resume = min(resume, venues.due[venue] // 60)
        while hour <= end_hour:
            if (
                hour < resume
                and hour * 60 > venues.late[venue]
                and occupancy == old_occupancy
                and not venues.forced[venue]
            ):
                # A late scan's effect has ended, and nothing else changed until now.
                hour = resume
                before = last_before(venues, cells, venue, hour * 60)
                cell = venues.first[venue] if before == NONE else cells.next[before]
                occupancy = wide(venues.base[venue] if before == NONE else cells.occupancy[before])
                old_occupancy = occupancy
                now_occupancy = occupancy
            nothing = occupancy == 0 and old_occupancy == 0
            if nothing and hour > start // 60 and (cell == NONE or cells.minute[cell] >= (hour + 1) * 60):
                if cell == NONE:
                    break
                hour = cells.minute[cell] // 60
                continue
            arrivals = 0
            departures = 0
            peak = wide(0)
            area = wide(0)
            contact = wide(0)
            over = wide(0)
            hour_changed = (
                venues.forced[venue] != 0 or hour == start // 60 or hour > old_hour or occupancy != old_occupancy
            )
            minute = hour * 60
            while True:
                stop = (hour + 1) * 60
                inside = cell != NONE and cells.minute[cell] < stop
                until = cells.minute[cell] if inside else stop
                if until > minute:
                    lasted = wide(until - minute) * MINUTE
                    area += occupancy * lasted
                    contact += contact_rate(occupancy) * lasted
                    if capacity != NONE and occupancy > capacity:
                        over += lasted
                    peak = max(peak, occupancy)
                if not inside:
                    break
                shows = cells.peak[cell]
                ends = wide(cells.occupancy[cell])
                changed = cells.dirty[cell] != 0
                if changed or occupancy != old_occupancy:
                    _compute_cell(cells, events, cell, occupancy, capacity, scratch)
                    changed = changed or cells.peak[cell] != shows or cells.occupancy[cell] != ends
                    hour_changed = True
                here = cells.minute[cell]
                left = cells.departures[cell]
                if here == as_of_minute:
                    left = 0
                    now_occupancy = occupancy
                    event = cells.events[cell]
                    while event != NONE:
                        if events.ms[event] <= as_of - wide(here) * MINUTE:
                            now_occupancy += events.delta[event]
                            if events.delta[event] < 0:
                                left -= events.delta[event]
                        elif due == NEVER:
                            due = here
                        event = events.next[event]
                elif here > as_of_minute:
                    left = 0
                    if due == NEVER:
                        due = here
                else:
                    now_occupancy = wide(cells.occupancy[cell])
                visible = cells.arrivals[cell] > 0 or left > 0
                if visible and (changed or cells.shown[cell] != left):
                    if emit:
                        _emit_minute(minutes, cells, cell, left, 0)
                    hour_changed = True
                    cells.shown[cell] = left
                elif not visible and cells.shown[cell] != NONE:
                    if emit:
                        _emit_minute(minutes, cells, cell, 0, 1)
                    hour_changed = True
                    cells.shown[cell] = NONE
                cells.dirty[cell] = 0
                arrivals += cells.arrivals[cell]
                departures += left
                area += cells.area[cell]
                contact += cells.contact[cell]
                over += cells.over[cell]
                peak = max(peak, wide(cells.peak[cell]))
                occupancy = wide(cells.occupancy[cell])
                old_occupancy = ends
                minute = here + 1
                cell = cells.next[cell]
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
        venues.changed[venue] = NEVER if cell == NONE else cells.minute[cell]
        venues.due[venue] = due
        venues.forced[venue] = 0
        venues.upto[venue] = end_minute
        venues.late[venue] = NONE
        venues.present[venue] = max(present, occupancy)
        if now_occupancy != venues.now[venue]:
            venues.now[venue] = now_occupancy
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
    minutes.venue[row] = cells.venue[cell]
    minutes.minute[row] = cells.minute[cell]
    minutes.arrivals[row] = cells.arrivals[cell]
    minutes.departures[row] = left
    minutes.occupancy[row] = cells.occupancy[cell]
    minutes.peak[row] = cells.peak[cell]
    minutes.deleted[row] = deleted
