"""The ordinary spelling of a scan, recognised and read in one pass over the bytes.

Ordinary is one JSON object of known keys in any order, each at most once, with string values of plain ASCII and no
escapes, and `party_size` in plain digits; beside them any unknown keys with simple values. Whatever is not ordinary,
or breaks a rule, is left to the judge: here nothing is refused, and nothing may be accepted that the judge refuses or
reads differently.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.core.columns import CHECK_IN, CHECK_OUT
from pipeline.core.jit import kernel
from pipeline.core.judge import MAX_BYTES
from pipeline.core.values import DEFAULT_SOURCE
from schemas.fields import EARLIEST, LATEST

Bytes = NDArray[np.uint8]

# What a byte may be part of, as bits of _CLASS.
_ID: Final = 1
_PLAIN: Final = 2
_SPACE: Final = 4
_DIGIT: Final = 8


def _classes() -> Bytes:
    classes = np.zeros(256, np.uint8)
    classes[0x20:0x7F] |= _PLAIN
    classes[[ord('"'), ord("\\")]] = 0
    classes[list(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._:-")] |= _ID
    classes[list(b" \t\r\n")] |= _SPACE
    classes[list(b"0123456789")] |= _DIGIT
    return classes


def _words(*words: bytes) -> tuple[Bytes, NDArray[np.int64]]:
    return np.frombuffer(b"".join(words), np.uint8).copy(), np.cumsum([0, *map(len, words)])


_CLASS: Final = _classes()

# The text columns first, in the order of the rows of `start` and `length`.
EVENT_ID, VENUE_ID, VISITOR_ID, SOURCE, EVENT_TYPE, OCCURRED_AT, PARTY_SIZE, UNKNOWN = range(8)
_KEYS, _KEY_AT = _words(
    b"event_id", b"venue_id", b"visitor_id", b"source", b"event_type", b"occurred_at", b"party_size"
)
_REQUIRED: Final = 1 << EVENT_ID | 1 << VENUE_ID | 1 << VISITOR_ID | 1 << EVENT_TYPE | 1 << OCCURRED_AT
_MAX_LENGTH: Final = np.array([64, 64, 64, 32])
_CHECK_IN: Final = np.frombuffer(b"check_in", np.uint8).copy()
_CHECK_OUT: Final = np.frombuffer(b"check_out", np.uint8).copy()
_LITERALS, _LITERAL_AT = _words(b"true", b"false", b"null")

#: The longest number of an unknown key that is skipped here; readers differ on much longer ones.
_MAX_NUMBER: Final = 64

_QUOTE: Final = ord('"')
_COMMA: Final = ord(",")
_COLON: Final = ord(":")
_OPEN: Final = ord("{")
_CLOSE: Final = ord("}")
_MINUS: Final = ord("-")
_PLUS: Final = ord("+")
_DOT: Final = ord(".")
_ZERO: Final = ord("0")
_LOWER: Final = 0x20

# Each month's first as days since the epoch. A year more than instants have: an offset can carry over a year's end.
_FIRST_YEAR: Final = 1969
_LAST_YEAR: Final = 2106
_FIRST_DAY: Final = (
    np.arange(f"{_FIRST_YEAR}-01", f"{_LAST_YEAR + 1}-02", dtype="M8[M]").astype("M8[D]").astype(np.int64)
)

#: What the functions below return where the spelling is not ordinary.
_ODD: Final = -1


@kernel
def _skip_space(buffer: Bytes, at: int) -> int:
    while _CLASS[buffer[at]] & _SPACE:
        at += 1
    return at


@kernel
def _skip_plain(buffer: Bytes, at: int) -> int:
    while _CLASS[buffer[at]] & _PLAIN:
        at += 1
    return at


@kernel
def _skip_digits(buffer: Bytes, at: int) -> int:
    while _CLASS[buffer[at]] & _DIGIT:
        at += 1
    return at


@kernel
def _skip_id(buffer: Bytes, at: int) -> int:
    while _CLASS[buffer[at]] & _ID:
        at += 1
    return at


@kernel
def _is_word(buffer: Bytes, at: int, words: Bytes, begin: int, end: int) -> bool:
    for i in range(end - begin):  # noqa: SIM110 (kernels have no generators)
        if buffer[at + i] != words[begin + i]:
            return False
    return True


@kernel
def _key(buffer: Bytes, at: int, length: int) -> int:
    for key in range(UNKNOWN):
        begin, end = _KEY_AT[key], _KEY_AT[key + 1]
        if length == end - begin and _is_word(buffer, at, _KEYS, begin, end):
            return key
    return UNKNOWN


@kernel
def _skip_number(buffer: Bytes, at: int) -> int:
    begin = at
    if buffer[at] == _MINUS:
        at += 1
    end = _skip_digits(buffer, at)
    if end == at or (buffer[at] == _ZERO and end != at + 1):
        return _ODD
    if buffer[end] == _DOT:
        at = end + 1
        end = _skip_digits(buffer, at)
        if end == at:
            return _ODD
    if buffer[end] | _LOWER == ord("e"):
        at = end + 1
        if buffer[at] == _PLUS or buffer[at] == _MINUS:
            at += 1
        end = _skip_digits(buffer, at)
        if end == at:
            return _ODD
    return end if end - begin <= _MAX_NUMBER else _ODD


@kernel
def _skip_value(buffer: Bytes, at: int) -> int:
    if buffer[at] == _QUOTE:
        at = _skip_plain(buffer, at + 1)
        return at + 1 if buffer[at] == _QUOTE else _ODD
    for word in range(3):
        if _is_word(buffer, at, _LITERALS, _LITERAL_AT[word], _LITERAL_AT[word + 1]):
            return at + int(_LITERAL_AT[word + 1] - _LITERAL_AT[word])
    return _skip_number(buffer, at)


@kernel
def _two_digits(buffer: Bytes, at: int) -> int:
    # Not two digits: something over 99.
    tens = int(buffer[at]) - _ZERO
    ones = int(buffer[at + 1]) - _ZERO
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return 100
    return tens * 10 + ones


@kernel
def _instant(buffer: Bytes, at: int, end: int) -> int:
    """The RFC 3339 time in buffer[at:end] as ms since the epoch, or _ODD."""
    if end - at < len("2021-09-19T03:00:00Z"):
        return _ODD
    century, year, month = _two_digits(buffer, at), _two_digits(buffer, at + 2), _two_digits(buffer, at + 5)
    day, hour = _two_digits(buffer, at + 8), _two_digits(buffer, at + 11)
    minute, second = _two_digits(buffer, at + 14), _two_digits(buffer, at + 17)
    if (
        buffer[at + 4] != _MINUS
        or buffer[at + 7] != _MINUS
        or buffer[at + 10] | _LOWER != ord("t")
        or buffer[at + 13] != _COLON
        or buffer[at + 16] != _COLON
        or century > 99
        or year > 99
        or month < 1
        or month > 12
        or hour > 23
        or minute > 59
        or second > 59
    ):
        return _ODD
    year += century * 100
    if year < _FIRST_YEAR or year > _LAST_YEAR:
        return _ODD
    index = (year - _FIRST_YEAR) * 12 + month - 1
    if day < 1 or day > _FIRST_DAY[index + 1] - _FIRST_DAY[index]:
        return _ODD
    ms = ((((_FIRST_DAY[index] + day - 1) * 24 + hour) * 60 + minute) * 60 + second) * 1000
    at += 19
    if buffer[at] == _DOT:
        fraction = at + 1
        at = _skip_digits(buffer, fraction)
        if at == fraction or at > fraction + 9:
            return _ODD
        weight = 100
        for i in range(fraction, min(at, fraction + 3)):
            ms += (buffer[i] - _ZERO) * weight
            weight //= 10
    if end == at + 1 and buffer[at] | _LOWER == ord("z"):
        offset = 0
    elif end == at + 6 and (buffer[at] == _PLUS or buffer[at] == _MINUS) and buffer[at + 3] == _COLON:
        hour, minute = _two_digits(buffer, at + 1), _two_digits(buffer, at + 4)
        if hour > 23 or minute > 59:
            return _ODD
        offset = (hour * 60 + minute) * 60_000
        if buffer[at] == _MINUS:
            offset = -offset
    else:
        return _ODD
    ms -= offset
    return ms if EARLIEST <= ms < LATEST else _ODD


@kernel
def _party_size(buffer: Bytes, at: int, end: int) -> int:
    if at == end or end > at + 2 or buffer[at] == _ZERO:
        return _ODD
    size = 0
    for i in range(at, end):
        size = size * 10 + int(buffer[i]) - _ZERO
    return size if size <= 50 else _ODD


@kernel
def _read_scan(
    buffer: Bytes,
    at: int,
    end: int,
    row: int,
    start: NDArray[np.int64],
    length: NDArray[np.int32],
    event_type: NDArray[np.uint8],
    occurred_at: NDArray[np.int64],
    party_size: NDArray[np.uint8],
) -> bool:
    """Read the record buffer[at:end] into `row`; False, with anything in the row, if its spelling is not ordinary."""
    seen = 0
    at = _skip_space(buffer, at)
    if buffer[at] != _OPEN:
        return False
    while True:
        at = _skip_space(buffer, at + 1)
        if buffer[at] != _QUOTE:
            return False
        begin = at + 1
        at = _skip_plain(buffer, begin)
        if buffer[at] != _QUOTE:
            return False
        key = _key(buffer, begin, at - begin)
        at = _skip_space(buffer, at + 1)
        if buffer[at] != _COLON:
            return False
        at = _skip_space(buffer, at + 1)
        if key == UNKNOWN:
            at = _skip_value(buffer, at)
            if at == _ODD:
                return False
        elif seen >> key & 1:
            return False
        elif key == PARTY_SIZE:
            begin = at
            at = _skip_digits(buffer, begin)
            size = _party_size(buffer, begin, at)
            if size == _ODD:
                return False
            party_size[row] = size
        elif buffer[at] != _QUOTE:
            return False
        else:
            begin = at + 1
            if key < EVENT_TYPE:
                at = _skip_id(buffer, begin)
                if at == begin or at > begin + _MAX_LENGTH[key]:
                    return False
                start[key, row] = begin
                length[key, row] = at - begin
            elif key == OCCURRED_AT:
                at = _skip_plain(buffer, begin)
                ms = _instant(buffer, begin, at)
                if ms == _ODD:
                    return False
                occurred_at[row] = ms
            elif _is_word(buffer, begin, _CHECK_IN, 0, len(_CHECK_IN)):
                at = begin + len(_CHECK_IN)
                event_type[row] = CHECK_IN
            elif _is_word(buffer, begin, _CHECK_OUT, 0, len(_CHECK_OUT)):
                at = begin + len(_CHECK_OUT)
                event_type[row] = CHECK_OUT
            else:
                return False
            if buffer[at] != _QUOTE:
                return False
            at += 1
        seen |= 1 << key
        at = _skip_space(buffer, at)
        if buffer[at] != _COMMA:
            break
    if buffer[at] != _CLOSE or _skip_space(buffer, at + 1) != end or seen & _REQUIRED != _REQUIRED:
        return False
    if not seen >> PARTY_SIZE & 1:
        party_size[row] = 1
    if not seen >> SOURCE & 1:
        start[SOURCE, row] = len(buffer) - len(DEFAULT_SOURCE)
        length[SOURCE, row] = len(DEFAULT_SOURCE)
    return True


@kernel
def read_scans(
    buffer: Bytes,
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    start: NDArray[np.int64],
    length: NDArray[np.int32],
    event_type: NDArray[np.uint8],
    occurred_at: NDArray[np.int64],
    party_size: NDArray[np.uint8],
    record: NDArray[np.int32],
) -> int:
    """Read the ordinary records of a batch into the first rows of the columns; returns the number of rows.

    The records are those of `Values`: record i is buffer[begin[i] : end[i]], and the buffer ends with the default source.
    The rows of `start` and `length` are event_id, venue_id, visitor_id and source; `record` gets each row's i.
    """
    rows = 0
    for i in range(len(begin)):
        if 0 < end[i] - begin[i] <= MAX_BYTES and _read_scan(
            buffer, begin[i], end[i], rows, start, length, event_type, occurred_at, party_size
        ):
            record[rows] = i
            rows += 1
    return rows
