"""The Faust app: nothing but a consumer group, a producer and agents. No tables, no web, no topics of its own."""

import asyncio
import logging
from collections.abc import Sequence

import faust
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faust.exceptions import ProducerSendError
from faust.tables import TableManager

from pipeline.alert_notice import AlertNotice
from pipeline.dead_letters import DeadLetter
from pipeline.settings import Settings
from pipeline.streaming.batch_transport import BatchTransport
from pipeline.streaming.publish import Failed, publish, until_sent
from pipeline.topics import CROWDING_ALERTS, DEAD_LETTERS

log = logging.getLogger(__name__)

#: A dead worker's partitions move on after this long, in seconds: the least that a broker takes unless told otherwise.
SESSION_SECONDS = 6.0
#: Who leads the group deals out the partitions that it knows of. One whose question for them was cut off knows of none, and
#: nobody reads anything until it asks again: so often, in seconds. Faust's default is five minutes.
METADATA_SECONDS = 10.0
#: How long a partition may stand still before the group expels its worker. A day: the store may be away that long.
POLL_SECONDS = 86_400.0
#: Batches that may wait for an agent; more would only hold memory.
QUEUED_BATCHES = 8
#: At most this much of one partition in one answer; compressed records grow about sevenfold.
FETCH_BYTES = 2 << 20
#: The largest dead letter that is sent whole.
LARGEST_LETTER = 16 << 20


# Named classes of Faust's services would log under this module's name; theirs is held to warnings.
_FAUST_LOG = logging.getLogger("faust")


class _App(faust.App):  # type: ignore[misc]
    logger = _FAUST_LOG

    def _create_directories(self) -> None:
        """Make none: there are no tables to keep."""


class _NoTables(TableManager):  # type: ignore[misc]
    logger = _FAUST_LOG

    async def on_start(self) -> None:
        """Start without Faust's pause of a second, which is for tables to be declared in."""
        await self._update_channels()
        await self.recovery.start()


def build_app(settings: Settings, topics: tuple[str, ...]) -> faust.App:
    """The app, without agents. It reads `topics`, in batches, started in this order; its transport needs a `listener` before.

    The venue registry comes first, so that visits are not computed twice when both are waiting.
    """
    app = _App(
        settings.group,
        broker=[f"kafka://{server}" for server in settings.kafka_access.servers],
        broker_credentials=settings.kafka_access.faust_credentials(),
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        web_tables_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        processing_guarantee="at_least_once",
        broker_session_timeout=SESSION_SECONDS,
        broker_heartbeat_interval=SESSION_SECONDS / 4,
        broker_max_poll_interval=POLL_SECONDS,
        broker_request_timeout=40.0,
        consumer_metadata_max_age_ms=int(METADATA_SECONDS * 1000),
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        producer_max_request_size=LARGEST_LETTER + (1 << 20),
        stream_buffer_maxsize=QUEUED_BATCHES,
        stream_wait_empty=False,
        TableManager=_NoTables,
    )
    transport = BatchTransport(app.conf.broker_consumer, app)
    transport.topics = topics
    app.transport = transport
    return app


async def publish_dead_letters(app: faust.App, letters: list[DeadLetter]) -> None:
    """Send refused records to the topic dead-letters, trying until Kafka has them all (so: at least once)."""

    async def send(some: Sequence[DeadLetter]) -> Failed[DeadLetter]:
        outcomes = await asyncio.gather(*(_publish(app, letter) for letter in some), return_exceptions=True)
        failed: Failed[DeadLetter] = []
        for letter, outcome in zip(some, outcomes, strict=True):
            if isinstance(outcome, ProducerSendError | KafkaError):
                failed.append((letter, outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        return failed

    await until_sent(letters, send, "dead letters")


async def publish_alerts(app: faust.App, notices: Sequence[AlertNotice]) -> None:
    """Send crowding alerts to their topic, trying until Kafka has them all (so: at least once)."""
    records = [(notice.venue.encode(), notice.message().model_dump_json().encode()) for notice in notices]
    await publish(app, CROWDING_ALERTS, records, "crowding alerts")


async def publish_records(app: faust.App, topic: str, key: str, values: Sequence[bytes]) -> None:
    """Send records of one key, in order, trying until Kafka has them all (so: at least once)."""
    await publish(app, topic, [(key.encode(), value) for value in values], f"records of {topic}")


async def _publish(app: faust.App, letter: DeadLetter) -> None:
    headers = {
        "topic": letter.topic,
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "reason": letter.reason,
        "detail": letter.detail,
    }
    encoded = [(name, text.encode()) for name, text in headers.items()]
    value = letter.value
    try:
        await (await app.producer.send(DEAD_LETTERS, letter.key, value, None, None, encoded))
    except (MessageSizeTooLargeError, ProducerSendError) as error:
        if not isinstance(error.__cause__ or error, MessageSizeTooLargeError):
            raise
        log.warning(
            "the record %s/%d at offset %d is too large for the topic %s: sent without its bytes",
            letter.topic,
            letter.partition,
            letter.offset,
            DEAD_LETTERS,
        )
        await (await app.producer.send(DEAD_LETTERS, letter.key, None, None, None, encoded))
