"""`pipeline export`: what is in the store comes out whole, a range at its bounds, and nobody's rows by accident."""

import csv
import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline.export import VIEWS
from tests.isolated import run_isolated

#: When each warning begins and of how many cases it is; the last is after the range.
WARNINGS = {"2021-09-18 11:00:00": 1, "2021-09-19 10:00:00": 2, "2021-09-21 10:00:00": 4}
DAYS = ("2021-09-18", "2021-09-19", "2021-09-21")
RANGE = ("--since", "2021-09-18T10:30:00Z", "--until", "2021-09-21T10:00:00Z")


def exported(folder: str) -> dict[str, Any]:
    """A store with a visit at ten on three days, then exports of it with what the command said, and the store's own rows."""
    import pyarrow.parquet
    from click.testing import CliRunner

    from pipeline.audit import AuditLog
    from pipeline.commands import export, replay
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    home, store = Path(folder), str(Path(folder, "store"))
    (home / "venues.csv").write_text("venue_id,name,category,capacity\nmall-1,=1+1,mall,10\n")
    scans = [
        {
            "event_id": f"{day}-{kind}",
            "event_type": kind,
            "venue_id": "mall-1",
            "visitor_id": "somebody",
            "occurred_at": f"{day}T{clock}:00Z",
        }
        for day in DAYS
        for kind, clock in (("check_in", "10:00"), ("check_out", "10:45"))
    ]
    (home / "scans.ndjson").write_text("".join(json.dumps(scan) + "\n" for scan in scans))
    run = CliRunner().invoke
    loaded = run(replay.command, [str(home / "scans.ndjson"), "--venues", str(home / "venues.csv"), "--store", store])
    assert loaded.exception is None, loaded.output

    writer = open_store(Settings(store=Path(store)))
    for warn_from, cases in WARNINGS.items():
        writer.command(
            "INSERT INTO warning_rows (venue_id, policy, warn_from, warn_until, case_count, version, is_deleted) "
            f"VALUES ('mall-1', 'who', '{warn_from}', '2021-09-22 00:00:00', {cases}, 1, 0)"
        )

    def ask(*arguments: str) -> tuple[int, str]:
        environment = {"PIPELINE_AUDIT_LOG": str(home / "audit.jsonl")}
        done = run(export.command, [*arguments, "--store", store], env=environment)
        return done.exit_code, f"{done.output}{done.exception or ''}"

    said = {
        "all": ask("--out", str(home / "all")),
        "refused": ask("visits", "occupancy_hours", "--out", str(home / "refused")),
        "persons": ask("visits", "--persons", "--out", str(home / "persons")),
        "warnings refused": ask("venue_warnings", "--out", str(home / "refused")),
        "warnings": ask("venue_warnings", "--persons", *RANGE, "--out", str(home / "persons")),
        "unknown": ask("visitors"),
        "empty": ask("visits", "--persons", "--since", "2022-01-01T00:00:00Z", "--until", "2021-01-01T00:00:00Z"),
        "nothing": ask("occupancy_hours", "--until", "2020-01-01T00:00:00Z", "--out", str(home / "nothing")),
        "nothing in Parquet": ask(
            "crowding_alerts", "--until", "2020-01-01T00:00:00Z", "--format", "parquet", "--out", str(home / "nothing")
        ),
        **{
            form: ask("occupancy_minutes", *RANGE, "--format", form, "--out", str(home / "range"))
            for form in ("csv", "json", "parquet")
        },
    }
    client = open_store(Settings(store=Path(store)), read_only=True)
    minutes = client.query("SELECT toString(minute), occupancy FROM occupancy_minutes ORDER BY minute").result_rows
    views = {
        name: [row[0] for row in client.query(f"DESCRIBE TABLE {name}").result_rows]
        for (name,) in client.query(
            "SELECT name FROM system.tables WHERE database = 'checkins' AND engine = 'View'"
        ).result_rows
    }
    parquet = pyarrow.parquet.read_table(home / "range" / "occupancy_minutes.parquet").to_pylist()
    nothing = pyarrow.parquet.read_table(home / "nothing" / "crowding_alerts.parquet")
    return {
        "said": said,
        "minutes": minutes,
        "views": views,
        "parquet": [(f"{row['minute']:%F %T}", row["occupancy"]) for row in parquet],
        "nothing": (nothing.column_names, nothing.num_rows),
        "noted": [
            (entry["action"], entry["purpose"], entry["persons"]) for entry in AuditLog(home / "audit.jsonl").entries()
        ],
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def found(home: Path) -> dict[str, Any]:
    answer: dict[str, Any] = run_isolated(exported, str(home))
    return answer


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_view_can_be_exported_and_a_range_is_about_a_column_that_it_has(found: dict[str, Any]) -> None:
    assert found["views"].keys() == VIEWS.keys()
    for name, view in VIEWS.items():
        assert view.time is None or view.time in found["views"][name]
        # Whoever adds a view with pseudonyms, or about cases, must say so.
        about = {"visitor_id", "case_id", "case_count"} & set(found["views"][name])
        assert bool(view.persons) == bool(about), name


def test_without_a_view_all_are_written_but_those_about_persons(home: Path, found: dict[str, Any]) -> None:
    status, said = found["said"]["all"]
    assert status == 0, said
    written = {path.name for path in (home / "all").iterdir()}
    assert written == {f"{name}.csv" for name, view in VIEWS.items() if not view.persons}
    assert "somebody" not in "".join(path.read_text() for path in (home / "all").iterdir())
    for name, view in VIEWS.items():
        if not view.persons:
            mode = stat.S_IMODE((home / "all" / f"{name}.csv").stat().st_mode)
            assert (mode == 0o600) == view.small, name
    assert re.search(r"occupancy_minutes.*numbers down to single persons.*released_suppressed", said)
    assert rows_of(home / "all" / "venues.csv")[0]["name"] == "'=1+1"
    assert re.search(rf"occupancy_minutes.csv  {len(found['minutes'])} rows", said)


def test_persons_come_out_only_when_asked_for_and_for_their_owner_only(home: Path, found: dict[str, Any]) -> None:
    status, said = found["said"]["refused"]
    assert status == 1
    assert "visits: every row names a visitor by a pseudonym" in said
    assert "--persons" in said
    assert not (home / "refused").exists()
    assert found["said"]["persons"][0] == 0
    path = home / "persons" / "visits.csv"
    assert [row["visitor_id"] for row in rows_of(path)] == ["somebody"] * len(DAYS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_warnings_are_about_persons_and_an_export_notes_of_how_many_at_most(home: Path, found: dict[str, Any]) -> None:
    status, said = found["said"]["warnings refused"]
    assert status == 1
    assert "--persons" in said
    assert found["said"]["warnings"][0] == 0, found["said"]["warnings"]
    path = home / "persons" / "venue_warnings.csv"
    assert [row["case_count"] for row in rows_of(path)] == ["1", "2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert found["noted"] == [("export visits", "unstated", 1), ("export venue_warnings", "unstated", 3)]


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_a_range_is_half_open_and_over_days_without_a_row(home: Path, found: dict[str, Any], form: str) -> None:
    assert found["said"][form][0] == 0, found["said"][form]
    wanted = [
        (minute, count) for minute, count in found["minutes"] if "2021-09-18 10:30" <= minute < "2021-09-21 10:00"
    ]
    assert [minute for minute, _ in wanted] == ["2021-09-18 10:45:00", "2021-09-19 10:00:00", "2021-09-19 10:45:00"]
    if form == "parquet":
        assert found["parquet"] == wanted
    elif form == "csv":
        rows = rows_of(home / "range" / "occupancy_minutes.csv")
        assert [(row["minute"], int(row["occupancy"])) for row in rows] == wanted
    else:
        lines = (home / "range" / "occupancy_minutes.ndjson").read_text().splitlines()
        assert [(row["minute"], row["occupancy"]) for row in map(json.loads, lines)] == wanted
    assert "3 rows" in found["said"][form][1]


def test_nothing_is_a_file_with_the_columns_and_no_row(home: Path, found: dict[str, Any]) -> None:
    assert rows_of(home / "nothing" / "occupancy_hours.csv") == []
    assert (home / "nothing" / "occupancy_hours.csv").read_text().startswith("venue_id,hour,")
    assert found["nothing"] == (found["views"]["crowding_alerts"], 0)


def test_what_makes_no_sense_is_said_in_a_sentence(found: dict[str, Any]) -> None:
    status, said = found["said"]["unknown"]
    assert status == 2
    assert "occupancy_hours" in said
    status, said = found["said"]["empty"]
    assert status == 2
    assert "give a --since before --until" in said


def test_help_names_every_view() -> None:
    from pipeline.commands.export import command

    assert command.help is not None
    assert set(VIEWS) <= set(re.findall(r"\w+", command.help))
