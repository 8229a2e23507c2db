"""The Faust agents: thin, and they never raise.

An exception in an agent would acknowledge its event and go on with the next one; so a bug is handed to the worker,
which stops the process, and the next one reads on from what is stored.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

import faust

from pipeline.streaming.ports import RecordBatch
from pipeline.streaming.worker import Worker
from pipeline.topics import CHECK_INS, VENUES


def add_agents(app: faust.App, worker: Worker[object]) -> None:
    """Give the app its agents. One at a time each: Faust would commit past what a slower one still works on."""
    _add(app, VENUES, worker.submit_venues, worker.fail)
    _add(app, CHECK_INS, worker.submit, worker.fail)


def _add(
    app: faust.App,
    topic: str,
    submit: Callable[[RecordBatch], Awaitable[None]],
    fail: Callable[[BaseException], None],
) -> None:
    async def agent(batches: AsyncIterator[RecordBatch]) -> None:
        async for batch in batches:
            try:
                await submit(batch)
            except Exception as error:
                fail(error)

    source = app.topic(topic, key_serializer="raw", value_serializer="raw", acks=False)  # the worker commits
    app.agent(source, name=f"pipeline.{topic}", concurrency=1)(agent)
