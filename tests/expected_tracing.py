"""What `cases`, `exposures` and `venue_warnings` must show, by the pairwise reference, and what they and their topics do show."""

import json
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from hashlib import sha256
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from tests import reference_tracing as reference
from tests.reference import expected_views
from tests.strategies import Situation

#: `exposures`: id → what is known of it; `warnings`: id → likewise.
Tracing = dict[str, dict[str, tuple[Any, ...]]]

_MINUTE = 60_000


def _policy(name: str) -> Mapping[str, Any]:
    return tomllib.loads((files("pipeline.policies") / f"{name}.toml").read_text())


def _id(*parts: object) -> str:
    return sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _valid(
    raw: bytes, zone: ZoneInfo
) -> tuple[dict[str, Any], reference.Case, Mapping[str, Any], tuple[int, int]] | None:
    try:
        record = json.loads(raw)
        policy = _policy(record.get("policy", "who"))
    except (ValueError, FileNotFoundError):
        return None
    if "case_id" not in record:
        return None
    case = reference.Case(
        _ms(record["reported_at"]),
        *(date.fromisoformat(record[name]) if name in record else None for name in ("onset_date", "specimen_date")),
        *(_ms(record[name]) if name in record else None for name in ("infectious_from", "infectious_until")),
    )
    today = reference.local_day(case.reported_at, zone)
    if any(day is not None and day > today for day in (case.onset, case.specimen)):
        return None
    window = reference.infectious_window(case, policy, zone)
    return (record, case, policy, window) if window[0] < window[1] else None


def expected_tracing(
    situation: Situation, categories: Mapping[str, str], reports: Iterable[bytes], zone_name: str
) -> Tracing:
    """What a set of reports and scans says, in any order."""
    zone = ZoneInfo(zone_name)
    newest: dict[str, Any] = {}
    for raw in reports:
        valid = _valid(raw, zone)
        if valid is None:
            continue
        record = dict(valid[0])
        for name in ("reported_at", "infectious_from", "infectious_until"):
            if name in record:
                record[name] = (
                    f"{datetime.fromtimestamp(_ms(record[name]) / 1000, ZoneInfo('UTC')):%Y-%m-%dT%H:%M:%S.000Z}"
                )
        rank = valid[1].reported_at, json.dumps(record, sort_keys=True, separators=(",", ":"))
        if record["case_id"] not in newest or rank > newest[record["case_id"]][0]:
            newest[record["case_id"]] = rank, valid

    views = expected_views(situation.scans, situation.registry.max_stay, {}, situation.as_of)
    visits = [
        reference.Visit(
            v.visitor_id, v.venue_id, categories.get(v.venue_id, "unknown"), v.checked_in_at, v.left_at, v.ended_by
        )
        for v in views["visits"]  # type: ignore[attr-defined]
    ]
    found: Tracing = {"exposures": {}, "warnings": {}}
    intervals = defaultdict(list)
    for case_id, (_, (record, case, policy, window)) in newest.items():
        if record["status"] not in policy["infectious"]["statuses"]:
            continue
        visitor = record["visitor_id"]
        for one in reference.exposures(case, visitor, visits, policy, zone):
            own, other = one.case_visit, one.other_visit
            key = _id(case_id, other.visitor, own.venue, own.start, other.start, policy["id"])
            minutes = tuple(ms / _MINUTE for ms in (one.middle, one.low, one.high, one.cumulative))
            span = one.overlap_from, one.overlap_until
            found["exposures"][key] = case_id, other.visitor, own.venue, *span, *minutes, one.tier, policy["id"]
        for visit in visits:
            if visit.visitor == visitor and reference.counted(visit, policy):
                high = reference.case_interval(visit, window, policy)["high"]
                if high is not None:
                    intervals[visit.venue, policy["id"]].append((*high, case_id))
    for (venue, policy_id), some in intervals.items():
        for start, until, cases in _union(sorted(some)):
            found["warnings"][_id(venue, start, until, policy_id)] = venue, start, until, len(cases), policy_id
    return found


def _union(intervals: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, set[str]]]:
    merged: list[tuple[int, int, set[str]]] = []
    for start, until, case in intervals:
        if merged and start <= merged[-1][1]:
            before = merged.pop()
            merged.append((before[0], max(before[1], until), before[2] | {case}))
        else:
            merged.append((start, until, {case}))
    return merged


def read_tracing(client: Any) -> Tracing:
    """What the views show; raises AssertionError where one shows an id twice."""
    exposures = client.query(
        "SELECT exposure_id, case_id, visitor_id, venue_id, toUnixTimestamp64Milli(overlap_from), "
        "toUnixTimestamp64Milli(overlap_until), minutes, minutes_low, minutes_high, cumulative_minutes, tier, policy "
        "FROM checkins.exposures"
    ).result_rows
    warnings = client.query(
        "SELECT warning_id, venue_id, toUnixTimestamp64Milli(warn_from), toUnixTimestamp64Milli(warn_until), case_count, policy "
        "FROM checkins.venue_warnings"
    ).result_rows
    found = {
        "exposures": {row[0]: tuple(row[1:]) for row in exposures},
        "warnings": {r[0]: tuple(r[1:]) for r in warnings},
    }
    assert len(found["exposures"]) == len(exposures)
    assert len(found["warnings"]) == len(warnings)
    return found


def told(messages: Iterable[tuple[str, dict[str, Any]]]) -> Tracing:
    """What a reader of the topics knows in the end: of each id the newest message, without what was withdrawn."""
    found: Tracing = {"exposures": {}, "warnings": {}}
    for topic, m in messages:
        if topic == "exposures":
            minutes = tuple(m[name] for name in ("minutes", "minutes_low", "minutes_high", "cumulative_minutes"))
            span = _ms(m["overlap_from"]), _ms(m["overlap_until"])
            row = m["case_id"], m["visitor_id"], m["venue_id"], *span, *minutes, m["tier"], m["policy"]
            found["exposures"][m["exposure_id"]] = row
            if m["tier"] == "withdrawn":
                assert minutes == (0, 0, 0, 0)
                del found["exposures"][m["exposure_id"]]
        else:
            row = m["venue_id"], _ms(m["warn_from"]), _ms(m["warn_until"]), m["case_count"], m["policy"]
            found["warnings"][m["warning_id"]] = row
            if not m["case_count"]:
                del found["warnings"][m["warning_id"]]
    return found
