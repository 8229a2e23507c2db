"""What is asked of traced cases: a case's story, the calls to make, the venues by onward risk. Only reads the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.case_reports import Case, CaseJudge, plain_report
from pipeline.core.tracing.backward import KnownCase, clusters, possible_visits, sources
from pipeline.core.tracing.queue import work_queue
from pipeline.core.tracing.ranking import rank_venues
from pipeline.core.tracing.window import Window, infection_window
from pipeline.errors import UserError
from pipeline.store.tracing import TraceStore
from pipeline.tracing.found import Coded

_DAY: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that the store tells of one case, as tables; times in UTC.

    `visits`: its own, in which it can have been infected or exposed others. `tiers`: visitors and persons exposed by tier;
    `if_low` and `if_high` count the visitors of a tier if nobody who did not check out stayed at all, or all of them until the
    automatic end; `exact` those whose tier rests on check-outs alone. `venues`: where it exposed whom. `sources`: other cases
    that exposed it. `clusters`: where it was together with others.
    """

    case: Case
    infection: Window
    visits: pa.Table
    tiers: pa.Table
    venues: pa.Table
    sources: pa.Table
    clusters: pa.Table


def case_story(store: TraceStore, judge: CaseJudge, case_id: str) -> Story:
    """The story of a case. Raises UserError if it was never reported; StoreUnavailableError."""
    case = _case(store, judge, case_id)
    infection = infection_window(plain_report(case.report), case.policy, judge.midnight)
    categories, _ = store.categories(0)
    visitor = case.report.visitor_id
    span = min(infection.start, case.window.start) - 2 * _DAY, max(infection.until, case.window.until)
    own = store.visits_of({visitor: span})
    here = set(own["venue_id"].to_pylist())
    known = _other_cases(store, judge, case_id, here)
    return Story(
        case,
        infection,
        _visits(own, case, infection),
        _ranked(store.table(_TIERS, case=case_id), case),
        store.table(_VENUES, case=case_id),
        *_backward(store, judge, case_id, case, infection, own, known, categories),
    )


def _ranked(tiers: pa.Table, case: Case) -> pa.Table:
    # The highest tier first.
    place = {name: -code for code, name in enumerate(case.policy.tier_names)}
    return tiers.take(pa.array(np.argsort([place.get(name, 0) for name in tiers["tier"].to_pylist()], kind="stable")))


def _case(store: TraceStore, judge: CaseJudge, case_id: str) -> Case:
    report = store.reports_of([case_id]).get(case_id)
    if report is None:
        raise UserError(f"there is no case {case_id} in the store: report it with `pipeline case report`")
    verdict = judge.judge(report.encode())
    if not isinstance(verdict, Case):
        raise UserError(f"case {case_id} cannot be read any more: {verdict.detail}")
    return verdict


def _other_cases(store: TraceStore, judge: CaseJudge, case_id: str, venues: set[str]) -> dict[str, Case]:
    names = sorted({each.case_id for each in store.intervals(venues=venues)} - {case_id}) if venues else []
    verdicts = {name: judge.judge(text.encode()) for name, text in (store.reports_of(names) if names else {}).items()}
    return {name: verdict for name, verdict in verdicts.items() if isinstance(verdict, Case) and verdict.counts}


def _visits(own: pa.Table, case: Case, infection: Window) -> pa.Table:
    start, left = (own[name].to_numpy() for name in ("start", "left"))
    infected = np.zeros(len(start), bool)
    infected[possible_visits(Coded(own, {}).stays(), infection)] = True
    exposing = (start < case.window.until) & (left >= case.window.start) & case.counts
    ended = np.array(["check_out", "expired", "open"])[own["ended"].to_numpy()]
    table = pa.table(
        {
            "checked_in_at": _times(start),
            "left_at": _times(left),
            "venue_id": own["venue_id"],
            "ended_by": pa.array(ended.tolist(), pa.string()),
            "party_size": own["party"],
            "could_be_infected": pa.array(infected),
            "could_infect": pa.array(exposing),
        }
    )
    return table.filter(pa.array(infected | exposing)).sort_by("checked_in_at")


def _backward(
    store: TraceStore,
    judge: CaseJudge,
    case_id: str,
    case: Case,
    infection: Window,
    own: pa.Table,
    others: Mapping[str, Case],
    categories: Mapping[str, str],
) -> tuple[pa.Table, pa.Table]:
    everybody = {case_id: case, **others}
    infections = {
        name: infection_window(plain_report(each.report), each.policy, judge.midnight)
        for name, each in everybody.items()
    }
    spans: dict[str, tuple[int, int]] = {}
    for name, each in everybody.items():
        visitor = each.report.visitor_id
        since, until = infections[name].start - 2 * _DAY, max(each.window.until, infections[name].until)
        before = spans.get(visitor, (since, until))
        spans[visitor] = min(since, before[0]), max(until, before[1])
    here = pa.array(sorted(set(own["venue_id"].to_pylist())), pa.string())
    visits = store.visits_of(spans)
    visits = visits.filter(pc.is_in(visits["venue_id"], value_set=here))
    counts = visits.group_by("venue_id").aggregate([("visitor_id", "count_distinct")]).to_pylist()
    shared = {row["venue_id"] for row in counts if row["visitor_id_count_distinct"] > 1}
    stretches = [(row["venue_id"], row["start"], row["left"]) for row in own.to_pylist() if row["venue_id"] in shared]
    present = store.visits_at(stretches)
    coded = Coded(pa.concat_tables([visits, present]), categories)
    place = {visitor: code for code, visitor in enumerate(coded.visitors.to_pylist())}
    mine = np.arange(visits.num_rows)
    known = [
        KnownCase(
            coded.stays(mine[coded.visitor[mine] == place.get(each.report.visitor_id, -1)]),
            infections[name],
            each.window,
            each.policy,
        )
        for name, each in everybody.items()
    ]
    names = list(everybody)
    found = sources(known[0].stays, infection, known[1:], coded.categories, judge.midnight)
    venues = coded.venues.to_pylist()
    whence = pa.table(
        {
            "source_case": pa.array([names[1 + i] for i in found.source.tolist()], pa.string()),
            "venue_id": pa.array([venues[known[0].stays.venue[i]] for i in found.case_visit.tolist()], pa.string()),
            "overlap_from": _times(found.overlap_from),
            "overlap_until": _times(found.overlap_until),
            "minutes": pa.array(found.middle_ms / 60_000),
            "minutes_low": pa.array(found.low_ms / 60_000),
            "minutes_high": pa.array(found.high_ms / 60_000),
            "tier": pa.array(
                [
                    known[1 + source].policy.tier_names[tier]
                    for source, tier in zip(found.source.tolist(), found.tier.tolist(), strict=True)
                ],
                pa.string(),
            ),
        }
    ).sort_by("overlap_from")
    onward = store.onward(names)
    together = clusters(
        known,
        [onward.get(name, 0) for name in names],
        coded.stays(np.arange(visits.num_rows, visits.num_rows + present.num_rows)),
        case.policy,
        coded.categories,
    )
    members = [
        " ".join(sorted(names[i] for i in together.member_case[together.member_cluster == row].tolist()))
        for row in range(len(together.venue))
    ]
    with_case = np.array([case_id in each.split(" ") for each in members], bool)
    groups = pa.table(
        {
            "venue_id": pa.array([venues[i] for i in together.venue.tolist()], pa.string()),
            "first": _times(together.first),
            "last": _times(together.last),
            "cases": pa.array(together.cases),
            "infectious_later": pa.array(together.later),
            "persons": pa.array(together.persons),
            "attack_rate": pa.array(together.attack_rate),
            "onward": pa.array(together.onward),
            "members": pa.array(members, pa.string()),
        }
    )
    return whence, groups.filter(pa.array(with_case)).sort_by("first")


def calls(store: TraceStore, judge: CaseJudge, capacity: int, case_id: str | None) -> tuple[pa.Table, int]:
    """The most urgent calls of one case (None: of all cases of the policy in force), and how many are left out."""
    policy = judge.default_policy if case_id is None else _case(store, judge, case_id).policy
    rows = store.table(_EXPOSED, case=case_id, policy=policy.id)
    place = {name: code for code, name in enumerate(policy.tier_names)}
    tier = np.array([place.get(name, 0) for name in rows["tier"].to_pylist()], np.int64)
    queue = work_queue(
        np.array(rows["visitor_id"].to_pylist(), object),
        tier,
        rows["cumulative_ms"].to_numpy(),
        rows["until_ms"].to_numpy(),
        rows["party_size"].to_numpy(),
        capacity,
    )
    table = pa.table(
        {
            "visitor_id": pa.array(queue.visitor.tolist(), pa.string()),
            "tier": pa.array([policy.tier_names[code] for code in queue.tier.tolist()], pa.string()),
            "cumulative_minutes": pa.array(queue.cumulative_ms / 60_000),
            "last_exposed": _times(queue.last_exposed),
            "persons": pa.array(queue.persons),
        }
    )
    return table, queue.left_out


def venues_by_risk(store: TraceStore, case_id: str | None) -> pa.Table:
    """Venues where a case (None: any case) exposed others, by falling onward risk; see `pipeline.core.tracing.ranking`."""
    rows = store.table(_RISKS, case=case_id)
    area, air, hours = (
        np.array([np.nan if value is None else value for value in rows[name].to_pylist()], np.float64)
        for name in ("floor_area_m2", "air_changes_per_hour", "hours")
    )
    cases, contact = (rows[name].cast(pa.int64()).to_numpy() for name in ("cases", "contact_ms"))
    ranked = rank_venues(rows["venue_id"].to_pylist(), cases, contact, area, air, np.maximum(hours, 1 / 3600))
    found = rows.take(pa.array(ranked.row))
    return pa.table(
        {
            "venue_id": found["venue_id"],
            "name": found["name"],
            "category": found["category"],
            "risk": pa.array(ranked.risk),
            "cases": found["cases"],
            "exposed_visitors": found["visitors"],
            "contact_minutes": pa.array(contact[ranked.row] / 60_000),
            "ventilation_factor": pa.array(ranked.factor),
            "ventilation_assumed": pa.array(ranked.assumed),
        }
    )


def cases_at_venues(store: TraceStore) -> int:
    """How many cases `venues_by_risk` tells of where it is about any case."""
    return int(store.table(_CASES_AT_VENUES)["cases"][0].as_py())


def _times(values: Any) -> pa.Array:
    return pa.array(np.asarray(values, np.int64), pa.int64()).cast(pa.timestamp("ms"))


_TIERS: Final = """
SELECT name AS tier, countIf(which = 2) AS visitors, sumIf(persons, which = 2) AS persons, countIf(which = 1) AS if_low,
       countIf(which = 3) AS if_high, countIf(which = 2 AND basis = 'exact') AS exact
FROM
(
    SELECT visitor_id, max(party_size) AS persons, any(tier_basis) AS basis,
           [toString(any(tier_low)), toString(any(tier)), toString(any(tier_high))] AS names
    FROM exposures WHERE case_id = {case} GROUP BY visitor_id
)
ARRAY JOIN names AS name, [1, 2, 3] AS which
GROUP BY name
"""
_VENUES: Final = """
SELECT venue_id, any(v.name) AS name, any(v.category) AS category, uniqExact(case_checked_in_at) AS visits,
       uniqExact(visitor_id) AS visitors, uniqExactIf(visitor_id, tier != 'below') AS exposed,
       sum(minutes * e.party_size) AS person_minutes
FROM exposures AS e LEFT JOIN venues AS v USING (venue_id)
WHERE case_id = {case} GROUP BY venue_id ORDER BY exposed DESC, person_minutes DESC, venue_id
"""
_EXPOSED: Final = """
SELECT visitor_id, tier, toInt64(round(cumulative_minutes * 60000)) AS cumulative_ms,
       toUnixTimestamp64Milli(overlap_until) AS until_ms, party_size
FROM exposures WHERE tier != 'below' AND policy = {policy} AND {case_or_all}
"""
_RISKS: Final = """
SELECT venue_id, v.name AS name, v.category AS category, cases, visitors, contact_ms, hours, floor_area_m2, air_changes_per_hour
FROM
(
    SELECT venue_id, uniqExact(visitor_id) AS visitors, toInt64(sum(round(minutes * 60000) * party_size)) AS contact_ms
    FROM exposures WHERE {case_or_all} GROUP BY venue_id
) AS exposed
INNER JOIN
(
    SELECT venue_id, uniqExact(case_id) AS cases,
           avg(dateDiff('millisecond', warn_from, warn_until)) / 3600000 AS hours
    FROM interval_rows FINAL WHERE {case_or_all} GROUP BY venue_id
) AS warned USING (venue_id)
LEFT JOIN venues AS v USING (venue_id)
"""
_CASES_AT_VENUES: Final = """
SELECT uniqExact(case_id) AS cases FROM interval_rows FINAL WHERE venue_id IN (SELECT venue_id FROM exposures)
"""
