"""The venues of a simulated day: how many people each draws, what and where it is, how many it holds."""

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import facts
from pipeline.simulate.options import HOUR, SimulationOptions
from pipeline.simulate.shape import Floats, entry_shares, minute_density, peak_share
from schemas.venue import Venue

#: Positions in facts.CATEGORIES.
CATEGORY: Final = {category.name: index for index, category in enumerate(facts.CATEGORIES)}

#: A family's or group's mean size.
_GROUP_MEAN: Final = sum(size * share for size, share in facts.GROUP_SIZES)


@dataclass(frozen=True, slots=True)
class Registry:
    """Every venue as columns; the row is the number in the venue's id."""

    #: Positions in facts.CATEGORIES, and in the options' areas.
    category: NDArray[np.uint8]
    area: NDArray[np.uint8]
    #: Check-ins planned for the day.
    visits: NDArray[np.int32]
    #: The mall that a restaurant lies in, or −1.
    mall: NDArray[np.int32]
    #: Local time minus UTC, in ms.
    utc_offset: NDArray[np.int32]
    #: By category: share of the check-ins by minute of the local day.
    density: tuple[Floats, ...]


def make_registry(options: SimulationOptions) -> Registry:
    """Draw the venues. Their planned visits add up to the wanted check-ins exactly."""
    rng = options.rng("venues")
    count = options.venue_count
    deviates = _deviates(rng, count)
    size = np.minimum(facts.VENUE_MEDIAN * np.exp(facts.VENUE_SIGMA * deviates), facts.VENUE_MOST)
    visits = np.diff(np.rint(size.cumsum() / size.sum() * options.check_ins), prepend=0).astype(np.int32)
    category = _categories(rng, deviates, size)
    weights = np.array([area.weight for area in options.areas])
    area = rng.choice(len(weights), count, p=weights / weights.sum()).astype(np.uint8)
    mall = _malls(rng, category, visits)
    area = np.where(mall >= 0, area[mall], area)
    hours = np.array([area.hours for area in options.areas], np.int32)
    shares = np.bincount(category, visits, len(facts.CATEGORIES)) / options.check_ins
    return Registry(
        category=category,
        area=area,
        visits=visits,
        mall=mall,
        utc_offset=hours[area] * HOUR,
        density=tuple(minute_density(hourly) for hourly in entry_shares(np.maximum(shares, 1e-9))),
    )


def _deviates(rng: np.random.Generator, count: int) -> Floats:
    # One from each of `count` equal slices of the normal distribution: so few venues, too, make a typical day.
    slices = ((np.arange(count) + rng.random(count)) / count).clip(1e-9, 1 - 1e-9)
    deviates = np.array([NormalDist().inv_cdf(p) for p in slices.tolist()])
    rng.shuffle(deviates)
    return deviates


def _categories(rng: np.random.Generator, deviates: Floats, size: Floats) -> NDArray[np.uint8]:
    """Give every venue a category that suits its size, such that the check-ins are mixed as they should be."""
    typical = np.array([category.size for category in facts.CATEGORIES])
    wanted = np.array([category.share for category in facts.CATEGORIES])
    wanted *= size.sum() / wanted.sum()
    suits = np.exp(-(((deviates[:, None] - typical) / facts.SIZE_SPREAD) ** 2) / 2) + 1e-9
    for _ in range(100):
        suits /= suits.sum(axis=1)[:, None]
        suits *= wanted / (size @ suits)
    left = wanted.tolist()
    chosen = np.zeros(len(size), np.uint8)
    draws = rng.random(len(size)).tolist()
    # From large to small, as small ones fill any gap; a category that is full takes what suits no other.
    for index in np.argsort(-size, kind="stable").tolist():
        half = float(size[index]) / 2
        fits = (fit if room > half else fit / 1000 for room, fit in zip(left, suits[index].tolist(), strict=True))
        bounds = list(accumulate(fits))
        choice = bisect(bounds, draws[index] * bounds[-1], hi=len(bounds) - 1)
        chosen[index] = choice
        left[choice] -= float(size[index])
    return chosen


def _malls(rng: np.random.Generator, category: NDArray[np.uint8], visits: NDArray[np.int32]) -> NDArray[np.int32]:
    mall = np.full(len(category), -1, np.int32)
    malls = np.flatnonzero(category == CATEGORY["mall"])
    chosen = rng.random(len(category)) < facts.RESTAURANTS_IN_MALLS
    restaurants = np.flatnonzero((category == CATEGORY["restaurant"]) & chosen)
    if visits[malls].any():
        around = rng.choice(malls, len(restaurants), p=visits[malls] / visits[malls].sum())
        fits = visits[around] > 4 * visits[restaurants]
        mall[restaurants[fits]] = around[fits]
    return mall


def venue_records(options: SimulationOptions, registry: Registry) -> Iterator[Venue]:
    """The registry as messages, in the order of their ids. Names are invented: nothing in them is a real place."""
    rng = options.rng("registry")
    count = len(registry.category)
    spread = rng.normal(0, facts.CITY_SPREAD, (count, 2))
    margin = rng.lognormal(*facts.CAPACITY_MARGIN, count)
    crowd = rng.lognormal(0, 0.2, (count, 2))
    known = rng.random((count, 3)) >= (facts.NO_CAPACITY, facts.NO_FLOOR_AREA, facts.NO_VENTILATION)
    peaks = [peak_share(*pair) for pair in zip(registry.density, facts.CATEGORIES, strict=True)]
    for index in range(count):
        category = facts.CATEGORIES[registry.category[index]]
        area = options.areas[registry.area[index]]
        mall = int(registry.mall[index])
        place = mall if mall >= 0 else index
        peak = float(registry.visits[index]) * _persons(category) * peaks[registry.category[index]]
        # The square root: what a peak of few people, who come in groups, varies by chance.
        capacity = max(10, 5 * round((peak * margin[index] + 3 * peak**0.5) / 5))
        within = f" in Mall {mall}" if mall >= 0 else ""
        yield Venue(
            venue_id=f"ven-{index:06d}",
            name=f"{category.name.capitalize()} {index}{within}, Area {area.code}",
            category=category.name,
            capacity=capacity if known[index, 0] else None,
            area=area.code,
            latitude=round(area.latitude + spread[place, 0], 5),
            longitude=round(area.longitude + spread[place, 1], 5),
            timezone=facts.TIME_ZONES[area.hours],
            floor_area_m2=round(capacity * category.floor_area * crowd[index, 0], 0) if known[index, 1] else None,
            air_changes_per_hour=round(category.air_changes * crowd[index, 1], 1) if known[index, 2] else None,
        )


def _persons(category: facts.Category) -> float:
    hidden = facts.HIDDEN_GROUPS if category.name in facts.HIDDEN_GROUP_CATEGORIES else 0.0
    return 1 + (category.families + hidden) * (_GROUP_MEAN - 1)
