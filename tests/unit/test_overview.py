"""The venues at a glance: right where few, bounded where many."""

import numpy as np

from pipeline.overview import MOST_NAMES, MOST_VENUES, OTHER, Groups, Overview, overview
from pipeline.streaming.metrics import Metrics


def groups(*names: str) -> Groups:
    found = Groups()
    for name in names:
        found.add(name)
    return found


def test_venues_are_counted_by_category_and_fullness_and_persons_by_area() -> None:
    occupancy = np.array([0, 40, 50, 89, 90, 99, 100, 130, 7, -1], np.int32)
    capacity = np.array([100] * 8 + [-1, 100], np.int32)
    kinds = groups(*["mall"] * 8, "kiosk", "kiosk")
    areas = groups(*["north"] * 9, "south")
    found = overview(occupancy, capacity, kinds, areas, {"warning": 2})
    assert {kind: count for kind, count in found.venues.items() if count} == {
        ("mall", "empty"): 1,
        ("mall", "below_half"): 1,
        ("mall", "half"): 2,
        ("mall", "near"): 2,
        ("mall", "full"): 2,
        ("kiosk", "unknown"): 1,
        ("kiosk", "empty"): 1,
    }
    assert found.persons == {"north": 605, "south": 0}
    assert found.fullest == [1.3, 1.0, 0.99, 0.9, 0.89, 0.5, 0.4]
    assert found.alerts == {"warning": 2}


def many(venues: int) -> Overview:
    random = np.random.default_rng(1)
    categories, areas = Groups(), Groups()
    for number in range(venues):
        categories.add(f"category-{number % 500}")
        areas.add(f"area-{number % 700}")
    occupancy = random.integers(0, 200, venues).astype(np.int32)
    return overview(occupancy, np.full(venues, 150, np.int32), categories, areas, {"warning": 1})


def test_however_many_venues_categories_and_areas_there_are_the_figures_stay_few_and_lose_nobody() -> None:
    found = many(20_000)
    assert len({category for category, _ in found.venues}) == MOST_NAMES + 1
    assert len(found.persons) == MOST_NAMES + 1
    assert len(found.fullest) == MOST_VENUES
    assert sum(found.venues.values()) == 20_000
    assert found.persons[OTHER] > 0


def test_a_scrape_has_no_series_of_a_venue_or_a_person() -> None:
    metrics = Metrics()
    metrics.overview = many(20_000)
    text = metrics.exposition().decode()
    assert 'pipeline_fullest_venue_ratio{rank="1"}' in text
    assert "venue_id" not in text
    assert "visitor" not in text
    assert text.count("\n") < 1_000


def test_nothing_seen_is_nothing_shown() -> None:
    found = overview(np.zeros(0, np.int32), np.zeros(0, np.int32), Groups(), Groups(), {})
    assert (found.venues, found.persons, found.fullest) == ({}, {}, [])
