"""The SQL for a server's users: ClickHouse knows each statement and table, and who may read aggregates reads no person."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.person_reads import about_persons
from tests.clickhouse_rights import FILES, SERVER, granted, statements
from tests.isolated import run_isolated

#: What cannot be parsed, tables, what each view rests on, tables that tell of persons.
Known = tuple[list[str], list[str], dict[str, list[str]], list[str]]


def grants(role: str) -> set[str]:
    return {f"checkins.{name}" for name in granted(role)}


#: What tells one person from another, or leads to one.
_OF_PERSONS = ("visitor_id", "case_id", "event_id", "exposure_id")


def known(folder: str, asked: list[str]) -> Known:
    """In an interpreter of its own: what ClickHouse cannot parse, the tables, what each view rests on, which tell of persons."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    client: Any = open_store(Settings(store=Path(folder)))
    wrong = [
        sql
        for sql in asked
        if client.query("SELECT formatQueryOrNull({sql:String}) IS NULL", {"sql": sql}).result_rows[0][0]
    ]
    rows = client.query(
        "SELECT name, create_table_query, engine FROM system.tables WHERE database = 'checkins'"
    ).result_rows
    views = {
        str(name): re.findall(r"(?:FROM|JOIN)\s+checkins\.(\w+)", str(text))
        for name, text, engine in rows
        if engine == "View"
    }
    told = client.query(
        f"SELECT DISTINCT table FROM system.columns WHERE database = 'checkins' AND name IN {_OF_PERSONS}"
    ).result_rows
    return wrong, [str(row[0]) for row in rows], views, [str(row[0]) for row in told]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Known:
    found: Known = run_isolated(known, str(tmp_path_factory.mktemp("store")), statements(SERVER))
    return found


def test_every_statement_is_clickhouses_and_names_what_is_there(
    server: Known,
) -> None:
    wrong, tables, _, _ = server
    assert wrong == []
    named = set(re.findall(r"\bcheckins\.(\w+)", "\n".join(statements(SERVER))))
    assert named <= set(tables)


@pytest.mark.parametrize("role", ["checkins_viewer", "checkins_tracer"])
def test_a_view_comes_with_the_tables_behind_it(role: str, server: Known) -> None:
    may = {name.removeprefix("checkins.") for name in grants("checkins_viewer") | grants(role)}
    views = server[2]
    for name in may & views.keys():
        assert set(views[name]) <= may, name


def test_who_may_read_aggregates_reads_no_person_and_a_tracer_no_scan() -> None:
    assert grants("checkins_viewer")
    assert not [name for name in grants("checkins_viewer") if about_persons(name)]
    assert grants("checkins_tracer").isdisjoint(
        {f"checkins.{name}" for name in ("scans", "scan_set", "visits", "visit_rows")}
    )


def test_nothing_that_viewers_read_tells_one_person_from_another(server: Known) -> None:
    told = {f"checkins.{name}" for name in server[3]}
    assert {"checkins.scans", "checkins.visits", "checkins.exposures"} <= told
    assert grants("checkins_viewer").isdisjoint(told)


def test_limits_and_row_policies_that_were_changed_hold_once_the_files_are_run_again() -> None:
    """What is there already stays as it is, so it is only made with what never changes; the rest is altered, or made anew."""
    for sql in statements(FILES):
        if " IF NOT EXISTS " in sql:
            limits = re.search(r" SETTINGS (?!PROFILE )| USING | FOR INTERVAL ", sql.partition(" IF NOT EXISTS ")[2])
            assert limits is None, sql
        # Made anew it would be another one, and whoever held it, or was held to it, would not any more.
        assert not re.match(r"CREATE (?:USER|ROLE|SETTINGS PROFILE) OR REPLACE", sql), sql


def test_whoever_reads_exposures_reads_none_of_cases_that_were_withdrawn() -> None:
    readers = {
        found[1]
        for found in map(re.compile(r"GRANT SELECT ON checkins\.exposure_rows TO (\w+)").fullmatch, statements(FILES))
        if found
    }
    form = re.compile(
        r"CREATE ROW POLICY OR REPLACE \w+ ON checkins\.exposure_rows USING case_id NOT IN .+'withdrawn'\) TO (\w+)"
    )
    assert (
        readers
        == {found[1] for found in map(form.fullmatch, statements(FILES)) if found}
        == {
            "checkins_tracer",
            "checkins_tracing_board",
        }
    )
