"""`pipeline retention` as it is typed: it says what is too old, drops it with all that followed, and proves that it is gone."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.isolated import run_isolated
from tests.reference import DAY, HOUR, Scan, line_of

#: A Monday. `old` and `stays` are there on the first day and over midnight into the second; only `stays` and `new` much later.
MONDAY = 1_632_096_000_000
SCANS = [
    *(Scan("cafe", visitor, "check_in", MONDAY + 10 * HOUR, 1, f"a-{visitor}") for visitor in ("old", "stays")),
    *(Scan("cafe", visitor, "check_out", MONDAY + 11 * HOUR, 1, f"b-{visitor}") for visitor in ("old", "stays")),
    # Over the edge of the cut: the check-in on the second day changed nothing before it.
    Scan("club", "stays", "check_in", MONDAY + 23 * HOUR, 2, "c"),
    Scan("club", "stays", "check_in", MONDAY + 25 * HOUR, 2, "d"),
    Scan("club", "stays", "check_out", MONDAY + 26 * HOUR, 2, "e"),
    *(Scan("cafe", visitor, "check_in", MONDAY + 10 * DAY, 1, f"f-{visitor}") for visitor in ("stays", "new")),
    *(
        Scan("cafe", visitor, "check_out", MONDAY + 10 * DAY + 2 * HOUR, 1, f"g-{visitor}")
        for visitor in ("stays", "new")
    ),
]
CASES = [
    {"case_id": "c-old", "visitor_id": "old", "status": "confirmed", "reported_at": "2021-09-20T12:00:00Z",
     "infectious_from": "2021-09-20T00:00:00Z", "infectious_until": "2021-09-21T00:00:00Z"},
    {"case_id": "c-new", "visitor_id": "new", "status": "confirmed", "reported_at": "2021-09-30T12:00:00Z",
     "onset_date": "2021-09-30"},
]  # fmt: skip


def pipeline(folder: Path, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        env={**os.environ, "PIPELINE_HOME": str(folder), "PIPELINE_RETENTION": "P8D"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
def test_what_is_too_old_is_said_dropped_and_then_gone(tmp_path: Path) -> None:
    store, scans, cases = str(tmp_path / "store"), tmp_path / "scans.ndjson", tmp_path / "cases.ndjson"
    scans.write_bytes(b"\n".join(map(line_of, SCANS)))
    cases.write_text("\n".join(map(json.dumps, CASES)))
    pipeline(tmp_path, "replay", str(scans), "--store", store)
    pipeline(tmp_path, "case", "report", str(cases), "--store", store)

    def rows(sql: str) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for line in pipeline(tmp_path, "query", sql, "--format", "json", "--store", store).splitlines()
        ]

    assert [row["visitor_id"] for row in rows("SELECT DISTINCT visitor_id FROM exposures WHERE case_id = 'c-old'")] == [
        "stays"
    ]
    hours = rows("SELECT * FROM occupancy_hours ORDER BY venue_id, hour")
    # By event time the clock is the last scan; an hour of grace later the day of the edge is due.
    as_of = datetime.fromtimestamp((MONDAY + 10 * DAY + 2 * HOUR) / 1000, UTC).isoformat()
    said = pipeline(tmp_path, "retention", "check", "--store", store, "--as-of", as_of, status=1)
    assert "scan_set: 5 rows from before 2021-09-21T00:00:00.000Z, the oldest of 2021-09-20T10:00:00.000Z" in said
    assert "report_set: 1 rows" in said
    assert "scan_set: dropped" in pipeline(tmp_path, "retention", "apply", "--store", store)
    pipeline(tmp_path, "retention", "check", "--store", store, "--as-of", as_of)
    pipeline(tmp_path, "retention", "check", "--store", store)
    assert "nothing is older" in pipeline(tmp_path, "retention", "apply", "--store", store)
    pipeline(tmp_path, "verify", "--store", store)

    assert rows("SELECT count() AS n FROM scans") == [{"n": 6}]
    assert rows("SELECT case_id FROM cases") == [{"case_id": "c-new"}]
    assert rows("SELECT DISTINCT visitor_id FROM exposures") == [{"visitor_id": "stays"}]
    assert rows("SELECT count() AS n FROM visits WHERE visitor_id = 'old'") == [{"n": 0}]
    # What began at 23:00 goes; its second check-in begins a visit now.
    (night,) = rows("SELECT checked_in_at, left_at FROM visits WHERE venue_id = 'club'")
    assert (night["checked_in_at"], night["left_at"]) == ("2021-09-21 01:00:00.000", "2021-09-21 02:00:00.000")
    # Aggregates stay, those of the night as they were counted.
    assert rows("SELECT * FROM occupancy_hours ORDER BY venue_id, hour") == hours
    assert rows("SELECT scans_removed FROM retention") == [{"scans_removed": 5}]
    # Replayed, the old scans would come back: as duplicates they are not, so they are dropped again.
    pipeline(tmp_path, "replay", str(scans), "--store", store)
    pipeline(tmp_path, "retention", "check", "--store", store, "--as-of", as_of, status=1)
    pipeline(tmp_path, "retention", "apply", "--store", store)
    pipeline(tmp_path, "retention", "check", "--store", store, "--as-of", as_of)
    pipeline(tmp_path, "verify", "--store", store)


@pytest.mark.long
def test_no_warning_outlives_the_only_case(tmp_path: Path) -> None:
    store, scans, cases = str(tmp_path / "store"), tmp_path / "scans.ndjson", tmp_path / "cases.ndjson"
    # Over midnight: its warning ends, rounded up, a quarter of an hour after all that is known of the case goes.
    night = [Scan("bar", "old", kind, MONDAY + hour * HOUR) for kind, hour in (("check_in", 23), ("check_out", 25))]
    scans.write_bytes(b"\n".join(map(line_of, [*SCANS, *night])))
    cases.write_text(json.dumps(CASES[0] | {"policy": "nhs"}))
    pipeline(tmp_path, "replay", str(scans), "--store", store)
    pipeline(tmp_path, "case", "report", str(cases), "--store", store)
    warned = ("query", "SELECT venue_id, warn_until FROM venue_warnings ORDER BY warn_until", "--format", "csv")
    assert pipeline(tmp_path, *warned, "--store", store).splitlines()[1:] == [
        "cafe,2021-09-20 11:15:00.000",
        "bar,2021-09-21 00:15:00.000",
    ]
    as_of = datetime.fromtimestamp((MONDAY + 10 * DAY + 2 * HOUR) / 1000, UTC).isoformat()
    said = pipeline(tmp_path, "retention", "check", "--store", store, "--as-of", as_of, status=1)
    assert "warning_rows: 1 rows from before 2021-09-21T00:00:00.000Z, the oldest of 2021-09-20T11:15:00.000Z" in said
    pipeline(tmp_path, "retention", "apply", "--store", store)
    assert pipeline(tmp_path, *warned, "--store", store).splitlines()[1:] == []
    pipeline(tmp_path, "retention", "check", "--store", store, "--as-of", as_of)
    pipeline(tmp_path, "verify", "--store", store)


def look(folder: str) -> list[Any]:
    """In an interpreter of its own: which corrections and dead letters are overdue, before and after a cut, and what it left."""
    from pipeline.settings import Settings
    from pipeline.store import retention
    from pipeline.store.client import open_store

    client = open_store(Settings(store=Path(folder)))
    client.command(
        "INSERT INTO scan_set (venue_id, visitor_id, occurred_at) "
        f"SELECT 'cafe', 'stays', fromUnixTimestamp64Milli(toInt64({MONDAY + 9 * DAY}), 'UTC')"
    )
    for table in ("repair_rows", "asked_rows"):
        # Made, of somebody of whom nothing else is kept, and of another; and one that waits for a scan that is being stored.
        for visitor, version, made in (
            ("gone", 1, 0),
            ("gone", 2, 1),
            ("stays", 1, 0),
            ("stays", 2, 1),
            ("waits", 3, 0),
        ):
            client.command(f"INSERT INTO {table} VALUES ('cafe', '{visitor}', {version}, {made})")
    for offset, day in ((0, 0), (1, 9)):
        client.command(
            "INSERT INTO dead_letter_rows (topic, offset, sha256, received_at) "
            f"SELECT 't', {offset}, 'hash', fromUnixTimestamp64Milli(toInt64({MONDAY + day * DAY}), 'UTC')"
        )
    bounds = retention.bounds_of(MONDAY + 10 * DAY, 8 * DAY)

    def overdue() -> list[tuple[str, int]]:
        return sorted((each.table, each.rows) for each in retention.overdue(client, bounds))

    before = overdue()
    retention.cut(client, bounds)
    waiting = [
        client.query(f"SELECT DISTINCT visitor_id FROM {table}").result_rows for table in ("repair_rows", "asked_rows")
    ]
    letters = client.query("SELECT offset, sha256 FROM dead_letters ORDER BY offset").result_rows
    return [before, overdue(), waiting, letters]


def test_corrections_that_are_made_and_hashes_of_what_was_refused_are_kept_no_longer_than_the_rest(
    tmp_path: Path,
) -> None:
    before, after, waiting, letters = run_isolated(look, str(tmp_path))
    # With the row that asked for it.
    assert [table for table, _ in before] == ["asked_rows", "dead_letter_rows", "repair_rows"]
    assert after == []
    assert waiting == [[("waits",)], [("waits",)]]
    assert letters == [(0, ""), (1, "hash")]
