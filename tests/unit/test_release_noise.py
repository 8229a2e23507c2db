"""The noise of a release: as much as its ε asks for, never for more than a day's budget."""

import math

import pytest

from pipeline.release.private import CELLS, draw


def test_the_noise_is_what_epsilon_and_four_cells_ask_for() -> None:
    drawn = draw([100] * 20_000, 0.5)
    assert drawn.scale == pytest.approx(CELLS / 0.5)
    # Of discrete Laplace noise of scale s a share of tanh(1/2s) is 0; six standard deviations either way.
    share, wanted = sum(count == 100 for count in drawn.counts) / 20_000, math.tanh(1 / (2 * drawn.scale))
    assert share == pytest.approx(wanted, abs=6 * math.sqrt(wanted / 20_000))
    assert draw([100] * 50, 0.5).counts != drawn.counts[:50]


@pytest.mark.parametrize("epsilon", [0.1, 0.35, 0.5, 1.0])
def test_no_more_is_spent_than_asked_for(epsilon: float) -> None:
    drawn = draw([0, 1, 2], epsilon)
    assert 0.999 * epsilon < drawn.epsilon <= epsilon
    assert len(drawn.counts) == 3


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 1.01, math.nan, math.inf])
def test_more_than_a_day_allows_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon must be"):
        draw([1], epsilon)
