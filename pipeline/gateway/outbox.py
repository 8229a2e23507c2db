"""Scans on their way to Kafka: whoever hands some over hears once all brokers in sync have them, or that it is not known.

One writer for each partition sends what has come together while the batch before was under way, so that batches grow with the
load by themselves. Idempotent: a retry within writes nothing twice; a retry by the sender writes the same scan, which is one.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from pipeline.cluster import check_reachable, unreachable
from pipeline.errors import UserError
from pipeline.gateway.admission import Record
from pipeline.gateway.problems import BUSY, KAFKA_AWAY, ProblemError
from pipeline.kafka_access import KafkaAccess
from pipeline.topics import partition_of

log = logging.getLogger(__name__)

_BATCH_BYTES: Final = 512 << 10
_COMPRESSION: Final = "zstd"
#: How long a sender waits for Kafka, and the pause after a failure, in seconds.
CONFIRM_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.5
_START_SECONDS: Final = 20.0
_PROBE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.25
#: Keys whose partition is remembered; a nation has some 60,000 venues.
_MOST_KEYS: Final = 200_000


@dataclass(slots=True)
class _Group:
    """The records that one caller handed over for one partition, and how long it waits, by the loop's clock."""

    records: list[Record]
    confirmed: "asyncio.Future[None]"
    until: float


@dataclass(slots=True)
class _Lane:
    """One partition's queue and its writer."""

    groups: list[_Group] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    writer: "asyncio.Task[None] | None" = None


class Outbox:
    """Sends records to one topic. For one event loop. `on_failure` is called for every batch that Kafka did not take."""

    def __init__(
        self, kafka: KafkaAccess | str, topic: str, most_pending: int, on_failure: Callable[[], object]
    ) -> None:
        self._kafka = KafkaAccess.of(kafka)
        self._topic = topic
        self._most_pending = most_pending
        self._producer: Any = None
        self._lanes: list[_Lane] = []
        #: Records handed over and not confirmed.
        self.pending = 0
        self._on_failure = on_failure
        self._partition_of: dict[bytes, int] = {}
        #: Whoever waits, the longest first; those who have their answer are left out now and then.
        self._unconfirmed: deque[_Group] = deque()
        self._giving_up: asyncio.Task[None] | None = None
        self._mending = asyncio.Lock()

    async def start(self) -> None:
        """Connect. Raises UserError when Kafka does not answer, does not let us in, or has no such topic."""
        await asyncio.to_thread(check_reachable, self._kafka)
        try:
            self._producer = await self._connected()
            partitions = await asyncio.wait_for(self._producer.partitions_for(self._topic), _START_SECONDS)
        except (KafkaError, OSError, TimeoutError) as error:
            await self._part(self._producer)
            raise (
                self._kafka.forbidden(error, f"write the topic {self._topic}")
                or await self._kafka.refusal(guess=True)
                or unreachable(self._kafka.address)
            ) from None
        if not partitions:
            raise UserError(
                f"Kafka at {self._kafka.address} has no topic {self._topic}; create it with: pipeline topics"
            )
        self._lanes = [_Lane() for _ in partitions]
        for partition, lane in enumerate(self._lanes):
            lane.writer = asyncio.create_task(self._write(partition, lane))
        self._giving_up = asyncio.create_task(self._give_up())

    async def send(self, records: Sequence[Record]) -> None:
        """Return once Kafka has all of them. Raises ProblemError if it is too busy to take them, or does not answer in time."""
        if self.pending + len(records) > self._most_pending:
            raise ProblemError(BUSY, "more scans wait for Kafka than are held; send it again", 1)
        if len(records) == 1:
            await self._confirmed([self._hand_over(self._partition(records[0].key), list(records))])
            return
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(self._partition(record.key), []).append(record)
        await self._confirmed([self._hand_over(partition, own) for partition, own in by_partition.items()])

    async def _confirmed(self, groups: Sequence[_Group]) -> None:
        try:
            for group in groups:
                await group.confirmed
        except (KafkaError, OSError):
            detail = "it is not known whether it is stored; send it again, which stores it once"
            raise ProblemError(KAFKA_AWAY, detail, 5) from None

    def _hand_over(self, partition: int, records: list[Record]) -> _Group:
        loop = asyncio.get_running_loop()
        group = _Group(records, loop.create_future(), loop.time() + CONFIRM_SECONDS)
        lane = self._lanes[partition]
        self.pending += len(records)
        lane.groups.append(group)
        lane.waiting.set()
        self._unconfirmed.append(group)
        return group

    def _partition(self, key: bytes) -> int:
        found = self._partition_of.get(key)
        if found is None:
            if len(self._partition_of) >= _MOST_KEYS:
                self._partition_of.clear()
            found = self._partition_of[key] = partition_of(key, len(self._lanes))
        return found

    async def _give_up(self) -> None:
        """Tell callers who have waited long enough: one look every now and then costs less than a timer for each."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            while self._unconfirmed and (
                self._unconfirmed[0].confirmed.done() or self._unconfirmed[0].until < loop.time()
            ):
                _settle(self._unconfirmed.popleft(), TimeoutError())

    async def answers(self) -> bool:
        """Whether Kafka answers now."""
        try:
            return bool(await asyncio.wait_for(self._producer.client.force_metadata_update(), _PROBE_SECONDS))
        except (KafkaError, OSError, TimeoutError):
            return False

    async def close(self) -> None:
        """Give what is under way its time to be confirmed, and part with Kafka."""
        deadline = time.monotonic() + CONFIRM_SECONDS
        while self.pending and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        tasks = [task for task in (self._giving_up, *(lane.writer for lane in self._lanes)) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._part(self._producer)

    async def _write(self, partition: int, lane: _Lane) -> None:
        while True:
            await lane.waiting.wait()
            groups, lane.groups = lane.groups, []
            lane.waiting.clear()
            producer = self._producer
            try:
                for batch in _batches(producer, groups):
                    await self._delivered(producer, await producer.send_batch(batch, self._topic, partition=partition))
            except (KafkaError, OSError) as error:
                self._on_failure()
                log.warning("Kafka did not take a batch of %s (%s)", self._topic, type(error).__name__)
                self._settle(groups, error)
                await self._mend(producer)
            else:
                self._settle(groups, None)

    async def _delivered(self, producer: Any, delivery: "asyncio.Future[Any]") -> None:
        """Wait for a batch, but not for one whose producer was parted with: nobody would ever answer."""
        while True:
            done, _ = await asyncio.wait([delivery], timeout=_LOOK_SECONDS)
            if done:
                delivery.result()
                return
            if self._producer is not producer:
                delivery.cancel()
                raise KafkaTimeoutError("the producer was replaced")

    def _settle(self, groups: Sequence[_Group], error: Exception | None) -> None:
        for group in groups:
            self.pending -= len(group.records)
            _settle(group, error)

    async def _mend(self, broken: Any) -> None:
        """Another producer in the place of one that failed: its numbers of batches have a gap, so it may never go on."""
        async with self._mending:
            if self._producer is not broken:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
            while True:
                try:
                    self._producer = await self._connected()
                    break
                except (KafkaError, OSError, TimeoutError):
                    await asyncio.sleep(_PAUSE_SECONDS)
            await self._part(broken)

    async def _connected(self) -> Any:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka.servers,
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH_BYTES,
            compression_type=_COMPRESSION,
            **self._kafka.options(),
        )
        try:
            await asyncio.wait_for(producer.start(), _START_SECONDS)
        except BaseException:
            await self._part(producer)
            raise
        return producer

    async def _part(self, producer: Any) -> None:
        if producer is not None:
            with suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(producer.stop(), _PROBE_SECONDS)


def _settle(group: _Group, error: Exception | None) -> None:
    if group.confirmed.done():
        return
    if error is None:
        group.confirmed.set_result(None)
    else:
        group.confirmed.set_exception(error)
        group.confirmed.exception()  # its caller may have gone: then nobody asks for it


def _batches(producer: Any, groups: Sequence[_Group]) -> list[Any]:
    """The groups' records in as few batches as hold them, with now as their time."""
    now = time.time_ns() // 1_000_000
    batches: list[Any] = []
    for group in groups:
        for record in group.records:
            if not batches or batches[-1].append(key=record.key, value=record.value, timestamp=now) is None:
                batches.append(producer.create_batch())
                batches[-1].append(key=record.key, value=record.value, timestamp=now)
    for batch in batches:
        batch.close()
    return batches
