"""However a scan is spelled or broken, the fast path and the judge agree."""

import json
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.core.columns import EVENT_TYPES, Rejection, ScanColumns, Text
from pipeline.core.decode import decode_scans
from pipeline.core.judge import Refusal, judge_scan
from schemas.fields import EARLIEST, LATEST, format_instant, parse_instant

IDS = st.text("abyzABYZ0189._:-", min_size=1, max_size=64)
NEARLY_IDS = IDS | st.text(max_size=66)
OFFSETS = st.integers(-24 * 60 + 1, 24 * 60 - 1)
TIMES = st.datetimes(datetime(1969, 12, 30), datetime(2106, 1, 3))


@st.composite
def instants(draw: st.DrawFn) -> str:
    """A time as people write it: near RFC 3339, and mostly right."""
    digits = draw(st.integers(0, 10))
    minutes = draw(OFFSETS)
    local = draw(TIMES).isoformat(sep=draw(st.sampled_from("TTTt ")), timespec="seconds")
    fraction = "." + f"{draw(st.integers(0, 10**10 - 1)):010d}"[:digits] if digits else ""
    offset = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    return local + fraction + draw(st.sampled_from(["Z", "z", offset, ""]))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4)
SCANS = st.fixed_dictionaries(
    {
        "event_id": NEARLY_IDS,
        "event_type": st.sampled_from(["check_in", "check_out"]),
        "venue_id": IDS,
        "visitor_id": IDS,
        "occurred_at": instants(),
    },
    optional={
        "party_size": st.integers(-1, 52) | SCALARS,
        "source": NEARLY_IDS | SCALARS,
        "x": VALUES,
        "event": VALUES,
    },
)


@st.composite
def spellings(draw: st.DrawFn) -> bytes:
    """A scan as JSON, with its keys in any order and any of the usual styles."""
    pairs = draw(SCANS.flatmap(lambda scan: st.permutations(list(scan.items()))))
    style = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\r\n: ")]))
    return json.dumps(dict(pairs), separators=style, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


BYTES = st.sampled_from([bytes([code]) for code in b'"\\\0\n {}[],:019-+.eETtZz\x7f\xff'])
WORDS = st.sampled_from(
    [b"\\u0041", b"1e5", b"NaN", b"null", b"true", b'"x":1,', b'"party_size":7,', b'"source":"s",', b"\xef\xbb\xbf"]
)
PIECES = BYTES | WORDS | st.binary(min_size=1, max_size=2)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A scan with up to three edits: bytes inserted, taken out, overwritten, or repeated."""
    value = draw(spellings())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(value)))
        end = min(len(value), at + draw(st.sampled_from([0, 1, 1, 2, 8, 40])))
        value = value[:at] + draw(PIECES | st.just(b"") | st.just(value[at:end] * 2)) + value[end:]
    return value


def texts(columns: ScanColumns, column: Text) -> list[str]:
    return [
        columns.buffer[start : start + length].tobytes().decode()
        for start, length in zip(column.start, column.length, strict=True)
    ]


def assert_agreed(values: list[bytes]) -> None:
    columns, rejections = decode_scans(values)
    verdicts = [judge_scan(value) for value in values]
    scans = [(i, verdict) for i, verdict in enumerate(verdicts) if not isinstance(verdict, Refusal)]
    assert columns.record.tolist() == [i for i, _ in scans]
    assert texts(columns, columns.event_id) == [scan.event_id for _, scan in scans]
    assert texts(columns, columns.venue_id) == [scan.venue_id for _, scan in scans]
    assert texts(columns, columns.visitor_id) == [scan.visitor_id for _, scan in scans]
    assert texts(columns, columns.source) == [scan.source for _, scan in scans]
    assert [EVENT_TYPES[code] for code in columns.event_type] == [scan.event_type for _, scan in scans]
    assert columns.occurred_at.tolist() == [scan.occurred_at for _, scan in scans]
    assert columns.party_size.tolist() == [scan.party_size for _, scan in scans]
    assert rejections == [
        Rejection(i, verdict.reason, verdict.detail)
        for i, verdict in enumerate(verdicts)
        if isinstance(verdict, Refusal)
    ]


@given(spellings())
def test_every_spelling_of_a_scan_is_read_as_the_judge_reads_it(value: bytes) -> None:
    assert_agreed([value])


@given(broken())
@example(
    b'{"event_id":"a","event_type":"check_in","venue_id":"v","visitor_id":"p","occurred_at":"2021-09-19T00:00:00Z"}\0'
)
def test_every_broken_scan_is_judged_alike(value: bytes) -> None:
    assert_agreed([value])


@given(st.lists(spellings() | broken() | st.binary(max_size=5), max_size=8))
def test_a_record_is_read_the_same_in_any_batch(values: list[bytes]) -> None:
    assert_agreed(values)


@given(TIMES, OFFSETS, st.integers(0, 999_999_999))
def test_a_time_means_the_instant_that_its_calendar_and_offset_say(local: datetime, offset: int, ns: int) -> None:
    local = local.replace(microsecond=ns // 1000)
    zoned = local.replace(tzinfo=timezone(timedelta(minutes=offset)))
    ms = (zoned - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    sign = "-" if offset < 0 else "+"
    text = f"{local:%Y-%m-%dT%H:%M:%S}.{ns:09d}{sign}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"
    value = json.dumps(
        {"event_id": "e", "event_type": "check_in", "venue_id": "v", "visitor_id": "p", "occurred_at": text}
    ).encode()
    columns, _ = decode_scans([value])
    assert columns.occurred_at.tolist() == ([ms] if EARLIEST <= ms < LATEST else [])


@given(st.integers(EARLIEST, LATEST - 1))
def test_an_instant_written_is_read_back(ms: int) -> None:
    assert parse_instant(format_instant(ms)) == ms
