"""From reported cases to everyone exposed: what the store shows is kept equal to what visits, reports and policies say.

A *pass* over a case reads its visits and those of the others at the same venues, lets the core find the exposures, and writes
what differs from the stored ones. A pass depends on the store alone, so it may be repeated, broken off and begun again. What
has to be passed over again is found in memory: every stored visit is matched against the standing intervals of the cases
(`visits_stored`), which stand there before the pass reads. A visit stored before that read is seen by it; one stored later is
matched. After a start all cases whose window lies within the retention are passed over, so nothing rests on that memory.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.case_reports import Case, CaseJudge, Refusal
from pipeline.core.pools import HARD_LIMIT
from pipeline.core.tracing.exposure import HIGH, Stays, case_intervals, exposures
from pipeline.dead_letters import DeadLetter
from pipeline.settings import Settings
from pipeline.store.client import DATABASE, connect
from pipeline.store.tracing import FINDINGS, PAIR, Interval, TracedCase, TraceStore, Warn
from schemas.case_report import CaseReport

log = logging.getLogger(__name__)

#: Cases of one pass: the others' visits of so many are held at once, some 20,000 to 50,000 a case in a city of millions.
_CASES_PER_PASS: Final = 40
#: With more visitors than this to look at again, the whole case is.
_MOST_VISITORS: Final = 2_000
#: A visit that began so long before an infectious window may reach into it: a day, and as much of an aerosol tail.
_BEFORE_WINDOW: Final = 2 * HARD_LIMIT

UNKNOWN_CATEGORY: Final = "unknown"

Ints = NDArray[np.int64]


@dataclass(slots=True)
class _Standing:
    """What memory holds of a case that was passed over: its visits, and its intervals at their venues."""

    case: Case
    version: int
    visits: pa.Table
    intervals: list[Interval] = field(default_factory=list)


@dataclass(slots=True)
class _AtVenue:
    """The intervals of cases at one venue, as equally long columns; times in ms."""

    cases: list[str]
    start: Ints
    until: Ints


class _Index:
    """Which cases a visit may concern. Read where visits are stored, changed by passes: both hold its lock."""

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


class Tracer:
    """Passes over cases. `visits_stored` may be called from any thread, the rest from one; see the module.

    Every method but that and `due` raises StoreUnavailableError, and may then be called again.
    """

    def __init__(self, store: TraceStore, judge: CaseJudge, settings: Settings) -> None:
        """Nothing is read before `own`."""
        self._store = store
        self._judge = judge
        self._retention = int(settings.retention.total_seconds() * 1000)
        self._index = _Index()
        self._standing: dict[str, _Standing] = {}
        self._categories: dict[str, str] = {}
        self._categories_version = 0
        # Per case the other visitors to look at again; None: everything.
        self._due: dict[str, set[str] | None] = {}
        self._outbox: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        """Give the store back."""
        self._store.close()

    # --- what is to be done ------------------------------------------------------------------------------------------

    def own(self, partitions: Collection[int] | None) -> dict[int, int | None]:
        """Take over the cases of some partitions of case-reports (None: all cases), and only those.

        All that may still change, and all that were not passed over to the end, are due. Returns the next offset to read of
        each partition; None = from the earliest.
        """
        self._standing.clear()
        reports = self._store.reports(partitions)
        oldest = self._store.clock() - self._retention
        due = [each.case_id for each in reports if each.report != each.traced or self._active(each.report, oldest)]
        owned = {each.case_id for each in reports}
        outbox = {
            (topic, key): version
            for topic in ("exposures", "venue-warnings")
            for key, version in self._store.unpublished(topic).items()
            if topic != "exposures" or key in owned
        }
        with self._index.lock:
            for case in list(self._index._visitor_of):
                self._index.forget(case)
            self._due = dict.fromkeys(due)
        self._outbox = outbox
        if partitions is None or partitions:
            self._refresh_warnings(None, {})
        return self._store.next_offsets(partitions or ())

    def _active(self, canonical: str, oldest: int) -> bool:
        case = self._judge.judge(canonical.encode())
        return isinstance(case, Case) and case.counts and case.window.until > oldest

    def again(self) -> None:
        """Make every case that stands due: what other workers have stored is not matched here."""
        with self._index.lock:
            self._due |= dict.fromkeys(self._standing)

    def load(
        self,
        topic: str,
        partition: int,
        offsets: Sequence[int],
        timestamps_ms: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
    ) -> list[DeadLetter]:
        """Store a batch of reports; the cases are due then. Returns the records refused."""
        reports, letters = [], []
        for i, value in enumerate(values):
            verdict = self._judge.judge(value)
            if isinstance(verdict, Refusal):
                place = topic, partition, int(offsets[i]), verdict.reason, verdict.detail
                letters.append(DeadLetter(*place, keys[i], value, int(timestamps_ms[i])))
            else:
                reports.append((verdict.report.case_id, verdict.report.reported_at, verdict.canonical))
        self._store.add_letters(letters)
        self._store.add_reports(reports, partition)
        with self._index.lock:
            self._due |= dict.fromkeys(report[0] for report in reports)
        if offsets:
            self._store.note_offset(partition, int(offsets[-1]) + 1)
        return letters

    def visits_stored(self, rows: pa.Table) -> None:
        """Match rows of `visit_rows` that were just stored; in the thread that stores them."""
        with self._index.lock:
            for case, visitor in self._index.match(rows):
                self._expect(case, visitor)

    def _expect(self, case: str, visitor: str | None) -> None:
        some = self._due.setdefault(case, set())
        if visitor is None:
            self._due[case] = None
        elif some is not None:
            some.add(visitor)
            if len(some) > _MOST_VISITORS:
                self._due[case] = None

    @property
    def due(self) -> bool:
        """Whether there is anything to pass over."""
        return bool(self._due)

    # --- passes ------------------------------------------------------------------------------------------------------

    def trace_due(self) -> int:
        """Pass over all that is due. Returns over how many cases it passed."""
        self._refresh_categories()
        with self._index.lock:
            due, self._due = self._due, {}
        done = 0
        whole = [case for case, some in due.items() if some is None or case not in self._standing]
        parts = {case: some for case, some in due.items() if some is not None and case in self._standing}
        try:
            for cases in _cut(whole):
                self._pass_whole(cases)
                done += len(cases)
                for case in cases:
                    del due[case]
            for cases in _cut(parts):
                self._pass_over({case: self._standing[case] for case in cases}, set().union(*map(parts.get, cases)))  # type: ignore[arg-type]
                done += len(cases)
                for case in cases:
                    del due[case]
        finally:
            with self._index.lock:
                for case, some in due.items():
                    for visitor in (None,) if some is None else some:
                        self._expect(case, visitor)
        return done

    def _refresh_categories(self) -> None:
        changed, self._categories_version = self._store.categories(self._categories_version)
        differs = {venue for venue, name in changed.items() if name != self._categories.get(venue, "")}
        self._categories |= changed
        if differs:
            with self._index.lock:
                for case, standing in self._standing.items():
                    if not differs.isdisjoint(standing.visits["venue_id"].to_pylist()):
                        self._due[case] = None

    def _pass_whole(self, names: Collection[str]) -> None:
        cases: dict[str, Case] = {}
        for name, canonical in self._store.reports_of(names).items():
            verdict = self._judge.judge(canonical.encode())
            if isinstance(verdict, Case):
                cases[name] = verdict
            else:
                log.warning("case %s stays as it was traced before: %s", name, verdict.detail)
        live = {name: case for name, case in cases.items() if case.counts}
        with self._index.lock:
            for name in cases:
                self._index.forget(name)
            for name, case in live.items():
                self._index.expect_visitor(name, case.report.visitor_id)
        passes = self._store.passes(cases) if cases else {}
        visits = self._own_visits(live)
        standing = {
            name: _Standing(case, passes.get(name, 0), visits[name] if name in live else visits_table())
            for name, case in cases.items()
        }
        for name in live:
            standing[name].intervals = self._intervals(name, standing[name])
        with self._index.lock:
            for name in live:
                self._index.expect_at(name, standing[name].intervals)
        if standing:
            self._pass_over(standing, None)
        for name, each in standing.items():
            if name in live:
                self._standing[name] = each
            else:
                self._standing.pop(name, None)

    def _own_visits(self, cases: Mapping[str, Case]) -> dict[str, pa.Table]:
        spans: dict[str, tuple[int, int]] = {}
        for case in cases.values():
            since, until = case.window.start - _BEFORE_WINDOW, case.window.until
            before = spans.get(case.report.visitor_id, (since, until))
            spans[case.report.visitor_id] = min(since, before[0]), max(until, before[1])
        found = self._store.visits_of(spans) if spans else visits_table()
        own = {}
        for name, case in cases.items():
            since, until = case.window.start - _BEFORE_WINDOW, case.window.until
            own[name] = found.filter(
                (pc.field("visitor_id") == case.report.visitor_id)
                & (pc.field("start") >= since)
                & (pc.field("start") < until)
            )
        return own

    def _intervals(self, name: str, standing: _Standing) -> list[Interval]:
        coded = _Coded(standing.visits, self._categories)
        found = case_intervals(coded.stays(), standing.case.window, standing.case.policy, coded.categories)
        venues = standing.visits["venue_id"].to_pylist()
        starts = coded.start.tolist()
        return [
            Interval(name, venues[visit], starts[visit], standing.case.policy.id, start, until)
            for visit, start, until in zip(
                found.visit.tolist(), found.start[HIGH].tolist(), found.until[HIGH].tolist(), strict=True
            )
        ]

    def _pass_over(self, cases: Mapping[str, _Standing], visitors: Collection[str] | None) -> None:
        """Compute the exposures of some cases to some visitors (None: to all), and write what differs."""
        stretches = [
            (each.venue_id, each.warn_from, each.warn_until) for case in cases.values() for each in case.intervals
        ]
        others = self._store.visits_at(stretches, visitors)
        computed = _Exposed(cases, others, self._categories, self._judge).table()
        written_before = [name for name, case in cases.items() if case.version]
        stored = (
            self._store.exposures(written_before, visitors).select(computed.column_names).cast(computed.schema)
            if written_before
            else computed.slice(0, 0)
        )
        changed, gone = _differences(computed, stored)
        gone = self._still_to_withdraw(gone, cases)
        versions = {name: case.version + 1 for name, case in cases.items()}
        self._store.write_exposures(pa.concat_tables([_marked(changed, versions, 0), _marked(gone, versions, 1)]))
        touched = set(changed["case_id"].unique().to_pylist()) | set(gone["case_id"].unique().to_pylist())
        for name in touched:
            self._outbox.setdefault(("exposures", name), cases[name].version)
        if visitors is None:
            self._write_intervals(cases, versions)
            self._store.write_cases([(_traced(name, case.case), versions[name]) for name, case in cases.items()])
        for name in cases if visitors is None else touched:
            cases[name].version = versions[name]

    def _still_to_withdraw(self, gone: pa.Table, cases: Mapping[str, _Standing]) -> pa.Table:
        # Days that retention has dropped take their visits with them; what they showed was true, and is not taken back.
        if not gone.num_rows:
            return gone
        withdrawn = [name for name, case in cases.items() if not case.case.counts]
        dropped = pc.less(gone["checked_in_at"], self._store.retained_from())
        kept = pc.and_(dropped, pc.invert(pc.is_in(gone["case_id"], value_set=pa.array(withdrawn, pa.string()))))
        return gone.filter(pc.invert(kept))

    def _write_intervals(self, cases: Mapping[str, _Standing], versions: Mapping[str, int]) -> None:
        stored = set(self._store.intervals(cases=cases))
        true = {each for case in cases.values() for each in case.intervals}
        keys = {each[:4] for each in true}
        rows = [(each, versions[each.case_id], False) for each in true - stored]
        rows += [(each, versions[each.case_id], True) for each in stored - true if each[:4] not in keys]
        # The warnings first: a crash in between leaves intervals that differ, so the next pass comes back to these venues.
        self._refresh_warnings({each.venue_id for each in true | stored}, cases)
        self._store.write_intervals(rows)

    def _refresh_warnings(self, venues: set[str] | None, cases: Mapping[str, _Standing]) -> None:
        """Bring the warnings about some venues (None: all) up to the stored intervals, those of `cases` as they are here."""
        if venues is not None and not venues:
            return
        intervals = [each for each in self._store.intervals(venues=venues) if each.case_id not in cases]
        intervals += [each for case in cases.values() for each in case.intervals]
        stored, newest = self._store.warnings(venues)
        true = set(union_of(intervals))
        keys = {each[:4] for each in true}
        rows = [(each, newest.get(each.venue_id, 0) + 1, False) for each in true - set(stored)]
        rows += [(each, newest[each.venue_id] + 1, True) for each in set(stored) - true if each[:4] not in keys]
        self._store.write_warnings(rows)
        for warning, version, _ in rows:
            self._outbox.setdefault(("venue-warnings", warning.venue_id), version - 1)

    # --- publishing --------------------------------------------------------------------------------------------------

    def unpublished(self) -> tuple[str, str, list[bytes], int] | None:
        """What is to be published next: topic, key, messages, and the version to `mark_published` then; None = nothing."""
        for (topic, key), version in self._outbox.items():
            messages, newest = self._store.messages(topic, key, version)
            return topic, key, messages, max(newest, version)
        return None

    def mark_published(self, topic: str, key: str, version: int) -> None:
        """Kafka has acknowledged what `unpublished` gave."""
        self._store.mark_published(topic, key, version)
        del self._outbox[topic, key]


def open_tracer(settings: Settings) -> Tracer:
    """A tracer over the store that the settings name, which must have its tables. Raises UserError if it cannot be opened."""
    judge = CaseJudge(settings)
    client = connect(settings)
    client.command(f"USE {DATABASE}")
    client.database = DATABASE
    return Tracer(TraceStore(client), judge, settings)


def visits_table() -> pa.Table:
    """No visits, in the columns that the store gives them in."""
    kinds = {"venue_id": pa.string(), "visitor_id": pa.string(), "start": pa.int64(), "left": pa.int64()}
    return pa.table({name: pa.array([], kind) for name, kind in (kinds | {"ended": pa.int8(), "party": pa.uint8()}).items()})


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


class _Coded:
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


class _Exposed:
    """The exposures of some cases, collected as columns over one table of all visits: the cases' own first, then the others'."""

    def __init__(
        self, cases: Mapping[str, _Standing], others: pa.Table, categories: Mapping[str, str], judge: CaseJudge
    ) -> None:
        own = [case.visits for case in cases.values()]
        order = pc.sort_indices(others, sort_keys=[("venue_id", "ascending"), ("start", "ascending")])
        self._visits = pa.concat_tables([visits_table(), *own, others.take(order).cast(visits_table().schema)])
        self._coded = coded = _Coded(self._visits, categories)
        self._names: list[str] = []
        self._columns: dict[str, list[Any]] = defaultdict(list)
        offset = sum(visits.num_rows for visits in own)
        self._starts, self._lefts = coded.start[offset:], coded.left[offset:]
        venues = coded.venue[offset:]
        edges = np.flatnonzero(np.diff(venues, prepend=-1, append=-1)) if len(venues) else np.zeros(1, np.int64)
        self._range = {int(venues[a]): (int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)}
        self._place = {venue: code for code, venue in enumerate(coded.venues.to_pylist())}
        first = 0
        for name, case in cases.items():
            mine = np.arange(first, first + case.visits.num_rows)
            first += case.visits.num_rows
            near = self._near(case.intervals) + offset
            if len(mine):
                near = near[coded.visitor[near] != coded.visitor[mine[0]]]
            if len(near):
                self._add(name, case.case, mine, near, judge)

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

    def _add(self, name: str, case: Case, mine: Ints, near: Ints, judge: CaseJudge) -> None:
        coded, policy = self._coded, case.policy
        found = exposures(coded.stays(mine), coded.stays(near), case.window, policy, coded.categories, judge.midnight)
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

    def table(self) -> pa.Table:
        """case_id, then the columns of `PAIR` and `FINDINGS`; times in ms."""
        columns, coded = self._columns, self._coded
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


def _differences(computed: pa.Table, stored: pa.Table) -> tuple[pa.Table, pa.Table]:
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


def _marked(rows: pa.Table, versions: Mapping[str, int], deleted: int) -> pa.Table:
    codes, names = _codes(rows["case_id"])
    numbers = np.array([versions[name] for name in names.to_pylist()], np.uint64)
    rows = rows.append_column("version", pa.array(numbers[codes] if len(codes) else np.zeros(0, np.uint64)))
    return rows.append_column("is_deleted", pa.array(np.full(rows.num_rows, deleted, np.uint8)))


def _traced(name: str, case: Case) -> TracedCase:
    report: CaseReport = case.report
    return TracedCase(
        name,
        report.visitor_id,
        case.window.start,
        case.window.until,
        case.policy.id,
        case.policy.version,
        report.status,
        report.reported_at,
        case.canonical,
    )


def _cut(cases: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(cases)
    while part := list(islice(rest, _CASES_PER_PASS)):
        yield part
