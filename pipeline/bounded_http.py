"""uvicorn's protocol with bounds on what is no body: how large a head may be, and how long a connection may say nothing.

uvicorn over httptools has neither: a header or a trailer without an end takes all memory, and a connection that says nothing, or
half of something, stays for ever.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

#: Bytes of a first line, headers, trailers or chunk extensions that may come before they end. What comes in one piece, 256 KiB
#: at most, is read.
LARGEST_HEAD: Final = 64 << 10
#: How long a connection on which nothing is being answered may take to ask for something whole, in seconds; between two
#: requests uvicorn's own shorter limit holds.
HEAD_SECONDS: Final = 10.0


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        # How often something whole was read, and the bytes since then.
        self._wholes = self._stray = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_wait()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._wholes
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._stray = 0 if self._wholes != before else self._stray + len(data)
        if self._stray > LARGEST_HEAD:
            self._end(431)
        elif self._deadline is None and self.timeout_keep_alive_task is None and self._answers_nothing():
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_headers_complete(self) -> None:
        self._wholes += 1
        self._end_wait()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._wholes += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._wholes += 1
        super().on_message_complete()

    def _answers_nothing(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _end_wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self._end(408)

    def _end(self, status: int) -> None:
        # An answer only where it cannot be taken for that to another request.
        if self._stray and (self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body)):
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
