"""State back from the store: in as many pieces as a large day takes, and after queries that failed."""

import random
from pathlib import Path
from typing import Any

from tests.isolated import run_isolated
from tests.reference import DAY, HOUR, MINUTE, Scan, line_of

_SUNDAY = 1_632_009_600_000


def _visits(chance: random.Random, day: int, people: int) -> list[Scan]:
    scans = []
    for person in range(people):
        venue, at = f"venue-{chance.randrange(12)}", _SUNDAY + day * DAY + chance.randrange(DAY)
        scans.append(Scan(venue, f"p{person}", "check_in", at, chance.randrange(1, 4), f"{day}-{person}"))
        if chance.random() < 0.5:
            scans.append(
                Scan(venue, f"p{person}", "check_out", at + chance.randrange(10 * HOUR), 1, f"{day}-{person}o")
            )
    return scans


def load_in_pieces(folder: str) -> list[tuple[int, Any]]:
    """In an interpreter of its own: load one store in pieces of several sizes; how many pieces, and all that follows."""
    from datetime import timedelta

    import numpy as np

    from pipeline.core.names import texts
    from pipeline.core.shard import Shard, VenueRules, horizon_of
    from pipeline.engine import open_engine
    from pipeline.settings import Settings
    from pipeline.store import estimated_rows, recovery
    from tests.columns import columns_of

    settings = Settings(store=Path(folder), late_window=timedelta(hours=2))
    engine = open_engine(settings, clock="events")
    engine.assign("t", [0])
    chance = random.Random(1)
    for day in range(4):
        scans = sorted(_visits(chance, day, 400), key=lambda scan: scan.occurred_at_ms)
        values = [line_of(scan) for scan in scans]
        offset = day * 10_000
        engine.process("t", 0, range(offset, offset + len(values)), [0] * len(values), values)
        write = engine.take(idle=False)
        assert write is not None
        engine.write(write)
        engine.settle()
    client = engine._client
    newest = scans[-1].occurred_at_ms
    horizon = horizon_of(newest, 2 * HOUR)
    # Not accounted for: what came last.
    progress = [recovery.Progress("t", 0, offset + len(values) // 2)]
    late = [
        *scans[len(values) // 2 :],
        *(Scan(scan.venue_id, scan.visitor_id, "check_out", newest) for scan in scans[-100:]),
    ]

    def names(known: Any) -> list[str]:
        offsets, data = texts(known, np.arange(int(known.used[0]), dtype=np.int32))
        return [data[offsets[i] : offsets[i + 1]].tobytes().decode() for i in range(len(offsets) - 1)]

    def rows(table: Any, venues: list[str], visitors: list[str]) -> list[tuple[Any, ...]]:
        count = int(table.used[0])
        columns = {
            name: getattr(table, name)[:count].tolist() for name in table._fields if name not in ("used", "venue")
        }
        if "visitor" in columns:
            columns["visitor"] = [visitors[code] for code in columns["visitor"]]
        return sorted(zip((venues[code] for code in table.venue[:count]), *columns.values(), strict=True))

    def moves(shard: Shard) -> list[list[tuple[int, ...]]]:
        first, log = shard.logged_moves()
        found = {}
        for venue, move in zip(shard.venue_ids(), first.tolist(), strict=True):
            mine = found.setdefault(venue, [])
            while move >= 0:
                at, move, age, persons = log.rows[move].item()
                mine.append((at, age, persons))
        return [sorted(found[venue]) for venue in sorted(found)]

    results = []
    plain_load, plain_moves = Shard.load, Shard.load_moves
    pieces = 0

    def counted(method: Any) -> Any:
        def call(self: Shard, *arguments: Any) -> Any:
            nonlocal pieces
            pieces += 1
            return method(self, *arguments)

        return call

    Shard.load, Shard.load_moves = counted(plain_load), counted(plain_moves)  # type: ignore[method-assign]
    for most in (1_000_000, 100, 1):
        recovery._SCANS = estimated_rows._VISITS = most  # type: ignore[misc]
        pieces = 0
        shard = Shard(lambda _venue: VenueRules(4 * HOUR))
        shard.start_at(horizon)
        recovery.load_shard(client, shard, "1", progress, moves=True)
        loaded = pieces
        logged = moves(shard)
        shard.advance(newest)
        outcome = shard.apply(columns_of(late)).tolist()
        shard.advance(newest + MINUTE)
        changes = shard.take_changes()
        known = names(changes.venue_names), names(changes.visitor_names)
        told = [rows(table, *known) for table in (changes.visits, changes.minutes, changes.hours, changes.now)]
        results.append((loaded, [shard.scans_held, shard.pairs_held, shard.open_visits(), logged, outcome, *told]))
    engine.close()
    return results


def test_state_loaded_in_many_pieces_is_that_loaded_in_one(tmp_path: Path) -> None:
    (whole, expected), *others = run_isolated(load_in_pieces, str(tmp_path))
    assert whole == 2
    assert expected[0] > 500
    assert all(expected)
    assert [loaded for loaded, _ in others] == sorted(loaded for loaded, _ in others)
    assert others[-1][0] == 2 * 12
    for _, found in others:
        assert found == expected


def ask_after_failures(folder: str) -> list[Any]:
    """In an interpreter of its own: what a query answers after one that failed when it had answered in part."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    client = open_store(Settings(store=Path(folder)))
    fails = "SELECT number, throwIf(number = 3000000) FROM numbers(4000000)"
    answers: list[Any] = []
    for failing in (client.query_arrow, client.query, client.command, client.raw_query, client.raw_stream):
        for following in (
            lambda: client.query("SELECT 42").result_rows[0][0],
            lambda: client.query_arrow("SELECT 42 AS n")["n"].to_pylist()[0],
            lambda: client.command("SELECT 42"),
            lambda: int(client.raw_query("SELECT 42 FORMAT TSV")),
        ):
            try:
                failing(f"{fails} FORMAT Arrow" if failing in (client.raw_query, client.raw_stream) else fails)
                answers.append("did not fail")
            except ClickHouseError:
                answers.append(following())
    return answers


def test_a_query_that_failed_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    assert run_isolated(ask_after_failures, str(tmp_path)) == [42] * 20


def look_at_retention_afresh(folder: str) -> int:
    """In an interpreter of its own: how often a worker that has just begun loads its state anew at its first look."""
    from pipeline.engine import open_engine
    from pipeline.settings import Settings

    engine = open_engine(Settings(store=Path(folder)), clock="events")
    engine.assign("t", [0])
    values = [line_of(scan) for scan in _visits(random.Random(1), 0, 20)]
    engine.process("t", 0, range(len(values)), [0] * len(values), values)
    write = engine.take(idle=False)
    assert write is not None
    engine.write(write)
    loaded: list[object] = []
    engine._recover = loaded.append  # type: ignore[method-assign,assignment]
    assert not engine.retain(lead=True)
    return len(loaded)


def test_a_fresh_worker_does_not_load_its_state_anew_at_its_first_look_at_the_retention(tmp_path: Path) -> None:
    """Nothing was ever cut, so memory that reaches back for ever holds nothing that is closed."""
    assert run_isolated(look_at_retention_afresh, str(tmp_path)) == 0
