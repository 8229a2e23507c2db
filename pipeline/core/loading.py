"""Compiled code, and numba's own tables, are loaded when they are first called: here, before partitions stand still for it."""

from pipeline.core.decode import decode_scans
from pipeline.core.pools import HOUR
from pipeline.core.shard import Shard, VenueRules

_SCANS = [
    b'{"event_id": "%d", "venue_id": "v", "visitor_id": "p", "event_type": "%b", "occurred_at": "2021-09-19T0%d:00:00Z"}'
    % (hour, kind, hour)
    for hour, kind in enumerate((b"check_in", b"check_out"))
]


def load_compiled() -> None:
    """Decode and fold a visit that nobody made, and throw it away. Safe in any thread; after the first time it takes no time."""
    columns, _ = decode_scans(_SCANS)
    shard = Shard(lambda _: VenueRules(HOUR))
    shard.apply(columns)
    shard.advance(int(columns.occurred_at.max()))
    shard.take_changes()
    shard.rewrite_now()
    shard.load(columns, columns.party_size)
