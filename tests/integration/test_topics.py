"""Topics are created where missing, compared where present, and never changed."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest
from confluent_kafka import Producer
from kafka.admin import ConfigResource, ConfigResourceType

from pipeline.cluster import open_admin
from pipeline.errors import UserError
from pipeline.topic_admin import ensure_topics, kept_too_long, outlived
from pipeline.topics import Topic, declared_topics

pytestmark = pytest.mark.kafka


def run_topics(kafka: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PIPELINE_KAFKA": kafka, **settings}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "topics"], env=environment, capture_output=True, text=True, check=False
    )


def configs_of(kafka: str, topic: str) -> dict[str, str]:
    with open_admin(kafka) as admin:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    return {name: config["value"] for name, config in found["topic"][topic].items()}


def test_every_topic_has_the_partitions_of_check_ins_and_only_venues_is_compacted() -> None:
    topics = {topic.name: topic for topic in declared_topics(6, timedelta(days=14))}
    assert set(topics) == {
        "check-ins",
        "venues",
        "dead-letters",
        "crowding-alerts",
        "exposures",
        "venue-warnings",
        "case-reports",
        "audit-heads",
    }
    assert {topic.partitions for topic in topics.values()} == {6}
    assert [name for name, topic in topics.items() if topic.compacted] == ["venues"]


def test_a_missing_topic_is_created_as_declared(kafka: str) -> None:
    name = f"test-{secrets.token_hex(6)}"
    topic = Topic(name, 3, retention=timedelta(days=14))
    (state,) = ensure_topics(kafka, [topic])
    assert state.created
    with open_admin(kafka) as admin:
        (found,) = admin.describe_topics([name])
    assert len(found["partitions"]) == 3
    configs = configs_of(kafka, name)
    assert (configs["cleanup.policy"], configs["retention.ms"]) == ("delete", str(14 * 86_400_000))


def test_a_compacted_topic_is_created_compacted(kafka: str) -> None:
    name = f"test-{secrets.token_hex(6)}"
    ensure_topics(kafka, [Topic(name, 1, compacted=True)])
    assert configs_of(kafka, name)["cleanup.policy"] == "compact"


def test_what_differs_is_said_and_left_as_it_is(kafka: str) -> None:
    name = f"test-{secrets.token_hex(6)}"
    ensure_topics(kafka, [Topic(name, 2)])
    for _ in range(2):
        (state,) = ensure_topics(kafka, [Topic(name, 3, compacted=True)])
        assert not state.created
        assert state.differences == (
            "has 2 partitions, not 3",
            "has the cleanup policy delete, not compact",
        )


def test_a_topic_that_is_kept_too_long_is_named_and_set_as_declared(kafka: str) -> None:
    name = f"test-{secrets.token_hex(6)}"
    ensure_topics(kafka, [Topic(name, 1)])
    declared = [Topic(name, 1, retention=timedelta(days=14)), Topic("not-there", 1, retention=timedelta(days=14))]
    said = {name: "retention.ms -1 instead of 1209600000, segment.ms 604800000 instead of 86400000"}
    assert kept_too_long(kafka, declared) == said
    assert kept_too_long(kafka, declared, apply=True) == said
    assert kept_too_long(kafka, declared) == {}
    assert configs_of(kafka, name)["retention.ms"] == "1209600000"


def test_records_that_kafka_should_have_deleted_are_counted_without_being_read(kafka: str) -> None:
    now, day = 1_790_000_000_000, 86_400_000
    ensure_topics(kafka, [Topic("grows-old", 3, retention=None)])
    producer = Producer({"bootstrap.servers": kafka})
    declared = [Topic("grows-old", 3, retention=timedelta(days=14)), Topic("not-there", 1, retention=timedelta(days=1))]
    for partition, ages in ((0, (14, 3, 0)), (1, ())):
        for age in ages:
            producer.produce("grows-old", b"x", partition=partition, timestamp=now - age * day)
    producer.flush()
    # A day of a segment, and an hour, later than the retention.
    assert outlived(kafka, declared, now) == {}
    for partition, ages in ((1, (16, 16)), (2, (40, 16, 2))):
        for age in ages:
            producer.produce("grows-old", b"x", partition=partition, timestamp=now - age * day)
    producer.flush()
    assert outlived(kafka, declared, now) == {"grows-old": "4 records from before 2026-09-06T13:13:20.000Z"}


def test_the_command_creates_then_agrees_then_says_what_differs(kafka_topics: Callable[..., str]) -> None:
    kafka = kafka_topics(partitions=2)
    with open_admin(kafka) as admin:
        admin.delete_topics(["exposures"])
    created = run_topics(kafka, PIPELINE_PARTITIONS="2")
    assert created.returncode == 0, created.stderr
    lines = dict(line.split(maxsplit=1) for line in created.stdout.splitlines())
    assert lines["exposures"] == "created"
    assert lines["check-ins"] == "as declared"
    differing = run_topics(kafka, PIPELINE_PARTITIONS="5")
    assert differing.returncode == 1
    assert "check-ins        has 2 partitions, not 5\n" in differing.stdout


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2"])
def test_without_a_broker_the_address_and_the_way_out_are_named(address: str) -> None:
    done = run_topics(address)
    assert done.returncode == 1
    assert done.stderr == f"pipeline: no Kafka answers at {address}; start one with: pipeline broker start\n"


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":9092", "localhost:kafka", "localhost:70000"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"is no address of a Kafka broker: give host:port"):
        ensure_topics(address, [])
