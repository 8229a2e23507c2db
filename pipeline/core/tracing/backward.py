"""Where a case may have caught it: visits it shared with other cases, and clusters of cases at a venue.

All of it is in the light of the cases known so far. As for exposures: they shared a venue; that they met is not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.pools import I32, I64, Column
from pipeline.core.tracing.exposure import HIGH, Stays, case_intervals, exposures
from pipeline.core.tracing.policy import Policy
from pipeline.core.tracing.window import Midnight, Window


@dataclass(frozen=True, slots=True)
class KnownCase:
    """A case and the visits of its visitor."""

    stays: Stays
    #: When it can have been infected, and when it was infectious.
    infection: Window
    infectious: Window
    #: The policy of its own report: decides how it exposed others.
    policy: Policy


@dataclass(frozen=True, slots=True)
class Sources:
    """Pairs of another case's visit, while it was infectious, and one of this case's, when it can have been infected.

    One row a pair, by the position of the other case and of the visits. Lengths in ms, as of `Exposures`.
    """

    source: I64
    source_visit: I64
    case_visit: I64
    overlap_from: I64
    overlap_until: I64
    low_ms: I64
    middle_ms: I64
    high_ms: I64
    #: Code of the tier by the source's policy: how strongly it exposed this case.
    tier: Column


@dataclass(frozen=True, slots=True)
class Clusters:
    """Stretches of time in which at least so many cases as the policy asks were at a venue at once, by venue and time."""

    venue: I32
    #: [first, last) in ms since the epoch, UTC.
    first: I64
    last: I64
    #: Different cases who were there in it.
    cases: I64
    #: Of them, those who became infectious after it began: it may be where they caught it.
    later: I64
    #: Different persons who were there in it, cases among them.
    persons: I64
    #: Persons whom the `later` cases exposed.
    onward: I64
    #: Row of the cluster and position of the case, one row each.
    member_cluster: I64
    member_case: I64

    @property
    def attack_rate(self) -> NDArray[np.float64]:
        """`later` over the persons present who were not infectious before it began."""
        at_risk = self.persons - (self.cases - self.later)
        return np.asarray(np.divide(self.later, at_risk, out=np.full(len(at_risk), np.nan), where=at_risk > 0))


def possible_visits(case: Stays, infection: Window) -> I64:
    """Positions of the case's visits in the time in which it can have been infected."""
    return np.flatnonzero((case.start < infection.until) & (np.maximum(case.left, case.start + 1) > infection.start))


def sources(
    case: Stays, infection: Window, others: Sequence[KnownCase], categories: Sequence[str], midnight: Midnight
) -> Sources:
    """Who of the other cases exposed this one when it can have been infected: each by its own policy and infectious window."""
    possible = possible_visits(case, infection)
    visits = case.take(possible)
    columns: list[list[Column]] = []
    for position, other in enumerate(others):
        found = exposures(other.stays, visits, other.infectious, other.policy, categories, midnight)
        within = found.overlap_from < infection.until
        within &= np.maximum(found.overlap_until, found.overlap_from + 1) > infection.start
        columns.append(
            [
                column[within]
                for column in (
                    np.full(len(found), position),
                    found.case_visit,
                    possible[found.other_visit],
                    found.overlap_from,
                    found.overlap_until,
                    found.low_ms,
                    found.middle_ms,
                    found.high_ms,
                    found.tier,
                )
            ]
        )
    if not columns:
        columns = [[np.zeros(0, np.int64) for _ in range(9)]]
    return Sources(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def clusters(
    cases: Sequence[KnownCase], onward: Sequence[int], present: Stays, policy: Policy, categories: Sequence[str]
) -> Clusters:
    """Where several cases were at once, between the first day they can have been infected and the end of being infectious.

    cases: different visitors; their venues are coded as in `present`, all visits at those venues. onward: persons whom each case
    exposed. policy: one for all of them; decides the intervals of the cases' visits and, by category, how many make a cluster.
    """
    case, venue, category, start, until = _case_intervals(cases, policy, categories)
    threshold = policy.cluster_sizes(categories)
    rows: list[tuple[int, ...]] = []
    members: list[tuple[int, int]] = []
    became = np.array([known.infectious.start for known in cases], np.int64)
    present = present.take(np.argsort(present.venue))
    order = np.lexsort((start, venue))
    for at in np.split(order, np.flatnonzero(np.diff(venue[order])) + 1) if len(order) else []:
        there = present.take(slice(*np.searchsorted(present.venue, [venue[at[0]], venue[at[0]] + 1])))
        for first, last in _stretches(case[at], start[at], until[at], int(threshold[category[at[0]]])):
            who = np.unique(case[at][(start[at] < last) & (until[at] > first)])
            later = who[became[who] > first]
            inside = (there.start < last) & (there.left > first)
            rows.append(
                (
                    int(venue[at[0]]),
                    first,
                    last,
                    len(who),
                    len(later),
                    _persons(there.take(inside)),
                    sum(onward[known] for known in later),
                )
            )
            members += [(len(rows) - 1, int(known)) for known in who]
    columns = np.array(rows, np.int64).reshape(len(rows), 7).T
    member = np.array(members, np.int64).reshape(len(members), 2).T
    return Clusters(columns[0].astype(np.int32), *columns[1:], *member)


def _case_intervals(
    cases: Sequence[KnownCase], policy: Policy, categories: Sequence[str]
) -> tuple[I64, Column, Column, I64, I64]:
    columns: list[list[Column]] = [[np.zeros(0, np.int64) for _ in range(5)]]
    for position, known in enumerate(cases):
        infectious = known.infectious
        whole = Window(known.infection.start, infectious.until, infectious.relative_to, infectious.day)
        intervals = case_intervals(known.stays, whole, policy, categories)
        visits = known.stays.take(intervals.visit)
        columns.append(
            [
                np.full(len(visits), position),
                visits.venue,
                visits.category,
                intervals.start[HIGH],
                intervals.until[HIGH],
            ]
        )
    case, venue, category, start, until = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return case, venue, category, start, until


def _stretches(case: I64, start: I64, until: I64, threshold: int) -> list[tuple[int, int]]:
    """When at least `threshold` different cases were there; stretches that touch are one."""
    inside: dict[int, int] = {}
    stretches: list[tuple[int, int]] = []
    began: int | None = None
    # Arrivals before departures of the same instant, so that one who leaves as another comes does not cut a stretch in two.
    edges = sorted(
        [(int(at), 0, int(who)) for at, who in zip(start, case, strict=True)]
        + [(int(at), 1, int(who)) for at, who in zip(until, case, strict=True)]
    )
    for at, leaves, who in edges:
        inside[who] = inside.get(who, 0) + (-1 if leaves else 1)
        if not inside[who]:
            del inside[who]
        if began is None:
            began = at if len(inside) >= threshold else None
        elif len(inside) < threshold:
            if at > began:
                stretches.append((began, at))
            began = None
    return stretches


def _persons(stays: Stays) -> int:
    """Different persons: of each visitor the largest party."""
    visitors, who = np.unique(stays.visitor, return_inverse=True)
    party = np.zeros(len(visitors), np.int64)
    np.maximum.at(party, who, stays.party)
    return int(party.sum())
