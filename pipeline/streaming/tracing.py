"""The loop beside that of the scans: case reports from Kafka to the store, exposures and warnings from the store to Kafka.

Everything that touches the tracer runs in one thread of its own, with its own connection: scans never wait for tracing. The
reports of a batch are stored at once; their offsets are committed when everything that follows from them is stored and
published, though nothing would be lost otherwise: what is stored and not traced, or not published, is found again at the start.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from pipeline.dead_letters import DeadLetter
from pipeline.errors import StoreUnavailableError
from pipeline.streaming.metrics import Metrics
from pipeline.streaming.ports import Partition, RecordBatch, Tracer

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often is looked whether a stored scan made a case due, in seconds.
POLL_SECONDS = 0.05
#: While scans wait to be read tracing waits too, because it would only be done again; at most this long, in seconds.
PATIENCE_SECONDS = 30.0
#: With several workers a scan at a venue of another one is found by tracing every case again this often, in seconds; or three
#: times as seldom as that takes, whichever is longer.
SWEEP_SECONDS = 60.0
#: How long, in seconds, a worker that stops waits for Kafka and the store to take what it is just telling.
LAST_WORDS_SECONDS = 5.0
#: Pauses between tries while the store is away: doubled from the first to the last, in seconds.
FIRST_PAUSE, LAST_PAUSE = 0.5, 15.0


class TracingLoop:
    """One worker's loop over a tracer.

    `alone`: no other worker writes to the store. `caught_up` says whether every scan in Kafka is stored; `publish` sends
    messages of one key, and returns once Kafka has them; `refuse` does so with dead letters; `done` is told of offsets that may
    be committed.
    """

    def __init__(
        self,
        tracer: Tracer,
        metrics: Metrics,
        *,
        alone: bool,
        caught_up: Callable[[], bool],
        publish: Callable[[str, str, Sequence[bytes]], Awaitable[None]],
        refuse: Callable[[list[DeadLetter]], Coroutine[None, None, None]],
        done: Callable[[Mapping[Partition, int]], None],
    ) -> None:
        self._tracer = tracer
        self._metrics = metrics
        self._alone = alone
        self._caught_up = caught_up
        self._publish = publish
        self._refuse = refuse
        self._done = done
        self._thread = ThreadPoolExecutor(1, "tracing")
        self._loaded: dict[Partition, int] = {}
        self._due_since: float | None = None
        # Number of the last look at what is left to do, and of the last one that found nothing.
        self._looked = self._nothing_left = 0
        self._hurry = False
        # Whether something is on its way to Kafka, or not looked at once more since.
        self._telling = False
        self._stopping = False
        self._swept_at, self._sweep_began, self._sweep_seconds = time.monotonic(), 0.0, 0.0

    # --- what the worker calls

    async def assigned(self, partitions: Collection[int]) -> Mapping[int, int | None]:
        """Take over partitions of case-reports."""
        self._loaded.clear()
        everything = self._alone and bool(partitions)
        nexts = await self._until_stored(lambda: self._tracer.own(partitions, everything=everything))
        return nexts if nexts is not None else dict.fromkeys(partitions)

    async def revoked(self) -> None:
        """Give all cases back."""
        await self.assigned(())

    async def changed(self) -> None:
        """Something other than scans and reports has changed the store: take the same cases over anew."""
        await self._until_stored(self._tracer.own_again)

    @asynccontextmanager
    async def standing_still(self) -> AsyncIterator[None]:
        """Nothing is traced or stored here within the block; what was known is forgotten, and the cases are taken over anew."""
        stands, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def stand() -> None:
            loop.call_soon_threadsafe(stands.set)
            go_on.wait()
            self._tracer.forget()

        standing = loop.run_in_executor(self._thread, stand)
        try:
            await stands.wait()
            yield
        finally:
            go_on.set()
            await standing
        await self.changed()

    async def submit(self, batch: RecordBatch) -> None:
        """Store a batch of reports."""
        letters = await self._until_stored(
            lambda: self._tracer.load(
                batch.topic,
                batch.partition,
                batch.offsets.tolist(),
                batch.timestamps_ms.tolist(),
                batch.keys,
                batch.values,
            )
        )
        if letters is not None:
            await self._refuse(letters)
            self._loaded[batch.topic, batch.partition] = batch.end

    async def settle(self) -> None:
        """Return once everything that follows from what is stored is stored and published."""
        self._hurry = True
        asked = self._looked
        while not self._stopping and self._nothing_left <= asked:
            await asyncio.sleep(POLL_SECONDS)
        self._hurry = False

    async def run(self) -> None:
        """Trace and publish until cancelled."""
        await asyncio.gather(self._trace(), self._send())

    async def stop(self) -> None:
        """Finish the pass under way, set right what only this worker knows to be told wrongly, and give the store back."""
        patience = time.monotonic() + LAST_WORDS_SECONDS
        while (self._telling or self._tracer.contradicted) and time.monotonic() < patience:
            await asyncio.sleep(POLL_SECONDS)
        self._stopping = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._tracer.close)
        self._thread.shutdown()

    # --- the two loops

    async def _trace(self) -> None:
        while not self._stopping:
            self._metrics.cases_due.set(self._tracer.due)
            self._sweep_if_due()
            if not self._tracer.due:
                self._due_since = None
            elif self._is_time():
                begun = time.monotonic()
                traced = await self._until_stored(self._tracer.trace_some)
                self._done({})
                if traced:
                    self._metrics.pass_seconds.observe(time.monotonic() - begun)
                    continue
            await asyncio.sleep(POLL_SECONDS)

    def _is_time(self) -> bool:
        self._due_since = self._due_since or time.monotonic()
        waited = time.monotonic() - self._due_since
        return self._hurry or self._caught_up() or waited > PATIENCE_SECONDS

    def _sweep_if_due(self) -> None:
        now = time.monotonic()
        if self._alone or self._tracer.due:
            return
        if self._sweep_began:
            self._sweep_seconds, self._sweep_began, self._swept_at = now - self._sweep_began, 0.0, now
        elif now - self._swept_at > max(SWEEP_SECONDS, 3 * self._sweep_seconds):
            self._sweep_began = now
            self._tracer.again()

    async def _send(self) -> None:
        while True:
            self._looked += 1
            look, loaded = self._looked, dict(self._loaded)
            # Both in one call: a pass in between would empty the one list into the other.
            left = await self._until_stored(lambda: (self._tracer.untold(), self._tracer.due))
            if left is None:
                return
            some, due = left
            if some is not None:
                self._telling = True
                await self._publish(some.topic, some.key, some.messages)
                await self._until_stored(partial(self._tracer.note_told, some))
                self._telling = False
                self._metrics.traced_messages.labels(some.topic).inc(len(some.messages))
                self._done({})
                continue
            if not due:
                self._nothing_left = look
                self._done(loaded)
                self._loaded = {each: at for each, at in self._loaded.items() if loaded.get(each) != at}
            await asyncio.sleep(POLL_SECONDS)

    async def _until_stored(self, call: Callable[[], T]) -> T | None:
        """Call until the store answers; None once the worker stops."""
        pause, away = FIRST_PAUSE, False
        while not self._stopping:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._thread, call)
            except StoreUnavailableError as error:
                self._metrics.store_failures.inc()
                if not away:
                    log.warning("the store is away (%s): tracing waits; nothing is lost", error)
                away = True
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)
        return None
