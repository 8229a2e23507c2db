"""In which order a worker tells the outside what it has read."""

import asyncio
import threading
import time
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import numpy as np
import pytest
from pydantic import SecretStr

from pipeline import erasure
from pipeline.dead_letters import DeadLetter
from pipeline.erasure import Receipt
from pipeline.errors import OwnershipLostError, StateLostError, StoreUnavailableError, UserError
from pipeline.settings import Settings, load_settings
from pipeline.streaming import service
from pipeline.streaming import worker as worker_module
from pipeline.streaming.metrics import Metrics
from pipeline.streaming.ports import RecordBatch
from pipeline.streaming.worker import Worker

_LETTER = DeadLetter("check-ins", 0, 7, "not_json", "it is bad", None, b"bad", 0)


def _worker(kafka: asyncio.Event) -> tuple[Worker[Any], MagicMock]:
    async def publish(_letters: list[DeadLetter]) -> None:
        await kafka.wait()

    engine = MagicMock()
    engine.counters.return_value = {}
    engine.write.return_value = {}
    worker = Worker(engine, load_settings(), Metrics(), MagicMock(), publish)
    worker._letters.append(_LETTER)
    return worker, engine


async def _amid_a_write(
    stored: threading.Event,
) -> tuple[Worker[Any], MagicMock, asyncio.Task[None], asyncio.Task[bool]]:
    """A worker whose write lasts until `stored`, its loop, and who waits for that write."""
    kafka = asyncio.Event()
    kafka.set()
    worker, engine = _worker(kafka)
    engine.settle_due, engine.turns_in = False, None
    engine.write.side_effect = lambda _write: {} if stored.wait(10) else None
    running, flush = asyncio.create_task(worker.run()), asyncio.create_task(worker._flush())
    while not engine.write.called:
        await asyncio.sleep(0.05)
    return worker, engine, running, flush


def test_refused_records_are_in_kafka_before_the_store_accounts_for_them() -> None:
    async def scene() -> None:
        kafka = asyncio.Event()
        worker, engine = _worker(kafka)
        writing = asyncio.create_task(worker._write_once(idle=False))
        await asyncio.sleep(0.3)
        engine.write.assert_not_called()
        kafka.set()
        assert await asyncio.wait_for(writing, 5)
        engine.write.assert_called_once()

    asyncio.run(scene())


def test_a_worker_that_gives_up_waiting_for_kafka_stores_nothing_of_it() -> None:
    async def scene() -> None:
        worker, engine = _worker(asyncio.Event())
        writing = asyncio.create_task(worker._write_once(idle=False))
        await asyncio.sleep(0.3)
        worker._give_up = True
        assert not await asyncio.wait_for(writing, 5)
        engine.write.assert_not_called()

    asyncio.run(scene())


def _with_a_backlog(written: list[str], stored: threading.Event) -> tuple[Worker[Any], MagicMock]:
    """A worker whose writes last until `stored` is set, and are told by their names. It cuts ahead from 500 scans on."""
    engine = MagicMock()
    engine.counters.return_value = {}
    engine.settle_due, engine.turns_in = False, None
    engine.event_delays = np.zeros(0)
    engine.process.return_value = []
    engine.take.side_effect = [f"write {number}" for number in range(1, 9)]

    def write(cut: str) -> dict[tuple[str, int], int]:
        stored.wait(10)
        written.append(cut)
        return {}

    engine.write.side_effect = write
    worker = Worker(engine, load_settings(flush_rows=500, buffer_scans=1_000), Metrics(), MagicMock(), MagicMock())
    worker.epoch = 1
    return worker, engine


def _scans(first: int, count: int = 500) -> RecordBatch:
    offsets, times = np.arange(first, first + count), np.zeros(count, np.int64)
    return RecordBatch("check-ins", 0, offsets, times, [None] * count, [b"{}"] * count, 1)


async def _begin_to_write(worker: Worker[Any]) -> asyncio.Task[bool]:
    await worker.submit(_scans(0))
    writing = asyncio.create_task(worker._write_once(idle=False))
    await asyncio.sleep(0.2)
    return writing


def test_with_a_backlog_the_next_write_is_cut_while_the_one_before_is_stored() -> None:
    async def scene() -> None:
        written, stored = list[str](), threading.Event()
        worker, engine = _with_a_backlog(written, stored)
        writing = await _begin_to_write(worker)
        assert engine.take.call_count == 1
        await worker.submit(_scans(500))
        await asyncio.sleep(0.2)
        assert engine.take.call_count == 2
        assert not written
        stored.set()
        assert await asyncio.wait_for(writing, 5)
        assert written == ["write 1", "write 2"]

    asyncio.run(scene())


def test_what_is_cut_ahead_counts_as_held_so_that_the_buffer_stays_bounded() -> None:
    async def scene() -> None:
        written, stored = list[str](), threading.Event()
        worker, engine = _with_a_backlog(written, stored)
        writing = asyncio.create_task(worker._write_once(idle=False))
        await asyncio.sleep(0.2)
        reading = asyncio.create_task(_read(worker, 300))
        await asyncio.sleep(0.5)
        assert engine.take.call_count == 2
        assert 4 * engine.process.call_count == 1_000
        assert not reading.done()
        stored.set()
        assert await asyncio.wait_for(writing, 5)
        await asyncio.wait_for(reading, 5)

    async def _read(worker: Worker[Any], batches: int) -> None:
        for number in range(batches):
            await worker.submit(_scans(4 * number, 4))

    asyncio.run(scene())


def test_what_was_cut_ahead_of_a_write_that_was_given_up_is_not_stored() -> None:
    """It would be counted on top of what was never stored."""

    async def scene() -> None:
        worker, engine = _with_a_backlog([], threading.Event())
        engine.write.side_effect = StoreUnavailableError("no answer")
        writing = await _begin_to_write(worker)
        await worker.submit(_scans(500))
        await asyncio.sleep(0.2)
        assert engine.take.call_count == 2
        worker._give_up = True
        assert not await asyncio.wait_for(writing, 5)
        assert {call.args for call in engine.write.call_args_list} == {("write 1",)}
        assert worker._held() == 0

    asyncio.run(scene())


@pytest.mark.parametrize("wanted", ["a flush", "an erasure", "a settlement"])
def test_nothing_is_cut_ahead_of_what_is_to_be_done_once_everything_is_stored(wanted: str) -> None:
    async def scene() -> None:
        written, stored = list[str](), threading.Event()
        worker, engine = _with_a_backlog(written, stored)
        writing = await _begin_to_write(worker)
        asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if wanted == "a flush":
            worker._flushes.append((asked, False))
        elif wanted == "an erasure":
            worker._erasures.append(("somebody", asked))
        else:
            engine.settle_due = True
        await worker.submit(_scans(500))
        await asyncio.sleep(0.2)
        stored.set()
        assert await asyncio.wait_for(writing, 5)
        assert written == ["write 1"]

    asyncio.run(scene())


def test_partitions_are_not_taken_over_beside_a_write_that_is_under_way() -> None:
    """It would be counted on top of what the takeover has just read of it."""

    async def scene() -> None:
        stored = threading.Event()
        worker, engine, running, flush = await _amid_a_write(stored)
        engine.assign.return_value = {0: 7}
        taking = asyncio.create_task(worker.assigned("check-ins", [0], 1))
        await asyncio.sleep(0.3)
        engine.assign.assert_not_called()
        stored.set()
        assert await asyncio.wait_for(taking, 5) == {0: 7}
        assert await asyncio.wait_for(flush, 5)
        running.cancel()

    asyncio.run(scene())


def test_a_worker_that_is_stopping_takes_nothing_over() -> None:
    async def scene() -> None:
        worker, engine = _worker(asyncio.Event())
        worker._stopping = True
        assert await worker.assigned("check-ins", [0, 1], 1) is None
        assert worker.epoch is None
        engine.assign.assert_not_called()

    asyncio.run(scene())


def test_an_assignment_that_has_ended_is_not_brought_back_by_its_own_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine has forgotten its partitions: batches of it would be a bug."""
    monkeypatch.setattr(worker_module, "TAKEN_OVER_SECONDS", 0.1)

    async def scene() -> None:
        anew, assigning = asyncio.Event(), threading.Event()
        worker, engine = _worker(asyncio.Event())
        worker._take_over_again = anew.set
        engine.assign.side_effect = lambda *_: {0: 7} if assigning.wait(10) else None
        taking = asyncio.create_task(worker.assigned("check-ins", [0], 1))
        while not engine.assign.called:
            await asyncio.sleep(0.05)
        beginning_anew = asyncio.create_task(worker._begin_anew(StateLostError("somebody claimed them")))
        await asyncio.sleep(0.1)
        assigning.set()
        await taking
        assert await worker.assigned("case-reports", [0], 1) is None
        assert worker.epoch is None
        await asyncio.wait_for(anew.wait(), 5)
        await beginning_anew
        assert await worker.assigned("check-ins", [0], 2) == {0: 7}
        assert worker.epoch == 2

    asyncio.run(scene())


def test_reading_that_starts_after_its_assignment_has_ended_counts_for_nothing() -> None:
    """An erasure or a look for alerts would find an engine that has no partitions."""

    async def scene() -> None:
        worker, engine = _worker(asyncio.Event())
        engine.assign.return_value = {0: 7}
        await worker.assigned("check-ins", [0], 1)
        worker.starting({("check-ins", 0): (7, 9)}, [])
        beginning_anew = asyncio.create_task(worker._begin_anew(StateLostError("somebody claimed them")))
        await asyncio.sleep(0.1)
        worker.starting({("check-ins", 0): (7, 9)}, [])
        worker.epoch = 2
        assert not worker._reads_scans()
        beginning_anew.cancel()

    asyncio.run(scene())


def test_what_the_store_had_at_the_start_is_committed_although_kafka_refuses_at_first() -> None:
    async def scene() -> None:
        answers, committed = [False, True], list[object]()

        async def commit(offsets: object) -> bool:
            committed.append(offsets)
            return answers.pop(0)

        worker = Worker(MagicMock(), load_settings(), Metrics(), commit, MagicMock())
        worker.epoch = 1
        committing = asyncio.create_task(worker._commit_when_wanted())
        worker.starting({("check-ins", 0): (7, 9), ("check-ins", 1): (0, 9)}, [("check-ins", 0)])
        while answers:
            await asyncio.sleep(0.05)
        assert committed == [{("check-ins", 0): 7}] * 2
        committing.cancel()

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_what_was_given_up_is_forgotten_at_once() -> None:
    """Another turn would store it without its refused records having been told of."""

    async def scene() -> None:
        worker, engine = _worker(asyncio.Event())
        engine.assign.return_value = {0: 7}
        await worker.assigned("check-ins", [0], 1)
        writing = asyncio.create_task(worker._write_once(idle=False))
        await asyncio.sleep(0.1)
        worker._give_up = True
        assert not await asyncio.wait_for(writing, 5)
        engine.revoke.assert_called_once_with("check-ins", [0])

    asyncio.run(scene())


def test_the_store_is_given_back_after_the_last_write_has_ended() -> None:
    async def scene() -> None:
        stored = threading.Event()
        worker, engine, running, flush = await _amid_a_write(stored)
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0.3)
        engine.close.assert_not_called()
        stored.set()
        await asyncio.wait_for(stopping, 5)
        engine.close.assert_called_once_with()
        assert await flush
        running.cancel()

    asyncio.run(scene())


def test_nothing_is_written_while_two_workers_find_each_others_claim() -> None:
    """What is in memory then is half of a recovery, and another's by now: a write would only lose the assignment again."""

    async def scene() -> None:
        worker, engine = _worker(asyncio.Event())
        engine.settle_due = False
        engine.turns_in = None
        begun = list[str]()

        def assign(*_: object) -> dict[int, int]:
            begun.append("assign")
            time.sleep(0.2)
            if begun.count("assign") < 3:
                raise OwnershipLostError
            return {0: 7}

        engine.assign.side_effect = assign
        engine.take.side_effect = lambda **_: begun.append("take")
        running = asyncio.create_task(worker.run())
        taking = asyncio.create_task(worker.assigned("check-ins", [0], 1))
        await asyncio.sleep(0)
        flush = asyncio.create_task(worker._flush())
        assert await asyncio.wait_for(taking, 5) == {0: 7}
        assert begun[:3] == ["assign"] * 3
        flush.cancel()
        running.cancel()

    asyncio.run(scene())


def test_an_alert_that_time_alone_raises_is_not_left_to_the_next_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS", 3_600.0)

    async def scene() -> None:
        kafka = asyncio.Event()
        kafka.set()
        worker, engine = _worker(kafka)
        engine.settle_due = False
        engine.turns_in = None
        worker._last_idle = time.monotonic()
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0.3)
        engine.take.assert_not_called()
        engine.turns_in = 0.2
        worker._wake.set()
        while not engine.take.called:
            await asyncio.sleep(0.05)
            engine.turns_in -= 0.05
        running.cancel()

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_an_outage_while_a_batch_is_read_has_the_state_loaded_anew_and_stores_nothing_of_the_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A venue that used to come in another partition is asked of the store amid a batch."""
    monkeypatch.setattr(worker_module, "TAKEN_OVER_SECONDS", 0.1)

    async def scene() -> None:
        anew = asyncio.Event()
        engine = MagicMock()
        engine.counters.return_value = {}
        engine.settle_due, engine.turns_in = False, None
        engine.process.side_effect = StoreUnavailableError("no answer")
        worker = Worker(engine, load_settings(), Metrics(), MagicMock(), MagicMock(), take_over_again=anew.set)
        worker.epoch = 1
        batch = RecordBatch("check-ins", 0, np.arange(2), np.zeros(2, np.int64), [None] * 2, [b"1", b"2"], 1)
        await worker.submit(batch)
        await worker.submit(batch)
        running = asyncio.create_task(worker.run())
        await anew.wait()
        assert not worker.failure.done()
        engine.process.assert_called_once()
        engine.take.assert_not_called()
        engine.revoke.assert_called()
        worker._take(idle=False)  # what is read from now on is written again
        running.cancel()

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_a_worker_that_lost_its_partitions_takes_nothing_over_amid_a_rebalance(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it took over would be forgotten as the rebalance goes on, and its batches be of partitions that nobody here knows."""
    monkeypatch.setattr(worker_module, "TAKEN_OVER_SECONDS", 0.2)

    async def scene() -> None:
        anew = asyncio.Event()
        engine = MagicMock()
        engine.counters.return_value = {}
        worker = Worker(engine, load_settings(), Metrics(), MagicMock(), MagicMock(), take_over_again=anew.set)
        worker.epoch = 1
        beginning = asyncio.create_task(worker._begin_anew(StateLostError("another has them")))
        await asyncio.sleep(0.1)
        forgets = threading.Event()
        engine.revoke.side_effect = lambda *_: forgets.wait(10)
        rebalance = asyncio.create_task(worker.revoked({("check-ins", 0)}))
        await beginning
        assert not anew.is_set()
        forgets.set()
        await rebalance

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_on_a_server_an_erasure_is_carried_out_beside_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings().model_copy(update={"clickhouse_url": SecretStr("http://nowhere")})
    asked: list[str] = []

    def erase(_settings: Settings, visitor: str) -> Receipt:
        asked.append(visitor)
        if len(asked) == 1:
            raise StoreUnavailableError("it is away")
        return Receipt("r-1", "digest", 3, off_the_disk=False)

    monkeypatch.setattr(erasure, "erase", erase)

    async def scene() -> Receipt:
        serving = service._Service(settings, MagicMock(), None, None, drain=False)
        with pytest.raises(UserError, match=r"it is away.*ask again"):
            await serving._erase("p-1")
        return await serving._erase("p-1")

    assert asyncio.run(asyncio.wait_for(scene(), 30)) == Receipt("r-1", "digest", 3, off_the_disk=False)
    assert asked == ["p-1", "p-1"]


def test_who_is_erased_is_not_erased_again_and_the_disk_is_looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Erasing anew replaces parts, which would count as the visitor's: who asks would never hear that the disk is rid of it."""
    told = [None, Receipt("r-1", "digest", 3, off_the_disk=False), Receipt("r-1", "digest", 3, off_the_disk=True)]
    looks = iter(told)
    monkeypatch.setattr(erasure, "erased_already", lambda _settings, _visitor: next(looks))

    async def scene() -> None:
        serving = service._Service(load_settings(), MagicMock(), None, None, drain=False)
        serving._worker = MagicMock(erase=AsyncMock())
        assert await serving._erase("p-1") == told[1]
        assert await serving._erase("p-1") == told[2]
        serving._worker.erase.assert_awaited_once_with("p-1")

    asyncio.run(asyncio.wait_for(scene(), 30))
