"""`pipeline case report --store` and `pipeline trace` on a store of a few visits: what an epidemiologist reads and exports."""

import csv
import io
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.isolated import run_isolated

_ROOT = Path(__file__).resolve().parents[2]
_EARLIER = "2021-09-18 09:00"

#: (venue, visitor, check-in, left, ended). `ill` met two others on the 20th, and was met by `first` on the 18th.
VISITS = [
    ("cafe", "ill", "2021-09-20 10:00", "2021-09-20 11:00", "check_out"),
    ("cafe", "long", "2021-09-20 10:10", "2021-09-20 10:50", "check_out"),
    ("cafe", "short", "2021-09-20 10:55", "2021-09-20 12:00", "check_out"),
    ("cafe", "unsure", "2021-09-20 10:30", "2021-09-20 14:30", "expired"),
    ("office", "ill", _EARLIER, "2021-09-18 17:00", "check_out"),
    ("office", "first", "2021-09-18 10:00", "2021-09-18 12:00", "check_out"),
    ("office", "second", "2021-09-18 10:00", "2021-09-18 12:00", "check_out"),
]


def make_store(folder: str) -> None:
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    client = open_store(Settings(store=Path(folder)))
    rows = ", ".join(f"('{v}', '{p}', '{a}:00', '{b}:00', '{e}', 1, 1, 0)" for v, p, a, b, e in VISITS)
    client.command(f"INSERT INTO visit_rows VALUES {rows}")
    client.command(
        "INSERT INTO registry_rows (venue_id, name, category, floor_area_m2, air_changes_per_hour, version, is_deleted) "
        "VALUES ('cafe', '=HYPERLINK(1)', 'restaurant', 100, 3, 1, 0), ('office', 'Office', 'office', NULL, NULL, 1, 0)"
    )


def spoil_exposures(folder: str) -> None:
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    client = open_store(Settings(store=Path(folder)))
    client.command(
        "INSERT INTO exposure_rows SELECT * REPLACE (version + 1 AS version, 1 AS is_deleted) FROM exposure_rows FINAL"
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    run_isolated(make_store, str(folder))
    return folder


def pipeline(folder: Path, *words: str, status: int = 0, **settings: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pipeline", *words]
    environment = {"PYTHONPATH": str(_ROOT), "PATH": "", **settings}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def noted(folder: Path, action: str) -> list[tuple[str | None, int | None]]:
    """The case and the number of persons of each entry of the audit log with this action."""
    entries = map(json.loads, (folder / ".pipeline" / "audit.jsonl").read_text().splitlines())
    return [(each["case"], each["persons"]) for each in entries if each["action"] == action]


def write_reports(folder: Path, *reports: dict[str, str]) -> str:
    path = folder / "cases.ndjson"
    known = {"status": "confirmed", "reported_at": "2021-09-22T09:00:00Z"}
    path.write_text("".join(json.dumps({**known, **report}) + "\n" for report in reports))
    return str(path)


def test_a_case_is_reported_traced_read_and_exported(store: Path, tmp_path: Path) -> None:
    file = write_reports(
        tmp_path,
        {"case_id": "c", "visitor_id": "ill", "onset_date": "2021-09-22"},
        {"case_id": "source", "visitor_id": "first", "onset_date": "2021-09-18"},
        {"case_id": "ghost", "visitor_id": "nobody"},
    )
    place = ("--store", str(store))
    done = pipeline(tmp_path, "case", "report", file, *place)
    assert "3 reports into the store" in done.stdout
    assert "case ghost has no visit yet" in done.stderr
    assert noted(tmp_path, "reports") == [("c", 1), ("source", 1), ("ghost", 1)]

    text = pipeline(tmp_path, "trace", "c", *place).stdout
    assert "case c, confirmed, reported 2021-09-22T09:00:00.000Z" in text
    assert "infectious from 2021-09-20 00:00 until 2021-10-06 00:00" in text
    assert "2021-09-20 10:00 – 2021-09-20 11:00          cafe  (infected and infectious)" in text
    # 40 minutes; 30 of the hour expected of a restaurant, none at the least; 5.
    exposed, below = (line for line in text.splitlines() if line.startswith(("  exposed", "  below")))
    assert exposed.split() == ["exposed", "2", "2", "1", "2", "1"]
    assert below.split() == ["below", "1", "1", "2", "1", "1"]
    assert "source at office: 120 min (120–120), exposed" in text
    assert "2021-09-18 10:00 – 2021-09-18 12:00  office: 2 cases (c source) of 3 persons; 1 infectious later" in text
    assert "close contact" not in text
    # Where `source` was is told, too: who looks for its entries finds this one.
    assert noted(tmp_path, "trace") == [("c", 1)]
    assert noted(tmp_path, "told by trace") == [("source", 1)]

    rows = list(csv.DictReader(io.StringIO(pipeline(tmp_path, "trace", "c", "--format", "csv", *place).stdout)))
    assert {row["visitor_id"]: (row["tier"], row["tier_basis"]) for row in rows} == {
        "long": ("exposed", "exact"),
        "unsure": ("exposed", "expected"),
        "short": ("below", "exact"),
    }
    lines = pipeline(tmp_path, "trace", "c", "--format", "json", *place).stdout.splitlines()
    assert sorted(json.loads(line)["exposure_id"] for line in lines) == sorted(row["exposure_id"] for row in rows)
    pipeline(tmp_path, "trace", "c", "--format", "parquet", "--output", "c.parquet", *place)
    assert pq.read_table(tmp_path / "c.parquet").num_rows == 3
    for words in (("c",), ("c", "--queue", "1"), ("--venues",)):
        pipeline(tmp_path, "trace", *words, "--output", "told", *place)
        assert stat.S_IMODE((tmp_path / "told").stat().st_mode) == 0o600
        (tmp_path / "told").unlink()
    assert stat.S_IMODE((tmp_path / "c.parquet").stat().st_mode) == 0o600

    queue = pipeline(tmp_path, "trace", "c", "--queue", "1", "--format", "csv", *place)
    assert [row["visitor_id"] for row in csv.DictReader(io.StringIO(queue.stdout))] == ["long"]
    assert "1 more exposed visitors are beyond today's 1 calls" in queue.stderr
    venues = list(
        csv.DictReader(io.StringIO(pipeline(tmp_path, "trace", "--venues", "--format", "csv", *place).stdout))
    )
    assert {row["venue_id"]: (row["name"], row["cases"]) for row in venues} == {
        "cafe": ("'=HYPERLINK(1)", "1"),
        "office": ("Office", "1"),
    }

    pipeline(tmp_path, "trace", "c", "--venues", *place)
    assert noted(tmp_path, "trace --venues") == [(None, 2), (None, 2), ("c", 1)]  # `ghost` was nowhere
    warnings = pipeline(
        tmp_path, "query", "SELECT venue_id FROM venue_warnings ORDER BY ALL", "--format", "csv", *place
    )
    assert warnings.stdout.split()[1:] == ["cafe", "office"]
    assert noted(tmp_path, "query") == [(None, None)]

    pipeline(tmp_path, "verify", *place, status=1)  # there are no scans behind these visits …
    checked = pipeline(tmp_path, "verify", *place, status=1).stdout
    assert "exposures                            5 rows   equal" in checked  # … but exposures follow from the visits
    assert "venue_warnings" in checked
    # Each of the visits that it showed is somebody's; sums of persons would be nobody's.
    assert noted(tmp_path, "verify") == [(None, 5), (None, 5)]
    assert noted(tmp_path, "told by verify") == []
    run_isolated(spoil_exposures, str(store))
    shown = pipeline(tmp_path, "verify", *place, status=1).stdout
    assert re.search("^    c cafe .*stored None, recomputed", shown, re.MULTILINE)
    assert noted(tmp_path, "verify")[2:] == [(None, 5 + 2 * 5)]
    assert noted(tmp_path, "told by verify") == [("c", 1), ("source", 1)]
    (tmp_path / ".pipeline" / "audit.jsonl").write_text("not an entry\n")
    refused = pipeline(tmp_path, "verify", *place, status=1)
    assert "cafe" not in refused.stdout + refused.stderr


@pytest.mark.long
def test_a_withdrawn_case_has_no_exposures(store: Path, tmp_path: Path) -> None:
    place = ("--store", str(store))
    words = ("case", "report", "--case", "c", "--visitor", "ill", "--reported")
    pipeline(tmp_path, *words, "2021-09-22T09:00:00Z", "--onset", "2021-09-22", *place)
    pipeline(tmp_path, *words, "2021-09-23T09:00:00Z", "--status", "withdrawn", *place)
    # An older report changes nothing, however late it comes.
    pipeline(tmp_path, *words, "2021-09-22T08:00:00Z", *place)
    text = pipeline(tmp_path, "trace", "c", *place).stdout
    assert "nothing follows from it" in text
    assert (
        pipeline(tmp_path, "query", "SELECT count() FROM exposures", "--format", "csv", *place).stdout.split()[1] == "0"
    )


def test_what_cannot_be_answered_is_said_in_a_sentence(store: Path, tmp_path: Path) -> None:
    place = ("--store", str(store))
    assert "there is no case c in the store" in pipeline(tmp_path, "trace", "c", *place, status=1).stderr
    assert "Name a CASE" in pipeline(tmp_path, "trace", *place, status=2).stderr
    bad = write_reports(tmp_path, {"case_id": "c", "visitor_id": "ill", "onset_date": "2021-10-01"}, {"case_id": "d"})
    done = pipeline(tmp_path, "case", "report", bad, *place, status=1)
    assert "line 1: onset_date: is after the day of the report" in done.stderr
    assert "line 2: visitor_id: is missing" in done.stderr
    assert "2 of 2 lines are refused, so nothing was sent" in done.stderr


@pytest.mark.long
def test_where_two_must_agree_a_command_reports_what_takes_nothing_back(store: Path, tmp_path: Path) -> None:
    def report(visitor: str, reported: str, status: int = 0) -> str:
        words = ("--case", "c", "--visitor", visitor, "--onset", "2021-09-22", "--reported", reported)
        two = {"PIPELINE_CLOSING_BY_SECOND_PERSON": "true"}
        return pipeline(tmp_path, "case", "report", *words, "--store", str(store), status=status, **two).stderr

    def exposed() -> list[str]:
        sql = "SELECT DISTINCT visitor_id FROM exposures ORDER BY ALL"
        return pipeline(tmp_path, "query", sql, "--format", "csv", "--store", str(store)).stdout.split()[1:]

    report("ill", "2021-09-22T09:00:00Z")
    before = exposed()
    assert before == ["long", "short", "unsure"]
    said = report("nobody", "2021-09-23T09:00:00Z", status=1)
    assert "1 reports would take back exposures by one person (c)" in said
    report("ill", "2021-09-24T09:00:00Z")
    assert exposed() == before
    assert noted(tmp_path, "asks to change") == [("c", 1)]
    assert noted(tmp_path, "reports") == [("c", 1), ("c", 1)]


@pytest.mark.long
def test_how_people_mixed_at_a_venue_is_told_by_hour_and_by_rolling_window(store: Path, tmp_path: Path) -> None:
    def told(*words: str) -> dict[str, dict[str, str]]:
        done = pipeline(tmp_path, "trace", "--mixing", "cafe", *words, "--format", "csv", "--store", str(store))
        return {row["window_start"][11:16]: row for row in csv.DictReader(io.StringIO(done.stdout))}

    hours = told("--day", "2021-09-20")
    assert noted(tmp_path, "trace --mixing") == [(None, 4)]
    # From ten to eleven: `ill` 60 min, `long` 40, `short` 5, `unsure` 30, the last of them and `long` together 20.
    assert {name: hours["10:00"][name] for name in ("persons", "pairs", "pairs_low", "pairs_high")} == {
        "persons": "4",
        "pairs": "3",
        "pairs_low": "1",
        "pairs_high": "3",
    }
    assert float(hours["10:00"]["person_contact_minutes"]) == 40 + 30 + 20 + 5 + 5
    assert float(hours["10:00"]["mixing_rate"]) == 0.5
    # `unsure` is expected to stay until half past eleven; alone from noon on, it can mix with nobody.
    assert (hours["11:00"]["pairs"], hours["11:00"]["pairs_low"]) == ("1", "0")
    assert (hours["12:00"]["persons"], hours["12:00"]["mixing_rate"]) == ("1", "")
    assert "15:00" not in hours

    rolling = told("--day", "2021-09-20", "--window", "15", "--every", "5")
    assert [rolling[at]["pairs"] for at in ("10:05", "10:10", "10:15", "10:30", "10:35", "10:40")] == list("011331")
    assert (
        "venue cafe has no visit on 2021-09-25"
        in pipeline(
            tmp_path, "trace", "--mixing", "cafe", "--day", "2021-09-25", "--store", str(store), status=1
        ).stderr
    )
