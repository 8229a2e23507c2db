"""Heads of the audit log in Kafka: told there, and read back."""

import asyncio
import json
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.audit import AuditLog, Head, ToldHead
from pipeline.cluster import open_admin
from pipeline.errors import UserError
from pipeline.kafka_access import KafkaAccess
from pipeline.produce import ScanProducer
from pipeline.settings import Settings
from pipeline.topics import AUDIT_HEADS

log = logging.getLogger(__name__)

#: How often Kafka is told of an audit log's last entry, in seconds.
TELL_SECONDS = 60.0

_READ_MS = 1_000


def message_of(head: Head) -> bytes:
    """A head as it is sent."""
    return json.dumps(asdict(head), separators=(",", ":")).encode()


def tell_head(kafka: KafkaAccess | str, head: Head) -> None:
    """Send a head. Raises UserError when Kafka does not take it."""
    with ScanProducer(kafka, AUDIT_HEADS) as producer:
        producer.send(head.log.encode(), message_of(head))


class HeadTeller:
    """Tells Kafka of this machine's audit log, for a process that has no producer of its own."""

    def __init__(self, settings: Settings) -> None:
        self._audit = AuditLog(settings.audit_path)
        self._kafka = settings.kafka_access
        self._told: Head | None = None
        self._failing = False

    def tell(self) -> None:
        """Tell of the last entry, if that is a new one. What fails is said once, and tried by the next call."""
        try:
            head = self._audit.head()
            if head is None or head == self._told:
                return
            tell_head(self._kafka, head)
        except UserError as error:
            if not self._failing:
                log.warning("Kafka is not told of the audit log's last entry, so a cut would not be found: %s", error)
            self._failing = True
            return
        self._told, self._failing = head, False


@dataclass(slots=True)
class ToldHeads:
    """Every head that is in Kafka, and in sentences what is wrong with the topic itself."""

    heads: list[ToldHead] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def told_heads(kafka: KafkaAccess | str, disregarded: Collection[str] = ()) -> ToldHeads:
    """Every head that was ever told, but for those at the places (`partition/offset`) that were found to be false.

    Raises UserError when Kafka does not answer or has no such topic.
    """
    access = KafkaAccess.of(kafka)
    with open_admin(access) as admin:
        if AUDIT_HEADS not in admin.list_topics():
            raise UserError(
                f"Kafka at {access.address} has no topic {AUDIT_HEADS} that {access.name} may see; "
                "create it with: pipeline topics"
            )
        partitions = len(admin.describe_topics([AUDIT_HEADS])[0]["partitions"])
    try:
        return asyncio.run(_read(access, partitions, disregarded))
    except KafkaError as error:
        raise access.forbidden(error, f"read the topic {AUDIT_HEADS}") or UserError(
            f"the topic {AUDIT_HEADS} at {access.address} cannot be read ({type(error).__name__})"
        ) from None


async def _read(access: KafkaAccess, partitions: int, disregarded: Collection[str]) -> ToldHeads:
    # Not by a seek after `assign`: the look-up of the end that assigning has begun may come back later, and win.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=access.servers, enable_auto_commit=False, auto_offset_reset="earliest", **access.options()
    )
    found = ToldHeads()
    try:
        await consumer.start()
        places = [TopicPartition(AUDIT_HEADS, number) for number in range(partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        gone = dict(ends)
        while [place for place in places if await consumer.position(place) < ends[place]]:
            for place, records in (await consumer.getmany(timeout_ms=_READ_MS)).items():
                gone[place] -= sum(record.offset < ends[place] for record in records)
                for record in records:
                    if (where := f"{place.partition}/{record.offset}") not in disregarded:
                        _take(record.value, where, found)
        found.faults += [
            f"{count} of {ends[place]} heads in partition {place.partition} of the topic {AUDIT_HEADS} are gone: a cut would not "
            "be found. Only Kafka's administrator may delete them; see docs/security.md, The audit log"
            for place, count in gone.items()
            if count
        ]
    finally:
        await consumer.stop()
    return found


def _take(value: bytes | None, where: str, found: ToldHeads) -> None:
    try:
        head = Head(**json.loads(value or b""))
        if (type(head.log), type(head.number), type(head.hash)) != (str, int, str):
            raise TypeError
    except (ValueError, TypeError):
        found.faults.append(
            f"what Kafka has at {where} of the topic {AUDIT_HEADS} is no head: find out who wrote it, then leave it out "
            f"with --disregard {where}"
        )
        return
    found.heads.append(ToldHead(head, where))
