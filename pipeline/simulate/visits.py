"""Who really was where and when: the truth that the scans then tell a part of."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import facts
from pipeline.simulate.options import DAY, HOUR, MINUTE, SECOND, SimulationOptions
from pipeline.simulate.registry import CATEGORY, Registry
from pipeline.simulate.shape import sample_times

Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]

#: On the way from one venue to the next: lognormal, median 15 minutes, sigma 0.5. Assumption.
_TRAVEL: Final = (np.log(15 * MINUTE), 0.5)
#: A visit to a restaurant lies within a stay in its mall of at least this; and this far from the stay's both ends.
_MEAL_IN_A_STAY_OF: Final = 40 * MINUTE
_MEAL_MARGIN: Final = 3 * MINUTE


@dataclass(frozen=True, slots=True)
class Visits:
    """Every true visit of the day as columns. Times are ms from the options' midnight, UTC: [entered, left)."""

    venue: Ints
    visitor: Ints
    entered: Ints
    left: Ints
    #: Persons who really came, and how many the scan says.
    persons: NDArray[np.uint8]
    party: NDArray[np.uint8]
    #: Whether the visitor scans out.
    checks_out: Bools
    #: Days before the date that the visit was on; its scans arrive on the date all the same.
    days_before: NDArray[np.uint8]


def plan_visits(options: SimulationOptions, registry: Registry) -> Visits:
    """Draw the day's visits, city by city."""
    total = options.check_ins
    visits = Visits(
        venue=np.empty(total, np.int32),
        visitor=np.empty(total, np.int32),
        entered=np.empty(total, np.int32),
        left=np.empty(total, np.int32),
        persons=np.empty(total, np.uint8),
        party=np.empty(total, np.uint8),
        checks_out=np.empty(total, np.bool_),
        days_before=np.empty(total, np.uint8),
    )
    start = people = 0
    for index, area in enumerate(options.areas):
        venues = np.flatnonzero(registry.area == index).astype(np.int32)
        end = start + int(registry.visits[venues].sum())
        if end > start:
            people += _plan_city(options.rng(f"visits in {area.code}"), registry, venues, people, visits, start, end)
            draws = options.rng(f"check-outs in {area.code}").random(end - start, np.float32)
            visits.checks_out[start:end] = draws >= options.missing
        start = end
    return visits


def _plan_city(
    rng: np.random.Generator, registry: Registry, venues: Ints, people: int, visits: Visits, start: int, end: int
) -> int:
    """Fill rows [start, end) with the city's visits, its people numbered from `people`. Returns how many they are."""
    part = slice(start, end)
    venue = np.repeat(venues, registry.visits[venues])
    category = registry.category[venue]
    entered, left = _stays(rng, registry, venue, category)
    inside = _meals_in_malls(rng, registry, venue, entered, left)
    previous = _previous_visits(rng, venue, entered, left, np.flatnonzero(inside < 0))
    visitor, newcomers = _visitors(np.where(inside >= 0, inside, previous))
    days_before = _days_before(rng, len(venue))
    moved = registry.utc_offset[venue] + days_before.astype(np.int32) * DAY
    visits.venue[part] = venue
    visits.visitor[part] = visitor + people
    visits.entered[part] = entered - moved
    visits.left[part] = left - moved
    visits.persons[part], visits.party[part] = _groups(rng, category)
    visits.days_before[part] = days_before
    return newcomers


def _stays(rng: np.random.Generator, registry: Registry, venue: Ints, category: NDArray[np.uint8]) -> tuple[Ints, Ints]:
    entered = np.empty(len(venue), np.int32)
    left = np.empty(len(venue), np.int32)
    for code, kind in enumerate(facts.CATEGORIES):
        rows = np.flatnonzero(category == code)
        times = sample_times(rng, registry.density[code], len(rows))
        joins = np.flatnonzero(rng.random(len(rows), np.float32) < kind.bursts)
        times[joins] = _bursts(rng, venue[rows[joins]], times[joins])
        stay = rng.lognormal(np.log(kind.dwell_median * MINUTE), kind.dwell_sigma, len(rows))
        leaves = times + np.minimum(stay, facts.LONGEST_STAY * HOUR).astype(np.int32)
        if kind.closes is not None:
            # The last ones are out a few minutes after closing, and whoever came later does not stay.
            closing = kind.closes * HOUR + rng.integers(0, 10 * MINUTE, len(rows), np.int32)
            leaves = np.minimum(leaves, np.maximum(closing, times + MINUTE))
        entered[rows], left[rows] = times, leaves
    return entered, left


def _bursts(rng: np.random.Generator, venue: Ints, times: Ints) -> Ints:
    shortest, longest = facts.BURST_MINUTES
    period = (shortest + venue * 7 % (longest - shortest + 1)) * MINUTE
    phase = venue * 7919 % MINUTE
    moved = (times - phase + period // 2) // period * period + phase
    moved += rng.exponential(facts.BURST_SECONDS * SECOND, len(times)).astype(np.int32)
    return moved.clip(0, DAY - 1).astype(np.int32)


def _meals_in_malls(rng: np.random.Generator, registry: Registry, venue: Ints, entered: Ints, left: Ints) -> Ints:
    """Move visits to malls' restaurants into stays in the mall; gives each the row of that stay, −1 to all others."""
    inside = np.full(len(venue), -1, np.int32)
    mall = registry.mall[venue]
    for code in np.unique(mall[mall >= 0]).tolist():
        meals = np.flatnonzero(mall == code)
        stays = rng.permutation(np.flatnonzero((venue == code) & (left - entered >= _MEAL_IN_A_STAY_OF)))
        count = min(len(meals), len(stays))
        meals, stays = meals[:count], stays[:count]
        first = entered[stays] + _MEAL_MARGIN
        last = left[stays] - _MEAL_MARGIN
        wanted = np.minimum(left[meals] - entered[meals], last - first)
        entered[meals] = first + ((last - first - wanted) * rng.random(count)).astype(np.int32)
        left[meals] = entered[meals] + wanted
        inside[meals] = stays
    return inside


def _previous_visits(rng: np.random.Generator, venue: Ints, entered: Ints, left: Ints, rows: NDArray[np.intp]) -> Ints:
    """Let people move on: the row of each visit's visitor's visit before, or −1. Only `rows` take part.

    Who has left a venue, and has had the time to travel, queues for the next visit that begins in the city: first come,
    first served. Then links are cut at random until people make as many visits each as they should.
    """
    count = len(rows)
    ready = left[rows] + rng.lognormal(*_TRAVEL, count).astype(np.int32)
    order = np.argsort(np.concatenate([ready, entered[rows]]), kind="stable").astype(np.int32)
    is_ready = order < count
    waiting = np.where(is_ready, np.int32(1), np.int32(-1)).cumsum(dtype=np.int32)
    # A visit that finds nobody waiting takes the balance to a new low; a newcomer makes it.
    lowest = np.minimum.accumulate(np.minimum(waiting, 0))
    served = ~is_ready & (lowest == np.append(np.int32(0), lowest[:-1]))
    following = rows[order[served] - count]
    leaving = rows[order[is_ready][: len(following)]]
    links = len(venue) - round(len(venue) / facts.CHECK_INS_PER_PERSON) - (len(venue) - count)
    # Few go back to where they came from: those links are the first to be cut.
    rank = rng.random(len(following)) + (venue[following] == venue[leaving])
    keep = np.argsort(rank, kind="stable")[: max(0, links)]
    previous = np.full(len(venue), -1, np.int32)
    previous[following[keep]] = leaving[keep]
    return previous


def _visitors(previous: Ints) -> tuple[Ints, int]:
    """Number the people: all visits that hang together are one person's. Returns the numbers and how many there are."""
    rows = np.arange(len(previous), dtype=np.int32)
    first = np.where(previous < 0, rows, previous)
    while not np.array_equal(first, further := first[first]):
        first = further
    numbers = (previous < 0).cumsum(dtype=np.int32) - 1
    return numbers[first], int(numbers[-1]) + 1


def _days_before(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    days = np.arange(1, facts.LATEST_DAYS)
    late = np.flatnonzero(rng.random(count, np.float32) < facts.EARLIER_DAYS)
    before = np.zeros(count, np.uint8)
    # The longer ago, the rarer.
    before[late] = rng.choice(days, len(late), p=(1 / days) / (1 / days).sum())
    return before


def _groups(rng: np.random.Generator, category: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Persons who came, and the party size of their scan."""
    hidden = np.zeros(len(facts.CATEGORIES), np.float32)
    hidden[[CATEGORY[name] for name in facts.HIDDEN_GROUP_CATEGORIES]] = facts.HIDDEN_GROUPS
    families = np.array([kind.families for kind in facts.CATEGORIES], np.float32)
    sizes, shares = zip(*facts.GROUP_SIZES, strict=True)
    draw = rng.random(len(category), np.float32)
    group = np.flatnonzero(draw < (hidden + families)[category])
    persons = np.ones(len(category), np.uint8)
    persons[group] = np.array(sizes, np.uint8)[np.searchsorted(np.cumsum(shares)[:-1], rng.random(len(group)), "right")]
    return persons, np.where(draw < hidden[category], np.uint8(1), persons)
