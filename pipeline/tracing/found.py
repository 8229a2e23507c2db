"""What a pass finds: the exposures of some cases as a table, and how it differs from what is stored."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.case_reports import Case
from pipeline.core.pools import HARD_LIMIT
from pipeline.core.tracing.exposure import HIGH, Stays, case_intervals, exposures
from pipeline.core.tracing.window import Midnight
from pipeline.store.registry import UNKNOWN_CATEGORY
from pipeline.store.tracing import FINDINGS, PAIR, VISITS, Interval, Warn

Ints = NDArray[np.int64]

#: A piece of what a pass finds holds at least so many exposures, unless it is the last, and at most one case more: some 100 MB.
PIECE_ROWS: Final = 250_000


@dataclass(slots=True)
class Standing:
    """What memory holds of a case that was passed over: its visits, and its intervals at their venues."""

    case: Case
    version: int
    visits: pa.Table
    intervals: list[Interval] = field(default_factory=list)


def intervals_of(name: str, standing: Standing, categories: Mapping[str, str]) -> list[Interval]:
    """When a case exposed others, at the longest."""
    coded = Coded(standing.visits, categories)
    found = case_intervals(coded.stays(), standing.case.window, standing.case.policy, coded.categories)
    venues = standing.visits["venue_id"].to_pylist()
    starts = coded.start.tolist()
    return [
        Interval(name, venues[visit], starts[visit], standing.case.policy.id, start, until)
        for visit, start, until in zip(
            found.visit.tolist(), found.start[HIGH].tolist(), found.until[HIGH].tolist(), strict=True
        )
    ]


def union_of(intervals: Iterable[Interval]) -> Iterator[Warn]:
    """The warnings that intervals add up to: by venue and policy their union, touching ones merged."""
    groups: dict[tuple[str, str], list[Interval]] = defaultdict(list)
    for interval in intervals:
        groups[interval.venue_id, interval.policy].append(interval)
    for (venue, policy), group in groups.items():
        group.sort(key=lambda each: each.warn_from)
        start, until, cases = group[0].warn_from, group[0].warn_until, {group[0].case_id}
        for each in group[1:]:
            if each.warn_from > until:
                yield Warn(venue, policy, start, until, len(cases))
                start, until, cases = each.warn_from, each.warn_until, set()
            until = max(until, each.warn_until)
            cases.add(each.case_id)
        yield Warn(venue, policy, start, until, len(cases))


class Coded:
    """Visits with their ids as codes."""

    def __init__(self, visits: pa.Table, categories: Mapping[str, str]) -> None:
        self.venue, self.venues = _codes(visits["venue_id"])
        self.visitor_ids = _array(visits["visitor_id"])
        names = [categories.get(venue) or UNKNOWN_CATEGORY for venue in self.venues.to_pylist()]
        self.categories = sorted(set(names)) or [UNKNOWN_CATEGORY]
        place = {name: code for code, name in enumerate(self.categories)}
        self._category_of = np.array([place[name] for name in names], np.int16)
        self.start, self.left = (visits[name].cast(pa.int64()).to_numpy() for name in ("start", "left"))
        self.ended, self.party = (visits[name].cast(pa.uint8()).to_numpy() for name in ("ended", "party"))

    @cached_property
    def _visitor_codes(self) -> tuple[NDArray[np.int32], pa.Array]:
        return _codes(self.visitor_ids)

    @property
    def visitor(self) -> NDArray[np.int32]:
        """Of each visit, the position of its visitor in `visitors`."""
        return self._visitor_codes[0]

    @property
    def visitors(self) -> pa.Array:
        """The visitors, each once."""
        return self._visitor_codes[1]

    def stays(self, rows: Ints | slice = slice(None)) -> Stays:
        """Some rows for the core."""
        return self._stays(rows, self.visitor[rows])

    def stays_apart(self, rows: Ints) -> Stays:
        """Some rows for the core, with visitors' codes that hold among these rows only.

        Coding the visitors of a pass case by case is twice as fast as at once: what was met stays in the processor's cache.
        """
        return self._stays(rows, _codes(self.visitor_ids.take(pa.array(rows)))[0])

    def _stays(self, rows: Ints | slice, visitor: NDArray[np.int32]) -> Stays:
        venue = self.venue[rows]
        return Stays(
            visitor=visitor,
            venue=venue,
            category=self._category_of[venue],
            start=self.start[rows],
            left=self.left[rows],
            ended=self.ended[rows],
            party=self.party[rows],
        )


def _array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array


def _codes(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.int32], pa.Array]:
    coded = _array(column)
    if not pa.types.is_dictionary(coded.type):
        coded = coded.dictionary_encode()
    return coded.indices.to_numpy().astype(np.int32), coded.dictionary


class Exposed:
    """The exposures of some cases, collected as columns over one table of all visits: the cases' own first, then the others'."""

    def __init__(
        self, cases: Mapping[str, Standing], others: pa.Table, categories: Mapping[str, str], midnight: Midnight
    ) -> None:
        own = [case.visits for case in cases.values()]
        visits = pa.concat_tables([VISITS.empty_table(), *own, _by_venue_and_start(others)])
        self._coded = coded = Coded(visits, categories)
        self._columns: dict[str, list[Any]] = defaultdict(list)
        self._cases, self._midnight = cases, midnight
        offset = sum(visits.num_rows for visits in own)
        self._starts, self._lefts = coded.start[offset:], coded.left[offset:]
        venues = coded.venue[offset:]
        edges = np.flatnonzero(np.diff(venues, prepend=-1, append=-1)) if len(venues) else np.zeros(1, np.int64)
        self._range = {int(venues[a]): (int(a), int(b)) for a, b in pairwise(edges)}
        self._place = {venue: code for code, venue in enumerate(coded.venues.to_pylist())}
        self._offset = offset

    def tables(self) -> Iterator[tuple[list[str], pa.Table]]:
        """The exposures of all cases, in pieces of whole cases: their names, and `case_id`, `PAIR`, `FINDINGS`; times in ms.

        Words that many rows share are dictionaries.
        """
        first, names, rows = 0, [], 0
        for name, case in self._cases.items():
            mine = np.arange(first, first + case.visits.num_rows)
            first += case.visits.num_rows
            near = self._near(case.intervals) + self._offset
            if len(near):
                rows += self._add(name, case.case, mine, near)
            names.append(name)
            if rows >= PIECE_ROWS:
                yield names, self._table()
                names, rows = [], 0
        if names:
            yield names, self._table()

    def _near(self, intervals: Sequence[Interval]) -> Ints:
        # The others' visits that may meet a case's intervals, each once and in order.
        found = [np.zeros(0, np.int64)]
        for each in intervals:
            low, high = self._range.get(self._place[each.venue_id], (0, 0))
            starts = self._starts[low:high]
            a = low + int(np.searchsorted(starts, each.warn_from - HARD_LIMIT))
            b = low + int(np.searchsorted(starts, each.warn_until, "right"))
            found.append(a + np.flatnonzero(self._lefts[a:b] >= each.warn_from))
        near = np.sort(np.concatenate(found), kind="stable")  # of ordered runs: that is a merge
        return near[np.diff(near, prepend=-1) > 0]

    def _add(self, name: str, case: Case, mine: Ints, near: Ints) -> int:
        coded, policy = self._coded, case.policy
        stays = coded.stays_apart(np.concatenate([mine, near]))
        own_stays, near_stays = stays.take(slice(len(mine))), stays.take(slice(len(mine), None))
        found = exposures(own_stays, near_stays, case.window, policy, coded.categories, self._midnight)
        count = len(found)
        columns = self._columns
        columns["own"].append(mine[found.case_visit])
        columns["other"].append(near[found.other_visit])
        for column in ("overlap_from", "overlap_until", "middle_ms", "low_ms", "high_ms", "cumulative_ms"):
            columns[column].append(np.asarray(getattr(found, column), np.int64))
        for column in ("tier", "tier_low", "tier_high"):
            columns[column].append(_coded_words(getattr(found, column), policy.tier_names))
        bases = [policy.automatic_expiry.treatment.value, "exact"]
        columns["tier_basis"].append(_coded_words(found.exact, bases))
        for column, word in (("case_id", name), ("policy", policy.id), ("policy_version", policy.version)):
            columns[column].append(_coded_words(np.zeros(count, np.int32), [word]))
        return count

    def _table(self) -> pa.Table:
        columns, coded = self._columns, self._coded
        self._columns = defaultdict(list)
        own = np.concatenate([np.zeros(0, np.int64), *columns["own"]])
        other = np.concatenate([np.zeros(0, np.int64), *columns["other"]])
        known = {
            "visitor_id": coded.visitor_ids.take(pa.array(other)),
            "venue_id": pa.DictionaryArray.from_arrays(coded.venue[other], coded.venues),
            "checked_in_at": pa.array(coded.start[other]),
            "case_checked_in_at": pa.array(coded.start[own]),
            "party_size": pa.array(coded.party[other]),
        }

        def column(name: str) -> pa.Array:
            if name in known:
                return known[name]
            if name.endswith("_ms") or name.startswith("overlap"):
                return pa.array(np.concatenate([np.zeros(0, np.int64), *columns[name]]))
            return pa.concat_arrays([_coded_words(np.zeros(0, np.int32), []), *columns[name]])

        return pa.table({name: column(name) for name in ("case_id", *PAIR, *FINDINGS)})


def _by_venue_and_start(visits: pa.Table) -> pa.Table:
    # By codes of the venues: sorting by their names takes five times as long.
    venue, _ = _codes(visits["venue_id"])
    start = visits["start"].to_numpy()
    if not len(start):
        return visits
    span = int(start.max() - start.min()) + 1
    return visits.combine_chunks().take(pa.array(np.argsort(venue * np.int64(span) + (start - start.min()))))


def _coded_words(codes: NDArray[Any], words: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.asarray(codes, np.int32)), pa.array(words, pa.string()))


def differences(computed: pa.Table, stored: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The computed rows that are not stored as they are, and the stored rows whose pair is no more.

    Words of the computed rows may be dictionaries, those of the stored ones are not.
    """
    if not stored.num_rows:
        return computed, stored
    computed = computed.cast(stored.schema)
    keys = ["case_id", *PAIR]
    before = stored.rename_columns([name if name in keys else f"{name}_before" for name in stored.column_names])
    joined = computed.join(before, keys, join_type="left outer")
    differs = pa.chunked_array([np.zeros(joined.num_rows, bool)])
    for name in FINDINGS:
        differs = pc.or_(differs, pc.fill_null(pc.not_equal(joined[name], joined[f"{name}_before"]), True))
    changed = joined.filter(differs).select(computed.column_names)
    return changed, stored.join(computed.select(keys), keys, join_type="left anti").select(computed.column_names)


def marked(rows: pa.Table, versions: Mapping[str, int], deleted: int) -> pa.Table:
    codes, names = _codes(rows["case_id"])
    # There may be names of cases that have no row.
    numbers = np.array([versions.get(name, 0) for name in names.to_pylist()], np.uint64)
    rows = rows.append_column("version", pa.array(numbers[codes] if len(codes) else np.zeros(0, np.uint64)))
    return rows.append_column("is_deleted", pa.array(np.full(rows.num_rows, deleted, np.uint8)))
