"""Nobody learns who is there from how an answer comes about.

How long something takes is not measured here: on a busy machine that shows nothing. Instead the work itself is compared: the same
functions called in the same order, the same questions to the store, the same shape of answer, whether somebody is there or not.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pipeline.access.door import Door
from pipeline.access.roles import Role
from pipeline.access.tokens import PREFIX, TokenFile
from pipeline.api import guard
from pipeline.audit import AuditLog
from pipeline.gateway.devices import Devices, add_device
from pipeline.settings import Settings
from tests.api import Api, FakeReader, Rows, make_api
from tests.gateway import make_ring, scan, site

NOBODYS = PREFIX + "A" * 43
CASE = {
    "case_id": "c-1",
    "infectious_from": "2021-09-18 00:00:00.000",
    "infectious_until": "2021-09-21 00:00:00.000",
    "policy": "who",
    "policy_version": "1",
    "status": "confirmed",
    "reported_at": "2021-09-21 00:00:00.000",
    "visitor_id": "ill",
}
REPORT = {
    "case_id": "c-9",
    "visitor_id": "ill",
    "status": "confirmed",
    "reported_at": "2021-09-21T00:00:00Z",
    "onset_date": "2021-09-20",
}


def way(call: Callable[[], object]) -> list[str]:
    """The functions of this project that a call goes through, in order."""
    steps: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and "/pipeline/" in frame.f_code.co_filename:
            steps.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    assert steps
    return steps


def test_two_ways_that_differ_are_told_apart(tmp_path: Path) -> None:
    door = Door(Settings(home=tmp_path))
    assert way(lambda: door.identify(None)) != way(lambda: door.identify("Bearer x"))


def test_a_static_token_is_held_against_every_one_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    held = [tokens.create(f"t-{number}", (Role.VIEWER,), 1) for number in range(5)]
    tokens.tokens()
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr("pipeline.access.tokens.hmac.compare_digest", compare, raising=True)
    now = datetime.now(UTC)
    counts, ways = [], []
    for token, at in ((held[0], now), (held[-1], now), (NOBODYS, now), (held[2], now + timedelta(2))):
        compared.clear()
        ways.append(way(lambda token=token, at=at: tokens.identify(token, at)))  # type: ignore[misc]
        counts.append(len(compared))
        assert all(len(text) == 64 and not text.startswith(PREFIX) for pair in compared for text in pair), (
            "hashes alone"
        )
    assert counts == [len(held)] * 4
    assert ways[0] == ways[1]
    assert ways[2] == ways[3], "one that has expired is nobody's"


def test_a_device_is_looked_up_by_the_hash_of_what_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "devices"
    token = add_device(path, "gate-7")
    devices = Devices(path)
    looked_up: list[str] = []

    class Spied(dict[str, str]):
        def get(self, digest: str, default: Any = None) -> Any:
            looked_up.append(digest)
            return super().get(digest, default)

    devices._by_hash = Spied(devices._by_hash)
    ways = [way(lambda sent=sent: devices.device_of(f"Bearer {sent}")) for sent in (token, token[:-1] + "!", "x")]  # type: ignore[misc]
    assert ways[0] == ways[1] == ways[2]
    assert devices.device_of(f"Bearer {token}") == "gate-7"
    assert len(looked_up) == 4
    # Nobody can choose what a SHA-256 begins with, so how far two of them agree tells nothing of a token.
    assert all(len(digest) == 64 and token not in digest for digest in looked_up)


def test_the_gateway_does_the_same_for_who_was_here_and_who_never_was(tmp_path: Path) -> None:
    here = site(make_ring(tmp_path / "keys"))
    seen = {"kind": "email", "value": "seen@example.org"}
    new = {"kind": "email", "value": "new@example.org"}
    here.send(scan(event_id="e-0", identifier=seen))
    answers: list[Any] = []
    ways = [
        way(
            lambda person=person, number=number: answers.append(
                here.send(scan(event_id=f"e-{number}", identifier=person))
            )
        )  # type: ignore[misc]
        for number, person in enumerate((seen, new), 1)
    ]
    assert ways[0] == ways[1]
    first, second = answers
    assert (first.status, first.headers) == (second.status, second.headers)
    assert {**first.json, "event_id": ""} == {**second.json, "event_id": ""}


def of_case(sql: str, parameters: Mapping[str, Any], exposures: int) -> Rows:
    if "FROM cases" in sql:
        return [CASE] if parameters.get("case") == "c-1" else []
    if "FROM exposures" not in sql:
        return []
    row = {"visitor_id": "p", "tier": "exposed", "cumulative_ms": 1, "until_ms": 1, "party_size": 1, "venue_id": "v"}
    return [{**row, "exposure_id": f"x{number}", "visitors": 1, "persons": 1} for number in range(exposures)]


def callers(tmp_path: Path, exposures: int = 0) -> tuple[Api, FakeReader, dict[str, str], Settings]:
    settings = Settings(home=tmp_path, person_reads_per_minute=1_000)
    reader = FakeReader(lambda sql, parameters: of_case(sql, parameters, exposures))
    tokens = TokenFile(settings.tokens_path)
    held = {role: tokens.create(role, (role,), 1) for role in Role}
    return make_api(settings, reader), reader, {str(role): token for role, token in held.items()}, settings


def headers(token: str | None) -> dict[str, str]:
    return {"x-purpose": "contact-tracing"} | ({} if token is None else {"authorization": f"Bearer {token}"})


#: Everything about persons, for a case that is there and one that is not.
ROUTES = ("", "/exposures", "/venues", "/queue")


def test_tokens_that_do_not_hold_are_told_to_the_log_without_filling_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, _, _, _ = callers(tmp_path)
    for _ in range(5):
        assert api.ask("/api/v1/cases/c-1", headers(NOBODYS)).status == 401
    assert api.ask("/api/v1/cases/c-1", headers(None)).status == 401  # nobody who pretends to be somebody
    monkeypatch.setattr(guard, "_TELL_SECONDS", 0.0)
    api.ask("/api/v1/cases/c-1", headers(NOBODYS))
    said = [record.getMessage() for record in caplog.records if record.name == "pipeline.api.guard"]
    assert [re.findall(r"\d+", line) for line in said] == [["1"], ["5"]]
    assert NOBODYS not in str(said)


def test_one_holder_of_a_token_is_told_to_wait_and_the_others_are_answered(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, reads_per_minute=5)
    tokens = TokenFile(settings.tokens_path)
    one, other = (tokens.create(name, (Role.VIEWER,), 1) for name in ("one", "other"))
    api = make_api(settings, FakeReader(lambda _sql, _parameters: []))

    def status(token: str) -> int:
        return api.ask("/api/v1/openapi.json", {"authorization": f"Bearer {token}"}).status

    assert [status(one) for _ in range(7)] == [200] * 5 + [429] * 2
    assert status(other) == 200
    told = api.ask("/api/v1/openapi.json", {"authorization": f"Bearer {one}"})
    assert int(told.headers["retry-after"]) > 0


def test_who_may_not_ask_is_refused_before_anything_is_looked_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api, reader, held, settings = callers(tmp_path)
    for token, status in ((None, 401), (NOBODYS, 401), *((held[role], 403) for role in held if role != "tracer")):
        for route in ROUTES:
            one, other = (api.ask(f"/api/v1/cases/{case}{route}", headers(token)) for case in ("c-1", "c-2"))
            assert one == other
            assert one.status == status
        reports = [json.dumps({**REPORT, "visitor_id": name}).encode() for name in ("ill", "nobody")]
        one, other = (api.ask("/api/v1/case-reports", headers(token), report) for report in reports)
        assert one == other
        assert one.status == status
    assert reader.asked == []
    assert list(AuditLog(settings.audit_path).entries()) == []
    assert api.sent == []
    told = [record.getMessage() for record in caplog.records if record.name == "pipeline.api.guard"]
    assert {line for line in told if not line.startswith("tokens that do not hold were refused: ")} == {
        f"token:{role} was refused: no role of theirs allows it" for role in held if role != "tracer"
    }
    assert "c-1" not in caplog.text


def test_a_report_asks_the_store_nothing_about_its_visitor(tmp_path: Path) -> None:
    api, reader, held, _ = callers(tmp_path)
    answers = [
        api.ask("/api/v1/case-reports", headers(held["tracer"]), json.dumps({**REPORT, "visitor_id": visitor}).encode())
        for visitor in ("ill", "was-never-here", "erased")
    ]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0].status == 202
    assert reader.asked == []


def test_a_case_costs_the_same_questions_whether_it_exposed_anybody(tmp_path: Path) -> None:
    asked = []
    for number in (0, 3):
        api, reader, held, settings = callers(tmp_path / str(number), number)
        for route in ROUTES:
            assert api.ask(f"/api/v1/cases/c-1{route}", headers(held["tracer"])).status == 200
        asked.append((reader.asked, [entry["action"] for entry in AuditLog(settings.audit_path).entries()]))
    assert asked[0] == asked[1]


def test_no_proxy_keeps_what_one_caller_was_told(tmp_path: Path) -> None:
    api, _, held, _ = callers(tmp_path, 1)
    for route in ROUTES:
        assert api.ask(f"/api/v1/cases/c-1{route}", headers(held["tracer"])).headers["cache-control"] == "no-store"
    aggregates = api.ask("/api/v1/health", headers(held["viewer"]))
    assert (aggregates.status, aggregates.headers["cache-control"]) == (200, "private, max-age=1")
    assert api.ask("/api/v1/health", headers(None)).headers["cache-control"] == "no-store"


def test_no_address_takes_a_visitor(tmp_path: Path) -> None:
    api, _, _, _ = callers(tmp_path)
    described = api.ask("/api/v1/openapi.json", headers(None))
    assert described.status == 401
    api, _, held, _ = callers(tmp_path / "described")
    document = api.ask("/api/v1/openapi.json", headers(held["viewer"])).json
    taken = [(path, one["name"]) for path, methods in document["paths"].items() for method in methods.values()
             for one in method.get("parameters", ())]  # fmt: skip
    assert taken
    assert [pair for pair in taken if "visitor" in "".join(pair) or "pseudonym" in "".join(pair)] == []
