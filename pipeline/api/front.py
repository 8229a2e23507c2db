"""The process at the door: answers the public status of venues from bytes that it was given, hands all else on to its parent.

A program of its own with nothing but the standard library and an event loop, started by `front_process`:
`python -m pipeline.api.front LISTENING_DESCRIPTOR PARENT_PORT [CERTIFICATE KEY]`, with messages on its standard input; with a
certificate it speaks TLS to the outside. Python runs one thread at a time, so within the worker these answers wait for its
folding and writing: there the same load gets a fifth of the requests a second or less, and 99 % take more than twice as long
(`python -m benchmarks.serving` measures both in turns).

It speaks just enough HTTP for `GET /api/v1/venues/{venue_id}/now`. At the first other request a connection becomes a pipe to
the parent, both ways and to its end: what is asked for on it after that, the parent answers, the status of venues included.
"""

import asyncio
import re
import resource
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Final, cast
from zlib import crc32

from pipeline.addresses import names_loopback
from pipeline.certificate import Certificate
from pipeline.errors import UserError
from pipeline.event_loop import run

_PREFIX: Final = b"GET /api/v1/venues/"
_SUFFIX: Final = b"/now HTTP/1.1"
_HEADERS_END: Final = b"\r\n\r\n"
#: A connection on which nothing was asked for so long is closed, in seconds; looked at this often.
_IDLE_SECONDS: Final = 60.0
#: … and one on which a request is not whole so long after it began.
_HEAD_SECONDS: Final = 10.0
_SWEEP_SECONDS: Final = 10.0
#: Connections at a time; each has a descriptor, and one to the parent has two.
_MOST_CALLERS: Final = 10_000
#: Descriptors for all else.
_OTHER_DESCRIPTORS: Final = 64
_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)
#: Longer requests are the parent's to judge.
_LONGEST: Final = 16_384
_HOST: Final = re.compile(rb"(?:^|\n)host:[ \t]*([^\r\n]*)")
#: The present is read once a second, so nothing newer can be had sooner.
CACHE_CONTROL: Final = "public, max-age=1, stale-while-revalidate=5"
_COMMON: Final = b"cache-control: %b\r\nx-content-type-options: nosniff\r\n" % CACHE_CONTROL.encode()
_FOUND: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%b" % _COMMON
_UNCHANGED: Final = b"HTTP/1.1 304 Not Modified\r\n%b" % _COMMON


def ending(as_of: bytes) -> bytes:
    """What stands behind a venue's bytes to make them a JSON object: the instant that they hold at."""
    return as_of + b'"}'


def tag_of(as_of: bytes, body: bytes) -> bytes:
    """The entity tag of a venue's bytes at an instant."""
    return b'"%b-%08x"' % (as_of, crc32(body))


class Statuses:
    """Every venue's bytes, as the parent sent them last."""

    def __init__(self) -> None:
        self.bodies: dict[bytes, bytes] = {}
        self.as_of = b""
        self.date = b""
        self._before_it: dict[bytes, bytes] = {}

    def take(self, message: bytes) -> None:
        """A message: `F` (all venues anew), `D` (those that changed) or `P` (a part of the next one of these), the instant, then
        a line a venue: id, tab, bytes.

        Parts, because callers wait while one message is taken.
        """
        first, _, rest = message.partition(b"\n")
        taken = self._before_it
        for line in rest.splitlines():
            venue, _, body = line.partition(b"\t")
            taken[venue] = body
        if first[:1] == b"P":
            return
        self._before_it = {}
        self.as_of = first[1:]
        if first[:1] == b"F":
            self.bodies = taken
        else:
            self.bodies.update(taken)

    def answer(self, request: bytes) -> bytes | None:
        """The whole response to one request's lines; None for what is not ours to answer."""
        line, _, headers = request.partition(b"\r\n")
        if not (line.startswith(_PREFIX) and line.endswith(_SUFFIX)):
            return None
        body = self.bodies.get(line[len(_PREFIX) : -len(_SUFFIX)])
        if body is None:
            return None
        tag = tag_of(self.as_of, body)
        if headers:
            lower = headers.lower()
            if b"\nconnection: close" in b"\n" + lower or b"content-length" in lower or b"transfer-encoding" in lower:
                return None
            host = _HOST.search(lower)
            if host is not None and not names_loopback(host[1].rstrip()):
                return None  # to be refused by the parent
            if b"if-none-match" in lower and tag in headers:
                return b"%betag: %b\r\ndate: %b\r\n\r\n" % (_UNCHANGED, tag, self.date)
        end = ending(self.as_of)
        length = len(body) + len(end)
        return b"%betag: %b\r\ndate: %b\r\ncontent-length: %d\r\n\r\n%b%b" % (_FOUND, tag, self.date, length, body, end)


class _Caller(asyncio.Protocol):
    """One connection from outside."""

    def __init__(self, statuses: Statuses, parent_port: int, open_: "set[_Caller]", most: int) -> None:
        self._statuses = statuses
        self._parent_port = parent_port
        self._open = open_
        self._most = most
        self._asked_at = time.monotonic()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._parent: _Parent | None = None
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._open) >= self._most:
            self._transport.write(_TOO_MANY)
            self._transport.close()
            return
        self._open.add(self)

    def close_if_idle(self, now: float) -> None:
        """Close a connection that asks for nothing; one to the parent is the parent's."""
        limit = _HEAD_SECONDS if self._buffer else _IDLE_SECONDS
        if self._transport is not None and self._dialling is None and now - self._asked_at > limit:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._parent is not None:
            self._parent.write(data)
            return
        if not self._buffer:
            self._asked_at = time.monotonic()
        self._buffer += data
        if self._dialling is not None:
            return
        assert self._transport is not None
        while self._buffer:
            end = self._buffer.find(_HEADERS_END)
            if end < 0 and len(self._buffer) < _LONGEST and self._buffer.startswith(_PREFIX[: len(self._buffer)]):
                return
            response = self._statuses.answer(self._buffer[:end]) if end >= 0 else None
            if response is None:
                self._transport.pause_reading()
                self._dialling = asyncio.get_running_loop().create_task(self._dial())
                return
            self._buffer = self._buffer[end + len(_HEADERS_END) :]
            self._transport.write(response)

    async def _dial(self) -> None:
        transport = self._transport
        assert transport is not None
        try:
            loop = asyncio.get_running_loop()
            _, parent = await loop.create_connection(lambda: _Parent(transport), "127.0.0.1", self._parent_port)
        except OSError:
            transport.close()
            return
        self._parent = parent
        parent.write(self._buffer)
        self._buffer = b""
        with suppress(RuntimeError):  # it has gone meanwhile
            transport.resume_reading()

    def pause_writing(self) -> None:
        if self._parent is not None:
            self._parent.hold(True)

    def resume_writing(self) -> None:
        if self._parent is not None:
            self._parent.hold(False)

    def connection_lost(self, _error: Exception | None) -> None:
        self._open.discard(self)
        if self._parent is not None:
            self._parent.close()


class _Parent(asyncio.Protocol):
    """The other end of a connection that has become a pipe."""

    def __init__(self, caller: asyncio.Transport) -> None:
        self._caller = caller
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._caller.is_closing():
            transport.close()

    def data_received(self, data: bytes) -> None:
        self._caller.write(data)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def hold(self, on: bool) -> None:
        assert self._transport is not None
        if on:
            self._transport.pause_reading()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        self._caller.pause_reading()

    def resume_writing(self) -> None:
        if not self._caller.is_closing():
            self._caller.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        self._caller.close()


class _Orders(asyncio.Protocol):
    """Messages from the parent: four bytes of length, then the message. Their end is ours."""

    def __init__(self, statuses: Statuses) -> None:
        self._statuses = statuses
        self._parts: deque[bytes] = deque()
        self._held = 0
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        self._held += len(data)
        while self._held >= 4:
            whole = b"".join(self._parts) if len(self._parts) > 1 and self._is_whole() else self._parts[0]
            length = int.from_bytes(whole[:4], "big") + 4 if len(whole) >= 4 else 0
            if not length or len(whole) < length:
                return
            self._statuses.take(whole[4:length])
            rest = whole[length:]
            self._parts = deque([rest]) if rest else deque()
            self._held = len(rest)

    def _is_whole(self) -> bool:
        first = self._parts[0]
        while len(first) < 4 and len(self._parts) > 1:
            first = self._parts[0] = self._parts[0] + self._parts[1]
            del self._parts[1]
        return self._held >= int.from_bytes(first[:4], "big") + 4

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def _serve(descriptor: int, parent_port: int, certificate: Certificate | None) -> None:
    statuses = Statuses()
    loop = asyncio.get_running_loop()
    listening = socket.socket(fileno=descriptor)
    orders = _Orders(statuses)
    await loop.connect_read_pipe(lambda: orders, sys.stdin.buffer)
    callers: set[_Caller] = set()
    most = _room_for_callers()
    server = await loop.create_server(
        lambda: _Caller(statuses, parent_port, callers, most),
        sock=listening,
        backlog=2048,
        ssl=None if certificate is None else certificate.context,
    )

    def tick() -> None:
        statuses.date = formatdate(usegmt=True).encode()
        loop.call_later(1, tick)

    def sweep() -> None:
        for caller in list(callers):
            caller.close_if_idle(time.monotonic())
        if certificate is not None:
            _renew(certificate)
        loop.call_later(_SWEEP_SECONDS, sweep)

    tick()
    sweep()
    await orders.ended
    server.close()


def _room_for_callers() -> int:
    # As many as the system lets us have; a shell gives a thousand descriptors, unless asked for more.
    wanted = 2 * _MOST_CALLERS + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, (allowed - _OTHER_DESCRIPTORS) // 2)


def _renew(certificate: Certificate) -> None:
    try:
        certificate.renew()
    except UserError as error:
        print(f"{error}; going on with the one before", file=sys.stderr, flush=True)


def main(descriptor: int, parent_port: int, *files: str) -> None:
    """Serve until the parent closes our standard input. `files`: a certificate's chain and its key, read by the parent before."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too, and the parent wants to finish its answers
    run(_serve(descriptor, parent_port, Certificate(*map(Path, files)) if files else None))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
