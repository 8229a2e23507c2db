"""Whom to call today: exposed visitors by tier, minutes and recency, as many as the staff can call."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """One call a visitor, the most urgent first; columns of equal length."""

    visitor: NDArray[Any]
    #: Code of the highest tier that any exposure of the visitor has.
    tier: Integers
    #: The most cumulative minutes in that tier, in ms.
    cumulative_ms: Integers
    #: When the visitor was last exposed in that tier: ms since the epoch, UTC.
    last_exposed: Integers
    #: Persons behind the call: the largest party of the visitor's exposed visits.
    persons: Integers
    #: Visitors who are exposed too and for whom the capacity does not suffice.
    left_out: int


def work_queue(
    visitor: NDArray[Any],
    tier: NDArray[Any],
    cumulative_ms: NDArray[Any],
    overlap_until: NDArray[Any],
    party: NDArray[Any],
    capacity: int,
) -> WorkQueue:
    """The `capacity` most urgent calls of these exposures (equal columns, one row each, of any cases); tier `below` has none.

    Higher tiers come first, then more minutes, then later exposures, then the smaller visitor id, so that the order is one. Codes
    of tiers must be of one policy.
    """
    exposed = tier > 0
    visitor, tier, cumulative_ms, overlap_until, party = (
        column[exposed] for column in (visitor, tier, cumulative_ms, overlap_until, party)
    )
    ids, who = np.unique(visitor, return_inverse=True)
    persons = np.zeros(len(ids), np.int64)
    np.maximum.at(persons, who, party)
    order = np.lexsort((-overlap_until, -cumulative_ms, -tier.astype(np.int64), who))
    first = order[np.searchsorted(who[order], np.arange(len(ids)))]
    urgent = np.lexsort((ids, -overlap_until[first], -cumulative_ms[first], -tier[first].astype(np.int64)))
    called = urgent[:capacity]
    rows = first[called]
    return WorkQueue(
        ids[called],
        tier[rows].astype(np.int64),
        cumulative_ms[rows],
        overlap_until[rows],
        persons[called],
        len(ids) - len(called),
    )
