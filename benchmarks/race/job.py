"""The job of every peer in Python: pair the scans of one visitor at one venue, and count who comes and goes in a minute.

Nothing but the standard library, so that it runs in any peer's environment. Instants are epoch milliseconds, UTC; a visit is
[start, left). Peers keep all scans of a pair as their state, so that a late scan or a duplicate is put where it belongs and what
was told too early is taken back.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

MINUTE: Final = 60_000
HARD_LIMIT: Final = 24 * 3_600_000
#: A visit without a check-out ends so long after its check-in: the pipeline's default `max_stay`.
MAX_STAY: Final = 4 * 3_600_000
#: A larger record is refused, in bytes.
LARGEST: Final = 65_536

CHECK_IN: Final = 0
CHECK_OUT: Final = 1

#: A scan within its pair: (at, kind, persons). A list, since peers write their state as JSON, which knows no tuples.
PairScan = Sequence[int]


class Scan(NamedTuple):
    """A valid scan; `kind` is CHECK_IN or CHECK_OUT."""

    venue: str
    visitor: str
    at: int
    kind: int
    persons: int


class Visit(NamedTuple):
    """A visit. `ended` is "open" for one that ends by itself at `left`: whether it has, only the clock of the reader says."""

    start: int
    left: int
    ended: str
    persons: int


class Change(NamedTuple):
    """A row to write: a visit as it is now, or as it was and is no more (`deleted`)."""

    visit: Visit
    deleted: bool


class Move(NamedTuple):
    """Persons more (or less) that came and left in a minute, counted from the epoch."""

    minute: int
    arrivals: int
    departures: int


def put(scans: list[list[int]], at: int, kind: int, persons: int) -> bool:
    """Put a scan into its pair's, which are sorted by (at, kind). Of two with one identity the larger party holds.

    Returns whether anything changed.
    """
    place = bisect_left(scans, [at, kind])
    if place < len(scans) and scans[place][0] == at and scans[place][1] == kind:
        if scans[place][2] >= persons:
            return False
        scans[place][2] = persons
    else:
        scans.insert(place, [at, kind, persons])
    return True


def fold(scans: Iterable[PairScan], limit: int = MAX_STAY) -> list[Visit]:
    """The visits of one pair from its scans in order. Of scans with one identity the first counts."""
    visits: list[Visit] = []
    start, persons = -1, 0
    for at, kind, party in scans:
        if kind == CHECK_IN:
            if start >= 0 and at >= start + limit:
                visits.append(Visit(start, start + limit, "expired", persons))
                start = -1
            if start < 0:
                start, persons = at, party
        elif start >= 0:
            if at - start <= HARD_LIMIT:
                visits.append(Visit(start, at, "check_out", persons))
            else:
                visits.append(Visit(start, start + limit, "expired", persons))
            start = -1
    if start >= 0:
        visits.append(Visit(start, start + limit, "open", persons))
    return visits


def changes(before: Sequence[Visit], after: Sequence[Visit]) -> list[Change]:
    """What to write when a pair's visits were `before` and are `after`; a visit is known by its start."""
    same = 0
    while same < len(before) and same < len(after) and before[same] == after[same]:
        same += 1
    starts = {visit.start for visit in after[same:]}
    found = [Change(visit, True) for visit in before[same:] if visit.start not in starts]
    old = set(before[same:])
    return found + [Change(visit, False) for visit in after[same:] if visit not in old]


def moves(before: Sequence[Visit], after: Sequence[Visit]) -> list[Move]:
    """How the same difference changes the minutes. A visit that ends by itself leaves then, be that in the future or not."""
    counts: dict[int, list[int]] = {}
    for visits, sign in ((before, -1), (after, 1)):
        for start, left, _, persons in visits:
            counts.setdefault(start // MINUTE, [0, 0])[0] += sign * persons
            counts.setdefault(left // MINUTE, [0, 0])[1] += sign * persons
    return [Move(minute, came, went) for minute, (came, went) in counts.items() if came or went]
