"""The audit log's heads in Kafka: what was told there finds a cut tail, as the command says it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.audit import AuditLog
from pipeline.audit_heads import HeadTeller, told_heads
from pipeline.settings import Settings

pytestmark = pytest.mark.kafka


def test_a_tail_that_is_cut_after_the_head_was_told_is_found(tmp_path: Path, kafka_topics: Callable[..., str]) -> None:
    kafka = kafka_topics(partitions=2)
    before = len(told_heads(kafka))
    log = AuditLog(tmp_path / "audit.jsonl")

    def pipeline(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pipeline", "audit", *words],
            env={**os.environ, "PIPELINE_HOME": str(tmp_path), "PIPELINE_KAFKA": kafka},
            capture_output=True,
            text=True,
            check=False,
        )

    for number in range(3):
        log.append("token:ann", "api case", purpose="contact-tracing", case="c-1", persons=number)
    assert pipeline("anchor").returncode == 0
    assert len(told_heads(kafka)) == before + 1
    whole = pipeline("verify")
    assert (whole.returncode, whole.stdout[:9]) == (0, "3 entries"), whole.stderr
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert pipeline("verify", "--offline").returncode == 0
    cut = pipeline("verify")
    assert (cut.returncode, "the log was cut or written anew" in cut.stdout) == (1, True)


def test_a_process_that_serves_tells_of_each_new_last_entry_once(
    tmp_path: Path, kafka_topics: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    kafka = kafka_topics(partitions=1)
    settings = Settings(home=tmp_path, kafka=kafka)
    heads = HeadTeller(settings)
    heads.tell()
    assert told_heads(kafka) == []
    log = AuditLog(settings.audit_path)
    for _ in range(2):
        log.append("token:ann", "api case", purpose="contact-tracing", case="c-1", persons=1)
        heads.tell()
        heads.tell()
    assert [head == log.head() for head in told_heads(kafka)] == [False, True]
    away = HeadTeller(Settings(home=tmp_path, kafka="127.0.0.1:1"))
    away.tell()
    away.tell()
    assert caplog.text.count("a cut would not be found") == 1
