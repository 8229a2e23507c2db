"""Where the rows of writes that did not end are looked for: behind the last write of each owner, not only of the last one."""

import pyarrow as pa
import pytest

from pipeline.store import recovery
from tests.simulation.store import Client, Store

A, B = ("check-ins", 0), ("check-ins", 1)


def noted(*rows: tuple[tuple[str, int], int, int]) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """What is known of A after takeovers: (partition, up to where its owner's writes had ended, the heir's first version)."""
    client = Client(Store())
    for (topic, partition), durable, version in rows:
        row = {"topic": [topic], "partition": [partition], "durable": [durable], "version": [version]}
        client.insert_arrow("takeover_rows", pa.table(row))
    return recovery.takeovers(client, [A])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "spans"),
    [
        pytest.param([], {}, id="nobody had it before"),
        pytest.param([(B, 5, 9)], {}, id="of another partition"),
        pytest.param([(A, 0, 10), (A, 25, 30), (A, 47, 60)], {A: [(47, 60), (25, 30), (0, 10)]}, id="one for each"),
        pytest.param([(A, 25, 30), (A, 25, 40), (A, 25, 50)], {A: [(25, 50)]}, id="heirs that wrote nothing"),
        pytest.param([(A, 5, 10), (A, 25, 30), (A, 8, 40)], {A: [(5, 40)]}, id="one within another"),
        pytest.param([(A, 5, 10), (A, 7, 30)], {A: [(5, 30)]}, id="two that overlap"),
    ],
)
def test_what_each_takeover_found_open_stays_open(
    rows: list[tuple[tuple[str, int], int, int]], spans: dict[tuple[str, int], list[tuple[int, int]]]
) -> None:
    assert noted(*rows) == spans


def test_only_the_last_takeovers_are_looked_at() -> None:
    rows = [(A, 10 * number, 10 * number + 5) for number in range(100)]
    found = noted(*rows)[A]
    assert found == [(10 * number, 10 * number + 5) for number in range(99, 69, -1)]


def test_a_partitions_rows_are_suspect_from_its_last_write_on_and_where_earlier_heirs_found_them() -> None:
    sql = recovery.left_behind({A: 90, B: 80}, {A: [(47, 60), (95, 99)]}, everything=False)
    assert "version >= 90 OR version >= 47 AND version < 60)" in sql
    assert "(version >= 80)" in sql
    assert "99" not in sql
    assert recovery.left_behind({A: 90, B: 80}, {}, everything=True) == "version >= 90"
