"""Evidence is a sum over visits: no order, no cut of the day changes it, nor the model's version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.presence.evidence import Evidence, gather
from pipeline.core.presence.model import fit
from tests.presence import KINDS, part, visits

VENUES = 6


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.lists(st.integers(0, 300), max_size=4))
def test_evidence_and_version_depend_on_no_order_and_no_cut(seed: int, count: int, cuts: list[int]) -> None:
    day = visits(seed, count, VENUES)
    shuffled = np.random.default_rng(seed).permutation(count)
    pieces = np.split(shuffled, sorted(min(cut, count) for cut in cuts))
    whole = gather(day, 2, VENUES)
    summed = sum((gather(part(day, piece), 2, VENUES) for piece in pieces), Evidence.none(2, VENUES))
    assert summed == whole
    category = np.arange(VENUES) % 2
    assert fit({3: summed}, 4, category, KINDS).version == fit({3: whole}, 4, category, KINDS).version


def test_evidence_counts_every_visit_once() -> None:
    day = visits(1, 5000, VENUES)
    evidence = gather(day, 2, VENUES)
    assert evidence.visits.sum() == evidence.venue_visits.sum() == 5000
    assert evidence.stays.sum() == evidence.venue_stays.sum() == (day.stay >= 0).sum()
    assert evidence.unclosed.sum() == ((day.stay < 0) & (day.next_after >= 0)).sum()
    compared = (day.stay >= 0) & (day.next_after >= 0) & (day.arrival < 16 * 60)
    assert evidence.walks.sum() + evidence.inside.sum() == compared.sum()


def test_evidence_of_other_venues_does_not_add_up() -> None:
    with pytest.raises(ValueError, match="same categories and venues"):
        Evidence.none(2, 3) + Evidence.none(2, 4)
