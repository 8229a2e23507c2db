"""Files of an embedded store that are not what was written: whoever opens it or asks it is told so, and what to do."""

import random
from pathlib import Path

import pytest

from pipeline.errors import StoreDamagedError
from tests.faults import feed as feeds
from tests.faults.feed import Feed
from tests.faults.world import World
from tests.isolated import run_isolated
from tests.waiting import wait_until


def stored(folder: str) -> str:
    """In an interpreter of its own: some stored visits; returns the folder of their table."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    client = open_store(Settings(store=Path(folder)))
    client.command(
        "INSERT INTO visit_rows (venue_id, visitor_id, checked_in_at) "
        "SELECT 'v', toString(number), toDateTime64('2026-11-01 00:00:00', 3, 'UTC') + number FROM numbers(1000)"
    )
    sql = "SELECT data_paths[1] FROM system.tables WHERE database = currentDatabase() AND name = 'visit_rows'"
    return str(client.query(sql).result_rows[0][0])


def opened(folder: str, read_only: bool) -> str:
    """In an interpreter of its own: how many visits a store holds, or what is said of its damage."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from pipeline.store.writer import store_errors

    try:
        client = open_store(Settings(store=Path(folder)), read_only=read_only)
        with store_errors():
            return str(client.query("SELECT count(DISTINCT visitor_id) FROM visit_rows").result_rows[0][0])
    except StoreDamagedError as error:
        return str(error)


def _spoil(file: Path) -> None:
    spoilt = bytearray(file.read_bytes())
    for place in range(0, len(spoilt), 10):
        spoilt[place] ^= 0xFF
    file.write_bytes(spoilt)


@pytest.mark.parametrize("read_only", [False, pytest.param(True, marks=pytest.mark.long)])
def test_damaged_rows_are_no_outage(tmp_path: Path, read_only: bool) -> None:
    table = Path(run_isolated(stored, str(tmp_path)))
    assert run_isolated(opened, str(tmp_path), read_only) == "1000"
    for file in table.glob("*/data.bin"):
        _spoil(file)
    assert "the store is damaged" in run_isolated(opened, str(tmp_path), read_only)


def test_a_store_of_which_parts_were_set_aside_is_not_written_to_but_can_be_read(tmp_path: Path) -> None:
    table = Path(run_isolated(stored, str(tmp_path)))
    for file in table.glob("*/checksums.txt"):
        _spoil(file)
    assert "(1 of visit_rows)" in run_isolated(opened, str(tmp_path), False)
    assert run_isolated(opened, str(tmp_path), True) == "0"  # with a warning
    assert "(1 of visit_rows)" in run_isolated(opened, str(tmp_path), False), "as long as they lie there"


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.parametrize("file", ["data.bin", "checksums.txt"])
def test_a_worker_ends_on_a_damaged_store_and_the_next_builds_it_anew_once_that_is_away(
    tmp_path: Path, file: str
) -> None:
    world = World(tmp_path, 2, {}, shared=False)
    feed = Feed(world.kafka, random.Random(1), 150)
    try:
        for record in feeds.venues(random.Random(1)):
            feed.register(record)
        feed.start()
        wait_until(lambda: feed.sent > 500)
        feed.stop()
        world.run("worker", "--drain")
        before = _verified(world)
        assert len(before) == 4
        for spoilt in (tmp_path / "home" / "store").rglob(file):
            _spoil(spoilt)
        worker = world.start_worker()
        wait_until(lambda: worker.status is not None)
        assert worker.status == 1
        assert "the store is damaged" in worker.log
        assert "Traceback" not in worker.log
        world.forget_local_state()
        world.run("worker", "--drain")
        assert _verified(world) == before
    finally:
        world.close()


def _verified(world: World) -> list[str]:
    """How many rows of each kind `pipeline verify` has found equal; what passes with the time is left out."""
    said = world.run("verify").splitlines()
    return [
        line for line in said if line.endswith("equal") and line.split()[0] in ("scans", "visits", "stored", "dead")
    ]
