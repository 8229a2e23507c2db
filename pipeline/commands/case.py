"""`pipeline case`: report cases, for their exposures to be found."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from pipeline.case_changes import action_of, request_of, takes_back
from pipeline.case_reports import Case, CaseJudge, CaseRow, read_reports, refusals
from pipeline.errors import StoreUnavailableError, UserError
from pipeline.person_reads import checked_purpose, note_cases
from pipeline.progress import progress_bar
from pipeline.settings import Settings, load_settings

#: Cases that a refusal names.
_MOST_NAMED = 5
_INSTEAD = "both send the same report to POST /api/v1/case-reports"


@click.group(epilog="Example: pipeline case report cases.ndjson")
def command() -> None:
    """Report cases: whom they exposed is found from all scans, those before the report and those to come."""


@command.command(
    epilog="Example: pipeline case report --case c-17 --visitor p-7f3a9c --onset 2021-09-18 --reported 2021-09-20T09:00:00+07:00"
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--case", help="One case instead of a file: its id.")
@click.option("--visitor", help="… the pseudonym of the case's own scans.")
@click.option(
    "--status", type=click.Choice(["suspected", "confirmed", "withdrawn"]), default="confirmed", help="… its status."
)
@click.option(
    "--reported", metavar="TIME", help="… when it was reported (RFC 3339); the newest report of a case holds."
)
@click.option("--onset", metavar="DATE", help="… the first day of symptoms.")
@click.option("--specimen", metavar="DATE", help="… the day of the sample.")
@click.option("--policy", help="… the contact policy; without it the setting's.")
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="Into the embedded ClickHouse in this folder instead of Kafka, and traced at once.",
)
@click.option("--purpose", help="Why it is reported: one of the setting purposes. It is noted in the audit log.")
def report(
    file: Path | None,
    case: str | None,
    visitor: str | None,
    status: str,
    reported: str | None,
    onset: str | None,
    specimen: str | None,
    policy: str | None,
    store: Path | None,
    purpose: str | None,
) -> None:
    """Send case reports to the topic case-reports: those of FILE (NDJSON), or one that the options describe.

    A report is an object of case_id, visitor_id, status, reported_at, and any of onset_date, specimen_date, infectious_from,
    infectious_until, policy. Every line is checked before any is sent. A newer report of a case replaces the older one; the
    status withdrawn takes back all that followed from it. Each is noted in the audit log before any is sent.
    """
    if (file is None) == (case is None):
        raise click.UsageError("Give either a FILE of reports or --case with its options.")
    settings = load_settings(store=store)
    if store is not None:
        settings = settings.model_copy(update={"clickhouse_url": None})
    why = checked_purpose(settings, purpose)
    judge = CaseJudge(settings)
    if file is not None:
        rows = read_reports(file, judge)
        refused = refusals(file, rows)
        for line in refused:
            click.echo(f"pipeline: {line}", err=True)
        if refused:
            raise UserError(
                f"{file}: {len(refused):,} of {len(rows):,} lines are refused, so nothing was sent: mend them"
            )
    else:
        fields = {
            "case_id": case,
            "visitor_id": visitor,
            "status": status,
            "reported_at": reported,
            "onset_date": onset,
            "specimen_date": specimen,
            "policy": policy,
        }
        record = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
        verdict = judge.judge(record)
        if not isinstance(verdict, Case):
            raise UserError(f"this is no report: {verdict.detail}")
        rows = [CaseRow(1, record, verdict)]
    cases = [row.verdict for row in rows if isinstance(row.verdict, Case)]
    if settings.closing_by_second_person:
        _leave_to_two(settings, why, judge, cases, create=store is not None)
    note_cases(settings, why, [(action_of(case), case.report.case_id) for case in cases])
    place = _send(rows) if store is None else _store(rows, settings)
    click.echo(f"{len(rows):,} reports into {place}")


def _leave_to_two(settings: Settings, why: str, judge: CaseJudge, cases: Sequence[Case], *, create: bool) -> None:
    # Withdrawals first: they are known as such without the store.
    held = [case for case in cases if takes_back(None, case)] or _changing(settings, judge, cases, create=create)
    if not held:
        return
    # That a report would change a case is an answer about its visitor.
    note_cases(settings, why, [(request_of(case), case.report.case_id) for case in held])
    names = ", ".join(dict.fromkeys(case.report.case_id for case in held[:_MOST_NAMED]))
    raise UserError(
        f"{len(held):,} reports would take back exposures by one person ({names}{', …' if len(held) > _MOST_NAMED else ''}), and "
        f"the setting closing_by_second_person wants two: {_INSTEAD}; nothing was sent"
    )


def _changing(settings: Settings, judge: CaseJudge, cases: Sequence[Case], *, create: bool) -> list[Case]:
    from pipeline.store.client import open_store  # the embedded engine takes a second to load
    from pipeline.store.tracing import TraceStore

    names = {case.report.case_id for case in cases}
    try:
        with closing(TraceStore(open_store(settings, read_only=not create))) as store:
            reported = store.reports_of(names)
    except (UserError, StoreUnavailableError) as error:
        raise UserError(
            f"the setting closing_by_second_person wants two for what takes back exposures, and which reports do cannot be told "
            f"without the store ({error}): {_INSTEAD}; nothing was sent"
        ) from None
    before = {name: judge.judge(report.encode()) for name, report in reported.items()}
    return [case for case in cases if takes_back(before.get(case.report.case_id), case)]


def _send(rows: Sequence[CaseRow]) -> str:
    from pipeline.produce import ScanProducer  # the client takes a moment to load
    from pipeline.topics import CASE_REPORTS

    kafka = load_settings().kafka_access
    with ScanProducer(kafka, CASE_REPORTS) as producer, progress_bar("sending", len(rows)) as advance:
        for row in rows:
            assert isinstance(row.verdict, Case)
            producer.send(row.verdict.report.case_id.encode(), row.record)
            advance(1)
    return f"the topic {CASE_REPORTS} at {kafka.address}"


def _store(rows: Sequence[CaseRow], settings: Settings) -> str:
    from pipeline.replay import store_failures
    from pipeline.store.client import open_store
    from pipeline.tracing.replayed import trace_all

    with store_failures(settings), closing(open_store(settings)), progress_bar("tracing", None) as advance:
        strangers = trace_all(settings, [row.record for row in rows], lambda left: advance(1, f"{left:,} cases left"))
    for case in strangers:
        click.echo(f"pipeline: case {case} has no visit yet: it stands, and is traced when its scans come", err=True)
    return f"the store {settings.store_path}"
