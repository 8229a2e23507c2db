"""The fast path and the judge accept the same records, with the same values; refusals give the right reason."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.core import decode
from pipeline.core.columns import EVENT_TYPES, Rejection, ScanColumns, Text
from pipeline.core.decode import decode_scans, judge_times, take
from pipeline.core.judge import Refusal, judge_scan
from tests.hostile.corpus import SCAN

MS = 1_632_021_330_250
ROW = ("e-1", "v:1", "p_1", "gate", "check_in", MS, 3)
UNKNOWN = '"event_id":"e","event_type":"check_in","venue_id":"v","visitor_id":"p","occurred_at":"2021-09-19T00:00:00Z"'


def spell(**changes: object) -> bytes:
    return json.dumps({**SCAN, **changes}).encode()


def without(field: str) -> bytes:
    return json.dumps({name: value for name, value in SCAN.items() if name != field}).encode()


def raw(field: str, text: str) -> bytes:
    """The scan with the field's value written as `text`."""
    return spell(**{field: "@"}).replace(b'"@"', text.encode("utf-8", "surrogatepass"))


def extra(text: str | bytes) -> bytes:
    """A scan with an unknown field whose value is written as `text`."""
    return b"{" + UNKNOWN.encode() + b',"x":' + (text if isinstance(text, bytes) else text.encode()) + b"}"


def rows(columns: ScanColumns) -> list[tuple[object, ...]]:
    def texts(column: Text) -> list[str]:
        return [
            columns.buffer[start : start + length].tobytes().decode()
            for start, length in zip(column.start, column.length, strict=True)
        ]

    return list(
        zip(
            texts(columns.event_id),
            texts(columns.venue_id),
            texts(columns.visitor_id),
            texts(columns.source),
            [EVENT_TYPES[code] for code in columns.event_type],
            columns.occurred_at.tolist(),
            columns.party_size.tolist(),
            strict=True,
        )
    )


def judged(values: Sequence[bytes | None]) -> tuple[list[tuple[object, ...]], list[int], list[Rejection]]:
    """What decode_scans must say, from the judge alone: rows, their records, rejections."""
    accepted, records, rejections = [], [], []
    for i, value in enumerate(values):
        verdict = judge_scan(value)
        if isinstance(verdict, Refusal):
            rejections.append(Rejection(i, verdict.reason, verdict.detail))
        else:
            records.append(i)
            accepted.append(
                (
                    verdict.event_id,
                    verdict.venue_id,
                    verdict.visitor_id,
                    verdict.source,
                    verdict.event_type,
                    verdict.occurred_at,
                    verdict.party_size,
                )
            )
    return accepted, records, rejections


ORDINARY = {
    "every field": spell(),
    "compact": json.dumps(SCAN, separators=(",", ":")).encode(),
    "indented": json.dumps(SCAN, indent="\t").encode(),
    "CRLF around": b"\r\n " + spell() + b" \r\n",
    "keys backwards": json.dumps(dict(reversed(SCAN.items()))).encode(),
    "no party_size": without("party_size"),
    "no source": without("source"),
    "longest ids": spell(event_id="e" * 64, venue_id="v" * 64, visitor_id="p" * 64, source="s" * 32),
    "shortest ids": spell(event_id=".", venue_id="_", visitor_id=":", source="-"),
    "largest party": spell(party_size=50),
    "smallest party": spell(party_size=1),
    "unknown string": extra('"a b~!"'),
    "unknown empty string": extra('""'),
    "unknown empty key": b"{" + UNKNOWN.encode() + b',"":1}',
    "unknown key twice": b"{" + UNKNOWN.encode() + b',"x":1,"x":2}',
    "unknown true": extra("true"),
    "unknown false": extra("false"),
    "unknown null": extra("null"),
    "unknown zero": extra("0"),
    "unknown minus zero": extra("-0"),
    "unknown number": extra("-12.50e+07"),
    "unknown huge exponent": extra("1e999999"),
    "key that begins like ours": b"{" + UNKNOWN.encode() + b',"event_id2":"not:an id"}',
    "midnight": spell(occurred_at="2021-09-19T00:00:00Z"),
    "last second": spell(occurred_at="2021-09-19T23:59:59.999999999Z"),
    "lower case": spell(occurred_at="2021-09-19t10:15:30z"),
    "one digit": spell(occurred_at="2021-09-19T10:15:30.2Z"),
    "far offsets": spell(occurred_at="2021-09-19T10:15:30+23:59"),
    "minus zero": spell(occurred_at="2021-09-19T10:15:30-00:00"),
    "leap day": spell(occurred_at="2020-02-29T10:15:30Z"),
    "leap day of 2000": spell(occurred_at="2000-02-29T10:15:30Z"),
    "first instant": spell(occurred_at="1970-01-02T00:00:00Z"),
    "last instant": spell(occurred_at="2105-12-31T23:59:59.999Z"),
    "in 2106 only by local time": spell(occurred_at="2106-01-01T06:59:59.999+07:00"),
    "first instant by local time": spell(occurred_at="1970-01-01T17:00:00-07:00"),
}

ODD_BUT_VALID = {
    "escape in a value": raw("venue_id", r'"v\u003a1"'),
    "escape in a key": spell().replace(b"venue_id", rb"venue\u005fid"),
    "equal keys": spell().replace(b"{", b'{"venue_id": "other",', 1),
    "equal keys, the first one invalid": spell().replace(b"{", b'{"party_size": 2.0, "occurred_at": [],', 1),
    "unknown non-ASCII": extra('"caf\u00e9"'),
    "unknown surrogate pair": extra(r'"\ud83d\ude00"'),
    "unknown NUL": extra(r'"\u0000"'),
    "unknown DEL": extra(b'"\x7f"'),
    "unknown list": extra("[1, 2, {}]"),
    "unknown object": extra('{"event_id": "inner"}'),
    "unknown nested 199 deep": extra("[" * 199 + "]" * 199),
    "unknown integer of 4,300 digits": extra("9" * 4300),
    "as large as allowed": extra('"' + "a" * (65_536 - len(extra('""'))) + '"'),
}

REFUSED = {
    "no value": (None, "not_json"),
    "nothing": (b"", "not_json"),
    "space only": (b" \n", "not_json"),
    "NUL": (b"\0", "not_json"),
    "cut short": (spell()[:-1], "not_json"),
    "cut in a number": (spell()[: spell().index(b"3,") + 1], "not_json"),
    "trailing byte": (spell() + b"x", "not_json"),
    "trailing NUL": (spell() + b"\0", "not_json"),
    "two objects": (spell() + spell(), "not_json"),
    "two objects on two lines": (spell() + b"\n" + spell(), "not_json"),
    "two objects with NUL between": (spell() + b"\0" + spell(), "not_json"),
    "trailing comma": (spell()[:-1] + b",}", "not_json"),
    "leading comma": (b"{," + spell()[1:], "not_json"),
    "no comma": (spell().replace(b", ", b" ", 1), "not_json"),
    "no colon": (spell().replace(b": ", b" ", 1), "not_json"),
    "BOM": (b"\xef\xbb\xbf" + spell(), "not_json"),
    "UTF-16": (spell().decode().encode("utf-16"), "not_utf8"),
    "Latin-1": (extra('"é"'.encode("latin-1")), "not_utf8"),
    "encoded surrogate": (extra(b'"\xed\xa0\x80"'), "not_utf8"),
    "overlong slash": (extra(b'"\xc0\xaf"'), "not_utf8"),
    "bytes after NUL": (spell() + b"\0\xff", "not_utf8"),
    "form feed": (b"\x0c" + spell(), "not_json"),
    "no-break space": ("\u00a0".encode() + spell(), "not_json"),
    "comment": (b"/**/" + spell(), "not_json"),
    "single quotes": (spell().replace(b'"', b"'"), "not_json"),
    "bare key": (spell().replace(b'"venue_id"', b"venue_id"), "not_json"),
    "raw newline in a value": (raw("venue_id", '"v\n1"'), "not_json"),
    "raw newline in a key": (spell().replace(b"venue_id", b"venue\n_id"), "not_json"),
    "raw NUL in a value": (raw("venue_id", '"v\0"'), "not_json"),
    "raw TAB in an unknown value": (extra('"\t"'), "not_json"),
    "lone surrogate": (raw("venue_id", r'"\ud800"'), "not_json"),
    "lone surrogate in an unknown value": (extra(r'"\udc00"'), "not_json"),
    "bad escape": (raw("venue_id", r'"\x41"'), "not_json"),
    "short escape": (extra(r'"\u12"'), "not_json"),
    "NaN": (raw("party_size", "NaN"), "not_json"),
    "unknown NaN": (extra("NaN"), "not_json"),
    "unknown Infinity": (extra("Infinity"), "not_json"),
    "unknown -Infinity": (extra("-Infinity"), "not_json"),
    "unknown 01": (extra("01"), "not_json"),
    "unknown +1": (extra("+1"), "not_json"),
    "unknown 1.": (extra("1."), "not_json"),
    "unknown .5": (extra(".5"), "not_json"),
    "unknown -": (extra("-"), "not_json"),
    "unknown 1e": (extra("1e"), "not_json"),
    "unknown 1e+": (extra("1e+"), "not_json"),
    "unknown 0x1": (extra("0x1"), "not_json"),
    "unknown True": (extra("True"), "not_json"),
    "unknown tru": (extra("tru"), "not_json"),
    "unknown nullx": (extra("nullx"), "not_json"),
    "unknown nothing": (extra(""), "not_json"),
    "unknown integer of 5,000 digits": (extra("9" * 5000), "not_json"),
    "nested 201 deep": (extra("[" * 201 + "]" * 201), "not_json"),
    "nested 30,000 deep": (b"[" * 30_000 + b"]" * 30_000, "not_json"),
    "objects nested without end": (b'{"a":' * 10_000, "not_json"),
    "party_size 01": (raw("party_size", "01"), "not_json"),
    "party_size +1": (raw("party_size", "+1"), "not_json"),
    "too large": (spell() + b" " * 65_536, "too_large"),
    "too large by one": (extra('"' + "a" * (65_537 - len(extra('""'))) + '"'), "too_large"),
    "too large and no JSON": (b"\xff" * 65_537, "too_large"),
    "a list": (b"[" + spell() + b"]", "schema"),
    "a string": (b'"scan"', "schema"),
    "null": (b"null", "schema"),
    "an empty object": (b"{}", "schema"),
    "equal keys, the last one invalid": (spell()[:-1] + b', "party_size": 2.0}', "schema"),
    "key in other case": (spell().replace(b"venue_id", b"Venue_id"), "schema"),
}

BAD_IDS = ["", "e" * 65, "a b", "a\n", "\na", "a/b", "a@b", "é", "\uff21", "\x7f", "\0", 1, 1.5, True, None, [], {}]
BAD_TIMES = [
    *(
        "",
        " ",
        "2021-09-19",
        "2021-09-19T10:15Z",
        "2021-09-19T10:15:30",
        "2021-09-19 10:15:30Z",
        "2021-09-19_10:15:30Z",
    ),
    *("2021-09-19T10:15:30.Z", "2021-09-19T10:15:30.1234567890Z", "2021-09-19T10:15:30,5Z", "2021-09-19T10:15:30.5"),
    *("2021-09-19T10:15:60Z", "2021-09-19T23:59:60Z", "2021-09-19T24:00:00Z", "2021-09-19T10:60:00Z"),
    *("2021-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2021-04-31T00:00:00Z", "2021-00-10T00:00:00Z"),
    *("2021-13-10T00:00:00Z", "2021-01-00T00:00:00Z", "2021-01-32T00:00:00Z", "0000-01-01T00:00:00Z"),
    *("2021-09-19T10:15:30+24:00", "2021-09-19T10:15:30+07:60", "2021-09-19T10:15:30+0700", "2021-09-19T10:15:30+07"),
    *("2021-09-19T10:15:30 Z", "2021-09-19T10:15:30Z ", " 2021-09-19T10:15:30Z", "2021-09-19T10:15:30Z\n"),
    *("2021-09-19T10:15:30ZZ", "2021-09-19T10:15:30Z+07:00", "2021-09-19T10:15:30x07:00", "2021-09-19T10:15:30+07.00"),
    *(
        "2021-9-19T10:15:30Z",
        "+2021-09-19T10:15:30Z",
        "02021-09-19T10:15:30Z",
        "20210919T101530Z",
        "2021-W37-7T10:15:30Z",
    ),
    *(
        "2021-09-19T10:15:30\u2212 07:00",
        "\uff12021-09-19T10:15:30Z",
        "2021-09-19T1\u0663:15:30Z",
        "/021-09-19T10:15:30Z",
    ),
    *(
        "2021-09-19T10:15:3:Z",
        "2021-09-19T10-15:30Z",
        "2021-09-19T10:15-30Z",
        "2021:09:19T10:15:30Z",
        "now",
        "1632021330",
        "1970-01-01T23:59:59.999Z",
    ),
    *("1970-01-02T00:00:00+00:01", "1969-12-31T23:59:59-23:59", "2106-01-01T00:00:00Z", "2105-12-31T23:59:59-00:01"),
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59"),
    *(1_632_021_330_250, 1_632_021_330, 1.5, True, None, [], {}),
]
BAD_PARTIES = [0, -1, 51, 100, 256, 10**30, 2.0, 2.5, 1e1, "2", "", True, False, None, [], {}]

BAD_FIELDS = [
    *((name, value) for name in ("event_id", "venue_id", "visitor_id", "source") for value in BAD_IDS),
    ("source", "s" * 33),
    *(("event_type", value) for value in ("", "check", "check_in ", "CHECK_IN", "check-in", "check_outs", 1, None, [])),
    *(("occurred_at", value) for value in BAD_TIMES),
    *(("party_size", value) for value in BAD_PARTIES),
]


@pytest.mark.parametrize("value", ORDINARY.values(), ids=ORDINARY.keys())
def test_an_ordinary_scan_is_read_without_the_judge_and_as_the_judge_would(
    value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _, rejections = judged([value])
    assert rejections == []

    def never(value: bytes | None) -> Refusal:
        raise AssertionError(f"the fast path left {value!r} to the judge")

    monkeypatch.setattr(decode, "judge_scan", never)
    columns, rejections = decode_scans([value])
    assert rows(columns) == expected
    assert rejections == []


@pytest.mark.parametrize("value", ODD_BUT_VALID.values(), ids=ODD_BUT_VALID.keys())
def test_a_valid_scan_in_an_odd_spelling_is_accepted(value: bytes) -> None:
    columns, rejections = decode_scans([value])
    assert rejections == []
    assert rows(columns) == judged([value])[0]


@pytest.mark.parametrize(("value", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_scan_is_refused_for_the_right_reason(value: bytes | None, reason: str) -> None:
    columns, rejections = decode_scans([value])
    assert len(columns) == 0
    assert [rejection.reason for rejection in rejections] == [reason]
    assert rejections == judged([value])[2]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS, ids=repr)
def test_a_bad_field_is_refused_by_name(field: str, value: object) -> None:
    columns, [rejection] = decode_scans([spell(**{field: value})])
    assert len(columns) == 0
    assert rejection.reason == "schema"
    assert rejection.detail.startswith(f"{field}: ")


@pytest.mark.parametrize("number", ["2.0", "2e0", "0", "-0", "-1", "51", "100", "1e999999", "9" * 400, "0.1e2"])
def test_a_party_of_no_integer_from_1_to_50_is_refused(number: str) -> None:
    columns, [rejection] = decode_scans([raw("party_size", number)])
    assert len(columns) == 0
    assert (rejection.reason, rejection.detail) == ("schema", "party_size: must be an integer from 1 to 50")


@pytest.mark.parametrize("field", ["event_id", "event_type", "venue_id", "visitor_id", "occurred_at"])
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    columns, [rejection] = decode_scans([without(field)])
    assert len(columns) == 0
    assert (rejection.reason, rejection.detail) == ("schema", f"{field}: is missing")


def test_a_refusal_tells_no_value() -> None:
    secret = "Siti 3174xxxx"
    values = [
        *(spell(**{field: secret}) for field in SCAN),
        *(spell(**{field: {secret: secret}}) for field in SCAN),
        spell(visitor_id=secret)[:-1],
        extra(f'"{secret}" "{secret}"'),
        spell(visitor_id=secret) + b"\xff",
        json.dumps(secret).encode(),
    ]
    _, rejections = decode_scans(values)
    assert len(rejections) == len(values)
    assert not [rejection for rejection in rejections if "Siti" in rejection.detail or "3174" in rejection.detail]


def test_a_mixed_batch_keeps_the_order_of_its_records() -> None:
    values: list[bytes | None] = [
        *ODD_BUT_VALID.values(),
        *ORDINARY.values(),
        *(value for value, _ in REFUSED.values()),
        *ORDINARY.values(),
        *ODD_BUT_VALID.values(),
    ]
    values = values[::2] + values[1::2]
    expected, records, refused = judged(values)
    columns, rejections = decode_scans(values)
    assert rows(columns) == expected
    assert columns.record.tolist() == records
    assert rejections == refused
    assert not columns.buffer.flags.writeable


@pytest.mark.parametrize("removed", [0, 1], ids=["inserted", "replaced"])
def test_any_one_byte_anywhere_is_judged_alike(removed: int) -> None:
    value = json.dumps({**SCAN, "x": -1.5, "y": "a", "z": None}).encode()
    values = [value[:at] + bytes([byte]) + value[at + removed :] for at in range(len(value) + 1) for byte in range(256)]
    expected, records, refused = judged(values)
    columns, rejections = decode_scans(values)
    assert columns.record.tolist() == records
    assert rows(columns) == expected
    assert rejections == refused


def test_an_empty_batch_gives_nothing() -> None:
    columns, rejections = decode_scans([])
    assert len(columns) == 0
    assert rejections == []


def test_defaults_are_a_party_of_one_from_the_app() -> None:
    columns, _ = decode_scans([b"{" + UNKNOWN.encode() + b"}"])
    assert rows(columns) == [("e", "v", "p", "app", "check_in", 1_632_009_600_000, 1)]


def test_a_row_holds_what_the_record_says() -> None:
    columns, _ = decode_scans([spell(), spell(event_type="check_out")])
    assert rows(columns) == [ROW, (*ROW[:4], "check_out", *ROW[5:])]


def test_times_are_judged_by_the_records_own_timestamp() -> None:
    day = 86_400_000
    columns, _ = decode_scans([b"no scan", *[spell()] * 6])
    timestamps = np.array([0, MS, MS + day, MS + day + 1, MS - 300_000, MS - 300_001, MS])
    kept, rejections = judge_times(columns, timestamps, retention_ms=day)
    assert kept.record.tolist() == [1, 2, 4, 6]
    assert rows(kept) == [ROW] * 4
    assert [(rejection.record, rejection.reason) for rejection in rejections] == [
        (3, "too_old"),
        (5, "from_the_future"),
    ]


def test_taking_keeps_the_rows_that_the_mask_selects() -> None:
    columns, _ = decode_scans([spell(venue_id=name) for name in "abc"])
    taken = take(columns, np.array([True, False, True]))
    assert [row[1] for row in rows(taken)] == ["a", "c"]
    assert taken.record.tolist() == [0, 2]
