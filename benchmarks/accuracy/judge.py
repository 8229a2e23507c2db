"""One world judged: the estimator and the baselines against the people truly present, cell by cell."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from benchmarks.accuracy.scenario import Day, Flags, Floats, Integers, Scenario, World
from pipeline.core.presence.estimate import Weights, estimate, sums, weights_of
from pipeline.core.presence.evidence import gather
from pipeline.core.presence.model import BINS, ONE, Dwell, Kind, Model, bin_minutes_of, fit
from pipeline.core.presence.shift import shifted, shifts_of, stays_so_far
from pipeline.simulate.facts import CATEGORIES

LEARNED_DAYS: Final = 7
#: Local full hours at which people are counted; cells with fewer truly present are left out.
HOURS: Final = range(7, 23)
FEWEST_PRESENT: Final = 20

ESTIMATOR: Final = "estimator"
NIGHTLY: Final = "… not shifted by day"
MOVED_ON: Final = "… with moved-on live"
FIXED: Final = "fixed 4 h"
MAX_STAY: Final = "max stay"
TUNED: Final = "best expiry"
FLOOR: Final = "floor"
METHODS: Final = (ESTIMATOR, NIGHTLY, MOVED_ON, FIXED, MAX_STAY, TUNED, FLOOR)
_LEARNED: Final = (ESTIMATOR, NIGHTLY, MOVED_ON)
#: Factors of a category's median stay among which the best expiry is sought.
_FACTORS: Final = np.geomspace(0.4, 6.0, 36)

_KINDS: Final = [
    Kind(bin_minutes_of(dwell), dwell) for dwell in (Dwell(one.dwell_median, one.dwell_sigma) for one in CATEGORIES)
]


@dataclass(frozen=True, slots=True)
class Cells:
    """What was there and what each method says, by venue and hour; all of equal length."""

    truth: Floats
    category: Integers
    hour: Integers
    said: dict[str, Floats]
    #: Whether the interval holds the truth, of the methods that have one.
    covered: dict[str, Flags]


def judge(scenario: Scenario, seed: int) -> Cells:
    """Learn seven closed days, estimate the eighth."""
    world = World(scenario, seed)
    days = {number: world.day(tested=False) for number in range(LEARNED_DAYS)}
    evidence = {number: gather(day.visits(), len(CATEGORIES), len(world.category)) for number, day in days.items()}
    moved_on = fit(evidence, LEARNED_DAYS, world.category, _KINDS, moved_on=True)
    # What `fit` gives without moved-on, at half the cost.
    nightly = replace(moved_on, open_others=np.full_like(moved_on.open_others, ONE))
    # A shift moves venues along the curves: the weights stay.
    weights, moved_on_weights = weights_of(nightly), weights_of(moved_on)
    stays = [
        np.concatenate([d.stay[d.checks_out & (d.category == c)] for d in days.values()])
        for c in range(len(CATEGORIES))
    ]
    max_stay = np.array([np.quantile(some, 0.95) for some in stays])
    median = np.array([np.median(some) for some in stays])
    today = world.day(tested=True)
    closed_by_next = nightly.closes.astype(bool)[today.category, today.next_category] & (today.next_category >= 0)

    shape = (len(HOURS), len(world.category))
    truth = np.zeros(shape)
    said = {method: np.zeros(shape) for method in METHODS}
    covered = {method: np.zeros(shape, bool) for method in _LEARNED}
    expiries = np.zeros((len(_FACTORS), *shape))
    for i, hour in enumerate(HOURS):
        now = 60 * hour
        age = now - today.arrival
        come = age > 0
        there = come & (today.stay > age)
        truth[i] = np.bincount(today.venue[there], today.people[there], len(world.category))
        gone = come & today.checks_out & (today.stay <= age)
        still = come & ~gone
        named, so_far, limit, middle = (
            today.named[still],
            age[still],
            max_stay[today.category[still]],
            median[today.category[still]],
        )
        venue = today.venue[still]
        said[FIXED][i] = np.bincount(venue, named * (so_far < 240), len(world.category))
        said[MAX_STAY][i] = np.bincount(venue, named * (so_far < limit), len(world.category))
        said[FLOOR][i] = np.bincount(venue, named * world.present_if_open(today, age)[still], len(world.category))
        for j, factor in enumerate(_FACTORS):
            expiries[j, i] = np.bincount(venue, named * (so_far < factor * middle), len(world.category))
        shifts = shifts_of(nightly, stays_so_far(today.visits(gone), now, len(world.category)))
        not_moved_on = still & ~(closed_by_next & ~today.checks_out & (today.next_after <= age))
        for method, model, by_age, counted in (
            (ESTIMATOR, shifted(nightly, shifts), weights, still),
            (NIGHTLY, nightly, weights, still),
            (MOVED_ON, shifted(moved_on, shifts), moved_on_weights, not_moved_on),
        ):
            found = estimate(model, _sums(model, by_age, today, counted, now), world.hidden)
            said[method][i] = found.expected
            covered[method][i] = (found.low <= truth[i]) & (truth[i] <= found.high)
    for method in (FIXED, MAX_STAY, FLOOR):
        said[method] *= world.hidden.mean
    said[TUNED] = _best(expiries * world.hidden.mean, truth, world.category)

    judged = truth >= FEWEST_PRESENT
    return Cells(
        truth[judged],
        np.broadcast_to(world.category, shape)[judged],
        np.broadcast_to(np.array(HOURS)[:, None], shape)[judged],
        {method: values[judged] for method, values in said.items()},
        {method: values[judged] for method, values in covered.items()},
    )


def _sums(model: Model, weights: Weights, day: Day, counted: Flags, now: int) -> Integers:
    minute, venues = now - 1, len(model.category)
    width = model.bin_minutes.astype(np.int64)[day.category]
    bins = (day.arrival // width).astype(np.int64)
    held = counted & (bins > minute // width - BINS)
    to = day.venue[held] * BINS + bins[held] % BINS
    persons, squares = (
        np.bincount(to, day.named[held] ** power, venues * BINS).astype(np.int64).reshape(-1, BINS) for power in (1, 2)
    )
    return sums(model, weights, persons, squares, np.zeros(venues, np.int64), minute)


def _best(expiries: Floats, truth: Floats, category: Integers) -> Floats:
    """Of every category, the expiry with the least mean error: no one without the truth could choose it."""
    out = np.zeros_like(truth)
    for c in np.unique(category):
        there, some = truth[:, category == c], expiries[:, :, category == c]
        judged = there >= FEWEST_PRESENT
        errors = (np.abs(some - there) / np.maximum(there, 1.0))[:, judged].sum(axis=1)
        out[:, category == c] = some[np.argmin(errors)]
    return out
