"""From reported cases to everyone exposed: what the store shows is kept equal to what visits, reports and policies say.

A *pass* over a case reads its visits and those of the others at the same venues, lets the core find the exposures, and writes
what differs from the stored ones. A pass depends on the store alone, so it may be repeated, broken off and begun again. What
has to be passed over again is found in memory: every stored visit is matched against the standing intervals of the cases
(`visits_stored`), which stand there before the pass reads. A visit stored before that read is seen by it; one stored later is
matched. After a start all cases whose window lies within the retention are passed over, so nothing rests on that memory.
"""

import logging
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.case_reports import Case, CaseJudge, Refusal
from pipeline.core.pools import HARD_LIMIT
from pipeline.dead_letters import DeadLetter
from pipeline.settings import Settings
from pipeline.store.client import connect_further
from pipeline.store.erasure import digest_of
from pipeline.store.tracing import EXPOSURES, LANE_BITS, VISITS, TracedCase, TraceStore, Untold, next_version
from pipeline.topics import EXPOSURES as EXPOSURES_TOPIC
from pipeline.topics import VENUE_WARNINGS as WARNINGS_TOPIC
from pipeline.tracing.found import Exposed, Standing, differences, intervals_of, marked, union_of
from pipeline.tracing.index import CaseIndex
from schemas.case_report import CaseReport

log = logging.getLogger(__name__)

#: Cases of one pass: the others' visits of so many are held at once, some 20,000 to 50,000 a case in a city of millions.
_CASES_PER_PASS: Final = 20
#: Cases whose own visits are read at once. The index on visitors leaves a fifth of a nation's visits to be read for twenty of
#: them, so reading them pass by pass would read every visit many times; they are few, and held until their pass.
_CASES_READ_AT_ONCE: Final = 1_000
#: With more visitors than this to look at again, the whole case is.
_MOST_VISITORS: Final = 2_000
#: A visit that began so long before an infectious window may reach into it: a day, and as much of an aerosol tail.
_BEFORE_WINDOW: Final = 2 * HARD_LIMIT
#: By how much, in bits, a worker among others raises the version of warnings, by chance.
_STEP_BITS: Final = 20


class Tracer:
    """Passes over cases. `visits_stored` may be called from any thread, the rest from one; see the module.

    Every method but that and `due` raises StoreUnavailableError, and may then be called again.
    """

    def __init__(self, store: TraceStore, judge: CaseJudge, settings: Settings) -> None:
        """Nothing is read before `own`."""
        self._store = store
        self._judge = judge
        self._retention = int(settings.retention.total_seconds() * 1000)
        self._index = CaseIndex()
        self._standing: dict[str, Standing] = {}
        # Read, matched, and no longer due, but not passed over yet.
        self._ready: dict[str, Standing] = {}
        self._categories: dict[str, str] = {}
        self._categories_version = 0
        # Per case the other visitors to look at again; None: everything.
        self._due: dict[str, set[str] | None] = {}
        self._owned: tuple[Collection[int], bool] = (), False
        # Whose exposures these are, among those of other workers.
        self._own_lane = 1 + secrets.randbelow((1 << LANE_BITS) - 1)
        # Per case and lane with exposures to be told: the version up to which Kafka has them, and the newest one that is stored.
        self._untold_cases: dict[tuple[str, int], tuple[int, int]] = {}
        # Those of them that Kafka has, in another order than ours: only we know, whoever owns the cases by now.
        self._again: set[tuple[str, int]] = set()
        # Cases and venues of which something was handed to the store that it has not said that it has: it may have it later.
        self._unanswered_cases: set[str] = set()
        self._unanswered_venues: set[str] = set()
        # Venues with warnings to be told, and of those told the ones to be told again, which only we know, too.
        self._untold_venues: dict[str, set[str]] = {}

    def close(self) -> None:
        """Give the store back."""
        self._store.close()

    # --- what is to be done ------------------------------------------------------------------------------------------

    def own(self, partitions: Collection[int], *, everything: bool) -> dict[int, int | None]:
        """Take over the cases of some partitions of case-reports (or `everything` there is), and only those.

        All that may still change, and all that were not passed over to the end, are due. Returns the next offset to read of
        each partition; None = from the earliest.
        """
        self._owned = partitions, everything
        if not partitions and not everything:
            self.forget()
            return {}
        reports = self._store.reports(None if everything else partitions)
        # What retention cuts may have shortened the windows of some that are older.
        oldest = self._store.clock() - self._retention - 2 * HARD_LIMIT
        due = [each.case_id for each in reports if each.report != each.traced or self._active(each.report, oldest)]
        owned = {each.case_id for each in reports}
        untold = {each: versions for each, versions in self._untold_among(None).items() if each[0] in owned}
        self._take_up(due, untold, self._untold_about())
        self._refresh_warnings(None, {})
        return self._store.next_offsets(partitions)

    def forget(self) -> None:
        """Have nothing due any more, until the cases are taken over again; asks the store nothing.

        What Kafka has in another order than ours is still told again.
        """
        self._take_up([], {}, {})

    def own_again(self) -> None:
        """Take over the same cases anew: something other than a visit or a report has changed the store."""
        partitions, everything = self._owned
        self.own(partitions, everything=everything)

    def _take_up(
        self, due: Collection[str], cases: dict[tuple[str, int], tuple[int, int]], venues: Mapping[str, set[str]]
    ) -> None:
        with self._index.lock:
            self._index.clear()
            self._due = dict.fromkeys(due)
        self._standing.clear()
        self._ready.clear()
        again = {each: versions for each, versions in self._untold_cases.items() if each in self._again}
        self._untold_cases = _merged(cases, again)
        self._unanswered_cases.clear()
        self._unanswered_venues.clear()
        kept = {venue: ids for venue, ids in self._untold_venues.items() if ids}
        self._untold_venues = {venue: venues.get(venue, set()) | kept.get(venue, set()) for venue in [*venues, *kept]}

    def _untold_among(self, cases: Collection[str] | None) -> dict[tuple[str, int], tuple[int, int]]:
        # Of what others have begun to tell everything is told once more: they may have been killed, or tell what held before.
        again = () if self._owned[1] else self._store.doubtful(EXPOSURES_TOPIC, self._own_lane)
        return self._store.untold_cases(cases, again)

    def _untold_about(self) -> dict[str, set[str]]:
        return self._store.untold_venues(() if self._owned[1] else self._store.doubtful(WARNINGS_TOPIC, self._own_lane))

    def _active(self, canonical: str, oldest: int) -> bool:
        case = self._judge.judge(canonical.encode())
        return isinstance(case, Case) and case.counts and case.window.until > oldest

    def again(self) -> None:
        """Make every case that stands due: what other workers have stored is not matched here."""
        with self._index.lock:
            self._due |= dict.fromkeys([*self._standing, *self._ready])

    def load(
        self,
        topic: str,
        partition: int,
        offsets: Sequence[int],
        timestamps_ms: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
    ) -> list[DeadLetter]:
        """Store a batch of reports, but those of erased visitors; the cases are due then. Returns the records refused."""
        reports, letters, erased = [], [], self._store.erased()
        for i, value in enumerate(values):
            verdict = self._judge.judge(value)
            if isinstance(verdict, Refusal):
                place = topic, partition, int(offsets[i]), verdict.reason, verdict.detail
                letters.append(DeadLetter(*place, keys[i], value, int(timestamps_ms[i])))
            elif digest_of(verdict.report.visitor_id.encode()) not in erased:
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
    def due(self) -> int:
        """How many cases are to be passed over."""
        return len(self._due) + len(self._ready)

    # --- passes ------------------------------------------------------------------------------------------------------

    def trace_due(self) -> None:
        """Pass over all that is due."""
        while self.trace_some():
            pass

    def trace_some(self) -> int:
        """Pass over some of the cases that later scans touched, and some of those due as a whole. Returns over how many."""
        self._refresh_categories()
        touched: dict[str, set[str] | None] = {}
        whole: dict[str, set[str] | None] = {}
        with self._index.lock:
            for case in sorted(self._due):
                if self._due[case] is not None and case in self._standing:
                    if len(touched) < _CASES_PER_PASS:
                        touched[case] = self._due.pop(case)
                elif not self._ready and len(whole) < _CASES_READ_AT_ONCE:
                    whole[case] = self._due.pop(case)
        done = len(touched)
        try:
            if touched:
                visitors = {visitor for some in touched.values() for visitor in some or ()}
                self._pass_over({case: self._standing[case] for case in touched}, visitors)
                touched.clear()
            if whole:
                self._ready = self._read(whole)
                done += len(whole) - len(self._ready)  # those whose report cannot be read stay as they are
                whole.clear()
            if self._ready:
                whole = dict.fromkeys(list(self._ready)[:_CASES_PER_PASS])
                done += len(whole)
                self._pass_whole({case: self._ready.pop(case) for case in whole})
        except BaseException:
            with self._index.lock:
                for case, some in (touched | whole).items():
                    for visitor in (None,) if some is None else some:
                        self._expect(case, visitor)
            raise
        return done

    def _refresh_categories(self) -> None:
        changed, self._categories_version = self._store.categories(self._categories_version)
        differs = {venue for venue, name in changed.items() if name != self._categories.get(venue, "")}
        self._categories |= changed
        if differs:
            with self._index.lock:
                for case, standing in (self._standing | self._ready).items():
                    if not differs.isdisjoint(standing.visits["venue_id"].to_pylist()):
                        self._due[case] = None

    def _read(self, names: Collection[str]) -> dict[str, Standing]:
        """Read what is known of some cases, and match what is stored from now on against them as they are now."""
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
        if cases and not self._owned[1]:
            # What was stored by who did not know that the case was another's by then, and did not come to tell of it.
            self._untold_cases = _merged(self._untold_cases, self._untold_among(cases))
            for venue, ids in self._untold_about().items():
                self._untold_venues.setdefault(venue, set()).update(ids)
        visits = self._own_visits(live)
        standing = {
            name: Standing(case, passes.get(name, 0), visits[name] if name in live else VISITS.empty_table())
            for name, case in cases.items()
        }
        for name in live:
            standing[name].intervals = intervals_of(name, standing[name], self._categories)
        with self._index.lock:
            for name in live:
                self._index.expect_at(name, standing[name].intervals)
        for name in standing:
            # It stands again once it is passed over.
            self._standing.pop(name, None)
        return standing

    def _pass_whole(self, cases: Mapping[str, Standing]) -> None:
        self._pass_over(cases, None)
        self._standing |= {name: each for name, each in cases.items() if each.case.counts}

    def _own_visits(self, cases: Mapping[str, Case]) -> dict[str, pa.Table]:
        spans: dict[str, tuple[int, int]] = {}
        for case in cases.values():
            since, until = case.window.start - _BEFORE_WINDOW, case.window.until
            before = spans.get(case.report.visitor_id, (since, until))
            spans[case.report.visitor_id] = min(since, before[0]), max(until, before[1])
        found = self._store.visits_of(spans) if spans else VISITS.empty_table()
        visitors = found["visitor_id"].to_pylist()
        own = {}
        for name, case in cases.items():
            since, until = case.window.start - _BEFORE_WINDOW, case.window.until
            first = bisect_left(visitors, case.report.visitor_id)
            mine = found.slice(first, bisect_right(visitors, case.report.visitor_id) - first)
            own[name] = mine.filter((pc.field("start") >= since) & (pc.field("start") < until))
        return own

    def _pass_over(self, cases: Mapping[str, Standing], visitors: Collection[str] | None) -> None:
        """Compute the exposures of some cases to some visitors (None: to all), and write what differs."""
        stretches = [
            (each.venue_id, each.warn_from, each.warn_until) for case in cases.values() for each in case.intervals
        ]
        others = self._store.visits_at(stretches, visitors)
        exposed = Exposed(cases, others, self._categories, self._judge.midnight)
        with self._store.writing_exposures() as write:
            for names, computed in exposed.tables():
                of_these = {name: cases[name] for name in names}
                for deleted, rows in enumerate(self._differences(of_these, computed, visitors)):
                    # Each insert under a version of its own: who sees one need not have seen the next.
                    versions = {name: self._raised(cases[name]) for name in rows["case_id"].unique().to_pylist()}
                    for name, version in versions.items():
                        # Before they are stored: if the store's answer is lost, they may be there, and no pass finds them again.
                        told, _ = self._untold_cases.get((name, self._lane), (version - 1, 0))
                        self._untold_cases[name, self._lane] = told, version
                        self._unanswered_cases.add(name)
                    write(marked(rows, versions, deleted))
        self._unanswered_cases.difference_update(cases)
        if visitors is None:
            versions = {name: self._raised(case) for name, case in cases.items()}
            self._write_intervals(cases, versions)
            self._store.write_cases([(_traced(name, case.case), versions[name]) for name, case in cases.items()])

    @property
    def _lane(self) -> int:
        return 0 if self._owned[1] else self._own_lane

    def _raised(self, case: Standing) -> int:
        case.version = next_version(case.version, self._lane)
        return case.version

    def _differences(
        self, cases: Mapping[str, Standing], computed: pa.Table, visitors: Collection[str] | None
    ) -> tuple[pa.Table, pa.Table]:
        """What of some cases' exposures is not stored as it was computed, and what is stored and is to be withdrawn."""
        written_before = [name for name, case in cases.items() if case.version]
        stored = EXPOSURES.empty_table()
        if written_before:
            stored = self._store.exposures(written_before, visitors)
        changed, gone = differences(computed, stored)
        return changed, self._still_to_withdraw(gone, cases)

    def _still_to_withdraw(self, gone: pa.Table, cases: Mapping[str, Standing]) -> pa.Table:
        # Retention drops visits first, then what followed from them: that was true, and is not taken back.
        if not gone.num_rows:
            return gone
        withdrawn = [name for name, case in cases.items() if not case.case.counts]
        kept_from = self._store.kept_from()
        dropped = pc.or_(pc.less(gone["checked_in_at"], kept_from), pc.less(gone["case_checked_in_at"], kept_from))
        kept = pc.and_(dropped, pc.invert(pc.is_in(gone["case_id"], value_set=pa.array(withdrawn, pa.string()))))
        return gone.filter(pc.invert(kept))

    def _write_intervals(self, cases: Mapping[str, Standing], versions: Mapping[str, int]) -> None:
        stored = set(self._store.intervals(cases=cases))
        true = {each for case in cases.values() for each in case.intervals}
        keys = {each[:4] for each in true}
        rows = [(each, versions[each.case_id], False) for each in true - stored]
        rows += [(each, versions[each.case_id], True) for each in stored - true if each[:4] not in keys]
        # The warnings first: a crash in between leaves intervals that differ, so the next pass comes back to these venues.
        self._refresh_warnings({each.venue_id for each in true | stored}, cases)
        self._store.write_intervals(rows)

    def _refresh_warnings(self, venues: set[str] | None, cases: Mapping[str, Standing]) -> None:
        """Bring the warnings about some venues (None: all) up to the stored intervals, those of `cases` as they are here."""
        if venues is not None and not venues:
            return
        intervals = [each for each in self._store.intervals(venues=venues) if each.case_id not in cases]
        intervals += [each for case in cases.values() for each in case.intervals]
        stored, newest = self._store.warnings(venues)
        true = set(union_of(intervals))
        keys = {each[:4] for each in true}
        # Of a venue's warnings several workers write, each for its cases: at once, they must not do so under one version, or of a
        # warning that one has made and the other taken back neither would be the newer.
        step = 1 if self._owned[1] else 1 + secrets.randbits(_STEP_BITS)
        rows = [(each, newest.get(each.venue_id, 0) + step, False) for each in true - set(stored)]
        # Retention may have deleted what is stored before its version was read.
        gone = [each for each in set(stored) - true if each[:4] not in keys]
        rows += [(each, newest.get(each.venue_id, 0) + step, True) for each in gone]
        for warning, _, _ in rows:
            self._untold_venues.setdefault(warning.venue_id, set())
            self._unanswered_venues.add(warning.venue_id)
        self._store.write_warnings(rows)
        self._unanswered_venues -= self._unanswered_venues if venues is None else venues

    def strangers(self, reports: Iterable[bytes]) -> list[str]:
        """The reported cases that stand and whose visitor has no visit in reach of the infectious window, sorted."""
        verdicts = [self._judge.judge(report) for report in reports]
        names = {verdict.report.case_id for verdict in verdicts if isinstance(verdict, Case)}
        return sorted(name for name in names & self._standing.keys() if not self._standing[name].visits.num_rows)

    # --- publishing --------------------------------------------------------------------------------------------------

    def untold(self) -> Untold | None:
        """What is to be published next, of one case or venue; None = nothing."""
        found = self._next_untold()
        if found is not None and not self._owned[1]:
            self._store.note_telling(found, self._own_lane)
        return found

    def _next_untold(self) -> Untold | None:
        for (case, lane), (told, newest) in self._untold_cases.items():
            # Told before they are all there, what comes in later would count as told. The next pass over the case ends this.
            if lane != self._lane or case not in self._unanswered_cases:
                return self._store.untold_exposures(case, lane, told, newest)
        for venue, again in list(self._untold_venues.items()):
            some = self._store.untold_warnings(venue, again)
            if some.warnings:
                return some
            if venue not in self._unanswered_venues:
                del self._untold_venues[venue]
        return None

    @property
    def contradicted(self) -> bool:
        """Whether Kafka has what was true before as the last word, which only we know; may be asked from any thread."""
        return bool(self._again) or any(list(self._untold_venues.values()))

    def note_told(self, told: Untold) -> None:
        """Kafka has acknowledged what `untold` gave.

        What another worker has stored since may have been told before it was: then what holds now is told once more.
        """
        self._store.note_told(told)
        if told.warnings:
            self._untold_venues[told.key] = self._store.overtaken(told)
            if not self._untold_venues[told.key] and not self._owned[1]:
                self._store.note_settled(told, self._own_lane)
            return
        _, newest = self._untold_cases.pop((told.key, told.lane), (0, 0))
        self._again.discard((told.key, told.lane))
        if newest > told.upto:
            self._untold_cases[told.key, told.lane] = told.upto, newest
        if self._owned[1]:
            return
        overtaken = {(told.key, lane): each for lane, each in self._store.overtaken_exposures(told).items()}
        if overtaken:
            # With what is still to be told of those lanes: told for themselves, they would count as told up to there.
            untold = self._store.untold_cases([told.key])
            untold = {each: versions for each, versions in untold.items() if each in overtaken}
            self._untold_cases = _merged(self._untold_cases, _merged(overtaken, untold))
            self._again |= overtaken.keys()
        if not any(case == told.key for case, _ in self._again):
            self._store.note_settled(told, self._own_lane)


def _merged(
    some: Mapping[tuple[str, int], tuple[int, int]], more: Mapping[tuple[str, int], tuple[int, int]]
) -> dict[tuple[str, int], tuple[int, int]]:
    # Where both have something to be told: from the first on, and up to the last.
    merged = dict(some)
    for each, (after, upto) in more.items():
        before, newest = merged.get(each, (after, upto))
        merged[each] = min(before, after), max(newest, upto)
    return merged


def open_tracer(settings: Settings) -> Tracer:
    """A tracer over the store that the settings name, which must have its tables.

    Raises UserError if it cannot be opened, StoreAwayError if that may pass.
    """
    judge = CaseJudge(settings)
    return Tracer(TraceStore(connect_further(settings), connect_further(settings)), judge, settings)


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
