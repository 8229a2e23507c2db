"""The public status of one venue, from memory: `GET /api/v1/venues/{venue_id}/now`.

It is read fifty million times a day, by everybody's phone, so it must cost next to nothing: the bytes of a venue are made
once and kept until its figures change, only the instant is put behind them.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from zlib import crc32

from pipeline.api.errors import no_venue, not_ready
from pipeline.api.snapshot import Snapshot
from pipeline.api.view import iso, venue_now

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PREFIX: Final = "/api/v1/venues/"
_SUFFIX: Final = "/now"
#: The present is read once a second, so nothing newer can be had sooner.
_CACHE_CONTROL: Final = b"public, max-age=1, stale-while-revalidate=5"
_END: Final = b'"}'


class VenueStatus:
    """Answers from the newest snapshot. `update` is called by the thread that reads it, `answer` by the event loop."""

    def __init__(self) -> None:
        self._now: tuple[Snapshot, dict[str, bytes], bytes, bytes] | None = None

    def update(self, snapshot: Snapshot) -> None:
        """Take a newer reading: what has not changed keeps its bytes."""
        kept: dict[str, bytes] = {}
        if self._now is not None:
            before, bodies, *_ = self._now
            changed = snapshot.changed_since(before)
            if changed is not None:
                index = snapshot.places.index
                kept = {venue: body for venue, body in bodies.copy().items() if not changed[index[venue]]}
        as_of = iso(snapshot.standing.as_of).encode()
        self._now = snapshot, kept, as_of + _END, b'"' + as_of + b"-"

    def body(self, venue_id: str) -> tuple[bytes, bytes]:
        """A venue's status as JSON, and its entity tag. Raises RequestError where there is none."""
        if self._now is None:
            raise not_ready()
        snapshot, bodies, end, tag = self._now
        body = bodies.get(venue_id)
        if body is None:
            row = snapshot.row(venue_id)
            if row is None:
                raise no_venue(venue_id)
            text = json.dumps({**venue_now(snapshot, row), "as_of": ""}, ensure_ascii=False)
            body = bodies[venue_id] = text.removesuffix(_END.decode()).encode()
        return body + end, b'%b%08x"' % (tag, crc32(body))

    async def answer(self, scope: Scope, venue_id: str, send: Send) -> None:
        """Answer one request. Raises RequestError before anything is sent."""
        body, tag = self.body(venue_id)
        status = 200
        for name, value in scope["headers"]:
            if name == b"if-none-match" and tag in value:
                status, body = 304, b""
        headers = [(b"cache-control", _CACHE_CONTROL), (b"etag", tag)]
        if status == 200:
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] == "GET" else b""})


def venue_of(path: str) -> str | None:
    """The venue that a path asks the status of; None for any other path."""
    if not (path.startswith(_PREFIX) and path.endswith(_SUFFIX)):
        return None
    venue_id = path[len(_PREFIX) : -len(_SUFFIX)]
    return venue_id if venue_id and "/" not in venue_id else None
