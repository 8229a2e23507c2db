"""Lines that are no scan, each made from one that is: whatever a national day of phones may send."""

import re
from collections.abc import Callable
from random import Random
from typing import Final

Spoil = Callable[[bytes, Random], bytes]


def _replace(field: str, value: bytes) -> Spoil:
    pattern = re.compile(rb'"%b":("[^"]*"|[0-9]+)' % field.encode())
    written = b'"%b":%b' % (field.encode(), value)

    def spoil(line: bytes, random: Random) -> bytes:  # noqa: ARG001
        if pattern.search(line):
            return pattern.sub(lambda _: written, line, count=1)
        return b"%b,%b}" % (line[:-1], written)

    return spoil


def _without(field: str) -> Spoil:
    pattern = re.compile(rb'"%b":"[^"]*",' % field.encode())
    return lambda line, _: pattern.sub(b"", line, count=1)


def _cut(line: bytes, random: Random) -> bytes:
    return line[: random.randrange(1, len(line))]


def _not_utf8(line: bytes, random: Random) -> bytes:
    at = line.index(b'"v-') + random.randrange(3, 10)
    return line[:at] + bytes([random.randrange(0xF8, 0x100), random.randrange(0x80, 0x100)]) + line[at + 2 :]


def _too_large(line: bytes, random: Random) -> bytes:
    return b'%b,"note":"%b"}' % (line[:-1], b"x" * random.randrange(65_536, 80_000))


#: Kind → what makes it of a valid line, and how often. No result has a line end in it, none is a scan.
KINDS: Final[dict[str, tuple[Spoil, int]]] = {
    "cut off": (_cut, 20),
    "not UTF-8": (_not_utf8, 8),
    "too large": (_too_large, 1),
    "text": (lambda _line, _random: b"GET /check-in HTTP/1.1", 4),
    "two objects in one line": (lambda line, _: line + line, 4),
    "bytes after the object": (lambda line, _: line + b"}", 4),
    "a list": (lambda line, _: b"[" + line + b"]", 3),
    "null": (lambda _line, _random: b"null", 2),
    "an object in a string": (lambda line, _: b'"' + line.replace(b'"', b'\\"') + b'"', 3),
    "single quotes": (lambda line, _: line.replace(b'"', b"'"), 3),
    "no number": (_replace("party_size", b"NaN"), 2),
    "no event_id": (_without("event_id"), 3),
    "no event_type": (_without("event_type"), 3),
    "no venue_id": (_without("venue_id"), 5),
    "no visitor_id": (_without("visitor_id"), 5),
    "unknown event_type": (_replace("event_type", b'"scan"'), 3),
    "venue_id as a number": (_replace("venue_id", b"42"), 3),
    "empty visitor_id": (_replace("visitor_id", b'""'), 4),
    "visitor_id with a space": (_replace("visitor_id", b'"v 12"'), 3),
    "visitor_id too long": (_replace("visitor_id", b'"v-%b"' % (b"0" * 64)), 2),
    "time without an offset": (_replace("occurred_at", b'"2021-09-19T10:00:00.000"'), 5),
    "time that does not exist": (_replace("occurred_at", b'"2021-13-45T25:61:00.000Z"'), 3),
    "time as a number": (_replace("occurred_at", b"1632020400000"), 4),
    "time as words": (_replace("occurred_at", b'"Sun Sep 19 10:00:00 2021"'), 3),
    "party of none": (_replace("party_size", b"0"), 3),
    "party too large": (_replace("party_size", b"51"), 2),
    "party as text": (_replace("party_size", b'"two"'), 3),
    "source with a space": (_replace("source", b'"my app"'), 2),
}
_SPOILS: Final = tuple(spoil for spoil, _ in KINDS.values())
_WEIGHTS: Final = tuple(weight for _, weight in KINDS.values())


def malformed(line: bytes, random: Random) -> bytes:
    """A line that is no scan, of a random kind, made from a valid one."""
    return random.choices(_SPOILS, _WEIGHTS)[0](line, random)
