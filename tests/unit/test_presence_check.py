"""What holding a closed day against the model finds, and that it does not find what it cannot."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.presence.check import FEWEST_STAYS, Checked, check_day
from pipeline.core.presence.evidence import Visits, gather
from pipeline.core.presence.model import Kind, Model, fit
from tests.presence import DWELL, KINDS, part, visits

VENUES = 20
CATEGORY = np.arange(VENUES) % 2
#: Thresholds of the documentation.
COVERAGE, DRIFT = 0.85, 0.1


def _model(check_outs: float = 0.4, count: int = 12_000) -> Model:
    days = {day: gather(visits(day, count, VENUES, check_outs=check_outs), 2, VENUES) for day in range(7)}
    return fit(days, 7, CATEGORY, KINDS)


@pytest.fixture(scope="module")
def model() -> Model:
    return _model()


def _checked(model: Model, of: Visits, offset: int = 0) -> list[Checked]:
    return check_day(model, of, np.full(VENUES, offset))


def _coverage(found: list[Checked]) -> float:
    return sum(one.held for one in found) / sum(one.cells for one in found)


def _bias(one: Checked) -> float:
    return one.predicted / one.there - 1


def test_a_day_like_the_learned_ones_passes(model: Model) -> None:
    found = _checked(model, visits(99, 12_000, VENUES))
    assert _coverage(found) > 0.88
    for one in found:
        assert abs(_bias(one)) < 0.03
        assert one.drift is not None
        assert one.drift < DRIFT / 2
        assert one.stay_ratio == pytest.approx(1, rel=0.05)
        assert one.check_outs / one.expected_check_outs == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_longer_and_shorter_stays_are_found(model: Model, factor: float) -> None:
    day = visits(99, 12_000, VENUES)
    found = _checked(model, replace(day, stay=np.where(day.stay < 0, -1, day.stay * factor).astype(int)))
    assert _coverage(found) < COVERAGE
    for one in found:
        assert one.drift is not None
        assert one.drift > DRIFT
        assert one.stay_ratio == pytest.approx(factor, rel=0.07)
        assert (_bias(one) > 0) == (factor < 1)


def test_a_model_that_lacks_the_hour_of_arrival_is_found(model: Model) -> None:
    day = visits(99, 12_000, VENUES)
    by_hour = np.exp(0.5 * np.cos(np.pi * (day.arrival / 60 - 8) / 12))
    found = _checked(model, replace(day, stay=np.where(day.stay < 0, -1, day.stay * by_hour).astype(int)))
    assert _coverage(found) < COVERAGE


def test_fewer_check_outs_show_in_their_share_alone(model: Model) -> None:
    found = _checked(model, visits(99, 24_000, VENUES, check_outs=0.2))
    for one in found:
        assert one.check_outs / one.visits == pytest.approx(0.2, abs=0.02)
        assert one.expected_check_outs / one.visits == pytest.approx(0.4, abs=0.05)
    assert _coverage(found) > COVERAGE


def test_that_others_stay_longer_than_those_who_check_out_is_not_found() -> None:
    medians, sigmas = np.array([(dwell.median, dwell.sigma) for dwell in DWELL]).T

    def day(seed: int) -> Visits:
        every = visits(seed, 30_000, VENUES, check_outs=1.0)
        z = (np.log(every.stay + 0.5) - np.log(medians[every.category])) / sigmas[every.category]
        out = np.random.default_rng(seed + 1000).random(len(z)) < 1 / (1 + np.exp(0.8 + z))
        return replace(every, stay=np.where(out, every.stay, -1))

    blind = fit({d: gather(day(d), 2, VENUES) for d in range(7)}, 7, CATEGORY, KINDS)
    blind = replace(blind, others=blind.checked, others_low=blind.checked, others_high=blind.checked)
    assert _coverage(_checked(blind, day(99))) > 0.88


def test_local_time_shifts_nothing_but_the_blocks(model: Model) -> None:
    day = visits(99, 12_000, VENUES)
    whole = part(day, np.flatnonzero(day.arrival >= 480))
    east = _checked(model, whole, 420)
    assert _coverage(east) > 0.88
    assert [one.drift for one in east] == [one.drift for one in _checked(model, whole)]


def test_too_little_evidence_is_said_by_nothing_rather_than_by_noise(model: Model) -> None:
    few = part(visits(99, 12_000, VENUES, check_outs=1.0), np.arange(FEWEST_STAYS))
    for one in _checked(model, few):
        assert (one.cells, one.held, one.predicted, one.there) == (0, 0, 0.0, 0.0)
        assert one.drift is None
        assert one.stay_ratio is None
        assert one.visits == one.check_outs > 0


def test_a_category_without_an_estimate_is_not_judged() -> None:
    none = fit({}, 7, CATEGORY, [Kind(8), Kind(16)])
    for one in _checked(none, visits(99, 12_000, VENUES)):
        assert (one.cells, one.drift) == (0, None)
        assert one.visits > 0
