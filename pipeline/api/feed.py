"""The page's stream of messages: a short memory of numbered events that any number of readers follow at their own pace."""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from threading import Lock
from typing import Final

#: Events remembered: a reader that reconnects within so many is told what it missed, a later one everything.
REMEMBERED: Final = 120
#: A stream ends after so long, in seconds: who follows it is judged when it begins, so a token that was revoked or has expired is
#: told no more after that. Readers come back within a second, and miss nothing.
STREAM_SECONDS: Final = 300.0


class Feed:
    """One writer in a thread of its own, readers on one event loop.

    An event's id is this feed's own name and its number, so that the id of an earlier process is recognised as foreign.
    """

    def __init__(self) -> None:
        self._name = secrets.token_hex(4)
        self._number = 0
        self._events: deque[tuple[int, bytes]] = deque(maxlen=REMEMBERED)
        self._whole: Callable[[], object] | None = None
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._closed = False
        self.readers = 0

    def serve_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which event loop the readers are on."""
        self._loop = loop

    def publish(self, delta: object | None, whole: Callable[[], object]) -> None:
        """Add one event: what changed, or None where only `whole`, which makes the full message, can tell."""
        with self._lock:
            self._number += 1
            self._whole = whole
            if delta is None:
                self._events.clear()
            else:
                self._events.append((self._number, self._message("delta", self._number, delta)))
        self._wake()

    def close(self) -> None:
        """End every reader's stream."""
        self._closed = True
        self._wake()

    async def follow(self, last_id: str | None) -> AsyncIterator[bytes]:
        """Messages from the one after `last_id` on, or from a whole one where that is not remembered; for STREAM_SECONDS."""
        seen = self._number_of(last_id)
        clock = asyncio.get_running_loop().time
        end = clock() + STREAM_SECONDS
        self.readers += 1
        try:
            yield b"retry: 1000\n\n"
            while not self._closed and clock() < end:
                news = self._news
                messages, seen = self._since(seen)
                for message in messages:
                    yield message
                if not messages:
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(end):
                            await news.wait()
        finally:
            self.readers -= 1

    def _since(self, seen: int) -> tuple[list[bytes], int]:
        with self._lock:
            number, whole = self._number, self._whole
            if number == seen or whole is None:
                return [], seen
            first = self._events[0][0] if self._events else number + 1
            if seen + 1 >= first and seen:
                return [message for each, message in self._events if each > seen], number
        return [self._message("snapshot", number, whole())], number

    def _message(self, kind: str, number: int, content: object) -> bytes:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return f"id: {self._name}-{number}\nevent: {kind}\ndata: {text}\n\n".encode()

    def _number_of(self, last_id: str | None) -> int:
        name, _, number = (last_id or "").rpartition("-")
        return int(number) if name == self._name and number.isdecimal() and int(number) <= self._number else 0

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._renew)

    def _renew(self) -> None:
        self._news, news = asyncio.Event(), self._news
        news.set()
