"""The simulated store answers as ClickHouse does: histories played on both, statement by statement."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.isolated import run_isolated


def play_on_both(folder: str, seed: int) -> int:
    """In an interpreter of its own: play a history; AssertionError where the two answer differently. Returns the statements."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from tests.simulation import world as simulation
    from tests.simulation.store import Answer, Client
    from tests.views import differences, read_views

    real = open_store(Settings(store=Path(folder)))
    compared = 0

    def rows_of(table: Any) -> list[tuple[Any, ...]]:
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def alike(sql: str, ours: list[Any], theirs: list[Any]) -> None:
        nonlocal compared
        compared += 1

        def plain(rows: list[Any]) -> list[tuple[str, ...]]:
            found = [
                tuple(
                    str(
                        sorted(v)
                        if isinstance(v, list)
                        else v.decode()
                        if isinstance(v, bytes)
                        else int(v)
                        if isinstance(v, bool)
                        else v
                    )
                    for v in row
                )
                for row in rows
            ]
            return found if " ORDER BY " in sql.rsplit(")", 1)[-1] and "LIMIT" not in sql else sorted(found)

        # Rows that are replaced go with a merge, which comes when it likes: so many rows there are, or fewer.
        if "count()" in sql:
            ours, theirs = ([row[:-1] for row in rows] for rows in (ours, theirs))
        asked = re.search(r"FROM \w+( FINAL)?", sql)  # of what it is about, not of what it compares with
        assert asked, sql
        assert set(plain(theirs)) == set(plain(ours)) if asked[1] else set(plain(theirs)) <= set(plain(ours)), sql

    class Both(Client):
        def query(
            self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
        ) -> Answer:
            # Both inside the gate: who stands still after an answer has both answers.
            with self._gate("query"):
                answer = Answer(self._store.query(sql, parameters)[1])
                alike(sql, answer.result_rows, real.query(sql, parameters, settings=settings).result_rows)
            return answer

        def query_arrow(self, sql: str) -> Any:
            with self._gate("query"):
                answer = Client(self._store).query_arrow(sql)
                alike(sql, rows_of(answer), rows_of(real.query_arrow(sql)))
            return answer

        def command(self, sql: str, settings: Mapping[str, Any] | None = None) -> None:
            with self._gate("command"):
                self._store.command(sql)
                real.command(sql, settings=settings)

        def insert_arrow(self, table: str, rows: Any, settings: Mapping[str, Any] | None = None) -> None:
            with self._gate(table):
                self._store.insert(table, rows)
                real.insert_arrow(table, rows, settings=settings)

    simulation.Client = Both  # type: ignore[misc]
    world, actions = simulation.history(seed)
    with simulation.simulated(world, seed):
        world.play([action for action in actions if action.what != "merge"])
    different = differences(read_views(real), world.store.views())
    assert not different, different
    return compared


@pytest.mark.parametrize(
    "seed", [pytest.param(3, marks=pytest.mark.long), 13, pytest.param(60, marks=pytest.mark.long)]
)
def test_the_simulated_store_answers_as_clickhouse_does(tmp_path: Path, seed: int) -> None:
    assert run_isolated(play_on_both, str(tmp_path), seed) > 300
