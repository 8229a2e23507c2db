"""The state of one partition as plain arrays: few bytes a scan, nothing for Python's garbage collector to visit.

Every pool has one array of `rows`, each a structure, that the kernels index by number: what is known of one pair, cell or
venue lies side by side, because most of the fold's time is waiting for memory. (An array for each field, and a search for
the automatic end that a check-out takes back, which is now remembered in `far`, took twice the time: 5.2 µs a scan instead
of 2.7 on a day of 8 million visits; `python -m benchmarks.memory` prints what it is now.) The first free row is in
`used[0]`; rows never move but when `Shard.collect` drops what is too old. An array grows by an eighth, in place: of a large
one the operating system moves pages, not bytes.
"""

from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

#: Columns by the type of their elements. The checker sees `Any`, because a kernel's integers are of many widths.
Column: TypeAlias = NDArray[Any]
U8: TypeAlias = Column
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


def _row(fields: list[tuple[str, type]]) -> np.dtype[np.void]:
    # Of `np.record`, so that the kernels also run as plain Python, where rows[i].field needs it.
    return np.dtype((np.record, np.dtype(fields, align=True)))


class Names(NamedTuple):
    """Distinct short texts, each with a code (its row). `slots` is an open-addressing table of code + 1, 0 = empty."""

    slots: I32
    start: I64
    length: U8
    arena: U8
    used: I64  # [codes, bytes of the arena]


class Pairs(NamedTuple):
    """One row a (venue, visitor): see `PAIR`. `slots` as in Names."""

    slots: I32
    rows: Column
    used: I64


#: `key` = venue code << 32 | visitor code. `head` and `tail` are the ends of the pair's chain of scans in time order. `opened`
#: (ms) is the check-in time of the visit that is open after the tail, NONE if there is none; `party` its size; `far` the cell
#: of its automatic end, NONE if it must be searched. `last_left` (ms) is when the newest visit ends.
PAIR: Final = _row(
    [
        ("key", np.int64),
        ("opened", np.int64),
        ("last_left", np.int64),
        ("head", np.int32),
        ("tail", np.int32),
        ("far", np.int32),
        ("party", np.uint8),
    ],
)


class Scans(NamedTuple):
    """One row a scan: see `SCAN`."""

    rows: Column
    used: I64


#: `at` in ms, `kind` CHECK_IN or CHECK_OUT, `fresh` = stored but not yet accounted for (see recovery).
SCAN: Final = _row([("at", np.int64), ("next", np.int32), ("kind", np.uint8), ("party", np.uint8), ("fresh", np.uint8)])


class Events(NamedTuple):
    """One row an arrival or a departure, chained per cell: see `EVENT`. `used` = [rows, first of the free ones]."""

    rows: Column
    used: I64


#: `ms` within its minute, `delta` in persons.
EVENT: Final = _row([("ms", np.uint16), ("delta", np.int16), ("next", np.int32)])


class Cells(NamedTuple):
    """One row a venue and minute in which somebody arrives or leaves: see `CELL`. Doubly linked per venue in time order."""

    rows: Column
    used: I64


#: `occupancy` (persons at the minute's end), `peak`, `area` (∫ n dt in person-ms), `contact` (∫ n(n−1)/2 dt in ms) and `over`
#: (ms above capacity) are as computed last. `shown` = departures in the row that was written last, NONE if there is no row.
CELL: Final = _row(
    [
        ("area", np.int64),
        ("contact", np.int64),
        *(
            (name, np.int32)
            for name in (
                "venue",
                "minute",
                "prev",
                "next",
                "events",
                "arrivals",
                "departures",
                "occupancy",
                "peak",
                "over",
                "shown",
            )
        ),
        ("dirty", np.uint8),
    ],
)


class Moves(NamedTuple):
    """One row an arrival or a closing, chained per venue: see `MOVE`. `used` = [rows, 1 if a log is kept at all]."""

    rows: Column
    used: I64


#: `at` = minute since the epoch, `age` = minutes from the visit's arrival to then, `persons` > 0 for who came, < 0 for who left.
MOVE: Final = _row([("at", np.int32), ("next", np.int32), ("age", np.uint16), ("persons", np.int16)])


class Venues(NamedTuple):
    """One row a venue, by its code: see `VENUE`."""

    rows: Column


#: What a venue that was never seen has in its row; with `limit` and `forced`, the fields of a VENUE.
_NEW_VENUE: Final = {
    "capacity": NONE,
    "first": NONE,
    "last": NONE,
    "near": NONE,
    "far": NONE,
    "carried": 0,
    "changed": NEVER,
    "due": NEVER,
    "now": NONE,
    "present": 0,
    "upto": NONE,
    "late": NONE,
    "moves": NONE,
    "moved": NEVER,
    "moved_to": NONE,
}
#: `limit` (ms) = max stay; `capacity` in persons, NONE if unknown. `first`/`last` cell; `near`/`far`: the cells touched last
#: for a scan's own time and for an automatic end, since searches start from whichever is closest. `carried` = persons present
#: before the first cell. `changed` = the earliest minute that must be computed again; `due` = the minute in which departures
#: become visible as the clock moves on; `upto` = the last minute computed; `late` = the last minute before it that changed
#: since. `now` = occupancy written last for "now"; `present` > 0 where somebody stays beyond the hour computed last.
#: `moves` = first row of its log of moves; estimates of the minutes `moved` … `moved_to` may have changed since the last time.
#: `forced`: every hour from `changed` on is written again, whether it seems to have changed or not.
VENUE: Final = _row([("limit", np.int64), *((name, np.int32) for name in _NEW_VENUE), ("forced", np.uint8)])


Pool = TypeVar("Pool", Pairs, Scans, Events, Cells, Moves)


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
    return Pairs(new_slots(capacity), np.zeros(capacity, PAIR), np.zeros(1, np.int64))


def new_scans(capacity: int = 1024) -> Scans:
    """No scans yet."""
    return Scans(np.zeros(capacity, SCAN), np.zeros(1, np.int64))


def new_events(capacity: int = 1024) -> Events:
    """No events yet; the free list is empty."""
    return Events(np.zeros(capacity, EVENT), np.array([0, NONE], np.int64))


def rows_of(capacity: int, *dtypes: type) -> list[Column]:
    """Columns of zeros, and the count of rows used, 0."""
    return [*(np.zeros(capacity, dtype) for dtype in dtypes), np.zeros(1, np.int64)]


def new_cells(capacity: int = 1024) -> Cells:
    """No cells yet."""
    return Cells(np.zeros(capacity, CELL), np.zeros(1, np.int64))


def new_moves(*, kept: bool, capacity: int = 1024) -> Moves:
    """No moves yet; `kept` whether any will be."""
    return Moves(np.zeros(capacity, MOVE), np.array([0, kept], np.int64))


def new_venues(capacity: int = 256) -> Venues:
    """Room for `capacity` venues; the rules of each are set when it is first seen."""
    rows = np.zeros(capacity, VENUE)
    for name, value in _NEW_VENUE.items():
        rows[name] = value
    return Venues(rows)


def make_room(pool: Pool, room: int) -> None:
    """Give the pool room for at least `room` more rows. Pairs may need `rebuild_slots` then."""
    more_room(pool.rows, int(pool.used[0]) + room)


def new_slots(rows: int) -> I32:
    """An empty table for so many rows: its length is a power of two, and at most two thirds of it will be used."""
    return np.zeros(1 << (rows * 3 // 2).bit_length(), np.int32)


def crowded(slots: I32, rows: int) -> bool:
    """Whether the table is too small for so many rows."""
    return len(slots) * 2 < rows * 3


def more_room(array: Column, needed: int) -> None:
    """Lengthen an array in place to at least `needed` elements, and by an eighth; the new ones are zeros."""
    if needed > len(array):
        array.resize(max(needed, len(array) + len(array) // 8), refcheck=False)


def grown_venues(venues: Venues, count: int) -> Venues:
    """The same venues with room for `count` in all."""
    capacity = len(venues.rows)
    if count <= capacity:
        return venues
    while capacity < count:
        capacity *= 2
    bigger = new_venues(capacity)
    bigger.rows[: len(venues.rows)] = venues.rows
    return bigger


def bytes_held(*pools: NamedTuple) -> int:
    """Memory of the arrays of some pools, in bytes."""
    return sum(array.nbytes for pool in pools for array in pool)
