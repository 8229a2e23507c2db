"""Whether a report takes back what followed from a case: what needs a second person, where the setting asks for one."""

from pipeline.case_reports import Case, Refusal


def action_of(case: Case) -> str:
    """What sending it is called in the audit log."""
    return "withdraws" if case.report.status == "withdrawn" else "reports"


def request_of(case: Case) -> str:
    """What it is called there where it waits for a second person."""
    return "asks to withdraw" if case.report.status == "withdrawn" else "asks to change"


def takes_back(before: Case | Refusal | None, after: Case) -> bool:
    """Whether exposures that followed from the report `before` may no longer follow once `after` holds.

    Withdrawing always does, whatever was before. Anything else takes nothing back where nothing was (None), or where it is older
    and so will not hold. A Refusal stands for a report that today's policies cannot judge: what followed from it cannot be told.
    """
    if after.report.status == "withdrawn":
        return True
    if before is None:
        return False
    if isinstance(before, Refusal):
        return True
    if not before.counts or after.report.reported_at < before.report.reported_at:
        return False
    return not (after.counts and after.report.visitor_id == before.report.visitor_id and _holds_all(before, after))


def _holds_all(before: Case, after: Case) -> bool:
    # A wider window loses nothing. Another policy, or another version by the date of the report, may ask for more minutes; and
    # weights are by the day that the window is counted from.
    window, wider = before.window, after.window
    return (
        after.policy == before.policy
        and wider.start <= window.start
        and wider.until >= window.until
        and (before.policy.weights is None or (wider.relative_to, wider.day) == (window.relative_to, window.day))
    )
