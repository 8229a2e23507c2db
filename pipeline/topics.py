"""The topics, as they should be; `topic_admin` creates and checks them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from aiokafka.partitioner import murmur2

from pipeline.settings import Settings

CHECK_INS: Final = "check-ins"
VENUES: Final = "venues"
DEAD_LETTERS: Final = "dead-letters"
CROWDING_ALERTS: Final = "crowding-alerts"
EXPOSURES: Final = "exposures"
VENUE_WARNINGS: Final = "venue-warnings"
CASE_REPORTS: Final = "case-reports"
AUDIT_HEADS: Final = "audit-heads"

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


def settings_topics(settings: Settings) -> tuple[Topic, ...]:
    """Every topic as these settings want it."""
    return declared_topics(settings.partitions, settings.retention)
