"""What an estimate promises: exact sums, probabilities, and intervals that hold."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.presence.estimate import PERSONS, Hidden, bin_of, estimate, sums, weights_of
from pipeline.core.presence.evidence import Visits, gather
from pipeline.core.presence.grid import BLOCK_OF_MINUTE
from pipeline.core.presence.model import BINS, Kind, Model, Source, fit
from tests.presence import KINDS, part, visits, weight

VENUES = 40
CATEGORY = np.arange(VENUES) % 2
UTC = np.zeros(VENUES, np.int64)
EVERYBODY = Hidden(spread=0.0)


def _model(check_outs: float) -> Model:
    days = {day: gather(visits(day, 12_000, VENUES, check_outs=check_outs), 2, VENUES) for day in range(7)}
    return fit(days, 7, CATEGORY, KINDS)


@pytest.fixture(scope="module")
def model() -> Model:
    return _model(0.4)


def _open(model: Model, of: Visits, minute: int) -> np.ndarray:  # type: ignore[type-arg]
    """Open visits of one person each, at the end of a minute."""
    still = part(of, np.flatnonzero((of.arrival <= minute) & ((of.stay < 0) | (of.arrival + of.stay > minute))))
    width = model.bin_minutes.astype(np.int64)[still.category]
    still = part(still, np.flatnonzero(still.arrival // width > minute // width - BINS))
    out = np.zeros((VENUES, BINS), np.int32)
    np.add.at(out, (still.venue, bin_of(still.arrival, model.bin_minutes[still.category])), 1)
    return out


def test_weights_are_probabilities(model: Model) -> None:
    here = weights_of(model).here
    assert here.dtype == np.uint16  # 65535 is one
    assert (here[:, :, :22] == 65_535).all(), "who has just come is there"


def test_weights_fall_with_the_age(model: Model) -> None:
    assert (np.diff(weights_of(model).here.astype(int), axis=2) <= 0).all()


def test_the_kernel_computes_the_formula(model: Model) -> None:
    random = np.random.default_rng(1)
    persons = random.integers(0, 5, (VENUES, BINS))
    offset, minute = np.full(VENUES, 420), 20_000_123
    found = sums(model, weights_of(model), persons, persons**2, offset, minute)
    for venue in (0, 1, 17):
        width = int(model.bin_minutes[model.category[venue]])
        newest = minute // width
        expected = 0.0
        for back in range(BINS):
            start = (newest - back) * width
            end = min(start + width, minute + 1)
            block = BLOCK_OF_MINUTE[(start + 420) % 1440]
            age = minute + 1 - (start + end) / 2
            expected += persons[venue, (newest - back) % BINS] * weight(model, venue, block, age)
        assert found[venue, PERSONS] / 65_535 == pytest.approx(expected, abs=0.01)


def test_sums_are_the_same_in_shards_and_in_any_width_of_integer(model: Model) -> None:
    random = np.random.default_rng(2)
    persons = random.integers(0, 9, (VENUES, BINS))
    weights = weights_of(model)
    whole = sums(model, weights, persons, persons**2, UTC, 5000)
    first, second = persons.copy(), persons.copy()
    cut = random.random(persons.shape) < 0.5
    first[cut], second[~cut] = 0, 0
    halves = [
        sums(model, weights, half.astype(np.int32), half.astype(np.int32) ** 2, UTC, 5000) for half in (first, second)
    ]
    assert np.array_equal(whole, halves[0] + halves[1])


def test_where_everybody_checks_out_the_estimate_is_the_count() -> None:
    model = _model(1.0)
    today = visits(99, 12_000, VENUES, check_outs=1.0)
    for minute in (600, 900, 1200):
        persons = _open(model, today, minute)
        found = estimate(model, sums(model, weights_of(model), persons, persons, UTC, minute), EVERYBODY)
        assert found.expected == pytest.approx(persons.sum(axis=1), rel=0.01, abs=0.3)


def test_intervals_hold_nine_times_in_ten_when_the_assumptions_do(model: Model) -> None:
    held, bias, there = [], 0.0, 0.0
    for seed in range(50, 56):
        today = visits(seed, 12_000, VENUES, check_outs=1.0)
        scanned = np.random.default_rng(seed + 1000).random(len(today.venue)) < 0.4
        partly = replace(today, stay=np.where(scanned, today.stay, -1))
        for minute in (700, 900, 1100):
            truth = _open(model, today, minute).sum(axis=1)
            persons = _open(model, partly, minute)
            found = estimate(model, sums(model, weights_of(model), persons, persons, UTC, minute), EVERYBODY)
            held.append((found.low <= truth) & (truth <= found.high))
            bias += (found.expected - truth).sum()
            there += truth.sum()
    assert 0.87 <= np.mean(held) <= 0.99
    assert abs(bias / there) < 0.03


def test_hidden_people_widen_the_interval_and_raise_the_estimate(model: Model) -> None:
    persons = np.full((VENUES, BINS), 3)
    summed = sums(model, weights_of(model), persons, persons, UTC, 900)
    plain, hidden = estimate(model, summed, EVERYBODY), estimate(model, summed, Hidden(1 / 0.9, 1.22, 1.06))
    assert hidden.expected == pytest.approx(plain.expected / 0.9)
    assert (hidden.high - hidden.low > plain.high - plain.low).all()


def test_a_category_without_a_model_has_no_estimate() -> None:
    model = fit({}, 7, CATEGORY, [Kind(8), Kind(16)])
    persons = np.ones((VENUES, BINS), np.int32)
    found = estimate(model, sums(model, weights_of(model), persons, persons, UTC, 900), EVERYBODY)
    assert (model.source == Source.NONE).all()
    assert (found.expected == -1).all()
    assert (found.low == -1).all()
    assert (found.high == -1).all()
