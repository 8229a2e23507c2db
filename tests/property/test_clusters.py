"""Clusters are when a count of the cases at every instant says so."""

import random
from datetime import UTC, date, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.tracing.backward import KnownCase, clusters
from pipeline.core.tracing.window import Report, infection_window, infectious_window, midnights
from pipeline.policies import load_policies
from tests.reference_tracing import DAY, MINUTE, Visit
from tests.tracing import CATEGORIES, stays_of

WHO = load_policies(None).of("who", 0)
MIDNIGHT = midnights(UTC)
NOON = 1_632_052_800_000
#: 19 September 2021.
TODAY = date(2021, 9, 19)


def counted(cases: dict[str, KnownCase], visits: list[Visit]) -> set[tuple[int, ...]]:
    """(venue, first, last, cases, later, persons) of every cluster, minute by minute: all edges are whole minutes."""
    venues = list(dict.fromkeys(visit.venue for visit in visits))
    rows = set()
    for code, venue in enumerate(venues):
        there = [visit for visit in visits if visit.venue == venue]
        needed = WHO.clusters.get(there[0].category, WHO.clusters["default"])
        minutes = range(min(v.start for v in there), max(v.left for v in there) + MINUTE, MINUTE)
        began = None
        for minute in minutes:
            present = {v.visitor for v in there if v.visitor in cases and v.start <= minute < v.left}
            if len(present) >= needed:
                began = minute if began is None else began
            elif began is not None:
                inside = [v for v in there if v.start < minute and v.left > began]
                who = {v.visitor for v in inside if v.visitor in cases}
                later = {name for name in who if cases[name].infectious.start > began}
                party = {v.visitor: max(w.party for w in inside if w.visitor == v.visitor) for v in inside}
                rows.add((code, began, minute, len(who), len(later), sum(party.values())))
                began = None
    return rows


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1))
def test_clusters_are_when_enough_cases_are_counted(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"p{i}" for i in range(8)]
    visits = []
    for venue in ("a", "b"):
        category = rng.choice(["restaurant", "mall"])
        for name in names:
            left = NOON
            for _ in range(rng.randint(0, 2)):
                start = left + rng.randrange(0, 60, 5) * MINUTE
                left = start + rng.choice([0, 5, 10, 30, 60]) * MINUTE
                visits.append(Visit(name, venue, category, start, left, "check_out", rng.randint(1, 3)))
    rng.shuffle(visits)
    cases = {}
    for name in names[: rng.randint(0, 6)]:
        report = Report(NOON + 20 * DAY, TODAY + timedelta(days=rng.choice([0, 2, 3, 9])))
        own = stays_of([visit for visit in visits if visit.visitor == name], visits)
        window = infectious_window(report, WHO, MIDNIGHT)
        cases[name] = KnownCase(own, infection_window(report, WHO, MIDNIGHT), window, WHO)
    found = clusters(list(cases.values()), [0] * len(cases), stays_of(visits, visits), WHO, CATEGORIES)
    columns = (found.venue, found.first, found.last, found.cases, found.later, found.persons)
    assert {tuple(map(int, row)) for row in zip(*columns, strict=True)} == counted(cases, visits)
