"""The ranking of venues and the queue of calls."""

from math import exp

import numpy as np
import pytest

from pipeline.core.tracing.queue import WorkQueue, work_queue
from pipeline.core.tracing.ranking import rank_venues, ventilation_factor

HOUR = 3_600_000
NAN = float("nan")


def test_more_floor_and_more_air_lower_the_risk() -> None:
    # The reference room, twice its floor, and half and twice its 3.92 removals an hour; stays long enough to fill it up.
    area = np.array([100.0, 200.0, 100.0, 100.0])
    air = np.array([3.0, 3.0, 3.0 - 1.96, 3.0 + 3.92])
    factor, assumed = ventilation_factor(area, air, np.full(4, 1e9))
    assert factor == pytest.approx([1, 0.5, 2, 0.5])
    assert not assumed.any()


def test_a_room_that_has_not_filled_up_counts_less() -> None:
    factor, _ = ventilation_factor(np.array([100.0]), np.array([3.0]), np.array([0.5]))
    removed = 3.92 * 0.5
    assert factor == pytest.approx([1 - (1 - exp(-removed)) / removed])


@pytest.mark.parametrize(("area", "air"), [(NAN, 3.0), (50.0, NAN), (NAN, NAN)])
def test_what_is_unknown_counts_as_the_reference_room_and_says_so(area: float, air: float) -> None:
    factor, assumed = ventilation_factor(np.array([area]), np.array([air]), np.array([1.0]))
    assert (factor.tolist(), assumed.tolist()) == ([1.0], [True])


def test_venues_are_ranked_by_cases_contact_minutes_and_air_then_id() -> None:
    ranked = rank_venues(
        np.array(["b", "a", "c", "d"]),
        np.array([1, 1, 3, 1]),
        np.array([HOUR, HOUR, HOUR, HOUR]),
        np.array([NAN, NAN, NAN, 50.0]),
        np.array([NAN, NAN, NAN, 3.0]),
        np.full(4, 1e9),
    )
    assert ranked.row.tolist() == [2, 3, 1, 0]
    assert ranked.risk == pytest.approx([180, 120, 60, 60])
    assert ranked.assumed.tolist() == [True, False, True, True]
    # 3.8 quanta/h × 0.54 m³/h over 150 m³ × 3.92 per hour.
    assert ranked.quanta_per_hour[1] == pytest.approx(3.8 * 0.54 / (150 * 3.92))
    assert np.isnan(ranked.quanta_per_hour[[0, 2, 3]]).all()


ROWS = [
    # visitor, tier, minutes, last minute, party
    ("p1", 1, 20, 500, 1),
    ("p2", 2, 20, 100, 3),
    ("p2", 1, 90, 900, 4),
    ("p3", 1, 30, 100, 1),
    ("p4", 1, 20, 400, 1),
    ("p0", 1, 20, 400, 1),
    ("p5", 0, 14, 900, 2),
]


def queue_of(rows: list[tuple[str, int, int, int, int]], capacity: int) -> WorkQueue:
    visitor, *numbers = zip(*rows, strict=True)
    return work_queue(np.array(visitor), *(np.array(column) for column in numbers), capacity=capacity)


def test_calls_come_by_tier_then_minutes_then_recency_then_id() -> None:
    queue = queue_of(ROWS, 10)
    assert queue.visitor.tolist() == ["p2", "p3", "p1", "p0", "p4"]
    assert queue.tier.tolist() == [2, 1, 1, 1, 1]
    assert queue.left_out == 0


def test_a_visitor_is_called_once_for_the_whole_family() -> None:
    queue = queue_of(ROWS, 1)
    assert (queue.visitor.tolist(), queue.cumulative_ms.tolist(), queue.persons.tolist()) == (["p2"], [20], [4])


def test_the_capacity_cuts_and_says_how_many_are_left_out() -> None:
    queue = queue_of(ROWS, 2)
    assert (queue.visitor.tolist(), queue.left_out) == (["p2", "p3"], 3)
    assert queue_of(ROWS, 0).left_out == 5


def test_the_queue_does_not_depend_on_the_order_of_exposures() -> None:
    for seed in range(20):
        rows = [ROWS[i] for i in np.random.default_rng(seed).permutation(len(ROWS))]
        assert queue_of(rows, 4).visitor.tolist() == queue_of(ROWS, 4).visitor.tolist()
