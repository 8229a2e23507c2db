"""A case report: what a health authority knows of one infected visitor."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.fields import CalendarDate, Identifier, Instant, Rule


class CaseReport(BaseModel):
    """One report about a case. Key of the record: `case_id`; the newest `reported_at` of a case holds.

    `infectious_from` and `infectious_until` are half-open and win over the dates, from which the policy derives them.
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "case_id": "c-2021-000123",
                    "visitor_id": "p-7f3a9c",
                    "status": "confirmed",
                    "reported_at": "2021-09-20T09:00:00+07:00",
                    "onset_date": "2021-09-18",
                    "specimen_date": "2021-09-19",
                    "policy": "who",
                },
                {
                    "case_id": "c-2021-000124",
                    "visitor_id": "p-0b1d22",
                    "status": "suspected",
                    "reported_at": "2021-09-20T09:30:00Z",
                    "infectious_from": "2021-09-16T00:00:00Z",
                    "infectious_until": "2021-09-30T00:00:00Z",
                },
                {
                    "case_id": "c-2021-000123",
                    "visitor_id": "p-7f3a9c",
                    "status": "withdrawn",
                    "reported_at": "2021-09-21T08:00:00+07:00",
                },
            ]
        },
    )

    case_id: Identifier
    visitor_id: Identifier = Field(description="The pseudonym of the scans.")
    status: Annotated[
        Literal["suspected", "confirmed", "withdrawn"], Rule("must be suspected, confirmed or withdrawn")
    ] = Field(description="A withdrawn case has no exposures.")
    reported_at: Instant
    onset_date: CalendarDate | None = Field(None, description="First day of symptoms, in the setting `timezone`.")
    specimen_date: CalendarDate | None = Field(None, description="Day of the sample, in the setting `timezone`.")
    infectious_from: Instant | None = None
    infectious_until: Instant | None = Field(None, description="The first moment that is no longer infectious.")
    policy: Identifier | None = Field(None, description="Id of the contact policy; without it the setting's.")

    @model_validator(mode="after")
    def _infectious_until_is_after_from(self) -> Self:
        start, end = self.infectious_from, self.infectious_until
        if start is not None and end is not None and start >= end:
            raise PydanticCustomError("rule", "infectious_until: must be after infectious_from")
        return self
