"""When a case was infectious, and when it can have been infected: windows of whole local days, as instants."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal

from pipeline.core.tracing.policy import Policy

_DAY = timedelta(days=1)

#: The first instant of a local day, in ms since the epoch, UTC.
Midnight = Callable[[date], int]


@dataclass(frozen=True, slots=True)
class Report:
    """What of a case report decides its windows. Instants in ms since the epoch, UTC; days are local."""

    reported_at: int
    onset_date: date | None = None
    specimen_date: date | None = None
    infectious_from: int | None = None
    #: The first instant that is no longer infectious.
    infectious_until: int | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """[`start`, `until`) in ms since the epoch, UTC, and the day that it was counted from."""

    start: int
    until: int
    relative_to: Literal["onset", "specimen"]
    day: date


def midnights(zone: tzinfo) -> Midnight:
    """The first instant of any day in a time zone. Where the clocks skip midnight, that is when they do."""
    return lambda day: round(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1000


def day_of(instant: int, midnight: Midnight) -> date:
    """The local day that an instant lies in."""
    # Local time is less than a day away from UTC on either side.
    day = datetime.fromtimestamp(instant // 1000, UTC).date() + _DAY
    while midnight(day) > instant:
        day -= _DAY
    return day


def infectious_window(report: Report, policy: Policy, midnight: Midnight) -> Window:
    """When the case is taken to be infectious.

    Whole days around onset, else around the specimen, else around the day of `reported_at` as if it were the specimen's;
    `infectious_from` and `infectious_until` each win over that. Raises ValueError, "field: rule" without any value, if a day is
    after the report's or the window ends before it begins.
    """
    relative_to, day = _anchor(report, midnight)
    rule = policy.infectious
    before, after = (
        (rule.days_before_onset, rule.days_after_onset)
        if relative_to == "onset"
        else (rule.days_before_specimen, rule.days_after_specimen)
    )
    start = report.infectious_from
    until = report.infectious_until
    if start is None:
        start = midnight(day - before * _DAY)
    if until is None:
        until = midnight(day + (after + 1) * _DAY)
    if start >= until:
        name = "infectious_from" if report.infectious_from is not None else "infectious_until"
        raise ValueError(f"{name}: the infectious window ends before it begins")
    return Window(start, until, relative_to, day)


def infection_window(report: Report, policy: Policy, midnight: Midnight) -> Window:
    """When the case can have been infected: from the policy's look-back before the day of onset, or of the specimen, to its end.

    Raises ValueError as `infectious_window` does for a day after the report's.
    """
    relative_to, day = _anchor(report, midnight)
    return Window(midnight(day - policy.look_back.days * _DAY), midnight(day + _DAY), relative_to, day)


def _anchor(report: Report, midnight: Midnight) -> tuple[Literal["onset", "specimen"], date]:
    reported_on = day_of(report.reported_at, midnight)
    for name, given in (("onset_date", report.onset_date), ("specimen_date", report.specimen_date)):
        if given is not None and given > reported_on:
            raise ValueError(f"{name}: is after the day of the report")
    if report.onset_date is not None:
        return "onset", report.onset_date
    return "specimen", report.specimen_date or reported_on
