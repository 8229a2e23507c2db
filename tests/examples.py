"""Hypothesis in an interpreter of its own (`tests.isolated`): the same settings for every history that is played there."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st


def play_examples(play: Callable[[st.DataObject], Any], examples: int, seed: int | None) -> int:
    """Play so many examples, chosen by the seed or at random. Nothing is shrunk: a history takes seconds."""
    run = given(st.data())(play)
    run = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )(run)
    if seed is not None:
        run = with_seed(seed)(run)
    run()
    return examples
