"""Contact windows are those of a count of every pair of persons."""

import random
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.tracing.contact import ContactWindows, contact_windows
from tests.reference_tracing import MINUTE, Visit
from tests.tracing import stays_of

HOUR = 60 * MINUTE
START = 1_632_009_600_000


def by_pairs(visits: list[Visit], window: int, width: int, minimum: int) -> dict[str, tuple[int, int, int]]:
    """By venue: persons, contact in ms, pairs: every person of every party on their own."""
    rows = {}
    for venue in {visit.venue for visit in visits}:
        stays = [
            (visit.visitor, visit.party, max(visit.start, window), min(visit.left, window + width))
            for visit in visits
            if visit.venue == venue and visit.start < visit.left
        ]
        stays = [stay for stay in stays if stay[2] < stay[3]]
        persons = {(who, i) for who, party, _, _ in stays for i in range(party)}
        there = [((who, i), start, end) for who, party, start, end in stays for i in range(party)]
        contact = 0
        met = set()
        for (one, start, end), (other, begin, until) in combinations(there, 2):
            together = min(end, until) - max(start, begin)
            if one != other and together > 0:
                contact += together
                if together >= minimum:
                    met.add(frozenset((one, other)))
        if persons:
            rows[venue] = (len(persons), contact, len(met))
    return rows


def by_venue(found: ContactWindows, names: list[Visit]) -> dict[int, dict[str, tuple[int, int, int]]]:
    venues = list(dict.fromkeys(visit.venue for visit in names))
    rows: dict[int, dict[str, tuple[int, int, int]]] = {}
    for venue, start, *counts in zip(
        found.venue, found.start, found.persons, found.contact_ms, found.pairs, strict=True
    ):
        rows.setdefault(int(start), {})[venues[venue]] = tuple(int(count) for count in counts)  # type: ignore[assignment]
    return rows


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5 * MINUTE, 15 * MINUTE]), st.booleans())
def test_windows_are_those_of_every_pair_counted(seed: int, minimum: int, hours: bool) -> None:
    rng = random.Random(seed)
    visits = []
    for who in range(rng.randint(0, 9)):
        # A party keeps its size; the stays of one pseudonym at one venue never overlap.
        party = rng.choice([1, 1, 2, 4])
        for venue in rng.sample(["a", "b"], rng.randint(1, 2)):
            left = START + rng.randrange(0, 3 * HOUR, 5 * MINUTE)
            for _ in range(rng.randint(1, 3)):
                start = left + rng.choice([0, 1, 5 * MINUTE, 20 * MINUTE])
                left = start + rng.choice([0, 1, 5, 10, 15, 45, 150]) * MINUTE
                visits.append(Visit(f"p{who}", venue, "mall", start, left, "check_out", party))
    width = HOUR if hours else 15 * MINUTE
    starts = np.arange(START - HOUR, START + 8 * HOUR, HOUR if hours else 5 * MINUTE)
    rng.shuffle(visits)
    found = by_venue(contact_windows(stays_of(visits, visits), starts, width, minimum), visits)
    for start in starts.tolist():
        assert found.get(start, {}) == by_pairs(visits, start, width, minimum)


def test_mixing_is_the_share_of_possible_pairs() -> None:
    visits = [
        Visit("a", "v", "mall", START, START + 30 * MINUTE, "check_out"),
        Visit("b", "v", "mall", START + 15 * MINUTE, START + 60 * MINUTE, "check_out"),
        Visit("family", "v", "mall", START + 40 * MINUTE, START + 60 * MINUTE, "check_out", 2),
    ]
    found = contact_windows(stays_of(visits, visits), np.array([START]), HOUR, 15 * MINUTE)
    # a and b for exactly 15 minutes; b with both of the family; the family with each other: 4 of 6 pairs.
    assert (found.persons.tolist(), found.pairs.tolist(), found.mixing_rate.tolist()) == ([4], [4], [4 / 6])
    # 15 + 20 + 20 + 20 person-pair minutes.
    assert found.contact_ms.tolist() == [75 * MINUTE]


def test_one_person_alone_has_no_mixing_rate() -> None:
    visits = [Visit("a", "v", "mall", START, START + HOUR, "check_out")]
    found = contact_windows(stays_of(visits, visits), np.array([START]), HOUR, MINUTE)
    assert np.isnan(found.mixing_rate).tolist() == [True]
