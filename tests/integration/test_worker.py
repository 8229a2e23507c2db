"""Workers on a real broker, with an engine that only remembers: nothing lost, nothing twice, no commit too early."""

import json
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.streaming.worker import VENUES_FIRST_SECONDS
from tests.over_http import answered
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.kafka

PARTITIONS = 4
FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
#: Makes a worker slow enough to be caught in the middle of its work.
SLOW: dict[str, Any] = {
    "write_seconds": 0.05,
    "batch_records": 1_000,
    "settings": {"flush_rows": 2_000, "buffer_scans": 4_000},
}
SCAN = (
    b'{"event_id":"e","event_type":"check_in","venue_id":"v","visitor_id":"p","occurred_at":"2024-05-05T10:00:00.000Z"}'
)


class Bench:
    """Fresh topics, one store, and the workers started on them."""

    def __init__(self, kafka: str, folder: Path) -> None:
        self.kafka = kafka
        self.group = f"group-{random.getrandbits(48):x}"
        self.database = folder / "store.db"
        self.outage = folder / "outage"
        self._folder = folder
        self._workers: list[subprocess.Popen[bytes]] = []

    def make_topics(self) -> None:
        self._admin = AdminClient({"bootstrap.servers": self.kafka})
        self.drop_topics()
        specs = [
            NewTopic("check-ins", PARTITIONS, 1),
            NewTopic("venues", 2, 1, config={"cleanup.policy": "compact"}),
            NewTopic("dead-letters", 1, 1),
        ]

        def made() -> bool:
            results = self._admin.create_topics(specs)
            return all(future.exception() is None for future in results.values()) or not self.drop_topics()

        wait_until(made)

    def drop_topics(self) -> bool:
        for future in self._admin.delete_topics(["check-ins", "venues", "dead-letters"]).values():
            future.exception()
        return True

    def produce(self, values: Sequence[bytes], topic: str = "check-ins", keys: Sequence[bytes] | None = None) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.kafka,
                "linger.ms": 10,
                "batch.num.messages": 500,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        for at, value in enumerate(values):
            producer.produce(topic, value, keys[at] if keys else str(at).encode())
        producer.flush(30)

    def start(self, *, drain: bool = False, group: str | None = None, **options: Any) -> subprocess.Popen[bytes]:
        settings = {"kafka": self.kafka, "group": group or self.group, "http_port": 0, **options.pop("settings", {})}
        arguments = {
            "database": str(self.database),
            "outage": str(self.outage),
            "drain": drain,
            "settings": settings,
            **options,
        }
        errors = (self._folder / f"worker-{len(self._workers)}.log").open("wb")
        worker = subprocess.Popen(
            [sys.executable, FAKE_ENGINE, json.dumps(arguments)],
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        self._workers.append(worker)
        return worker

    def log_of(self, worker: subprocess.Popen[bytes]) -> str:
        return (self._folder / f"worker-{self._workers.index(worker)}.log").read_text()

    def drain(self, **options: Any) -> dict[str, Any]:
        worker = self.start(drain=True, **options)
        output, _ = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0, self.log_of(worker)
        summary: dict[str, Any] = json.loads(output.splitlines()[-1])
        return summary

    def url(self, worker: subprocess.Popen[bytes], path: str) -> str:
        wait_until(lambda: "http://127.0.0.1:" in self.log_of(worker))
        port = int(self.log_of(worker).split("http://127.0.0.1:")[1].split()[0])
        return f"http://127.0.0.1:{port}{path}"

    def status(self, worker: subprocess.Popen[bytes], path: str) -> tuple[int, dict[str, Any]]:
        return answered(self.url(worker, path), 5)

    def metric(self, worker: subprocess.Popen[bytes], name: str) -> float:
        with urllib.request.urlopen(self.url(worker, "/metrics"), timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((name + " ", name + "{")))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        if not self.database.exists():
            return []
        with sqlite3.connect(self.database, timeout=30) as database:
            try:
                return database.execute(sql).fetchall()
            except sqlite3.OperationalError:
                return []

    def stored(self) -> dict[int, int]:
        return dict(self.query("SELECT partition, next FROM positions WHERE topic = 'check-ins'"))

    def committed(self, group: str | None = None, topic: str = "check-ins") -> dict[int, int]:
        asked = ConsumerGroupTopicPartitions(group or self.group, [TopicPartition(topic, p) for p in range(PARTITIONS)])
        [future] = self._admin.list_consumer_group_offsets([asked]).values()
        return {tp.partition: tp.offset for tp in future.result(10).topic_partitions if tp.offset >= 0}

    def ends(self) -> dict[int, int]:
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "ends"})
        try:
            return {p: consumer.get_watermark_offsets(TopicPartition("check-ins", p))[1] for p in range(PARTITIONS)}
        finally:
            consumer.close()

    def assert_each_offset_was_stored_once(self) -> None:
        for partition, end in self.ends().items():
            reached = 0
            for first, last, scans in self.query(
                f"SELECT first, last, scans FROM runs WHERE partition = {partition} ORDER BY first"
            ):
                assert first == reached, f"partition {partition}: {first} follows {reached}"
                assert scans == last - first + 1
                reached = last + 1
            assert reached == end

    def finish(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()
            if worker.stdout:
                worker.stdout.close()
        self.drop_topics()


@pytest.fixture
def bench(kafka: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(kafka, tmp_path)
    try:
        bench.make_topics()
        yield bench
    finally:
        bench.finish()


def test_a_drain_of_empty_topics_ends_at_once(bench: Bench) -> None:
    begun = time.monotonic()
    assert bench.drain()["scans"] == 0
    assert time.monotonic() - begun < VENUES_FIRST_SECONDS, "it waited for a registry that is empty"


@pytest.mark.long
def test_after_restarts_each_offset_is_stored_once_and_committed(bench: Bench) -> None:
    bench.produce([SCAN] * 30_000)
    summary = bench.drain()
    assert summary["scans"] == 30_000
    assert summary["scans_per_second"] > 0
    assert 0 < summary["delay_p50_seconds"] <= summary["delay_p99_seconds"]
    assert bench.committed() == bench.stored() == bench.ends()

    bench.produce([SCAN] * 60_000)
    worker = bench.start(**SLOW)
    before = sum(bench.stored().values())
    wait_until(lambda: sum(bench.stored().values()) > before)
    worker.terminate()
    assert worker.wait(PATIENCE) == 0, bench.log_of(worker)
    assert bench.committed() == bench.stored()

    bench.drain()
    assert bench.committed() == bench.stored() == bench.ends()
    bench.assert_each_offset_was_stored_once()
    assert bench.query("SELECT count(*) FROM log WHERE what = 'settle'")[0][0] >= 2


def test_nothing_is_committed_before_it_is_stored_whenever_a_worker_is_killed(bench: Bench) -> None:
    bench.produce([SCAN] * 200_000)
    commits = 0
    for round_number in range(3):
        # A group of its own: a killed member would be waited for until its session has ended.
        group = f"{bench.group}-{round_number}"
        before = sum(bench.stored().values())
        worker = bench.start(group=group, **SLOW)
        wait_until(lambda before=before: sum(bench.stored().values()) > before)  # type: ignore[misc]
        time.sleep(random.uniform(0, 0.3))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        stored, committed = bench.stored(), bench.committed(group)
        assert all(offset <= stored[partition] for partition, offset in committed.items())
        commits += any(committed.values())
    assert commits, "the workers were killed before they could commit: this shows nothing"
    bench.drain()
    bench.assert_each_offset_was_stored_once()
    assert bench.committed() == bench.ends()


def test_commits_follow_the_store_at_once(bench: Bench) -> None:
    worker = bench.start()
    wait_until(lambda: bench.status(worker, "/readyz")[0] == 200)
    bench.produce([SCAN] * 1_000)
    wait_until(lambda: sum(bench.stored().values()) == 1_000)
    begun = time.monotonic()
    wait_until(lambda: bench.committed() == bench.stored())
    assert time.monotonic() - begun < 2.8, "no sooner than Faust itself would have committed"


def test_while_the_store_is_away_reading_pauses_and_nothing_is_lost(bench: Bench) -> None:
    bench.produce([SCAN] * 200_000)
    worker = bench.start(batch_records=2_000, settings={"buffer_scans": 10_000, "flush_rows": 5_000})
    wait_until(lambda: bench.status(worker, "/readyz")[0] == 200)
    bench.outage.touch()
    wait_until(lambda: bench.metric(worker, "pipeline_store_failures_total") >= 1)
    bench.produce([SCAN] * 200_000)
    time.sleep(1.5)
    paused_at = bench.metric(worker, "pipeline_scans_consumed_total")
    time.sleep(1.0)
    assert bench.metric(worker, "pipeline_scans_consumed_total") == paused_at < 400_000
    assert bench.committed() == bench.stored()
    assert bench.status(worker, "/readyz")[0] == 503
    assert bench.status(worker, "/livez")[0] == 200
    assert bench.log_of(worker).count("the store is away") == 1
    bench.outage.unlink()
    wait_until(lambda: bench.committed() == bench.ends())
    assert "the store is back" in bench.log_of(worker)
    bench.assert_each_offset_was_stored_once()


@pytest.mark.long
def test_a_worker_stopped_while_the_store_is_away_leaves_what_it_has_to_be_read_again(bench: Bench) -> None:
    bench.produce([SCAN] * 5_000)
    patient = bench.start(group=f"{bench.group}-1", last_write_seconds=60)
    brisk = bench.start(group=f"{bench.group}-2", last_write_seconds=0.5)
    wait_until(lambda: all(bench.status(worker, "/readyz")[0] == 200 for worker in (patient, brisk)))
    wait_until(lambda: sum(bench.stored().values()) == 5_000)
    bench.outage.touch()
    bench.produce([SCAN] * 5_000)
    wait_until(lambda: all(bench.metric(each, "pipeline_store_failures_total") >= 1 for each in (patient, brisk)))

    brisk.terminate()
    patient.send_signal(signal.SIGINT)
    assert brisk.wait(PATIENCE) == 0, bench.log_of(brisk)
    wait_until(lambda: "Ctrl-C again" in bench.log_of(patient))
    patient.send_signal(signal.SIGINT)
    assert patient.wait(30) == 130, bench.log_of(patient)

    bench.outage.unlink()
    assert bench.drain()["scans"] == 5_000
    assert bench.committed() == bench.ends()


@pytest.mark.long
def test_workers_come_and_go_and_each_offset_is_stored_once(bench: Bench) -> None:
    bench.produce([SCAN] * 100_000)
    slower = {**SLOW, "write_seconds": 0.15}
    first = bench.start(**slower)
    wait_until(lambda: len(bench.stored()) == PARTITIONS)
    second = bench.start(**slower)

    def both_store() -> bool:
        bench.produce([SCAN] * 500)  # however long the second takes to start, there is work left for it
        return len(bench.query("SELECT DISTINCT pid FROM runs")) == 2

    wait_until(both_store)
    wait_until(lambda: bench.metric(first, "pipeline_assigned_partitions") == 2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    bench.produce([SCAN] * 20_000)
    drained = bench.start(drain=True)
    wait_until(lambda: drained.poll() is not None)
    assert drained.returncode == 0, bench.log_of(drained)
    assert bench.committed() == bench.stored() == bench.ends()
    second.terminate()
    assert second.wait(PATIENCE) == 0, bench.log_of(second)
    bench.assert_each_offset_was_stored_once()


def test_a_refused_record_goes_to_dead_letters_with_its_bytes_and_origin(bench: Bench) -> None:
    bench.produce([SCAN, b"bad \xff", SCAN], keys=[b"a", b"b", b"c"])
    assert bench.drain()["dead_letters"] == 1
    consumer = Consumer({"bootstrap.servers": bench.kafka, "group.id": "letters", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition("dead-letters", 0, 0)])
    [letter] = consumer.consume(1, 10)
    consumer.close()
    assert (letter.key(), letter.value()) == (b"b", b"bad \xff")
    headers = dict(letter.headers() or [])
    assert headers.keys() == {"topic", "partition", "offset", "reason", "detail"}
    assert (headers["topic"], headers["reason"]) == (b"check-ins", b"not_json")


def test_a_bad_release_stops_the_worker_before_it_becomes_dead_letters(bench: Bench) -> None:
    bench.produce([SCAN] * 100 + [b"bad"] * 300, keys=[b"a"] * 400)
    limits = {"dead_letter_least": 200, "dead_letter_share": 0.5}
    worker = bench.start(settings=limits)
    assert worker.wait(PATIENCE) == 1
    *_, said = bench.log_of(worker).splitlines()
    assert "300 of the last 400 records of check-ins would be dead letters" in said
    assert "Traceback" not in bench.log_of(worker)
    assert not any(bench.stored().values())

    assert bench.drain(settings=limits | {"dead_letter_share": 1.0})["dead_letters"] == 300


def test_the_venue_registry_is_read_before_the_scans_that_wait_with_it(bench: Bench) -> None:
    bench.produce([SCAN] * 20_000)
    bench.produce([b"{}"] * 500, topic="venues", keys=[f"venue-{each}".encode() for each in range(500)])
    bench.drain()
    assert bench.query("SELECT what FROM log WHERE what LIKE 'first scans%'") == [("first scans venues=500",)]
    assert bench.query("SELECT count(*) FROM venues") == [(500,)]
    assert sum(bench.committed(topic="venues").values()) == 500


def test_a_bug_in_the_engine_stops_the_worker_and_commits_nothing(bench: Bench) -> None:
    bench.produce([b"bug"])
    worker = bench.start()
    assert worker.wait(PATIENCE) == 1
    assert "a bug in the engine" in bench.log_of(worker)
    assert not any(bench.committed().values())


@pytest.mark.long
def test_what_retention_has_deleted_is_counted_and_reading_goes_on_behind_it(bench: Bench) -> None:
    bench.produce([SCAN] * 4_000)
    bench.drain()
    stored = bench.stored()
    bench.produce([SCAN] * 4_000)
    admin = AdminClient({"bootstrap.servers": bench.kafka})
    gone = {partition: offset + 100 for partition, offset in stored.items()}
    for future in admin.delete_records([TopicPartition("check-ins", p, at) for p, at in gone.items()]).values():
        future.result(10)
    worker = bench.start()
    wait_until(lambda: bench.committed() == bench.ends())
    assert bench.metric(worker, "pipeline_offsets_skipped_total") == 100 * PARTITIONS
    assert "Kafka deleted 100 records of check-ins/0 before they were read" in bench.log_of(worker)
    firsts = dict(bench.query("SELECT partition, max(first) FROM runs GROUP BY partition"))
    assert firsts == gone


def test_a_worker_that_has_caught_up_drops_what_is_older_than_the_retention(bench: Bench) -> None:
    bench.produce([SCAN] * 100)
    worker = bench.start()
    wait_until(lambda: bench.query("SELECT count(*) FROM log WHERE what LIKE 'retain%'") == [(1,)])
    assert bench.query("SELECT what FROM log WHERE what LIKE 'retain%'") == [("retain lead=True",)]
    wait_until(lambda: bench.committed() == bench.ends())
    worker.terminate()
    assert worker.wait(PATIENCE) == 0, bench.log_of(worker)


def test_missing_topics_are_one_sentence_with_the_way_out(bench: Bench) -> None:
    bench.drop_topics()
    worker = bench.start()
    assert worker.wait(PATIENCE) == 1
    assert "create them with: pipeline topics" in bench.log_of(worker)


def test_without_kafka_a_worker_waits_and_can_be_interrupted(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        bench = Bench(f"127.0.0.1:{reserved.getsockname()[1]}", tmp_path)
        worker = bench.start()
        try:
            wait_until(lambda: "pipeline broker start" in bench.log_of(worker))
            assert bench.status(worker, "/livez")[0] == 200
            assert bench.status(worker, "/readyz")[0] == 503
            worker.send_signal(signal.SIGINT)
            assert worker.wait(PATIENCE) == 0
            lines = [line for line in bench.log_of(worker).splitlines() if "Kafka does not answer" in line]
            assert len(lines) == 1
            assert "Traceback" not in bench.log_of(worker)
        finally:
            worker.kill()
            worker.wait()
