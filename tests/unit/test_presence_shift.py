"""What a day's shift promises: short stays seen first are no shift, a longer day is found, and nothing depends on an order."""

from dataclasses import fields, replace

import numpy as np
import pytest

from pipeline.core.presence.evidence import Visits, gather
from pipeline.core.presence.model import Model, fit
from pipeline.core.presence.shift import StaysSoFar, shifted, shifts_of, stays_so_far
from tests.presence import KINDS, part, visits

VENUES = 40
CATEGORY = np.arange(VENUES) % 2


@pytest.fixture(scope="module")
def model() -> Model:
    days = {day: gather(visits(day, 12_000, VENUES), 2, VENUES) for day in range(7)}
    return fit(days, 7, CATEGORY, KINDS)


def _today(factor: float = 1.0, where: slice = slice(None)) -> Visits:
    """A day on which stays at some venues are longer by a factor."""
    day = visits(99, 12_000, VENUES)
    longer = np.isin(day.venue, np.arange(VENUES)[where]) & (day.stay >= 0)
    return replace(day, stay=np.where(longer, np.rint(factor * day.stay), day.stay).astype(np.int64))


@pytest.mark.parametrize("hour", [10, 12, 15, 20])
def test_no_shift_is_found_on_a_day_like_the_others_though_short_stays_end_first(model: Model, hour: int) -> None:
    shifts = shifts_of(model, stays_so_far(_today(), 60 * hour, VENUES))
    assert (abs(shifts.category) <= np.maximum(5, 0.25 * shifts.category_spread)).all()
    assert abs(shifts.venue).max() <= 10


@pytest.mark.parametrize("factor", [1.3, 0.75])
def test_a_day_of_longer_or_shorter_stays_is_found(model: Model, factor: float) -> None:
    shifts = shifts_of(model, stays_so_far(_today(factor), 60 * 16, VENUES))
    assert shifts.category / 100 == pytest.approx(np.log(factor), abs=0.06)


def test_a_venue_with_a_day_of_its_own_is_told_from_its_category(model: Model) -> None:
    differing = replace(model, stretch_spread=np.full_like(model.stretch_spread, 200))
    shifts = shifts_of(differing, stays_so_far(_today(1.3, slice(0, 1)), 60 * 18, VENUES))
    assert shifts.venue[0] / 100 == pytest.approx(np.log(1.3), abs=0.12)
    assert abs(np.median(shifts.venue[2::2])) <= 3
    # A day's own check-outs tell about a venue what the days before could not.
    assert (shifts.venue_spread < 150).all()


def test_a_shifted_model_stretches_its_venues_and_is_another_version(model: Model) -> None:
    longer = shifted(model, shifts_of(model, stays_so_far(_today(1.3), 60 * 18, VENUES)))
    assert longer.version != model.version
    assert np.median(longer.stretch - model.stretch) * 0.05 == pytest.approx(np.log(1.3), abs=0.06)
    assert (longer.checked == model.checked).all()


def test_before_the_first_check_out_stays_are_those_of_the_model(model: Model) -> None:
    shifts = shifts_of(model, stays_so_far(_today(), 0, VENUES))
    assert not shifts.category.any()
    assert (shifted(model, shifts).stretch == model.stretch).all()


def test_who_checks_out_later_does_not_count_yet() -> None:
    day = _today()
    now = 60 * 12
    seen = (day.stay >= 0) & (day.arrival + day.stay < now)
    assert stays_so_far(day, now, VENUES).stays.sum() == seen.sum()


def test_no_order_and_no_cut_of_the_day_changes_a_shift(model: Model) -> None:
    day, now = _today(1.1), 60 * 14
    shuffled = np.random.default_rng(1).permutation(len(day.venue))
    pieces = [stays_so_far(part(day, piece), now, VENUES) for piece in np.split(shuffled, [10, 4000])]
    whole, summed = stays_so_far(day, now, VENUES), pieces[0] + pieces[1] + pieces[2]
    assert all(np.array_equal(getattr(whole, field.name), getattr(summed, field.name)) for field in fields(StaysSoFar))
    one, other = shifts_of(model, whole), shifts_of(model, summed)
    assert shifted(model, one).version == shifted(model, other).version
