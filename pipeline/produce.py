"""Scans sent to Kafka: record by record, or whole files, in batches that are built here."""

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from pipeline.cluster import check_reachable, unreachable
from pipeline.errors import UserError
from pipeline.files import read_records
from pipeline.kafka_access import KafkaAccess
from pipeline.topics import partition_of

R = TypeVar("R")

# aiokafka's own `send` makes a future for each record: filling its batches ourselves is four times as fast, and fifteen
# times as fast as kafka-python. A batch must stay under the topic's max.message.bytes, 1 MiB unless set.
_BATCH_BYTES: Final = 512 << 10
#: Scans shrink to a seventh or less on the wire and on the broker's disk, for a quarter more of our time; lz4 and snappy
#: cost more here and save less.
_COMPRESSION: Final = "zstd"
#: Batches under way for each partition before `send` waits.
_BATCHES_AHEAD: Final = 2
#: A record waits at most about this long for its batch to fill, in seconds.
_LINGER_SECONDS: Final = 0.05
#: After this long without an answer a batch is given up, in seconds.
_GIVE_UP_SECONDS: Final = 20.0
_TOPIC_SECONDS: Final = 5.0
#: Keys whose partition is remembered; a nation has some 60,000 venues.
_MOST_KEYS: Final = 1_000_000

_VENUE_ID: Final = re.compile(rb'"venue_id"\s*:\s*"([A-Za-z0-9._:-]{1,64})"').search

# What goes wrong reaches the user as one sentence; without a handler Python would print the client's own log besides.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())


def venue_key(record: bytes) -> bytes | None:
    """The key of a scan: its venue_id in UTF-8; None where none can be read."""
    found = _VENUE_ID(record)
    # A key within an object, written twice or with escapes: only a JSON reader tells which holds.
    if found and record.count(b'"venue_id"') == 1 and record.count(b"{") == 1:
        return found[1]
    try:
        venue = json.loads(record)["venue_id"]
        return venue.encode() if isinstance(venue, str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Produced:
    """What a run sent. `too_large` records are more than the topic takes, and were left out."""

    records: int
    files: int
    seconds: float
    too_large: int


class ScanProducer:
    """Sends records to one topic, each to the partition that Kafka's own clients choose for its key (murmur2).

    Records without a key are dealt out in turn. A record that is more than the topic takes is left out and counted in
    `too_large`; any other failure raises UserError from the next call. Not to be shared between threads.
    """

    def __init__(self, kafka: KafkaAccess | str, topic: str) -> None:
        """Connect. Raises UserError when Kafka does not answer, does not let us in, or has no such topic."""
        self._kafka = KafkaAccess.of(kafka)
        servers = check_reachable(self._kafka)
        self._topic = topic
        #: Records that Kafka has confirmed, and those it found too large.
        self.confirmed = 0
        self.too_large = 0
        self._failure: UserError | None = None
        self._partition_of: dict[bytes, int] = {}
        self._turn = 0
        self._filling: dict[int, Any] = {}
        self._filling_lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="produce", daemon=True)
        self._thread.start()
        try:
            self._partitions = self._run(self._open(servers))
        except BaseException:
            self._end_loop()
            raise
        self._ahead = threading.Semaphore(_BATCHES_AHEAD * self._partitions)
        self._queues = [asyncio.Lock() for _ in range(self._partitions)]
        self._under_way: set[Future[None]] = set()
        self._linger = asyncio.run_coroutine_threadsafe(self._ship_often(), self._loop)

    def send(self, key: bytes | None, value: bytes, timestamp_ms: int | None = None) -> None:
        """Queue one record; waits while too much is under way. `timestamp_ms` is since the epoch, default now."""
        with self._filling_lock:
            self._add(key, value, timestamp_ms if timestamp_ms is not None else time.time_ns() // 1_000_000)

    def send_scans(self, records: Sequence[bytes | None]) -> None:
        """Queue scans as they are, malformed or not, each with its venue as the key and now as its timestamp."""
        now = time.time_ns() // 1_000_000
        with self._filling_lock:
            for record in records:
                value = record or b""
                self._add(venue_key(value), value, now)

    def flush(self) -> None:
        """Wait until Kafka has confirmed everything sent so far. Raises UserError if it does not."""
        with self._filling_lock:
            for partition in list(self._filling):
                self._ship(partition)
        for delivery in list(self._under_way):
            delivery.result()
        self._check()

    def close(self) -> None:
        """Flush, and part with Kafka."""
        try:
            if self._failure is None:
                self.flush()
        finally:
            self._linger.cancel()
            with suppress(KafkaError, OSError, TimeoutError):
                self._run(asyncio.wait_for(self._producer.stop(), _TOPIC_SECONDS))
            with suppress(KafkaError, OSError):
                self._run(self._producer.client.close())
            self._end_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, key: bytes | None, value: bytes, timestamp_ms: int) -> None:
        partition = self._choose(key)
        batch = self._filling.get(partition)
        if batch is None or batch.append(timestamp=timestamp_ms, key=key, value=value) is None:
            if batch is not None:
                self._ship(partition)
            self._check()
            batch = self._filling[partition] = self._producer.create_batch()
            batch.append(timestamp=timestamp_ms, key=key, value=value)

    def _choose(self, key: bytes | None) -> int:
        if key is None:
            self._turn = (self._turn + 1) % self._partitions
            return self._turn
        partition = self._partition_of.get(key)
        if partition is None:
            if len(self._partition_of) >= _MOST_KEYS:
                self._partition_of.clear()
            partition = self._partition_of[key] = partition_of(key, self._partitions)
        return partition

    def _ship(self, partition: int) -> None:
        """Hand over a partition's batch; the caller holds the lock."""
        self._ahead.acquire()
        self._hand_over(partition)

    def _hand_over(self, partition: int) -> None:
        batch = self._filling.pop(partition)
        batch.close()
        delivery = asyncio.run_coroutine_threadsafe(self._deliver(batch, partition), self._loop)
        self._under_way.add(delivery)
        delivery.add_done_callback(self._under_way.discard)

    async def _deliver(self, batch: Any, partition: int) -> None:
        try:
            async with self._queues[partition]:
                if self._failure is not None:
                    return
                confirmation = await self._producer.send_batch(batch, self._topic, partition=partition)
            await confirmation
            self.confirmed += batch.record_count()
        except (KafkaError, OSError) as error:
            if isinstance(error, MessageSizeTooLargeError) and batch.record_count() == 1:
                self.too_large += 1
                return
            self._failure = (
                self._failure
                or self._forbidden(error)
                or UserError(
                    f"Kafka at {self._kafka.address} took no more records of {self._topic} after {self.confirmed:,} "
                    f"({type(error).__name__}); see whether it runs with: pipeline broker status"
                )
            )
        finally:
            self._ahead.release()

    async def _ship_often(self) -> None:
        """Records of a slow sender must not wait for their batch to fill."""
        before: dict[int, Any] = {}
        while True:
            await asyncio.sleep(_LINGER_SECONDS)
            if not self._filling_lock.acquire(blocking=False):
                continue
            try:
                for partition, batch in list(self._filling.items()):
                    if batch is before.get(partition) and self._ahead.acquire(blocking=False):
                        self._hand_over(partition)
                before = dict(self._filling)
            finally:
                self._filling_lock.release()

    async def _open(self, servers: list[str]) -> int:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=servers,
            # Not idempotent: that never gives up, and a record left out would be a gap in its numbers for ever. A retry
            # may write a batch twice, which changes nothing: scans are a set, and of a venue the newest record holds.
            acks="all",
            request_timeout_ms=int(_GIVE_UP_SECONDS * 1000),
            max_batch_size=_BATCH_BYTES,
            compression_type=_COMPRESSION,
            **self._kafka.options(),
        )
        try:
            await asyncio.wait_for(self._producer.start(), _GIVE_UP_SECONDS)
        except (KafkaError, OSError, TimeoutError):
            raise await self._kafka.refusal(guess=True) or unreachable(self._kafka.address) from None
        try:
            known = await asyncio.wait_for(self._producer.partitions_for(self._topic), _TOPIC_SECONDS)
        except (TimeoutError, UnknownTopicOrPartitionError):
            await self._producer.stop()
            raise UserError(
                f"Kafka at {self._kafka.address} has no topic {self._topic}; create it with: pipeline topics"
            ) from None
        except TopicAuthorizationFailedError as error:
            await self._producer.stop()
            raise self._forbidden(error) or error from None
        return len(known)

    def _forbidden(self, error: BaseException) -> UserError | None:
        return self._kafka.forbidden(error, f"write the topic {self._topic}")

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    """What a client that lost its broker leaves running must not be there when its loop is closed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def produce_files(
    producer: ScanProducer, paths: Iterable[Path], progress: Callable[[int], None] = lambda _bytes: None
) -> Produced:
    """Send the files' records in order and wait until Kafka has them all; `progress` is told of every number of bytes.

    Raises UserError for a file that cannot be read (what stands before that place is sent) and for a Kafka that is gone.
    """
    began = time.monotonic()
    files = 0
    for path in paths:
        for records in read_records(path, progress):
            producer.send_scans(records)
        files += 1
    producer.flush()
    return Produced(producer.confirmed, files, time.monotonic() - began, producer.too_large)
