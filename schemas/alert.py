"""An alert that a venue is crowded."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.fields import Identifier, Instant


class CrowdingAlert(BaseModel):
    """A venue is crowded, or no longer. Key of the record: `venue_id`.

    Delivered at least once; the same crowding has the same `alert_id`, so readers can drop what they have seen.
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "alert_id": "5f0c8a52d1e94b7e",
                    "venue_id": "mall-0042",
                    "level": "warning",
                    "raised_at": "2021-09-19T05:41:00.000Z",
                    "cleared_at": None,
                    "peak": 4630,
                    "capacity": 5000,
                }
            ]
        },
    )

    alert_id: Identifier
    venue_id: Identifier
    level: Literal["warning", "critical"]
    raised_at: Instant = Field(description="When occupancy had been at the level's threshold for long enough.")
    cleared_at: Instant | None = Field(
        None,
        description="Null while the venue is crowded. Equal to `raised_at`: a late scan has shown that it never was.",
    )
    peak: Annotated[int, Field(strict=True, ge=0)] = Field(
        description="The most persons present since `raised_at`, as known when this was sent."
    )
    capacity: Annotated[int, Field(strict=True, ge=1)] = Field(description="Persons allowed at once.")
