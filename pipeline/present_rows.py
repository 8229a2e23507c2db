"""Rows of the present, which time alone changes: the rolling windows, and the estimates of who is there now."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from pipeline.core.pools import I32, MINUTE
from pipeline.core.shard import BEGINNING, Shard
from pipeline.estimator import Estimator
from pipeline.store.tables import estimate_table, window_table

#: Widths of the rolling windows, in minutes (contract, section 3).
WIDTHS = (15, 60)

#: Making these rows takes at most this share of the time.
_SHARE = 0.1


class PresentRows:
    """When they are to be made anew, and what they last showed, so that what is gone gets a row that says so."""

    def __init__(self) -> None:
        self._windows: Mapping[int, I32] = {}
        self._estimated = np.zeros(0, np.int32)
        self._minute = BEGINNING
        self._whole = True
        self._made_at = self._cost = 0.0

    def start(self, windows: Mapping[int, I32], estimated: I32) -> None:
        """Note what the store shows: the venues with a row by each width, and those with an estimate, by their codes."""
        self._windows, self._estimated = windows, estimated

    def note_change(self) -> None:
        """More was read than the newest rows tell of."""
        self._whole = False

    def behind(self, as_of: int) -> bool:
        """Whether they are of another minute than the clock's (ms), or do not tell of all that was read."""
        return self._minute != as_of // MINUTE or not self._whole

    def due(self, as_of: int, *, idle: bool) -> bool:
        """Whether they are to be made now: once a minute and when nothing waits, but never for too much of the time."""
        late = self.behind(as_of) if idle else self._minute != as_of // MINUTE
        return late and time.monotonic() - self._made_at > self._cost / _SHARE

    def make(
        self, shard: Shard, as_of: int, estimator: Estimator, next_versions: Callable[[int], int]
    ) -> list[tuple[str, pa.Table]]:
        """The rows as of a clock (ms), by the names of their tables."""
        began = time.monotonic()
        end = as_of // MINUTE
        tables, windows = [], {}
        for width in WIDTHS:
            rows = shard.rolling(as_of, width)
            gone = np.setdiff1d(self._windows.get(width, np.zeros(0, np.int32)), rows.venue).astype(np.int32)
            first = next_versions(len(rows.venue) + len(gone))
            tables.append(("rolling_rows", window_table(rows, gone, shard.venue_names, width, end, first)))
            windows[width] = rows.venue
        self._windows = windows
        if estimator.active or len(self._estimated):
            found = estimator.at_minute(shard, end - 1)
            estimated = np.flatnonzero(found.model > 0).astype(np.int32)
            venues = np.union1d(estimated, self._estimated)
            self._estimated = estimated
            table = estimate_table(found.of(venues), venues, shard.venue_names, next_versions(len(venues)))
            tables.append(("estimate_rows", table))
        self._minute, self._whole = end, True
        self._made_at = time.monotonic()
        self._cost = self._made_at - began
        return tables
