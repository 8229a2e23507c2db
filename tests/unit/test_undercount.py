"""Which venues are undercounted: far below their own pattern, and not where chance or a single odd week explains it."""

import numpy as np
import pytest

from pipeline.core.undercount import FEWEST_EXPECTED, undercounts
from pipeline.store.undercounts import closed_hour


def far(arrivals: int, *before: int) -> bool:
    found, _, _ = undercounts(np.array([arrivals]), np.array([before]))
    return bool(found[0])


def test_a_venue_whose_gate_has_failed_is_found() -> None:
    assert far(0, 40, 50)
    assert far(3, 100, 90, 110, 95)
    assert far(200, 1000, 1100, 950)


def test_chance_and_an_ordinary_bad_day_are_no_failure() -> None:
    assert not far(25, 40, 50)
    assert not far(60, 100, 90, 110, 95)
    assert not far(600, 1000, 1100, 950)


def test_one_odd_week_before_neither_raises_nor_hides_it() -> None:
    assert not far(30, 30, 900, 28)
    assert far(2, 100, 0, 110)


def test_where_few_come_nobody_is_no_surprise() -> None:
    assert not far(0, FEWEST_EXPECTED - 1, FEWEST_EXPECTED - 1)
    assert not far(0)


def test_honest_counts_are_hardly_ever_called_too_few() -> None:
    random = np.random.default_rng(20210919)
    mean = random.lognormal(4, 1, 20_000)
    weeks = random.poisson(mean[:, None] * np.exp(random.normal(0, 0.2, (20_000, 5))))
    found, _, _ = undercounts(weeks[:, 0], weeks[:, 1:])
    assert found.mean() < 0.002


@pytest.mark.parametrize(("after_the_hour", "hours_back"), [(9, 2), (10, 1), (59, 1)])
def test_an_hour_is_closed_once_slow_gates_have_had_ten_minutes(after_the_hour: int, hours_back: int) -> None:
    noon = 1_632_052_800
    assert closed_hour((noon + after_the_hour * 60) * 1000) == noon - hours_back * 3600
