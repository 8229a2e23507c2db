"""A head count: how many people a gate or a camera, or somebody at the door, counted in a venue."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.fields import Identifier, Instant, PlainNumber


class HeadCount(BaseModel):
    """Everybody present in a venue at one time, whether they scanned or not. Numbers may come as decimal strings, as in CSV."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    venue_id: Identifier
    at: Instant = Field(description="RFC 3339 with an offset.")
    persons: Annotated[int, Field(ge=0, le=10_000_000), PlainNumber] = Field(description="People present at that time.")
