"""The state of one partition as plain arrays: few bytes a scan, nothing for Python's garbage collector to visit.

Every pool is a named tuple of equally long arrays that the kernels index by row. The first free row is in `used[0]`; rows
never move but when `Shard.collect` drops what is too old. Growing doubles the arrays, so it costs a constant per row.
"""

from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

#: "No row" in every link field.
NONE: Final = -1
#: In `Cells.shown`: whether there is a row is not known.
UNKNOWN: Final = -2
#: "No minute": later than any real one.
NEVER: Final = np.iinfo(np.int32).max
#: Milliseconds in a minute and an hour; minutes and hours are counted from the epoch, UTC.
MINUTE: Final = 60_000
HOUR: Final = 3_600_000
#: A check-out more than this after its check-in never closes that visit (contract, section 2).
HARD_LIMIT: Final = 24 * HOUR

#: How a visit ended. An OPEN one has the latest check-in of its pair; whether its automatic end has passed is for the reader,
#: who knows the clock.
ENDED_CHECK_OUT: Final = 0
ENDED_EXPIRED: Final = 1
ENDED_OPEN: Final = 2


class Names(NamedTuple):
    """Distinct short texts, each with a code (its row). `slots` is an open-addressing table of code + 1, 0 = empty."""

    slots: NDArray[np.int32]
    start: NDArray[np.int64]
    length: NDArray[np.uint8]
    arena: NDArray[np.uint8]
    used: NDArray[np.int64]  # [codes, bytes of the arena]


class Pairs(NamedTuple):
    """One row a (venue, visitor). `key` = venue code << 32 | visitor code. `slots` as in Names.

    `head` and `tail` are the ends of the pair's chain of scans in time order. `opened` (ms) is the check-in time of the visit
    that is open after the tail, NONE if there is none; `party` its size. `last_left` (ms) is when the newest visit ends.
    """

    slots: NDArray[np.int32]
    key: NDArray[np.int64]
    head: NDArray[np.int32]
    tail: NDArray[np.int32]
    opened: NDArray[np.int64]
    last_left: NDArray[np.int64]
    party: NDArray[np.uint8]
    used: NDArray[np.int64]


class Scans(NamedTuple):
    """One row a scan: `at` in ms, `kind` CHECK_IN or CHECK_OUT, `fresh` = stored but not yet accounted for (see recovery)."""

    at: NDArray[np.int64]
    kind: NDArray[np.uint8]
    party: NDArray[np.uint8]
    fresh: NDArray[np.uint8]
    next: NDArray[np.int32]
    used: NDArray[np.int64]


class Events(NamedTuple):
    """One row an arrival or a departure: `ms` within its minute, `delta` in persons, chained per cell. `used` = [rows, free list]."""

    ms: NDArray[np.uint16]
    delta: NDArray[np.int16]
    next: NDArray[np.int32]
    used: NDArray[np.int64]


class Cells(NamedTuple):
    """One row a venue and minute in which somebody arrives or leaves, doubly linked per venue in time order.

    `occupancy` (persons at the minute's end), `peak`, `area` (∫ n dt in person-ms), `contact` (∫ n(n−1)/2 dt in ms) and `over`
    (ms above capacity) are as computed last. `shown` = departures in the row that was written last, NONE if there is no row.
    """

    venue: NDArray[np.int32]
    minute: NDArray[np.int32]
    prev: NDArray[np.int32]
    next: NDArray[np.int32]
    events: NDArray[np.int32]
    arrivals: NDArray[np.int32]
    departures: NDArray[np.int32]
    occupancy: NDArray[np.int32]
    peak: NDArray[np.int32]
    over: NDArray[np.int32]
    shown: NDArray[np.int32]
    area: NDArray[np.int64]
    contact: NDArray[np.int64]
    dirty: NDArray[np.uint8]
    used: NDArray[np.int64]


class Venues(NamedTuple):
    """One row a venue, by its code.

    `limit` (ms) = max stay; `capacity` in persons, NONE if unknown; `first`/`last` cell, `near`/`far` the cells touched last for
    a scan's own time and for an automatic end: searches start from whichever is closest. `base` = persons present before the
    first cell. `changed` = earliest minute whose cell must be computed again; `due` = the minute in which, as the clock moves
    on, departures become visible. `now` = occupancy written last for "now"; `present` > 0 where somebody stays beyond the hour
    computed last. `upto` = the last minute computed; `late` = the last minute before it that has changed since. `forced`: every hour from `changed` on is written again, whether it seems to have changed or not.
    """

    limit: NDArray[np.int64]
    capacity: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    near: NDArray[np.int32]
    far: NDArray[np.int32]
    base: NDArray[np.int32]
    changed: NDArray[np.int32]
    due: NDArray[np.int32]
    now: NDArray[np.int32]
    present: NDArray[np.int32]
    upto: NDArray[np.int32]
    late: NDArray[np.int32]
    forced: NDArray[np.uint8]


Pool = TypeVar("Pool", Pairs, Scans, Events, Cells)


def new_names(capacity: int = 1024) -> Names:
    """An empty set of texts with room for `capacity` (a power of two) before it first grows."""
    return Names(
        np.zeros(capacity * 2, np.int32),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.uint8),
        np.zeros(capacity * 16, np.uint8),
        np.zeros(2, np.int64),
    )


def new_pairs(capacity: int = 1024) -> Pairs:
    """No pairs yet; `capacity` is a power of two."""
    return Pairs(
        np.zeros(capacity * 2, np.int32),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.uint8),
        np.zeros(1, np.int64),
    )


def new_scans(capacity: int = 1024) -> Scans:
    """No scans yet."""
    return Scans(
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.uint8),
        np.zeros(capacity, np.uint8),
        np.zeros(capacity, np.uint8),
        np.zeros(capacity, np.int32),
        np.zeros(1, np.int64),
    )


def new_events(capacity: int = 1024) -> Events:
    """No events yet; the free list is empty."""
    return Events(
        np.zeros(capacity, np.uint16),
        np.zeros(capacity, np.int16),
        np.zeros(capacity, np.int32),
        np.array([0, NONE], np.int64),
    )


def new_cells(capacity: int = 1024) -> Cells:
    """No cells yet."""
    ints = [np.zeros(capacity, np.int32) for _ in range(11)]
    return Cells(
        *ints,
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.uint8),
        np.zeros(1, np.int64),
    )


def new_venues(capacity: int = 256) -> Venues:
    """Room for `capacity` venues; rows are initialised by `grow_venues` and `Shard` when a venue is first seen."""
    return Venues(
        np.zeros(capacity, np.int64),
        *(np.full(capacity, NONE, np.int32) for _ in range(5)),
        np.zeros(capacity, np.int32),
        np.full(capacity, NEVER, np.int32),
        np.full(capacity, NEVER, np.int32),
        np.full(capacity, NONE, np.int32),
        np.zeros(capacity, np.int32),
        np.full(capacity, NONE, np.int32),
        np.full(capacity, NONE, np.int32),
        np.zeros(capacity, np.uint8),
    )


def _longer(array: NDArray[np.generic], capacity: int) -> NDArray[np.generic]:
    grown = np.zeros(capacity, array.dtype)
    grown[: len(array)] = array
    return grown


def grown(pool: Pool, room: int) -> Pool:
    """The same pool with room for at least `room` more rows. Pairs need `rebuild_slots` after their table has grown."""
    rows = len(pool[1])
    needed = int(pool.used[0]) + room
    if needed <= rows:
        return pool
    while rows < needed:
        rows *= 2
    columns = [
        column if name in ("used", "slots") else _longer(column, rows)
        for name, column in zip(pool._fields, pool, strict=True)
    ]
    return type(pool)(*columns)


def grown_venues(venues: Venues, count: int) -> Venues:
    """The same venues with room for `count` in all."""
    rows = len(venues.limit)
    if count <= rows:
        return venues
    while rows < count:
        rows *= 2
    bigger = new_venues(rows)
    for old, new in zip(venues, bigger, strict=True):
        new[: len(old)] = old
    return bigger


def bytes_held(*pools: NamedTuple) -> int:
    """Memory of the arrays of some pools, in bytes."""
    return sum(array.nbytes for pool in pools for array in pool)
