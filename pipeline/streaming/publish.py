"""Records to Kafka, until it has them: by the batch, where a worker that catches up has very many to tell."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import faust
from aiokafka.errors import KafkaError

from pipeline.topics import partition_of

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Records that are on their way together.
SENT_AT_ONCE: Final = 1_000
#: Pauses between tries while Kafka is away: doubled from the first to the last, in seconds.
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 15.0

#: Records that could not be sent yet, each with why.
Failed = list[tuple[T, BaseException]]


async def until_sent(records: Sequence[T], send: Callable[[Sequence[T]], Awaitable[Failed[T]]], what: str) -> None:
    """Send, and send again what failed, until nothing does."""
    pause = _FIRST_PAUSE
    while records:
        failed = await send(records)
        if failed:
            why = type(failed[0][1]).__name__
            log.warning("%d %s could not be sent yet (%s); trying again", len(failed), what, why)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)
        records = [record for record, _ in failed]


async def publish(app: faust.App, topic: str, records: Sequence[tuple[bytes, bytes]], what: str) -> None:
    """Send records (key, value), those of a key in order, trying until Kafka has them all (so: at least once)."""
    send = partial(_send, app.producer._ensure_producer(), topic)
    for first in range(0, len(records), SENT_AT_ONCE):
        await until_sent(records[first : first + SENT_AT_ONCE], send, what)


async def _send(producer: Any, topic: str, records: Sequence[tuple[bytes, bytes]]) -> Failed[tuple[bytes, bytes]]:
    # All of them or none: those of a key must stay in order.
    try:
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
    except KafkaError as error:
        return [(record, error) for record in records]
    return []
