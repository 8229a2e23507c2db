"""The loop beside that of the scans, with a tracer that only counts."""

import asyncio
from typing import Any
from unittest.mock import MagicMock

from pipeline.store.tracing import Untold
from pipeline.streaming.metrics import Metrics
from pipeline.streaming.tracing import TracingLoop


class _AlwaysDue:
    """A tracer that never comes to an end; asked too often without a pause it says so, where an endless loop would not."""

    contradicted = False

    def __init__(self) -> None:
        self.asked = 0

    @property
    def due(self) -> int:
        self.asked += 1
        assert self.asked < 10_000, "the loop never lets go"
        return 1

    def trace_some(self) -> int:
        return 1

    def untold(self) -> None:
        return None

    def close(self) -> None: ...


def loop_over(tracer: Any) -> TracingLoop:
    async def refuse(_letters: Any) -> None: ...

    return TracingLoop(
        tracer,
        MagicMock(spec_set=Metrics()),
        alone=True,
        caught_up=lambda: True,
        publish=MagicMock(),
        refuse=refuse,
        done=lambda _offsets: None,
    )


def test_a_worker_that_stops_while_cases_are_due_lets_the_event_loop_go_on() -> None:
    async def scene() -> None:
        loop = loop_over(_AlwaysDue())
        running = asyncio.create_task(loop.run())
        await asyncio.sleep(0.2)
        await loop.stop()
        await asyncio.wait_for(running, 5)

    asyncio.run(scene())


def test_nothing_is_traced_while_a_visitor_is_erased_and_what_was_is_looked_at_anew() -> None:
    async def scene() -> list[str]:
        happened: list[str] = []
        tracer = MagicMock(contradicted=False)
        tracer.trace_some.side_effect = lambda: happened.append("traced")
        tracer.forget.side_effect = lambda: happened.append("forgotten")
        tracer.own_again.side_effect = lambda: happened.append("anew")
        tracing = loop_over(tracer)
        async with tracing.standing_still():
            pass_under_way = asyncio.create_task(tracing._until_stored(tracer.trace_some))
            await asyncio.sleep(0.2)
            happened.append("erased")
        await pass_under_way
        return happened

    assert asyncio.run(scene()) == ["erased", "forgotten", "traced", "anew"]


def test_a_worker_that_stops_first_tells_what_only_it_knows_to_be_told_wrongly() -> None:
    """Another owns the case by now, and has told the truth before us: nobody else would tell it again."""

    async def scene() -> list[str]:
        told: list[str] = []
        left = [Untold("exposures", "case", [b"as it stands"])]
        kafka = asyncio.Event()
        tracer = MagicMock(due=0, contradicted=True)
        tracer.untold.side_effect = lambda: left[0] if left else None

        def note(_told: Untold) -> None:
            left.clear()
            tracer.contradicted = False

        async def publish(_topic: str, _key: str, _messages: Any) -> None:
            await kafka.wait()
            told.append("told")

        tracer.note_told.side_effect = note
        tracer.close.side_effect = lambda: told.append("closed")
        loop = loop_over(tracer)
        loop._publish = publish
        running = asyncio.create_task(loop.run())
        stopping = asyncio.create_task(loop.stop())
        await asyncio.sleep(0.2)
        kafka.set()
        await asyncio.wait_for(stopping, 3)
        await asyncio.wait_for(running, 5)
        return told

    assert asyncio.run(scene()) == ["told", "closed"]
