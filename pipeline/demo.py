"""One simulated Sunday of a city through a real Kafka, Faust and ClickHouse, in a folder of its own."""

import fcntl
import json
import os
import secrets
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import numpy as np
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError
from numpy.typing import NDArray
from pydantic import SecretStr

from pipeline.broker import find_broker, free_port, is_free, start_broker
from pipeline.cluster import open_admin
from pipeline.core.presence.words import shown
from pipeline.errors import UserError
from pipeline.interrupts import stop_on_interrupt
from pipeline.kafka_access import KafkaAccess
from pipeline.parts import Part, PartFailedError, Parts
from pipeline.privacy.secret_files import make_folder
from pipeline.produce import ScanProducer
from pipeline.progress import progress_bar
from pipeline.settings import Settings
from pipeline.simulate import facts
from pipeline.simulate.day import ArrivalBatch, DayPlan
from pipeline.simulate.options import DAY, HOUR, SimulationOptions
from pipeline.simulate.registry import make_registry
from pipeline.simulate.send import send_day
from pipeline.topic_admin import ensure_topics
from pipeline.topics import CHECK_INS, VENUES, settings_topics

#: Lines of a simulated day for each of its visits: check-outs, rescans and duplicates come on top.
_LINES_PER_VISIT: Final = 1.36
#: Between two looks at how far the worker is, in seconds.
_LOOK_SECONDS: Final = 0.5
#: A worker that stores nothing for so long is stuck, in seconds; its first start compiles for up to a minute.
_STUCK_SECONDS: Final = 300.0
_READY_SECONDS: Final = 120.0
#: How much faster than they were the days after come in: a minute a second. And when each begins to be worth watching, local.
SPEED: Final = 60
_MORNING: Final = 8 * HOUR
#: A scan further ahead of its arrival than this, in ms, is from the future.
_AHEAD_MS: Final = 5_000
#: The producer is given this long to send what it holds, in seconds.
_LEAVE_SECONDS: Final = 10.0

#: What else to look at while the worker goes on.
_PAGES: Final = {
    "planning": "how well capacities fit",
    "api/docs": "the API",
    "metrics": "for Prometheus; livez and readyz are beside it",
}

_SUMMARY: Final = """
SELECT
    (SELECT count() FROM visits) AS visits,
    (SELECT toString(as_of) FROM clock) AS as_of,
    (SELECT groupArray((reason, records)) FROM
        (SELECT reason, count() AS records FROM dead_letters GROUP BY reason ORDER BY records DESC, reason)
    ) AS dead_letters,
    (SELECT groupArray((name, occupancy, capacity, expected, low, high, check_out_share, model_version)) FROM
        (SELECT name, occupancy, venues.capacity AS capacity, expected, low, high, check_out_share, model_version
         FROM occupancy_now JOIN venues USING (venue_id) ORDER BY occupancy DESC, venue_id LIMIT 5)
    ) AS busiest
"""

#: A broker that the demo starts for itself has no users.
_OWN_BROKER: Final = {
    "kafka_protocol": "PLAINTEXT",
    "kafka_user": None,
    "kafka_password": None,
    "kafka_ca": None,
    "kafka_certificate": None,
    "kafka_certificate_key": None,
}

Say = Callable[[str], None]


def run_demo(settings: Settings, *, once: bool, scans: int, seed: int, say: Say) -> None:
    """Run the demo; `say` prints one line. Returns when everything that it started has ended.

    Everything is kept in HOME/demo, which starts empty each time; the settings' own store is never touched. With the
    setting kafka it uses that cluster, if its topics are empty, instead of a broker of its own. Without `once` the worker
    goes on until an interrupt. Raises UserError when a part fails or verify finds a difference.
    """
    folder = settings.home.resolve() / "demo"
    with _only_demo(folder), Parts() as parts:
        if not settings.kafka:
            settings = settings.model_copy(update=_OWN_BROKER)
            settings = settings.model_copy(update={"kafka": _start_broker(folder, settings.kafka_port, parts, say)})
        kafka = settings.kafka_access
        _prepare_topics(kafka, settings)
        options = SimulationOptions(round(scans / _LINES_PER_VISIT), seed=seed, city=facts.ONE_CITY)
        _send_day(kafka, options, say)
        demo = _Demo(folder, kafka, settings, parts, say)
        demo.drain()
        demo.summarise()
        demo.verify()
        if once:
            say(f'ask it more: pipeline query --store {demo.store} "SELECT * FROM occupancy_now LIMIT 5"')
        else:
            demo.fit_model()
            demo.serve(options)


def busy_line(name: str, counted: int | str, capacity: int | str | None, *estimate: Any) -> str:
    """A busy venue as the summary has it: people counted of its capacity, and what is expected where a model says.

    estimate: expected, low, high, check_out_share and model_version, of `occupancy_now`; numbers may come as text.
    """
    of = "" if capacity is None else f" of {int(capacity):,}"
    expected, low, high, share, model_version = estimate
    if expected is None:
        return f"{int(counted):>6,}{of:<10} {name}"
    said = shown(int(counted), float(expected), int(low), int(high), float(share), model_version)
    return f"{name}: {said}{f' · capacity {int(capacity):,}' if capacity is not None else ''}"


class _Demo:
    """What goes on once the day is in Kafka: a worker, and questions to the store while no worker has it."""

    def __init__(self, folder: Path, kafka: KafkaAccess, settings: Settings, parts: Parts, say: Say) -> None:
        self.store = folder / "store"
        self._folder = folder
        self._kafka = kafka
        self._parts = parts
        self._say = say
        self._group = f"demo-{secrets.token_hex(4)}"
        self._http_port = settings.http_port
        self._environment = self._make_environment(settings)

    def drain(self) -> None:
        """Let a worker store everything, and say how fast it was."""
        with (self._folder / "worker.out").open("w+") as output:
            worker = self._start("worker", "worker", "--drain", output=output)
            self._follow(worker)
            output.seek(0)
            figures = json.loads(output.read().strip().splitlines()[-1])
        self._say(
            f"stored {figures['scans']:,} scans in {figures['seconds']:.1f} s ({figures['scans_per_second']:,}/s); "
            f"{figures['duplicates']:,} duplicates"
        )
        self._say(
            f"from sent to stored: half within {figures['delay_p50_seconds']} s, 99 % within "
            f"{figures['delay_p99_seconds']} s (all were sent before the worker started)"
        )

    def summarise(self) -> None:
        """Say what is in the store."""
        answer = json.loads(self._ask("query", _SUMMARY, "--format", "json", "--store", str(self.store)))
        self._say(f"{int(answer['visits']):,} visits; busiest at {answer['as_of']} UTC, the last scan:")
        for venue in answer["busiest"]:
            self._say(f"    {busy_line(*venue)}")
        letters = ", ".join(f"{int(records):,} {reason}" for reason, records in answer["dead_letters"])
        self._say(f"dead letters: {letters or 'none'}")

    def verify(self) -> None:
        """Recompute everything from the scans. Raises UserError where the store differs."""
        verifier = self._start("verify", "verify", "--store", str(self.store), output=None, log=sys.stderr)
        while (status := self._parts.wait(verifier, _LOOK_SECONDS)) is None:
            pass
        if status:
            raise UserError(f"verify found differences in {self.store}, shown above")
        self._say("verified: everything stored is what its scans say")

    def fit_model(self) -> None:
        """Put a model of presence in force, so that the page tells who is expected beside who is counted."""
        self._ask("model", "fit", "--use", "--store", str(self.store))

    def serve(self, options: SimulationOptions) -> None:
        """Keep a worker running until an interrupt, while the days after that of `options` come in."""
        port = self._http_port
        if not (port and is_free(port)):
            port = free_port()
        self._environment["PIPELINE_HTTP_PORT"] = str(port)
        self._start("worker", "worker", output=None)
        self._wait_until_ready(f"http://127.0.0.1:{port}/readyz")
        self._say(f"the next day comes in {SPEED} times as fast as it was. Watch it: http://127.0.0.1:{port}/")
        for page, what in _PAGES.items():
            self._say(f"    http://127.0.0.1:{port}/{page:<10} {what}")
        with stop_on_interrupt() as stopped, _days_after(self._kafka, options, stopped):
            self._say("Ctrl-C ends everything")
            while not stopped.wait(_LOOK_SECONDS):
                self._parts.check()
        self._say("stopping")

    def _start(self, name: str, *arguments: str, output: Any, log: Any = None) -> Part:
        command = [sys.executable, "-m", "pipeline", *arguments]
        if log is not None:
            return self._parts.start(name, command, self._environment, output, log)
        with (self._folder / f"{name}.log").open("a") as file:
            return self._parts.start(name, command, self._environment, output, file)

    def _ask(self, *arguments: str) -> str:
        with (self._folder / "answer.json").open("w+") as output:
            part = self._start("query", *arguments, output=output)
            while (status := self._parts.wait(part, _LOOK_SECONDS)) is None:
                pass
            if status:
                raise PartFailedError(part)
            output.seek(0)
            return output.read()

    def _follow(self, worker: Part) -> None:
        """Show how much of the topics is stored, until the worker has ended well."""
        with open_admin(self._kafka) as admin:
            ends = _offsets(admin, (CHECK_INS, VENUES), OffsetSpec.LATEST)
            done = 0
            moved_at = time.monotonic()
            with progress_bar("storing", sum(ends.values())) as advance:
                while (status := self._parts.wait(worker, _LOOK_SECONDS)) is None:
                    stored = self._committed(admin, list(ends))
                    if stored > done:
                        advance(stored - done)
                        done, moved_at = stored, time.monotonic()
                    elif time.monotonic() - moved_at > _STUCK_SECONDS:
                        raise UserError(
                            f"the worker stored nothing for {_STUCK_SECONDS:.0f} s; its log is {worker.log}"
                        )
                if status:
                    raise PartFailedError(worker)
                advance(sum(ends.values()) - done)

    def _committed(self, admin: Any, partitions: list[Any]) -> int:
        """How many records the group has stored; 0 while Kafka cannot say, as before a group's first commit."""
        try:
            offsets = admin.list_group_offsets({self._group: partitions})[self._group]
        except KafkaError:
            return 0
        return sum(max(0, found.offset) for found in offsets.values())

    def _wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        with progress_bar("starting the worker", None):
            while time.monotonic() < deadline:
                self._parts.check()
                with suppress(OSError), urllib.request.urlopen(url, timeout=2):
                    return
                time.sleep(_LOOK_SECONDS)
        raise UserError(
            f"the worker is not ready after {_READY_SECONDS:.0f} s; its log is {self._folder / 'worker.log'}"
        )

    def _make_environment(self, settings: Settings) -> dict[str, str]:
        """Every setting as it is in force here but for the demo's own: no settings file may lead elsewhere."""
        own = settings.model_copy(
            update={
                "home": self._folder,
                "store": self.store,
                "clickhouse_url": None,
                "group": self._group,
                "clock": "events",
                "http_port": 0,
            }
        )
        no_file = self._folder / "pipeline.toml"
        no_file.write_text("# The demo's settings are in its environment.\n")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
        values = own.model_dump(mode="json", exclude_none=True)
        values |= {name: value.get_secret_value() for name, value in own if isinstance(value, SecretStr)}
        return {
            **inherited,
            "PIPELINE_CONFIG": str(no_file),
            **{
                f"PIPELINE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
                for name, value in values.items()
            },
        }


@contextmanager
def _only_demo(folder: Path) -> Iterator[None]:
    """The demo's folder, empty, and nobody else's until the end of the block."""
    try:
        make_folder(folder)
        with (folder.with_name("demo.lock")).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another demo is running in {folder}; end that one first, or set PIPELINE_HOME"
                ) from None
            left = find_broker(folder)
            if left is not None:
                left.stop()
            shutil.rmtree(folder)
            make_folder(folder)
            yield
    except OSError as error:
        raise UserError(f"the demo cannot write to {folder}: {error.strerror}; or set PIPELINE_HOME") from None


def _start_broker(folder: Path, port: int, parts: Parts, say: Say) -> str:
    broker = start_broker(folder, port if is_free(port) else 0, tied_to_us=True)
    parts.watch(Part("Kafka broker", broker.process, broker.log))
    say(f"Kafka runs at {broker.address}")
    return broker.address


def _prepare_topics(kafka: KafkaAccess, settings: Settings) -> None:
    """Make the topics. Raises UserError if they hold anything: that is somebody's, and a demo deletes nothing."""
    with open_admin(kafka) as admin:
        known = [topic for topic in (CHECK_INS, VENUES) if topic in admin.list_topics()]
        first, end = (_offsets(admin, known, spec) for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST))
        if first != end:
            raise UserError(
                f"{' and '.join(known)} of Kafka at {kafka.address} are not empty: a demo needs topics of its own; "
                "unset PIPELINE_KAFKA, and it starts a broker for itself"
            )
    ensure_topics(kafka, settings_topics(settings))


def _offsets(admin: Any, topics: Any, spec: Any) -> dict[Any, int]:
    partitions = {
        TopicPartition(found["name"], partition["partition_index"]): spec
        for found in (admin.describe_topics(list(topics)) if topics else ())
        for partition in found["partitions"]
    }
    return (
        {each: found.offset for each, found in admin.list_partition_offsets(partitions).items()} if partitions else {}
    )


@contextmanager
def _days_after(kafka: KafkaAccess, options: SimulationOptions, stopped: Event) -> Iterator[None]:
    """While the block runs, the days after that of `options` come in, SPEED times as fast as they were."""

    def send() -> None:
        with ScanProducer(kafka, CHECK_INS) as producer:
            registry = make_registry(options)
            for days in count(1):
                another = replace(options, date=options.date + timedelta(days), seed=options.seed + days)
                plan = DayPlan(another, registry)
                morning = options.midnight + days * DAY + _MORNING - int(plan.registry.utc_offset.max())
                # At night next to nothing happens: it is over at once.
                night = (_part(batch, (batch.arrival_ms < morning) & ~_ahead(batch)) for batch in plan.batches())
                day = (_part(batch, (batch.arrival_ms >= morning) & ~_ahead(batch)) for batch in plan.batches())
                for batches, speed in ((night, None), (day, SPEED)):
                    for _ in send_day(
                        (batch for batch in batches if batch.lines), _StampedNow(producer), speed, stopped
                    ):
                        pass
                if stopped.is_set():
                    return

    # A daemon: what cannot be sent must not keep the demo from ending.
    thread = Thread(target=send, name="days after", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(_LEAVE_SECONDS)


@dataclass(frozen=True, slots=True)
class _StampedNow:
    """A producer whose records carry the time at which they are sent: Kafka would soon delete those of years ago."""

    producer: ScanProducer

    def send(self, key: bytes | None, value: bytes, timestamp_ms: int | None = None) -> None:  # noqa: ARG002
        self.producer.send(key, value)


def _ahead(batch: ArrivalBatch) -> NDArray[np.bool_]:
    """Which scans say that they come from the future. A worker on the clock `wall` refuses them; on the clock of events, which a
    day long past needs, one phone that is two hours ahead would put "now" there."""
    found = np.zeros(len(batch.lines), np.bool_)
    for row, (line, arrival) in enumerate(zip(batch.lines, batch.arrival_ms.tolist(), strict=True)):
        with suppress(ValueError, KeyError, TypeError):
            occurred = datetime.fromisoformat(json.loads(line)["occurred_at"]).timestamp() * 1000
            found[row] = occurred > arrival + _AHEAD_MS
    return found


def _part(batch: ArrivalBatch, wanted: NDArray[np.bool_]) -> ArrivalBatch:
    rows = np.flatnonzero(wanted).tolist()
    return ArrivalBatch(
        [batch.lines[row] for row in rows],
        [batch.keys[row] for row in rows],
        batch.arrival_ms[wanted],
        batch.malformed[wanted],
    )


def _send_day(kafka: KafkaAccess, options: SimulationOptions, say: Say) -> None:
    """Simulate the city's day and send it as fast as Kafka takes it, with now as the records' timestamps."""
    with progress_bar("planning a Sunday", None):
        plan = DayPlan(options)
    with ScanProducer(kafka, VENUES) as producer:
        for venue in plan.venues():
            producer.send(venue.venue_id.encode(), venue.model_dump_json(exclude_none=True).encode())
    began = time.monotonic()
    with progress_bar("sending", plan.line_count) as advance, ScanProducer(kafka, CHECK_INS) as producer:
        for batch in plan.batches():
            for key, line in zip(batch.keys, batch.lines, strict=True):
                producer.send(key, line)
            advance(len(batch.lines))
    seconds = time.monotonic() - began
    say(
        f"sent {producer.confirmed:,} scans of {plan.visitor_count:,} people at {plan.options.venue_count:,} venues on "
        f"{plan.options.date} in {seconds:.1f} s ({producer.confirmed / seconds:,.0f}/s)"
    )
