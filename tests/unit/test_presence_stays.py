"""What is promised of stays before a model is made of them: smooth, whole, and what closing ended told from what people chose."""

import numpy as np
import pytest

from pipeline.core.presence.closing import stays_of
from pipeline.core.presence.grid import BLOCK_STARTS, BLOCKS, CENTRES, EDGES, STEP_OF_MINUTE, STEPS
from pipeline.core.presence.smoothing import smooth_density, spread_minutes

MEDIAN, SIGMA, CLOSES = 110.0, 0.6, 22 * 60
MIDDLES = CENTRES.reshape(48, 3).mean(axis=1)


def _counts(seed: int, visits: int) -> np.ndarray:  # type: ignore[type-arg]
    """Stays by block of visits between 9 and 22 h that closing ends at 22 h."""
    random = np.random.default_rng(seed)
    arrival = random.uniform(9 * 60, CLOSES, visits)
    stay = np.minimum(MEDIAN * np.exp(SIGMA * random.normal(0, 1, visits)), CLOSES - arrival)
    block = np.searchsorted(BLOCK_STARTS, arrival, "right") - 1
    counts = np.zeros((BLOCKS, STEPS))
    np.add.at(counts, (block, STEP_OF_MINUTE[stay.astype(np.int64)]), 1)
    return counts


def test_a_smooth_density_keeps_mean_and_spread_and_rules_nothing_out() -> None:
    sample = np.random.default_rng(1).normal(4.0, 0.5, 400)
    counts = np.bincount((sample / 0.15).astype(int), minlength=48).astype(float)
    density = smooth_density(counts)
    assert density.sum() == pytest.approx(1)
    assert density.min() > 0
    mean = counts @ MIDDLES / 400
    assert density @ MIDDLES == pytest.approx(mean, abs=0.01)
    assert density @ (MIDDLES - mean) ** 2 == pytest.approx(counts @ (MIDDLES - mean) ** 2 / 400, rel=0.05)
    # Nobody of 400 stayed so long; of a lognormal's, one in 30,000 does.
    assert density[MIDDLES > 6.0].sum() == pytest.approx(3e-5, rel=0.95)


def test_spreading_whole_minutes_loses_nobody_and_leaves_no_holes() -> None:
    counts = np.bincount(STEP_OF_MINUTE[np.arange(1, 200)], minlength=STEPS).astype(float)
    spread = spread_minutes(counts)
    assert spread.sum() == pytest.approx(199)
    assert (spread[1 : STEP_OF_MINUTE[190]] > 0).all()


@pytest.mark.parametrize("slope", [-1.0, 1.0])
@pytest.mark.parametrize("hour", [19, 20, 21])
def test_a_stay_that_closing_ended_counts_for_what_it_would_have_been(hour: int, slope: float) -> None:
    longer = 1 - np.cumsum(stays_of(_counts(2, 60_000)).tilted(slope / SIGMA)[BLOCK_STARTS.index(60 * hour)])
    # Weighed by stay^power, a lognormal is the same with another median; closing ends those stays alike.
    random = np.random.default_rng(3)
    arrival = random.uniform(60 * hour, 60 * hour + 60, 200_000)
    stay = np.minimum(MEDIAN * np.exp(slope * SIGMA + SIGMA * random.normal(0, 1, 200_000)), CLOSES - arrival)
    for age in (20, 40, 60, 90):
        step = int(np.searchsorted(EDGES, np.log(age)))
        assert longer[step - 1] == pytest.approx((stay > np.exp(EDGES[step])).mean(), abs=0.035)


def test_where_nothing_closes_next_to_nothing_is_taken_for_closing() -> None:
    stays = stays_of(_counts(4, 60_000))
    afternoon = BLOCK_STARTS.index(12 * 60)
    assert stays.closed[afternoon] @ stays.seen[afternoon] < 0.03


def test_a_category_visited_at_night_only_has_curves_too() -> None:
    counts = np.zeros((BLOCKS, STEPS))
    counts[-1, 60:80] = 5
    stays = stays_of(counts)
    assert np.isfinite(stays.tilted(2.0)).all()
    assert stays.tilted(2.0).sum(axis=1) == pytest.approx(np.ones(BLOCKS))
