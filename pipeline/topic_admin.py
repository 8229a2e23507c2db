"""The topics in Kafka: created where they are missing, and compared with what they should be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec

from pipeline.cluster import open_admin
from pipeline.kafka_access import KafkaAccess
from pipeline.topics import Topic
from schemas.fields import format_instant

_MOST_REPLICAS: Final = 3
#: Kafka looks for what it may delete every five minutes, if it is not told otherwise, and deletes a minute later.
_LATE_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class TopicState:
    """What was found: `created` just now, or present with `differences` (sentences) from the declaration."""

    topic: Topic
    created: bool
    differences: tuple[str, ...] = ()


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
        aged = _aged(admin, topics)
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


def outlived(kafka: KafkaAccess | str, topics: Sequence[Topic], now: int) -> dict[str, str]:
    """The topics that still hold records which should be gone at `now` (ms), each with how many and from before when.

    By what Kafka says of the records' timestamps; none is read. Kafka deletes whole segments, of a day or the retention, so a
    record may be that much older. Raises UserError when Kafka cannot be reached or refuses.
    """
    found = {}
    with open_admin(kafka) as admin:
        aged = _aged(admin, topics)
        counts = {
            each["name"]: len(each["partitions"]) for each in admin.describe_topics([topic.name for topic in aged])
        }
        for topic in aged:
            before = now - sum(int(topic.configs[name]) for name in ("retention.ms", "segment.ms")) - _LATE_MS
            places = [TopicPartition(topic.name, each) for each in range(counts[topic.name])]
            first, kept, end = (
                {
                    place: each.offset
                    for place, each in admin.list_partition_offsets(dict.fromkeys(places, spec)).items()
                }
                for spec in (OffsetSpec.EARLIEST, before, OffsetSpec.LATEST)
            )
            # Without a record that is new enough the answer is -1: all of them are old.
            old = sum((kept[place] if kept[place] >= 0 else end[place]) - first[place] for place in places)
            if old > 0:
                found[topic.name] = f"{old:,} records from before {format_instant(before)}"
    return found


def _aged(admin: Any, topics: Sequence[Topic]) -> list[Topic]:
    # Those that are there and not kept for ever.
    known = set(admin.list_topics())
    return [topic for topic in topics if topic.retention is not None and topic.name in known]


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
