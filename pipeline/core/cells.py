"""Arrivals and departures, sorted into venue minutes: the state from which occupancy is computed."""

from pipeline.core.jit import kernel, wide
from pipeline.core.pools import I64, MINUTE, NONE, UNKNOWN, Cells, Events, Venues


@kernel
def last_before(venues: Venues, cells: Cells, venue: int, minute: int) -> int:
    """The venue's last cell before `minute`, NONE if there is none."""
    at = venues.rows[venue].near
    last = venues.rows[venue].last
    if last == NONE:
        return NONE
    if at == NONE or abs(cells.rows[last].minute - minute) < abs(cells.rows[at].minute - minute):
        at = last
    while at != NONE and cells.rows[at].minute >= minute:
        at = cells.rows[at].prev
    if at == NONE:
        return NONE
    while cells.rows[at].next != NONE and cells.rows[cells.rows[at].next].minute < minute:
        at = cells.rows[at].next
    return at


@kernel
def _cell_at(venues: Venues, cells: Cells, venue: int, minute: int, far: bool) -> int:
    # Scans come nearly in time order, and so do automatic ends, but hours ahead of them: with one remembered cell for each,
    # the right place is nearly always a step or two away.
    at = venues.rows[venue].far if far else venues.rows[venue].near
    last = venues.rows[venue].last
    if at == NONE or abs(cells.rows[last].minute - minute) < abs(cells.rows[at].minute - minute):
        at = last
    after = NONE
    while at != NONE and cells.rows[at].minute > minute:
        after = at
        at = cells.rows[at].prev
    if at != NONE:
        after = cells.rows[at].next
        while after != NONE and cells.rows[after].minute <= minute:
            at = after
            after = cells.rows[at].next
    if at == NONE or cells.rows[at].minute != minute:
        new = cells.used[0]
        cells.used[0] = new + 1
        cells.rows[new].venue = venue
        cells.rows[new].minute = minute
        cells.rows[new].prev = at
        cells.rows[new].next = after
        cells.rows[new].events = NONE
        cells.rows[new].arrivals = 0
        cells.rows[new].departures = 0
        cells.rows[new].shown = NONE
        cells.rows[new].occupancy = cells.rows[at].occupancy if at != NONE else venues.rows[venue].carried
        cells.rows[new].peak = cells.rows[new].occupancy
        cells.rows[new].dirty = 1
        if at != NONE:
            cells.rows[at].next = new
        else:
            venues.rows[venue].first = new
        if after != NONE:
            cells.rows[after].prev = new
        else:
            venues.rows[venue].last = new
        at = new
    if far:
        venues.rows[venue].far = at
    else:
        venues.rows[venue].near = at
    return at


@kernel
def _touch(venues: Venues, cells: Cells, cell: int) -> None:
    cells.rows[cell].dirty = 1
    venue = cells.rows[cell].venue
    venues.rows[venue].changed = min(venues.rows[venue].changed, cells.rows[cell].minute)
    if cells.rows[cell].minute <= venues.rows[venue].upto:
        venues.rows[venue].late = max(venues.rows[venue].late, cells.rows[cell].minute)


@kernel
def _shift_base(venues: Venues, cells: Cells, cells_from: int, venue: int, delta: int) -> None:
    # The cell that everything after depends on remembers the base as it was, so that the difference is seen.
    first = _cell_at(venues, cells, venue, cells_from // MINUTE, False)
    venues.rows[venue].carried += delta
    _touch(venues, cells, first)


@kernel
def add_event(
    venues: Venues, cells: Cells, events: Events, cells_from: int, venue: int, at: int, delta: int, far: bool
) -> int:
    """Somebody arrives (`delta` > 0 persons) or leaves (< 0) at `at` ms. Needs room for one cell and one event.

    Returns the cell. Before `cells_from` (ms) there are none (NONE), only the number of persons carried into the first one.
    """
    if at < cells_from:
        _shift_base(venues, cells, cells_from, venue, delta)
        return NONE
    minute = at // MINUTE
    cell = _cell_at(venues, cells, venue, minute, far)
    free = events.used[1]
    if free != NONE:
        events.used[1] = events.rows[free].next
    else:
        free = events.used[0]
        events.used[0] = free + 1
    events.rows[free].ms = at - minute * MINUTE
    events.rows[free].delta = delta
    events.rows[free].next = cells.rows[cell].events
    cells.rows[cell].events = free
    if delta > 0:
        cells.rows[cell].arrivals += delta
    else:
        cells.rows[cell].departures -= delta
    _touch(venues, cells, cell)
    return cell


@kernel
def remove_event(
    venues: Venues, cells: Cells, events: Events, cells_from: int, venue: int, at: int, delta: int, cell: int
) -> None:
    """Take back one event that `add_event` added with the same time and persons, and for which it returned `cell`.

    Where that is no longer known (NONE) it is searched.
    """
    if at < cells_from:
        _shift_base(venues, cells, cells_from, venue, -delta)
        return
    minute = at // MINUTE
    if cell == NONE:
        cell = _cell_at(venues, cells, venue, minute, delta < 0)
    ms = at - minute * MINUTE
    before = NONE
    event = cells.rows[cell].events
    while events.rows[event].ms != ms or events.rows[event].delta != delta:
        before = event
        event = events.rows[event].next
    if before == NONE:
        cells.rows[cell].events = events.rows[event].next
    else:
        events.rows[before].next = events.rows[event].next
    events.rows[event].next = events.used[1]
    events.used[1] = event
    if delta > 0:
        cells.rows[cell].arrivals -= delta
    else:
        cells.rows[cell].departures += delta
    _touch(venues, cells, cell)


@kernel
def add_visit(
    venues: Venues, cells: Cells, events: Events, cells_from: int, venue: int, start: int, left: int, party: int
) -> int:
    """Count a visit, [start, left) in ms. Needs room for two cells and two events. Returns the cell of its end, or NONE."""
    add_event(venues, cells, events, cells_from, venue, start, party, False)
    return add_event(venues, cells, events, cells_from, venue, left, -wide(party), True)


@kernel
def remove_visit(
    venues: Venues, cells: Cells, events: Events, cells_from: int, venue: int, start: int, left: int, party: int
) -> None:
    """Count a visit no longer. Needs room for two cells."""
    remove_event(venues, cells, events, cells_from, venue, start, party, NONE)
    remove_event(venues, cells, events, cells_from, venue, left, -wide(party), NONE)


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
    venues.rows[venue].forced = 1
    if from_minute > 0:
        _cell_at(venues, cells, venue, from_minute, False)
    for minute in minutes:
        # Touched, wherever it is: a new cell that nothing computes has no persons in it, and rolling windows add them up.
        cell = _cell_at(venues, cells, venue, minute, False)
        cells.rows[cell].shown = UNKNOWN
        _touch(venues, cells, cell)
    cell = venues.rows[venue].last
    while cell != NONE and cells.rows[cell].minute >= from_minute:
        cells.rows[cell].shown = UNKNOWN
        _touch(venues, cells, cell)
        cell = cells.rows[cell].prev
