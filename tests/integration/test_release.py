"""`pipeline release`: each day once, the same after a crash and after corrections; a visitor moves no more of it than is said."""

import json
import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.audit import AuditLog
from tests.isolated import run_isolated
from tests.over_http import answered
from tests.reference import HOUR, MINUTE, Scan, line_of

#: A Sunday.
SUNDAY = 1_632_009_600_000
KEY = (7, 11)
CELLS = 4
REGISTRY = [("v-0", "mall", "north"), ("v-1", "office", "north"), ("v-2", "bar", "south"), ("v-3", "mall", "")]
#: Goes about all day.
BUSY = "p-busy"

#: (area, category, hour) → arrivals, occupancy
Counts = dict[tuple[str, str, int], tuple[int, int]]


def scans_of(seed: int) -> list[Scan]:
    """A day of visitors, some in many cells, one over each midnight, and somebody whose scan closes the day."""
    drawn, scans = random.Random(seed), []

    def visit(visitor: str, venue: str, start: int, minutes: int | None) -> None:
        party = drawn.choice([1, 1, 1, 4])
        for kind, at in (("check_in", start), ("check_out", minutes and start + minutes)):
            if at is not None:
                scans.append(Scan(venue, visitor, kind, SUNDAY + at * MINUTE, party, f"e-{len(scans)}"))

    for number in range(150):
        at = drawn.randrange(0, 900)
        for _ in range(drawn.randrange(1, 5)):
            visit(f"p-{number}", f"v-{drawn.randrange(5)}", at, drawn.choice([None, drawn.randrange(1, 300)]))
            at += drawn.randrange(5, 300)
    for hour in range(6, 18):
        visit(BUSY, f"v-{hour % 5}", 60 * hour + 5, 90)
    visit("p-before", "v-0", -30, 100)
    visit("p-after", "v-0", 23 * 60, 200)
    visit("p-closes", "v-0", 24 * 60 + 13 * 60, None)
    return scans


def feed(folder: str, scans: list[Scan]) -> Any:
    """Into the store of a folder; returns a connection to it."""
    from pipeline.engine import open_engine
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    settings = Settings(home=Path(folder), store=Path(folder) / "store")
    engine = open_engine(settings, clock="events")
    offset = engine.assign("t", [0])[0] or 0
    lines = [line_of(scan) for scan in scans]
    engine.process("t", 0, range(offset, offset + len(lines)), [0] * len(lines), lines)
    engine.settle()
    engine.close()
    return open_store(settings)


def fill(folder: str, scans: list[Scan]) -> dict[str, Any]:
    """In an interpreter of its own: visits; visitors by cell, bounded and not, also without the one who goes about all day."""
    from datetime import date

    from pipeline.store.releases import visitors_by_cell

    client = feed(folder, scans)
    for venue, category, area in REGISTRY:
        client.command(
            "INSERT INTO registry_rows (venue_id, name, category, area, version, is_deleted) VALUES "
            f"('{venue}', 'Name', '{category}', nullIf('{area}', ''), 1, 0)"
        )

    def counts(cells: int) -> Counts:
        return {
            (row["area"], row["category"], row["hour"]): (row["arrivals"], row["occupancy"])
            for row in visitors_by_cell(client, date(2021, 9, 19), cells, KEY)
        }

    visits = client.query(
        "SELECT venue_id, visitor_id, toUnixTimestamp64Milli(checked_in_at), toUnixTimestamp64Milli(left_at) FROM visits"
    ).result_rows
    whole = {"bounded": counts(CELLS), "unbounded": counts(1_000), "visits": visits}
    client.command(f"ALTER TABLE visit_rows DELETE WHERE visitor_id = '{BUSY}' SETTINGS mutations_sync = 1")
    return {**whole, "bounded without": counts(CELLS), "unbounded without": counts(1_000)}


def stored(client: Any) -> dict[str, list[Any]]:
    """What is in the store of releases: every draw, and the views."""
    asked = {
        "draws": "SELECT kind, toString(day) FROM release_rows ORDER BY ALL",
        "private": "SELECT toUnixTimestamp(hour), area, category, arrivals, occupancy FROM released_private ORDER BY ALL",
        "suppressed": "SELECT toUnixTimestamp(hour), area, category, arrivals FROM released_suppressed ORDER BY ALL",
        "budget": "SELECT toString(day), epsilon, sha256 FROM privacy_budget",
    }
    return {name: [tuple(row) for row in client.query(sql).result_rows] for name, sql in asked.items()}


def ask(folder: str, *words: str) -> tuple[int, str]:
    """`pipeline release …`: its exit status and what it said."""
    from click.testing import CliRunner

    from pipeline.commands.release import command

    done = CliRunner().invoke(command, [*words, "--store", f"{folder}/store"])
    return done.exit_code, f"{done.output}{done.exception or ''}"


def released(folder: str, arguments: list[list[str]]) -> tuple[Any, list[tuple[int, str]], Any]:
    """In an interpreter of its own: the store before and after some commands, and what they said."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    client = open_store(Settings(store=Path(folder, "store")))
    before = stored(client)
    return before, [ask(folder, *words) for words in arguments], stored(client)


def served(folder: str) -> dict[str, Any]:
    """In an interpreter of its own: what the API says of releases."""
    from pipeline.api.server import serve_http
    from pipeline.settings import Settings

    with serve_http(Settings(home=Path(folder), store=Path(folder, "store"), http_port=0), bytes, {}) as port:

        def ask(path: str) -> tuple[int, Any]:
            return answered(f"http://127.0.0.1:{port}/api/v1/released{path}", 30)

        days = ("", "/private/2021-09-19", "/suppressed/2021-09-19", "/private/2021-09-18", "/private/0001-01-01")
        return {path: ask(path) for path in days}


def served_to_anybody(folder: str) -> dict[str, Any]:
    """In an interpreter of its own: what is answered without a token where access is configured."""
    from pipeline.access.roles import Role
    from pipeline.access.tokens import TokenFile
    from pipeline.api.server import serve_http
    from pipeline.settings import Settings

    settings = Settings(home=Path(folder), store=Path(folder, "store"), http_port=0)
    TokenFile(settings.tokens_path).create("somebody", (Role.VIEWER,), 1)
    paths = (
        "/released",
        "/released/2021-09-19",
        "/released/2021-09-18",
        "/api/v1/released",
        "/released/suppressed/2021-09-19",
    )
    with serve_http(settings, bytes, {}) as port:
        found = {path: answered(f"http://127.0.0.1:{port}{path}", 30) for path in paths}
    settings.tokens_path.unlink()
    return found


def corrected(folder: str, scans: list[Scan]) -> Any:
    """In an interpreter of its own: the releases once scans came late and both were asked for again."""
    client = feed(folder, scans)
    for kind in ("private", "suppressed"):
        assert ask(folder, kind, "--day", "2021-09-19")[0] == 0
    return stored(client)


def beside_a_rival(folder: str) -> list[float]:
    """In an interpreter of its own: the ε of the release that holds for who waits for rivals, and for a rival who was slow."""
    import time
    from datetime import UTC, date, datetime
    from types import SimpleNamespace

    from pipeline.settings import Settings
    from pipeline.store import releases
    from pipeline.store.client import open_store

    client = open_store(Settings(store=Path(folder)))
    ours = releases.Release("private", date(2021, 9, 19), datetime(2021, 9, 21, tzinfo=UTC), 1.0, {}, [])

    def rival_stores(_seconds: float) -> None:
        # It had looked before us and began to insert, but its insert took its time.
        client.command(
            "INSERT INTO release_rows SELECT * REPLACE (0.5 AS epsilon, precedence + 1 AS precedence) FROM release_rows"
        )

    def slept(seconds: float) -> None:
        if not waited:
            early.append(releases.stored_release(client, "private", ours.day, 20.0))
            rival_stores(seconds)
        waited.append(seconds)
        now.append(now[-1] + int(seconds * 1_000_000_000) + 1_000_000)

    waited: list[float] = []
    early: list[Any] = []
    now = [time.time_ns()]
    releases.time = SimpleNamespace(sleep=slept, time_ns=lambda: now[-1])  # type: ignore[assignment]
    told = releases.keep_first(client, ours, None, 10.0).epsilon
    assert early == [None], "told while another could take its place"
    return [told, releases.keep_first(client, ours, None, 10.0).epsilon]


def release_and_die(folder: str) -> None:
    """`pipeline release private` in a process that ends before a word of what it has kept is out."""
    code = (
        "import os, pipeline.commands.release as command\n"
        "command._write = lambda *_: os._exit(9)\n"
        f"command.command(['private', '--day', '2021-09-19', '--store', {folder + '/store'!r}])\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout) == (9, ""), child.stderr


def cells_of(visits: list[Any], visitor: str | None = None) -> Counts:
    """Visitors by cell of the Sunday, by the definition."""
    place = {venue: (area, category) for venue, category, area in REGISTRY}
    arrived, there = set(), set()
    for venue, who, start, end in visits:
        if visitor not in (None, who):
            continue
        for hour in range(24):
            begins = SUNDAY + hour * HOUR
            cell = (*place.get(venue, ("", "unknown")), begins // 1000)
            if begins <= start < begins + HOUR:
                arrived.add((cell, who))
            if start < begins + HOUR <= end:
                there.add((cell, who))
    arrivals, occupancy = Counter(cell for cell, _ in arrived), Counter(cell for cell, _ in there)
    return {cell: (arrivals[cell], occupancy[cell]) for cell in arrivals | occupancy}


def distance(left: Counts, right: Counts, which: int) -> int:
    """By how much two tables differ in all."""
    return sum(abs(left.get(cell, (0, 0))[which] - right.get(cell, (0, 0))[which]) for cell in left | right)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("release")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_AUDIT_LOG", str(folder / "audit.jsonl"))
        yield folder


@pytest.fixture(scope="module")
def filled(home: Path) -> dict[str, Any]:
    answer: dict[str, Any] = run_isolated(fill, str(home), scans_of(1))
    return answer


@pytest.fixture(scope="module")
def told(home: Path, filled: dict[str, Any]) -> tuple[Any, list[tuple[int, str]], Any]:  # noqa: ARG001
    """A crash, then the store before and after the same is asked for again, with another ε."""
    release_and_die(str(home))
    words = [
        ["private", "--output", str(home / "told.json")],
        ["suppressed", "--day", "2021-09-19"],
        ["check", "--day", "2021-09-19"],
        ["private", "--day", "2021-09-20"],
        ["budget", "--format", "csv"],
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_RELEASE_EPSILON", "0.5")
        answer: tuple[Any, list[tuple[int, str]], Any] = run_isolated(released, str(home), words)
    return answer


def test_a_visitor_moves_four_cells_of_a_day_at_most(filled: dict[str, Any]) -> None:
    assert filled["unbounded"] == cells_of(filled["visits"])
    assert len(cells_of(filled["visits"], BUSY)) > CELLS
    for which in (0, 1):
        assert distance(filled["unbounded"], filled["unbounded without"], which) > CELLS
        assert 0 < distance(filled["bounded"], filled["bounded without"], which) <= CELLS
    # Nobody else's cells depend on the one who is left out.
    cells = filled["bounded"] | filled["bounded without"]
    moved = {cell for cell in cells if filled["bounded"].get(cell) != filled["bounded without"].get(cell)}
    assert len(moved) == CELLS


def test_a_day_is_drawn_once_whatever_crashes(home: Path, told: tuple[Any, list[tuple[int, str]], Any]) -> None:
    kept, said, after = told
    assert kept["draws"] == [("private", "2021-09-19")]
    assert kept["budget"][0][:2] == ("2021-09-19", 1.0)
    assert [status for status, _ in said] == [0, 0, 0, 1, 0], said
    noted = [(each["action"], each["what"]) for each in AuditLog(home / "audit.jsonl").entries()]
    assert noted[:3] == [
        ("release private", "2021-09-19"),
        ("release private", "the newest closed day"),
        ("release suppressed", "2021-09-19"),
    ]
    assert "twelve hours after its end" in said[3][1]
    assert after["private"] == kept["private"]
    assert after["draws"] == [("private", "2021-09-19"), ("suppressed", "2021-09-19")]
    file = json.loads((home / "told.json").read_text())
    assert file["sha256"] == kept["budget"][0][2]
    assert kept["budget"][0][2] in said[4][1]
    assert sorted(tuple(row[1:]) for row in file["rows"]) == sorted(row[1:] for row in kept["private"])


def test_what_is_released_has_as_much_noise_as_its_epsilon_says(
    home: Path, filled: dict[str, Any], told: tuple[Any, list[tuple[int, str]], Any]
) -> None:
    rows, true = told[0]["private"], filled["bounded without"]
    scale = CELLS / (told[0]["budget"][0][1] / 2)
    method = json.loads((home / "told.json").read_text())["method"]
    assert method["scale"] == pytest.approx({"arrivals": scale, "occupancy": scale})
    noise = [row[3 + which] - true.get((row[1], row[2], row[0]), (0, 0))[which] for row in rows for which in range(2)]
    # The mean distance of discrete Laplace noise is about its scale, and so is that distance's deviation: six of them either way.
    assert sum(map(abs, noise)) / len(noise) == pytest.approx(scale, abs=6 * scale / math.sqrt(len(noise)))
    assert noise.count(0) < len(noise) / 4
    # Nobody is there in most cells, so without noise none of this is possible.
    assert min(row[3] for row in rows) < 0
    assert min(row[4] for row in rows) < 0


def without_visits(folder: str) -> Any:
    """In an interpreter of its own: days of a store to which nobody came in between, as they are asked for; then all releases."""
    scans = [
        Scan("v-0", f"p-{day}-{i}", "check_in", SUNDAY + day * 24 * HOUR + 9 * HOUR, 1, f"e-{day}-{i}")
        for day in (0, 3, 5)
        for i in range(12)
    ]
    client = feed(folder, scans)
    asked = [*(f"2021-09-{day}" for day in range(18, 25)), None]
    said = {
        f"{kind} {day}": ask(folder, kind, *(("--day", day) if day else ()))
        for kind in ("private", "suppressed")
        for day in asked
    }
    cells = client.query("SELECT kind, toString(day), length(hour) FROM release_rows ORDER BY ALL").result_rows
    return {name: status for name, (status, _) in said.items()}, cells


def test_each_day_is_released_whether_or_not_anybody_was_there(tmp_path: Path) -> None:
    said, cells = run_isolated(without_visits, str(tmp_path))
    days = [f"2021-09-{day}" for day in (19, 20, 21, 22)]
    # Not before anybody ever was there, and not before the day is closed; 22 is the newest.
    allowed = {f"{kind} {day}" for kind in ("private", "suppressed") for day in [*days, None]}
    assert {name for name, status in said.items() if status == 0} == allowed
    assert [row[:2] for row in cells] == [(kind, day) for kind in ("private", "suppressed") for day in days]
    # And each tells of the same cells.
    assert len({(kind, length) for kind, _, length in cells}) == 2


def test_what_was_released_stays_when_scans_come_late(home: Path, told: tuple[Any, list[tuple[int, str]], Any]) -> None:
    late = [Scan("v-0", f"late-{i}", "check_in", SUNDAY + 9 * HOUR, 1, f"late-{i}") for i in range(50)]
    later = run_isolated(corrected, str(home), late)
    assert later == told[2]


def test_the_api_shows_what_was_released_and_makes_nothing(
    home: Path, told: tuple[Any, list[tuple[int, str]], Any]
) -> None:
    found = run_isolated(served, str(home))
    status, ledger = found[""]
    assert status == 200
    assert [(row["kind"], row["epsilon"]) for row in ledger["items"]] == [("private", 1.0), ("suppressed", 0.0)]
    status, private = found["/private/2021-09-19"]
    assert status == 200
    assert private["note"]["sha256"] == told[2]["budget"][0][2] == ledger["items"][0]["sha256"]
    rows = [(row["area"], row["category"], row["arrivals"], row["occupancy"]) for row in private["figures"]]
    assert sorted(rows) == sorted(row[1:] for row in told[2]["private"])
    assert {row["arrivals"] is None for row in found["/suppressed/2021-09-19"][1]["figures"]} == {True, False}
    assert (found["/private/2021-09-18"][0], found["/private/0001-01-01"][0]) == (404, 404)


def test_numbers_with_noise_and_the_ledger_of_what_they_spent_are_answered_to_everybody_and_nothing_else_is(
    home: Path, told: tuple[Any, list[tuple[int, str]], Any]
) -> None:
    found = run_isolated(served_to_anybody, str(home))
    assert {path: status for path, (status, _) in found.items()} == {
        "/released": 200,
        "/released/2021-09-19": 200,
        "/released/2021-09-18": 404,
        "/api/v1/released": 401,
        "/released/suppressed/2021-09-19": 404,
    }
    assert [(row["kind"], row["sha256"]) for row in found["/released"][1]["items"]] == [
        ("private", told[2]["budget"][0][2])
    ]
    assert found["/released/2021-09-19"][1]["note"] == found["/released"][1]["items"][0]


def test_of_two_machines_that_draw_for_one_day_both_tell_the_same(tmp_path: Path) -> None:
    assert run_isolated(beside_a_rival, str(tmp_path)) == [0.5, 0.5]


def test_released_tables_list_every_cell_and_hide_the_small(
    filled: dict[str, Any], told: tuple[Any, list[tuple[int, str]], Any]
) -> None:
    store = told[2]
    pairs = {(area, category) for _, category, area in REGISTRY} | {("", "unknown")}
    assert {row[:3] for row in store["private"]} == {
        (SUNDAY // 1000 + 3600 * hour, *pair) for hour in range(24) for pair in pairs
    }
    true = cells_of([visit for visit in filled["visits"] if visit[1] != BUSY])
    for hour, area, category, value in store["suppressed"]:
        if area is not None and category is not None:
            visitors = true.get((area, category, hour), (0, 0))[0]
            assert value is None or visitors >= 10
    assert {row[3] is None for row in store["suppressed"]} == {True, False}
