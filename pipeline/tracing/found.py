"""What a pass finds: the exposures of some cases as a table, and how it differs from what is stored."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
        self.visitor, self.visitors = _codes(visits["visitor_id"])
        names = [categories.get(venue) or UNKNOWN_CATEGORY for venue in self.venues.to_pylist()]
        self.categories = sorted(set(names)) or [UNKNOWN_CATEGORY]
        place = {name: code for code, name in enumerate(self.categories)}
        self._category_of = np.array([place[name] for name in names], np.int16)
        self.start, self.left = (visits[name].cast(pa.int64()).to_numpy() for name in ("start", "left"))
        self.ended, self.party = (visits[name].cast(pa.uint8()).to_numpy() for name in ("ended", "party"))

    def stays(self, rows: Ints | slice = slice(None)) -> Stays:
        """Some rows for the core."""
        venue = self.venue[rows]
        return Stays(
            visitor=self.visitor[rows],
            venue=venue,
            category=self._category_of[venue],
            start=self.start[rows],
            left=self.left[rows],
            ended=self.ended[rows],
            party=self.party[rows],
        )


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.string())
    coded = array.cast(pa.string()).dictionary_encode()
    return coded.indices.to_numpy().astype(np.int32), coded.dictionary


class Exposed:
    """The exposures of some cases, collected as columns over one table of all visits: the cases' own first, then the others'."""

    def __init__(
        self, cases: Mapping[str, Standing], others: pa.Table, categories: Mapping[str, str], midnight: Midnight
    ) -> None:
        own = [case.visits for case in cases.values()]
        order = pc.sort_indices(others, sort_keys=[("venue_id", "ascending"), ("start", "ascending")])
        self._visits = pa.concat_tables([VISITS.empty_table(), *own, others.take(order)])
        self._coded = coded = Coded(self._visits, categories)
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
        """The exposures of all cases, in pieces of whole cases: their names, and `case_id`, `PAIR`, `FINDINGS`; times in ms."""
        coded, first, names, rows = self._coded, 0, [], 0
        for name, case in self._cases.items():
            mine = np.arange(first, first + case.visits.num_rows)
            first += case.visits.num_rows
            near = self._near(case.intervals) + self._offset
            if len(mine):
                near = near[coded.visitor[near] != coded.visitor[mine[0]]]
            if len(near):
                rows += self._add(name, case.case, mine, near)
            names.append(name)
            if rows >= PIECE_ROWS:
                yield names, self._table()
                names, rows = [], 0
        if names:
            yield names, self._table()

    def _near(self, intervals: Sequence[Interval]) -> Ints:
        # The others' visits that may meet a case's intervals, each once.
        found = [np.zeros(0, np.int64)]
        for each in intervals:
            low, high = self._range.get(self._place[each.venue_id], (0, 0))
            starts = self._starts[low:high]
            a = low + int(np.searchsorted(starts, each.warn_from - HARD_LIMIT))
            b = low + int(np.searchsorted(starts, each.warn_until, "right"))
            found.append(np.arange(a, b)[self._lefts[a:b] >= each.warn_from])
        return np.unique(np.concatenate(found))

    def _add(self, name: str, case: Case, mine: Ints, near: Ints) -> int:
        coded, policy = self._coded, case.policy
        found = exposures(coded.stays(mine), coded.stays(near), case.window, policy, coded.categories, self._midnight)
        own, other = mine[found.case_visit], near[found.other_visit]
        tiers = pa.array(policy.tier_names)
        count = len(own)
        columns = self._columns
        columns["case_id"].append(pa.repeat(pa.scalar(name), count))
        columns["own"].append(own)
        columns["other"].append(other)
        for column, values in (
            ("overlap_from", found.overlap_from),
            ("overlap_until", found.overlap_until),
            ("middle_ms", found.middle_ms),
            ("low_ms", found.low_ms),
            ("high_ms", found.high_ms),
            ("cumulative_ms", found.cumulative_ms),
        ):
            columns[column].append(np.asarray(values, np.int64))
        for column, codes in (("tier", found.tier), ("tier_low", found.tier_low), ("tier_high", found.tier_high)):
            columns[column].append(tiers.take(pa.array(np.asarray(codes, np.int32))))
        bases = pa.array([policy.automatic_expiry.treatment.value, "exact"])
        columns["tier_basis"].append(bases.take(pa.array(found.exact.astype(np.int8))))
        columns["policy"].append(pa.repeat(pa.scalar(policy.id), count))
        columns["policy_version"].append(pa.repeat(pa.scalar(policy.version), count))
        return count

    def _table(self) -> pa.Table:
        columns, coded = self._columns, self._coded
        self._columns = defaultdict(list)
        own = np.concatenate([np.zeros(0, np.int64), *columns["own"]])
        other = np.concatenate([np.zeros(0, np.int64), *columns["other"]])
        known = {
            "visitor_id": coded.visitors.take(pa.array(coded.visitor[other])),
            "venue_id": coded.venues.take(pa.array(coded.venue[other])),
            "checked_in_at": pa.array(coded.start[other]),
            "case_checked_in_at": pa.array(coded.start[own]),
            "party_size": pa.array(coded.party[other]),
        }

        def column(name: str) -> pa.Array:
            if name in known:
                return known[name]
            if name.endswith("_ms") or name.startswith("overlap"):
                return pa.array(np.concatenate([np.zeros(0, np.int64), *columns[name]]))
            return pa.concat_arrays([pa.array([], pa.string()), *columns[name]])

        return pa.table({name: column(name) for name in ("case_id", *PAIR, *FINDINGS)})


def differences(computed: pa.Table, stored: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The computed rows that are not stored as they are, and the stored rows whose pair is no more."""
    if not stored.num_rows:
        return computed, stored
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
    numbers = np.array([versions[name] for name in names.to_pylist()], np.uint64)
    rows = rows.append_column("version", pa.array(numbers[codes] if len(codes) else np.zeros(0, np.uint64)))
    return rows.append_column("is_deleted", pa.array(np.full(rows.num_rows, deleted, np.uint8)))
