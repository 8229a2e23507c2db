"""Reading about persons from the command line: which questions do, why they may be asked, and their note in the log."""

import re
from collections.abc import Collection, Iterable
from typing import Final

from pipeline.access.door import Door
from pipeline.audit import AuditLog, operator
from pipeline.errors import UserError
from pipeline.query import selects
from pipeline.settings import Settings

#: Views and tables with a row for a person, or about a case.
_PERSONS: Final = (
    "scans|visits|cases|exposures|venue_warnings|scan_set|visit_rows|report_set|case_rows|exposure_rows|interval_rows|"
    "warning_rows|repair_rows|asked_rows|published_rows"
)
#: Table functions that reach a table without its name in the question.
_INDIRECT: Final = r"merge\w*|loop|view\w*|remote\w*|cluster\w*|dictionary|system\.\w*log\w*"
_ABOUT_PERSONS: Final = re.compile(
    rf"\b(?:{_PERSONS})\b|\b(?:{_INDIRECT})\s*\(|system\.(?:\w*log\w*|processes|mutations)\b", re.IGNORECASE
)

UNSTATED: Final = "unstated"


def about_persons(statement: str) -> bool:
    """Whether a statement, in ClickHouse's own spelling, may read a table of persons: by the names in it."""
    return _ABOUT_PERSONS.search(statement) is not None


def refuse_what_tells_beside_rows(statement: str) -> None:
    """Raise UserError for a statement about persons whose answer is not rows and may all the same hold values of theirs.

    A plan, or a type, holds what a subquery answered.
    """
    if not selects(statement) and re.search(r"\b(?:EXPLAIN|SELECT|WITH)\b", statement):
        raise UserError(
            f"{statement.split(maxsplit=1)[0]} of a question about persons is refused: a plan or a type can hold what is stored "
            "about them; ask the question itself"
        )


def checked_purpose(settings: Settings, purpose: str | None) -> str:
    """The purpose as it is noted. Raises UserError for one that is not known, and for none where access is configured."""
    known = ", ".join(settings.purposes)
    if purpose is None:
        if Door(settings).configured:
            raise UserError(f"say with --purpose why persons are read about: {known}")
        return UNSTATED
    if purpose not in settings.purposes:
        raise UserError(f"--purpose {purpose}: is not one of {known}; the setting purposes has them")
    return purpose


def note_read(
    settings: Settings,
    action: str,
    purpose: str,
    *,
    case: str | None,
    persons: Collection[str] | int | None,
    what: str = "",
) -> None:
    """Note a read before it is answered. `persons`: whose pseudonyms, or how many at most; None: not known.

    Raises UserError if it cannot be.
    """
    count = persons if persons is None or isinstance(persons, int) else len(set(persons))
    AuditLog(settings.audit_path).append(operator(), action, purpose=purpose, case=case, persons=count, what=what)


def note_cases(settings: Settings, purpose: str, cases: Iterable[tuple[str, str]]) -> None:
    """Note what is done about cases, (action, case) each, before it is done. Raises UserError if it cannot be."""
    AuditLog(settings.audit_path).append_cases(operator(), cases, purpose=purpose)
