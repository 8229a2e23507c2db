"""Which cases a stored visit may concern: found in memory, for every visit that is written."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core.pools import HARD_LIMIT
from pipeline.store.tracing import Interval

Ints = NDArray[np.int64]


@dataclass(slots=True)
class _AtVenue:
    """The intervals of cases at one venue, as equally long columns; times in ms."""

    cases: list[str]
    start: Ints
    until: Ints


class CaseIndex:
    """Read where visits are stored, changed by passes: both hold `lock`."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._by_visitor: dict[str, set[str]] = defaultdict(set)
        self._visitor_of: dict[str, str] = {}
        self._by_venue: dict[str, dict[str, list[Interval]]] = defaultdict(dict)
        self._venues_of: dict[str, set[str]] = {}
        self._columns: dict[str, _AtVenue] = {}
        self._visitors = self._venues = pa.array([], pa.string())
        self._changed = False

    def forget(self, case: str) -> None:
        """Match nothing against a case any more."""
        visitor = self._visitor_of.pop(case, None)
        if visitor is not None:
            self._by_visitor[visitor].discard(case)
            if not self._by_visitor[visitor]:
                del self._by_visitor[visitor]
        self._drop_intervals(case)
        self._changed = True

    def expect_visitor(self, case: str, visitor: str) -> None:
        """Match visits of the case's own visitor."""
        self._visitor_of[case] = visitor
        self._by_visitor[visitor].add(case)
        self._changed = True

    def expect_at(self, case: str, intervals: Iterable[Interval]) -> None:
        """Match visits of others during the case's intervals, and no longer during its former ones."""
        self._drop_intervals(case)
        venues = self._venues_of[case] = set()
        for interval in intervals:
            venues.add(interval.venue_id)
            self._by_venue[interval.venue_id].setdefault(case, []).append(interval)
            self._columns.pop(interval.venue_id, None)
        self._changed = True

    def clear(self) -> None:
        """Match nothing any more."""
        for case in list(self._visitor_of):
            self.forget(case)

    def _drop_intervals(self, case: str) -> None:
        for venue in self._venues_of.pop(case, ()):
            del self._by_venue[venue][case]
            self._columns.pop(venue, None)
            if not self._by_venue[venue]:
                del self._by_venue[venue]

    def match(self, rows: pa.Table) -> Iterator[tuple[str, str | None]]:
        """Cases that rows of `visit_rows` concern, each with the other visitor; None: it is the case's own visit.

        A visit may have ended anywhere up to a day after its check-in before this version of it.
        """
        if self._changed:
            self._visitors = pa.array(list(self._by_visitor), pa.string())
            self._venues = pa.array(list(self._by_venue), pa.string())
            self._changed = False
        if len(self._visitors):
            own = rows["visitor_id"].filter(pc.is_in(rows["visitor_id"], value_set=self._visitors))
            for visitor in own.unique().to_pylist():
                yield from ((case, None) for case in self._by_visitor[visitor])
        if not len(self._venues):
            return
        near = rows.select(["venue_id", "visitor_id", "checked_in_at"]).filter(
            pc.is_in(rows["venue_id"], value_set=self._venues)
        )
        starts = near["checked_in_at"].cast(pa.int64()).to_numpy()
        visitors = near["visitor_id"]
        venues = near["venue_id"].combine_chunks().dictionary_encode()
        if isinstance(venues, pa.ChunkedArray):
            venues = pa.concat_arrays(venues.chunks)
        codes = venues.indices.to_numpy()
        for code, venue in enumerate(venues.dictionary.to_pylist()):
            there = self._columns_of(venue)
            which = np.flatnonzero(codes == code)
            at = starts[which, None]
            visits, intervals = np.nonzero((at <= there.until) & (at + HARD_LIMIT >= there.start))
            for visit, interval in set(zip(which[visits].tolist(), intervals.tolist(), strict=True)):
                yield there.cases[interval], visitors[visit].as_py()

    def _columns_of(self, venue: str) -> _AtVenue:
        found = self._columns.get(venue)
        if found is None:
            intervals = [each for some in self._by_venue[venue].values() for each in some]
            found = self._columns[venue] = _AtVenue(
                [each.case_id for each in intervals],
                np.array([each.warn_from for each in intervals], np.int64),
                np.array([each.warn_until for each in intervals], np.int64),
            )
        return found
