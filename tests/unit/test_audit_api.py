"""The audit log over HTTP: for auditors alone, page by page, with their own reading in it, and whether it is whole."""

from pathlib import Path
from urllib.parse import quote

from pipeline.access.roles import Role
from pipeline.access.tokens import TokenFile
from pipeline.audit import AuditLog
from pipeline.settings import Settings
from tests.api import Answer, Api, FakeReader, make_api


def site(folder: Path) -> tuple[Api, dict[Role, str], AuditLog]:
    settings = Settings(home=folder, person_reads_per_minute=1_000)
    tokens = TokenFile(settings.tokens_path)
    held = {role: tokens.create(role, (role,), 1) for role in Role}
    return make_api(settings, FakeReader(lambda _sql, _parameters: [])), held, AuditLog(settings.audit_path)


def ask(api: Api, token: str, path: str = "/api/v1/audit", query: str = "") -> Answer:
    return api.ask(path, {"authorization": f"Bearer {token}"}, query=query.encode())


def test_only_auditors_read_the_log_and_that_is_noted_first(tmp_path: Path) -> None:
    api, held, log = site(tmp_path)
    log.append("token:district-7", "api exposures", purpose="contact-tracing", case="c-17", persons=12)
    for path in ("/api/v1/audit", "/api/v1/audit/verification"):
        assert {ask(api, held[role], path).status for role in Role if role is not Role.AUDITOR} == {403}
    assert len(list(log.entries())) == 1
    told = ask(api, held[Role.AUDITOR])
    assert told.status == 200
    assert told.headers["cache-control"] == "no-store"
    assert [(each["who"], each["action"], each["case"]) for each in told.json["items"]] == [
        ("token:auditor", "api audit", None),
        ("token:district-7", "api exposures", "c-17"),
    ]
    assert ask(api, held[Role.AUDITOR], "/api/v1/audit/verification").json == {"entries": 3, "faults": []}


def test_pages_follow_one_another_without_a_gap_while_the_log_grows(tmp_path: Path) -> None:
    api, held, log = site(tmp_path)
    for number in range(7):
        log.append("cli:somebody", f"query {number}", purpose="audit")
    seen, cursor = [], ""
    while True:
        page = ask(api, held[Role.AUDITOR], query=f"limit=3{cursor}").json
        seen += [each["number"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={quote(page['next'])}"
    assert seen == list(range(8, 0, -1))


def test_a_changed_entry_shows_and_a_damaged_log_is_one_sentence(tmp_path: Path) -> None:
    api, held, log = site(tmp_path)
    for number in range(3):
        log.append("cli:somebody", f"query {number}", purpose="audit")
    path = Settings(home=tmp_path).audit_path
    path.write_text(path.read_text().replace("query 1", "query 9"))
    verdict = ask(api, held[Role.AUDITOR], "/api/v1/audit/verification").json
    assert verdict["faults"] == ["entry 2 was changed"]
    path.write_text("nonsense\n" + path.read_text())
    assert ask(api, held[Role.AUDITOR], "/api/v1/audit").status == 503
