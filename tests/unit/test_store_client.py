"""Opening the store: what a person is told when ClickHouse breaks off."""

from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import OperationalError

from pipeline.errors import UserError
from pipeline.settings import Settings
from pipeline.store import client as clients


class _GoneAfterGreeting:
    def command(self, statement: str) -> None:
        raise OperationalError(f"Remote end closed connection\nwhile {statement}")

    query = command


@pytest.mark.parametrize("read_only", [False, True])
def test_a_server_that_breaks_off_while_the_store_is_opened_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read_only: bool
) -> None:
    monkeypatch.setattr(clients, "connect", lambda _: _GoneAfterGreeting())
    settings = Settings(store=tmp_path, clickhouse_url="http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"broke off while the store was opened: Remote end closed connection$"):
        clients.open_store(settings, read_only=read_only)
