"""What is promised of the tilt: found where it is, told from a slower walk, and one category helps another."""

import numpy as np
import pytest

from pipeline.core.presence.grid import STEP_OF_MINUTE, STEPS
from pipeline.core.presence.tilt import NOT_FOLLOWED, Followed, Mix, tilts_of

SIGMA = 0.5


def _followed(seed: int, checked: int, others: int, tilt: float = 0.0, pace: float = 0.0) -> Followed:
    """Stays of 60 minutes and walks of 20; the others' stays have the density times stay^(tilt / SIGMA)."""
    random = np.random.default_rng(seed)

    def minutes(count: int, middle: float, sigma: float) -> np.ndarray:  # type: ignore[type-arg]
        return np.exp(middle + sigma * random.normal(0, 1, count))

    stay, walk = minutes(checked, np.log(60), SIGMA), minutes(checked, np.log(20), 0.6)
    walks = np.zeros((48, 48))
    whole = stay.astype(np.int64)
    np.add.at(walks, (STEP_OF_MINUTE[whole] // 3, STEP_OF_MINUTE[(stay + walk).astype(np.int64) - whole] // 3), 1)
    time = minutes(others, np.log(60) + tilt * SIGMA, SIGMA) + minutes(others, np.log(20) + pace, 0.6)
    unclosed = np.bincount(STEP_OF_MINUTE[np.minimum(time, 1439).astype(np.int64)], minlength=STEPS).astype(float)
    return Followed(walks, unclosed, SIGMA, Mix(0.0, 0.0, 1.0))


@pytest.mark.parametrize(("tilt", "pace"), [(0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 0.4), (1.0, 0.4)])
def test_the_tilt_is_found_as_closely_as_is_said_whatever_the_pace(tilt: float, pace: float) -> None:
    (found,) = tilts_of([_followed(1, 8000, 20_000, tilt, pace)])
    assert found.spread * SIGMA < 0.3
    assert abs(found.power * SIGMA - tilt) < 2.5 * found.spread * SIGMA
    assert found.pace == pytest.approx(pace, abs=0.3)


def test_a_category_with_few_check_outs_learns_from_the_others() -> None:
    few, many = _followed(2, 40, 700, 1.0), [_followed(seed, 6000, 20_000, 1.0) for seed in (3, 4, 5)]
    (alone,) = tilts_of([few])
    helped = tilts_of([few, *many])[0]
    assert abs(helped.power * SIGMA - 1.0) < abs(alone.power * SIGMA - 1.0)
    assert helped.spread < alone.spread


def test_a_category_with_evidence_of_its_own_is_not_talked_out_of_it() -> None:
    mine = tilts_of([_followed(6, 8000, 20_000, -1.0), *(_followed(seed, 8000, 20_000, 1.0) for seed in (7, 8))])[0]
    assert mine.power * SIGMA == pytest.approx(-1.0, abs=0.2)


def test_without_evidence_the_spread_is_what_was_believed_before() -> None:
    (found,) = tilts_of([NOT_FOLLOWED])
    assert found.power == pytest.approx(0.0, abs=1e-9)
    assert found.spread > 0.6
