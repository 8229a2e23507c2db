"""The estimate of who is really there: what its evidence, its model and its numbers promise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.core.presence.estimate import Hidden, estimate, sums, weights_of
from pipeline.core.presence.evidence import Evidence, Visits, gather
from pipeline.core.presence.model import BINS, Dwell, Kind, Model, Source, fit

KINDS = [Kind(2), Kind(8, Dwell(110, 0.6)), Kind(16)]
NOON = 12 * 60


def a_day(seed: int, visits: int = 4_000, share: float = 0.4) -> Visits:
    """Visits to two venues of category 0, lognormal around 20 minutes; whether one checks out does not depend on the stay."""
    chance = np.random.default_rng(seed)
    stay = np.exp(chance.normal(np.log(20), 0.5, visits)).astype(np.int64)
    none = np.full(visits, -1)
    out = chance.random(visits) < share
    arrival = chance.integers(9 * 60, 15 * 60, visits)
    return Visits(
        chance.integers(0, 2, visits), np.zeros(visits, np.int64), arrival, np.where(out, stay, -1), none, none
    )


def part(visits: Visits, rows: NDArray[np.intp]) -> Visits:
    return Visits(*(getattr(visits, name)[rows] for name in Visits.__slots__))


def fitted(*days: Evidence) -> Model:
    return fit(dict(enumerate(days)), len(days), np.array([0, 0, 1, 2]), KINDS)


def evidence_of(visits: Visits) -> Evidence:
    return gather(visits, len(KINDS), 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(60)), st.integers(0, 60))
def test_evidence_does_not_depend_on_order_or_slices(seed: int, order: list[int], cut: int) -> None:
    visits = a_day(seed, 60)
    rows = np.array(order)
    sliced = evidence_of(part(visits, rows[:cut])) + evidence_of(part(visits, rows[cut:]))
    assert sliced == evidence_of(visits)


def test_the_same_evidence_gives_the_same_version_and_other_evidence_another() -> None:
    one, other = evidence_of(a_day(1)), evidence_of(a_day(2))
    assert fitted(one, other).version == fitted(one, other).version
    assert fitted(one, other).version != fitted(other, one).version


def test_too_little_evidence_gives_no_estimate_or_an_assumed_one_and_says_so() -> None:
    model = fitted(evidence_of(a_day(1)))
    assert [Source(source) for source in model.source] == [Source.LEARNED, Source.ASSUMED, Source.NONE]
    assert model.reasons[0] == ""
    assert "assumed, median 110 min" in model.reasons[1]
    assert "0 check-outs in 28 days, 50 needed" in model.reasons[2]
    zeros = np.zeros((4, BINS), np.int32)
    found = estimate(model, sums(model, weights_of(model), zeros, zeros, np.zeros(4, np.int64), NOON), Hidden())
    assert found.expected.tolist() == [0, 0, 0, -1]


def test_someone_who_came_just_now_is_there_and_the_longer_ago_the_less_likely() -> None:
    model = fitted(evidence_of(a_day(1)))
    weights = weights_of(model)
    present = []
    for ago in range(0, BINS * 2 - 2, 2):
        persons = np.zeros((4, BINS), np.int32)
        persons[0, (NOON - ago) // 2 % BINS] = 1
        present.append(
            estimate(model, sums(model, weights, persons, persons, np.zeros(4, np.int64), NOON), Hidden()).expected[0]
        )
    assert present[0] > 0.99
    # Where the block of arrivals changes, another curve goes on, which may stand a little higher.
    assert np.all(np.diff(present) < 0.02)
    assert present[-1] < 0.05


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_where_checking_out_says_nothing_of_the_stay_the_estimate_is_right_and_covers_the_truth(share: float) -> None:
    model = fitted(*(evidence_of(a_day(seed, share=share)) for seed in range(5)))
    weights = weights_of(model)
    errors, covered, counted = [], 0, 0
    days = 40
    for seed in range(100, 100 + days):
        chance = np.random.default_rng(seed)
        arrival = chance.integers(9 * 60, 15 * 60, 4_000)
        stay = np.exp(chance.normal(np.log(20), 0.5, 4_000))
        left = arrival + chance.random(4_000) + stay
        out = chance.random(4_000) < share
        now = NOON + 1
        here = (arrival < now) & (left > now)
        still_open = (arrival < now) & ~(out & (left <= now)) & (now - 1 - arrival < 2 * (BINS - 1))
        persons = np.zeros((4, BINS), np.int32)
        np.add.at(persons, (0, arrival[still_open] // 2 % BINS), 1)
        found = estimate(model, sums(model, weights, persons, persons, np.zeros(4, np.int64), NOON), Hidden())
        errors.append(found.expected[0] / here.sum() - 1)
        covered += bool(found.low[0] <= here.sum() <= found.high[0])
        counted += int(((arrival < now) & ~(out & (left <= now))).sum() > 1.5 * here.sum())
    assert abs(np.mean(errors)) < 0.05
    assert covered >= 0.8 * days
    assert counted == days, "counting everybody who is open would be far too many"


def test_hidden_people_are_added_and_widen_the_interval() -> None:
    model = fitted(evidence_of(a_day(1)))
    persons = np.zeros((4, BINS), np.int32)
    persons[0, NOON // 2 % BINS] = 40
    summed = sums(model, weights_of(model), persons, persons, np.zeros(4, np.int64), NOON)
    plain, more = estimate(model, summed, Hidden()), estimate(model, summed, replace(Hidden(), mean=1.2, square=1.4))
    assert more.expected[0] == pytest.approx(1.2 * plain.expected[0])
    assert more.high[0] - more.low[0] >= plain.high[0] - plain.low[0]


def test_venues_in_several_shards_get_the_same_sums() -> None:
    model = fitted(evidence_of(a_day(1)))
    chance = np.random.default_rng(9)
    persons = chance.integers(0, 30, (4, BINS)).astype(np.int32)
    squares = (persons * 2).astype(np.int32)
    offset = np.array([420, 480, 420, 540])
    whole = sums(model, weights_of(model), persons, squares, offset, NOON)
    names = ("category", "stretch", "odds", "stretch_spread", "odds_spread")
    for venue in range(4):
        alone = replace(model, **{name: getattr(model, name)[venue : venue + 1] for name in names})
        assert np.array_equal(
            sums(alone, weights_of(model), persons[[venue]], squares[[venue]], offset[[venue]], NOON)[0], whole[venue]
        )
