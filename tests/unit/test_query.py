"""`pipeline query`: reads anything, changes nothing, and its answers are safe to open."""

import csv
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.isolated import run_isolated

CHANGES = [
    "INSERT INTO visits_written VALUES ('x', 1)",
    "WITH 1 AS one INSERT INTO visits_written SELECT 'x', one",
    "INSERT INTO FUNCTION file('{outside}', 'CSV', 'a UInt8') SELECT 1",
    "SELECT 1 INTO OUTFILE '{outside}'",
    "SELECT 1 INTO OUTFILE '{outside}' FORMAT CSV",
    "SHOW TABLES INTO OUTFILE '{outside}'",
    "EXPLAIN SELECT 1 INTO OUTFILE '{outside}'",
    "EXPLAIN ANALYZE INSERT INTO visits_written VALUES ('x', 1)",
    "CREATE TABLE made (a UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE made (a UInt8)",
    "CREATE DATABASE made",
    "ATTACH TABLE made FROM '{outside}' (a UInt8) ENGINE = MergeTree ORDER BY a",
    "DETACH TABLE visits_written",
    "DROP TABLE visits_written",
    "DROP TABLE IF EXISTS nothing",
    "DROP DATABASE checkins",
    "TRUNCATE TABLE visits_written",
    "RENAME TABLE visits_written TO made",
    "ALTER TABLE visits_written DELETE WHERE 1",
    "ALTER TABLE visits_written ADD COLUMN b UInt8",
    "DELETE FROM visits_written WHERE 1",
    "UPDATE visits_written SET number = 2 WHERE 1",
    "OPTIMIZE TABLE visits_written FINAL",
    "BACKUP TABLE visits_written TO File('{outside}')",
    "SYSTEM STOP MERGES",
    "KILL QUERY WHERE 1",
    "SET readonly = 0",
    "USE system",
    "SELECT 1; DROP TABLE visits_written",
    "SELECT 1 /* ; */; INSERT INTO visits_written VALUES ('x', 1)",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT * FROM file('{outside}', 'CSV', 'a UInt8')",
    "SELECT * FROM url('http://127.0.0.1:9/', 'CSV', 'a UInt8')",
    "SELECT * FROM executable('script', 'CSV', 'a UInt8')",
    "SELECT * FROM remote('127.0.0.1:9', 'system.one')",
]

READS = {
    "SELECT count() FROM visits": "2",
    "SELECT count() FROM visits; -- with a comment": "2",
    "WITH 1 AS one SELECT one": "1",
    "(SELECT 1 AS one) UNION ALL (SELECT 1)": "1",
    "FROM visits SELECT max(number)": "7",
    "SELECT ' INTO OUTFILE ; DROP TABLE visits '": " INTO OUTFILE ; DROP TABLE visits ",
    "EXISTS TABLE visits": "1",
}

ODD_CELLS = (
    r"SELECT '=1+1' AS formula, '+1' AS plus, '-5' AS text, '@x' AS at_sign, '\t=1' AS tab, '\r=1' AS cr, '\n=1' AS lf, "
    "'＝1+1' AS wide_formula, '＋1' AS wide_plus, '－5' AS wide_minus, '＠x' AS wide_at, "
    r"-5 AS whole, toDecimal64(-1.5, 1) AS decimal, CAST(-0.5, 'Nullable(Float64)') AS nullable, "
    r"CAST(NULL, 'Nullable(String)') AS nothing, "
    r"'a,\"b\"\nc\\' AS quoted, 'é漢' AS wide, '\x1b[31mred' AS escape, 18446744073709551615 AS big, "
    r"toDateTime64('2021-09-19 10:00:00.250', 3, 'UTC') AS instant"
)


def store(path: str) -> Any:
    """A store whose database has one written table and a view `visits` of it."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    client = open_store(Settings(store=Path(path)))
    client.command("CREATE TABLE visits_written (venue_id String, number UInt8) ENGINE = MergeTree ORDER BY venue_id")
    client.command("INSERT INTO visits_written VALUES ('mall-1', 3), ('works', 7)")
    client.command("CREATE OR REPLACE VIEW visits AS SELECT * FROM visits_written")
    return client


def asked(path: str, questions: list[tuple[str, str]]) -> list[tuple[bytes, str]]:
    """The answer to each (statement, format) of one connection: (bytes, error)."""
    from pipeline.errors import UserError
    from pipeline.query import answer

    client = store(path)
    answers = []
    for sql, form in questions:
        out = io.BytesIO()
        try:
            answer(client, sql, form, out)  # type: ignore[arg-type]
            answers.append((out.getvalue(), ""))
        except UserError as error:
            answers.append((out.getvalue(), str(error)))
    return answers


def changes_tried(path: str) -> dict[str, Any]:
    """Every attempt at a change: through `answer`, through the parser's guard alone, and through readonly alone."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from pipeline.errors import UserError
    from pipeline.query import answer, make_read_only, read_statement
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    settings = Settings(store=Path(path))
    client = store(path)
    outside = Path(path, "outside")

    def state() -> Any:
        return (
            client.query("SELECT * FROM checkins.visits_written").result_rows,
            client.query("SELECT database, name, create_table_query FROM system.tables ORDER BY ALL").result_rows,
            client.query("SELECT name FROM system.databases ORDER BY name").result_rows,
            outside.exists(),
        )

    before = state()
    result: dict[str, Any] = {"taken": [], "reasons": [], "changed": [], "read": []}
    for template in CHANGES:
        sql = template.replace("{outside}", str(outside))
        asking = open_store(settings, read_only=True)
        try:
            answer(asking, sql, "csv", io.BytesIO())
            result["taken"].append(template)
        except UserError as error:
            result["reasons"].append(str(error))
        asking.close()
        if state() != before:
            result["changed"].append(template)
    for template in CHANGES:
        with suppress(UserError, ClickHouseError):
            read_statement(client, template.replace("{outside}", str(outside)))
            result["read"].append(template)
    bare = open_store(settings, read_only=True)
    make_read_only(bare)
    for template in CHANGES:
        # The engine's own guard does not know of files that its client would write.
        if "OUTFILE" not in template:
            with suppress(ClickHouseError):
                bare.command(template.replace("{outside}", str(outside)))
            if state() != before:
                result["changed"].append(f"without the parser's guard: {template}")
    return result


def test_nothing_can_be_changed_or_reached_through_a_query(tmp_path: Path) -> None:
    result = run_isolated(changes_tried, str(tmp_path))
    assert result["changed"] == []
    assert result["taken"] == []
    assert len(result["reasons"]) == len(CHANGES)
    # The parser alone lets through only what reads.
    assert {sql.split()[0] for sql in result["read"]} <= {"SELECT", "EXPLAIN"}
    assert not any("OUTFILE" in sql or ";" in sql for sql in result["read"])


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[bytes, str]]:
    questions = [(sql, "csv") for sql in READS]
    questions += [(ODD_CELLS, form) for form in ("table", "csv", "json", "parquet")]
    questions += [("SELECT number, toString(number) AS text FROM numbers(300000)", form) for form in ("table", "csv")]
    questions += [("SELECT venue_id, number FROM visits ORDER BY venue_id", "table"), ("SHOW TABLES", "json")]
    questions += [("SELECT venue_id FROM visits WHERE 0", form) for form in ("table", "csv", "json")]
    questions += [
        (sql, "table") for sql in ("SELEC 1", "SELECT venu FROM visits", "SELECT 1 FORMAT JSON", "-- nothing")
    ]
    questions += [("SELECT throwIf(number = 250000) FROM numbers(300000)", "csv")]
    found = run_isolated(asked, str(tmp_path_factory.mktemp("store")), questions)
    return dict(zip(questions, found, strict=True))


@pytest.mark.parametrize("sql", READS)
def test_every_kind_of_read_is_answered(answers: dict[tuple[str, str], tuple[bytes, str]], sql: str) -> None:
    body, error = answers[sql, "csv"]
    assert error == ""
    assert list(csv.reader(io.StringIO(body.decode())))[1][0] == READS[sql]


def test_csv_escapes_what_a_spreadsheet_would_run_and_leaves_numbers(
    answers: dict[tuple[str, str], tuple[bytes, str]],
) -> None:
    body = answers[ODD_CELLS, "csv"][0].decode()
    (row,) = csv.DictReader(io.StringIO(body, newline=""))
    assert row["formula"] == "'=1+1"
    assert [row["plus"], row["text"], row["at_sign"], row["tab"], row["cr"]] == ["'+1", "'-5", "'@x", "'\t=1", "'\r=1"]
    assert row["lf"] == "'\n=1"
    assert [row[f"wide_{name}"] for name in ("formula", "plus", "minus", "at")] == ["'＝1+1", "'＋1", "'－5", "'＠x"]
    assert [row["whole"], row["decimal"], row["nullable"], row["nothing"]] == ["-5", "-1.5", "-0.5", ""]
    assert row["quoted"] == 'a,"b"\nc\\'
    assert row["big"] == "18446744073709551615"
    assert row["instant"] == "2021-09-19 10:00:00.250"


def test_json_is_one_exact_object_a_line(answers: dict[tuple[str, str], tuple[bytes, str]]) -> None:
    (line,) = answers[ODD_CELLS, "json"][0].decode().splitlines()
    row = json.loads(line)
    assert row["formula"] == "=1+1"
    assert row["whole"] == -5
    assert row["nothing"] is None
    assert row["big"] == 18446744073709551615
    tables = [json.loads(line)["name"] for line in answers["SHOW TABLES", "json"][0].decode().splitlines()]
    assert "visits" in tables


def test_parquet_keeps_the_types(answers: dict[tuple[str, str], tuple[bytes, str]]) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(answers[ODD_CELLS, "parquet"][0]))
    assert str(table.schema.field("instant").type) == "timestamp[ms, tz=UTC]"
    assert table.to_pylist()[0]["quoted"] == 'a,"b"\nc\\'


def test_a_table_is_aligned_with_numbers_to_the_right(answers: dict[tuple[str, str], tuple[bytes, str]]) -> None:
    body = answers["SELECT venue_id, number FROM visits ORDER BY venue_id", "table"][0].decode()
    assert body == "venue_id  number\n--------  ------\nmall-1         3\nworks          7\n"


def test_a_table_cannot_steer_the_terminal(answers: dict[tuple[str, str], tuple[bytes, str]]) -> None:
    body = answers[ODD_CELLS, "table"][0].decode()
    assert r"\x1b[31mred" in body
    assert "\x1b" not in body
    assert len(body.splitlines()) == 3


def test_long_answers_are_whole_in_every_text_format(answers: dict[tuple[str, str], tuple[bytes, str]]) -> None:
    sql = "SELECT number, toString(number) AS text FROM numbers(300000)"
    assert answers[sql, "csv"][0].decode().splitlines() == ["number,text", *(f"{n},{n}" for n in range(300_000))]
    assert [line.split() for line in answers[sql, "table"][0].decode().splitlines()[2:]] == [
        [str(n), str(n)] for n in range(300_000)
    ]


def test_an_empty_answer_still_names_its_columns(answers: dict[tuple[str, str], tuple[bytes, str]]) -> None:
    sql = "SELECT venue_id FROM visits WHERE 0"
    assert answers[sql, "table"][0] == b"venue_id\n--------\n"
    assert answers[sql, "csv"][0] == b"venue_id\n"
    assert answers[sql, "json"][0] == b""


@pytest.mark.parametrize(
    ("sql", "form", "sentence"),
    [
        ("SELEC 1", "table", "the query failed: Syntax error: failed at position 7 (1): 1"),
        ("SELECT venu FROM visits", "table", "the query failed: Unknown expression identifier `venu`"),
        ("-- nothing", "table", "the query failed: Empty query"),
        (
            "SELECT 1 FORMAT JSON",
            "table",
            "INTO OUTFILE and FORMAT are refused in a query: use --output and --format instead",
        ),
        (
            "SELECT throwIf(number = 250000) FROM numbers(300000)",
            "csv",
            "the query failed: Value passed to 'throwIf' function is non-zero",
        ),
    ],
)
def test_an_error_is_one_clear_sentence(
    answers: dict[tuple[str, str], tuple[bytes, str]], sql: str, form: str, sentence: str
) -> None:
    assert answers[sql, form][1] == sentence


def made_store(path: str) -> None:
    store(path).close()


def run(folder: Path, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "query", *arguments, "--store", str(folder / "store")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        cwd=folder,
        input=stdin.encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_the_command_answers_on_stdout_or_into_a_file_and_fails_in_one_line(tmp_path: Path) -> None:
    run_isolated(made_store, str(tmp_path / "store"))
    piped = run(tmp_path, "-", "--format", "csv", stdin="SELECT venue_id FROM visits ORDER BY venue_id")
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, b"venue_id\nmall-1\nworks\n", b"")
    filed = run(tmp_path, "SELECT * FROM visits", "--format", "parquet", "--output", str(tmp_path / "visits.parquet"))
    assert (filed.returncode, filed.stdout) == (0, b"")
    complete = hashlib.sha256((tmp_path / "visits.parquet").read_bytes()).digest()
    failed = run(tmp_path, "SELECT nowhere", "--format", "parquet", "--output", str(tmp_path / "visits.parquet"))
    assert failed.returncode == 1
    assert failed.stderr.decode().splitlines() == [
        "pipeline: the query failed: Unknown expression identifier `nowhere`"
    ]
    assert hashlib.sha256((tmp_path / "visits.parquet").read_bytes()).digest() == complete
    # What was read about persons is noted in the folder that PIPELINE_HOME is by default.
    assert sorted(path.name for path in tmp_path.iterdir()) == [".pipeline", "store", "visits.parquet"]
    noted = [json.loads(line) for line in (tmp_path / ".pipeline" / "audit.jsonl").read_text().splitlines()]
    # One row can tell of all: of how many an answer tells is not known.
    assert [(entry["action"], entry["persons"]) for entry in noted] == [("query", None), ("query", None)]
    assert stat.S_IMODE((tmp_path / "visits.parquet").stat().st_mode) == 0o600


def test_a_question_about_persons_is_noted_before_it_is_asked_and_its_failure_tells_no_value(tmp_path: Path) -> None:
    run_isolated(made_store, str(tmp_path / "store"))
    log = tmp_path / ".pipeline" / "audit.jsonl"
    failing = {
        "SELECT 1 FROM visits WHERE toUInt64(venue_id) = 1": "CANNOT_PARSE_TEXT (code 6)",
        "SELECT venu FROM visits": "UNKNOWN_IDENTIFIER (code 47) at `venu`",
    }
    for place, (sql, kind) in enumerate(failing.items(), 1):
        done = run(tmp_path, sql)
        assert done.returncode == 1
        assert done.stderr.decode().startswith(
            f"pipeline: the query failed: {kind}; ClickHouse's own words are not shown"
        )
        assert b"mall-1" not in done.stdout + done.stderr
        assert len(log.read_text().splitlines()) == place
    # What is not rows, a plan or a type, can hold what a subquery answered.
    for sql in (
        "EXPLAIN actions = 1 SELECT (SELECT groupArray(venue_id) FROM visits)",
        "DESCRIBE TABLE (SELECT CAST('x', (SELECT concat('Enum8(\\'x\\' = 1, \\'', max(venue_id), '\\' = 2)') FROM visits)))",
    ):
        done = run(tmp_path, sql)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"of a question about persons is refused" in done.stderr
    assert run(tmp_path, "DESCRIBE TABLE visits", "--format", "csv").stdout.startswith(b"name,type")
    log.write_text("not an entry\n")
    refused = run(tmp_path, "SELECT venue_id FROM visits")
    assert (refused.returncode, refused.stdout) == (1, b"")


def test_a_file_of_an_answer_without_persons_is_like_any_other(tmp_path: Path) -> None:
    run_isolated(made_store, str(tmp_path / "store"))
    before = os.umask(0o022)
    try:
        run(tmp_path, "SELECT 1", "--output", str(tmp_path / "one"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o644
