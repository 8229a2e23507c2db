"""Arrivals and departures, sorted into venue minutes: the state from which occupancy is computed."""

from pipeline.core.jit import kernel, wide
from pipeline.core.pools import I64, MINUTE, NONE, UNKNOWN, Cells, Events, Venues


@kernel
def last_before(venues: Venues, cells: Cells, venue: int, minute: int) -> int:
    """The venue's last cell before `minute`, NONE if there is none."""
    at = venues.near[venue]
    last = venues.last[venue]
    if last == NONE:
        return NONE
    if at == NONE or abs(cells.minute[last] - minute) < abs(cells.minute[at] - minute):
        at = last
    while at != NONE and cells.minute[at] >= minute:
        at = cells.prev[at]
    if at == NONE:
        return NONE
    while cells.next[at] != NONE and cells.minute[cells.next[at]] < minute:
        at = cells.next[at]
    return at


@kernel
def _cell_at(venues: Venues, cells: Cells, venue: int, minute: int, far: bool) -> int:
    # Scans come nearly in time order, and so do automatic ends, but hours ahead of them: with one remembered cell for each,
    # the right place is nearly always a step or two away.
    at = venues.far[venue] if far else venues.near[venue]
    last = venues.last[venue]
    if at == NONE or abs(cells.minute[last] - minute) < abs(cells.minute[at] - minute):
        at = last
    after = NONE
    while at != NONE and cells.minute[at] > minute:
        after = at
        at = cells.prev[at]
    if at != NONE:
        after = cells.next[at]
        while after != NONE and cells.minute[after] <= minute:
            at = after
            after = cells.next[at]
    if at == NONE or cells.minute[at] != minute:
        new = cells.used[0]
        cells.used[0] = new + 1
        cells.venue[new] = venue
        cells.minute[new] = minute
        cells.prev[new] = at
        cells.next[new] = after
        cells.events[new] = NONE
        cells.arrivals[new] = 0
        cells.departures[new] = 0
        cells.shown[new] = NONE
        cells.occupancy[new] = cells.occupancy[at] if at != NONE else venues.base[venue]
        cells.peak[new] = cells.occupancy[new]
        cells.dirty[new] = 1
        if at != NONE:
            cells.next[at] = new
        else:
            venues.first[venue] = new
        if after != NONE:
            cells.prev[after] = new
        else:
            venues.last[venue] = new
        at = new
    if far:
        venues.far[venue] = at
    else:
        venues.near[venue] = at
    return at


@kernel
def _touch(venues: Venues, cells: Cells, cell: int) -> None:
    cells.dirty[cell] = 1
    venue = cells.venue[cell]
    venues.changed[venue] = min(venues.changed[venue], cells.minute[cell])
    if cells.minute[cell] <= venues.upto[venue]:
        venues.late[venue] = max(venues.late[venue], cells.minute[cell])


@kernel
def _shift_base(venues: Venues, cells: Cells, cells_from: int, venue: int, delta: int) -> None:
    # The cell that everything after depends on remembers the base as it was, so that the difference is seen.
    first = _cell_at(venues, cells, venue, cells_from // MINUTE, False)
    venues.base[venue] += delta
    _touch(venues, cells, first)


@kernel
def add_event(
    venues: Venues, cells: Cells, events: Events, cells_from: int, venue: int, at: int, delta: int, far: bool
) -> None:
    """Somebody arrives (`delta` > 0 persons) or leaves (< 0) at `at` ms. Needs room for one cell and one event.

    Before `cells_from` (ms) there are no cells, only the number of persons carried into the first one.
    """
    if at < cells_from:
        _shift_base(venues, cells, cells_from, venue, delta)
        return
    minute = at // MINUTE
    cell = _cell_at(venues, cells, venue, minute, far)
    free = events.used[1]
    if free != NONE:
        events.used[1] = events.next[free]
    else:
        free = events.used[0]
        events.used[0] = free + 1
    events.ms[free] = at - minute * MINUTE
    events.delta[free] = delta
    events.next[free] = cells.events[cell]
    cells.events[cell] = free
    if delta > 0:
        cells.arrivals[cell] += delta
    else:
        cells.departures[cell] -= delta
    _touch(venues, cells, cell)


@kernel
def remove_event(
    venues: Venues, cells: Cells, events: Events, cells_from: int, venue: int, at: int, delta: int, far: bool
) -> None:
    """Take back one event that `add_event` added with the same time and persons."""
    if at < cells_from:
        _shift_base(venues, cells, cells_from, venue, -delta)
        return
    minute = at // MINUTE
    cell = _cell_at(venues, cells, venue, minute, far)
    ms = at - minute * MINUTE
    before = NONE
    event = cells.events[cell]
    while events.ms[event] != ms or events.delta[event] != delta:
        before = event
        event = events.next[event]
    if before == NONE:
        cells.events[cell] = events.next[event]
    else:
        events.next[before] = events.next[event]
    events.next[event] = events.used[1]
    events.used[1] = event
    if delta > 0:
        cells.arrivals[cell] -= delta
    else:
        cells.departures[cell] += delta
    _touch(venues, cells, cell)


@kernel
def add_visit(
    venues: Venues, cells: Cells, events: Events, cells_from: int, venue: int, start: int, left: int, party: int
) -> None:
    """Count a visit, [start, left) in ms. Needs room for two cells and two events."""
    add_event(venues, cells, events, cells_from, venue, start, party, False)
    add_event(venues, cells, events, cells_from, venue, left, -wide(party), True)


@kernel
def remove_visit(
    venues: Venues, cells: Cells, events: Events, cells_from: int, venue: int, start: int, left: int, party: int
) -> None:
    """Count a visit no longer. Needs room for two cells."""
    remove_event(venues, cells, events, cells_from, venue, start, party, False)
    remove_event(venues, cells, events, cells_from, venue, left, -wide(party), True)


@kernel
def add_visits(
    venues: Venues,
    cells: Cells,
    events: Events,
    cells_from: int,
    venue: I64,
    start: I64,
    left: I64,
    party: I64,
    remove: bool,
) -> None:
    """Count many visits, or no longer. Needs room for two cells and two events each."""
    for i in range(len(venue)):
        if remove:
            remove_visit(venues, cells, events, cells_from, venue[i], start[i], left[i], party[i])
        else:
            add_visit(venues, cells, events, cells_from, venue[i], start[i], left[i], party[i])


@kernel
def force_cells(venues: Venues, cells: Cells, venue: int, minutes: I64, from_minute: int) -> None:
    """Have the rows of these minutes, and of every cell and hour since `from_minute`, written whatever was shown before.

    Needs room for one cell more than there are minutes.
    """
    venues.forced[venue] = 1
    if from_minute > 0:
        _cell_at(venues, cells, venue, from_minute, False)
    for minute in minutes:
        _cell_at(venues, cells, venue, minute, False)
    cell = venues.last[venue]
    while cell != NONE and cells.minute[cell] >= from_minute:
        cells.shown[cell] = UNKNOWN
        _touch(venues, cells, cell)
        cell = cells.prev[cell]
