"""The loop beside that of the scans, with a tracer that only counts."""

import asyncio
from typing import Any
from unittest.mock import MagicMock

from pipeline.streaming.metrics import Metrics
from pipeline.streaming.tracing import TracingLoop


class _AlwaysDue:
    """A tracer that never comes to an end; asked too often without a pause it says so, where an endless loop would not."""

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


def test_a_worker_that_stops_while_cases_are_due_lets_the_event_loop_go_on() -> None:
    async def refuse(_letters: Any) -> None: ...

    async def scene() -> None:
        loop = TracingLoop(
            _AlwaysDue(),  # type: ignore[arg-type]
            MagicMock(spec_set=Metrics()),
            alone=True,
            caught_up=lambda: True,
            publish=MagicMock(),
            refuse=refuse,
            done=lambda _offsets: None,
        )
        running = asyncio.create_task(loop.run())
        await asyncio.sleep(0.2)
        await loop.stop()
        await asyncio.wait_for(running, 5)

    asyncio.run(scene())
