"""A worker that starts before its ClickHouse, as after a power cut, or while Kafka's answers are cut off needs nobody's help."""

from pathlib import Path

import pytest

from tests.faults.world import Process, World
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


#: A worker that gets no answer to what partitions there are in its first seconds with Kafka.
_CUT_OFF = """
import time
from aiokafka.client import AIOKafkaClient
from pipeline.cli import main

ask, asked = AIOKafkaClient._metadata_update, []

async def cut_off(*given):
    asked.append(time.monotonic())
    return False if asked[-1] < asked[0] + 4 else await ask(*given)

AIOKafkaClient._metadata_update = cut_off
main()
"""


@pytest.mark.long
def test_a_worker_that_knew_of_no_partitions_as_it_joined_reads_them_soon(tmp_path: Path) -> None:
    world = World(tmp_path, 1, {})
    try:
        worker = Process(["-c", _CUT_OFF, "worker"], world.environment, tmp_path / "worker-1.log")
        wait_until(lambda: "reading partitions" in worker.log)
        assert worker.stop() == 0
    finally:
        world.close()
