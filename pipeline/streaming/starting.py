"""Clients of Kafka that are started in the very moment in which it goes away: they wait for it, as they do later on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.errors import KafkaConnectionError
from faust.transport.drivers import aiokafka as faust_aiokafka

log = logging.getLogger(__name__)

#: Between two tries, in seconds.
AGAIN_SECONDS = 2.0


async def until_started(start: Callable[[], Awaitable[None]], client: Callable[[], Any]) -> None:
    """Start a client, with a new one after each that found no Kafka; `client` gives the one that was started last."""
    while True:
        try:
            return await start()
        except KafkaConnectionError as error:
            log.warning("Kafka went away while this worker started (%s); trying again", error)
            await client().stop()
        await asyncio.sleep(AGAIN_SECONDS)


class PatientProducer(faust_aiokafka.Producer):  # type: ignore[misc]
    """Faust's producer, which waits for Kafka as it starts."""

    logger = logging.getLogger("faust")

    async def on_start(self) -> None:
        """Do what Faust does, until Kafka is there."""
        await until_started(super().on_start, lambda: self._producer)
