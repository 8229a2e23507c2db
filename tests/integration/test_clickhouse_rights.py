"""The rights of a ClickHouse server's users, enforced by the engine: enough for what each is there for, and for nothing else."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.clickhouse_rights import open_with_rights, write_rights
from tests.faults.world import Process, World
from tests.integration.test_trace import make_store
from tests.isolated import run_isolated
from tests.over_http import answered, asked_by
from tests.waiting import wait_until

AGGREGATES = {
    *("venues", "clock", "accounting", "occupancy_now", "rolling_occupancy", "occupancy_minutes", "occupancy_hours"),
    *("crowding_alerts", "undercounts", "model_checks", "retention"),
    *("released_suppressed", "released_private", "privacy_budget"),
}
PERSONS = {"scans", "visits", "cases", "exposures", "venue_warnings"}
OF_CASES = {"cases", "exposures", "venue_warnings"}
BOARDS = AGGREGATES - {
    *("undercounts", "model_checks", "retention"),
    *("released_suppressed", "released_private", "privacy_budget"),
}

#: Who may read which of the views.
READS = {
    "checkins_worker": AGGREGATES | PERSONS | {"dead_letters"},
    "checkins_api": AGGREGATES | OF_CASES,
    "checkins_trace": AGGREGATES | OF_CASES | {"visits"},
    "checkins_dashboards": AGGREGATES,
    "grafana": BOARDS | {"dead_letters"},
    "grafana_tracing": BOARDS | {"dead_letters"} | OF_CASES,
}

#: What no user of ours may do, and what readers may not.
NOBODY = (
    "CREATE USER mine",
    "CREATE ROLE mine",
    "GRANT SELECT ON checkins.scans TO default",
    "CREATE DATABASE mine",
    "CREATE TABLE default.mine (a Int8) ENGINE = Memory",
    "DROP TABLE checkins.scan_set",
    "DROP DATABASE checkins",
    "SELECT * FROM file('/etc/passwd', RawBLOB)",
    "SELECT * FROM url('http://127.0.0.1:9/', CSV, 'a String')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM mysql('127.0.0.1:9', 'a', 'b', 'c', 'd')",
    "INSERT INTO FUNCTION file('leak.csv', CSV, 'a String') SELECT '1'",
    "SELECT name FROM system.users",
    "SYSTEM FLUSH LOGS",
    "SYSTEM SHUTDOWN",
    "BACKUP DATABASE checkins TO File('b')",
)
NO_READER = (
    "INSERT INTO checkins.registry_rows (venue_id) VALUES ('v')",
    "INSERT INTO checkins.exposure_rows (case_id) VALUES ('c')",
    "ALTER TABLE checkins.visit_rows DELETE WHERE 1",
    "ALTER TABLE checkins.visit_rows DROP PARTITION '2021-09-20'",
    "TRUNCATE TABLE checkins.minute_rows",
    "OPTIMIZE TABLE checkins.minute_rows",
    "CREATE VIEW checkins.mine AS SELECT 1",
    "SET readonly = 0",
    "SET max_execution_time = 0",
    "SET max_memory_usage = 0",
    "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT count() FROM numbers(1000000000000) SETTINGS max_execution_time = 0",
)
#: NOT_ENOUGH_PRIVILEGES, and what may not be changed.
REFUSED = ("ACCESS_DENIED", "READONLY", "SETTING_CONSTRAINT_VIOLATION")


def make_cases(folder: str) -> None:
    """In an interpreter of its own: a store with two cases that exposed somebody, one of them withdrawn since."""
    from pipeline.settings import Settings
    from pipeline.tracing.replayed import trace_all

    make_store(folder)
    report = {"status": "confirmed", "reported_at": "2021-09-21T00:00:00Z", "onset_date": "2021-09-20"}
    cases = [report | {"case_id": "stands", "visitor_id": "ill"}, report | {"case_id": "gone", "visitor_id": "long"}]
    settings = Settings(home=Path(folder), store=Path(folder))
    trace_all(settings, [json.dumps(case).encode() for case in cases])
    withdrawal = cases[1] | {"status": "withdrawn", "reported_at": "2021-09-22T00:00:00Z"}
    trace_all(settings, [json.dumps(withdrawal).encode()])


def try_everything(folder: str, config: str, statements: list[str]) -> tuple[set[str], dict[str, str], list[Any]]:
    """In an interpreter of its own, under rights: the views that can be read, what came of each statement, and cases exposed."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    client = open_with_rights(f"{folder}/clickhouse", config)

    def outcome(sql: str) -> str:
        try:
            client.query(sql)
        except ClickHouseError as error:
            found = re.search(r"\(([A-Z_]+)\)\s*$", str(error))
            return found[1] if found else str(error)
        return "done"

    views = AGGREGATES | PERSONS | {"dead_letters"}
    readable = {view for view in views if outcome(f"SELECT * FROM checkins.{view} LIMIT 1") == "done"}
    exposed = (
        client.query("SELECT DISTINCT case_id FROM checkins.exposure_rows ORDER BY ALL").result_rows
        if outcome("SELECT case_id FROM checkins.exposure_rows LIMIT 1") == "done"
        else []
    )
    return readable, {sql: outcome(sql) for sql in statements}, [row[0] for row in exposed]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rights") / "store"
    run_isolated(make_cases, str(folder))
    return folder


@pytest.mark.parametrize("user", READS)
def test_each_user_may_read_what_it_is_there_for_and_do_nothing_else(user: str, store: Path, tmp_path: Path) -> None:
    forbidden = [*NOBODY, *(NO_READER if user != "checkins_worker" else ())]
    readable, outcomes, exposed = run_isolated(try_everything, str(store), str(write_rights(tmp_path, user)), forbidden)
    assert readable == READS[user]
    assert {sql: outcome for sql, outcome in outcomes.items() if outcome not in REFUSED} == {}
    # What is left of a case that was withdrawn is hidden by row policies from everybody but the pipeline.
    everything = ["gone", "stands"] if user == "checkins_worker" else ["stands"]
    assert exposed == (everything if "exposures" in READS[user] else [])


class Served:
    """`pipeline serve`, for who holds tokens."""

    def __init__(self, world: World) -> None:
        self._held = {
            role: world.run("tokens", "create", role, "--role", role).split()[0] for role in ("viewer", "tracer")
        }
        self._process = Process(["-m", "pipeline", "serve"], world.environment, world.folder / "serve.log")
        wait_until(lambda: "until Ctrl-C" in self._process.log)
        found = re.search(r"http://\S+", self._process.log)
        assert found, self._process.log
        self._url = found[0].rstrip("/")
        wait_until(lambda: answered(f"{self._url}/readyz", 60)[0] == 200)

    def ask(self, role: str, path: str) -> tuple[int, Any]:
        """One request to the API."""
        return asked_by(self._held[role], "contact-tracing", f"{self._url}/api/v1{path}")

    def stop(self) -> None:
        """End it."""
        assert self._process.stop() == 0, self._process.log


@pytest.mark.kafka
@pytest.mark.long
def test_a_worker_and_the_api_do_their_whole_work_with_their_own_rights(tmp_path: Path) -> None:
    settings = {"PIPELINE_CLOCK": "events", "PIPELINE_PURPOSES": '["contact-tracing", "legal-request"]'}
    world = World(tmp_path, 2, settings, user="checkins_worker")
    try:
        day, venues = tmp_path / "day.ndjson", tmp_path / "venues.csv"
        world.run("simulate", "--check-ins", "1500", "--date", "2021-09-19", "--out", day, "--venues-out", venues)
        worker = world.start_worker()
        world.run("venues", "load", venues)
        world.run("produce", day)
        ends = world.ends()
        wait_until(lambda: world.accounting() == ends)
        some = sorted(
            {json.loads(line)["visitor_id"] for line in day.read_text().splitlines() if '"visitor_id"' in line}
        )
        known = {"status": "confirmed", "specimen_date": "2021-09-19", "reported_at": "2021-09-20T00:00:00Z"}
        cases = [{"case_id": f"c-{i}", "visitor_id": visitor, **known} for i, visitor in enumerate(some[:3])]
        (tmp_path / "cases.ndjson").write_text("".join(json.dumps(case) + "\n" for case in cases))
        world.run("case", "report", tmp_path / "cases.ndjson")
        client = world.client()
        wait_until(lambda: client.query("SELECT count() FROM checkins.cases").result_rows == [(3,)])

        assert "infectious from" in world.run("trace", "c-0", "--purpose", "contact-tracing")
        for command in (("model", "fit", "--use"), ("retention", "apply"), ("retention", "check")):
            world.run(*command)
        world.run("release", "suppressed", "--day", "2021-09-18", "--output", tmp_path / "release.json")
        world.run("erase", some[1], "--purpose", "legal-request")
        assert world.run("query", "SELECT count() AS n FROM cases", "--purpose", "contact-tracing").split()[2] == "2"
        world.run("export", "visits", "--persons", "--purpose", "contact-tracing", "--out", tmp_path / "visits")
        world.run("verify")
        assert worker.stop() == 0, worker.log
        assert "rivileges" not in worker.log

        world.share_store("checkins_api")
        served = Served(world)
        with venues.open() as file:
            venue = next(csv.DictReader(file))["venue_id"]
        whole = "/health /venues /areas /categories /alerts /planning /planning/venues /released /released/suppressed/2021-09-18"
        ways = [*whole.split(), *(f"/venues/{venue}/{what}" for what in ("now", "history", "planning"))]
        assert {way: served.ask("viewer", way)[0] for way in ways} == dict.fromkeys(ways, 200)
        ways = ["/cases", *(f"/cases/c-0{what}" for what in ("", "/exposures", "/venues", "/queue"))]
        assert {way: served.ask("tracer", way)[0] for way in ways} == dict.fromkeys(ways, 200)
        assert served.ask("tracer", "/cases")[1]["items"]
        served.stop()
        assert world.run("query", "SELECT count() AS n FROM occupancy_hours").split()[2] != "0"
        world.run("export", "occupancy_hours", "--out", tmp_path / "hours")
        assert "ACCESS_DENIED" in world.run("query", "SELECT * FROM visits", "--purpose", "contact-tracing", status=1)

        world.share_store("checkins_trace")
        assert "infectious from" in world.run("trace", "c-0", "--purpose", "contact-tracing")
    finally:
        world.close()
