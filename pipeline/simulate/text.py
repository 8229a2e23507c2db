"""Columns to lines of JSON, many at once.

Every field has its fixed place in a matrix of bytes, one row a line; what a line lacks is left zero, and the zeros are
squeezed out at the end. So no Python code runs per line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.simulate import facts
from pipeline.simulate.options import DAY, HOUR, MINUTE
from pipeline.simulate.visits import Bools, Ints

Bytes = NDArray[np.uint8]
Ids = NDArray[np.uint64]

APP: Final = 0
GATE: Final = 1
SECOND_APP: Final = 2
#: `source` by its code.
SOURCES: Final = ("app", "gate", "partner-app")
_TAILS: Final = (*(f',"source":"{name}"' for name in SOURCES), "", ',"source":"app","app_version":"5.2.1"')
_LEAN, _NEWER = 3, 4

#: What stands between the fields, and each field with its width.
_LAYOUT: Final = (
    (b'{"event_id":"e-', "event_id", 16),
    (b'","event_type":"check_', "event_type", 3),
    (b'","venue_id":"ven-', "venue_id", 6),
    (b'","visitor_id":"v-', "visitor_id", 16),
    (b'","occurred_at":"', "date", 10),
    (b"", "minute", 6),
    (b"", "second", 7),
    (b"", "offset", 6),
    (b'"', "party_size", 15),
    (b"", "tail", max(map(len, _TAILS))),
    (b"}\n", "", 0),
)


@dataclass(frozen=True, slots=True)
class ScanBatch:
    """Valid scans in order of arrival, before they are text."""

    event_id: Ids
    is_check_out: Bools
    venue: Ints
    visitor_id: Ids
    #: ms from `midnight`, which is in ms since the epoch; both UTC.
    occurred: Ints
    midnight: int
    #: Hours east of UTC in which the phone writes the time; 0 writes `Z`.
    hours: NDArray[np.int32]
    party: Bytes
    #: Position in SOURCES.
    source: Bytes
    #: Leaves out what has a default; sends a field that we do not know.
    lean: Bools
    newer: Bools


def venue_keys(venue: Ints) -> list[bytes]:
    """The venues' ids: the records' keys."""
    return _matrix_ids(b"ven-", _venue_digits(venue)).view("S10").ravel().tolist()


def json_lines(columns: ScanBatch) -> list[bytes]:
    """One JSON object a scan, without line ends."""
    count = len(columns.venue)
    local = columns.occurred + columns.hours * np.int32(HOUR)
    day, time = np.divmod(local, np.int32(DAY))
    minute, second = np.divmod(time, np.int32(MINUTE))
    days, dates = _dates(columns.midnight)
    fields = {
        "event_id": _hex_digits(columns.event_id),
        "event_type": _table(("in", "out"))[columns.is_check_out.view(np.uint8)],
        "venue_id": _venue_digits(columns.venue),
        "visitor_id": _hex_digits(columns.visitor_id),
        "date": dates[day - days],
        "minute": _minutes()[minute],
        "second": _seconds()[second],
        "offset": _offsets()[columns.hours],
        "party_size": _parties()[np.where(columns.lean & (columns.party == 1), 0, columns.party)],
        "tail": _table(_TAILS)[_tails(columns)],
    }
    template = b"".join(literal + bytes(width) for literal, _, width in _LAYOUT)
    matrix = np.empty((count, len(template)), np.uint8)
    matrix[:] = np.frombuffer(template, np.uint8)
    at = 0
    for literal, name, width in _LAYOUT:
        at += len(literal)
        if name:
            matrix[:, at : at + width] = fields[name]
            at += width
    return matrix.tobytes().translate(None, b"\0").split(b"\n")[:-1]


def _tails(columns: ScanBatch) -> NDArray[np.uint8]:
    plain = columns.source == APP
    tail = np.where(plain & columns.lean, np.uint8(_LEAN), columns.source)
    return np.where(plain & columns.newer, np.uint8(_NEWER), tail)


ARROW_SCHEMA: Final = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("venue_id", pa.string(), nullable=False),
        pa.field("visitor_id", pa.string(), nullable=False),
        pa.field("occurred_at", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("party_size", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)


def arrow_table(columns: ScanBatch) -> Any:
    """The scans as a pyarrow.Table of ARROW_SCHEMA."""
    return pa.table(
        [
            _arrow_ids(b"e-", _hex_digits(columns.event_id)),
            pa.array(("check_in", "check_out")).take(pa.array(columns.is_check_out.view(np.uint8))),
            arrow_venue_ids(columns.venue),
            arrow_visitor_ids(columns.visitor_id),
            arrow_times(columns.occurred, columns.midnight),
            pa.array(columns.party.astype(np.int32)),
            pa.array(SOURCES).take(pa.array(columns.source)),
        ],
        schema=ARROW_SCHEMA,
    )


def arrow_venue_ids(venue: Ints) -> Any:
    """The venues' ids as a pyarrow.StringArray."""
    return _arrow_ids(b"ven-", _venue_digits(venue))


def arrow_visitor_ids(visitor_id: Ids) -> Any:
    """The visitors' ids as a pyarrow.StringArray."""
    return _arrow_ids(b"v-", _hex_digits(visitor_id))


def arrow_times(times: Ints, midnight: int) -> Any:
    """Times in ms from midnight as a pyarrow.TimestampArray in UTC."""
    return pa.array((times.astype(np.int64) + midnight).view("datetime64[ms]"), pa.timestamp("ms", "UTC"))


def _arrow_ids(prefix: bytes, digits: Bytes) -> Any:
    matrix = _matrix_ids(prefix, digits)
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * np.int32(matrix.shape[1])
    return pa.StringArray.from_buffers(len(matrix), pa.py_buffer(offsets), pa.py_buffer(matrix))


def _matrix_ids(prefix: bytes, digits: Bytes) -> Bytes:
    matrix = np.empty((len(digits), len(prefix) + digits.shape[1]), np.uint8)
    matrix[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
    matrix[:, len(prefix) :] = digits
    return matrix


def _hex_digits(ids: Ids) -> Bytes:
    words: NDArray[np.uint16] = ids.astype(">u8").view(">u2").reshape(-1, 4)
    return _hex()[words].reshape(-1, 16)


def _venue_digits(venue: Ints) -> Bytes:
    return np.hstack([_thousands()[venue // 1000], _thousands()[venue % 1000]])


def _matrix(texts: Sequence[str]) -> Bytes:
    width = max(map(len, texts))
    return np.array([text.encode() for text in texts], f"S{width}").view(np.uint8).reshape(-1, width)


@cache
def _table(texts: Sequence[str]) -> Bytes:
    return _matrix(texts)


@cache
def _hex() -> Bytes:
    return _matrix([f"{number:04x}" for number in range(65536)])


@cache
def _thousands() -> Bytes:
    return _matrix([f"{number:03d}" for number in range(1000)])


@cache
def _minutes() -> Bytes:
    return _matrix([f"T{number // 60:02d}:{number % 60:02d}" for number in range(1440)])


@cache
def _seconds() -> Bytes:
    return _matrix([f":{number // 1000:02d}.{number % 1000:03d}" for number in range(60_000)])


@cache
def _offsets() -> Bytes:
    return _matrix(["Z", *(f"+{hours:02d}:00" for hours in range(1, 24))])


@cache
def _parties() -> Bytes:
    largest = max(size for size, _ in facts.GROUP_SIZES)
    return _matrix(["", *(f',"party_size":{size}' for size in range(1, largest + 1))])


@cache
def _dates(midnight: int) -> tuple[int, Bytes]:
    """The days around midnight as text, and the number of the first."""
    first, last = -facts.LATEST_DAYS - 2, 3
    start = datetime.fromtimestamp(midnight / 1000, UTC)
    return first, _matrix([f"{start + timedelta(days=day):%Y-%m-%d}" for day in range(first, last)])
