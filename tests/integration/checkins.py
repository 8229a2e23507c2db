"""The `pipeline` commands on a real broker and real stores, and what Kafka and the stores hold afterwards."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Message, TopicPartition
from kafka.admin import KafkaAdminClient, MemberToRemove

from pipeline.core.judge import judge_scan
from schemas.scan import Scan as ValidScan
from tests.isolated import run_isolated
from tests.reference import Scan, Views
from tests.waiting import PATIENCE, wait_until

_ROOT = Path(__file__).resolve().parents[2]

#: Settings of a worker that writes often, so that whatever happens to it happens near a write.
FREQUENT_WRITES = {"PIPELINE_FLUSH_ROWS": "2000", "PIPELINE_FLUSH_SECONDS": "0.1"}

#: Says where its records came from, which a replay and a worker cannot agree on.
_NAMES_ITS_SOURCE = {"accounting", "dead_letters"}


class Letter(NamedTuple):
    """A row of `dead_letters`, but for `received_at`."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    sha256: str


class Account(NamedTuple):
    """A row of `accounting` of the topic `check-ins`."""

    next_offset: int
    consumed: int
    accepted: int
    stored: int
    duplicates: int
    dead_lettered: int


class Worker:
    """A running `pipeline worker` and its log."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
            )

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Return once its log holds `text`."""
        wait_until(lambda: text in self.log or self.process.poll() is not None)
        assert text in self.log, self.log

    def kill(self) -> None:
        """SIGKILL, and nothing of it is left."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


class World:
    """A Kafka, a folder for stores, and the commands run on them with the same settings and one consumer group."""

    def __init__(self, kafka: str, folder: Path, **settings: str) -> None:
        self.kafka = kafka
        self.folder = folder
        self.group = f"group-{random.getrandbits(48):x}"
        folder.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
        self._environment = {
            **inherited,
            "PYTHONPATH": str(_ROOT),
            "PIPELINE_HOME": str(folder / "home"),
            "PIPELINE_KAFKA": kafka,
            "PIPELINE_HTTP_PORT": "0",
            **settings,
        }
        self._workers: list[Worker] = []

    def run(
        self, *arguments: object, status: int = 0, seconds: float = 600, **settings: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, and hold it to its exit status.

        Patient by default: the first command of a fresh checkout compiles the core, which takes minutes on a busy machine.
        """
        done = subprocess.run(
            self._command(*arguments),
            env={**self._environment, "PIPELINE_GROUP": self.group, **settings},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == status, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start_worker(self, store: Path) -> Worker:
        """Start a worker and let it run; it ends with the world at the latest."""
        worker = Worker(
            self._command("worker", "--store", store),
            {**self._environment, "PIPELINE_GROUP": self.group},
            self.folder,
            self.folder / f"worker-{len(self._workers)}.log",
        )
        self._workers.append(worker)
        return worker

    def drain(self, store: Path, **settings: str) -> dict[str, Any]:
        """Run `worker --drain` and return its summary."""
        done = self.run("worker", "--drain", "--store", store, **settings)
        summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return summary

    def committed(self) -> dict[int, int]:
        """Per partition of check-ins, the offset that the group has committed."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": self.group})
        try:
            asked = consumer.committed([TopicPartition("check-ins", each) for each in self.ends()], 20)
            return {each.partition: each.offset for each in asked if each.offset >= 0}
        finally:
            consumer.close()

    def ends(self) -> dict[int, int]:
        """Per partition of check-ins, the offset after the last record."""
        return _ends(self.kafka, "check-ins")

    def forget_the_dead(self) -> None:
        """Remove the group's members, which are all dead: the broker would wait six seconds for each to come back."""
        admin = KafkaAdminClient(bootstrap_servers=self.kafka)
        try:
            members = admin.describe_groups([self.group])[self.group]["members"]
            if members:
                admin.remove_group_members(
                    self.group, [MemberToRemove(member_id=each["member_id"]) for each in members]
                )
        finally:
            admin.close()

    def close(self) -> None:
        """End every worker that still runs."""
        for worker in self._workers:
            worker.kill()

    def _command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "pipeline", *map(str, arguments)]


def read_topic(kafka: str, topic: str) -> list[Message]:
    """Every record of a topic."""
    ends = {partition: end for partition, end in _ends(kafka, topic).items() if end}
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
    found: list[Message] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < sum(ends.values()):
        assert time.monotonic() < deadline, f"{topic} gave {len(found)} of {sum(ends.values())} records"
        found += consumer.consume(1_000, 0.5)
    consumer.close()
    assert not any(record.error() for record in found)
    return found


def _ends(kafka: str, topic: str) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "reader"})
    try:
        partitions = consumer.list_topics(topic, 20).topics[topic].partitions
        return {each: consumer.get_watermark_offsets(TopicPartition(topic, each), 20)[1] for each in partitions}
    finally:
        consumer.close()


def valid_scans(lines: Iterable[bytes]) -> list[Scan]:
    """The scans among the lines, as the judge reads them."""
    judged = map(judge_scan, lines)
    return [
        Scan(
            scan.venue_id,
            scan.visitor_id,
            scan.event_type,
            scan.occurred_at,
            scan.party_size,
            scan.event_id,
            scan.source,
        )
        for scan in judged
        if isinstance(scan, ValidScan)
    ]


def refusals(kafka: str) -> dict[tuple[int, int], Message]:
    """The records of check-ins that are no scan, by partition and offset."""
    return {
        (record.partition(), record.offset()): record
        for record in read_topic(kafka, "check-ins")
        if not isinstance(judge_scan(record.value()), ValidScan)
    }


def reason_of(record: Message) -> str:
    """Why a record is no scan."""
    verdict = judge_scan(record.value())
    assert not isinstance(verdict, ValidScan)
    return verdict.reason


def accounts(store: Path) -> dict[int, Account]:
    """The accounting of check-ins, by partition. No worker may own the store."""
    return {row[0]: Account(*row[1:]) for row in run_isolated(_accounting, str(store))}


def letters(store: Path) -> list[Letter]:
    """The view `dead_letters`, in the order of its columns."""
    return [Letter(*row) for row in run_isolated(_letters, str(store))]


def view_differences(store: Path, expected: Views) -> str:
    """Where the views differ from the rows `expected`; nothing where all agree."""
    found: str = run_isolated(_differences, str(store), expected)
    return found


def views_as_csv(store: Path) -> dict[str, bytes]:
    """View → what `pipeline query "SELECT * FROM view ORDER BY ALL" --format csv` prints.

    Of all views but those that say where each record came from.
    """
    found: dict[str, bytes] = run_isolated(_csv, str(store))
    return found


def _open(store: str) -> Any:
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    return open_store(Settings(store=Path(store)), read_only=True)


def _accounting(store: str) -> list[tuple[int, ...]]:
    sql = (
        "SELECT partition, next_offset, consumed, accepted, stored, duplicates, dead_lettered FROM accounting "
        "WHERE topic = 'check-ins'"
    )
    return [tuple(row) for row in _open(store).query(sql).result_rows]


def _letters(store: str) -> list[tuple[Any, ...]]:
    sql = "SELECT topic, partition, offset, reason, detail, sha256 FROM dead_letters ORDER BY ALL"
    return [tuple(row) for row in _open(store).query(sql).result_rows]


def _differences(store: str, expected: Views) -> str:
    from tests.views import differences, read_views

    return differences(read_views(_open(store)), expected)


def _csv(store: str) -> dict[str, bytes]:
    from pipeline.query import answer

    client = _open(store)
    rows = client.query("SELECT name FROM system.tables WHERE database = 'checkins' AND engine = 'View'").result_rows
    found = {}
    for (view,) in rows:
        if view not in _NAMES_ITS_SOURCE:
            out = io.BytesIO()
            answer(client, f"SELECT * FROM {view} ORDER BY ALL", "csv", out)
            found[view] = out.getvalue()
    return found
