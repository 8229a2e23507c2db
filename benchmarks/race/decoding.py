"""A record of the topic to a scan, for the peers in Python: msgspec, the fastest reader that checks what the contract demands."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from benchmarks.race.job import CHECK_IN, CHECK_OUT, LARGEST, Scan

_Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{1,64}\Z")]


class _Record(msgspec.Struct, gc=False):
    event_id: _Id
    event_type: Literal["check_in", "check_out"]
    venue_id: _Id
    visitor_id: _Id
    occurred_at: Annotated[datetime, msgspec.Meta(tz=True)]
    party_size: Annotated[int, msgspec.Meta(ge=1, le=50)] = 1
    source: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{1,32}\Z")] = "app"


_decode = msgspec.json.Decoder(_Record).decode


def decode(value: bytes | None) -> Scan | None:
    """The scan that a record holds; None for what a dead letter would be made of."""
    if value is None or len(value) > LARGEST:
        return None
    try:
        record = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # A float holds the microseconds of this century exactly enough; half of one keeps 0.001 ms from being cut off.
    at = int(record.occurred_at.timestamp() * 1000 + 0.0005)
    kind = CHECK_IN if record.event_type == "check_in" else CHECK_OUT
    return Scan(record.venue_id, record.visitor_id, at, kind, record.party_size)
