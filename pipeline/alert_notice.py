"""What is told of a crowding alert outside the store."""

from dataclasses import dataclass

from schemas.alert import CrowdingAlert
from schemas.fields import format_instant


@dataclass(frozen=True, slots=True)
class AlertNotice:
    """An alert as it stands in the store; times in ms since the epoch, UTC, `cleared_at` None while it lasts.

    `retracted`: a late scan has taken it back. `told`: it stands as when it was told before; only who forgets need hear it again.
    `again`: another worker may have told of it since, so it is told whatever was told before.
    """

    alert_id: str
    venue: str
    level: str
    raised_at: int
    cleared_at: int | None
    peak: int
    capacity: int
    name: str
    category: str
    area: str | None
    retracted: bool = False
    told: bool = False
    again: bool = False

    @property
    def open(self) -> bool:
        """Whether the venue is crowded."""
        return self.cleared_at is None and not self.retracted

    @property
    def ended_at(self) -> int | None:
        """When it ended, ms; of a retracted one, when it began."""
        return self.raised_at if self.retracted else self.cleared_at

    def message(self) -> CrowdingAlert:
        """The record for the topic `crowding-alerts`."""
        return CrowdingAlert.model_validate(
            {
                "alert_id": self.alert_id,
                "venue_id": self.venue,
                "level": self.level,
                "raised_at": format_instant(self.raised_at),
                "cleared_at": None if self.ended_at is None else format_instant(self.ended_at),
                "peak": self.peak,
                "capacity": self.capacity,
            }
        )
