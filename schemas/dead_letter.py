"""The headers of a dead letter: where a refused record came from, and why it was refused."""

from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Reason = Literal["not_json", "not_utf8", "too_large", "schema", "too_old", "from_the_future"]

#: Why a record can be refused.
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


class DeadLetter(BaseModel):
    """Headers of a record in `dead-letters`, whose key and value are the refused record's own bytes."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "topic": "check-ins",
                    "partition": 3,
                    "offset": 128_734,
                    "reason": "schema",
                    "detail": "party_size: must be an integer from 1 to 50",
                }
            ]
        },
    )

    topic: Annotated[str, Field(min_length=1, max_length=249)]
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    reason: Reason
    detail: str = Field(description="Field and rule, never a value: no personal data.")

    def to_headers(self) -> list[tuple[str, bytes]]:
        """As Kafka record headers: UTF-8, numbers in decimal."""
        return [(name, str(value).encode()) for name, value in self]
