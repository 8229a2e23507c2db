"""An exposure: a case's visit and another visitor's that overlap at one venue."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.fields import Identifier, Instant

Minutes = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Exposure(BaseModel):
    """One pair of overlapping visits: a venue exposure, no proof of closeness. Key of the record: `case_id`.

    Delivered at least once; the same pair under the same policy has the same `exposure_id`.
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "exposure_id": "9b1f60c2e7a84d31",
                    "case_id": "c-2021-000123",
                    "visitor_id": "p-44c0de",
                    "venue_id": "mall-0042",
                    "overlap_from": "2021-09-19T03:20:00.000Z",
                    "overlap_until": "2021-09-19T03:42:30.000Z",
                    "minutes": 22.5,
                    "minutes_low": 22.5,
                    "minutes_high": 22.5,
                    "cumulative_minutes": 31.0,
                    "tier": "exposed",
                    "policy": "who",
                    "policy_version": "1",
                }
            ]
        },
    )

    exposure_id: Identifier
    case_id: Identifier
    visitor_id: Identifier = Field(description="The other visitor, not the case.")
    venue_id: Identifier
    overlap_from: Instant
    overlap_until: Instant
    minutes: Minutes = Field(description="The overlap's length; exact where both check-outs are real.")
    minutes_low: Minutes
    minutes_high: Minutes
    cumulative_minutes: Minutes = Field(description="The most within any window of the policy.")
    tier: Identifier = Field(
        description="By the policy from the cumulative minutes; `below` its thresholds; `withdrawn`: it is no exposure any more."
    )
    policy: Identifier
    policy_version: Identifier
