"""Whatever happens to workers that tell Kafka of exposures and warnings: the last word of each is what holds."""

from pathlib import Path
from unittest import mock

import pytest

from tests.isolated import run_isolated
from tests.simulation.telling import failure, failures, open_one

#: So many histories with the bug in it, at most, until it is caught.
PATIENCE = 300


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, 10), marks=pytest.mark.long)])
def test_the_last_word_is_what_holds(tmp_path: Path, seeds: range) -> None:
    assert run_isolated(failures, str(tmp_path), seeds, timeout=300) == []


def caught(folder: str) -> bool:
    """In an interpreter of its own: whether it shows that what was taken back is told without what was never told before it."""
    from pipeline.store.tracing import TraceStore

    untold_cases = TraceStore.untold_cases

    def nothing_before(store: TraceStore, cases: list[str] | None = None, again: tuple[str, ...] = ()) -> object:
        # Only `note_told` asks for one case by a list.
        return {} if isinstance(cases, list) else untold_cases(store, cases, again)

    store = open_one(folder)
    with mock.patch.object(TraceStore, "untold_cases", nothing_before):
        return any(failure(store, seed) for seed in range(PATIENCE))


def test_a_planted_bug_is_caught(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--faults"):
        pytest.skip("runs only with --faults")
    assert run_isolated(caught, str(tmp_path), timeout=3_000)
