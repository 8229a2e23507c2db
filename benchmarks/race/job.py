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


#: (start, left, how it ended, persons). "open": it ends by itself at `left`; whether it has, only the clock of the reader says.
#: A plain tuple, as one is made for nearly every scan, and a named one costs three times as much.
Visit = tuple[int, int, str, int]

#: (minute since the epoch, arrivals more, departures more), in persons; less is negative.
Move = tuple[int, int, int]


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
                visits.append((start, start + limit, "expired", persons))
                start = -1
            if start < 0:
                start, persons = at, party
        elif start >= 0:
            if at - start <= HARD_LIMIT:
                visits.append((start, at, "check_out", persons))
            else:
                visits.append((start, start + limit, "expired", persons))
            start = -1
    if start >= 0:
        visits.append((start, start + limit, "open", persons))
    return visits


def changes(before: Sequence[Visit], after: Sequence[Visit]) -> tuple[list[Visit], list[int], list[Move]]:
    """What follows when a pair's visits were `before` and are `after`.

    The visits to write; the starts of those that are no more; how the minutes change. A visit that ends by itself leaves then, be
    that in the future or not.
    """
    same = 0
    for old, new in zip(before, after, strict=False):
        if old != new:
            break
        same += 1
    gone, come = before[same:], after[same:]
    counts: dict[int, list[int]] = {}
    for visits, sign in ((gone, -1), (come, 1)):
        for start, left, _, persons in visits:
            for minute, side in ((start // MINUTE, 0), (left // MINUTE, 1)):
                if minute in counts:
                    counts[minute][side] += sign * persons
                else:
                    counts[minute] = [sign * persons, 0] if side == 0 else [0, sign * persons]
    moves = [(minute, came, went) for minute, (came, went) in counts.items() if came or went]
    if not gone:
        return list(come), [], moves
    starts = {visit[0] for visit in come}
    return [visit for visit in come if visit not in gone], [visit[0] for visit in gone if visit[0] not in starts], moves
