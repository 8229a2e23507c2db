"""A visitor is erased: from every view at once, from every file of the store, and for good."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.isolated import run_isolated
from tests.reference import DAY, HOUR, Scan, line_of
from tests.waiting import wait_until

#: A Monday; the visitor `erased-one` was at both venues, was a case, and was exposed by another.
MONDAY = 1_632_096_000_000
GONE = "erased-one-0123456789"
SCANS = [
    Scan(venue, visitor, kind, MONDAY + day * DAY + hour * HOUR + i, 1 + i % 2, f"{kind}-{day}-{i}")
    for day in (0, 2)
    for venue in ("museum", "cafe")
    for i, visitor in enumerate((GONE, "stays", "other"))
    for kind, hour in (("check_in", 9 + i), ("check_out", 12 + i))
]
CASES = [
    {
        "case_id": name,
        "visitor_id": visitor,
        "status": "confirmed",
        "reported_at": "2021-09-23T00:00:00Z",
        "onset_date": "2021-09-20",
    }
    for name, visitor in (("c-gone", GONE), ("c-stays", "stays"))
]


#: As workers among others note it; an odd version is of a telling that is under way.
TOLD = [
    ("exposures", "c-gone", 4),
    ("exposures/7", "c-gone", 4),
    ("exposures/7", "c-stays", 4),
    ("telling/exposures/7", "c-gone", 7),
    ("telling/exposures/7", "c-stays", 7),
    ("telling/venue-warnings/7", "cafe", 7),
]


def fill(folder: str, scans: list[Scan], reports: list[dict[str, str]]) -> dict[str, int]:
    """In an interpreter of its own: feed scans as a topic has them; returns the counters."""
    from pipeline.engine import open_engine
    from pipeline.settings import Settings
    from pipeline.tracing.replayed import trace_all

    settings = Settings(home=Path(folder), store=Path(folder) / "store")
    engine = open_engine(settings, clock="events")
    offset = engine.assign("t", [0])[0] or 0
    lines = [line_of(scan) for scan in scans]
    engine.process("t", 0, range(offset, offset + len(lines)), [0] * len(lines), lines)
    engine.settle()
    counters = dict(engine.counters())
    engine.close()
    trace_all(settings, [json.dumps(case).encode() for case in reports])
    return counters


def shown(folder: str, scans: list[Scan], checked: bool) -> dict[str, Any]:
    """In an interpreter of its own: differences to a world of these scans, and what verify and the views say of the erased."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from pipeline.store.verify import verify
    from pipeline.tracing.verify import verify_tracing
    from tests.reference import expected_views
    from tests.views import differences, read_views

    settings = Settings(home=Path(folder), store=Path(folder) / "store")
    client = open_store(settings, read_only=True)
    as_of = max(scan.occurred_at_ms for scan in SCANS)
    checks = [*verify(client, settings).checks, *verify_tracing(client, settings)] if checked else []
    return {
        "differences": differences(read_views(client), expected_views(scans, {}, {}, as_of)),
        "wrong": [(check.name, check.examples) for check in checks if not check.ok],
        "cases": [row[0] for row in client.query("SELECT case_id FROM cases ORDER BY case_id").result_rows],
        "exposed": client.query("SELECT count() FROM exposures").result_rows[0][0],
    }


def only_case_erased(folder: str) -> dict[str, Any]:
    """In an interpreter of its own: erase who was the only case; the warnings before and after, and what verify says of both: of
    the store as it is then, and of one in which a warning stands still.
    """
    from pipeline.erasure import erase
    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from pipeline.tracing.verify import verify_tracing

    settings = Settings(home=Path(folder), store=Path(folder) / "store")
    client = open_store(settings)

    def warned() -> int:
        return int(client.query("SELECT count() FROM venue_warnings").result_rows[0][0])

    before = warned()
    erase(settings, GONE)
    after, checked = warned(), verify_tracing(client, settings)
    client.command("INSERT INTO warning_rows VALUES ('cafe', 'who', 1632128400, 1632132000, 1, 9, 0, 1)")
    spoilt = verify_tracing(client, settings)
    return {
        "warned": (before, after),
        "differences": [[(check.name, check.differences) for check in checks] for checks in (checked, spoilt)],
    }


def asked_again(folder: str) -> list[bool | None]:
    """In an interpreter of its own: whether the disk is rid of the visitor, as who asks again is told; None: to be erased anew.

    Before the erasure, right after it, when ClickHouse has taken away what it replaced and then replaces others' rows, and once
    something of the visitor has come back.
    """
    from pipeline.engine import open_engine
    from pipeline.erasure import erased_already
    from pipeline.settings import Settings
    from pipeline.store.client import connect_further
    from pipeline.store.erasure import hurry

    settings = Settings(home=Path(folder), store=Path(folder) / "store")
    engine = open_engine(settings, clock="events")
    engine.assign("t", [0])
    client = connect_further(settings)

    def rid() -> bool | None:
        receipt = erased_already(settings, GONE)
        return None if receipt is None else receipt.off_the_disk

    found = [rid()]
    engine.erase(GONE)
    found.append(rid())
    hurry(client, on=True)
    wait_until(lambda: bool(rid()))
    hurry(client, on=False)
    client.command("OPTIMIZE TABLE visit_rows FINAL SETTINGS optimize_skip_merged_partitions = 0")
    assert client.query("SELECT count() FROM system.parts WHERE table = 'visit_rows' AND NOT active").result_rows[0][0]
    found.append(rid())
    client.command(f"INSERT INTO visit_rows SELECT * REPLACE('{GONE}' AS visitor_id) FROM visit_rows LIMIT 1")
    found.append(rid())
    engine.close()
    return found


def told_of_cases(folder: str) -> list[Any]:
    """In an interpreter of its own: of what it is noted that somebody told of it: before the erasure, after it, when a telling
    that was under way has ended, what retention says of that, and once it has looked.
    """
    from pipeline.engine import open_engine
    from pipeline.settings import Settings
    from pipeline.store import retention
    from pipeline.store.client import connect_further

    settings = Settings(home=Path(folder), store=Path(folder) / "store")
    engine = open_engine(settings, clock="events")
    engine.assign("t", [0])
    client = connect_further(settings)

    def noted() -> list[tuple[str, str]]:
        rows = client.query("SELECT DISTINCT topic, key FROM published_rows ORDER BY ALL").result_rows
        return [(str(topic), str(key)) for topic, key in rows]

    for topic, key, version in TOLD:
        client.command(f"INSERT INTO published_rows VALUES ('{topic}', '{key}', {version})")
    found: list[Any] = [noted()]
    engine.erase(GONE)
    found.append(noted())
    client.command("INSERT INTO published_rows VALUES ('telling/exposures/7', 'c-gone', 8)")
    found.append(noted())
    bounds = retention.Bounds(0, 0)
    found.append([(each.table, each.rows) for each in retention.overdue(client, bounds)])
    retention.cut(client, bounds)
    found.append(noted())
    return found


def detached(folder: str) -> list[int]:
    """In an interpreter of its own: parts that may hold rows of the erased, while one is detached, and once it is dropped."""
    from pipeline.engine import open_engine
    from pipeline.settings import Settings
    from pipeline.store.client import connect_further
    from pipeline.store.erasure import on_disk

    settings = Settings(home=Path(folder), store=Path(folder) / "store")
    engine = open_engine(settings, clock="events")
    engine.assign("t", [0])
    client = connect_further(settings)
    # Nothing is cleared away by the engine meanwhile.
    client.command("ALTER TABLE visit_rows MODIFY SETTING old_parts_lifetime = 86400")

    def part_of(day: str) -> None:
        client.command(
            f"INSERT INTO visit_rows (venue_id, visitor_id, checked_in_at) VALUES ('v', '{GONE}', '{day} 09:00:00')"
        )
        client.command(f"ALTER TABLE visit_rows DETACH PARTITION '{day}'")

    part_of("2021-01-01")
    engine.erase(GONE)
    found = [on_disk(client, GONE)]
    client.command("ALTER TABLE visit_rows DROP DETACHED PARTITION '2021-01-01' SETTINGS allow_drop_detached = 1")
    found.append(on_disk(client, GONE))
    return found


def lifetimes(folder: str) -> dict[str, int]:
    """In an interpreter of its own: for how long, in seconds, ClickHouse keeps parts that are replaced."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    rows = (
        open_store(Settings(store=Path(folder))).query("SELECT name, value FROM system.merge_tree_settings").result_rows
    )
    names = ("old_parts_lifetime", "max_cleanup_delay_period", "cleanup_delay_period_random_add")
    return {name: int(value) for name, value in rows if name in names}


def files_with(folder: Path, text: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.long
def test_an_erased_visitor_is_in_no_view_and_no_file_and_does_not_come_back(tmp_path: Path) -> None:
    run_isolated(fill, str(tmp_path), SCANS, CASES)
    assert files_with(tmp_path, GONE)
    others = [scan for scan in SCANS if scan.visitor_id != GONE]
    command = [sys.executable, "-m", "pipeline", "erase", GONE, "--store", str(tmp_path / "store")]
    done = subprocess.run(
        command,
        env={**os.environ, "PIPELINE_HOME": str(tmp_path), "PIPELINE_PURPOSES": '["legal-request"]'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    assert (receipt["scans"], receipt["off_the_disk"]) == (8, True)
    found = run_isolated(shown, str(tmp_path), others, False)
    assert found["differences"] == ""
    assert found["cases"] == ["c-stays"]
    assert found["exposed"] > 0
    assert files_with(tmp_path, GONE) == []
    # The topic is read anew, and the visitor goes on scanning.
    later = [*SCANS, Scan("cafe", GONE, "check_in", MONDAY + 2 * DAY + 13 * HOUR)]
    counters = run_isolated(fill, str(tmp_path), later, CASES)
    assert (counters["stored"], counters["duplicates"]) == (24, 25)
    again = run_isolated(shown, str(tmp_path), others, True)
    assert (again["differences"], again["wrong"], again["cases"]) == ("", [], ["c-stays"])
    assert files_with(tmp_path, GONE) == []


@pytest.mark.long
def test_no_warning_outlives_the_erasure_of_the_only_case_and_verify_would_tell(tmp_path: Path) -> None:
    run_isolated(fill, str(tmp_path), SCANS, CASES[:1])
    found = run_isolated(only_case_erased, str(tmp_path))
    assert found == {"warned": (4, 0), "differences": [[("venue_warnings", 0)], [("venue_warnings", 1)]]}


@pytest.mark.long
def test_who_asks_again_is_told_whether_the_disk_is_rid_of_the_visitor_whatever_else_is_replaced(
    tmp_path: Path,
) -> None:
    run_isolated(fill, str(tmp_path), SCANS, CASES)
    assert run_isolated(asked_again, str(tmp_path)) == [None, False, True, None]


def test_what_is_noted_of_telling_of_an_erased_case_goes_whoever_told_it(tmp_path: Path) -> None:
    run_isolated(fill, str(tmp_path), SCANS, CASES)
    everything = sorted({(topic, key) for topic, key, _ in TOLD})
    left = [(topic, key) for topic, key in everything if key != "c-gone"]
    late = sorted([*left, ("telling/exposures/7", "c-gone")])
    found = run_isolated(told_of_cases, str(tmp_path))
    assert found == [everything, left, late, [("published_rows", 1)], left]


@pytest.mark.long
def test_a_detached_part_is_not_off_the_disk(tmp_path: Path) -> None:
    run_isolated(fill, str(tmp_path), SCANS, CASES)
    while_detached, after = run_isolated(detached, str(tmp_path))
    assert while_detached - after == 1


def test_clickhouse_keeps_replaced_parts_for_less_than_an_hour_where_nobody_says_otherwise(tmp_path: Path) -> None:
    found = run_isolated(lifetimes, str(tmp_path))
    assert len(found) == 3
    assert 2 * sum(found.values()) < 3_600
