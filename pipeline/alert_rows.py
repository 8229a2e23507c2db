"""The crowding alerts of an engine's venues as rows: from memory as the clock goes on, from the store where history changed."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.core.alert_book import AlertBook
from pipeline.core.crowding import Alert, Levels
from pipeline.core.levels import Rule
from pipeline.core.pools import MINUTE, NEVER, NONE
from pipeline.core.shard import Changes, Shard, VenueRules
from pipeline.estimator import Estimator
from pipeline.store import crowding, models
from pipeline.store.registry import Registry

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any


class AlertRows:
    """Of one shard. Begins empty: `start` once the shard is loaded, then `load`."""

    def __init__(
        self,
        client: Client,
        shard: Shard,
        registry: Registry,
        estimator: Estimator,
        basis: str,
        closed_before: Callable[[], int],
    ) -> None:
        """`basis`: what is judged, as in the settings. `closed_before`: what retention has closed (ms) is not asked for."""
        self._client = client
        self._shard = shard
        self._registry = registry
        self._estimator = estimator
        self._basis = basis
        self._by_estimate = basis != "counted"
        self._closed_before = closed_before
        self._book = AlertBook(
            lambda venue: self._levels_of(registry.rules(venue)),
            (lambda *asked: estimator.judged(shard, *asked)) if self._by_estimate else None,
        )
        # Venues whose alerts are to be computed again from an instant (ms) on, and the most persons counted there of late.
        self._since: dict[str, int] = {}
        self._recounted: dict[str, int] = {}
        #: When (ms) an alert is raised or cleared by itself, as of the last `rows`; NONE if none is. Read by other threads.
        self.next_turn = NONE

    @property
    def in_force(self) -> list[Alert]:
        """Those in force."""
        return self._book.open_alerts

    def start(self, as_of: int) -> None:
        """Begin with the shard loaded, and computed up to `as_of` (ms) without rows."""
        self._book.start(self._shard, as_of)

    def load(self, scope: str) -> None:
        """Take stored alerts of the venues of `scope` that scans can still change. Raises StoreUnavailableError."""
        shard = self._shard
        stored = crowding.alerts_since(self._client, scope, shard.changes_from)
        self._book.load((self._code(venue), alert) for venue, alert in stored)
        for venue, alert in stored:
            # What an alert from before memory began with, only the visits in the store know.
            if alert.raised_at < shard.cells_from:
                self.look_again(venue, alert.raised_at - 1)

    def follows(self, venue: str, rules: VenueRules) -> bool:
        """Whether a venue's alerts are made by these rules."""
        return self._book.follows(self._shard, self._code(venue), self._levels_of(rules))

    def set_rules(self, venue: str, rules: VenueRules) -> None:
        """Change a venue's rules; `look_again` at what it was before them, too."""
        self._book.set_rules(self._shard, self._code(venue), self._levels_of(rules))

    def look_again(self, venue: str, since: int) -> None:
        """Have a venue's alerts computed anew by the next `correct`, those decided after `since` (ms)."""
        since = max(since, self._closed_before())
        self._since[venue] = min(since, self._since.get(venue, since))

    def look_again_by_new_uses(self, scope: str, places: Sequence[tuple[str, int]]) -> None:
        """The same of what was judged by estimates that new uses of models changed, until these are noted as applied."""
        done = models.applied_use(self._client, places)
        if self._by_estimate and done != self._estimator.number:
            since = self._estimator.changed_since(done) * MINUTE
            for venue, first in crowding.first_arrivals(self._client, scope).items():
                self.look_again(venue, max(since, first))

    def note_recounted(self, venue: str, most: int) -> None:
        """The most persons of hours of a venue that were counted again from the store."""
        self._recounted[venue] = most

    def correct(self, as_of: int) -> None:
        """Compute what was asked for, from the store where memory does not reach. Raises StoreUnavailableError; call it again."""
        if not self._since:
            return
        # Only where corrected history reaches a threshold, or had an alert, is anything to be computed from the store.
        shard, book = self._shard, self._book
        reach = shard.changes_from, shard.cells_from
        ancient = {venue: since for venue, since in self._since.items() if since < shard.changes_from}
        stored = crowding.alerts_of_venues(self._client, ancient)
        asked = []
        for venue, since in self._since.items():
            code = self._code(venue)
            if venue not in ancient:
                book.look_again(code, since)
                continue
            levels = book.levels(shard, code)
            most = max(
                self._recounted.get(venue, 0), shard.most_present(code, *(at // MINUTE for at in reversed(reach)))
            )
            if venue in stored or most >= levels.lowest or (self._by_estimate and levels.lowest != NEVER):
                asked.append(crowding.Asked(venue, levels, stored.get(venue, []), since))
        estimates = self._estimator.judged_alone if self._by_estimate else None
        for venue, history in crowding.alert_histories(self._client, asked, reach, as_of, estimates):
            book.correct(self._code(venue), history)
        self._since.clear()
        self._recounted.clear()

    def rows(self, changed: Changes, as_of: int, next_versions: Callable[[int], int]) -> list[tuple[str, pa.Table]]:
        """The rows of alerts that are new or differ, by the name of their table. The shard was advanced to `as_of` (ms)."""
        changes = self._book.advance(self._shard, changed, as_of)
        self.next_turn = self._book.next_turn
        if not changes:
            return []
        first = next_versions(len(changes))
        return [("alert_rows", crowding.alert_table(changes, self._shard.venue_names, first))]

    def collect(self, horizon: int) -> None:
        """Let go of what no scan since `horizon` (ms) can change. To be called before `Shard.collect(horizon)`."""
        self._book.collect(self._shard, horizon)

    def _code(self, venue: str) -> int:
        return int(self._shard.codes_of([venue.encode()])[0])

    def _levels_of(self, rules: VenueRules) -> Levels:
        return _levels(rules.crowding, rules.capacity, self._basis)


@cache
def _levels(rules: tuple[Rule, ...], capacity: int, basis: str) -> Levels:
    # Many venues have the same: one object for all of them.
    return Levels(rules, capacity, basis)
