"""How much the people at a venue mix: who was there together with whom, for how long, by window.

Everything counts persons: a party of three is three, together for all of its stay. Computed by sorting, not pair by pair, but for
those who come and go within a window.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.jit import kernel
from pipeline.core.pools import I32, I64
from pipeline.core.tracing.exposure import Stays


@dataclass(frozen=True, slots=True)
class ContactWindows:
    """One row a venue and window with anyone present, by venue and start."""

    venue: I32
    #: The window is [start, start + width), ms since the epoch, UTC.
    start: I64
    #: Different persons present at any time in it.
    persons: I64
    #: ∫ n(n − 1)/2 dt in person-pair ms, n the persons present. An hour's is `person_contact_minutes` × 60,000.
    contact_ms: I64
    #: Pairs of persons whose stays overlapped for at least the minimum within the window.
    pairs: I64

    @property
    def possible_pairs(self) -> I64:
        """Pairs that the window's persons could form."""
        return self.persons * (self.persons - 1) // 2

    @property
    def mixing_rate(self) -> NDArray[np.float64]:
        """`pairs` over `possible_pairs`, from 0 to 1; not a number for fewer than two persons."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.pairs / self.possible_pairs)


def contact_windows(stays: Stays, starts: I64, width_ms: int, minimum_ms: int) -> ContactWindows:
    """The windows [start, start + width) of every venue: whole hours, or rolling ones that overlap.

    stays: any order; visits without length are never present. starts: at least one, ascending. minimum_ms: above 0, say
    `Policy.minimum_ms`; a pair counts, once, if a stay of each overlap for that long within the window.
    """
    assert minimum_ms > 0
    assert len(starts)
    visit, window = _pieces(stays, starts, width_ms)
    begin = np.maximum(stays.start[visit], starts[window])
    end = np.minimum(stays.left[visit], starts[window] + width_ms)
    party = stays.party[visit].astype(np.int64)
    group_key, group = np.unique(
        stays.venue[visit].astype(np.int64) * max(len(starts), 1) + window, return_inverse=True
    )
    groups = len(group_key)

    # A visitor's party is as large as the largest of its visits in the window.
    guests = group * (int(stays.visitor.max(initial=0)) + 1) + stays.visitor[visit]
    _, of_guest, guest = np.unique(guests, return_index=True, return_inverse=True)
    size = np.zeros(len(of_guest), np.int64)
    np.maximum.at(size, guest, party)
    persons = _sums(group[of_guest], size, groups)

    return ContactWindows(
        (group_key // len(starts)).astype(np.int32),
        starts[group_key % len(starts)],
        persons,
        _contact(group, groups, begin, end, party),
        _pairs(group, groups, guest, begin, end - minimum_ms, party),
    )


def _pieces(stays: Stays, starts: I64, width_ms: int) -> tuple[I64, I64]:
    """Positions of each visit and each window in which it is present."""
    first = np.searchsorted(starts, stays.start - width_ms, "right")
    last = np.searchsorted(starts, stays.left)
    count = np.where(stays.left > stays.start, np.maximum(last - first, 0), 0)
    visit = np.repeat(np.arange(len(count)), count)
    return visit, np.arange(len(visit)) - np.repeat(np.cumsum(count) - count, count) + first[visit]


def _sums(group: I64, values: I64, groups: int) -> I64:
    sums = np.zeros(groups, np.int64)
    np.add.at(sums, group, values)
    return sums


def _contact(group: I64, groups: int, begin: I64, end: I64, party: I64) -> I64:
    at = np.concatenate([begin, end])
    whose = np.concatenate([group, group])
    order = np.lexsort((at, whose))
    at, whose = at[order], whose[order]
    # Every group ends with nobody, so one running sum serves all of them.
    present = np.cumsum(np.concatenate([party, -party])[order])
    lasted = np.diff(at, append=at[-1:])
    return _sums(whose, np.where(present > 0, present * (present - 1) // 2 * lasted, 0), groups)


def _pairs(group: I64, groups: int, guest: I64, begin: I64, last: I64, party: I64) -> I64:
    """Pairs of persons whose [begin, last] meet, `last` being the latest arrival of another that still overlaps long enough."""
    long_enough = begin <= last
    group, guest, begin, last, party = (values[long_enough] for values in (group, guest, begin, last, party))
    by_guest = np.argsort(guest, kind="stable")
    group, guest, begin, last, party = (values[by_guest] for values in (group, guest, begin, last, party))
    # Guests are numbered group by group: those of a group lie together, and so do the stays of a guest.
    _, first, stay_count = np.unique(guest, return_index=True, return_counts=True)
    size = np.maximum.reduceat(party, first) if len(first) else party
    # The people of one party overlap for as long as their longest stay: once each.
    pairs = _sums(group[first], size * (size - 1) // 2, groups)

    once = np.repeat(stay_count == 1, stay_count)
    pairs += _meeting(group[once], groups, begin[once], last[once], party[once])
    # Those with several stays in a window are few: they are compared with everybody else of it.
    of_group = np.searchsorted(group[first], np.arange(groups + 1))
    _add_repeated(of_group, np.append(first, len(guest)), begin, last, size, pairs)
    return pairs


@kernel
def _add_repeated(of_group: I64, first: I64, begin: I64, last: I64, size: I64, pairs: I64) -> None:
    # The guests of a group are [of_group[group], of_group[group + 1]), a guest's stays [first[guest], first[guest + 1]).
    for group in range(len(pairs)):
        for guest in range(of_group[group], of_group[group + 1]):
            if first[guest + 1] - first[guest] == 1:
                continue
            for other in range(of_group[group], of_group[group + 1]):
                repeated = first[other + 1] - first[other] > 1
                if other == guest or (repeated and other < guest):
                    continue
                meet = False
                for i in range(first[guest], first[guest + 1]):
                    for j in range(first[other], first[other + 1]):
                        meet = meet or (begin[j] <= last[i] and last[j] >= begin[i])
                if meet:
                    pairs[group] += size[guest] * size[other]


def _meeting(group: I64, groups: int, begin: I64, last: I64, party: I64) -> I64:
    """Σ party × party over the pairs of closed intervals that meet: all, less those of which one ends before the other begins."""
    everybody = _sums(group, party, groups)
    all_pairs = (everybody * everybody - _sums(group, party * party, groups)) // 2
    order = np.lexsort((last, group))
    ended = np.concatenate([[0], np.cumsum(party[order])])
    span = int(max(begin.max(initial=0), last.max(initial=0))) + 1
    key = group[order] * span + last[order]
    before = ended[np.searchsorted(key, group * span + begin)] - ended[np.searchsorted(key, group * span)]
    return all_pairs - _sums(group, party * before, groups)
