"""The verifier is independent of what it verifies, and its own counting is right where it can be done by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import recount
from tests.faults.recount import HOUR, MINUTE, Case, Crowding, Record, Scan, Visit

ROOT = Path(__file__).resolve().parents[2]

_IMPORTS = """
import sys, tests.faults.verifier
print([name for name in sys.modules if name.split(".")[0] in ("pipeline", "schemas") or name.startswith("tests.reference")])
"""


def test_the_verifier_imports_nothing_of_what_it_verifies() -> None:
    done = subprocess.run([sys.executable, "-c", _IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def scan(at: int, kind: str = "check_in", visitor: str = "p", party: int = 1, event: str = "e") -> Scan:
    return Scan("v", visitor, kind, at, party, event, "app")


def record(timestamp: int = 0, **fields: object) -> Record:
    value = {
        "event_id": "e",
        "event_type": "check_in",
        "venue_id": "v",
        "visitor_id": "p",
        "occurred_at": "1970-01-10T00:00:00.5Z",
    }
    return Record(0, 0, timestamp, json.dumps(value | fields).encode())


def test_records_are_judged_as_the_contract_says() -> None:
    nine_days = 9 * recount.DAY
    assert recount.judge(record(), None) == Scan("v", "p", "check_in", nine_days + 500, 1, "e", "app")
    assert recount.judge(record(occurred_at="1970-01-10T07:00:00+07:00", extra=1), None) == scan(nine_days)
    assert recount.judge(record(visitor_id="0812 3456"), None) == "schema"
    assert recount.judge(record(party_size=True), None) == "schema"
    assert recount.judge(record(nine_days + 2 * HOUR), HOUR) == "too_old"
    assert recount.judge(record(nine_days - HOUR), HOUR) == "from_the_future"
    assert recount.judge(Record(0, 0, 0, b"\xff"), None) == "not_utf8"
    assert recount.judge(Record(0, 0, 0, b"{"), None) == "not_json"
    assert recount.judge(Record(0, 0, 0, b" " * 65_537), None) == "too_large"
    assert recount.judge(Record(0, 0, 0, None), None) == "not_json"


def written(fields: str, size: int = 0) -> Record:
    """A record with these members, as they are written, after those that it needs; filled up with spaces."""
    value = record().value
    assert value is not None
    return Record(0, 0, 0, (value[:-1] + b", " + fields.encode() + b"}").ljust(size))


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ('"party_size": 50, "source": "gate"', scan(9 * recount.DAY + 500, party=50)._replace(source="gate")),
        ('"party_size": 51', "schema"),
        ('"party_size": 0', "schema"),
        ('"party_size": 3.0', "schema"),
        ('"party_size": 3e0', "schema"),
        ('"party_size": null', "schema"),
        ('"party_size": "3"', "schema"),
        ('"source": null', "schema"),
        ('"source": ""', "schema"),
        ('"event_type": "CHECK_IN"', "schema"),
        # Of equal keys the last wins; what it replaces is JSON all the same.
        ('"party_size": "x", "party_size": 2', scan(9 * recount.DAY + 500, party=2)),
        ('"party_size": 2, "party\\u005fsize": 0', "schema"),
        ('"x": NaN, "x": 1', "not_json"),
        ('"x": ["\\ud800"], "x": 1', "not_json"),
        ('"\\udc00": 1', "not_json"),
        ('"x": "\\ud83d\\ude00 \\\\ud800"', scan(9 * recount.DAY + 500)),
        ('"x": Infinity', "not_json"),
        ('"x": -Infinity', "not_json"),
        ('"x": 1e400', scan(9 * recount.DAY + 500)),
        ('"x": "\t"', "not_json"),
        ('"x": ' + "-" + "9" * 4300, scan(9 * recount.DAY + 500)),
        ('"x": ' + "9" * 4301, "not_json"),
        ('"x": ' + "9" * 4301 + ".5", "not_json"),
        ('"x": 0.' + "9" * 4301, scan(9 * recount.DAY + 500)),
        ('"x": ' + "[" * 199 + "1" + "]" * 199, scan(9 * recount.DAY + 500)),
        ('"x": ' + "[" * 200 + "]" * 200, scan(9 * recount.DAY + 500)),
        ('"x": ' + "[" * 200 + "1" + "]" * 200, "not_json"),
        ('"x": ' + "[" * 20_000, "not_json"),
    ],
)
def test_what_is_json_and_what_fields_may_hold_is_as_the_contract_says(fields: str, verdict: Scan | str) -> None:
    assert recount.judge(written(fields), None) == verdict


def test_the_largest_record_has_65536_bytes_whatever_its_characters() -> None:
    assert recount.judge(written('"x": "é"', 65_536), None) == scan(9 * recount.DAY + 500)
    assert recount.judge(written('"x": "é"', 65_537), None) == "too_large"


@pytest.mark.parametrize(
    ("time", "at"),
    [
        ("1970-01-02T00:00:00Z", recount.DAY),
        ("1970-01-01T23:59:59.999Z", None),
        ("1970-01-01T12:00:00-12:00", recount.DAY),
        ("2105-12-31T23:59:59.999999999Z", 4_291_747_199_999),
        ("2106-01-01T00:00:00Z", None),
        ("2106-01-01T00:00:00+00:01", 4_291_747_200_000 - MINUTE),
        ("9999-12-31T23:59:59-23:59", None),
        ("0000-01-01T00:00:00Z", None),
        ("1970-01-10t00:00:00.0019z", 9 * recount.DAY + 1),
        ("1970-01-10T00:00:00.1234567890Z", None),
        ("1970-01-10T00:00:00.Z", None),
        ("1970-01-10T00:00:60Z", None),
        ("2016-12-31T23:59:60Z", None),
        ("1970-01-10T24:00:00Z", None),
        ("1970-02-29T00:00:00Z", None),
        ("1970-01-10T00:00:00", None),
        ("1970-01-10T00:00:00+24:00", None),
        ("1970-01-10T00:00:00+00:60", None),
        ("1970-01-10 00:00:00Z", None),
        ("1970-01-10T00:00:00Z\n", None),
        ("１970-01-10T00:00:00Z", None),
    ],
)
def test_times_are_read_as_the_contract_says(time: str, at: int | None) -> None:
    assert recount.judge(record(occurred_at=time), None) == ("schema" if at is None else scan(at))


def test_what_is_too_old_or_from_the_future_is_so_by_a_millisecond() -> None:
    at = 9 * recount.DAY + 500
    for timestamp, verdict in (
        (at + HOUR, scan(at)),
        (at + HOUR + 1, "too_old"),
        (at - 5 * MINUTE, scan(at)),
        (at - 5 * MINUTE - 1, "from_the_future"),
    ):
        assert recount.judge(record(timestamp), HOUR) == verdict


def test_of_one_identity_the_larger_party_wins_then_the_smaller_event() -> None:
    assert recount.winners([scan(1, party=2, event="b"), scan(1, party=2, event="a"), scan(1, event="0")]) == [
        scan(1, party=2, event="a")
    ]


def test_scans_fold_into_visits_by_the_contract() -> None:
    def visits(*scans: Scan, as_of: int = 100 * HOUR) -> list[tuple[int, int, str]]:
        return [(visit.start, visit.left, visit.ended) for visit in recount.fold(scans, {}, 4 * HOUR, as_of)]

    out = "check_out"
    assert visits(scan(0), scan(HOUR, out)) == [(0, HOUR, out)]
    assert visits(scan(0), scan(HOUR), scan(23 * HOUR, out)) == [(0, 23 * HOUR, out)]
    assert visits(scan(0), scan(5 * HOUR), scan(6 * HOUR, out)) == [(0, 4 * HOUR, "expired"), (5 * HOUR, 6 * HOUR, out)]
    assert visits(scan(0), scan(25 * HOUR, out)) == [(0, 4 * HOUR, "expired")]
    assert visits(scan(0), as_of=HOUR) == [(0, 4 * HOUR, "open")]
    assert visits(scan(0, out), scan(0)) == [(0, 0, out)]


def test_occupancy_follows_from_the_visits() -> None:
    visits = recount.fold(
        [scan(0, party=3), scan(90_000, "check_out"), scan(30_000, visitor="q")], {}, 4 * HOUR, 2 * MINUTE
    )
    shown = recount.views(visits, {"v": 4}, 2 * MINUTE)
    assert shown["occupancy_minutes"] == {("v", 0, 4, 0, 4, 4), ("v", 60, 0, 3, 1, 4)}
    assert shown["occupancy_now"] == {("v", 1, 4, 0.25)}
    [hour] = shown["occupancy_hours"]
    assert hour == ("v", 0, 4, 3, (3 * 90_000 + HOUR - 30_000) / HOUR, 4, 0.0, (3 * 30_000 + 6 * MINUTE) / MINUTE)
    assert ("v", "15m", 120, 4, 2, 4, (3 * 90_000 + 90_000) / (15 * MINUTE), 1.5) in shown["rolling_occupancy"]


def visit(start: int, left: int, visitor: str = "p", venue: str = "v", party: int = 1) -> Visit:
    return Visit(venue, visitor, start, left, "check_out", party)


def test_a_venue_is_crowded_from_when_it_was_full_for_long_enough_until_it_was_not_for_long_enough() -> None:
    rules = {"warning": Crowding(1000, 5_000, 900, 5_000)}

    def crowded(*visits: Visit, as_of: int = HOUR) -> set[tuple[int, int | None, int]]:
        return {(row[3], row[4], row[5]) for row in recount.alerts(visits, {"v": 10}, rules, as_of)}

    assert crowded(visit(0, 60_000, party=10)) == {(5_000, 65_000, 10)}
    assert crowded(visit(0, 60_000, party=10), as_of=20_000) == {(5_000, None, 10)}
    assert crowded(visit(0, 60_000, party=9)) == set()
    assert crowded(visit(0, 5_000, party=10)) == {(5_000, 10_000, 0)}
    assert crowded(visit(0, 4_999, party=10)) == set()
    # Full in two steps, and emptied for too short a time in between.
    steps = visit(0, 60_000, party=6), visit(1_000, 30_000, "q", party=6), visit(34_000, 60_000, "r", party=6)
    assert crowded(*steps) == {(6_000, 65_000, 12)}
    [row] = recount.alerts([visit(0, 60_000, party=10)], {"v": 10, "w": 1}, rules, HOUR)
    # SHA-256("v|warning|5000").
    assert row[:3] == ("2241313ecba78b24", "v", "warning")


def test_exposures_are_pairs_of_overlapping_visits_in_the_infectious_window() -> None:
    case = Case("c", "p", 10_000, 50_000)
    visits = [
        *(visit(0, 20_000), visit(40_000, 60_000)),
        *(
            visit(5_000, 15_000, "q"),
            visit(20_000, 40_000, "r"),
            visit(45_000, 90_000, "s"),
            visit(0, 90_000, "t", "w"),
        ),
    ]
    assert recount.exposures(visits, [case]) == {("c", "q", "v", 10_000, 15_000), ("c", "s", "v", 45_000, 50_000)}
    other = Case("d", "q", 0, 90_000)
    assert recount.warnings(visits, [case, other]) == {("v", 5_000, 20_000, 2), ("v", 40_000, 50_000, 1)}
