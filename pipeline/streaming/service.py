"""One worker process from start to exit: waits for Kafka, runs the loop, drains or goes on, leaves cleanly."""

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import faust
from aiokafka.errors import KafkaError

from pipeline.api.server import serve_http
from pipeline.audit import AuditLog
from pipeline.audit_heads import TELL_SECONDS, message_of
from pipeline.errors import StoreUnavailableError, UserError
from pipeline.settings import Settings
from pipeline.streaming.agents import add_agents
from pipeline.streaming.alert_delivery import AlertDelivery
from pipeline.streaming.alertmanager import Alertmanager
from pipeline.streaming.app import build_app, publish_alerts, publish_dead_letters, publish_records
from pipeline.streaming.batch_transport import BatchConsumer
from pipeline.streaming.log_ranges import wait_for_kafka
from pipeline.streaming.metrics import Metrics
from pipeline.streaming.ports import Engine, ModelCare, Partition, Tracer, W
from pipeline.streaming.tracing import TracingLoop
from pipeline.streaming.worker import Worker
from pipeline.topics import AUDIT_HEADS, CASE_REPORTS, CHECK_INS, DEAD_LETTERS, EXPOSURES, VENUE_WARNINGS, VENUES

if TYPE_CHECKING:
    from pipeline.erasure import Receipt

log = logging.getLogger(__name__)
T = TypeVar("T")

#: How often the broker is asked for the logs' ends and, while draining, for what is committed, in seconds.
LAG_SECONDS, DRAIN_SECONDS = 1.0, 0.1
#: How often the model of presence is looked at, and how long after a failure it is tried again, in seconds.
MODEL_SECONDS, REFIT_AGAIN_SECONDS = 60.0, 3600.0
#: How often the event loop shows that it runs, in seconds.
BEAT_SECONDS = 1.0
#: Faust is given this long to leave the group, in seconds; then the group finds out by itself.
LEAVE_SECONDS = 10.0


def run_worker(
    settings: Settings,
    engine: Engine[W],
    *,
    tracer: Tracer | None = None,
    care: ModelCare | None = None,
    drain: bool = False,
) -> int:
    """Run one worker until it is told to stop; returns the exit status. Without a `tracer` case reports are left unread; `care`
    looks after the model of presence meanwhile.

    With `drain`, stop when everything that the topics hold now is stored and committed by the group (by other
    workers too), and print what was done as one JSON line on stdout. SIGTERM and the first SIGINT finish the
    outstanding write, commit, settle and leave the group; a second SIGINT exits at once. Raises UserError if a topic is missing
    or the HTTP port is taken.
    """
    return asyncio.run(_Service(settings, engine, tracer, care, drain).run())


class _Service:
    def __init__(
        self, settings: Settings, engine: Engine[Any], tracer: Tracer | None, care: ModelCare | None, drain: bool
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._tracer = tracer
        self._drain = drain
        self._care = care
        self._metrics = Metrics()
        self._started_at = time.monotonic()
        self._worker: Worker[Any] | None = None

    async def run(self) -> int:
        stop = asyncio.create_task(self._stop_signal())
        probes = {"/livez": self._live, "/readyz": self._ready}
        loop = asyncio.get_running_loop()

        def erase(visitor: str) -> "Future[Receipt]":
            return asyncio.run_coroutine_threadsafe(self._erase(visitor), loop)

        with serve_http(self._settings, self._metrics.exposition, probes, self._facts, erase) as port:
            log.info("the live page, the API, /metrics and probes at %s", self._settings.http_address(port))
            work = asyncio.create_task(self._work(stop))
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if self._worker is None and not work.done():
                work.cancel()
                return 0
            return await work

    async def _erase(self, visitor: str) -> "Receipt":
        from pipeline.erasure import erase, erased_already  # loads the kernels

        if self._settings.clickhouse_url is not None:
            return await self._apart(partial(erase, self._settings, visitor))
        if self._worker is None:
            raise UserError("this worker reads no partitions now: ask again in a moment")
        look = partial(erased_already, self._settings, visitor)
        if (receipt := await self._apart(look)) is None:
            await self._worker.erase(visitor)
            receipt = await self._apart(look)
        if receipt is None:
            raise UserError("something of the visitor has come back meanwhile: ask again")
        return receipt

    async def _apart(self, ask: Callable[[], T]) -> T:
        done: Future[T] = Future()

        def work() -> None:
            try:
                done.set_result(ask())
            except StoreUnavailableError as error:
                done.set_exception(
                    UserError(f"the store does not answer ({error}): ask again, and it goes on where it was")
                )
            except BaseException as error:
                done.set_exception(error)

        # Of its own, and one that does not keep the process: it waits for other workers, and this one may be told to stop.
        threading.Thread(target=work, name="erasure", daemon=True).start()
        return await asyncio.wrap_future(done)

    async def _work(self, stop: asyncio.Task[None]) -> int:
        tracer = self._tracer
        read = (VENUES, CHECK_INS) if tracer is None else (VENUES, CHECK_INS, CASE_REPORTS)
        written = (DEAD_LETTERS,) if tracer is None else (DEAD_LETTERS, EXPOSURES, VENUE_WARNINGS)
        ranges = await wait_for_kafka(self._settings.kafka_access, read, written)
        if self._drain and not ranges.waiting:
            self._engine.close()
            if tracer is not None:
                tracer.close()
            self._print_summary(0.0)
            return 0
        app = build_app(self._settings, read)
        tracing = None if tracer is None else self._tracing_loop(app, tracer)
        worker = self._worker = Worker(
            self._engine,
            self._settings,
            self._metrics,
            commit=lambda offsets: app.consumer.commit_stored(offsets),
            publish=lambda letters: publish_dead_letters(app, letters),
            tracing=tracing,
            take_over_again=lambda: app.consumer.take_over_again(),
        )
        app.transport.listener = worker
        alertmanager = self._alertmanager()
        overtaken = worker.overtaken_alerts if self._settings.clickhouse_url is not None else None
        delivery = AlertDelivery(lambda notices: publish_alerts(app, notices), alertmanager, overtaken)
        worker.tell_alerts(delivery)
        add_agents(app, worker)
        drained = asyncio.Event()
        tending = asyncio.create_task(self._tend_models(worker, self._care)) if self._care else None
        loops = [
            worker.run(),
            app.start(),
            self._watch_crash(app, worker),
            self._watch_lag(app, worker),
            self._beat(worker),
            delivery.run(),
            self._tell_audit_head(app),
        ]
        if tracing is not None:
            loops.append(tracing.run())
        if alertmanager is not None:
            loops.append(alertmanager.run())
        tasks = [asyncio.create_task(_or_fail(each, worker)) for each in loops]
        if self._drain:
            tasks.append(
                asyncio.create_task(_or_fail(self._until_drained(app, worker, ranges.waiting, drained), worker))
            )
        ends: set[asyncio.Future[Any]] = {stop, worker.failure, asyncio.create_task(drained.wait())}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if worker.failure.done():
            error = worker.failure.result()
            if isinstance(error, UserError):
                log.critical("%s", error)
            else:
                log.critical("stopping after a bug, to read on from what is stored: %r", error, exc_info=error)
            await _within(LEAVE_SECONDS, app.stop())
            return _exit_now(1)
        seconds = time.monotonic() - (worker.reading_since or time.monotonic())
        if tending:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
        await worker.stop()
        await _within(LEAVE_SECONDS, app.stop())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if drained.is_set():
            self._print_summary(seconds)
        log.info("stopped")
        return 0

    def _tracing_loop(self, app: faust.App, tracer: Tracer) -> TracingLoop:
        def worker() -> Worker[Any]:
            assert self._worker is not None
            return self._worker

        return TracingLoop(
            tracer,
            self._metrics,
            alone=self._settings.clickhouse_url is None,
            caught_up=lambda: worker().is_caught_up(),
            publish=lambda topic, key, values: publish_records(app, topic, key, values),
            refuse=lambda letters: publish_dead_letters(app, letters),
            done=lambda offsets: worker().note_stored(offsets),
        )

    async def _stop_signal(self) -> None:
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()

        def interrupt() -> None:
            if asked.is_set():
                _exit_now(130)
            asked.set()

        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, asked.set)
        await asked.wait()
        log.info("stopping: finishing the outstanding write, then leaving the group (Ctrl-C again: at once)")

    async def _watch_crash(self, app: faust.App, worker: Worker[Any]) -> None:
        await app._crashed.wait()
        worker.fail(app.crash_reason or RuntimeError("Faust stopped without a reason"))

    async def _watch_lag(self, app: faust.App, worker: Worker[Any]) -> None:
        away_since: float | None = None
        while True:
            await asyncio.sleep(LAG_SECONDS)
            consumer: BatchConsumer = app.consumer
            reading = list(worker.stored)
            if not reading:
                continue
            try:
                ends = await asyncio.wait_for(consumer.end_offsets(reading), 10)
            except (KafkaError, TimeoutError):
                worker.progress_at = time.monotonic()  # not ours to mend by a restart
                if away_since is None:
                    away_since = time.monotonic()
                    log.warning("Kafka does not answer at %s: waiting for it", self._settings.kafka_address)
                continue
            if away_since is not None:
                log.warning("Kafka is back after %.1f s", time.monotonic() - away_since)
                away_since = None
            worker.note_ends(ends)

    async def _tend_models(self, worker: Worker[Any], care: ModelCare) -> None:
        """Show where the model of presence stands and, if asked to, renew it, at quiet moments and beside the stream."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, "models")
        look_at = 0.0
        try:
            while True:
                await asyncio.sleep(1)
                if time.monotonic() < look_at or not worker.quiet:
                    continue
                look_at = time.monotonic() + MODEL_SECONDS
                try:
                    self._metrics.model = await loop.run_in_executor(thread, care.figures)
                    # One of the workers is enough.
                    if self._settings.model_refit == "nightly" and (CHECK_INS, 0) in worker.stored:
                        version = await loop.run_in_executor(thread, care.refit)
                        if version is not None and await worker.settle():
                            log.info("the model of presence %s is in force", version)
                            look_at = 0.0
                except StoreUnavailableError as error:
                    log.warning("the model of presence cannot be looked after: the store is away (%s)", error)
                except Exception:
                    # Estimates may wait, the stream may not.
                    self._metrics.refit_failures.inc()
                    look_at = time.monotonic() + REFIT_AGAIN_SECONDS
                    log.exception("the model of presence could not be renewed: the old one goes on")
        finally:
            # A call under way ends at its next day; the stream goes on until then.
            care.stop()
            thread.submit(care.close)
            await asyncio.to_thread(thread.shutdown)

    async def _tell_audit_head(self, app: faust.App) -> None:
        """Tell Kafka of the audit log's last entry, when there is a new one."""
        audit, told = AuditLog(self._settings.audit_path), None
        while True:
            await asyncio.sleep(TELL_SECONDS)
            try:
                head = await asyncio.to_thread(audit.head)
            except UserError as error:
                log.warning("%s", error)
                continue
            if head is not None and head != told:
                await publish_records(app, AUDIT_HEADS, head.log, [message_of(head)])
                told = head

    async def _beat(self, worker: Worker[Any]) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
            now = time.monotonic()
            self._metrics.loop_lag.set(max(0.0, now - begun - BEAT_SECONDS))
            self._metrics.heartbeat.set(time.time() - (now - worker.progress_at))

    def _alertmanager(self) -> Alertmanager | None:
        url = self._settings.alertmanager_url
        if url is None:
            return None
        requests = self._metrics.alertmanager_requests
        quiet_ms = self._settings.alert_recent // timedelta(milliseconds=1)
        return Alertmanager(
            url.get_secret_value(), quiet_ms, requests.labels("failed").inc, requests.labels("accepted").inc
        )

    async def _until_drained(
        self, app: faust.App, worker: Worker[Any], ends: dict[Partition, int], drained: asyncio.Event
    ) -> None:
        consumer: BatchConsumer = app.consumer
        settled_in: int | None = None
        while True:
            await asyncio.sleep(DRAIN_SECONDS)
            if worker.epoch is None or consumer.held:
                continue
            try:
                for each, position in (await consumer.positions()).items():
                    worker.close_gap(each, consumer.unpacked.get(each, 0), position, ends.get(each, 0))
                if any(worker.stored[each] < end for each, end in ends.items() if each in worker.stored):
                    continue
                if settled_in != worker.epoch:
                    epoch = worker.epoch
                    settled_in = epoch if await worker.settle() else None
                    continue
                committed = await consumer.committed(ends)
            except KafkaError as error:
                log.warning("Kafka does not tell what is committed: %s; asking again", error)
                await asyncio.sleep(1)
                continue
            if worker.alerts_told and all(committed.get(each, 0) >= end for each, end in ends.items()):
                drained.set()
                return

    def _print_summary(self, seconds: float) -> None:
        counters, _ = self._metrics.counters
        scans = self._worker.scans if self._worker else 0
        delays = self._metrics.delays
        summary = {
            "scans": scans,
            "seconds": round(seconds, 3),
            "scans_per_second": round(scans / seconds) if seconds and scans else 0,
            "delay_p50_seconds": _rounded(delays.quantile(0.5)),
            "delay_p99_seconds": _rounded(delays.quantile(0.99)),
            "dead_letters": counters.get("dead_lettered", 0),
            "duplicates": counters.get("duplicates", 0),
        }
        print(json.dumps(summary), flush=True)

    def _live(self) -> tuple[bool, Mapping[str, object]]:
        return self._worker.live() if self._worker else (True, {"waiting_for": "Kafka"})

    def _facts(self) -> Mapping[str, object]:
        """About this worker, for the live page: `ready`, the lag in scans, and delays in seconds since its start."""
        metrics = self._metrics
        samples = [sample.value for family in metrics.lag.collect() for sample in family.samples]
        return {
            "ready": self._ready()[0],
            "lag_scans": int(sum(samples)) if samples else None,
            "delay_p50_seconds": _rounded(metrics.delays.quantile(0.5)),
            "delay_p99_seconds": _rounded(metrics.delays.quantile(0.99)),
            "dead_letters": dict(metrics.counters[1]),
        }

    def _ready(self) -> tuple[bool, Mapping[str, object]]:
        return self._worker.ready() if self._worker else (False, {"waiting_for": "Kafka"})


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.3g}")


async def _or_fail(coroutine: Coroutine[Any, Any, None], worker: Worker[Any]) -> None:
    try:
        await coroutine
    except Exception as error:
        worker.fail(error)


async def _within(seconds: float, coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        await asyncio.wait_for(coroutine, seconds)
    except TimeoutError:
        log.warning("Faust did not stop in %.0f s; the group will notice by itself", seconds)


def _exit_now(status: int) -> int:
    """Leave without waiting for threads: one of them may be inside a call that does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
