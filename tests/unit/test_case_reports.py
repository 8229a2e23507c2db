"""What a case report must be to be taken, and what its refusal says: never whom it is about."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pipeline.access.roles import Role
from pipeline.access.tokens import TokenFile
from pipeline.audit import AuditLog
from pipeline.case_reports import Case, CaseJudge, Refusal, read_reports, refusals
from pipeline.cli import cli
from pipeline.commands import case
from pipeline.errors import UserError
from pipeline.settings import Settings

PSEUDONYM = "v-7f3a9c51"
JUDGE = CaseJudge(Settings())


def report(**fields: Any) -> dict[str, Any]:
    known = {
        "case_id": "c-1",
        "visitor_id": PSEUDONYM,
        "status": "confirmed",
        "reported_at": "2021-09-20T09:00:00+07:00",
    }
    return {**known, **fields}


def verdict(**fields: Any) -> Case | Refusal:
    return JUDGE.judge(json.dumps(report(**fields)).encode())


def refused(**fields: Any) -> Refusal:
    found = verdict(**fields)
    assert isinstance(found, Refusal)
    return found


def test_a_report_without_a_policy_is_judged_by_the_one_of_the_setting() -> None:
    found = verdict()
    assert isinstance(found, Case)
    assert found.policy.id == "who"


def test_two_spellings_of_one_report_are_one_report() -> None:
    one, other = verdict(note="x"), verdict(reported_at="2021-09-20T02:00:00.000Z", policy=None)
    assert isinstance(one, Case)
    assert isinstance(other, Case)
    assert one.canonical == other.canonical


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"onset_date": "2021-09-21"}, "onset_date"),
        ({"specimen_date": "2021-09-21"}, "specimen_date"),
        ({"infectious_from": "2021-09-20T00:00:00Z", "infectious_until": "2021-09-20T00:00:00Z"}, "infectious_until"),
        ({"onset_date": "2021-09-01", "infectious_from": "2021-09-20T00:00:00Z"}, "infectious_from"),
        ({"policy": "none-such"}, "policy"),
        ({"status": "recovered"}, "status"),
        ({"visitor_id": "two words"}, "visitor_id"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(fields: dict[str, Any], field: str) -> None:
    found = refused(**fields)
    assert found.reason == "schema"
    assert found.detail.startswith(f"{field}: ")


def test_an_onset_on_the_local_day_of_the_report_is_not_in_the_future() -> None:
    judge = CaseJudge(Settings(timezone="Asia/Jakarta"))
    # 18:00 UTC is the next day in Jakarta.
    late = json.dumps(report(reported_at="2021-09-20T18:00:00Z", onset_date="2021-09-21")).encode()
    assert isinstance(judge.judge(late), Case)
    assert isinstance(JUDGE.judge(late), Refusal)


def test_what_is_no_json_is_refused_by_its_reason() -> None:
    reasons = [JUDGE.judge(value) for value in (None, b"{", b"\xff", b"[]", b" " * 70_000)]
    assert [found.reason for found in reasons if isinstance(found, Refusal)] == [
        "not_json",
        "not_json",
        "not_utf8",
        "schema",
        "too_large",
    ]


#: Values that quote the pseudonym wherever a careless reporter may have written it.
_careless = st.sampled_from([PSEUDONYM, f"about {PSEUDONYM}", [PSEUDONYM], {PSEUDONYM: 1}, 7, None, "2021-13-01", ""])


@given(
    st.dictionaries(st.sampled_from([*report(), "onset_date", "infectious_from", "policy", PSEUDONYM]), _careless),
    st.binary(max_size=4),
)
def test_no_refusal_says_whom_a_report_is_about(fields: dict[str, Any], cut: bytes) -> None:
    record = json.dumps(report(**fields)).encode()
    for value in (record, record + cut, record[: len(record) - len(cut)]):
        found = JUDGE.judge(value)
        if isinstance(found, Refusal):
            assert PSEUDONYM not in found.reason + found.detail


def test_a_file_is_judged_line_by_line_without_a_value_in_what_is_said(tmp_path: Path) -> None:
    path = tmp_path / "cases.ndjson"
    path.write_text("\n".join(["", json.dumps(report()), json.dumps(report(policy=PSEUDONYM)), ""]))
    rows = read_reports(path, JUDGE)
    assert [row.line for row in rows] == [2, 3]
    (line,) = refusals(path, rows)
    assert line.startswith(f"{path}, line 3: policy: is not known; known are clea, ")
    assert PSEUDONYM not in line


def test_a_default_policy_that_nobody_knows_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="setting policy: there is no none-such; known are clea"):
        CaseJudge(Settings(policy="none-such"))


def test_where_two_must_agree_a_withdrawal_is_left_to_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_CLOSING_BY_SECOND_PERSON", "true")
    monkeypatch.setenv("PIPELINE_HOME", str(tmp_path / "home"))
    store = tmp_path / "store"
    words = [
        "report",
        "--case",
        "c-1",
        "--visitor",
        "p-1",
        "--reported",
        "2021-09-20T09:00:00Z",
        "--status",
        "withdrawn",
    ]
    done = CliRunner().invoke(cli, ["case", *words, "--store", str(store)])
    assert isinstance(done.exception, UserError)
    assert "(c-1), and the setting closing_by_second_person wants two" in str(done.exception)
    assert "POST /api/v1/case-reports; nothing was sent" in str(done.exception)
    assert not store.exists()
    log = AuditLog(tmp_path / "home" / "audit.jsonl")
    assert [(entry["action"], entry["case"]) for entry in log.entries()] == [("asks to withdraw", "c-1")]


def test_where_two_must_agree_nothing_is_sent_without_the_store_that_knows_the_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, monkeypatch)
    monkeypatch.setenv("PIPELINE_CLOSING_BY_SECOND_PERSON", "true")
    one = ("--case", "c-1", "--visitor", "p-1", "--reported", "2021-09-20T09:00:00Z")
    said = str(CliRunner().invoke(cli, ["case", "report", *one]).exception)
    assert "cannot be told without the store (there is no store at" in said
    assert "POST /api/v1/case-reports" in said
    assert desk.sent == []


def test_case_report_wants_a_file_or_a_case() -> None:
    done = CliRunner().invoke(cli, ["case", "report"])
    assert done.exit_code == 2
    assert "Give either a FILE of reports or --case" in done.output


class Desk:
    """`pipeline case report` with its own audit log, and a Kafka that only remembers what the log said when it was sent to."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.log = home, home / "audit.jsonl"
        self.sent: list[list[tuple[str, str, str, int]]] = []
        monkeypatch.setenv("PIPELINE_HOME", str(home))
        monkeypatch.setattr(case, "_send", lambda _rows: self.sent.append(self.noted()))

    def noted(self) -> list[tuple[str, str, str, int]]:
        names = ("action", "purpose", "case", "persons")
        return [tuple(entry[name] for name in names) for entry in AuditLog(self.log).entries()]

    def report(self, *words: str) -> str:
        path = self.home / "cases.ndjson"
        path.write_text(
            "\n".join([json.dumps(report()), json.dumps(report(case_id="c-2", visitor_id="p-2", status="withdrawn"))])
        )
        return str(CliRunner().invoke(cli, ["case", "report", str(path), *words]).exception or "")


def test_each_report_is_in_the_log_before_any_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, monkeypatch)
    desk.report()
    desk.report("--purpose", "legal-request")
    first = [("reports", "unstated", "c-1", 1), ("withdraws", "unstated", "c-2", 1)]
    second = [("reports", "legal-request", "c-1", 1), ("withdraws", "legal-request", "c-2", 1)]
    assert desk.sent == [first, first + second]
    assert AuditLog(desk.log).faults() == (4, [])
    assert PSEUDONYM not in desk.log.read_text()


def test_a_report_without_a_purpose_where_access_is_configured_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, monkeypatch)
    TokenFile(Settings(home=tmp_path).tokens_path).create("district-7", (Role.TRACER,), 1)
    assert "say with --purpose" in desk.report()
    assert "curiosity: is not one of" in desk.report("--purpose", "curiosity")
    assert (desk.sent, desk.noted()) == ([], [])
    assert desk.report("--purpose", "contact-tracing") == ""
    assert len(desk.sent) == 1


def test_a_report_that_cannot_be_noted_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, monkeypatch)
    desk.log.mkdir()
    assert "cannot be written" in desk.report()
    assert desk.sent == []
