"""A scan: one QR check-in or check-out at a venue."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.fields import Identifier, Instant, PartySize, Rule, Source


class Scan(BaseModel):
    """One QR check-in or check-out. Key of the record: `venue_id`.

    Two scans with the same `venue_id`, `visitor_id`, `event_type` and `occurred_at` (to the millisecond) are one scan.
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "event_id": "01J8Z4V0Q3K6",
                    "event_type": "check_in",
                    "venue_id": "mall-0042",
                    "visitor_id": "p-7f3a9c",
                    "occurred_at": "2021-09-19T10:15:30.250+07:00",
                    "party_size": 3,
                    "source": "gate",
                },
                {
                    "event_id": "01J8Z4V0Q3K7",
                    "event_type": "check_out",
                    "venue_id": "mall-0042",
                    "visitor_id": "p-7f3a9c",
                    "occurred_at": "2021-09-19T05:02:11Z",
                },
            ]
        },
    )

    event_id: Identifier = Field(description="For tracing; not the scan's identity.")
    event_type: Annotated[Literal["check_in", "check_out"], Rule("must be check_in or check_out")]
    venue_id: Identifier
    visitor_id: Identifier = Field(description="A pseudonym; never a national id, phone number or name.")
    occurred_at: Instant = Field(
        description="RFC 3339 with an offset, from 1970-01-02 until before 2106-01-01, UTC; cut to milliseconds."
    )
    party_size: PartySize = Field(1, description="Persons this scan stands for: one scan for a family.")
    source: Source = Field("app", description="What made the scan: an app, a gate, a kiosk.")
