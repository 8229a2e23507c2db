"""Who reads which partition: check-ins are dealt out, the venue registry goes to every worker whole."""

from collections.abc import Mapping
from typing import Any, ClassVar

from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from pipeline.topics import VENUES


class BroadcastAssignor(RoundRobinPartitionAssignor):  # type: ignore[misc]
    """Round robin, but every member gets all partitions of the `broadcast` topics.

    A venue's category decides how long its visits last, so a worker needs the venues of its own check-ins. Producers in
    different languages hash keys differently; giving every worker all venues does not rely on both topics being alike.
    """

    name = "pipeline-broadcast"
    broadcast: ClassVar[frozenset[str]] = frozenset({VENUES})

    @classmethod
    def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        """Map each member id to its assignment (called in one member only, the group's leader)."""
        dealt = {
            member: ConsumerProtocolMemberMetadata(
                cls.version, [topic for topic in metadata.subscription if topic not in cls.broadcast], b""
            )
            for member, metadata in members.items()
        }
        assignments: dict[str, Any] = super().assign(cluster, dealt)
        for member, metadata in members.items():
            everywhere = [
                (topic, sorted(cluster.partitions_for_topic(topic) or ()))
                for topic in metadata.subscription
                if topic in cls.broadcast
            ]
            assignments[member] = ConsumerProtocolMemberAssignment(
                cls.version, sorted([*assignments[member].assignment, *everywhere]), b""
            )
        return assignments
