"""A worker that starts while something else is not there yet, as after a power cut, needs nobody to start it again."""

from pathlib import Path

import pytest

from tests.faults.world import World
from tests.waiting import wait_until

pytestmark = pytest.mark.kafka


@pytest.mark.long
def test_a_worker_that_starts_before_its_clickhouse_waits_for_it(tmp_path: Path) -> None:
    world = World(tmp_path, 1, {})
    try:
        assert world.front
        world.front.kill()
        worker = world.start_worker()
        wait_until(lambda: "waiting for it" in worker.log)
        assert worker.status is None
        world.share_store()
        wait_until(lambda: "reading partitions" in worker.log)
        assert worker.log.count("waiting for it") == 1
        assert worker.stop() == 0
    finally:
        world.close()


@pytest.mark.long
def test_who_deals_out_partitions_without_knowing_them_does_it_again_soon(tmp_path: Path) -> None:
    world = World(tmp_path, 2, {})
    try:
        worker = world.start_worker(FAULTS_UNKNOWING="1")
        wait_until(lambda: "dealt out" in worker.log)
        assert "'check-ins': 0" in worker.log
        wait_until(lambda: "reading partitions 0, 1 of check-ins" in worker.log)
        assert worker.stop() == 0
    finally:
        world.close()
