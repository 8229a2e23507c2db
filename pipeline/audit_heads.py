"""Heads of the audit log in Kafka: told there, and read back."""

import asyncio
import json
from dataclasses import asdict

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.audit import Head
from pipeline.cluster import open_admin
from pipeline.errors import UserError
from pipeline.kafka_access import KafkaAccess
from pipeline.produce import ScanProducer
from pipeline.topics import AUDIT_HEADS

_READ_MS = 1_000


def message_of(head: Head) -> bytes:
    """A head as it is sent."""
    return json.dumps(asdict(head), separators=(",", ":")).encode()


def tell_head(kafka: KafkaAccess | str, head: Head) -> None:
    """Send a head. Raises UserError when Kafka does not take it."""
    with ScanProducer(kafka, AUDIT_HEADS) as producer:
        producer.send(head.log.encode(), message_of(head))


def told_heads(kafka: KafkaAccess | str) -> list[Head]:
    """Every head that was ever told. Raises UserError when Kafka does not answer or has no such topic."""
    access = KafkaAccess.of(kafka)
    with open_admin(access) as admin:
        if AUDIT_HEADS not in admin.list_topics():
            raise UserError(
                f"Kafka at {access.address} has no topic {AUDIT_HEADS} that {access.name} may see; "
                "create it with: pipeline topics"
            )
        partitions = len(admin.describe_topics([AUDIT_HEADS])[0]["partitions"])
    try:
        return asyncio.run(_read(access, partitions))
    except (KafkaError, ValueError, TypeError) as error:
        raise access.forbidden(error, f"read the topic {AUDIT_HEADS}") or UserError(
            f"the topic {AUDIT_HEADS} at {access.address} cannot be read ({type(error).__name__})"
        ) from None


async def _read(access: KafkaAccess, partitions: int) -> list[Head]:
    # Not by a seek after `assign`: the look-up of the end that assigning has begun may come back later, and win.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=access.servers, enable_auto_commit=False, auto_offset_reset="earliest", **access.options()
    )
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
