"""What apps and gates send to the gateway: a scan with a raw identifier, which goes no further than that."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from schemas.fields import Identifier, Instant, PartySize, Rule, refusal_detail

#: What a raw identifier can be.
IdentifierKind = Literal["phone", "national_id", "email", "device"]

#: What made a scan. Without digits, so that nobody's number can stand here.
GatewaySource = Annotated[
    str,
    Field(strict=True, pattern=r"^[a-z][a-z-]{0,31}$"),
    Rule("must be a string of 1 to 32 of a-z and -, from a-z on"),
]

_STRICT = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RawIdentifier(BaseModel):
    """Who is scanned. Never stored, logged or sent on; not shown by `repr` either."""

    model_config = _STRICT

    kind: IdentifierKind
    value: str = Field(strict=True, min_length=1, max_length=254, repr=False)


class GatewayScan(BaseModel):
    """One QR check-in or check-out as it happens at the edge, with who it is.

    Fields that are not known are refused, not ignored: they might say who it is.
    """

    model_config = _STRICT | ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "event_id": "01J8Z4V0Q3K6",
                    "event_type": "check_in",
                    "venue_id": "mall-0042",
                    "identifier": {"kind": "phone", "value": "+62 812-0000-0000"},
                    "occurred_at": "2021-09-19T10:15:30.250+07:00",
                    "party_size": 3,
                    "source": "gate",
                },
                {
                    "event_id": "01J8Z4V0Q3K7",
                    "event_type": "check_out",
                    "venue_code": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtYWxsLTAwNDIifQ.c2lnbmF0dXJl",
                    "identifier": {"kind": "device", "value": "0f8fad5b-d9cb-469f-a165-70867728950e"},
                    "occurred_at": "2021-09-19T05:02:11Z",
                    "stay_began_at": "2021-09-19T03:15:30.250Z",
                },
            ]
        }
    )

    event_id: Identifier = Field(
        description="The sender's own, and the same when it is sent again. Goes on as a keyed hash."
    )
    event_type: Annotated[Literal["check_in", "check_out"], Rule("must be check_in or check_out")]
    venue_id: Identifier | None = Field(None, description="The venue; or else `venue_code`.")
    venue_code: Annotated[
        str | None, Field(strict=True, min_length=1, max_length=2048, repr=False), Rule("must be a string of 1 to 2048")
    ] = Field(None, description="The venue's signed code, as scanned.")
    identifier: Annotated[
        RawIdentifier,
        Rule("must be an object of kind (phone, national_id, email, device) and value (1 to 254 characters)"),
    ]
    occurred_at: Instant = Field(description="RFC 3339 with an offset; cut to milliseconds.")
    party_size: PartySize = Field(1, description="Persons this scan stands for: one scan for a family.")
    source: GatewaySource = Field("app", description="What made the scan: app, gate, kiosk.")
    stay_began_at: Instant | None = Field(
        None,
        description="The check-in that began the stay which this scan goes on with or ends, at most 48 h before; so that a "
        "stay over a period's edge keeps its pseudonym.",
    )

    @model_validator(mode="after")
    def _one_venue(self) -> Self:
        if (self.venue_id is None) == (self.venue_code is None):
            raise PydanticCustomError("rule", "must have either venue_id or venue_code")
        return self


def gateway_refusal(error: ValidationError) -> str:
    """The first broken rule as "field: rule". Holds neither a value nor the name of an unknown field: both may be personal."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "extra_forbidden":
        return "has a field that is not known; known are " + ", ".join(GatewayScan.model_fields)
    if first["loc"] and first["loc"][0] == "stay_began_at" and first["type"] != "rule":
        return "stay_began_at: not an RFC 3339 time with an offset"
    return refusal_detail(GatewayScan, error)
