"""Who may have somebody erased over HTTP, and what they learn by it: the receipt, and nothing else about anybody."""

import json
from concurrent.futures import Future
from pathlib import Path

import pytest

from pipeline.access.roles import Role
from pipeline.access.tokens import TokenFile
from pipeline.api.asking import MOST_BYTES
from pipeline.audit import AuditLog
from pipeline.erasure import Receipt
from pipeline.errors import UserError
from pipeline.settings import Settings
from tests.api import Answer, Api, FakeReader, make_api


class Site:
    """An API whose worker notes whom it was asked to erase."""

    def __init__(self, folder: Path, fails: str | None = None, writes: bool = True) -> None:
        self.settings = Settings(home=folder)
        tokens = TokenFile(self.settings.tokens_path)
        self.held = {role: tokens.create(role, (role,), 1) for role in Role}
        self.erased: list[str] = []
        self.fails = fails
        reader = FakeReader(lambda _sql, _parameters: [])
        self.api: Api = make_api(self.settings, reader, self._erase if writes else None)

    def _erase(self, visitor: str) -> "Future[Receipt]":
        future: Future[Receipt] = Future()
        self.erased.append(visitor)
        if self.fails:
            future.set_exception(UserError(self.fails))
        else:
            future.set_result(Receipt("a-receipt", "its-digest", 3, off_the_disk=False))
        return future

    def ask(self, role: Role, body: bytes, purpose: str | None = "legal-request") -> Answer:
        headers = {"authorization": f"Bearer {self.held[role]}"} | ({"x-purpose": purpose} if purpose else {})
        return self.api.ask("/api/v1/erasures", headers, body)

    def noted(self) -> list[tuple[str, str]]:
        return [(entry["who"], entry["action"]) for entry in AuditLog(self.settings.audit_path).entries()]


@pytest.fixture(autouse=True)
def purposes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_PURPOSES", '["legal-request"]')


def body(visitor: str) -> bytes:
    return json.dumps({"visitor_id": visitor}).encode()


def test_only_an_admin_with_a_purpose_has_somebody_erased_and_that_is_noted(tmp_path: Path) -> None:
    site = Site(tmp_path)
    statuses = {role: site.ask(role, body("p-1")).status for role in Role if role is not Role.ADMIN}
    assert set(statuses.values()) == {403}
    assert site.ask(Role.ADMIN, body("p-1"), None).status == 422
    assert site.ask(Role.ADMIN, body("p-1"), "curiosity").status == 422
    assert (site.erased, site.noted()) == ([], [])
    told = site.ask(Role.ADMIN, body("p-1"))
    whole = {"receipt": "a-receipt", "digest": "its-digest", "scans": 3, "off_the_disk": False}
    assert (told.status, json.loads(told.body)) == (200, whole)
    assert (site.erased, site.noted()) == (["p-1"], [("token:admin", "api erases")])
    # The log says that somebody was erased, not who.
    assert "p-1" not in site.settings.audit_path.read_text()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 422),
        (b"[]", 422),
        (b'{"visitor_id": ""}', 422),
        (b'{"visitor_id": "secret name", "case": 1}', 422),
        (b"[" * (MOST_BYTES + 1), 413),
        (b"[" * MOST_BYTES, 422),
    ],
)
def test_what_is_no_request_erases_nobody_and_is_not_repeated_in_the_answer(
    tmp_path: Path, sent: bytes, status: int
) -> None:
    site = Site(tmp_path)
    told = site.ask(Role.ADMIN, sent)
    assert told.status == status
    assert site.erased == []
    assert b"secret name" not in told.body


def test_who_is_not_erased_yet_is_said_to_be_asked_again(tmp_path: Path) -> None:
    away = Site(tmp_path / "away", fails="the erasure was broken off: ask again, and it goes on where it was")
    told = away.ask(Role.ADMIN, body("p-1"))
    assert (told.status, told.headers["retry-after"]) == (503, "5")
    reading = Site(tmp_path / "reading", writes=False)
    assert reading.ask(Role.ADMIN, body("p-1")).status == 503
