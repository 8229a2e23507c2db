"""The worker's own loop amid rebalances: played with the real `Worker` and the real takeovers of the batch transport.

Simulated are the group and the log, the threads, time, and the engine with its store: it knows no scans, only up to where each
partition is taken, claimed and stored, and it insists on how it may be called. Workers join, leave, are killed and are taken for
dead; calls are slow, fail, and lose their claims; erasures and settlements come in between. At rest everything must be stored and
committed, each refused record told of before it was stored, and no worker may have stopped as if after a bug.

Example: python -m tests.simulation.rebalances --seeds 1000 --first 7
"""

import asyncio
import logging
import os
import random
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import click
import numpy as np
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from faust.transport.consumer import Consumer
from faust.types import TP

from pipeline.dead_letters import DeadLetter
from pipeline.errors import OwnershipLostError, StoreUnavailableError, UserError
from pipeline.overview import NOTHING_SEEN
from pipeline.settings import load_settings
from pipeline.streaming import worker as worker_module
from pipeline.streaming.batch_transport import BatchConsumer
from pipeline.streaming.metrics import Metrics
from pipeline.streaming.ports import Partition, RecordBatch
from pipeline.streaming.worker import Worker
from pipeline.topics import CASE_REPORTS, CHECK_INS, VENUES
from tests.simulation.histories import Failure, from_processes, in_parts, options, play_all
from tests.simulation.virtual_time import Clock, VirtualLoop, VirtualThread

#: Virtual seconds in which things happen, and those in which everything must be at rest after that.
SECONDS: Final = 180.0
PATIENCE: Final = 900.0
PARTITIONS: Final = 3
_TOPICS: Final = (VENUES, CHECK_INS, CASE_REPORTS)
_ALL: Final = (*((CHECK_INS, each) for each in range(PARTITIONS)), (VENUES, 0), (CASE_REPORTS, 0))
#: Every so many records one is refused.
_REFUSED: Final = 17
#: How often a question to the store fails, before or after it is carried out.
_REFUSES, _ANSWER_LOST = 0.02, 0.02


class BrokenPromiseError(Exception):
    """A promise that the history broke."""


@dataclass(slots=True)
class Cut:
    """A write: per partition from where up to where (exclusive), under a claim."""

    begins: dict[int, int]
    ends: dict[int, int]
    claim: int


@dataclass(slots=True)
class Store:
    """What all workers share: up to where each partition is stored, who claimed it last, and whether it answers."""

    history: "History"
    stored: dict[int, int] = field(default_factory=dict)
    claims: dict[int, int] = field(default_factory=dict)
    away: bool = False
    _version: int = 0

    def ask(self) -> None:
        """A question that may fail."""
        if self.away or self.history.happens(_REFUSES):
            raise StoreUnavailableError("no answer")

    def claim(self, partitions: Collection[int]) -> int:
        """A new claim of some partitions."""
        self._version += 1
        self.claims |= dict.fromkeys(partitions, self._version)
        return self._version

    def holds(self, partitions: Collection[int], claim: int) -> bool:
        """Whether nobody has claimed them since."""
        return all(self.claims[each] <= claim for each in partitions)


class SimulatedEngine:
    """The engine's side of the bargain, as `ports.Engine` states it; anything else breaks a promise."""

    turns_in = None
    event_delays = np.zeros(0)

    def __init__(self, history: "History") -> None:
        self._history = history
        self._store = history.store
        self._next: dict[int, int] = {}
        self._taken: dict[int, int] = {}
        self._claim = 0
        self._recovering = self._writing = False
        self.settle_due = False

    def _alone(self, what: str) -> None:
        if self._writing:
            raise BrokenPromiseError(f"{what} beside a write")

    def assign(self, topic: str, partitions: Collection[int]) -> Generator[None, None, dict[int, int | None]]:
        self._alone("assign")
        assert topic == CHECK_INS
        yield from self._recover(sorted({*self._next, *partitions}))
        return {each: self._store.stored.get(each) for each in partitions}

    def _recover(self, owned: Sequence[int]) -> Generator[None, None, None]:
        store = self._store
        self._recovering = True
        store.ask()
        self._claim = store.claim(owned)
        yield
        self._next = {each: store.stored.get(each, 0) for each in owned}
        self._taken = dict(self._next)
        for _ in range(2):
            store.ask()
            if not store.holds(owned, self._claim):
                raise OwnershipLostError
            yield
        self._recovering = False

    def revoke(self, topic: str, partitions: Collection[int]) -> None:
        self._alone("revoke")
        assert topic == CHECK_INS
        rest = sorted(self._next.keys() - set(partitions))
        if rest:
            raise BrokenPromiseError(f"partitions {rest} are left of a revocation of all")
        self._next, self._taken = {}, {}
        self._recovering = False

    def process(
        self, topic: str, partition: int, offsets: Any, timestamps_ms: Any, values: Sequence[bytes | None]
    ) -> list[DeadLetter]:
        if self._history.happens(0.002):
            raise StoreUnavailableError("no answer")
        following = self._next[partition]
        if offsets[0] > following:
            raise BrokenPromiseError(f"{topic}/{partition} goes on at {offsets[0]}, after {following}")
        self._next[partition] = max(following, int(offsets[-1]) + 1)
        return [
            DeadLetter(topic, partition, int(at), "not_json", "it is bad", None, values[0], int(timestamps_ms[0]))
            for at in offsets
            if at >= following and at % _REFUSED == 0
        ]

    def load_venues(self, values: object, keys: object, positions: object) -> list[DeadLetter]:  # noqa: ARG002
        self._store.ask()
        return []

    def take(self, *, idle: bool) -> Cut | None:
        if not self._next or self._recovering or (self._next == self._taken and not idle):
            return None
        cut = Cut(dict(self._taken), dict(self._next), self._claim)
        self._taken = dict(self._next)
        self.settle_due |= self._history.happens(0.02)
        return cut

    def write(self, write: Cut) -> Generator[None, None, dict[Partition, int]]:
        self._alone("a write")
        self._writing = True
        try:
            for _ in range(2):
                self._store.ask()
                if not self._store.holds(write.ends, write.claim):
                    raise OwnershipLostError
                yield
            self._carry_out(write)
            yield
            if not self._store.holds(write.ends, write.claim):
                raise OwnershipLostError
            if self._history.happens(_ANSWER_LOST):
                raise StoreUnavailableError("the answer was lost")
        finally:
            self._writing = False
        return {(CHECK_INS, each): end for each, end in write.ends.items()}

    def _carry_out(self, write: Cut) -> None:
        # Under an older claim than another's, rows lose: it is as if nothing had come.
        if not self._store.holds(write.ends, write.claim):
            return
        for each, end in write.ends.items():
            stored, begin = self._store.stored.get(each, 0), write.begins[each]
            if stored != begin and stored != end:
                raise BrokenPromiseError(f"partition {each} is stored up to {stored}, and a write begins at {begin}")
            for at in range(begin, end):
                if at % _REFUSED == 0 and (each, at) not in self._history.told:
                    raise BrokenPromiseError(
                        f"refused record {at} of partition {each} is stored, and Kafka was not told"
                    )
            self._store.stored[each] = end

    def notice_others(self) -> bool:
        self._alone("a look at others")
        self._store.ask()
        return self._history.happens(0.02)

    def hand_alerts(self, told: int) -> tuple[list[object], int]:
        self._alone("a look for alerts")
        self._store.ask()
        return [], told

    def overtaken_alerts(self, ids: object, mark: int) -> list[object]:  # noqa: ARG002
        self._alone("a look for alerts")
        self._store.ask()
        return []

    def undercounted(self) -> int:
        self._alone("a look for undercounts")
        self._store.ask()
        return 0

    def settle(self) -> None:
        self._alone("a settlement")
        self._store.ask()
        if not self._next:
            return
        if not self._store.holds(self._next, self._claim):
            raise OwnershipLostError
        if self._next != self._taken:
            raise BrokenPromiseError("a settlement while something waits to be written")
        self.settle_due = False

    def retain(self, *, lead: bool) -> bool:
        self._alone("retention")
        self._store.ask()
        return lead

    def erase(self, visitor: str) -> str:
        if not self._next:
            raise BrokenPromiseError("an erasure without partitions corrects nothing")
        self.settle()
        return f"receipt of {visitor}"

    def counters(self) -> Mapping[str, int]:
        return {}

    def overview(self) -> object:
        return NOTHING_SEEN

    def close(self) -> None:
        self._alone("closing")


class SimulatedTracing:
    """Takes cases over, and takes its time."""

    def __init__(self, history: "History", done: Callable[[Mapping[Partition, int]], None]) -> None:
        self._history = history
        self._done = done

    async def assigned(self, partitions: Collection[int]) -> Mapping[int, int | None]:
        await self._history.a_while()
        return dict.fromkeys(partitions)

    async def submit(self, batch: RecordBatch) -> None:
        await self._history.a_while()
        self._done({(batch.topic, batch.partition): batch.end})

    async def revoked(self) -> None:
        await self._history.a_while()

    async def changed(self) -> None:
        await self._history.a_while()

    async def settle(self) -> None:
        await self._history.a_while()

    async def stop(self) -> None:
        await self._history.a_while()

    @asynccontextmanager
    async def standing_still(self) -> Any:
        await self._history.a_while()
        yield
        await self._history.a_while()


class SimulatedConsumer(BatchConsumer):
    """The batch transport's consumer, over a simulated log and group: its positions, takeovers and commits are real."""

    should_stop = False

    def __init__(self, member: "Member") -> None:
        # Not Faust's: there is neither an app nor a broker.
        self.member = member
        self.epoch = 0
        self.held: frozenset[TP] = frozenset()
        self.unpacked = {}
        self._next = {}
        self._take_over_task = None
        self.transport = SimpleNamespace(topics=_TOPICS, listener=member.worker)
        self.app = SimpleNamespace(crash=member.crash)
        self._thread = SimpleNamespace(_ensure_consumer=lambda: member)

    def assignment(self) -> set[TP]:
        return self.member.assignment()

    async def in_thread(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            await self.member.history.a_while()
        except BaseException:
            coroutine.close()
            raise
        return await coroutine


class Member:
    """One worker in its group, with what fetches for it; it is its consumer's own consumer, too."""

    def __init__(self, history: "History") -> None:
        self.history = history
        self.owned: set[TP] = set()
        self.generation = -1
        self.gone = self.leaving = False
        self.revoking: asyncio.Task[None] | None = None
        self._positions: dict[TP, int] = {}
        self.worker: Worker[Any] = Worker(
            SimulatedEngine(history),  # type: ignore[arg-type]
            history.settings,
            Metrics(),
            self._commit,
            self._publish,
            take_over_again=lambda: self.consumer.take_over_again(),
        )
        self._threads = [VirtualThread(history.loop, history.lasts) for _ in range(2)]
        self.worker._engine_thread, self.worker._write_thread = self._threads  # type: ignore[assignment]
        self.worker._tracing = SimulatedTracing(history, self.worker.note_stored)  # type: ignore[assignment]
        self.worker.tell_alerts(SimpleNamespace(ready=True, told=0, deliver=lambda *_: None))  # type: ignore[arg-type]
        self.consumer = SimulatedConsumer(self)
        self._queues: dict[str, asyncio.Queue[RecordBatch]] = {topic: asyncio.Queue(2) for topic in _TOPICS}
        submit = {
            VENUES: self.worker.submit_venues,
            CHECK_INS: self.worker.submit,
            CASE_REPORTS: self.worker.submit_reports,
        }
        loops = [self.worker.run(), self._watch_lag(), self._fetch()]
        loops += [self._agent(self._queues[topic], submit[topic]) for topic in _TOPICS]
        self.tasks = [asyncio.create_task(each) for each in loops]

    # --- what Kafka's client is to the transport

    def assignment(self) -> set[TP]:
        return set(self.owned)

    def seek(self, partition: Any, offset: int) -> None:
        self._positions[TP(*partition)] = offset

    async def beginning_offsets(self, partitions: Sequence[Any]) -> Mapping[Any, int]:
        await self.history.a_while()
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Sequence[Any]) -> Mapping[Any, int]:
        await self.history.a_while()
        if self.history.happens(0.02):
            raise KafkaConnectionError
        return {each: self.history.ends[TP(*each)] for each in partitions}

    async def commit(self, offsets: Mapping[Any, Any]) -> None:
        await self.history.a_while()
        if self.generation != self.history.generation or self.history.happens(0.02):
            raise CommitFailedError
        for each, found in offsets.items():
            if each[0] == CHECK_INS and found.offset > self.history.store.stored.get(each[1], 0):
                raise BrokenPromiseError(f"{each} is committed up to {found.offset}, and not stored")
            self.history.committed[TP(*each)] = found.offset

    # --- what the service does

    async def _commit(self, offsets: Mapping[Partition, int]) -> bool:
        return await self.consumer.commit_stored(offsets)

    async def _publish(self, letters: list[DeadLetter]) -> None:
        await self.history.a_while()
        self.history.told |= {(letter.partition, letter.offset) for letter in letters}

    async def crash(self, error: BaseException) -> None:
        self.worker.fail(error)

    async def _watch_lag(self) -> None:
        while True:
            await asyncio.sleep(1)
            reading = list(self.worker.stored)
            with suppress(KafkaConnectionError):
                self.worker.note_ends(
                    {tuple(each): end for each, end in (await self.end_offsets(reading)).items()} if reading else {}
                )

    async def _fetch(self) -> None:
        history = self.history
        while True:
            await history.a_while()
            readable = sorted(self.owned - self.consumer.held)
            history.chance.shuffle(readable)
            for each in readable:
                at, end = self._positions.get(each, 0), history.ends[each]
                if at >= end or each in self.consumer.held or each not in self.owned:
                    continue
                count = min(end - at, history.chance.randrange(1, 40))
                batch = RecordBatch(
                    each.topic,
                    each.partition,
                    np.arange(at, at + count),
                    np.zeros(count, np.int64),
                    [None] * count,
                    [b"{}"] * count,
                    self.consumer.epoch,
                )
                self._positions[each] = batch.end
                self.consumer.unpacked[tuple(each)] = batch.end
                await self._queues[each.topic].put(batch)

    async def _agent(
        self, batches: "asyncio.Queue[RecordBatch]", submit: Callable[[RecordBatch], Coroutine[Any, Any, None]]
    ) -> None:
        while True:
            batch = await batches.get()
            await self.history.a_while()
            try:
                await submit(batch)
            except Exception as error:
                self.worker.fail(error)

    # --- what the group does

    async def revoke(self, after: float) -> None:
        """Give everything back, `after` the group has counted on it."""
        await asyncio.sleep(after)
        await self.consumer.on_partitions_revoked(set(self.owned))

    async def assign(self, partitions: set[TP], generation: int) -> None:
        """Take part in a generation."""
        self.owned, self.generation = partitions, generation
        await self.consumer.on_partitions_assigned(set(partitions))

    async def leave(self) -> None:
        """Stop as a worker does that is told to, then leave the group."""
        self.leaving = True
        await self.worker.stop()
        self.end()

    def end(self) -> None:
        """All of it stops here and now."""
        self.gone = True
        for thread in self._threads:
            thread.kill()
        for task in (*self.tasks, self.consumer._take_over_task, self.revoking):
            if task is not None:
                task.cancel()


class History:
    """One seed's: what happens, and what is wrong at the end."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop = loop
        self.chance = random.Random(seed)
        self.settings = load_settings().model_copy(update={"buffer_scans": 200, "flush_rows": 40})
        self.store = Store(self)
        self.ends = {TP(*each): 0 for each in _ALL}
        self.committed: dict[TP, int] = {}
        self.told: set[tuple[int, int]] = set()
        self.generation = 0
        self._members: list[Member] = []
        self._calm = False
        self._others: set[asyncio.Task[Any]] = set()

    def happens(self, probability: float) -> bool:
        """Whether something of this probability happens now."""
        return not self._calm and self.chance.random() < probability

    def lasts(self) -> float:
        """How long a call or an answer takes, in seconds: mostly little, sometimes longer than any patience."""
        longest = self.chance.choices((0.02, 0.5, 4.0, 30.0), (90, 8, 1.7, 0.0 if self._calm else 0.3))[0]
        return self.chance.random() * longest

    async def a_while(self) -> None:
        """So long."""
        await asyncio.sleep(self.lasts())

    def _living(self) -> list[Member]:
        return [member for member in self._members if not member.gone]

    async def play(self) -> str:
        """What is wrong; "" for nothing."""
        try:
            self._members += [Member(self) for _ in range(self.chance.randrange(1, 4))]
            until = self.loop.time() + SECONDS
            happening = asyncio.create_task(self._happen())
            await self._rebalance()
            while self.loop.time() < until:
                await asyncio.sleep(self.chance.expovariate(1 / 8))
                self._fail_if_any_has()
                self._join_or_go()
                await self._rebalance()
            happening.cancel()
            self._calm, self.store.away = True, False
            await self._come_to_rest()
        except (BrokenPromiseError, AssertionError) as error:
            return str(error)
        finally:
            for member in self._living():
                member.end()
        return ""

    def _fail_if_any_has(self) -> None:
        for member in self._members:
            if member.worker.failure.done():
                raise BrokenPromiseError(f"a worker stopped: {member.worker.failure.result()!r}")
        for task in (*self._others, *(task for member in self._members for task in member.tasks)):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise BrokenPromiseError(f"{task.get_coro()} raised {error!r}")

    def _join_or_go(self) -> None:
        living = [member for member in self._living() if not member.leaving]
        what = self.chance.random()
        if not living or (what < 0.3 and len(living) < 3):
            self._members.append(Member(self))
        elif what < 0.45:
            self.chance.choice(living).end()
        elif what < 0.55:
            self._beside(self.chance.choice(living).leave())

    def _beside(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._others.add(asyncio.create_task(coroutine))

    async def _rebalance(self) -> None:
        # Whoever is late with giving back is done without, and comes in with the next generation.
        self.generation += 1
        for member in self._living():
            if member.revoking is None:
                after = self.chance.random() * 20 if self.happens(0.1) else 0.0
                member.revoking = asyncio.create_task(member.revoke(after))
        waiting = [member.revoking for member in self._living() if member.revoking is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=PATIENCE if self._calm else self.chance.expovariate(1 / 10))
        ready = [member for member in self._living() if member.revoking is not None and member.revoking.done()]
        for member in ready:
            assert member.revoking is not None
            member.revoking.result()
            member.revoking = None
        if not ready:
            return
        dealt: dict[int, set[TP]] = {each: {TP(VENUES, 0)} for each in range(len(ready))}
        for each in range(PARTITIONS):
            dealt[self.chance.randrange(len(ready))].add(TP(CHECK_INS, each))
        dealt[self.chance.randrange(len(ready))].add(TP(CASE_REPORTS, 0))
        await asyncio.gather(
            *(member.assign(dealt[each], self.generation) for each, member in enumerate(ready) if not member.gone)
        )

    async def _happen(self) -> None:
        while True:
            await asyncio.sleep(self.chance.expovariate(2))
            each = self.chance.choice(_ALL)
            self.ends[TP(*each)] += self.chance.randrange(1, 3 if each[0] != CHECK_INS else 60)
            if self.chance.random() < 0.02:
                self.store.away = True
                self.loop.call_later(self.chance.random() * 40, setattr, self.store, "away", False)
            reading = [member.worker for member in self._living() if not member.leaving]
            if reading and self.chance.random() < 0.1:
                worker = self.chance.choice(reading)
                asked = self.chance.choice((worker.settle, self._erased(worker), self._looked(worker)))
                self._beside(asked())

    def _erased(self, worker: Worker[Any]) -> Callable[[], Coroutine[Any, Any, None]]:
        async def erase() -> None:
            with suppress(UserError):
                await worker.erase("somebody")

        return erase

    def _looked(self, worker: Worker[Any]) -> Callable[[], Coroutine[Any, Any, Any]]:
        return lambda: worker.overtaken_alerts([], 1)

    async def _come_to_rest(self) -> None:
        self._members.append(Member(self))
        until = self.loop.time() + PATIENCE
        members: list[Member] = []
        while not self._at_rest():
            self._fail_if_any_has()
            if self._living() != members:
                # Who was late with the one before is in this one. Who leaves from now on has it made once more.
                members = self._living()
                await self._rebalance()
            if self.loop.time() > until:
                raise BrokenPromiseError(f"stored {self.store.stored}, committed {self.committed} of {self.ends}")
            await asyncio.sleep(1)
        for member in self._living():
            if not member.leaving:
                await asyncio.wait_for(member.leave(), PATIENCE)
        self._fail_if_any_has()

    def _at_rest(self) -> bool:
        scans = {each: end for each, end in self.ends.items() if each.topic == CHECK_INS and end}
        stored = all(self.store.stored.get(each.partition, 0) == end for each, end in scans.items())
        return stored and all(self.committed.get(each, 0) == end for each, end in self.ends.items())


async def _nothing(*_: object) -> None:
    """In the place of what Faust does when partitions come and go."""


def failure(seed: int) -> str:
    """What is wrong with a history; "" for nothing."""
    loop = VirtualLoop()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(worker_module, "time", Clock(loop)))
        for name in ("on_partitions_revoked", "on_partitions_assigned"):
            stack.enter_context(mock.patch.object(Consumer, name, _nothing))
        logging.disable(logging.CRITICAL)
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(History(loop, seed).play())
        finally:
            logging.disable(logging.NOTSET)
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


def failures(seeds: range) -> list[Failure]:
    """The seeds that fail, each with what is wrong."""
    return [(seed, found) for seed in seeds if (found := failure(seed))]


@click.command(epilog="Example: python -m tests.simulation.rebalances --seeds 1000 --first 7")
@options(2_000)
def command(seeds: int, first: int | None, record: bool) -> None:
    """Play histories of workers amid rebalances; exit 1 if any breaks a promise."""
    play_all(
        "tests.simulation.rebalances",
        seeds,
        first,
        record,
        lambda some: from_processes(failures, in_parts(some), os.cpu_count() or 1),
    )


if __name__ == "__main__":
    command()
