"""`pipeline release`: each day once, the same after a crash and after corrections; a visitor moves no more of it than is said."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.isolated import run_isolated
from tests.reference import DAY, HOUR, MINUTE, Scan, line_of

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


def fill(folder: str, scans: list[Scan]) -> tuple[Counts, Counts, list[Any]]:
    """In an interpreter of its own: a store of these scans; visitors by cell, bounded and not, and its visits."""
    from datetime import date

    from pipeline.engine import open_engine
    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from pipeline.store.releases import visitors_by_cell

    settings = Settings(home=Path(folder), store=Path(folder) / "store")
    engine = open_engine(settings, clock="events")
    offset = engine.assign("t", [0])[0] or 0
    lines = [line_of(scan) for scan in scans]
    engine.process("t", 0, range(offset, offset + len(lines)), [0] * len(lines), lines)
    engine.settle()
    engine.close()
    client = open_store(settings)
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
    return counts(CELLS), counts(1_000), visits


def shown(folder: str, arguments: list[list[str]]) -> tuple[list[tuple[int, str]], dict[str, list[Any]]]:
    """In an interpreter of its own: what `pipeline release` answers to each, and what is in the store then."""
    from click.testing import CliRunner

    from pipeline.commands.release import command
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    said = []
    for words in arguments:
        done = CliRunner().invoke(command, [*words, "--store", f"{folder}/store"])
        said.append((done.exit_code, f"{done.output}{done.exception or ''}"))
    client = open_store(Settings(store=Path(folder, "store")), read_only=True)
    asked = {
        "draws": "SELECT kind, toString(day) FROM release_rows ORDER BY ALL",
        "private": "SELECT toUnixTimestamp(hour), area, category, arrivals, occupancy FROM released_private ORDER BY ALL",
        "suppressed": "SELECT toUnixTimestamp(hour), area, category, arrivals FROM released_suppressed ORDER BY ALL",
        "budget": "SELECT toString(day), epsilon, sha256 FROM privacy_budget",
    }
    return said, {name: [tuple(row) for row in client.query(sql).result_rows] for name, sql in asked.items()}


def release_and_die(folder: str, where: str) -> None:
    """`pipeline release private` in a process that ends without a word when it comes to `where`."""
    code = (
        "import os, pipeline.store.releases, pipeline.release.publish, pipeline.commands.release as command\n"
        f"{where} = lambda *_: os._exit(9)\n"
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
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("release")


@pytest.fixture(scope="module")
def filled(home: Path) -> tuple[Counts, Counts, list[Any]]:
    answer: tuple[Counts, Counts, list[Any]] = run_isolated(fill, str(home), scans_of(1))
    return answer


def test_a_visitor_moves_four_cells_of_a_day_at_most(filled: tuple[Counts, Counts, list[Any]], tmp_path: Path) -> None:
    bounded, unbounded, visits = filled
    assert unbounded == cells_of(visits)
    assert len(cells_of(visits, BUSY)) > CELLS
    without = run_isolated(fill, str(tmp_path), [scan for scan in scans_of(1) if scan.visitor_id != BUSY])
    for which in (0, 1):
        assert distance(unbounded, without[1], which) > CELLS
        assert 0 < distance(bounded, without[0], which) <= CELLS
    # Nobody else's cells depend on the one who is left out.
    moved = {cell for cell in bounded | without[0] if bounded.get(cell) != without[0].get(cell)}
    assert len(moved) == CELLS


def test_a_day_is_drawn_once_whatever_crashes_and_whatever_is_corrected(
    home: Path, filled: tuple[Counts, Counts, list[Any]]
) -> None:
    folder = str(home)
    # Before anything is kept nothing was told, so a new draw is no second one.
    release_and_die(folder, "pipeline.release.publish.keep_first")
    _, store = run_isolated(shown, folder, [])
    assert store["draws"] == []
    # Kept, and not told.
    release_and_die(folder, "command._write")
    _, kept = run_isolated(shown, folder, [])
    assert kept["draws"] == [("private", "2021-09-19")]
    assert kept["budget"][0][:2] == ("2021-09-19", 1.0)
    file = home / "told.json"
    os.environ["PIPELINE_RELEASE_EPSILON"] = "0.5"
    try:
        said, told = run_isolated(
            shown,
            folder,
            [
                ["private", "--output", str(file)],
                ["suppressed", "--day", "2021-09-19"],
                ["check", "--day", "2021-09-19"],
                ["private", "--day", "2021-09-20"],
                ["budget", "--format", "csv"],
            ],
        )
    finally:
        del os.environ["PIPELINE_RELEASE_EPSILON"]
    assert [status for status, _ in said] == [0, 0, 0, 1, 0], said
    assert "twelve hours after its end" in said[3][1]
    assert told["private"] == kept["private"]
    assert json.loads(file.read_text())["sha256"] == kept["budget"][0][2]
    assert kept["budget"][0][2] in said[4][1]
    assert [row[3:] for row in json.loads(file.read_text())["rows"]] == [list(row[3:]) for row in kept["private"]]
    # Scans that come later change the counts, and neither release.
    run_isolated(fill, folder, [Scan("v-0", f"late-{i}", "check_in", SUNDAY + 9 * HOUR, 1, "e") for i in range(50)])
    _, later = run_isolated(shown, folder, [["private"], ["suppressed"]])
    assert (later["private"], later["suppressed"]) == (told["private"], told["suppressed"])
    assert max(visit[2] for visit in filled[2]) > SUNDAY + DAY


def test_released_tables_list_every_cell_and_hide_the_small(
    home: Path, filled: tuple[Counts, Counts, list[Any]]
) -> None:
    _, store = run_isolated(shown, str(home), [["private"], ["suppressed"]])
    pairs = {(area, category) for _, category, area in REGISTRY} | {("", "unknown")}
    assert {row[:3] for row in store["private"]} == {
        (SUNDAY // 1000 + 3600 * hour, *pair) for hour in range(24) for pair in pairs
    }
    true = cells_of(filled[2])
    numbers = {(area, category, hour): value for hour, area, category, value in store["suppressed"]}
    for hour, area, category, value in store["suppressed"]:
        if area is not None and category is not None:
            visitors = true.get((area, category, hour), (0, 0))[0]
            assert value is None or visitors >= 10
    assert any(value is not None for value in numbers.values())
    assert any(value is None for value in numbers.values())
