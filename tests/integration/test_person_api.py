"""The API about persons over a real store: who may ask, what is noted, and that nothing tells what is there to who may not."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_trace import make_store
from tests.isolated import run_isolated
from tests.over_http import answered

REPORT = {
    "case_id": "c-1",
    "visitor_id": "ill",
    "status": "confirmed",
    "reported_at": "2021-09-21T00:00:00Z",
    "onset_date": "2021-09-20",
}
#: Headers that somewhere else make somebody else of a caller, or another address of what they ask for.
HEADERS = (
    {"X-Role": "tracer"},
    {"X-Forwarded-User": "tracer", "X-Remote-User": "tracer", "Remote-User": "tracer"},
    {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1;host=localhost"},
    {"X-Original-URL": "/api/v1/cases/c-1/exposures", "X-Rewrite-URL": "/api/v1/cases/c-1/exposures"},
    {"X-HTTP-Method-Override": "GET", "X-Method-Override": "GET"},
    {"Cookie": "role=tracer; token=tracer"},
    {"Host": "localhost"},
)
WHY = {"X-Purpose": "contact-tracing"}
#: Ways to write the address of what a viewer may not read.
TRICKS = (
    "/cases/",
    "//cases/c-1/exposures",
    "/./cases/c-1/exposures",
    "/venues/../cases/c-1/exposures",
    "/venues/%2e%2e/cases/c-1/exposures",
    "/cases%2Fc-1%2Fexposures",
    "/cases/c-1/exposures;viewer",
    "/CASES/c-1/exposures",
    "/cases/c-1%00/exposures",
    "/cases/c-1%0D%0AX-Role:%20tracer/exposures",
)


def converse(folder: str) -> dict[str, Any]:
    """In an interpreter of its own: everything that is asked, and what came back."""
    from pipeline.access.roles import Role
    from pipeline.access.tokens import TokenFile
    from pipeline.api import server
    from pipeline.audit import AuditLog
    from pipeline.settings import Settings
    from pipeline.tracing.replayed import trace_all

    make_store(folder)
    settings = Settings(
        home=Path(folder), store=Path(folder), http_port=0, person_reads_per_minute=40, closing_by_second_person=True
    )
    trace_all(settings, [json.dumps(REPORT).encode()])
    sent: list[tuple[bytes, bytes]] = []
    server.kafka_sender = lambda _settings: lambda key, record: sent.append((key, record))  # type: ignore[assignment]
    tokens = TokenFile(settings.tokens_path)
    held = {role: tokens.create(role, (Role(role),), 1) for role in ("viewer", "planner", "auditor", "admin", "tracer")}
    held["second"] = tokens.create("second", (Role.TRACER,), 1)
    found: dict[str, Any] = {"roles": {}}

    with server.serve_http(settings, bytes, {}) as port:

        def ask(path: str, who: str | None, headers: dict[str, str] = WHY, body: Any = None) -> tuple[int, Any]:
            given = {**headers, "Authorization": f"Bearer {held.get(who, who)}"} if who else headers
            data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1{path}", data, given)
            return answered(request, 30)

        def status(*arguments: Any, **named: Any) -> int:
            return ask(*arguments, **named)[0]

        for who in (None, "nonsense", "viewer", "planner", "auditor", "admin", "tracer"):
            # A case that is there and one that is not.
            asked = [ask(f"/cases/{case}/exposures", who) for case in ("c-1", "c-2")]
            found["roles"][who] = [status("/health", who), asked[0][0], asked[0] == asked[1]]
        found["no purpose"] = status("/cases/c-1", "tracer", {})
        found["unknown purpose"] = status("/cases/c-1", "tracer", {"X-Purpose": "curiosity"})
        found["unknown case"] = status("/cases/c-2", "tracer")
        found["by visitor"] = status("/visitors/ill", "tracer")
        found["injection"] = status("/cases/c-1'%20OR%201=1--/exposures", "tracer")
        found["cases"] = ask("/cases", "tracer")[1]["items"]
        found["case"] = ask("/cases/c-1", "tracer")[1]
        first = ask("/cases/c-1/exposures?limit=1", "tracer")[1]
        rest = ask(f"/cases/c-1/exposures?cursor={first['next']}", "tracer")[1]
        found["exposed"] = sorted(row["visitor_id"] for row in first["items"] + rest["items"])
        found["venues"] = [row["venue_id"] for row in ask("/cases/c-1/venues", "tracer")[1]["items"]]
        found["queue"] = ask("/cases/c-1/queue?capacity=1", "tracer")[1]
        found["noted"] = [
            (e["who"], e["action"], e["case"], e["persons"]) for e in AuditLog(settings.audit_path).entries()
        ]

        withdrawal = {**REPORT, "status": "withdrawn", "reported_at": "2021-09-22T00:00:00Z"}
        found["refused report"] = status("/case-reports", "tracer", body={**REPORT, "status": "cured"})
        found["large report"] = status("/case-reports", "tracer", body=b"[" * 70_000)
        found["nested report"] = status("/case-reports", "tracer", body=b"[" * 30_000 + b"]" * 30_000)
        found["tricks"] = {path: status(path, "viewer") for path in TRICKS}
        found["headers"] = [
            status(path, who, WHY | headers)
            for headers in HEADERS
            for who in ("viewer", None)
            for path in ("/cases/c-1/exposures", "/health")
        ]
        found["report by a viewer"] = status("/case-reports", "viewer", body=REPORT)
        found["report"] = ask("/case-reports", "tracer", body=REPORT)
        found["closing"] = [
            ask("/case-reports", who, body=withdrawal)[1]["state"] for who in ("tracer", "tracer", "second")
        ]
        found["sent"] = [json.loads(record)["status"] for _, record in sent]
        while status("/cases", "tracer") == 200:
            pass
        found["spent"] = [status("/cases", "tracer"), status("/cases", "second")]
        found["whole"] = AuditLog(settings.audit_path).faults()[1]
        settings.audit_path.unlink()
        settings.audit_path.mkdir()
        found["unnoted"] = ask("/cases/c-1/exposures", "second")
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    answers: dict[str, Any] = run_isolated(converse, str(tmp_path_factory.mktemp("persons")))
    return answers


def test_persons_are_read_by_tracers_only_from_a_case_for_a_purpose_and_noted(found: dict[str, Any]) -> None:
    assert found["roles"] == {
        None: [401, 401, True],
        "nonsense": [401, 401, True],
        **{role: [200, 403, True] for role in ("viewer", "planner", "auditor", "admin")},
        "tracer": [200, 200, False],
    }
    assert (found["no purpose"], found["unknown purpose"]) == (422, 422)
    assert found["unknown case"] == 404
    assert (found["by visitor"], found["injection"]) == (404, 422)
    assert all(status in (403, 404, 422) for status in found["tricks"].values()), found["tricks"]
    assert found["headers"] == [403, 200, 401, 401] * len(HEADERS)
    assert found["nested report"] == 422
    assert [row["case_id"] for row in found["cases"]] == ["c-1"]
    assert "visitor_id" not in found["cases"][0]
    assert found["case"]["visitor_id"] == "ill"
    assert found["exposed"] == ["first", "long", "second", "short", "unsure"]
    assert sorted(found["venues"]) == ["cafe", "office"]
    assert (len(found["queue"]["items"]), found["queue"]["left_out"]) == (1, 3)
    assert ("token:tracer", "api exposures", "c-2", 0) in found["noted"]
    assert found["noted"][-6:] == [
        ("token:tracer", "api cases", None, 1),
        ("token:tracer", "api case", "c-1", 1),
        ("token:tracer", "api exposures", "c-1", 1),
        ("token:tracer", "api exposures", "c-1", 4),
        ("token:tracer", "api venues", "c-1", 1),
        ("token:tracer", "api queue", "c-1", 1),
    ]
    assert found["whole"] == []
    assert found["unnoted"][0] == 503
    assert "long" not in json.dumps(found["unnoted"])


def test_a_report_by_the_api_goes_to_the_topic_and_a_withdrawal_once_two_have_asked(found: dict[str, Any]) -> None:
    assert (found["refused report"], found["large report"], found["report by a viewer"]) == (422, 413, 403)
    assert found["report"] == (202, {"case_id": "c-1", "state": "sent"})
    assert found["closing"] == ["waits for a second person", "waits for a second person", "sent"]
    assert found["sent"] == ["confirmed", "withdrawn"]
    assert found["spent"] == [429, 200]
