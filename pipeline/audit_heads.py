"""Heads of the audit log in Kafka: told there, and read back."""

import json
from dataclasses import asdict

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from pipeline.audit import Head
from pipeline.cluster import check_reachable
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
    servers = check_reachable(address)
    found = []
    try:
        consumer = KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
        try:
            partitions = consumer.partitions_for_topic(AUDIT_HEADS)
            if not partitions:
                raise UserError(f"Kafka at {address} has no topic {AUDIT_HEADS}; create it with: pipeline topics")
            places = [TopicPartition(AUDIT_HEADS, number) for number in sorted(partitions)]
            consumer.assign(places)
            ends = consumer.end_offsets(places)
            consumer.seek_to_beginning(*places)
            while any(consumer.position(place) < ends[place] for place in places):
                for records in consumer.poll(timeout_ms=_READ_MS).values():
                    found += [Head(**json.loads(record.value)) for record in records]
        finally:
            consumer.close()
    except (KafkaError, ValueError, TypeError) as error:
        raise UserError(f"the topic {AUDIT_HEADS} at {address} cannot be read ({type(error).__name__})") from None
    return found
