"""Whatever comes amid rebalances: the worker's loop calls its engine as it may, and comes to rest with everything stored."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from pipeline.streaming.ports import Partition, RecordBatch
from pipeline.streaming.worker import Worker
from tests.simulation.rebalances import failure, failures

#: So many histories with the bug in it, at most, until it is caught.
PATIENCE = 300


@pytest.mark.parametrize("seeds", [range(15), pytest.param(range(15, 200), marks=pytest.mark.long)])
def test_no_history_breaks_a_promise(seeds: range) -> None:
    assert failures(seeds) == []


def _batches_of_a_former_assignment_are_taken(patch: pytest.MonkeyPatch) -> None:
    submit = Worker.submit

    async def careless(worker: Worker[object], batch: RecordBatch) -> None:
        if worker.epoch is not None:
            object.__setattr__(batch, "epoch", worker.epoch)
        await submit(worker, batch)

    patch.setattr(Worker, "submit", careless)


def _takeovers_do_not_wait_for_writes(patch: pytest.MonkeyPatch) -> None:
    class NoLock:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...
        async def acquire(self) -> bool:
            return True

        def release(self) -> None: ...

    begin = Worker.__init__

    def unlocked(worker: Worker[object], *arguments: object, **options: object) -> None:
        begin(worker, *arguments, **options)  # type: ignore[arg-type]
        worker._writing = NoLock()  # type: ignore[assignment]

    patch.setattr(Worker, "__init__", unlocked)


def _read_is_committed(patch: pytest.MonkeyPatch) -> None:
    note = Worker.note_stored

    def early(worker: Worker[object], offsets: Mapping[Partition, int]) -> None:
        note(worker, {**offsets, **{each: worker._read.get(each, at) for each, at in offsets.items()}})

    patch.setattr(Worker, "note_stored", early)


def _refused_records_are_told_of_later(patch: pytest.MonkeyPatch) -> None:
    async def later(worker: Worker[object], letters: list[object]) -> bool:
        asyncio.get_running_loop().call_later(5, lambda: asyncio.ensure_future(worker._publish(letters)))  # type: ignore[arg-type]
        return True

    patch.setattr(Worker, "_publish_letters", later)


@pytest.mark.parametrize(
    ("plant", "sign"),
    [
        (_batches_of_a_former_assignment_are_taken, "goes on at"),
        (_takeovers_do_not_wait_for_writes, "beside a write"),
        (_read_is_committed, "is committed up to"),
        (_refused_records_are_told_of_later, "Kafka was not told"),
    ],
)
def test_a_planted_bug_is_caught_by_its_own_sign(
    plant: Callable[[pytest.MonkeyPatch], None], sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert any(sign in failure(seed) for seed in range(PATIENCE))
