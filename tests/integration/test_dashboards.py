"""Every query of every board, asked: SQL of the embedded ClickHouse, over a simulated fortnight; PromQL of a real Prometheus."""

import csv
import json
import math
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.api.server import serve_http
from pipeline.broker import free_port
from pipeline.overview import Overview
from pipeline.settings import Settings
from pipeline.streaming.metrics import Metrics
from pipeline.streaming.ports import ModelFigures
from tests import needed
from tests.clickhouse_rights import GRAFANA, granted, open_with_rights, statements, write_rights
from tests.grafana import ALL, Query, Values, boards, expand_promql, expand_sql, queries
from tests.isolated import run_isolated
from tests.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[2]
_SUNDAYS = ("2021-09-12", "2021-09-19")
_START, _END = datetime(2021, 9, 6, tzinfo=UTC), datetime(2021, 9, 20, tzinfo=UTC)

_QUERIES = [query for board in boards().values() for query in queries(board)]
_SQL = [query for query in _QUERIES if query.type == "grafana-clickhouse-datasource"]
_PROMQL = [query for query in _QUERIES if query.type == "prometheus"]

Answer = dict[str, Any]


def _write_cases(here: Path, files: list[str]) -> str:
    """Some visitors of each Sunday, reported over the days after it: one in three withdrawn."""
    reports = []
    for sunday, file in zip(_SUNDAYS, files, strict=False):
        visitors = set(re.findall(r'"visitor_id": ?"([^"]+)"', Path(file).read_text("utf-8", "replace")))
        for number, visitor in enumerate(sorted(visitors)[:12]):
            case = {
                "case_id": f"case-{sunday}-{number}",
                "visitor_id": visitor,
                "specimen_date": sunday,
                "policy": "who",
            }
            reported = datetime.fromisoformat(f"{sunday}T20:00:00+00:00") + timedelta(hours=number)
            status = ("suspected", "confirmed", "withdrawn")[number % 3]
            reports.append(json.dumps({**case, "status": status, "reported_at": reported.isoformat()}))
    (here / "cases.ndjson").write_text("\n".join(reports))
    return str(here / "cases.ndjson")


def _write_crowd(here: Path, venues: str) -> str:
    """Twice as many people as the smallest venue holds, who come when the last Sunday ends, and one more a little later."""
    with Path(venues).open() as file:
        smallest = min(csv.DictReader(file), key=lambda row: int(row["capacity"] or sys.maxsize))
    people = 2 * int(smallest["capacity"])
    scan = {"event_type": "check_in", "venue_id": smallest["venue_id"], "party_size": 1}
    at = datetime(2021, 9, 19, 16, 59, tzinfo=UTC)
    times = [at + timedelta(milliseconds=i) for i in range(people)] + [at + timedelta(minutes=10)]
    lines = [
        json.dumps(
            {
                **scan,
                "event_id": f"e-{i}",
                "visitor_id": f"crowd-{i}",
                "occurred_at": moment.isoformat("T", "milliseconds"),
            }
        )
        for i, moment in enumerate(times)
    ]
    (here / "crowd.ndjson").write_text("\n".join(lines))
    return str(here / "crowd.ndjson")


def fill(here: Path) -> None:
    """A fortnight of a small country with two Sundays in the store of folder `here`, and a model of presence in force."""
    from click.testing import CliRunner

    from pipeline.cli import cli

    def run(*words: str) -> None:
        outcome = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert outcome.exit_code == 0, outcome.output

    files = [str(here / f"{sunday}.ndjson") for sunday in _SUNDAYS]
    venues, store = str(here / "venues.csv"), str(here / "store")
    for sunday, file in zip(_SUNDAYS, files, strict=True):
        run("simulate", "--check-ins", "1500", "--date", sunday, "--out", file, "--venues-out", venues)
    files.append(_write_crowd(here, venues))
    run("replay", *files, "--venues", venues, "--cases", _write_cases(here, files), "--store", store)
    # The model learns from the days that are over, and is taken up by whoever opens the store next.
    run("model", "fit", "--use", "--store", store)
    run("replay", files[1], "--store", store)


def ask(folder: str, asked: list[tuple[str, str, Values]], grants: list[str]) -> Answer:
    """In an interpreter of its own: fill a store, and answer each query, given as key, SQL and what the reader chose.

    Texts like `{venue}` in the latter stand for what the store has. Returns the answers by key, and: what the store knows, its
    tables with a pseudonym, and `grants` in ClickHouse's own spelling (None: it cannot read them).
    """
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    fill(Path(folder))
    client = open_store(Settings(store=Path(folder) / "store"))

    def rows(sql: str, /, **parameters: str) -> list[Any]:
        return list(client.query(sql, parameters=parameters).result_rows)

    ((venue, name, area, zone),) = rows(
        "SELECT venue_id, name, area, timezone FROM checkins.occupancy_now JOIN checkins.venues USING venue_id "
        "WHERE expected IS NOT NULL ORDER BY occupancy DESC, venue_id LIMIT 1"
    )
    known = {"venue": venue, "part": name[2:9].upper(), "area": area, "zone": zone}
    held = "SELECT table FROM system.columns WHERE database = 'checkins' AND name = 'visitor_id'"
    answers: Answer = {
        "known": known,
        "with pseudonyms": {name for (name,) in rows(held)},
        "grants": [rows("SELECT formatQueryOrNull({sql:String})", sql=grant)[0][0] for grant in grants],
    }
    for key, sql, chosen in asked:
        values = {
            variable: value.format(**known) if isinstance(value, str) else [one.format(**known) for one in value]
            for variable, value in chosen.items()
        }
        # A dead letter is dated by when it was received: now.
        end = _END if "dead_letters" not in sql else datetime.now(UTC)
        sql = expand_sql(sql, values, _START, end, 900)
        try:
            # The answer itself has no columns where it has no rows.
            columns = rows(f"DESCRIBE TABLE ({sql})")
            found = rows(sql)
        except ClickHouseError as error:
            answers[key] = {"error": str(error)}
        else:
            answers[key] = {
                "sql": sql,
                "names": [column[0] for column in columns],
                "types": [column[1] for column in columns],
                "rows": found,
            }
    client.close()
    return answers


#: What makes Grafana's users.
_GRANTS = statements(GRAFANA)

#: What the reader chose, once all and once few. In braces: what the store has.
_EVERYTHING: Values = {
    "area": ALL,
    "category": ALL,
    "policy": ALL,
    "zone": "{zone}",
    "venue": "{venue}",
    "search": "",
    "smallest": "1",
}
_FEW: Values = {
    **_EVERYTHING,
    "area": ["{area}", "it's nowhere"],
    "category": ["minimarket", "mall"],
    "policy": ["who"],
}
_SEARCHES = {"a part of a name": "{part}", "an id": "{venue}", "a quote": "it's nowhere"}


def _search() -> Query:
    return next(query for query in _SQL if query.place == "variable venue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boards")


@pytest.fixture(scope="module")
def answers(folder: Path) -> Answer:
    asked = [(str(query), query.text, _EVERYTHING) for query in _SQL]
    asked += [(f"few {query}", query.text, _FEW) for query in _SQL if "$__conditionalAll" in query.text]
    asked += [(name, _search().text, {"search": search}) for name, search in _SEARCHES.items()]
    found: Answer = run_isolated(ask, str(folder), asked, _GRANTS, timeout=900)
    return found


def _overridden(panel: dict[str, Any]) -> set[str]:
    overrides = panel["fieldConfig"]["overrides"]
    return {item["matcher"]["options"] for item in overrides if item["matcher"]["id"] == "byName"}


def _fields(panel: dict[str, Any]) -> set[str]:
    """Columns that a panel's own settings and its links name."""
    text = json.dumps([panel["options"], panel["fieldConfig"]])
    named = set(re.findall(r"__data\.fields\.(\w+)", text)) | set(re.findall(r'"field": "(\w+)"', text))
    axis = panel["options"].get("xField")
    places = {"latitude", "longitude"} if panel["type"] == "geomap" else set()
    return named | places | ({axis} if axis else set())


@pytest.mark.parametrize("query", _SQL, ids=str)
def test_every_sql_is_answered_with_rows(query: Query, answers: Answer) -> None:
    for key in {str(query), f"few {query}"} & answers.keys():
        assert "error" not in answers[key], f"{key}: {answers[key]['error']}"
    assert answers[str(query)]["rows"]


@pytest.mark.parametrize("query", [query for query in _SQL if query.by_time], ids=str)
def test_series_begin_with_a_time_and_are_in_its_order(query: Query, answers: Answer) -> None:
    answer = answers[str(query)]
    assert answer["names"][0] == "time"
    assert answer["types"][0].startswith("DateTime")
    times = [row[0].replace(tzinfo=UTC) if row[0].tzinfo is None else row[0] for row in answer["rows"]]
    assert times == sorted(times)
    # A day of a time zone east of Greenwich begins up to 14 hours earlier.
    assert all((time - _START).total_seconds() >= -14 * 3600 and time <= _END for time in times)
    assert any(re.search("Int|Float", type_) for type_ in answer["types"][1:])


@pytest.mark.parametrize("query", [query for query in _SQL if query.panel], ids=str)
def test_what_a_panel_says_of_its_columns_is_of_columns_that_are_there(query: Query, answers: Answer) -> None:
    assert query.panel is not None
    asked = [one for one in _SQL if one.panel is query.panel]
    names = {name for one in asked for name in answers[str(one)]["names"]}
    assert _overridden(query.panel) - names == set()
    assert _fields(query.panel) - names == set()


@pytest.mark.parametrize("query", [query for query in _SQL if query.panel], ids=str)
def test_every_word_that_is_coloured_is_one_that_comes(query: Query, answers: Answer) -> None:
    """A level that no mapping knows would stand there without its colour."""
    assert query.panel is not None
    answer = answers[str(query)]
    for override in query.panel["fieldConfig"]["overrides"]:
        column = override["matcher"]["options"]
        mapped = [item["value"] for item in override["properties"] if item["id"] == "mappings"]
        if column in answer["names"] and mapped and "String" in answer["types"][answer["names"].index(column)]:
            words = {word for mapping in mapped[0] for word in mapping["options"]}
            shown = {row[answer["names"].index(column)] for row in answer["rows"]}
            assert shown <= words


@pytest.mark.parametrize("query", [query for query in _SQL if query.panel], ids=str)
def test_no_number_is_not_a_number(query: Query, answers: Answer) -> None:
    for row in answers[str(query)]["rows"]:
        for name, value in zip(answers[str(query)]["names"], row, strict=True):
            assert not isinstance(value, float) or math.isfinite(value), (name, row)


def test_an_estimate_is_shown_where_a_model_is_in_force(answers: Answer) -> None:
    for place in ("Here now A", "People now A"):
        found = [answers[str(query)] for query in _SQL if query.place == place]
        assert found
        for answer in found:
            (row,) = answer["rows"]
            assert row[answer["names"].index("expected")] is not None


def test_a_venue_is_found_by_a_part_of_its_name_and_by_its_id(answers: Answer) -> None:
    known = answers["known"]
    assert answers["an id"]["rows"][0][0] == known["venue"]
    found = answers["a part of a name"]["rows"]
    assert known["venue"] in {value for value, _ in found}
    assert all(known["part"].lower() in text.lower() for _, text in found)
    assert answers["a quote"]["rows"] == []


def test_the_statements_that_make_grafanas_users_are_statements_that_give_nothing_else(answers: Answer) -> None:
    assert all(answers["grants"]), _GRANTS
    known = (
        r"CREATE ROLE IF NOT EXISTS checkins_\w+",
        r"CREATE USER IF NOT EXISTS grafana\w* IDENTIFIED WITH sha256_password BY 'CHANGE-ME' DEFAULT ROLE checkins_\w+",
        r"ALTER USER grafana\w* DEFAULT ROLE checkins_\w+\s+SETTINGS readonly = 1,.*",
        r"CREATE ROW POLICY OR REPLACE checkins_standing_on_boards ON checkins\.exposure_rows\s+USING case_id NOT IN .*",
        r"REVOKE ALL ON checkins\.\* FROM grafana",
        r"GRANT SELECT ON checkins\.\w+ TO checkins_(?:boards|tracing_board)",
        r"GRANT checkins_boards TO (?:grafana|checkins_tracing_board)",
        r"GRANT checkins_tracing_board TO grafana_tracing",
    )
    assert [each for each in _GRANTS if not any(re.fullmatch(form, each, re.DOTALL) for form in known)] == []


def test_grafanas_user_reads_nobodys_pseudonym_and_the_tracers_nothing_that_says_who_was_where(answers: Answer) -> None:
    """For the board of contact tracing, which counts them, what holds pseudonyms of cases and exposed is for another user."""
    assert answers["with pseudonyms"] >= {"scans", "visits", "scan_set", "visit_rows"}
    assert granted("checkins_boards") & answers["with pseudonyms"] == set()
    counted = {"cases", "case_rows", "exposures", "exposure_rows"}
    assert granted("checkins_tracing_board") & answers["with pseudonyms"] == counted


def asked_with_rights(store: str, config: str, asked: list[str]) -> dict[str, str]:
    """In an interpreter of its own: the queries that the engine refuses under the rights of `config`, each with why."""
    client = open_with_rights(f"{store}/clickhouse", config)
    refused = {}
    for sql in asked:
        try:
            client.query(sql)
        except ClickHouseError as error:
            refused[sql] = str(error)
    return refused


@pytest.mark.parametrize(("user", "tracing"), [("grafana", False), ("grafana_tracing", True)])
def test_grafanas_users_may_read_what_their_boards_ask_for(
    user: str, tracing: bool, answers: Answer, folder: Path, tmp_path: Path
) -> None:
    asked = [answers[str(query)]["sql"] for query in _SQL if tracing or query.board != "checkins-tracing"]
    assert run_isolated(asked_with_rights, str(folder / "store"), str(write_rights(tmp_path, user)), asked) == {}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Asks a real Prometheus, on loopback, that has scraped a worker's metrics a few times: `ask(promql)`."""
    program = needed.program("prometheus", "prometheus")
    metrics = Metrics()
    counters = dict.fromkeys(("consumed", "accepted", "stored", "duplicates", "unknown_venue_scans"), 10)
    now_ms = int(time.time() * 1000)
    instants = dict.fromkeys(("newest_event_ms", "watermark_ms", "as_of_ms"), now_ms)
    metrics.counters = ({**counters, **instants}, {"schema": 1})
    metrics.event_delays.observe(np.array([1.0, 40.0]))
    metrics.overview = Overview({("mall", "near"): 3}, {"31.73": 40}, (0.9, 0.5), {"warning": 1})
    metrics.alertmanager_requests.labels("accepted").inc()
    metrics.delays.observe(np.array([0.3, 2.0]))
    metrics.flush_seconds.observe(0.1)
    metrics.pass_seconds.observe(0.2)
    metrics.traced_messages.labels("exposures").inc()
    metrics.model = ModelFigures(86400.0, 1, 0.9, 0.9, 0.01, {"mall": 0.02}, {"mall": 0.3})
    metrics.lag.labels("check-ins", "0").set(3)
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    with serve_http(Settings(home=folder, http_port=0), metrics.exposition, {}) as target:
        scrape = {"job_name": "worker", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        config = folder / "prometheus.json"
        config.write_text(json.dumps({"global": {"scrape_interval": "500ms"}, "scrape_configs": [scrape]}))
        listen = f"--web.listen-address=127.0.0.1:{port}"
        server = subprocess.Popen(
            [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", listen],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def ask(expression: str) -> Any:
            url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    return json.load(answer)["data"]["result"]
            except urllib.error.HTTPError as error:
                if error.code == 503:  # it is still starting
                    raise
                raise AssertionError(f"{expression}: {json.load(error)['error']}") from None

        def scraped() -> bool:
            assert server.poll() is None, "prometheus has ended"
            try:
                found = ask("count_over_time(pipeline_assigned_partitions[1m])")
            except OSError:
                return False
            return bool(found) and float(found[0]["value"][1]) >= 3

        try:
            wait_until(scraped)
            yield ask
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.parametrize("query", _PROMQL, ids=str)
def test_every_promql_is_answered_from_a_workers_own_metrics(query: Query, prometheus: Callable[[str], Any]) -> None:
    listed = re.fullmatch(r"label_values\((\w+), (\w+)\)", query.text)
    if listed:
        # A function of Grafana's variables, not of PromQL.
        assert all(listed[2] in series["metric"] for series in prometheus(listed[1]))
    else:
        # Of a scrape that a busy machine did not answer in time, Prometheus has nothing until the next one.
        wait_until(lambda: bool(prometheus(expand_promql(query.text, {"worker": ".*"}, "30s", "1m"))))


def test_promql_that_is_none_is_found_out(prometheus: Callable[[str], Any]) -> None:
    with pytest.raises(AssertionError, match="parse error"):
        prometheus("sum(rate(pipeline_scans_consumed_total[5m])")
