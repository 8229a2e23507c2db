"""What head counts tell of hidden people: found, robust against broken counters, never guessed from few."""

import numpy as np
import pytest

from pipeline.core.presence.calibration import (
    FEWEST_COUNTS,
    FEWEST_VENUES,
    LEAST_EXPECTED,
    Calibration,
    HeadCounts,
    Hidden,
    calibrate,
    from_thousandths,
    hidden_of,
    thousandths,
)
from pipeline.core.presence.estimate import estimate, sums, weights_of
from pipeline.core.presence.model import Kind, calibrated, fit
from tests.presence import DWELL, KINDS


def _counts(factor: float, *, venues: int = 12, each: int = 20, between: float = 0.0, seed: int = 1) -> HeadCounts:
    """Poisson counts at venues of one category, around the expected people times the factor."""
    random = np.random.default_rng(seed)
    venue = np.repeat(np.arange(venues), each)
    expected = random.uniform(20, 200, len(venue))
    of_venue = factor * np.exp(random.normal(0, between, venues))
    counted = random.poisson(of_venue[venue] * expected)
    return HeadCounts(np.zeros_like(venue), venue, counted, expected, 0.05 * expected, 1.8 * expected)


def _learned(head: HeadCounts) -> Hidden:
    (found,) = calibrate(head, 1)
    assert found.hidden is not None
    return found.hidden


def _rows(head: HeadCounts, rows: np.ndarray) -> HeadCounts:  # type: ignore[type-arg]
    return HeadCounts(*(getattr(head, name)[rows] for name in HeadCounts.__slots__))


@pytest.mark.parametrize("factor", [0.8, 1.0, 1 / 0.9, 1.5])
def test_the_factor_is_found_again(factor: float) -> None:
    assert _learned(_counts(factor)).mean == pytest.approx(factor, rel=0.02)


def test_two_broken_counters_of_twelve_move_it_by_little() -> None:
    head = _counts(1.1)
    counted = head.counted.copy()
    counted[head.venue == 3] = 0
    counted[head.venue == 7] *= 4
    broken = HeadCounts(head.category, head.venue, counted, head.expected, head.deviation, head.squares)
    assert _learned(broken).mean == pytest.approx(1.1, rel=0.05)


def test_one_absurd_count_of_a_venue_does_not_move_it() -> None:
    head = _counts(1.1, venues=3)
    counted = head.counted.copy()
    counted[5] = 100_000
    odd = HeadCounts(head.category, head.venue, counted, head.expected, head.deviation, head.squares)
    assert _learned(odd).mean == pytest.approx(_learned(head).mean, rel=0.03)


def test_the_less_is_known_the_nearer_to_one() -> None:
    vague = _counts(1.5, venues=3)
    vague = HeadCounts(vague.category, vague.venue, vague.counted, vague.expected, vague.expected * 0.5, vague.squares)
    assert 1.0 < _learned(vague).mean < _learned(_counts(1.5, venues=3)).mean < 1.52


def test_twenty_counts_at_three_venues_are_needed_and_enough() -> None:
    head = _counts(1.2, venues=FEWEST_VENUES, each=FEWEST_COUNTS)
    enough = _rows(head, np.linspace(0, len(head.venue) - 1, FEWEST_COUNTS).astype(int))
    assert _learned(enough).mean > 1.1
    assert calibrate(_rows(enough, np.arange(FEWEST_COUNTS - 1)), 1) == [Calibration(None, FEWEST_COUNTS - 1, 3)]
    assert calibrate(_rows(head, np.flatnonzero(head.venue < 2)), 1) == [Calibration(None, 2 * FEWEST_COUNTS, 2)]


def test_counts_where_few_are_expected_are_left_out_and_the_others_decide() -> None:
    head = _counts(1.2)
    few = HeadCounts(
        np.zeros(500, int),
        np.arange(500),
        np.full(500, 9.0),
        np.full(500, LEAST_EXPECTED - 0.1),
        np.ones(500),
        np.ones(500),
    )
    both = HeadCounts(*(np.concatenate([getattr(head, n), getattr(few, n)]) for n in HeadCounts.__slots__))
    assert calibrate(both, 1) == calibrate(head, 1)


def test_categories_are_calibrated_apart() -> None:
    one, other = _counts(1.3), _counts(0.9, seed=2)
    both = HeadCounts(
        np.repeat([0, 2], len(one.venue)),
        *(np.concatenate([getattr(one, n), getattr(other, n)]) for n in HeadCounts.__slots__[1:]),
    )
    found = calibrate(both, 3)
    assert [round(c.hidden.mean, 1) if c.hidden else None for c in found] == [1.3, None, 0.9]


def test_venues_that_differ_widen_the_spread() -> None:
    alike, differ = (_learned(_counts(1.2, venues=30, between=between)).spread for between in (0.0, 0.3))
    assert alike < 0.05
    assert 0.2 < differ < 0.45


def test_the_moments_are_those_of_people_who_bring_others_along() -> None:
    random = np.random.default_rng(3)
    named = random.choice([1, 2, 3, 4], 400_000, p=[0.6, 0.22, 0.1, 0.08])
    for mean, people in ((1.25, named + random.poisson(0.25 * named)), (0.8, random.binomial(named, 0.8))):
        hidden = hidden_of(mean, 0.0, named.sum() / (named**2).sum())
        assert hidden.square == pytest.approx((people**2).sum() / (named**2).sum(), rel=0.01)
        assert hidden.product == pytest.approx((people * named).sum() / (named**2).sum(), rel=0.01)


def test_a_calibrated_model_is_another_version_and_estimates_by_category() -> None:
    category = np.array([0, 1, 1])
    kinds = [Kind(kind.bin_minutes, dwell) for kind, dwell in zip(KINDS, DWELL, strict=True)]
    plain = fit({}, 7, category, kinds)
    assert calibrated(plain, [Hidden(), Hidden()]).version == plain.version
    more = calibrated(plain, [Hidden(1.2, 1.6, 1.2, 0.05), Hidden()])
    assert more.version != plain.version
    persons = np.full((3, 64), 2)
    utc = np.zeros(3, np.int64)
    before, after = (
        estimate(model, sums(model, weights_of(model), persons, 2 * persons, utc, 900)) for model in (plain, more)
    )
    assert after.expected / before.expected == pytest.approx([1.2, 1.0, 1.0])
    assert after.high[0] - after.low[0] > 1.2 * (before.high[0] - before.low[0])


def test_factors_come_back_from_a_model_to_the_thousandth() -> None:
    hidden = Hidden(1.111, 1.29, 1.111, 0.04)
    assert [from_thousandths(row) for row in thousandths([Hidden(), hidden])] == [Hidden(), hidden]
