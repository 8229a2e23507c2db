"""Who was erased stays away, and what was released is never drawn again, also once the store is lost and built anew."""

import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StoreUnavailableError, UserError
from pipeline.store.decisions import Decisions
from tests.integration.checkins import World
from tests.integration.test_release import BUSY, ask, scans_of, stored
from tests.isolated import run_isolated
from tests.reference import line_of


def opened(folder: str) -> Any:
    """A connection to a folder's store, which is made if it is not there."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    return open_store(Settings(home=Path(folder), store=Path(folder) / "store"))


def decided(folder: str) -> Any:
    """In an interpreter of its own: erase who goes about all day, release the day in both kinds; what is in the store then."""
    from itertools import groupby

    from pipeline.engine import open_engine
    from pipeline.settings import Settings
    from pipeline.store.recovery import read_standing

    engine = open_engine(Settings(home=Path(folder), store=Path(folder) / "store"), clock="events")
    client = opened(folder)
    for topic, rows in groupby(read_standing(client).progress, lambda row: row.topic):
        engine.assign(topic, [row.partition for row in rows])
    engine.erase(BUSY)
    engine.close()
    return found(folder)


def found(folder: str) -> Any:
    """In an interpreter of its own: what is released when it is asked for, and who is in the store."""
    for kind in ("private", "suppressed"):
        status, said = ask(folder, kind, "--day", "2021-09-19")
        assert status == 0, said
    client = opened(folder)
    visitors = {
        row[0] for view in ("scans", "visits") for row in client.query(f"SELECT visitor_id FROM {view}").result_rows
    }
    receipts = client.query("SELECT digest, receipt FROM erased_rows FINAL").result_rows
    return {**stored(client), "receipts": receipts, "visitors": visitors}


def known(folder: str) -> Any:
    """In an interpreter of its own: what a store that is opened knows was decided."""
    client = opened(folder)
    return client.query("SELECT digest, receipt, finished FROM erased_rows FINAL").result_rows, stored(client)


def draw_and_die(folder: str, where: str) -> None:
    """Keep a release, and erase somebody, in a process that ends at a place in each."""
    for decide in ("keep_first(client, made, decisions)", "erasure.begin(client, 'somebody', decisions)"):
        code = (
            "import os\n"
            "from datetime import UTC, date, datetime\n"
            "from pathlib import Path\n"
            "from pipeline.settings import Settings\n"
            "from pipeline.store import erasure, releases\n"
            "from pipeline.store.client import open_store\n"
            "from pipeline.store.decisions import decisions_of\n"
            "from pipeline.store.releases import Figure, Release, keep_first\n"
            f"settings = Settings(store=Path({folder!r}, 'store'))\n"
            "client, decisions = open_store(settings), decisions_of(settings)\n"
            "figures = [Figure(1632009600, 'north', 'bar', -3, 2), Figure(1632013200, '', 'mall', 0, 4)]\n"
            "made = Release('private', date(2021, 9, 19), datetime(2021, 9, 21, tzinfo=UTC), 1 - 2**-53, {'a': 1}, figures)\n"
            "def die(*_, **__): os._exit(9)\n"
            f"{where}\n"
            f"{decide}\n"
            "os._exit(9)\n"
        )
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert child.returncode == 9, child.stderr


@pytest.mark.long
@pytest.mark.kafka
def test_a_store_built_anew_keeps_the_erased_away_and_what_was_released(
    kafka_topics: Callable[..., str], tmp_path: Path
) -> None:
    world = World(kafka_topics(), tmp_path, PIPELINE_CLOCK="events")
    store, scans = tmp_path / "store", tmp_path / "scans.ndjson"
    scans.write_bytes(b"".join(line_of(scan) + b"\n" for scan in scans_of(1)))
    world.run("replay", scans, "--store", store)
    before = run_isolated(decided, str(tmp_path))
    assert BUSY not in before["visitors"]
    assert len(before["visitors"]) > 100
    assert len(before["receipts"]) == 1
    assert [row[0] for row in before["draws"]] == ["private", "suppressed"]

    shutil.rmtree(store)
    world.run("replay", scans, "--store", store)
    assert run_isolated(found, str(tmp_path)) == before

    shutil.rmtree(store)
    world.run("produce", scans)
    world.drain(store)
    assert run_isolated(found, str(tmp_path)) == before


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("releases.insert_release = erasure._note = die", id="before the store has it"),
        pytest.param("", id="once it is kept", marks=pytest.mark.long),
    ],
)
def test_what_was_decided_outlives_a_crash_and_the_store(tmp_path: Path, where: str) -> None:
    draw_and_die(str(tmp_path), where)
    shutil.rmtree(tmp_path / "store")
    erased, releases = run_isolated(known, str(tmp_path))
    assert [finished for *_, finished in erased] == [1]
    (ledger,) = releases["budget"]
    assert ledger[:2] == ("2021-09-19", 1 - 2**-53)
    assert releases["private"] == [(1632009600, "north", "bar", -3, 2), (1632013200, "", "mall", 0, 4)]


@pytest.mark.long
def test_a_store_that_was_moved_or_is_older_than_its_decisions_writes_them_beside_it(tmp_path: Path) -> None:
    draw_and_die(str(tmp_path), "")
    shutil.rmtree(tmp_path / "store.decisions")
    before = run_isolated(known, str(tmp_path))
    shutil.rmtree(tmp_path / "store")
    erased, releases = run_isolated(known, str(tmp_path))
    assert (erased[0][:2], releases) == (before[0][0][:2], before[1])


def test_decisions_are_for_their_owner_alone_and_never_change(tmp_path: Path) -> None:
    decisions = Decisions(tmp_path / "store.decisions")
    assert (decisions.erased(), decisions.releases()) == ({}, set())
    decisions.note_erased([("aa", "first"), ("bb", "second")])
    decisions.note_erased([("aa", "another")])
    assert decisions.erased() == {"aa": "first", "bb": "second"}
    day = date(2021, 9, 19).isoformat()
    assert decisions.keep_release("private", day, b'{"n": 1}') == b'{"n": 1}'
    assert decisions.keep_release("private", day, b'{"n": 2}') == b'{"n": 1}'
    assert decisions.releases() == {("private", day)}
    files = sorted(tmp_path.rglob("*"))
    assert [path.name for path in files] == ["store.decisions", "erased.jsonl", "private-2021-09-19.json"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o700, 0o600, 0o600]


def test_a_line_that_a_crash_cut_off_costs_no_other(tmp_path: Path) -> None:
    decisions, path = Decisions(tmp_path), tmp_path / "erased.jsonl"
    decisions.note_erased([("aa", "first")])
    path.write_bytes(path.read_bytes() + b'{"digest": "b')
    assert decisions.erased() == {"aa": "first"}
    decisions.note_erased([("cc", "third")])
    assert decisions.erased() == {"aa": "first", "cc": "third"}


def test_damaged_decisions_are_told_and_nothing_is_decided_that_cannot_be_kept(tmp_path: Path) -> None:
    decisions = Decisions(tmp_path / "folder")
    (tmp_path / "folder").write_text("in its place")
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        decisions.keep_release("private", "2021-09-19", b"{}")
    (tmp_path / "folder").unlink()
    decisions.note_erased([("aa", "first")])
    (tmp_path / "folder" / "erased.jsonl").write_text("no JSON\n")
    with pytest.raises(UserError, match="put back a copy"):
        decisions.erased()
