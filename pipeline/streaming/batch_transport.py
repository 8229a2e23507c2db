"""Record batches through Faust: the one clever module.

Faust costs about 60 µs per *message*, whatever is in it: a task, a `wait_first`, acknowledgement lists. So for the
topics in `BatchTransport.topics` the consumer yields one message per fetched batch of one partition, whose value is a
`RecordBatch`. Faust's rebalancing, flow control, agents and back-pressure stay as they are, and other topics keep
single messages.

What is replaced for batch topics, and why:

- **Unpacking.** `PartitionRecords` is aiokafka's lazy iterator over the bytes of one fetch. `unpack` takes the place
  of the generator in it, before it is started, and gives columns instead of a `ConsumerRecord` each.
- **Positions.** The store knows what it holds, Kafka only what somebody once committed. After each rebalance
  `_take_over` asks the listener where to read on, seeks there, and only then lets go of the partitions (`_held`).
- **Commits.** Faust commits, every 2.8 s, what was *delivered and acknowledged*, and sees the inside of a batch as a
  gap in the offsets that it fills in one by one. Here acknowledgements mean nothing: `commit` sends what the store
  holds, at once.
- **Epochs.** Whatever was read under one assignment may still be in some queue when the next one has sought elsewhere.
  Every batch carries the epoch it was read in; the listener drops those of another.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as faust_aiokafka
from faust.types import TP, ConsumerMessage

from pipeline.streaming.assignor import BroadcastAssignor
from pipeline.streaming.ports import Partition, RecordBatch
from pipeline.streaming.starting import PatientProducer, until_started
from pipeline.streaming.unpack import unpack

log = logging.getLogger(__name__)

T = TypeVar("T")

#: A batch ends with the first of Kafka's own batches that brings it to so many records.
BATCH_RECORDS = 20_000
#: How long a broker may wait for new records. Faust's 1.5 s would also delay the first fetch after a seek by as much.
FETCH_MAX_WAIT_MS = 250
#: The same while what was fetched of some partitions still waits to be taken, or partitions are being taken over. A fetch asks
#: only for the others, which may have nothing new, and until it is answered there is no fetch for those that are taken
#: meanwhile, nor any other answer on the same connection: where the logs begin and end came 1.5 s later after each rebalance.
BUSY_MAX_WAIT_MS = 10
#: While records flow, Kafka waits so long for more of them, or until there are so many bytes: a batch costs Faust and the loops
#: around it most of a millisecond, however few records it has.
FLOW_MAX_WAIT_MS, FLOW_MIN_BYTES = 25, 64 << 10
#: Records flow when they were taken at least this often, in seconds.
FLOW_SECONDS = 0.1
#: How long, in seconds, taking rests while partitions have as many batches waiting as they may: Faust's own second, in which
#: the queues run dry, cost a worker with a backlog a quarter of its time.
FULL_SECONDS = 0.02
#: Seconds after which an unanswered commit is given up; the next one covers it.
COMMIT_TIMEOUT = 10.0


class BatchListener(Protocol):
    """Who owns the positions of the batch topics. All methods are called in the event loop of the app."""

    async def assigned(self, topic: str, partitions: Collection[int], epoch: int) -> Mapping[int, int | None] | None:
        """Take over partitions of one topic; returns where to read on per partition, None = from the earliest.

        None for the whole: the assignment has ended, and nothing is to be read under it.
        """

    def starting(self, ranges: Mapping[Partition, tuple[int, int]], known: Collection[Partition]) -> None:
        """Reading is about to start: [first, end) per partition of one topic, `end` being where its log ends now.

        `known`: those that start where `assigned` said.
        """

    async def caught_up(self, topic: str) -> None:
        """Return when the next topic may be started."""

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """Give partitions back; commits are still possible until this returns."""

    def skipped(self, topic: str, partition: int, count: int) -> None:
        """`count` records were deleted by Kafka's retention before they were read."""


class _ConsumerThread(faust_aiokafka.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Runs aiokafka's consumer in its own event loop; everything here runs in that thread."""

    logger = logging.getLogger("faust")
    #: When records were taken last, and the time before (monotonic seconds).
    _taken = _before = -FLOW_SECONDS

    async def on_start(self) -> None:
        """Do what Faust does, until Kafka is there."""
        await until_started(super().on_start, lambda: self._consumer)

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._partition_assignment_strategy = [BroadcastAssignor]
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Put the single-message topics at their committed offsets; `_take_over` puts the others."""
        singles = [tp for tp in self.assignment() if tp.topic not in self.transport.topics]
        if not singles:
            return {}
        offsets: Mapping[TP, int] = await self.call_thread(self._ensure_consumer().seek_to_committed, *singles)
        return offsets

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, list[Any]]:
        self._choose_wait(consumer._fetcher)
        if not self.consumer.flow_active:
            return {}
        # A copy: Faust goes on changing its set while we wait, and to aiokafka an empty one means "all partitions".
        wanted = frozenset(active_partitions) - self.consumer.held
        fetcher = consumer._fetcher
        if any(tp not in wanted for tp in fetcher._records):
            timeout = min(timeout or 0.0, FULL_SECONDS)
        with fetcher._subscriptions.fetch_context():
            records = await self._drain(fetcher, wanted, max_records)
            if not records and timeout:
                waiter = fetcher._create_fetch_waiter()
                await asyncio.wait([waiter], timeout=timeout)
                waiter.cancel()
                records = await self._drain(fetcher, wanted - self.consumer.held, max_records)
        if records:
            self._before, self._taken = self._taken, time.monotonic()
        self._choose_wait(fetcher)
        return records

    def _choose_wait(self, fetcher: Any) -> None:
        # The next fetch is sent as soon as this thread has nothing else to do.
        longest, least = FETCH_MAX_WAIT_MS, 1
        if fetcher._records or self.consumer.held:
            longest = BUSY_MAX_WAIT_MS
        elif self._taken - self._before < FLOW_SECONDS and time.monotonic() - self._taken < FLOW_SECONDS:
            longest, least = FLOW_MAX_WAIT_MS, FLOW_MIN_BYTES
        fetcher._fetch_max_wait_ms, fetcher._fetch_min_bytes = longest, least

    async def _drain(self, fetcher: Any, wanted: frozenset[TP], max_records: int | None) -> dict[TP, list[Any]]:
        if fetcher._subscriptions.reassignment_in_progress:
            await fetcher._subscriptions.wait_for_assignment()
        if not wanted:
            return {}
        epoch = self.consumer.epoch
        for tp, result in fetcher._records.items():
            if tp.topic in self.transport.topics and type(result) is FetchResult:
                records = result._partition_records
                if records is not None and not hasattr(records, "batched"):
                    records.batched = True
                    records._records_iterator = unpack(records, epoch, BATCH_RECORDS)
        fetched: dict[TP, list[Any]] = await fetcher.fetched_records(wanted, timeout=0, max_records=max_records)
        for tp, batches in fetched.items():
            if tp.topic in self.transport.topics and batches:
                self.consumer.unpacked[tuple(tp)] = batches[-1].end
        return fetched


class _ReadOffsets(defaultdict[TP, int | None]):
    """Where Faust has read to; of batch topics it is never told.

    It would call each batch a gap in the offsets, and drop what comes after a seek backwards.
    """

    def __init__(self, topics: Collection[str]) -> None:
        super().__init__(lambda: None)
        self._topics = topics

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        if tp.topic not in self._topics:
            super().__setitem__(tp, offset)


class BatchConsumer(faust_aiokafka.Consumer):  # type: ignore[misc]
    """Faust's consumer with batches, positions and commits of its own for the transport's batch topics."""

    logger = logging.getLogger("faust")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: Counts assignments and revocations.
        self.epoch = 0
        #: Batch partitions not to be read: their position is not known yet.
        self.held: frozenset[TP] = frozenset()
        #: Per batch partition, the offset after the last record handed on under this assignment: it may still be in a queue.
        self.unpacked: dict[Partition, int] = {}
        self._next: dict[TP, int] = {}
        self._take_over_task: asyncio.Task[None] | None = None
        super().__init__(*args, **kwargs)
        self._read_offset = _ReadOffsets(self.transport.topics)

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _is_batch(self, tp: TP) -> bool:
        return tp.topic in self.transport.topics

    async def in_thread(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the consumer's thread at once, not behind a fetch that waits in Faust's method queue."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._thread.thread_loop))

    # --- delivery

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:
        if self.flow_active and not self._get_active_partitions():
            # All queues are full. Faust would look again after a second, in which the queues run dry.
            await self.sleep(FULL_SECONDS)
            return {}, set()
        return await super()._wait_next_records(timeout)  # type: ignore[no-any-return]

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not isinstance(record, RecordBatch):
            return super()._to_message(tp, record)
        if record.epoch == self.epoch:
            first, expected = int(record.offsets[0]), self._next.get(tp)
            if expected is not None and first > expected:
                self.add_future(self._explain_gap(tp, expected, first))
            self._next[tp] = record.end
        return ConsumerMessage(
            record.topic,
            record.partition,
            record.end - 1,
            int(record.timestamps_ms[-1]) / 1000,
            0,
            None,
            None,
            record,
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _explain_gap(self, tp: TP, expected: int, first: int) -> None:
        """Tell retention, which loses records, from compaction and transaction markers, which do not."""
        earliest = (await self.earliest_offsets(tp))[tp]
        if earliest > expected:
            self._report_skipped(tp, expected, min(earliest, first))

    def _report_skipped(self, tp: TP, expected: int, earliest: int) -> None:
        log.error(
            "Kafka deleted %d records of %s/%d before they were read (offsets %d to %d): reading goes on at %d;"
            " raise the topic's retention or add workers",
            earliest - expected,
            tp.topic,
            tp.partition,
            expected,
            earliest - 1,
            earliest,
        )
        self.transport.listener.skipped(tp.topic, tp.partition, earliest - expected)

    # --- acknowledgements and commits

    def _new_offset(self, tp: TP) -> int | None:
        """Of batch topics Faust itself has nothing to commit, whatever was acknowledged.

        (Its compiled streams do not call `ack`, so that is not the place to say so.)
        """
        return None if self._is_batch(tp) else super()._new_offset(tp)

    async def commit_stored(self, offsets: Mapping[Partition, int]) -> bool:
        """Commit next offsets of batch partitions, of those that are still ours. False: it failed; try again later."""

        async def commit() -> None:
            consumer = self._thread._ensure_consumer()
            owned = consumer.assignment()
            ours = {
                TopicPartition(topic, partition): OffsetAndMetadata(offset, "")
                for (topic, partition), offset in offsets.items()
                if (topic, partition) in owned
            }
            if ours:
                await consumer.commit(ours)

        try:
            await asyncio.wait_for(self.in_thread(commit()), COMMIT_TIMEOUT)
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            log.warning("offsets could not be committed now: %s", str(error) or type(error).__name__)
            return False
        return True

    async def committed(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """What the group has committed, of any partitions; those without a commit are missing. Raises KafkaError."""

        async def fetch() -> dict[Partition, int]:
            coordinator = self._thread._ensure_consumer()._coordinator
            found = await coordinator.fetch_committed_offsets([TopicPartition(*each) for each in partitions])
            return {tuple(tp): entry.offset for tp, entry in found.items() if entry.offset >= 0}

        return await self.in_thread(fetch())

    async def positions(self) -> dict[Partition, int]:
        """The next offset to be fetched of each batch partition that is being read."""

        async def collect() -> dict[Partition, int]:
            consumer = self._thread._ensure_consumer()
            reading = [tp for tp in consumer.assignment() if tp.topic in self.transport.topics and tp not in self.held]
            return {tuple(tp): await consumer.position(tp) for tp in reading}

        return await self.in_thread(collect())

    async def end_offsets(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """The ends of the logs, from the broker. Raises KafkaError."""

        async def fetch() -> dict[Partition, int]:
            ends = await self._thread._ensure_consumer().end_offsets([TopicPartition(*each) for each in partitions])
            return {tuple(tp): offset for tp, offset in ends.items()}

        return await self.in_thread(fetch())

    # --- rebalancing

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let the listener finish with the batch partitions, then do what Faust does."""
        ours = {tp for tp in revoked if self._is_batch(tp)}
        self.held |= ours
        self.epoch += 1
        if ours:
            await self.transport.listener.revoked({tuple(tp) for tp in ours})
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Do what Faust does, and find the positions of the batch partitions in the background.

        Not in this callback: aiokafka sends no heartbeats before it returns, and loading state may take longer than a
        session.
        """
        ours = {tp for tp in assigned if self._is_batch(tp)}
        self.held = frozenset(ours)
        self.unpacked.clear()
        self.epoch += 1
        await super().on_partitions_assigned(assigned, generation_id)
        self._take_over_task = asyncio.create_task(self._take_over(ours, self.epoch))

    def take_over_again(self) -> None:
        """Have the listener load the state of all that is assigned anew, and read on from what the store says then."""
        ours = {tp for tp in self.assignment() if self._is_batch(tp)}
        self.held = frozenset(ours)
        self.unpacked.clear()
        self.epoch += 1
        self._take_over_task = asyncio.create_task(self._take_over(ours, self.epoch))

    async def _take_over(self, assigned: set[TP], epoch: int) -> None:
        by_topic = {
            topic: partitions
            for topic in self.transport.topics
            if (partitions := {tp for tp in assigned if tp.topic == topic})
        }
        listener = self.transport.listener
        try:
            wanted: dict[str, Mapping[int, int | None]] = {}
            for topic, partitions in by_topic.items():
                # A rebalance may have come while the topic before was taken over.
                if epoch != self.epoch:
                    return
                positions = await listener.assigned(topic, sorted(tp.partition for tp in partitions), epoch)
                if positions is None:
                    return
                wanted[topic] = positions
            for topic, positions in wanted.items():
                if epoch == self.epoch:
                    await self._start_reading(by_topic[topic], positions, epoch)
                    await listener.caught_up(topic)
        except Exception as error:
            if epoch == self.epoch and not self.should_stop:
                await self.app.crash(error)

    async def _start_reading(self, partitions: set[TP], wanted: Mapping[int, int | None], epoch: int) -> None:
        """Seek the partitions of one topic, and let go of them."""
        earliest, ends = await self._log_ranges(partitions)
        if epoch != self.epoch:
            return
        starts = {tp: self._start(tp, wanted[tp.partition], earliest[tp], ends[tp]) for tp in partitions}

        async def seek() -> None:
            consumer = self._thread._ensure_consumer()
            for tp, offset in starts.items():
                consumer.seek(TopicPartition(*tp), offset)

        await self.in_thread(seek())
        if epoch != self.epoch:
            return
        self._next |= starts
        known = [tuple(tp) for tp in partitions if wanted[tp.partition] is not None]
        self.transport.listener.starting({tuple(tp): (starts[tp], ends[tp]) for tp in partitions}, known)
        self.held -= partitions

    async def _log_ranges(self, partitions: set[TP]) -> tuple[Mapping[TP, int], Mapping[TP, int]]:
        async def fetch() -> Sequence[Any]:
            consumer = self._thread._ensure_consumer()
            asked = [TopicPartition(*tp) for tp in partitions]
            return await asyncio.gather(consumer.beginning_offsets(asked), consumer.end_offsets(asked))

        while True:
            try:
                earliest, ends = await self.in_thread(fetch())
                return earliest, ends
            except KafkaError as error:
                log.warning("Kafka does not tell where the logs begin and end: %s; trying again", error)
                await asyncio.sleep(1)

    def _start(self, tp: TP, wanted: int | None, earliest: int, end: int) -> int:
        if wanted is None:
            return earliest
        if wanted < earliest:
            self._report_skipped(tp, wanted, earliest)
            return earliest
        if wanted > end:
            log.error(
                "the store is at offset %d of %s/%d, but its log ends at %d: the topic was made anew;"
                " reading it from its beginning",
                wanted,
                tp.topic,
                tp.partition,
                end,
            )
            return earliest
        return wanted

    # --- Faust's own idea of liveness (ours is /livez, which asks for progress)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Say nothing: a batch that waits for the store is no livelock."""


class BatchTransport(faust_aiokafka.Transport):  # type: ignore[misc]
    """Faust's aiokafka transport whose consumer delivers the records of `topics` in batches."""

    Consumer: ClassVar[type[BatchConsumer]] = BatchConsumer
    Producer: ClassVar[type[PatientProducer]] = PatientProducer

    #: The topics read in batches, in the order in which they are started after a rebalance.
    topics: tuple[str, ...] = ()
    listener: BatchListener
