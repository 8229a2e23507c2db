"""What was just confirmed: so that a repeated request costs nothing, and a display's code serves nobody twice.

In memory, and of this gateway alone. Nothing depends on it for being right: scans are a set, wherever they come from.
"""

from typing import Final, Literal

from pipeline.gateway.admission import Record

#: Scans remembered; at 5,800 a second the last half minute.
_MOST: Final = 200_000


class Recent:
    """The newest confirmed scans by event id, and who used which display code."""

    def __init__(self) -> None:
        self._scans: dict[str, int] = {}
        self._codes: dict[tuple[str, str, str], tuple[int, int]] = {}

    def known(self, record: Record) -> Literal["new", "same", "other"]:
        """Whether the event id is new, was this very scan's, or another scan's."""
        found = self._scans.get(record.event_id)
        return "new" if found is None else "same" if found == hash(record.value) else "other"

    def confirm(self, record: Record) -> None:
        """Remember a scan that Kafka has."""
        self._scans[record.event_id] = hash(record.value)
        if len(self._scans) > _MOST:
            del self._scans[next(iter(self._scans))]

    def replayed(self, record: Record, event_type: str, received_at: int) -> bool:
        """Whether this person used this display code for another scan of this type already; remembers it otherwise."""
        if record.code is None or record.code.jti is None:
            return False
        key = (record.code.jti, record.visitor_id, event_type)
        until, scan = self._codes.setdefault(key, (record.code.refused_from, hash(record.value)))
        if len(self._codes) > _MOST:
            self._codes = {each: value for each, value in self._codes.items() if value[0] > received_at}
        return until > received_at and scan != hash(record.value)
