"""Nothing lost, nothing twice: several real workers on one store, hurt at random, and what an independent verifier finds then."""

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults.harness import ALONE, Harness

pytestmark = pytest.mark.kafka

#: Quick ones, each of another kind; `make faults` has them all.
SHORT = {
    "worker killed": 3,
    "worker killed at a point": 4,
    "worker joins": 1,
    "connections to Kafka cut": 1,
    "store killed": 1,
    "store answers are lost": 1,
    "disk full": 1,
    "venue changed": 1,
}


@pytest.mark.parametrize(
    ("shared", "kinds"), [(True, SHORT), (False, ALONE)], ids=["several workers", "one worker alone"]
)
def test_faults_at_random_lose_nothing_and_store_nothing_twice(
    tmp_path: Path, shared: bool, kinds: Mapping[str, int], pytestconfig: pytest.Config
) -> None:
    if not pytestconfig.getoption("--faults"):
        pytest.skip("the harness of faults runs only with --faults, see docs/reliability.md, what is open")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    result = Harness(tmp_path, seed, shared=shared).run(faults=6, seconds=12, pace=1.5, kinds=kinds)
    assert not result.wrong, "\n".join(result.wrong)
    assert result.faults.total() >= 3
    assert result.verdict is not None
    assert result.verdict.dead_letters > 0
    assert result.verdict.duplicates > 0
