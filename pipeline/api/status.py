"""The public status of a venue as bytes, made once and kept until its figures change: everybody's phone asks for it."""

import json
from collections.abc import Callable, Mapping

import numpy as np

from pipeline.api.errors import no_venue, not_ready
from pipeline.api.front import ending, tag_of
from pipeline.api.snapshot import Snapshot
from pipeline.api.view import iso, venue_now

#: Hears of each reading: the instant, what changed by venue (None: everything), and everything.
Told = Callable[[str, Mapping[str, bytes] | None, Mapping[str, bytes]], None]


class StatusBook:
    """Every venue's bytes. `update` is called by the thread that reads the present, `status` by the event loop."""

    def __init__(self, tell: Told) -> None:
        self._tell = tell
        self._before: Snapshot | None = None
        self._bodies: dict[str, bytes] = {}
        self._as_of = b""

    def update(self, snapshot: Snapshot) -> None:
        """Take a newer reading, and tell of it."""
        changed = snapshot.changed_since(self._before) if self._before is not None else None
        rows = np.flatnonzero(changed).tolist() if changed is not None else range(len(snapshot))
        new = dict(_body(snapshot, row) for row in rows)
        self._bodies = (
            self._bodies | new if changed is not None and new else self._bodies if changed is not None else new
        )
        self._before = snapshot
        as_of = iso(snapshot.standing.as_of)
        self._as_of = as_of.encode()
        self._tell(as_of, new if changed is not None else None, self._bodies)

    def status(self, venue_id: str) -> tuple[bytes, str]:
        """A venue's status as JSON, and its entity tag. Raises RequestError where there is none."""
        if self._before is None:
            raise not_ready()
        as_of, body = self._as_of, self._bodies.get(venue_id)
        if body is None:
            raise no_venue(venue_id)
        return body + ending(as_of), tag_of(as_of, body).decode()


def _body(snapshot: Snapshot, row: int) -> tuple[str, bytes]:
    venue = venue_now(snapshot, row)
    text = json.dumps({**venue, "as_of": ""}, ensure_ascii=False)
    return venue["venue_id"], text.removesuffix('"}').encode()
