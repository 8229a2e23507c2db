"""A Kafka with TLS, passwords and rights: each user may do what infra/kafka/acls.toml says and nothing else; our parts get in."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.protocol.admin import (
    DeleteGroupsRequest,
    DeleteRecordsRequest,
    DescribeGroupsRequest,
    DescribeTransactionsRequest,
    ListPartitionReassignmentsRequest,
)
from kafka.protocol.consumer import FetchRequest, OffsetCommitRequest
from kafka.protocol.producer import InitProducerIdRequest

from pipeline.audit import Head
from pipeline.audit_heads import tell_head, told_heads
from pipeline.broker import RunningBroker, free_port, start_broker
from pipeline.cli import cli
from pipeline.cluster import open_admin
from pipeline.errors import UserError
from pipeline.gateway.admission import Record
from pipeline.gateway.outbox import Outbox
from pipeline.kafka_access import KafkaAccess
from pipeline.kafka_acls import Right, declared_rights, ensure_rights
from pipeline.kafka_identity import ADMIN, authority_file
from pipeline.produce import ScanProducer
from pipeline.streaming.log_ranges import wait_for_kafka
from pipeline.topic_admin import ensure_topics
from pipeline.topics import AUDIT_HEADS, declared_topics
from tests.gateway import make_ring, scan
from tests.integration.checkins import World
from tests.integration.test_gateway import Running, gateway
from tests.integration.test_secrets import leaked
from tests.waiting import wait_until

pytestmark = pytest.mark.kafka

GROUP = "check-in-pipeline"
RIGHTS = declared_rights(GROUP)
USERS = sorted({right.principal for right in RIGHTS})
TOPICS = [topic.name for topic in declared_topics(1, None)]
GROUPS = sorted({right.name for right in RIGHTS if right.kind == "group"})
CLUSTER = "kafka-cluster"
#: Nobody of ours sends in transactions; an id of one could be any.
TRANSACTIONS = [GROUP, "worker-1"]
BROKER_ID = "1"
#: What Kafka lets follow from a right.
IMPLIED = {
    "Read": "Describe",
    "Write": "Describe",
    "Delete": "Describe",
    "Alter": "Describe",
    "AlterConfigs": "DescribeConfigs",
}
#: Seconds for one answer of a broker on a busy machine.
ANSWER = 30.0

SCAN = {
    "event_id": "1",
    "event_type": "check_in",
    "venue_id": "v-1",
    "visitor_id": "p-1",
    "occurred_at": "2021-09-19T12:00:00+07:00",
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A secured broker with the topics, each of which holds one record, and the rights of the file."""
    with start_broker(tmp_path_factory.mktemp("secured"), 0, tied_to_us=True, secured=True) as running:
        admin = running.access(ADMIN)
        ensure_topics(admin, declared_topics(1, None))
        state = ensure_rights(admin, RIGHTS)
        assert (state.given, state.present, state.superfluous) == (RIGHTS, (), ())
        for topic in TOPICS:
            with ScanProducer(admin, topic) as producer:
                producer.send(b"v-1", b"{}")
        yield running


def settings(access: KafkaAccess) -> dict[str, str]:
    """The settings of a process that gets in this way."""
    return {
        "PIPELINE_KAFKA_PROTOCOL": access.protocol,
        "PIPELINE_KAFKA_USER": access.user,
        "PIPELINE_KAFKA_PASSWORD": access.password,
        "PIPELINE_KAFKA_CA": str(access.authorities),
        "PIPELINE_GROUP": GROUP,
    }


class Trial:
    """One user who tries everything past our own clients."""

    def __init__(self, access: KafkaAccess) -> None:
        self._access = access
        self._options = {
            "bootstrap.servers": access.address,
            "security.protocol": access.protocol,
            "sasl.mechanism": access.mechanism,
            "sasl.username": access.user,
            "sasl.password": access.password,
            "ssl.ca.location": str(access.authorities),
            "log_level": 0,
        }
        self._admin = AdminClient(self._options)

    def may(self) -> set[tuple[str, str, str]]:
        """(kind, name, operation) of all that it may, but for deleting topics: that would end the trial of the others."""
        found = {("topic", topic, operation) for operation, tried in self._of_topics().items() for topic in tried}
        found |= {("group", group, operation) for group in GROUPS for operation in self._of_group(group)}
        found |= {
            ("transactional_id", name, operation) for name in TRANSACTIONS for operation in self._of_sending(name)
        }
        return found | {("cluster", CLUSTER, operation) for operation in self._of_cluster()}

    def deletes(self) -> set[str]:
        """The topics that it has deleted."""
        return self._done(self._admin.delete_topics(TOPICS, operation_timeout=ANSWER))

    def cuts_heads(self) -> bool:
        """Whether it has deleted the first head of an audit log."""
        request = DeleteRecordsRequest(topics=[(AUDIT_HEADS, [(0, 1)])], timeout_ms=int(ANSWER * 1000), max_version=2)
        error = self._ask(request).topics[0].partitions[0].error_code
        assert error in (0, KafkaError.TOPIC_AUTHORIZATION_FAILED)
        return error == 0

    def _of_topics(self) -> dict[str, set[str]]:
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in TOPICS]
        changed = [
            ConfigResource(
                ResourceType.TOPIC,
                topic,
                incremental_configs=[ConfigEntry("retention.ms", "-1", incremental_operation=AlterConfigOpType.SET)],
            )
            for topic in TOPICS
        ]
        return {
            "Create": self._done(self._admin.create_topics([NewTopic(each, 1) for each in TOPICS], validate_only=True)),
            "Alter": self._done(
                self._admin.create_partitions([NewPartitions(each, 2) for each in TOPICS], validate_only=True)
            ),
            "DescribeConfigs": self._done(self._admin.describe_configs(resources)),
            "AlterConfigs": self._done(self._admin.incremental_alter_configs(changed, validate_only=True)),
            "Describe": self._seen(),
            "Read": self._read(),
            "Write": self._written(),
        }

    def _done(self, answers: dict[Any, Any]) -> set[str]:
        return {str(getattr(each, "name", each)) for each, answer in answers.items() if allowed(answer.result)}

    def _seen(self) -> set[str]:
        return {topic for topic in TOPICS if permitted(self._admin.list_topics(topic, ANSWER).topics[topic].error)}

    def _read(self, replica: int = -1) -> set[str]:
        """The topics that it can read, as a consumer or as another broker, which asks for the right to act as one."""
        topic, partition = FetchRequest.FetchTopic, FetchRequest.FetchTopic.FetchPartition
        asked = [
            topic(topic=each, partitions=[partition(partition=0, fetch_offset=0, partition_max_bytes=1)])
            for each in TOPICS
        ]
        answer = self._ask(FetchRequest(replica_id=replica, max_wait_ms=0, min_bytes=0, topics=asked, max_version=12))
        errors = {each.topic: each.partitions[0].error_code for each in answer.responses}
        # No partition has a second replica, so who may act as one hears that.
        assert set(errors.values()) <= {0, KafkaError.TOPIC_AUTHORIZATION_FAILED} or replica >= 0
        return {topic for topic, error in errors.items() if error != KafkaError.TOPIC_AUTHORIZATION_FAILED}

    def _written(self) -> set[str]:
        errors: dict[str, Any] = {}
        producer = Producer({**self._options, "linger.ms": 0})
        for topic in TOPICS:
            producer.produce(
                topic, b"{}", b"v-1", on_delivery=lambda error, message: errors.update({message.topic(): error})
            )
        assert producer.flush(ANSWER) == 0
        assert set(errors) == set(TOPICS)
        return {topic for topic, error in errors.items() if permitted(error)}

    def _of_group(self, group: str) -> Iterator[str]:
        (described,) = self._ask(DescribeGroupsRequest(groups=[group], max_version=5)).groups
        if described.error_code != KafkaError.GROUP_AUTHORIZATION_FAILED:
            yield "Describe"
        # The right to the group is looked at before that to the topic and before who leads the group: those are other errors.
        topic = OffsetCommitRequest.OffsetCommitRequestTopic
        partition = topic.OffsetCommitRequestPartition(partition_index=0, committed_offset=0, committed_metadata="")
        asked = [topic(name="check-ins", partitions=[partition])]
        request = OffsetCommitRequest(
            group_id=group, generation_id_or_member_epoch=-1, member_id="", topics=asked, max_version=8
        )
        if self._ask(request).topics[0].partitions[0].error_code != KafkaError.GROUP_AUTHORIZATION_FAILED:
            yield "Read"
        (deleted,) = self._ask(DeleteGroupsRequest(groups_names=[group], max_version=2)).results
        if deleted.error_code != KafkaError.GROUP_AUTHORIZATION_FAILED:
            yield "Delete"

    def _of_sending(self, transaction: str) -> Iterator[str]:
        (described,) = self._ask(DescribeTransactionsRequest([transaction], max_version=0)).transaction_states
        if described.error_code != KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            yield "Describe"
        if self._starts(transaction) != KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            yield "Write"

    def _starts(self, transaction: str | None) -> int:
        """The error of asking for a producer's number, in transactions or without any."""
        request = InitProducerIdRequest(transactional_id=transaction, transaction_timeout_ms=10_000, max_version=5)
        return int(self._ask(request).error_code)

    def _of_cluster(self) -> Iterator[str]:
        """Each operation on the cluster, by a request that wants it and changes nothing if it is allowed."""
        broker = [ConfigResource(ResourceType.BROKER, BROKER_ID)]
        entry = ConfigEntry("background.threads", "4", incremental_operation=AlterConfigOpType.SET)
        changed = [ConfigResource(ResourceType.BROKER, BROKER_ID, incremental_configs=[entry])]
        # Rights of somebody who has none.
        nobodys = AclBindingFilter(
            *(ResourceType.ANY, None, ResourcePatternType.ANY, "User:nobody", None),
            *(AclOperation.ANY, AclPermissionType.ANY),
        )
        reassignments = ListPartitionReassignmentsRequest(timeout_ms=10_000, topics=None, max_version=0)
        tried: dict[str, Callable[[], bool]] = {
            "Create": lambda: bool(self._done(self._admin.create_topics([NewTopic("another", 1)], validate_only=True))),
            "Describe": lambda: self._ask(reassignments).error_code != KafkaError.CLUSTER_AUTHORIZATION_FAILED,
            "Alter": lambda: bool(self._done(self._admin.delete_acls([nobodys]))),
            "DescribeConfigs": lambda: bool(self._done(self._admin.describe_configs(broker))),
            "AlterConfigs": lambda: bool(
                self._done(self._admin.incremental_alter_configs(changed, validate_only=True))
            ),
            "ClusterAction": lambda: bool(self._read(replica=2)),
            "IdempotentWrite": lambda: self._starts(None) != KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        }
        return (operation for operation, ask in tried.items() if ask())

    def _ask(self, request: Any) -> Any:
        """A bare request, as clients say little of why they wait."""
        with open_admin(self._access) as admin:
            return admin._manager.run(admin._manager.send, request)


def permitted(error: Any) -> bool:
    """Whether it was not the authorizer that said no; any other error stops the test."""
    if error is None:
        return True
    refusals = (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    )
    assert error.code() in refusals, error
    return False


def allowed(ask: Callable[[], object]) -> bool:
    """The same of what raises. A topic that is there already cannot be created: whoever hears that was allowed to."""
    try:
        ask()
    except KafkaException as error:
        return error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS or permitted(error.args[0])
    return True


def expected(user: str) -> set[tuple[str, str, str]]:
    """By the file, with what follows from it."""
    mine = {(right.kind, right.name, right.operation) for right in RIGHTS if right.principal == user}
    implied = {(kind, name, IMPLIED[operation]) for kind, name, operation in mine if operation in IMPLIED}
    # Whoever may write some topic may do so with a number of its own: since Kafka 2.8 that needs no further right.
    if any(kind == "topic" and operation == "Write" for kind, _, operation in mine):
        implied.add(("cluster", CLUSTER, "IdempotentWrite"))
    return mine | implied


def command(access: KafkaAccess, *arguments: object, **changed: str) -> Result:
    """Run a command here, as this user."""
    environment = {"PIPELINE_KAFKA": access.address, "PIPELINE_PARTITIONS": "1", **settings(access), **changed}
    return CliRunner().invoke(cli, [str(each) for each in arguments], env=environment)


def test_a_worker_stores_and_each_part_of_ours_gets_in_as_its_own_user(broker: RunningBroker, tmp_path: Path) -> None:
    venues, sent = tmp_path / "venues.csv", tmp_path / "scans.ndjson"
    venues.write_text("venue_id,name,category,capacity\nv-1,A mall,mall,10\n")
    sent.write_text("".join(f"{json.dumps(SCAN | {'visitor_id': f'p-{number}'})}\n" for number in range(300)))
    assert "1 venues into" in command(broker.access("operator"), "venues", "load", venues).output
    assert "sent 300 scans" in command(broker.access("gateway"), "produce", sent).output
    world = World(broker.address, tmp_path, **settings(broker.access("worker")), PIPELINE_CLOCK="events")
    world.group = GROUP
    summary = world.drain(tmp_path / "store")
    # One is the empty object of the fixture.
    assert (summary["scans"], summary["dead_letters"]) == (301, 1)

    as_declared = command(broker.access("operator"), "topics")
    assert as_declared.output.count("as declared") == len(TOPICS), as_declared.output
    report = ("case", "report", "--case", "c-1", "--visitor", "p-1", "--status", "suspected")
    report += ("--reported", "2021-09-20T09:00:00+07:00")
    assert "1 reports into" in command(broker.access("tracer"), *report, PIPELINE_HOME=str(tmp_path)).output
    tell_head(broker.access("worker"), Head("log", 1, "hash"))
    asyncio.run(_through_the_gateway(broker.access("gateway")))


async def _through_the_gateway(access: KafkaAccess) -> None:
    outbox = Outbox(access, "check-ins", 10, lambda: None)
    await outbox.start()
    await outbox.send([Record(b"v-1", b"{}", "1", "p-1", None)])
    assert await outbox.answers()
    await outbox.close()


@pytest.mark.long
def test_parts_that_get_in_tell_their_passwords_to_no_output_metric_probe_page_or_file(
    broker: RunningBroker, tmp_path: Path
) -> None:
    assert broker.secured is not None
    passwords = {path.stem: path.read_text() for path in broker.secured.glob("*.password")}
    port = free_port()
    world = World(broker.address, tmp_path, **settings(broker.access("worker")), PIPELINE_HTTP_PORT=str(port))
    world.group = GROUP
    make_ring(tmp_path / "keys")
    own = {name.removeprefix("PIPELINE_"): value for name, value in settings(broker.access("gateway")).items()}
    with closing(world), gateway(tmp_path, broker.address, **own) as gate:
        worker = world.start_worker(tmp_path / "store")
        serving = Running(port, psutil.Process(worker.process.pid), tmp_path / "worker-0.log")
        wait_until(serving.is_ready)
        assert gate.ask("POST", "/v1/scans", scan())[0] == 200
        said = [gate.ask("GET", path) for path in ("/metrics", "/readyz", "/livez", "/v1/openapi.json", "/none")]
        wait_until(lambda: serving.ask("GET", "/api/v1/venues/mall-0042/now")[0] == 200)
        paths = ("/metrics", "/readyz", "/livez", "/api/v1/health", "/", "/api/docs", "/api/v1/none")
        said += [serving.ask("GET", path) for path in paths]
        assert [status for status, _ in said[:3] + said[5:9]] == [200] * 7
        lines = ["\0".join(each.process.cmdline()) for each in (gate, serving)]
        assert worker.stop() == 0
    texts = [body.decode() for _, body in said] + lines
    for user, words in {"operator": "topics", "worker": "config --format json", "auditor": "audit verify"}.items():
        done = command(broker.access(user), *words.split(), PIPELINE_HOME=str(tmp_path / "home"))
        texts.append(f"{done.output} {done.exception}")
    kept = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert leaked("\n".join(texts + kept), passwords) == []
    assert "as declared" in "".join(texts)


def test_what_a_user_may_not_is_said_in_one_sentence(broker: RunningBroker, tmp_path: Path) -> None:
    (tmp_path / "scans.ndjson").write_text("{}\n")
    reader, operator = broker.access("reader"), broker.access("operator")
    refusals = [
        command(reader, "produce", tmp_path / "scans.ndjson").exception,
        command(operator, "topics", "--acls").exception,
    ]
    for ask in (lambda: told_heads(reader), lambda: asyncio.run(wait_for_kafka(reader, ["venues", "check-ins"], []))):
        with pytest.raises(UserError) as refused:
            ask()
        refusals.append(refused.value)
    produce, rights, heads, worker = map(str, refusals)
    assert produce == (
        f"Kafka at {broker.address} does not let user reader write the topic check-ins: give it the right "
        "(infra/kafka/acls.toml), or be another by kafka_user"
    )
    assert "does not let user operator do that" in rights
    assert f"has no topic audit-heads that {reader.name} may see" in heads
    assert f"has no topic check-ins that {reader.name} may see" in worker


@pytest.mark.parametrize("user", USERS)
def test_each_user_may_do_what_the_file_says_and_nothing_else(broker: RunningBroker, user: str) -> None:
    wanted = {each for each in expected(user) if (each[0], each[2]) != ("topic", "Delete")}
    assert Trial(broker.access(user)).may() == wanted


def test_a_trial_finds_whatever_somebody_may(broker: RunningBroker) -> None:
    """The super user, who may do everything, is found to: so a right that nobody should have would be found, too."""
    of_topics = {"Create", "Alter", "DescribeConfigs", "AlterConfigs", "Describe", "Read", "Write"}
    everything = {("topic", topic, operation) for topic in TOPICS for operation in of_topics}
    everything |= {("group", group, operation) for group in GROUPS for operation in ("Describe", "Read", "Delete")}
    everything |= {
        ("transactional_id", name, operation) for name in TRANSACTIONS for operation in ("Describe", "Write")
    }
    of_cluster = ("Create", "Describe", "Alter", "DescribeConfigs", "AlterConfigs", "ClusterAction", "IdempotentWrite")
    assert Trial(broker.access(ADMIN)).may() == everything | {("cluster", CLUSTER, each) for each in of_cluster}


@pytest.mark.parametrize("user", USERS)
def test_nobody_but_the_administrator_takes_heads_of_the_audit_log_away(broker: RunningBroker, user: str) -> None:
    harmful = {"Delete", "Alter", "AlterConfigs", "ClusterAction", "All"}
    assert not harmful & {what for kind, name, what in expected(user) if name == AUDIT_HEADS}
    assert not Trial(broker.access(user)).cuts_heads()
    first = TopicPartition(AUDIT_HEADS, 0)
    with open_admin(broker.access(ADMIN)) as admin:
        assert admin.list_partition_offsets({first: OffsetSpec.EARLIEST})[first].offset == 0


def test_only_who_may_delete_topics_does(broker: RunningBroker) -> None:
    # Those who may come last: a topic that is gone would be no trial for others.
    allowed_to = {user: {name for kind, name, what in expected(user) if what == "Delete"} for user in USERS}
    for user in sorted(USERS, key=lambda user: bool(allowed_to[user])):
        assert Trial(broker.access(user)).deletes() == allowed_to[user], user
    deadline = time.monotonic() + ANSWER
    spared = set(TOPICS) - set().union(*allowed_to.values())
    assert AUDIT_HEADS in spared
    while {
        each.topic.name for each in ensure_topics(broker.access(ADMIN), declared_topics(1, None)) if not each.created
    } - spared:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_who_does_not_prove_who_he_is_stays_outside(broker: RunningBroker, tmp_path: Path) -> None:
    worker = broker.access("worker")
    wrong = "wrong-wrong-wrong"
    expected_words = "refuses user worker: see kafka_user, kafka_password and kafka_mechanism"
    world = World(broker.address, tmp_path, **settings(worker) | {"PIPELINE_KAFKA_PASSWORD": wrong})
    said = world.run("worker", "--drain", "--store", "store", status=1)
    assert expected_words in said.stderr
    assert "Traceback" not in said.stderr
    assert wrong not in said.stdout + said.stderr
    refused = command(worker, "topics", PIPELINE_KAFKA_PASSWORD=wrong).exception
    assert isinstance(refused, UserError)
    assert expected_words in str(refused)
    assert wrong not in str(refused)
    others = {
        "does not speak PLAINTEXT: set kafka_protocol": KafkaAccess(broker.address),
        "is not to be trusted .* name its authority in kafka_ca": KafkaAccess(
            broker.address, "SASL_SSL", user="worker", password=worker.password
        ),
        "does not speak SASL_PLAINTEXT: set kafka_protocol": KafkaAccess(
            broker.address, "SASL_PLAINTEXT", user="worker", password=worker.password
        ),
        "has no SCRAM-SHA-256: see kafka_mechanism": KafkaAccess(
            broker.address, "SASL_SSL", "SCRAM-SHA-256", "worker", worker.password, worker.authorities
        ),
        "refuses user stranger": KafkaAccess(
            broker.address, "SASL_SSL", user="stranger", password="x", authorities=worker.authorities
        ),
    }
    for sentence, access in others.items():
        with pytest.raises(UserError, match=sentence):
            ScanProducer(access, "check-ins")


def test_a_right_that_is_not_in_the_file_is_named(broker: RunningBroker) -> None:
    admin = broker.access(ADMIN)
    extra = Right("reader", "topic", "exposures", "Read")
    ensure_rights(admin, [extra])
    state = ensure_rights(admin, RIGHTS)
    assert state.given == ()
    assert state.superfluous == ("reader: ALLOW READ of LITERAL TOPIC exposures from host *",)


def test_a_broker_once_secured_stays_so(broker: RunningBroker) -> None:
    assert broker.secured is not None
    home = broker.log.parent.parent
    again = start_broker(home, 0)
    assert (again.process.pid, again.secured) == (broker.process.pid, broker.secured)
    others_may_read = {path.name for path in broker.secured.iterdir() if path.stat().st_mode & 0o077}
    assert others_may_read <= {authority_file(broker.secured).name}
    with open_admin(broker.access("auditor")) as admin:
        assert set(admin.list_topics()) >= set(TOPICS)
