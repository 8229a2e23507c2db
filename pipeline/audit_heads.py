"""Heads of the audit log in Kafka: told there, and read back."""

import asyncio
import json
from dataclasses import asdict

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.audit import Head
from pipeline.cluster import open_admin
from pipeline.errors import UserError
from pipeline.produce import ScanProducer
from pipeline.topics import AUDIT_HEADS

_READ_MS = 1_000


def message_of(head: Head) -> bytes:
    """A head as it is sent."""
    return json.dumps(asdict(head), separators=(",", ":")).encode()


def tell_head(address: str, head: Head) -> None:
    """Send a head. Raises UserError when Kafka does not take it."""
    with ScanProducer(address, AUDIT_HEADS) as producer:
        producer.send(head.log.encode(), message_of(head))


def told_heads(address: str) -> list[Head]:
    """Every head that was ever told. Raises UserError when Kafka does not answer or has no such topic."""
    with open_admin(address) as admin:
        if AUDIT_HEADS not in admin.list_topics():
            raise UserError(f"Kafka at {address} has no topic {AUDIT_HEADS}; create it with: pipeline topics")
        partitions = len(admin.describe_topics([AUDIT_HEADS])[0]["partitions"])
    try:
        return asyncio.run(_read(address.split(","), partitions))
    except (KafkaError, ValueError, TypeError) as error:
        raise UserError(f"the topic {AUDIT_HEADS} at {address} cannot be read ({type(error).__name__})") from None


async def _read(servers: list[str], partitions: int) -> list[Head]:
    # Not by a seek after `assign`: the look-up of the end that assigning has begun may come back later, and win.
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest")
    found = []
    try:
        await consumer.start()
        places = [TopicPartition(AUDIT_HEADS, number) for number in range(partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        while [place for place in places if await consumer.position(place) < ends[place]]:
            for records in (await consumer.getmany(timeout_ms=_READ_MS)).values():
                found += [Head(**json.loads(record.value)) for record in records]
    finally:
        await consumer.stop()
    return found
