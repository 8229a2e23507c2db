"""Case reports judged: what a valid one says under the policy that holds for it, and why another is refused."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from pipeline.core.tracing.policy import Policy
from pipeline.core.tracing.window import Report, Window, infectious_window, midnights
from pipeline.errors import UserError
from pipeline.policies import load_policies
from pipeline.settings import Settings
from schemas.case_report import CaseReport
from schemas.fields import refusal_detail

#: The longest record that the pipeline takes (contract, section 5).
_MOST_BYTES: Final = 65_536
_MOST_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Case:
    """A valid report with what follows from it; `canonical` is its JSON in the one form that reports are compared in."""

    report: CaseReport
    canonical: str
    policy: Policy
    window: Window

    @property
    def counts(self) -> bool:
        """Whether anything follows from it: it is not withdrawn, and of a status that its policy counts."""
        return self.policy.counts(self.report.status)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a report is not taken: one of the contract's reasons, and a detail without any value."""

    reason: str
    detail: str


def plain_report(report: CaseReport) -> Report:
    """What of a report decides its windows."""
    return Report(
        reported_at=report.reported_at,
        onset_date=report.onset_date,
        specimen_date=report.specimen_date,
        infectious_from=report.infectious_from,
        infectious_until=report.infectious_until,
    )


class CaseJudge:
    """Judges reports by the schema, the policies and the setting `timezone`."""

    def __init__(self, settings: Settings) -> None:
        """Reads the policies. Raises UserError where one cannot be read, or the setting `policy` names none."""
        self._policies = load_policies(settings.policies)
        self._default = settings.policy
        if settings.policy not in self._policies.ids:
            raise UserError(f"setting policy: there is no {settings.policy}; known are {', '.join(self._policies.ids)}")
        #: The first instant of a day in the setting `timezone`, in ms.
        self.midnight = midnights(ZoneInfo(settings.timezone))

    @property
    def default_policy(self) -> Policy:
        """The newest version of the policy in force."""
        return [policy for policy in self._policies if policy.id == self._default][-1]

    def tiers_of(self, policy: str, version: str) -> list[str]:
        """The names of a policy's tiers by code, lowest first; those of its newest version where that one is gone."""
        named = [each for each in self._policies if each.id == policy]
        exact = [each for each in named if each.version == version]
        return list((exact or named or [self.default_policy])[-1].tier_names)

    def judge(self, value: bytes | None) -> Case | Refusal:
        """A case, or why there is none. What it says of a value depends on nothing but the settings and the policies."""
        if value is None:
            return Refusal("not_json", "has no value: withdraw a case with the status withdrawn")
        if len(value) > _MOST_BYTES:
            return Refusal("too_large", f"more than {_MOST_BYTES} bytes")
        try:
            value.decode()
            report = CaseReport.model_validate_json(value)
        except UnicodeDecodeError:
            return Refusal("not_utf8", "not UTF-8")
        except ValidationError as error:
            if error.errors(include_input=False)[0]["type"] == "json_invalid":
                return Refusal("not_json", "not a JSON object")
            return Refusal("schema", refusal_detail(CaseReport, error))
        try:
            return self.case_of(report)
        except UserError as error:
            return Refusal("schema", str(error))

    def case_of(self, report: CaseReport) -> Case:
        """What a report that fits the schema says. Raises UserError where its policy is not known or its dates cannot be."""
        name = report.policy or self._default
        if name not in self._policies.ids:
            raise UserError(f"policy: is not known; known are {', '.join(self._policies.ids)}")
        policy = self._policies.of(name, report.reported_at)
        try:
            window = infectious_window(plain_report(report), policy, self.midnight)
        except ValueError as error:
            raise UserError(str(error)) from None
        record = report.model_dump(mode="json", exclude_none=True)
        return Case(report, json.dumps(record, sort_keys=True, separators=(",", ":")), policy, window)


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One line of a file, from 1: a case, or why it is none ("field: rule", without the value)."""

    line: int
    record: bytes
    verdict: Case | Refusal


def read_reports(path: Path, judge: CaseJudge) -> list[CaseRow]:
    """The lines of an NDJSON file, each judged; blank ones are left out. Raises UserError where it cannot be read."""
    try:
        with path.open("rb") as lines:
            return [
                CaseRow(number, line.strip(), judge.judge(line.strip()))
                for number, line in enumerate(lines, 1)
                if line.strip()
            ]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def refusals(path: Path, rows: Iterable[CaseRow]) -> list[str]:
    """A sentence for each refused line: file, line, field, rule; after a hundred, how many more."""
    refused = [f"{path}, line {row.line}: {row.verdict.detail}" for row in rows if isinstance(row.verdict, Refusal)]
    more = len(refused) - _MOST_SHOWN
    return refused if more <= 0 else [*refused[:_MOST_SHOWN], f"{path}: {more:,} more lines are refused"]
