"""The attacks that no key stops, small: they work, so their printed rates mean something, and not on what is released."""

import numpy as np

from benchmarks.linkage import habits, sequences


def test_habits_link_most_people_who_are_known_and_fewer_the_less_is_known() -> None:
    rates = habits(np.random.default_rng(1), 200)
    print(f"linked by habits: {rates}")
    assert rates[1.0] > 0.8
    assert rates[1.0] >= rates[0.5] >= rates[0.1] > 10 / 200


def test_minutes_of_venues_tell_where_somebody_goes_next_and_released_hours_hardly_more_than_guessing_does() -> None:
    rates = sequences(np.random.default_rng(1), 20_000, 1)
    print(f"followed to the next venue: {rates}")
    assert rates["by minutes of venues"] > 5 * rates["by guessing"]
    assert rates["by hours of areas and categories"] < 3 * rates["by guessing"]
