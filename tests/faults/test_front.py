"""The front of the shared store takes what the driver sends, whatever its size."""

from pathlib import Path
from threading import Thread

import pytest

from pipeline.broker import free_port
from tests.isolated import run_isolated


def asked_through_the_front(folder: str, count: int) -> int:
    """In an interpreter of its own: how many of so many names come back that went out as a query's parameters."""
    import clickhouse_connect

    from tests.faults.front import Front

    port = free_port()
    front = Front(Path(folder), port)
    Thread(target=front.serve_forever, daemon=True).start()
    client = clickhouse_connect.get_client(host="127.0.0.1", port=port)
    names = [f"venue-{number} ' & + % ; \\ é" for number in range(count)]
    rows = client.query("SELECT arrayJoin({names:Array(String)})", {"names": names}).result_rows
    front.shutdown()
    return sum(row[0] == name for row, name in zip(rows, names, strict=True))


@pytest.mark.parametrize("count", [3, 20_000])
def test_a_query_may_have_few_parameters_or_many(tmp_path: Path, count: int) -> None:
    assert run_isolated(asked_through_the_front, str(tmp_path), count) == count
