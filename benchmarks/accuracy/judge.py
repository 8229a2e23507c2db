"""One world judged: the estimator and the baselines against the people truly present, cell by cell."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.accuracy.scenario import Day, Flags, Floats, Integers, Scenario, World
from pipeline.core.presence.estimate import estimate, sums, weights_of
from pipeline.core.presence.evidence import gather
from pipeline.core.presence.model import BINS, Dwell, Kind, Model, bin_minutes_of, fit
from pipeline.simulate.facts import CATEGORIES

LEARNED_DAYS: Final = 7
#: Local full hours at which people are counted; cells with fewer truly present are left out.
HOURS: Final = range(7, 23)
FEWEST_PRESENT: Final = 20

ESTIMATOR: Final = "estimator"
MOVED_ON: Final = "… with moved-on live"
FIXED: Final = "fixed 4 h"
MAX_STAY: Final = "max stay, 95 % quantile"
TUNED: Final = "best expiry, tuned on the truth"
FLOOR: Final = "floor: chance, hidden people"
METHODS: Final = (ESTIMATOR, MOVED_ON, FIXED, MAX_STAY, TUNED, FLOOR)
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
    models = {
        ESTIMATOR: fit(evidence, LEARNED_DAYS, world.category, _KINDS),
        MOVED_ON: fit(evidence, LEARNED_DAYS, world.category, _KINDS, moved_on=True),
    }
    stays = [
        np.concatenate([d.stay[d.checks_out & (d.category == c)] for d in days.values()])
        for c in range(len(CATEGORIES))
    ]
    max_stay = np.array([np.quantile(some, 0.95) for some in stays])
    median = np.array([np.median(some) for some in stays])
    today = world.day(tested=True)

    shape = (len(HOURS), len(world.category))
    truth = np.zeros(shape)
    said = {method: np.zeros(shape) for method in METHODS}
    covered = {method: np.zeros(shape, bool) for method in models}
    expiries = np.zeros((len(_FACTORS), *shape))
    for i, hour in enumerate(HOURS):
        now = 60.0 * hour
        age = now - today.arrival
        come = age > 0
        there = come & (today.stay > age)
        truth[i] = np.bincount(today.venue[there], today.people[there], len(world.category))
        still = come & ~(today.checks_out & (today.stay <= age))
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
        for method, model in models.items():
            counted = still
            if method == MOVED_ON:
                counts = model.closes.astype(bool)[today.category, today.next_category] & (today.next_category >= 0)
                counted = still & ~(counts & ~today.checks_out & (today.next_after <= age))
            summed = _sums(model, world, today, counted, now)
            found = estimate(model, summed, world.hidden)
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


def _sums(model: Model, world: World, day: Day, counted: Flags, now: float) -> Integers:
    minute = int(now) - 1
    width = model.bin_minutes.astype(np.int64)[day.category]
    bins = (day.arrival // width).astype(np.int64)
    held = counted & (bins > minute // width - BINS)
    to = day.venue[held] * BINS + bins[held] % BINS
    size = len(world.category) * BINS
    persons, squares = (
        np.bincount(to, day.named[held] ** power, size).astype(np.int64).reshape(-1, BINS) for power in (1, 2)
    )
    return sums(model, weights_of(model), persons, squares, np.zeros(len(world.category), np.int64), minute)


def _best(expiries: Floats, truth: Floats, category: Integers) -> Floats:
    """Of every category, the expiry with the least mean error: no one without the truth could choose it."""
    out = np.zeros_like(truth)
    for c in np.unique(category):
        there, some = truth[:, category == c], expiries[:, :, category == c]
        judged = there >= FEWEST_PRESENT
        errors = (np.abs(some - there) / np.maximum(there, 1.0))[:, judged].sum(axis=1)
        out[:, category == c] = some[np.argmin(errors)]
    return out
