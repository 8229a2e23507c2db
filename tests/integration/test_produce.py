"""What is sent arrives byte for byte, where Kafka's own clients would put it; a broker that is gone is said so."""

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline import produce as produce_module
from pipeline.broker import start_broker
from pipeline.errors import UserError
from pipeline.produce import ScanProducer, produce_files
from pipeline.topic_admin import ensure_topics
from pipeline.topics import Topic
from tests.waiting import PATIENCE

pytestmark = pytest.mark.kafka

SCANS = [
    json.dumps({"event_id": f"e-{n}", "venue_id": f"v-{n % 97}", "visitor_id": f"p-{n}"}).encode() for n in range(5_000)
]


def read_all(kafka: str, topic: str) -> list[Any]:
    """Every message of the topic by partition and offset."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "none", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(topic).topics[topic].partitions
        ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in partitions}
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        messages: list[Any] = []
        deadline = time.monotonic() + PATIENCE
        while len(messages) < sum(ends.values()):
            assert time.monotonic() < deadline
            messages += consumer.consume(10_000, 0.2)
    finally:
        consumer.close()
    return sorted(messages, key=lambda message: (message.partition(), message.offset()))


def run_produce(kafka: str, *files: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "produce", *map(str, files)],
        env={**os.environ, "PIPELINE_KAFKA": kafka},
        capture_output=True,
        text=True,
        check=False,
    )


def test_scans_arrive_byte_for_byte_once_each_and_in_order_within_a_venue(
    kafka: str, new_topic: Callable[..., str]
) -> None:
    topic = new_topic(partitions=4)
    with ScanProducer(kafka, topic) as producer:
        producer.send_scans(SCANS)
    assert producer.confirmed == len(SCANS)
    messages = read_all(kafka, topic)
    assert sorted(message.value() for message in messages) == sorted(SCANS)
    for venue in (b"v-0", b"v-96"):
        expected = [scan for scan in SCANS if json.loads(scan)["venue_id"].encode() == venue]
        assert [message.value() for message in messages if message.key() == venue] == expected


def test_a_key_goes_to_the_partition_that_kafkas_own_clients_choose(kafka: str, new_topic: Callable[..., str]) -> None:
    ours, theirs = new_topic(partitions=7), new_topic(partitions=7)
    keys = [b"", b"v", b"mall-0042", "é".encode(), *(f"ven-{n:06d}".encode() for n in range(300))]
    reference = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2"})
    with ScanProducer(kafka, ours) as producer:
        for key in keys:
            producer.send(key, b"scan")
            reference.produce(theirs, b"scan", key)
    assert reference.flush(20) == 0

    def placed(topic: str) -> dict[bytes, int]:
        return {message.key(): message.partition() for message in read_all(kafka, topic)}

    assert placed(ours) == placed(theirs)


def test_records_without_a_venue_have_no_key_and_are_sent_all_the_same(
    kafka: str, new_topic: Callable[..., str]
) -> None:
    topic = new_topic(partitions=3)
    odd = [b"not json", b"\xff\xfe", b"{}", b'{"venue_id":5}', b" x\r"]
    with ScanProducer(kafka, topic) as producer:
        producer.send_scans(odd)
    messages = read_all(kafka, topic)
    assert sorted(message.value() for message in messages) == sorted(odd)
    assert {message.key() for message in messages} == {None}
    assert {message.partition() for message in messages} == {0, 1, 2}


def test_a_record_has_the_given_timestamp_or_the_current_time(kafka: str, new_topic: Callable[..., str]) -> None:
    topic = new_topic()
    before = time.time_ns() // 1_000_000
    with ScanProducer(kafka, topic) as producer:
        producer.send(b"v", b"old", timestamp_ms=1_632_009_600_250)
        producer.send(b"v", b"new")
        producer.send_scans([b"newer"])
    old, new, newer = (message.timestamp()[1] for message in read_all(kafka, topic))
    assert old == 1_632_009_600_250
    assert before <= new <= newer <= time.time_ns() // 1_000_000


def test_a_record_alone_is_sent_without_waiting_for_more(kafka: str, new_topic: Callable[..., str]) -> None:
    with ScanProducer(kafka, new_topic()) as producer:
        producer.send(b"v", b"scan")
        deadline = time.monotonic() + 10
        while not producer.confirmed:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_record_larger_than_the_topic_takes_is_left_out_and_counted(
    kafka: str, new_topic: Callable[..., str]
) -> None:
    topic = new_topic()
    with ScanProducer(kafka, topic) as producer:
        producer.send_scans([b"one", os.urandom(2 << 20), b"two"])
        producer.flush()
        assert (producer.confirmed, producer.too_large) == (2, 1)
    assert [message.value() for message in read_all(kafka, topic)] == [b"one", b"two"]


def test_a_missing_topic_is_named_with_the_way_out(kafka: str) -> None:
    with pytest.raises(UserError, match=r"has no topic nowhere; create it with: pipeline topics"):
        ScanProducer(kafka, "nowhere")


def test_a_broker_that_goes_away_is_named_with_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce_module, "_GIVE_UP_SECONDS", 2.0)
    with start_broker(tmp_path, 0, tied_to_us=True) as broker:
        ensure_topics(broker.address, [Topic("check-ins", 2)])
        producer = ScanProducer(broker.address, "check-ins")
        producer.send_scans(SCANS)
        producer.flush()
        broker.process.kill()
        broker.process.wait()
        began = time.monotonic()
        producer.send_scans(SCANS)
        with pytest.raises(UserError, match=rf"{broker.address} took no more records of check-ins after 5,000 "):
            producer.flush()
        producer.close()
        assert time.monotonic() - began < 20


def test_the_same_scans_from_files_of_every_kind(kafka: str, new_topic: Callable[..., str], tmp_path: Path) -> None:
    rows = [json.loads(scan) for scan in SCANS]
    text = b"\n".join(SCANS)
    (tmp_path / "a.ndjson").write_bytes(text)
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress(text))
    (tmp_path / "c.ndjson.zst").write_bytes(pa.compress(text, "zstd", asbytes=True))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    topic = new_topic(partitions=2)
    told: list[int] = []
    paths = sorted(tmp_path.iterdir())
    with ScanProducer(kafka, topic) as producer:
        done = produce_files(producer, paths, told.append)
    assert (done.records, done.files, done.too_large) == (4 * len(SCANS), 4, 0)
    assert sum(told) == sum(path.stat().st_size for path in paths)
    received = [json.loads(message.value()) for message in read_all(kafka, topic)]
    assert sorted(received, key=str) == sorted(rows * 4, key=str)


def test_the_command_sends_and_sums_up(kafka_topics: Callable[..., str], tmp_path: Path) -> None:
    kafka = kafka_topics(partitions=2)
    (tmp_path / "a.ndjson").write_bytes(b"\n\n".join([*SCANS, b"malformed"]))
    (tmp_path / "b.ndjson").write_bytes(b"")
    done = run_produce(kafka, tmp_path / "a.ndjson", tmp_path / "b.ndjson")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sent 5,001 scans from 2 files in ")
    assert done.stderr == ""
    assert len(read_all(kafka, "check-ins")) == 5_001


def test_the_command_names_a_damaged_file_after_sending_what_stands_before(
    kafka_topics: Callable[..., str], tmp_path: Path
) -> None:
    kafka = kafka_topics(partitions=2)
    whole, cut = tmp_path / "whole.ndjson", tmp_path / "cut.ndjson.gz"
    whole.write_bytes(b"\n".join(SCANS))
    cut.write_bytes(gzip.compress(b"\n".join(SCANS))[:-9])
    done = run_produce(kafka, whole, cut)
    assert done.returncode == 1
    assert done.stderr.startswith(f"pipeline: {cut} is cut short or damaged")
    assert len(read_all(kafka, "check-ins")) >= len(SCANS)
