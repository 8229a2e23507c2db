"""The kinds of values that the messages share, each with its rule in words."""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

#: An Instant lies in [EARLIEST, LATEST), ms since the epoch: from 1970-01-02 until 2106-01-01, 00:00 UTC.
#: ClickHouse's DateTime counts seconds in 32 bits, until 2106-02-07.
EARLIEST: Final = 86_400_000
LATEST: Final = 4_291_747_200_000

#: RFC 3339, section 5.6, to nanoseconds at most; no leap seconds, which milliseconds since the epoch cannot tell.
RFC3339_PATTERN: Final = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
_INSTANT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{0,18})?([eE][+-]?[0-9]{1,2})?")
_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)
_NOT_RFC3339 = "not an RFC 3339 time with an offset"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a field must be, in words that hold no value: for the detail of a refusal."""

    text: str


def parse_instant(text: str) -> int:
    """The RFC 3339 time as milliseconds since the epoch, UTC; what is finer is cut off.

    Raises ValueError, saying the broken rule, if it is no such time, has no offset, or is not in [EARLIEST, LATEST).
    """
    match = _INSTANT.fullmatch(text)
    if not match:
        raise ValueError(_NOT_RFC3339)
    day, time, fraction, sign, hours, minutes = match.groups()
    try:
        local = datetime.fromisoformat(f"{day}T{time}")
    except ValueError:
        raise ValueError(_NOT_RFC3339) from None
    ms = (local - _EPOCH) // _MILLISECOND + int((fraction or "")[:3].ljust(3, "0"))
    if sign:
        offset = (int(hours) * 60 + int(minutes)) * 60_000
        ms += offset if sign == "-" else -offset
    if not EARLIEST <= ms < LATEST:
        raise ValueError("must be from 1970-01-02 until before 2106-01-01, UTC")
    return ms


def format_instant(ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC: 2021-09-19T03:00:00.000Z."""
    return f"{(_EPOCH + ms * _MILLISECOND).isoformat(timespec='milliseconds')}Z"


def _instant(value: object, info: ValidationInfo) -> int:
    if isinstance(value, str):
        try:
            return parse_instant(value)
        except ValueError as error:
            raise PydanticCustomError("rule", str(error)) from None
    if info.mode == "python" and type(value) is int and EARLIEST <= value < LATEST:
        return value
    raise PydanticCustomError("rule", _NOT_RFC3339)


def _calendar_date(value: object, info: ValidationInfo) -> date:
    if info.mode == "python" and type(value) is date:
        return value
    if isinstance(value, str) and _DATE.fullmatch(value) and "1970-01-02" <= value < "2106-01-01":
        with suppress(ValueError):
            return date.fromisoformat(value)
    raise PydanticCustomError("rule", "must be a date, YYYY-MM-DD, from 1970-01-02 to 2105-12-31")


def _number(value: object) -> object:
    # pydantic takes true for 1, and "1_000" for 1000.
    if isinstance(value, bool) or (isinstance(value, str) and not _DECIMAL.fullmatch(value)):
        raise PydanticCustomError("rule", "must be a number")
    return value


def _time_zone(value: str) -> str:
    try:
        return ZoneInfo(value).key
    except (KeyError, ValueError, OSError):
        raise PydanticCustomError("rule", "must be an IANA time zone such as Asia/Jakarta") from None


#: An id that people or machines gave: opaque, compared byte by byte.
Identifier = Annotated[
    str, Field(strict=True, pattern=r"^[A-Za-z0-9._:-]{1,64}$"), Rule("must be a string of 1 to 64 of A-Za-z0-9._:-")
]

#: Integer milliseconds since the epoch, UTC, in [EARLIEST, LATEST); in JSON an RFC 3339 string with an offset.
#: From Python the integer is taken too, from JSON it is not.
Instant = Annotated[
    int,
    PlainValidator(_instant),
    PlainSerializer(format_instant, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": RFC3339_PATTERN}),
]

#: A day of the calendar, in the setting `timezone`.
CalendarDate = Annotated[date, BeforeValidator(_calendar_date)]

#: Before the type of a number that may also be a decimal string: what else is lax is refused.
PlainNumber = BeforeValidator(_number)

#: The name of an IANA time zone that this machine knows.
TimeZoneName = Annotated[str, Field(strict=True), AfterValidator(_time_zone), Rule("must be a string")]

#: What made a scan.
Source = Annotated[
    str, Field(strict=True, pattern=r"^[A-Za-z0-9._:-]{1,32}$"), Rule("must be a string of 1 to 32 of A-Za-z0-9._:-")
]

#: Persons who share one scan.
PartySize = Annotated[int, Field(strict=True, ge=1, le=50), Rule("must be an integer from 1 to 50")]


def refusal_detail(model: type[BaseModel], error: ValidationError) -> str:
    """The first broken rule as "field: rule". Never holds the value, which may be personal."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if not first["loc"]:
        return str(first["msg"]) if first["type"] == "rule" else "must be a JSON object"
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{name}: is missing"
    rules = [item.text for item in model.model_fields[name].metadata if isinstance(item, Rule)]
    return f"{name}: {rules[0] if rules and first['type'] != 'rule' else first['msg']}"
