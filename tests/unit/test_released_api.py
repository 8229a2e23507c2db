"""What was released is answered to everybody without costing the worker anything: made once, kept, and so often a minute."""

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.access.roles import Role
from pipeline.access.tokens import TokenFile
from pipeline.api import released
from pipeline.settings import Settings
from pipeline.store.releases import Figure, Kind, Release
from tests.api import Api, FakeReader, make_api

#: Days that were released.
DAYS = (date(2021, 9, 19), date(2021, 9, 20))


class ThreadedReader(FakeReader):
    """Answers from a thread, as the real one does, and remembers in which."""

    def __init__(self) -> None:
        super().__init__(lambda _sql, _parameters: [])
        self.threads: list[str] = []

    async def ask(self, question: Callable[[Any], Any]) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(question(self)), name="reader")
        thread.start()
        thread.join()
        return found[0]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> ThreadedReader:
    reader = ThreadedReader()

    def stored(_client: Any, kind: Kind, day: date, _settled: float) -> Release | None:
        reader.asked.append(f"{kind} {day}")
        figures = [Figure(3600 * hour, "a", "b", hour, None) for hour in range(24)]
        return Release(kind, day, datetime(2021, 9, 22, tzinfo=UTC), 1.0, {}, figures) if day in DAYS else None

    def rows(found: Release) -> list[Any]:
        reader.threads.append(threading.current_thread().name)
        return made(found)

    made = released._figures
    monkeypatch.setattr(released, "stored_release", stored)
    monkeypatch.setattr(released, "_figures", rows)
    return reader


def api_of(folder: Path, reader: FakeReader, per_minute: int = 1_000) -> Api:
    return make_api(Settings(home=folder, reads_per_minute=per_minute), reader)


def test_a_days_numbers_are_made_once_and_not_by_the_event_loop(tmp_path: Path, reader: ThreadedReader) -> None:
    api = api_of(tmp_path, reader)
    answers = [api.ask("/released/2021-09-19") for _ in range(5)]
    assert {(each.status, each.body) for each in answers} == {(200, answers[0].body)}
    assert len(answers[0].json["figures"]) == 24
    assert api.ask("/api/v1/released/private/2021-09-19", {"Host": "localhost"}).body == answers[0].body
    tag = answers[0].headers["etag"]
    unchanged = api.ask("/released/2021-09-19", {"If-None-Match": tag})
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert (reader.asked, reader.threads) == (["private 2021-09-19"], ["reader"])
    assert api.ask("/released/2021-09-20").headers["etag"] != tag


def test_what_is_kept_of_releases_is_bounded_and_what_is_not_there_is_not_kept(
    tmp_path: Path, reader: ThreadedReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(released, "_MOST_BYTES", 3_000)
    api = api_of(tmp_path, reader)
    for _ in range(2):
        for day in DAYS:
            assert api.ask(f"/released/{day}").status == 200
    assert [api.ask("/released/2021-09-21").status for _ in range(2)] == [404, 404]
    assert reader.asked == [f"private 2021-09-{day}" for day in (19, 20, 19, 20, 21, 21)]


def test_all_who_ask_without_a_token_are_told_to_wait_and_its_holders_are_answered(
    tmp_path: Path, reader: ThreadedReader
) -> None:
    token = TokenFile(tmp_path / "tokens.json").create("somebody", (Role.VIEWER,), 1)
    api = api_of(tmp_path, reader, per_minute=5)
    statuses = [api.ask(f"/released/{day}").status for day in [*DAYS, *DAYS, *DAYS, *DAYS]]
    assert statuses == [200] * 5 + [429] * 3
    refused = api.ask("/released")
    assert (refused.status, refused.headers["retry-after"]) == (429, "5")
    assert api.ask("/api/v1/released/private/2021-09-19", {"Authorization": f"Bearer {token}"}).status == 200
