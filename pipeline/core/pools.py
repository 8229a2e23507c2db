"""The state of one partition as plain arrays: few bytes a scan, nothing for Python's garbage collector to visit.

Every pool is a named tuple of equally long arrays that the kernels index by row. The first free row is in `used[0]`; rows
never move but when `Shard.collect` drops what is too old. Growing doubles the arrays, so it costs a constant per row.
"""

from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

#: Columns by the type of their elements. The checker sees `Any`, because a kernel's integers are of many widths.
Column: TypeAlias = NDArray[Any]
U8: TypeAlias = Column
U16: TypeAlias = Column
I16: TypeAlias = Column
I32: TypeAlias = Column
I64: TypeAlias = Column

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

    slots: I32
    start: I64
    length: U8
    arena: U8
    used: I64  # [codes, bytes of the arena]


class Pairs(NamedTuple):
    """One row a (venue, visitor). `key` = venue code << 32 | visitor code. `slots` as in Names.

    `head` and `tail` are the ends of the pair's chain of scans in time order. `opened` (ms) is the check-in time of the visit
    that is open after the tail, NONE if there is none; `party` its size. `last_left` (ms) is when the newest visit ends.
    """

    slots: I32
    key: I64
    head: I32
    tail: I32
    opened: I64
    last_left: I64
    party: U8
    used: I64


class Scans(NamedTuple):
    """One row a scan: `at` in ms, `kind` CHECK_IN or CHECK_OUT, `fresh` = stored but not yet accounted for (see recovery)."""

    at: I64
    kind: U8
    party: U8
    fresh: U8
    next: I32
    used: I64


class Events(NamedTuple):
    """One row an arrival or a departure, chained per cell: `ms` within its minute, `delta` in persons.

    `used` = [rows, first of the free ones].
    """

    ms: U16
    delta: I16
    next: I32
    used: I64


class Cells(NamedTuple):
    """One row a venue and minute in which somebody arrives or leaves, doubly linked per venue in time order.

    `occupancy` (persons at the minute's end), `peak`, `area` (∫ n dt in person-ms), `contact` (∫ n(n−1)/2 dt in ms) and `over`
    (ms above capacity) are as computed last. `shown` = departures in the row that was written last, NONE if there is no row.
    """

    venue: I32
    minute: I32
    prev: I32
    next: I32
    events: I32
    arrivals: I32
    departures: I32
    occupancy: I32
    peak: I32
    over: I32
    shown: I32
    area: I64
    contact: I64
    dirty: U8
    used: I64


class Venues(NamedTuple):
    """One row a venue, by its code.

    `limit` (ms) = max stay; `capacity` in persons, NONE if unknown. `first`/`last` cell; `near`/`far`: the cells touched last
    for a scan's own time and for an automatic end, since searches start from whichever is closest. `base` = persons present
    before the first cell. `changed` = the earliest minute that must be computed again; `due` = the minute in which departures
    become visible as the clock moves on; `upto` = the last minute computed; `late` = the last minute before it that changed
    since. `now` = occupancy written last for "now"; `present` > 0 where somebody stays beyond the hour computed last.
    `forced`: every hour from `changed` on is written again, whether it seems to have changed or not.
    """

    limit: I64
    capacity: I32
    first: I32
    last: I32
    near: I32
    far: I32
    base: I32
    changed: I32
    due: I32
    now: I32
    present: I32
    upto: I32
    late: I32
    forced: U8


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


def rows_of(capacity: int, *dtypes: type) -> list[Column]:
    """Columns of zeros, and the count of rows used, 0."""
    return [*(np.zeros(capacity, dtype) for dtype in dtypes), np.zeros(1, np.int64)]


def new_cells(capacity: int = 1024) -> Cells:
    """No cells yet."""
    return Cells(*rows_of(capacity, *[np.int32] * 11, np.int64, np.int64, np.uint8))


def new_venues(capacity: int = 256) -> Venues:
    """Room for `capacity` venues; the rules of each are set when it is first seen."""

    def column(value: int, dtype: type = np.int32) -> Column:
        return np.full(capacity, value, dtype)

    return Venues(
        limit=column(0, np.int64),
        capacity=column(NONE),
        first=column(NONE),
        last=column(NONE),
        near=column(NONE),
        far=column(NONE),
        base=column(0),
        changed=column(NEVER),
        due=column(NEVER),
        now=column(NONE),
        present=column(0),
        upto=column(NONE),
        late=column(NONE),
        forced=column(0, np.uint8),
    )


def _longer(array: Column, capacity: int) -> Column:
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
