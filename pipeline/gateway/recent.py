"""What was just sent: so that a repeated request costs nothing, and a display's code serves nobody twice.

In memory, and of this process alone. Nothing depends on it for being right: scans are a set, wherever they come from.
"""

from typing import Final

from pipeline.gateway.admission import Record
from pipeline.gateway.problems import REPLAYED, REUSED, ProblemError

#: Scans remembered; at 5,800 a second the last half minute.
_MOST: Final = 200_000


class Recent:
    """The newest scans by event id, and who used which display code."""

    def __init__(self) -> None:
        self._scans: dict[str, int] = {}
        self._codes: dict[tuple[str, str, str], tuple[int, int]] = {}

    def has(self, record: Record) -> bool:
        """Whether this very scan is remembered. Raises ProblemError where its event id was another scan's."""
        found = self._scans.get(record.event_id)
        if found is not None and found != hash(record.value):
            raise ProblemError(REUSED, "event_id: each scan needs one of its own")
        return found is not None

    def remember(self, record: Record) -> None:
        """Remember a scan that was sent."""
        self._scans[record.event_id] = hash(record.value)
        if len(self._scans) > _MOST:
            del self._scans[next(iter(self._scans))]

    def use_code(self, record: Record, event_type: str, received_at: int) -> None:
        """Remember who uses which display code. Raises ProblemError where the person used it for another scan of this type."""
        if record.code is None or record.code.jti is None:
            return
        key = (record.code.jti, record.visitor_id, event_type)
        until, scan = self._codes.setdefault(key, (record.code.refused_from, hash(record.value)))
        if len(self._codes) > _MOST:
            self._codes = {each: value for each, value in self._codes.items() if value[0] > received_at}
        if until > received_at and scan != hash(record.value):
            raise ProblemError(REPLAYED, "venue_code: was used for another scan; scan the display again")
