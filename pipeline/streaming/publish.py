"""Records to Kafka by the batch: a future for each cost 150 µs a record, and a worker that catches up has many alerts to tell."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import faust
from aiokafka.errors import KafkaError

from pipeline.topics import partition_of

log = logging.getLogger(__name__)

#: Records that are on their way together.
SENT_AT_ONCE: Final = 1_000
#: Pauses between tries while Kafka is away: doubled from the first to the last, in seconds.
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 15.0


async def publish(app: faust.App, topic: str, records: Sequence[tuple[bytes, bytes]], what: str) -> None:
    """Send records (key, value), those of a key in order, trying until Kafka has them all (so: at least once)."""
    producer = app.producer._ensure_producer()
    for first in range(0, len(records), SENT_AT_ONCE):
        part = records[first : first + SENT_AT_ONCE]
        pause = _FIRST_PAUSE
        while True:
            try:
                await _send(producer, topic, part)
                break
            except KafkaError as error:
                log.warning("%d %s could not be sent yet (%s); trying again", len(part), what, type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)


async def _send(producer: Any, topic: str, records: Sequence[tuple[bytes, bytes]]) -> None:
    partitions = len(await producer.partitions_for(topic))
    now = time.time_ns() // 1_000_000
    batches: dict[int, list[Any]] = {}
    for key, value in records:
        some = batches.setdefault(partition_of(key, partitions), [])
        if not some or some[-1].append(timestamp=now, key=key, value=value) is None:
            some.append(producer.create_batch())
            some[-1].append(timestamp=now, key=key, value=value)
    sent = [
        await producer.send_batch(batch, topic, partition=partition)
        for partition, some in batches.items()
        for batch in some
    ]
    await asyncio.gather(*sent)
