"""Where two must agree, nothing that takes back exposures of a case goes by one person: whatever the report is called."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.access.roles import Role
from pipeline.access.tokens import TokenFile
from pipeline.audit import AuditLog
from pipeline.case_changes import takes_back
from pipeline.case_reports import Case, CaseJudge, Refusal
from pipeline.settings import Settings
from tests.api import FakeReader, make_api

ROOT = Path(__file__).resolve().parents[2]
JUDGE = CaseJudge(Settings())
STANDS = {
    "case_id": "c-1",
    "visitor_id": "p-1",
    "status": "confirmed",
    "reported_at": "2021-09-20T09:00:00Z",
    "infectious_from": "2021-09-16T00:00:00Z",
    "infectious_until": "2021-09-30T00:00:00Z",
}
LATER = {"reported_at": "2021-09-21T09:00:00Z"}

#: What takes back some of what followed from the report above.
TAKES = {
    "withdrawn": LATER | {"status": "withdrawn"},
    "begins a millisecond later": LATER | {"infectious_from": "2021-09-16T00:00:00.001Z"},
    "ends a millisecond earlier": LATER | {"infectious_until": "2021-09-29T23:59:59.999Z"},
    "lies elsewhere": LATER
    | {"infectious_from": "2021-08-01T00:00:00Z", "infectious_until": "2021-08-01T00:00:00.001Z"},
    "another visitor": LATER | {"visitor_id": "p-2"},
    "another policy": LATER | {"policy": "clea"},
    "at the same time": {"visitor_id": "p-2"},
}
#: What does not.
LEAVES = {
    "the same again": {},
    "the same later": LATER,
    "wider": LATER | {"infectious_from": "2021-09-15T00:00:00Z", "infectious_until": "2021-10-01T00:00:00Z"},
    "of another day": LATER | {"onset_date": "2021-09-19"},
    "older, which will not hold": {"reported_at": "2021-09-19T09:00:00Z", "visitor_id": "p-2"},
}


def case(judge: CaseJudge = JUDGE, **fields: Any) -> Case:
    found = judge.judge(json.dumps(STANDS | fields).encode())
    assert isinstance(found, Case)
    return found


@pytest.mark.parametrize("fields", TAKES.values(), ids=TAKES)
def test_what_may_lose_an_exposure_takes_back(fields: Mapping[str, Any]) -> None:
    assert takes_back(case(), case(**fields))


@pytest.mark.parametrize("fields", LEAVES.values(), ids=LEAVES)
def test_what_can_lose_no_exposure_takes_nothing_back(fields: Mapping[str, Any]) -> None:
    assert not takes_back(case(), case(**fields))


def test_a_status_that_its_policy_does_not_count_takes_back_and_has_nothing_to_lose(tmp_path: Path) -> None:
    who = (ROOT / "pipeline" / "policies" / "who.toml").read_text()
    strict = who.replace('id = "who"', 'id = "strict"').replace('["suspected", "confirmed"]', '["confirmed"]')
    (tmp_path / "strict.toml").write_text(strict)
    judge = CaseJudge(Settings(policies=tmp_path, policy="strict"))
    counted, not_counted = case(judge), case(judge, status="suspected", **LATER)
    assert takes_back(counted, not_counted)
    assert not takes_back(not_counted, case(judge, visitor_id="p-2", **LATER))


def test_another_onset_takes_back_where_the_policy_weighs_days_by_it() -> None:
    before = case(policy="cwa", onset_date="2021-09-18")
    assert takes_back(before, case(policy="cwa", onset_date="2021-09-19", **LATER))
    assert not takes_back(before, case(policy="cwa", onset_date="2021-09-18", **LATER))


def test_what_was_reported_under_a_policy_that_is_gone_is_not_taken_back_by_one() -> None:
    assert takes_back(Refusal("schema", "policy: is not known"), case())


def test_a_case_that_nobody_knows_has_nothing_to_lose_but_is_not_withdrawn_by_one() -> None:
    assert not takes_back(None, case())
    assert takes_back(None, case(status="withdrawn"))


class Office:
    """The API with two tracers, for whom a case stands that is traced already."""

    def __init__(self, folder: Path, *, by_two: bool = True) -> None:
        self.settings = Settings(home=folder, closing_by_second_person=by_two)
        tokens = TokenFile(self.settings.tokens_path)
        self.held = {name: tokens.create(name, (Role.TRACER,), 1) for name in ("ann", "bo")}
        self.api = make_api(self.settings, FakeReader(self._traced))

    def _traced(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        assert "case_rows" in sql
        return [{"report": case().canonical}] if parameters["case"] == "c-1" else []

    def report(self, who: str, fields: Mapping[str, Any]) -> str:
        headers = {"authorization": f"Bearer {self.held[who]}", "x-purpose": "contact-tracing"}
        answer = self.api.ask("/api/v1/case-reports", headers, json.dumps(STANDS | fields).encode())
        assert answer.status == 202
        return str(answer.json["state"])


WAITS = "waits for a second person"


@pytest.mark.parametrize("fields", TAKES.values(), ids=TAKES)
def test_what_takes_back_is_sent_once_two_have_asked_for_it(tmp_path: Path, fields: Mapping[str, Any]) -> None:
    office = Office(tmp_path)
    assert [office.report(who, fields) for who in ("ann", "ann")] == [WAITS, WAITS]
    assert office.api.sent == []
    assert office.report("bo", fields) == "sent"
    assert [key for key, _ in office.api.sent] == [b"c-1"]
    # It was for once.
    assert office.report("bo", fields) == WAITS
    log = AuditLog(office.settings.audit_path)
    assert [entry["action"].split()[1] for entry in log.entries()][:2] == ["asks", "asks"]
    assert "p-1" not in office.settings.audit_path.read_text()
    assert "p-2" not in office.settings.audit_path.read_text()


@pytest.mark.parametrize("fields", LEAVES.values(), ids=LEAVES)
def test_what_takes_nothing_back_is_sent_for_one(tmp_path: Path, fields: Mapping[str, Any]) -> None:
    assert Office(tmp_path).report("ann", fields) == "sent"


def test_two_must_mean_the_same_change(tmp_path: Path) -> None:
    office = Office(tmp_path)
    assert office.report("ann", TAKES["another visitor"]) == WAITS
    assert office.report("bo", TAKES["ends a millisecond earlier"]) == WAITS
    assert office.report("bo", TAKES["withdrawn"]) == WAITS
    assert office.report("bo", TAKES["another visitor"]) == "sent"


def test_a_report_sent_in_between_ends_what_was_asked_for(tmp_path: Path) -> None:
    office = Office(tmp_path)
    assert office.report("ann", TAKES["another visitor"]) == WAITS
    assert office.report("ann", LATER) == "sent"
    assert office.report("bo", TAKES["another visitor"]) == WAITS


def test_a_new_case_is_reported_by_one(tmp_path: Path) -> None:
    assert Office(tmp_path).report("ann", {"case_id": "c-2", "visitor_id": "p-2"}) == "sent"


def test_one_is_enough_where_the_setting_asks_for_no_second(tmp_path: Path) -> None:
    office = Office(tmp_path, by_two=False)
    assert {office.report("ann", fields) for fields in TAKES.values()} == {"sent"}
