"""The topics: declared here, created and checked in Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from aiokafka.partitioner import murmur2
from kafka.admin import ConfigResource, ConfigResourceType

from pipeline.cluster import open_admin
from pipeline.kafka_access import KafkaAccess
from pipeline.settings import Settings

CHECK_INS: Final = "check-ins"
VENUES: Final = "venues"
DEAD_LETTERS: Final = "dead-letters"
CROWDING_ALERTS: Final = "crowding-alerts"
EXPOSURES: Final = "exposures"
VENUE_WARNINGS: Final = "venue-warnings"
CASE_REPORTS: Final = "case-reports"
AUDIT_HEADS: Final = "audit-heads"

_MOST_REPLICAS: Final = 3
#: Kafka deletes whole segments, once their newest record is old enough: one may not hold more than this.
_SEGMENT: Final = timedelta(days=1)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's own clients choose for a key (murmur2)."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it should be.

    `compacted` keeps the newest record of each key for ever; otherwise records live for `retention` (None: for ever),
    counted from their own timestamps.
    """

    name: str
    partitions: int
    compacted: bool = False
    retention: timedelta | None = None

    @property
    def cleanup_policy(self) -> str:
        """Kafka's word for how old records go."""
        return "compact" if self.compacted else "delete"

    @property
    def configs(self) -> dict[str, str]:
        """The topic's settings in Kafka's terms."""
        if self.compacted:
            return {"cleanup.policy": self.cleanup_policy}
        if self.retention is None:
            return {"cleanup.policy": self.cleanup_policy, "retention.ms": "-1"}
        keep, segment = (each // timedelta(milliseconds=1) for each in (self.retention, min(_SEGMENT, self.retention)))
        return {"cleanup.policy": self.cleanup_policy, "retention.ms": str(keep), "segment.ms": str(segment)}


@dataclass(frozen=True, slots=True)
class TopicState:
    """What was found: `created` just now, or present with `differences` (sentences) from the declaration."""

    topic: Topic
    created: bool
    differences: tuple[str, ...] = ()


def declared_topics(partitions: int, retention: timedelta | None) -> tuple[Topic, ...]:
    """Every topic of the pipeline.

    All have one partition count: `venue-warnings` is read beside `check-ins`, partition by partition, and for the others
    one number is one thing less to remember. Case reports go after the retention like the scans they are about, so that
    nothing personal outlives it; only the venue registry and the heads of the audit log stay.
    """
    return tuple(
        Topic(
            name, partitions, compacted=name == VENUES, retention=None if name in (VENUES, AUDIT_HEADS) else retention
        )
        for name in (
            CHECK_INS,
            VENUES,
            DEAD_LETTERS,
            CROWDING_ALERTS,
            EXPOSURES,
            VENUE_WARNINGS,
            CASE_REPORTS,
            AUDIT_HEADS,
        )
    )


def ensure_topics(kafka: KafkaAccess | str, topics: Sequence[Topic]) -> list[TopicState]:
    """Create the missing topics and wait until they can be used; compare the others, and change nothing about them.

    Replication factor: the number of brokers, at most 3. Raises UserError when Kafka cannot be reached or refuses.
    """
    with open_admin(kafka) as admin:
        missing = _missing(admin, topics)
        if missing:
            replicas = min(_MOST_REPLICAS, len(admin.describe_cluster()["brokers"]))
            admin.create_topics(
                {
                    topic.name: {
                        "num_partitions": topic.partitions,
                        "replication_factor": replicas,
                        "configs": topic.configs,
                    }
                    for topic in missing
                },
                wait_for_metadata=True,
            )
        present = [topic for topic in topics if topic not in missing]
        differences = _differences(admin, present) if present else {}
    return [TopicState(topic, topic in missing, differences.get(topic.name, ())) for topic in topics]


def kept_too_long(kafka: KafkaAccess | str, topics: Sequence[Topic], *, apply: bool = False) -> dict[str, str]:
    """The topics that Kafka keeps otherwise than declared, each with what it has; with `apply`, set as declared afterwards.

    Topics that are missing, and those that are kept for ever by declaration, are left out. Raises UserError when Kafka cannot be
    reached or refuses.
    """
    with open_admin(kafka) as admin:
        known = set(admin.list_topics())
        aged = [topic for topic in topics if topic.retention is not None and topic.name in known]
        if not aged:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in aged]
        configs = admin.describe_configs(resources, config_filter="all")["topic"]
        found = {}
        for topic in aged:
            differing = [
                f"{name} {configs[topic.name][name]['value']} instead of {value}"
                for name, value in topic.configs.items()
                if configs[topic.name][name]["value"] != value
            ]
            if differing:
                found[topic.name] = ", ".join(differing)
        if apply and found:
            admin.alter_configs(
                [
                    ConfigResource(ConfigResourceType.TOPIC, each.name, each.configs)
                    for each in aged
                    if each.name in found
                ]
            )
    return found


def settings_topics(settings: Settings) -> tuple[Topic, ...]:
    """Every topic as these settings want it."""
    return declared_topics(settings.partitions, settings.retention)


def _missing(admin: Any, topics: Sequence[Topic]) -> list[Topic]:
    known = set(admin.list_topics())
    return [topic for topic in topics if topic.name not in known]


def _differences(admin: Any, topics: Sequence[Topic]) -> dict[str, tuple[str, ...]]:
    names = [topic.name for topic in topics]
    partitions = {found["name"]: len(found["partitions"]) for found in admin.describe_topics(names)}
    configs = admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name, ["cleanup.policy"]) for name in names], config_filter="all"
    )["topic"]
    found = {}
    for topic in topics:
        policy = configs[topic.name]["cleanup.policy"]["value"]
        differences = []
        if partitions[topic.name] != topic.partitions:
            differences.append(f"has {partitions[topic.name]} partitions, not {topic.partitions}")
        if policy != topic.cleanup_policy:
            differences.append(f"has the cleanup policy {policy}, not {topic.cleanup_policy}")
        found[topic.name] = tuple(differences)
    return found
