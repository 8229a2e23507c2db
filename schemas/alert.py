"""An alert that a venue is crowded."""

from typing import Annotated

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
                    "level": "crowded",
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
    level: Identifier
    raised_at: Instant
    cleared_at: Instant | None = Field(None, description="Null while the venue is crowded.")
    peak: Annotated[int, Field(strict=True, ge=0)] = Field(description="The most persons present since `raised_at`.")
    capacity: Annotated[int, Field(strict=True, ge=1)] = Field(description="Persons allowed at once.")
