"""Opening the store: what a person is told when ClickHouse breaks off."""

from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from pipeline.errors import StoreAwayError, UserError
from pipeline.settings import Settings
from pipeline.store import client as clients
from pipeline.store import patience


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


def test_a_password_that_a_server_refuses_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise DatabaseError("Authentication failed", code=516)

    monkeypatch.setattr(clients.clickhouse_connect, "get_client", refuse)
    with pytest.raises(UserError, match=r"Authentication failed$") as raised:
        clients.connect(Settings(clickhouse_url="http://127.0.0.1:1"))
    assert not isinstance(raised.value, StoreAwayError)


def test_a_server_that_does_not_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def open_() -> str:
        tries.append(len(tries))
        if len(tries) < 3:
            clients.connect(Settings(clickhouse_url="http://127.0.0.1:1"))
        return "opened"

    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.0)
    assert patience.opened_patiently(open_) == "opened"
    assert len(tries) == 3
