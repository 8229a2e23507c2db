"""A warning about a venue: infectious visitors were there."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.fields import Identifier, Instant


class VenueWarning(BaseModel):
    """Cases were at a venue in [`warn_from`, `warn_until`). Key of the record: `venue_id`.

    Delivered at least once; the same warning has the same `warning_id`.
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "warning_id": "c31d07aa5e9f4b02",
                    "venue_id": "mall-0042",
                    "warn_from": "2021-09-19T03:15:00.000Z",
                    "warn_until": "2021-09-19T07:15:00.000Z",
                    "case_count": 2,
                    "policy": "who",
                }
            ]
        },
    )

    warning_id: Identifier
    venue_id: Identifier
    warn_from: Instant
    warn_until: Instant
    case_count: Annotated[int, Field(strict=True, ge=0)] = Field(
        description="Cases whose visits overlap the warning; 0: it is withdrawn."
    )
    policy: Identifier
