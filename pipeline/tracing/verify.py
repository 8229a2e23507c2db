"""Recompute exposures and warnings pair by pair, in plain Python from the views, and compare them with what is stored.

This shares nothing with the tracer but the policies' data and the reading of reports: no index, no query of its own. It is slow,
so of many cases only some have their exposures compared; the warnings rest on all of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pipeline.case_reports import Case, CaseJudge
from pipeline.core.tracing.policy import Boundary, Cumulative, Expiry, Policy, Rounding
from pipeline.core.tracing.window import Midnight, day_of
from pipeline.settings import Settings
from pipeline.store.verify import EXAMPLES, Check
from pipeline.store.writer import quoted, quoted_all

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: Cases whose exposures are compared: those with the smallest hash of their id.
CASES: Final = 20

_MINUTE: Final = 60_000
_DAY: Final = 86_400_000
_LOW, _MIDDLE, _HIGH = 0, 1, 2

Span = tuple[int, int]


class _Visit(NamedTuple):
    venue: str
    visitor: str
    start: int
    left: int
    closed: bool
    category: str


def verify_tracing(client: "Client", settings: Settings) -> list[Check]:
    """One check of the exposures and one of the warnings; without a case only the latter: then there must be none."""
    judge = CaseJudge(settings)
    rows = client.query(
        "SELECT case_id, newest.2 FROM checkins.report_set FINAL ORDER BY cityHash64(case_id)"
    ).result_rows
    verdicts = {str(name): judge.judge(str(report).encode()) for name, report in rows}
    cases = {name: verdict for name, verdict in verdicts.items() if isinstance(verdict, Case)}
    intervals: dict[tuple[str, str], list[tuple[int, int, str]]] = defaultdict(list)
    exposures: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    compared = list(cases)[:CASES]
    for name, case in cases.items():
        spans = [(visit, _interval(visit, case)) for visit in _visits_of(client, case)] if case.counts else []
        for visit, interval in spans:
            if interval is not None:
                intervals[visit.venue, case.policy.id].append((*interval[_HIGH], name))
        if name in compared:
            exposures |= _exposures(client, name, case, spans, judge.midnight)
    label = "exposures" if len(compared) == len(cases) else f"exposures of {len(compared)} cases"
    warnings = {
        (venue, policy, *span[:2]): span[2:] for (venue, policy), some in intervals.items() for span in _union(some)
    }
    of_exposures = [_compare(label, exposures, _stored_exposures(client, compared), of_cases=True)] if rows else []
    return [*of_exposures, _compare("venue_warnings", warnings, _stored_warnings(client), of_cases=False)]


def _compare(name: str, true: Mapping[Any, Any], stored: Mapping[Any, Any], *, of_cases: bool) -> Check:
    differing = sorted(key for key in true.keys() | stored.keys() if true.get(key) != stored.get(key))
    shown = differing[:EXAMPLES]
    # A visitor's pseudonym is no business of a terminal: the last part of an exposure's key is left out.
    examples = tuple(
        f"{' '.join(map(str, key[:4]))}: stored {stored.get(key)}, recomputed {true.get(key)}" for key in shown
    )
    # An exposure is of its case and one other; a warning of as many cases as its values say, or said.
    persons, cases = (
        (2 * len(shown), tuple(sorted({key[0] for key in shown}))) if of_cases else (None if shown else 0, ())
    )
    return Check(name, len(true), len(differing), examples, persons=persons, cases=cases)


def _read(client: "Client", where: str) -> list[_Visit]:
    return [
        _Visit(*row)
        for row in client.query(
            "SELECT v.venue_id, visitor_id, toUnixTimestamp64Milli(checked_in_at) AS start, toUnixTimestamp64Milli(left_at), "
            "ended_by = 'check_out', if(category = '', 'unknown', category) FROM checkins.visits AS v "
            f"LEFT JOIN checkins.venues USING (venue_id) WHERE {where}"
        ).result_rows
    ]


def _visits_of(client: "Client", case: Case) -> list[_Visit]:
    first, last = case.window.start - 2 * _DAY, case.window.until
    return _read(client, f"visitor_id = {quoted(case.report.visitor_id)} AND start >= {first} AND start < {last}")


def _end(visit: _Visit, bound: int, policy: Policy) -> int:
    if visit.closed or bound == _HIGH:
        return visit.left
    if bound == _LOW:
        return visit.start
    if policy.automatic_expiry.treatment is Expiry.FULL:
        return visit.left
    expected = policy.automatic_expiry.expected_minutes
    return min(visit.start + expected.get(visit.category, expected["default"]) * _MINUTE, visit.left)


def _counted(visit: _Visit, policy: Policy) -> bool:
    return visit.closed or policy.automatic_expiry.treatment is not Expiry.DROP


def _interval(visit: _Visit, case: Case) -> tuple[Span, Span, Span] | None:
    """When a visit of the case exposes others, by bound; None if it does not."""
    if not _counted(visit, case.policy):
        return None
    high = _bound(visit, _HIGH, case)
    if high is None:
        return None
    spans = [high]
    for bound in (_MIDDLE, _LOW):
        span, outer = _bound(visit, bound, case), spans[-1]
        start = outer[0] if span is None else max(span[0], outer[0])
        spans.append((start, start if span is None else max(start, min(span[1], outer[1]))))
    return spans[2], spans[1], spans[0]


def _bound(visit: _Visit, bound: int, case: Case) -> Span | None:
    rule, start, window = case.policy.exposure, visit.start, case.window
    if rule.rounding is Rounding.SLOTS_30:
        around = rule.slots or {"default": 0}
        slots, half = around.get(visit.category, around["default"]), 30 * _MINUTE
        inside = window.start <= start < window.until
        return ((start // half - slots) * half, (start // half + 1 + slots) * half) if inside else None
    stay = _end(visit, bound, case.policy) - start
    until = start + stay + rule.aerosol_minutes * _MINUTE + min(stay, rule.aerosol_up_to_stay_minutes * _MINUTE)
    if stay < rule.minimum_stay_minutes * _MINUTE or start >= window.until:
        return None
    if until <= window.start and start < window.start:
        return None
    start, until = max(start, window.start), min(until, window.until)
    quarter, ten = 15 * _MINUTE, 10 * _MINUTE
    if rule.rounding is Rounding.OUTWARD_15:
        return start // quarter * quarter, (until // quarter + 1) * quarter
    if rule.rounding is Rounding.NEAREST_10:
        length = (until - start + ten // 2) // ten * ten
        if until % ten > ten - start % ten:
            return (until // ten + 1) * ten - length, (until // ten + 1) * ten
        return start // ten * ten, start // ten * ten + length
    return start, until


def _meet(span: Span, visit: _Visit, boundary: Boundary) -> bool:
    start, until = span
    if boundary is Boundary.HALF_OPEN:
        return max(start, visit.start) < min(until, visit.left)
    if boundary is Boundary.CLOSED:
        return max(start, visit.start) <= min(until, visit.left)
    if boundary is Boundary.STRICT_CHECK_IN:
        return start < visit.start < until
    return start <= visit.start <= until


def _exposures(
    client: "Client",
    name: str,
    case: Case,
    spans: Sequence[tuple[_Visit, tuple[Span, Span, Span] | None]],
    midnight: Midnight,
) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    policy = case.policy
    pairs: dict[str, list[tuple[_Visit, _Visit, list[Span]]]] = defaultdict(list)
    for own, interval in spans:
        if interval is None:
            continue
        high = interval[_HIGH]
        where = f"v.venue_id = {quoted(own.venue)} AND start >= {high[0] - _DAY} AND start <= {high[1]}"
        for other in _read(client, where):
            if (
                other.visitor == own.visitor
                or not _counted(other, policy)
                or not _meet(high, other, policy.exposure.boundary)
            ):
                continue
            overlaps = []
            for bound in (_LOW, _MIDDLE, _HIGH):
                start = max(interval[bound][0], other.start)
                overlaps.append((start, max(start, min(interval[bound][1], _end(other, bound, policy)))))
            pairs[other.visitor].append((own, other, overlaps))
    for visitor, theirs in pairs.items():
        middle = [overlaps[_MIDDLE] for _, _, overlaps in theirs]
        cumulative = _most(middle, case, midnight, weighted=False)
        score = _most(middle, case, midnight, weighted=True)
        tier = policy.tier_names[sum(score >= tier.needed for tier in policy.tiers)]
        for own, other, overlaps in theirs:
            minutes = tuple(
                (span[1] - span[0]) / _MINUTE for span in (overlaps[_MIDDLE], overlaps[_LOW], overlaps[_HIGH])
            )
            key = name, own.venue, own.start, other.start, visitor
            yield key, (*overlaps[_HIGH], *minutes, cumulative / _MINUTE, tier)


def _most(spans: Sequence[Span], case: Case, midnight: Midnight, *, weighted: bool) -> int:
    """The largest sum in any window of the policy, in ms; weighted: × thousandths."""
    weights = case.policy.weights if weighted else None

    def weight(day: date) -> int:
        return (
            (1000 if weighted else 1)
            if weights is None
            else weights.of(case.window.relative_to, (day - case.window.day).days)
        )

    pieces = []
    for at, until in spans:
        while at < until:
            day = day_of(at, midnight)
            cut = min(until, midnight(day + timedelta(days=1)))
            pieces.append((at, cut, weight(day)))
            at = cut
    starts, stops, weights_of_pieces = np.array(pieces, np.int64).reshape(-1, 3).T

    def most_held(windows: Iterable[Span]) -> int:
        return max(
            int((np.maximum(np.minimum(stops, last) - np.maximum(starts, first), 0) * weights_of_pieces).sum())
            for first, last in windows
        )

    rule = case.policy.exposure.cumulative
    if rule is Cumulative.INFECTIOUS_PERIOD:
        return most_held([(min(span[0] for span in spans), max(span[1] for span in spans))])
    if rule is Cumulative.CALENDAR_DAY:
        days = {day_of(edge, midnight) for span in spans for edge in span}
        days |= {day + timedelta(days=1) for day in days}
        return most_held((midnight(day), midnight(day + timedelta(days=1))) for day in days)
    edges = {edge for span in spans for at in span for edge in (at, at - _DAY)}
    return most_held((edge, edge + _DAY) for edge in edges)


def _union(intervals: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, int]]:
    merged: list[tuple[int, int, set[str]]] = []
    for start, until, name in sorted(intervals):
        if merged and start <= merged[-1][1]:
            before = merged.pop()
            merged.append((before[0], max(before[1], until), before[2] | {name}))
        else:
            merged.append((start, until, {name}))
    return [(start, until, len(names)) for start, until, names in merged]


def _stored_exposures(client: "Client", cases: Sequence[str]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    at = "toUnixTimestamp64Milli({})".format
    rows = client.query(
        f"SELECT case_id, venue_id, {at('case_checked_in_at')}, {at('checked_in_at')}, visitor_id, {at('overlap_from')}, "
        f"{at('overlap_until')}, minutes, minutes_low, minutes_high, cumulative_minutes, tier FROM checkins.exposures "
        f"WHERE case_id IN ({quoted_all(cases)})"
    ).result_rows
    return {tuple(row[:5]): tuple(row[5:]) for row in rows}


def _stored_warnings(client: "Client") -> dict[tuple[Any, ...], tuple[Any, ...]]:
    rows = client.query(
        "SELECT venue_id, policy, toUnixTimestamp64Milli(warn_from), toUnixTimestamp64Milli(warn_until), case_count "
        "FROM checkins.venue_warnings"
    ).result_rows
    return {tuple(row[:4]): (row[4],) for row in rows}
