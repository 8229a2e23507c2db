"""Records that mean harm, or come from somebody's odd library: each a name and its bytes."""

import json
from collections.abc import Iterator
from typing import Final

SCAN: Final = {
    "event_id": "e-1",
    "event_type": "check_in",
    "venue_id": "v:1",
    "visitor_id": "p_1",
    "occurred_at": "2021-09-19T10:15:30.250+07:00",
    "party_size": 3,
    "source": "gate",
}
_PLAIN: Final = json.dumps(SCAN).encode()

#: JSON that may stand for any value.
VALUES: Final = (
    *(
        "1e400",
        "-1e400",
        "-0",
        "-0.0",
        "NaN",
        "Infinity",
        "-Infinity",
        "9007199254740993",
        "18446744073709551616",
        "1.0",
        "3.0",
    ),
    *(
        "01",
        "00",
        "+3",
        "3.",
        ".3",
        "3e0",
        "0x3",
        "1_0",
        "3,0",
        "٣",
        "9" * 4300,
        "9" * 4301,
        "-" + "9" * 4300,
        "-" + "9" * 4301,
        "9" * 4300 + ".5",
        "9" * 4301 + ".5",
        "9" * 4301 + "e0",
        "0." + "3" * 5000,
        "1e-999999999",
    ),
    *(
        "true",
        "false",
        "null",
        "True",
        "None",
        "undefined",
        "nul",
        "",
        " ",
        "''",
        "'a'",
        '""',
        '"\\u0000"',
        '"\\u"',
        '"\\x41"',
    ),
    *(
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\ud83d\\n\\ude00"',
        '"\\\\ud800"',
        '"\\u0061"',
        '"a\\/b"',
        '"a\\',
        '"a\tb"',
        '"a\nb"',
        '"a\x7fb"',
    ),
    *(
        '"é"',
        '"e\u0301"',
        '"\u202eabc"',
        '"\ufeffa"',
        '"\u200ba"',
        '"ａ"',
        '"а"',
        '"' + "a" * 64 + '"',
        '"' + "a" * 65 + '"',
    ),
    *(
        '"' + "a" * 60_000 + '"',
        *("[" * depth + inside + "]" * depth for depth in (199, 200, 201) for inside in ("", "1", '"a"', "{}")),
        *('{"a":' * depth + "1" + "}" * depth for depth in (199, 200, 201)),
        "[" * 20_000,
        '{"a":' * 300 + "1" + "}" * 300,
    ),
    *(
        "[]",
        "{}",
        "[1,]",
        '{"a":1,}',
        '{"a":1,"a":2}',
        '{"a":"\\ud800","a":1}',
        '{"a":["\\ud800"],"a":1}',
        '{"\\ud800":1}',
        '{"a":NaN,"a":1}',
        '{"a":' + "[" * 201 + "1" + "]" * 201 + ',"a":1}',
        "{1:2}",
        '{"__proto__":{}}',
        "/**/1",
        "1//",
        "[1 2]",
        '["a" "b"]',
    ),
)
#: What may stand for a time.
TIMES: Final = (
    *(
        "2016-12-31T23:59:60Z",
        "2021-09-19T24:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ),
    *(
        "2021-09-19T10:15:30+24:00",
        "2021-09-19T10:15:30-24:00",
        "2021-09-19T10:15:30+23:59",
        "2021-09-19T10:15:30-23:59",
    ),
    *(
        "2021-09-19T10:15:30",
        "2021-09-19T10:15:30 Z",
        "2021-09-19T10:15:30-00:00",
        "2021-09-19t10:15:30z",
        "2021-09-19 10:15:30Z",
    ),
    *(f"2021-09-19T10:15:30.{'9' * digits}Z" for digits in (0, 1, 3, 4, 9, 10, 300)),
    *(
        "2021-02-29T00:00:00Z",
        "2020-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2000-02-29T00:00:00Z",
        "2021-04-31T00:00:00Z",
    ),
    *("1970-01-01T23:59:59.999Z", "1970-01-02T00:00:00Z", "1970-01-01T00:00:00-23:59", "1970-01-02T23:59:00+23:59"),
    *("2105-12-31T23:59:59.999Z", "2106-01-01T00:00:00Z", "2106-01-01T12:00:00+23:59", "2105-12-31T00:01:00-23:59"),
    *(
        "-2021-09-19T10:15:30Z",
        "2021-9-19T10:15:30Z",
        "２０21-09-19T10:15:30Z",
        "2021-09-19T10:15:30.5+7:00",
        "2021-W37-7",
        "",
    ),
    *(
        "2021-09-19T10:15:30:00Z",
        "2021-09-19T10:15Z",
        "1632021330250",
        "2021-09-19T10:15:30Z\\u0000",
        "2021-09-19T10:15:30,5Z",
    ),
)
#: Bytes that are no UTF-8, or only look like something else.
BYTES: Final = (
    *(
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xfe",
        b"\xff",
    ),
    *(
        b"\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\x00",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xc2\xa0",
        b"\xe2\x80\xa8",
        b"\x1f",
        b"\x0b",
        b"\x0c",
    ),
)


def written(name: str, value: str) -> bytes:
    """A scan with one field's value written so."""
    fields = {key: json.dumps(each) for key, each in SCAN.items()} | {name: value}
    return ("{" + ", ".join(f'"{key}": {each}' for key, each in fields.items()) + "}").encode("utf-8", "surrogatepass")


def corpus() -> Iterator[tuple[str, bytes]]:
    """All of it."""
    for name in (*SCAN, "unknown", "", "occurred_at ", "OCCURRED_AT", "party\\u005fsize"):
        for value in VALUES:
            yield f"{name or 'no name'}: {value[:20]}", written(name, value)
    for time in TIMES:
        yield f"time {time[:30]}", written("occurred_at", f'"{time}"')
    for some in BYTES:
        for at in (0, 1, 2, _PLAIN.index(b"e-1") + 1, _PLAIN.index(b"2021") + 4, len(_PLAIN) - 1, len(_PLAIN)):
            yield f"{some!r} at {at}", _PLAIN[:at] + some + _PLAIN[at:]
    for end in range(len(_PLAIN)):
        yield f"cut at {end}", _PLAIN[:end]
    for between in (b"", b"\n", b",", b"\0", b"//", b"\x1e", b" "):
        yield f"two, {between!r} between", _PLAIN + between + _PLAIN
    for name, value in SCAN.items():
        for other in (value, None, "x", 3):
            twice = f'"{name}": {json.dumps(value)}, "{name}": {json.dumps(other)}, '.encode()
            yield f"{name} twice, then {other}", b"{" + twice + _PLAIN[1:]
            yield (
                f"{name} twice, last {other}",
                _PLAIN[:-1] + b', "' + name.encode() + b'": ' + json.dumps(other).encode() + b"}",
            )
    for size in (65_535, 65_536, 65_537, 1 << 20):
        yield f"{size} bytes", _PLAIN + b" " * (size - len(_PLAIN))
    for value in VALUES:
        yield f"only {value[:20]}", value.encode("utf-8", "surrogatepass")
