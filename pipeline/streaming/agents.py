"""The Faust agents: thin, and they never raise.

An exception in an agent would acknowledge its event and go on with the next one; so a bug is handed to the worker,
which stops the process, and the next one reads on from what is stored.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

import faust

from pipeline.streaming.ports import RecordBatch
from pipeline.streaming.worker import Worker
from pipeline.topics import CASE_REPORTS, CHECK_INS, VENUES


def add_agents(app: faust.App, worker: Worker[object]) -> None:
    """Give the app an agent for each of its topics. One at a time: Faust would commit past what a slower one still works on."""
    submit = {VENUES: worker.submit_venues, CHECK_INS: worker.submit, CASE_REPORTS: worker.submit_reports}
    for topic in app.transport.topics:
        _add(app, topic, submit[topic], worker.fail)


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
