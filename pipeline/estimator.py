"""The estimates of an engine's rows: the models in force, as the store has them, applied to the venues of its shard."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.core.crowding import Estimated
from pipeline.core.occupancy import HourRows, MinuteRows
from pipeline.core.pools import I32, I64, NONE
from pipeline.core.shard import Shard
from pipeline.estimates import Flags, Ground, Timeline
from pipeline.store import models
from pipeline.store.estimated_rows import Piece
from pipeline.store.tables import Estimates, estimated_table, integers

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

PlaceOf = Callable[[str], tuple[str, str | None]]


class Estimator:
    """Nothing is estimated until `refresh` has found a model in force."""

    def __init__(self, client: Client, place_of: PlaceOf) -> None:
        """`place_of` gives a venue's category and time zone, as the registry has them now."""
        self._client = client
        self._place_of = place_of
        self._timeline = Timeline([], lambda _version: None)
        self.forget_places()

    def forget_places(self) -> None:
        """Ask for the venues' places anew: the registry, or what their codes stand for, has changed."""
        self._ground = Ground(self._place_of)

    def refresh(self) -> bool:
        """Read which model holds when. Returns whether anything was said of that since. Raises StoreUnavailableError."""
        uses = models.used_models(self._client)
        if max((use.number for use in uses), default=0) == self._timeline.number:
            return False
        self._timeline = Timeline(uses, lambda version: models.stored_model(self._client, version))
        return True

    @property
    def active(self) -> bool:
        """Whether a model holds for any minute."""
        return self._timeline.active

    @property
    def number(self) -> int:
        """That of the last thing that was said of models; 0 where nothing was."""
        return self._timeline.number

    def changed_since(self, number: int) -> int:
        """The first minute (since the epoch) of which anything was said after that number."""
        return self._timeline.changed_since(number)

    def of_rows(self, shard: Shard, minutes: MinuteRows, hours: HourRows) -> tuple[Estimates | None, Estimates | None]:
        """The estimates of rows of the engine's own shard."""
        return self._of_rows(self._ground, shard, minutes, hours)

    def of_other_rows(
        self, other: Shard, minutes: MinuteRows, hours: HourRows
    ) -> tuple[Estimates | None, Estimates | None]:
        """The estimates of rows of a shard that was made for them alone."""
        return self._of_rows(Ground(self._place_of), other, minutes, hours)

    def _of_rows(
        self, ground: Ground, shard: Shard, minutes: MinuteRows, hours: HourRows
    ) -> tuple[Estimates | None, Estimates | None]:
        if not self._timeline.active:
            return None, None
        ground.meet(shard.venue_ids, shard.venue_count)
        return self._timeline.of_rows(ground, shard.logged_moves(), minutes, hours)

    def judged(self, shard: Shard, venue: I32, minute: I32) -> Estimated | None:
        """What crowding goes by where it is not the count: the estimates at the ends of minutes, of the engine's own shard."""
        return self._judged(self._ground, shard, venue, minute)

    def judged_alone(self, other: Shard, minutes: I64) -> Estimated | None:
        """The same of a shard that was made for one venue."""
        venue = np.zeros(len(minutes), np.int32)
        return self._judged(Ground(self._place_of), other, venue, minutes.astype(np.int32))

    def _judged(self, ground: Ground, shard: Shard, venue: I32, minute: I32) -> Estimated | None:
        if not self._timeline.active:
            return None
        found = self._at_minutes(ground, shard, venue, minute)
        return np.where(found.model > 0, found.expected, NONE), found.high

    def at_minute(self, shard: Shard, minute: int) -> Estimates:
        """The estimates of all venues of the engine's own shard at the end of one minute (since the epoch), by their codes."""
        count = shard.venue_count
        return self._at_minutes(self._ground, shard, np.arange(count, dtype=np.int32), np.full(count, minute, np.int32))

    def _at_minutes(self, ground: Ground, shard: Shard, venue: I32, minute: I32) -> Estimates:
        ground.meet(shard.venue_ids, shard.venue_count)
        ends: Flags = np.zeros(len(venue), np.bool_)
        found = self._timeline.estimates(ground, shard.logged_moves(), venue, minute, ends, ~ends)
        return found or Estimates.none(len(venue))

    def anew(self, piece: Piece, next_versions: Callable[[int], int]) -> list[tuple[str, pa.Table]]:
        """Stored rows with the estimates that hold now, by the names of their tables."""
        ground = Ground(self._place_of)
        tables = []
        for name, table, column in (("minute_rows", piece.minutes, "minute"), ("hour_rows", piece.hours, "hour")):
            count, venue = table.num_rows, piece.codes(table)
            ground.meet(piece.shard.venue_ids, piece.shard.venue_count)
            estimates = self._timeline.estimates(
                ground,
                piece.shard.logged_moves(),
                venue,
                integers(table, column) // 60,
                np.full(count, column == "hour"),
                np.ones(count, np.bool_),
            )
            tables.append((name, estimated_table(table, estimates, next_versions(count))))
        return tables
