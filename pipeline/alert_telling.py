"""Which crowding alerts are to be told outside the store, and up to where they have been: each only once the store has it."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pipeline.alert_notice import AlertNotice
from pipeline.core.crowding import Alert, alert_id
from pipeline.core.levels import LEVELS
from pipeline.core.pools import NONE
from pipeline.store import crowding
from pipeline.store.registry import Registry
from pipeline.store.writer import Write, Writer

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: A former owner that stood still may tell what was true before, and be killed before it looks once more. What it had stored and
#: not noted as told is told again after these times (seconds) from the takeover; nothing is noted as told before the last.
_DOUBTED_SECONDS: Final = (15.0, 60.0, 240.0, 600.0)


class AlertTelling:
    """Of the partitions that one worker owns. What is handed on is asked for by one thread, while no write is outstanding."""

    def __init__(self, client: Client, writer: Writer, registry: Registry) -> None:
        """`client` belongs to the thread that asks."""
        self._client = client
        self._writer = writer
        self._registry = registry
        self._places: list[tuple[str, int]] = []
        self._scope, self._began = "0", 0
        # Versions of alerts: stored up to, handed on up to, known to be told up to; and whether those in force were handed on.
        self._stored = self._handed = self._told = 0
        self._handed_open = False
        # Ids of alerts that a former owner may be telling, and when (monotonic seconds) they are told again.
        self._doubted, self._doubted_at = list[str](), list[float]()

    def take_over(
        self, client: Client, places: Iterable[tuple[str, int]], scope: str, began: int, *, alone: bool
    ) -> None:
        """Go on where the owners before were. `client` belongs to the thread that recovers; `began` is the takeover's version.

        `alone`: nobody else writes to this store, or ever did. Raises StoreUnavailableError; it may then be called again.
        """
        self._places, self._scope, self._began = list(places), scope, began
        self._handed = self._told = crowding.told_upto(client, self._places)
        self._handed_open = False
        self._doubted = [] if alone else crowding.changed_ids(client, scope, self._told, began)
        self._doubted_at = [time.monotonic() + seconds for seconds in _DOUBTED_SECONDS if self._doubted]

    def note_stored(self, upto: int) -> None:
        """Alerts with versions below `upto` are in the store."""
        self._stored = upto

    def expect(self, write: Write) -> None:
        """A write is in the store: if there are alerts in it, they can be told."""
        if any(table == "alert_rows" for table, _ in write.derived):
            self._stored = write.end_version

    def hand(self, told: int) -> tuple[list[AlertNotice], int]:
        """See `Engine.hand_alerts`."""
        now = time.monotonic()
        # A mark of before the takeover says nothing of what was taken over.
        if told > max(self._told, self._began) and not self._doubted_at:
            self._writer.insert("told_rows", crowding.told_table(self._places, told))
            self._told = told
        found: list[AlertNotice] = []
        upto = self._stored
        if self._handed < upto:
            changed = crowding.changed_alerts(self._client, self._scope, self._handed, upto)
            found = [self._notice(venue, alert, retracted=retracted) for venue, alert, retracted in changed]
        if not self._handed_open:
            given = {notice.alert_id for notice in found}
            stored = (self._notice(*each, told=True) for each in crowding.alerts_since(self._client, self._scope))
            found += [notice for notice in stored if notice.alert_id not in given]
            self._handed_open = True
        elif self._doubted_at and now >= self._doubted_at[0]:
            again = {notice.alert_id: replace(notice, again=True) for notice in self.overtaken(self._doubted, 0)}
            found = [notice for notice in found if notice.alert_id not in again] + list(again.values())
            self._doubted_at = [at for at in self._doubted_at if at > now]
        self._handed = upto
        return found, upto

    def overtaken(self, ids: Sequence[str], mark: int) -> list[AlertNotice]:
        """See `Engine.overtaken_alerts`."""
        newer = crowding.newer_alerts(self._client, ids, mark)
        return [self._notice(venue, alert, retracted=retracted) for venue, alert, retracted in newer]

    def _notice(self, venue: str, alert: Alert, *, retracted: bool = False, told: bool = False) -> AlertNotice:
        name, area = self._registry.sign(venue)
        return AlertNotice(
            alert_id(venue, alert.level, alert.raised_at),
            venue,
            LEVELS[alert.level],
            alert.raised_at,
            None if alert.cleared_at == NONE else alert.cleared_at,
            alert.peak,
            alert.capacity,
            name,
            self._registry.place(venue)[0],
            area,
            retracted,
            told,
        )
