"""The probability of a crowd, and an estimate as people read it."""

from math import ceil

import numpy as np
import pytest

from pipeline.core.presence.crowding import probability_over
from pipeline.core.presence.words import shown


@pytest.mark.parametrize(("expected", "deviation"), [(100.0, 12.0), (30.0, 5.0), (250.0, 8.0)])
@pytest.mark.parametrize("z", [-2.0, -0.5, 0.0, 0.5, 2.0])
def test_it_is_how_often_drawn_numbers_are_over(expected: float, deviation: float, z: float) -> None:
    capacity = round(expected - z * deviation)
    drawn = np.rint(np.random.default_rng(1).normal(expected, deviation, 200_000))
    found = probability_over(expected, expected + 1.645 * deviation, capacity)
    assert found == pytest.approx((drawn > capacity).mean(), abs=0.005)


def test_a_rounded_interval_errs_to_the_high_side_for_the_unlikely() -> None:
    assert probability_over(100, ceil(100 + 1.645 * 12), 125) >= probability_over(100, 100 + 1.645 * 12, 125)


def test_it_falls_with_the_capacity() -> None:
    found = [probability_over(80, 95, capacity) for capacity in range(40, 120)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.999
    assert found[-1] < 0.001


def test_a_number_known_exactly_is_over_or_not() -> None:
    assert [probability_over(10, 10, capacity) for capacity in (8, 9, 10, 11)] == [1, 1, 0, 0]


def test_more_than_the_upper_end_are_there_once_in_twenty() -> None:
    assert probability_over(140, 162.5, 162) == pytest.approx(0.05, abs=0.002)


def test_an_interval_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match="upper end"):
        probability_over(10, 9, 5)


def test_counted_and_expected_stand_side_by_side() -> None:
    said = shown(1212, 140.4, 118, 162, 0.314, "2021-09-18-1f0c")
    assert said == "Counted 1,212 · expected 140 (118–162) · 31% check out · model 2021-09-18-1f0c"


def test_below_twenty_only_the_range_is_shown() -> None:
    assert shown(30, 19.9, 12, 28, 0.3, "m") == "Counted 30 · expected 12–28 · 30% check out · model m"
