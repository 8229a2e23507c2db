"""What a model promises: a version, a reason where there is no estimate, and curves that are probabilities."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.presence.evidence import Evidence, gather
from pipeline.core.presence.model import DAYS, FEWEST_CHECK_OUTS, Dwell, Kind, Model, Source, bin_minutes_of, fit
from tests.presence import DWELL, KINDS, part, visits

VENUES = 10
CATEGORY = np.arange(VENUES) % 2


def _days(check_outs: float = 0.4, count: int = 4000) -> dict[int, Evidence]:
    return {day: gather(visits(day, count, VENUES, check_outs=check_outs), 2, VENUES) for day in range(100, 107)}


@pytest.fixture(scope="module")
def model() -> Model:
    return fit(_days(), 107, CATEGORY, KINDS)


def test_the_same_evidence_gives_the_same_version_in_any_order_of_days(model: Model) -> None:
    assert fit(dict(reversed(_days().items())), 107, CATEGORY, KINDS).version == model.version


def test_other_evidence_gives_another_version(model: Model) -> None:
    assert fit(_days(count=4001), 107, CATEGORY, KINDS).version != model.version


def test_today_and_days_too_long_ago_do_not_count(model: Model) -> None:
    outside = gather(visits(1, 4000, VENUES), 2, VENUES)
    days = _days() | {107: outside, 107 - DAYS - 1: outside}
    assert fit(days, 107, CATEGORY, KINDS).version == model.version


def test_without_evidence_there_is_no_estimate_but_a_reason() -> None:
    model = fit({}, 107, CATEGORY, KINDS)
    assert list(model.source) == [Source.NONE, Source.NONE]
    assert model.reasons[0] == "0 check-outs in 28 days, 50 needed"


def test_fifty_check_outs_are_needed_and_enough() -> None:
    many = visits(3, 1000, 1, check_outs=1.0)
    for count, source in ((FEWEST_CHECK_OUTS - 1, Source.NONE), (FEWEST_CHECK_OUTS, Source.LEARNED)):
        few = part(many, np.arange(count))
        assert fit({1: gather(few, 2, VENUES)}, 2, CATEGORY, KINDS).source[0] == source


def test_an_assumed_dwell_is_marked_as_such() -> None:
    model = fit({}, 107, CATEGORY, [Kind(8, Dwell(60, 0.5)), Kind(16)])
    assert list(model.source) == [Source.ASSUMED, Source.NONE]
    assert "assumed, median 60 min" in model.reasons[0]
    half = np.searchsorted(-model.checked[0, 0].astype(int), -65_535 // 2)
    assert np.exp(0.05 * half) == pytest.approx(60, rel=0.05)


def test_curves_fall_from_one_with_the_age(model: Model) -> None:
    for curve in (model.checked, model.others, model.others_low, model.others_high):
        assert (curve[:, :, 0] == 65_535).all()
        assert (np.diff(curve.astype(int), axis=2) <= 0).all()


def test_a_median_stay_is_found_again(model: Model) -> None:
    for c, dwell in enumerate(DWELL):
        half = np.searchsorted(-model.checked[c, 4].astype(int), -65_535 // 2)
        assert np.exp(0.05 * half) == pytest.approx(dwell.median, rel=0.1)


def test_no_tilt_is_found_where_there_is_none(model: Model) -> None:
    for c, dwell in enumerate(DWELL):
        assert abs(model.tilt[c] / 1000 * dwell.sigma) < 0.4


@pytest.mark.parametrize("slope", [-1.0, 1.0])
def test_it_is_learned_when_long_stays_check_out_less_or_more(slope: float) -> None:
    medians, sigmas = np.array([(dwell.median, dwell.sigma) for dwell in DWELL]).T

    def day(seed: int) -> Evidence:
        some = visits(seed, 20_000, VENUES, check_outs=1.0)
        z = (np.log(some.stay + 0.5) - np.log(medians[some.category])) / sigmas[some.category]
        out = np.random.default_rng(seed + 1000).random(len(z)) < 1 / (1 + np.exp(0.8 - slope * z))
        return gather(replace(some, stay=np.where(out, some.stay, -1)), 2, VENUES)

    tilted = fit({d: day(d) for d in range(7)}, 7, CATEGORY, KINDS)
    # The others' odds of not checking out are the stay to the power of −slope ÷ sigma; a slower pace may take a part of it.
    assert 0.8 <= tilted.tilt[0] / 1000 / (-slope) <= 2.6


def test_a_category_whose_people_check_in_elsewhere_while_there_is_not_closed_by_that() -> None:
    some = visits(5, 20_000, VENUES, check_outs=1.0)
    inside = (some.category == 1) & (some.next_category == 0)
    next_after = np.where(inside, some.stay // 2, some.next_after)
    closes = fit({1: gather(replace(some, next_after=next_after), 2, VENUES)}, 2, CATEGORY, KINDS).closes
    assert closes.tolist() == [[1, 1], [0, 1]]


def test_bins_are_as_narrow_as_the_stays_allow() -> None:
    assert [bin_minutes_of(Dwell(*d)) for d in ((12, 0.6), (60, 0.3), (60, 0.5), (480, 0.2))] == [2, 4, 8, 16]
