"""Clients of Kafka that are started while it goes away."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from pipeline.broker import HOST, free_port
from pipeline.streaming import starting

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize(
    "kind", [AIOKafkaProducer, partial(AIOKafkaConsumer, group_id="starting")], ids=["producer", "consumer"]
)
def test_a_client_that_finds_no_kafka_as_it_starts_waits_for_it(
    kind: Callable[..., Any], kafka_topics: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "AGAIN_SECONDS", 0.1)
    nowhere, there = f"{HOST}:{free_port()}", kafka_topics()
    clients: list[Any] = []

    async def start() -> None:
        clients.append(kind(bootstrap_servers=nowhere if len(clients) < 2 else there))
        await clients[-1].start()

    async def scene() -> None:
        await starting.until_started(start, lambda: clients[-1])
        await clients[-1].stop()

    asyncio.run(asyncio.wait_for(scene(), 60))
    assert len(clients) == 3
