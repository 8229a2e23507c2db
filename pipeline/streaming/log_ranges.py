"""Before Faust starts: is Kafka there, and the topics?"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.errors import UserError
from pipeline.kafka_access import KafkaAccess
from pipeline.streaming.ports import Partition

log = logging.getLogger(__name__)

#: Pauses between tries while Kafka is away: doubled from the first to the last, in seconds.
FIRST_PAUSE, LAST_PAUSE = 2.0, 30.0


@dataclass(frozen=True, slots=True)
class LogRanges:
    """What the topics hold: per partition the first offset, and the one after the last."""

    first: dict[Partition, int]
    end: dict[Partition, int]

    @property
    def waiting(self) -> dict[Partition, int]:
        """The ends of the partitions that hold anything."""
        return {each: end for each, end in self.end.items() if end > self.first[each]}


async def wait_for_kafka(kafka: KafkaAccess, read: Sequence[str], written: Sequence[str]) -> LogRanges:
    """Ask for the ranges of the topics to be `read` until Kafka answers.

    Raises UserError if one of them, or of those to be `written`, is missing, and if Kafka does not let us in.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return await _ask(kafka, read, written)
        except (KafkaError, OSError) as error:
            refusal = kafka.forbidden(error, f"read {', '.join(read)}") or await kafka.refusal(guess=False)
            if refusal is not None:
                raise refusal from None
            log.warning(
                "Kafka does not answer at %s (%s); trying again in %.0f s; start one with: pipeline broker start",
                kafka.address,
                str(error).splitlines()[0] if str(error) else type(error).__name__,
                pause,
            )
        await asyncio.sleep(pause)
        pause = min(pause * 2, LAST_PAUSE)


async def _ask(kafka: KafkaAccess, read: Sequence[str], written: Sequence[str]) -> LogRanges:
    options = {"bootstrap_servers": kafka.servers, **kafka.options()}
    admin = AIOKafkaAdminClient(**options)
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **options)
    try:
        await admin.start()
        present = await admin.list_topics()
        missing = [topic for topic in (*read, *written) if topic not in present]
        if missing:
            raise UserError(
                f"Kafka at {kafka.address} has no topic {', '.join(missing)} that {kafka.name} may see; "
                "create them with: pipeline topics"
            )
        partitions = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in await admin.describe_topics(list(read))
            for partition in topic["partitions"]
        ]
        await consumer.start()
        first = await consumer.beginning_offsets(partitions)
        end = await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()
        await admin.close()
    return LogRanges({tuple(tp): at for tp, at in first.items()}, {tuple(tp): at for tp, at in end.items()})
