"""Where a case may have caught it: shared visits, clusters, attack rates and onward counts, worked out by hand."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from pipeline.core.tracing.backward import KnownCase, clusters, possible_visits, sources
from pipeline.core.tracing.window import Report, infection_window, infectious_window, midnights
from pipeline.policies import load_policies
from tests.reference_tracing import MINUTE, Visit
from tests.tracing import CATEGORIES, stays_of

WHO = load_policies(None).of("who", 0)
MIDNIGHT = midnights(UTC)


def at(day: int, time: str) -> int:
    """Of September 2021, UTC."""
    return int(datetime.fromisoformat(f"2021-09-{day:02}T{time}+00:00").timestamp() * 1000)


def visit(
    who: str, day: int, start: str, end: str, *, venue: str = "a", category: str = "mall", party: int = 1
) -> Visit:
    return Visit(who, venue, category, at(day, start), at(day, end), "check_out", party)


def case_of(who: str, onset: int, visits: list[Visit], **changes: Any) -> KnownCase:
    """A case of WHO's policy with its visits, whose onset is on this day of September."""
    report = Report(at(30, "12:00"), date(2021, 9, onset))
    own = [each for each in visits if each.visitor == who]
    known = {
        "stays": stays_of(own, visits),
        "infection": infection_window(report, WHO, MIDNIGHT),
        "infectious": infectious_window(report, WHO, MIDNIGHT),
        "policy": WHO,
    }
    return KnownCase(**{**known, **changes})


def test_sources_are_cases_infectious_then_at_visits_of_the_look_back() -> None:
    visits = [
        visit("index", 10, "12:00", "13:00"),
        visit("index", 18, "12:00", "13:00", venue="b"),
        visit("index", 25, "12:00", "13:00"),
        # Infectious from the 8th on: met the index case for half an hour on the 10th, and again on the 25th.
        visit("source", 10, "12:30", "15:00"),
        visit("source", 25, "12:00", "13:00"),
        # There at the same time, but infectious from the 20th on only.
        visit("later", 18, "12:00", "13:00", venue="b"),
        # There and infectious, but not at the same time.
        visit("missed", 10, "13:00", "14:00"),
    ]
    index = case_of("index", 20, visits)
    others = [case_of("source", 10, visits), case_of("later", 22, visits), case_of("missed", 10, visits)]
    found = sources(index.stays, index.infection, others, CATEGORIES, MIDNIGHT)
    assert found.source.tolist() == [0]
    assert (found.source_visit[0], found.case_visit[0]) == (0, 0)
    assert (found.overlap_from[0], found.overlap_until[0]) == (at(10, "12:30"), at(10, "13:00"))
    assert found.middle_ms[0] == 30 * MINUTE
    assert WHO.tier_names[found.tier[0]] == "exposed"
    # The look-back is the 6th to the 20th.
    assert possible_visits(index.stays, index.infection).tolist() == [0, 1]


def test_what_a_stay_shares_after_the_look_back_is_no_source() -> None:
    over_midnight = Visit("index", "a", "mall", at(20, "22:00"), at(21, "03:00"), "check_out")
    visits = [
        over_midnight,
        visit("after", 21, "01:00", "02:00"),
        Visit("across", "a", "mall", at(20, "23:00"), at(21, "02:00"), "check_out"),
    ]
    index = case_of("index", 20, visits)
    others = [case_of("after", 21, visits), case_of("across", 21, visits)]
    found = sources(index.stays, index.infection, others, CATEGORIES, MIDNIGHT)
    assert found.source.tolist() == [1]
    assert found.middle_ms.tolist() == [180 * MINUTE]


def test_without_other_cases_there_is_no_source() -> None:
    index = case_of("index", 20, [visit("index", 10, "12:00", "13:00")])
    assert len(sources(index.stays, index.infection, [], CATEGORIES, MIDNIGHT).source) == 0


def outbreak() -> tuple[list[KnownCase], list[Visit]]:
    """A primary case of the 12th at a mall on the 12th, three who fell ill later, and a family of four who did not."""
    visits = [
        visit("primary", 12, "12:00", "14:00"),
        visit("x", 12, "12:30", "13:30"),
        visit("y", 12, "13:00", "15:00"),
        visit("z", 12, "13:45", "16:00"),
        visit("family", 12, "13:10", "13:20", party=4),
        visit("early", 12, "11:00", "13:00"),
    ]
    onsets = {"primary": 12, "x": 16, "y": 17, "z": 17}
    return [case_of(who, onset, visits) for who, onset in onsets.items()], visits


def test_a_cluster_is_when_enough_cases_were_there_at_once() -> None:
    cases, visits = outbreak()
    found = clusters(cases, [9, 2, 3, 4], stays_of(visits, visits), WHO, CATEGORIES)
    # Three at once, as a mall needs: primary, x and y from 13:00 to 13:30; primary, y and z from 13:45 to 14:00.
    assert found.first.tolist() == [at(12, "13:00"), at(12, "13:45")]
    assert found.last.tolist() == [at(12, "13:30"), at(12, "14:00")]
    assert found.cases.tolist() == [3, 3]
    assert found.later.tolist() == [2, 2]
    # primary, x, y and the family of four in the first ("early" left as it began); primary, y and z in the second.
    assert found.persons.tolist() == [7, 3]
    assert found.attack_rate.tolist() == [2 / 6, 2 / 2]
    assert found.onward.tolist() == [2 + 3, 3 + 4]
    assert found.member_cluster.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.member_case.tolist() == [0, 1, 2, 0, 2, 3]


def test_the_threshold_is_the_category_s() -> None:
    # Two are enough in a restaurant.
    visits = [
        visit("a", 12, "12:00", "13:00", category="restaurant"),
        visit("b", 12, "12:30", "14:00", category="restaurant"),
        visit("a", 13, "12:00", "13:00", venue="m"),
        visit("b", 13, "12:30", "14:00", venue="m"),
    ]
    cases = [case_of("a", 14, visits), case_of("b", 15, visits)]
    found = clusters(cases, [0, 0], stays_of(visits, visits), WHO, CATEGORIES)
    assert (found.venue.tolist(), found.first.tolist(), found.last.tolist()) == (
        [0],
        [at(12, "12:30")],
        [at(12, "13:00")],
    )


def test_one_who_leaves_as_another_comes_does_not_cut_a_cluster_nor_make_one() -> None:
    visits = [
        visit("a", 12, "12:00", "14:00", category="restaurant"),
        visit("b", 12, "12:00", "13:00", category="restaurant"),
        visit("c", 12, "13:00", "14:00", category="restaurant"),
        visit("b", 13, "12:00", "13:00", category="restaurant"),
        visit("c", 13, "13:00", "14:00", category="restaurant"),
    ]
    cases = [case_of(who, 15, visits) for who in "abc"]
    found = clusters(cases, [0, 0, 0], stays_of(visits, visits), WHO, CATEGORIES)
    assert (found.first.tolist(), found.last.tolist()) == ([at(12, "12:00")], [at(12, "14:00")])
    assert found.cases.tolist() == [3]


def test_several_visits_of_one_case_are_no_cluster() -> None:
    visits = [
        visit("a", 12, "12:00", "13:00", category="restaurant"),
        visit("a", 12, "12:30", "14:00", category="restaurant"),
    ]
    found = clusters([case_of("a", 14, visits)], [0], stays_of(visits, visits), WHO, CATEGORIES)
    assert len(found.first) == 0
    assert found.attack_rate.tolist() == []


def test_nobody_at_risk_has_no_attack_rate() -> None:
    visits = [visit(who, 12, "12:00", "13:00", category="restaurant") for who in "ab"]
    cases = [case_of(who, 10, visits) for who in "ab"]
    found = clusters(cases, [5, 5], stays_of(visits, visits), WHO, CATEGORIES)
    assert (found.later.tolist(), found.onward.tolist()) == ([0], [0])
    assert np.isnan(found.attack_rate).all()


@pytest.mark.parametrize("seed", range(5))
def test_clusters_do_not_depend_on_the_order_of_visits(seed: int) -> None:
    cases, visits = outbreak()
    shuffled = np.random.default_rng(seed).permutation(len(visits))
    one = clusters(cases, [9, 2, 3, 4], stays_of(visits, visits), WHO, CATEGORIES)
    other = clusters(cases, [9, 2, 3, 4], stays_of([visits[i] for i in shuffled], visits), WHO, CATEGORIES)
    for column in ("venue", "first", "last", "cases", "later", "persons", "onward"):
        assert np.array_equal(getattr(one, column), getattr(other, column))
