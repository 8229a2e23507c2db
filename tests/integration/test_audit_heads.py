"""The audit log's heads in Kafka: what was told there finds a log that was cut or is gone, as the command says it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import TopicPartition

from pipeline.audit import AuditLog, Head
from pipeline.audit_heads import HeadTeller, tell_head, told_heads
from pipeline.cluster import open_admin
from pipeline.produce import ScanProducer
from pipeline.settings import Settings
from pipeline.topics import AUDIT_HEADS

pytestmark = pytest.mark.kafka


class Desk:
    """A log of three entries on this machine, and `pipeline audit` with a Kafka of empty topics."""

    def __init__(self, home: Path, kafka: str) -> None:
        self.kafka = kafka
        self.path = home / "audit.jsonl"
        self.log = AuditLog(self.path)
        for number in range(3):
            self.log.append("token:ann", "api case", purpose="contact-tracing", case="c-1", persons=number)
        self.environment = {**os.environ, "PIPELINE_HOME": str(home), "PIPELINE_KAFKA": kafka}

    def audit(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "audit", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def heads(self) -> list[Head]:
        return [each.head for each in told_heads(self.kafka).heads]


@pytest.fixture
def desk(tmp_path: Path, kafka_topics: Callable[..., str]) -> Desk:
    return Desk(tmp_path, kafka_topics(partitions=2))


def test_a_tail_that_is_cut_after_the_head_was_told_is_found(desk: Desk) -> None:
    assert desk.audit("anchor")[0] == 0
    assert len(desk.heads()) == 1
    status, said = desk.audit("verify")
    assert (status, said[:9]) == (0, "3 entries"), said
    assert "1 heads in Kafka" in said
    desk.path.write_bytes(b"".join(desk.path.read_bytes().splitlines(keepends=True)[:2]))
    assert desk.audit("verify", "--offline")[0] == 0
    status, said = desk.audit("verify")
    assert (status, "the log was cut or written anew" in said) == (1, True)


def test_a_log_is_not_called_whole_by_a_kafka_that_has_no_heads_of_it_or_no_longer_all(desk: Desk) -> None:
    status, said = desk.audit("verify")
    assert (status, "Kafka has no head of this log" in said) == (1, True), said
    for _ in range(2):
        assert desk.audit("anchor")[0] == 0
    assert desk.audit("verify")[0] == 0
    partition = next(iter({each.place.partition("/")[0] for each in told_heads(desk.kafka).heads}))
    with open_admin(desk.kafka) as admin:
        admin.delete_records({TopicPartition(AUDIT_HEADS, int(partition)): 1})
    status, said = desk.audit("verify")
    assert (status, f"1 of 2 heads in partition {partition}" in said) == (1, True), said


@pytest.mark.long
def test_another_machines_log_and_what_was_planted_are_named_and_can_be_left_out(desk: Desk, tmp_path: Path) -> None:
    other = AuditLog(tmp_path / "copy.jsonl")
    other.append("token:bo", "api case", purpose="contact-tracing", case="c-2", persons=1)
    head = other.head()
    assert head is not None
    desk.audit("anchor")
    tell_head(desk.kafka, head)
    status, said = desk.audit("verify")
    assert (status, f"--elsewhere {head.log}" in said) == (1, True), said
    assert desk.audit("verify", "--elsewhere", head.log)[0] == 0
    assert desk.audit("verify", "--log", str(desk.path), "--log", str(tmp_path / "copy.jsonl"))[0] == 0

    mine = desk.log.head()
    assert mine is not None
    tell_head(desk.kafka, Head(mine.log, 2, "0" * 64))
    with ScanProducer(desk.kafka, AUDIT_HEADS) as producer:
        producer.send(b"x", b"{}")
    status, said = desk.audit("verify", "--elsewhere", head.log)
    assert status == 1
    (false,) = re.findall(r"an entry 2 \(at (\d+/\d+)\) that is another one", said)
    (foreign,) = re.findall(r"what Kafka has at (\d+/\d+) .* is no head", said)
    left_out = ("--disregard", false, "--disregard", foreign)
    assert desk.audit("verify", "--elsewhere", head.log, *left_out)[0] == 0


def test_a_process_that_serves_tells_of_each_new_last_entry_once(
    tmp_path: Path, kafka_topics: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    kafka = kafka_topics(partitions=1)
    settings = Settings(home=tmp_path, kafka=kafka)
    heads = HeadTeller(settings)
    heads.tell()
    assert told_heads(kafka).heads == []
    log = AuditLog(settings.audit_path)
    for _ in range(2):
        log.append("token:ann", "api case", purpose="contact-tracing", case="c-1", persons=1)
        heads.tell()
        heads.tell()
    assert [told.head == log.head() for told in told_heads(kafka).heads] == [False, True]
    away = HeadTeller(Settings(home=tmp_path, kafka="127.0.0.1:1"))
    away.tell()
    away.tell()
    assert caplog.text.count("a cut would not be found") == 1
