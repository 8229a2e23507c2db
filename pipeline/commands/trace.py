"""`pipeline trace`: whom a case exposed, where, and where it may come from."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.commands.query import output_file
from pipeline.errors import StoreUnavailableError, UserError
from pipeline.person_reads import checked_purpose, note_cases, note_read
from pipeline.query import Format, answer, kind, write_table
from pipeline.settings import Settings, load_settings
from schemas.fields import format_instant

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.case_reports import CaseJudge
    from pipeline.store.tracing import TraceStore
    from pipeline.tracing.answer import Story

#: Rows of a list that a terminal shows.
_MOST_SHOWN = 20


@click.command(epilog="Example: pipeline trace c-17 --format csv --output exposures.csv")
@click.argument("case", required=False)
@click.option("--queue", type=click.IntRange(1), metavar="N", help="The N most urgent calls instead.")
@click.option("--venues", is_flag=True, help="The venues by onward risk instead.")
@click.option("--mixing", metavar="VENUE", help="How people mixed at a venue on a day, by hour, instead.")
@click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), help="… that day, of the setting timezone. Default: the clock's."
)
@click.option(
    "--window", type=click.IntRange(1, 1440), default=60, show_default=True, help="… windows of so many minutes,"
)
@click.option(
    "--every", type=click.IntRange(1, 1440), help="… one begins every so many minutes. Default: as wide as they are."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "csv", "json", "parquet"]),
    default="text",
    show_default=True,
    help="csv escapes cells that a spreadsheet would run; json is one object a line.",
)
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse in this folder.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of standard output.")
@click.option("--purpose", help="Why persons are read about: one of the setting purposes.")
def command(
    case: str | None,
    queue: int | None,
    venues: bool,
    mixing: str | None,
    day: datetime | None,
    window: int,
    every: int | None,
    form: str,
    store: Path | None,
    output: Path | None,
    purpose: str | None,
) -> None:
    """What followed from CASE: its visits, whom it exposed by tier, at which venues, who may have infected it, clusters.

    As csv, json or parquet: its exposures, a row a pair of visits. With --queue: whom to call first, by tier, minutes and
    recency, as many as can be called. With --venues: cases × contact minutes × ventilation. Without CASE these two are about
    all cases. With --mixing: by hour or rolling window the persons, their contact minutes, the pairs of them who were there
    together for long enough, and which share that is of all pairs.

    Being at one place at one time is a venue exposure, no proof that two people met. All times are UTC.

    Each call is noted in the audit log before it is answered, under each case that it names; files can be read by their owner
    only.
    """
    asked = (queue is not None) + venues + (mixing is not None)
    if case is None and not asked:
        raise click.UsageError("Name a CASE, or ask for --queue N, --venues or --mixing VENUE.")
    if asked > 1 or (mixing is not None and case is not None):
        raise click.UsageError("Ask for one of --queue, --venues and --mixing; the last is about no CASE.")
    settings = load_settings(store=store)
    if store is not None:
        settings = settings.model_copy(update={"clickhouse_url": None})
    why = checked_purpose(settings, purpose)
    with _open(settings) as (tracing, judge):
        from pipeline.tracing.answer import calls, case_story, cases_at_venues, venues_by_risk
        from pipeline.tracing.mixing import venue_mixing

        if queue is not None:
            table, left_out = calls(tracing, judge, queue, case)
            note_read(settings, "trace --queue", why, case=case, persons=table["visitor_id"].to_pylist())
            _write(table, form, output)
            if left_out:
                click.echo(f"pipeline: {left_out:,} more exposed visitors are beyond today's {queue:,} calls", err=True)
        elif venues:
            table = venues_by_risk(tracing, case)
            told_of = 1 if case is not None else cases_at_venues(tracing)
            note_read(settings, "trace --venues", why, case=case, persons=told_of)
            _write(table, form, output)
        elif mixing is not None:
            table, counted = venue_mixing(tracing, judge, mixing, day and day.date(), window, every or window)
            note_read(settings, "trace --mixing", why, case=None, persons=counted)
            _write(table, form, output)
        elif form == "text":
            assert case is not None
            story = case_story(tracing, judge, case)
            text = "\n".join(_told(story))
            note_cases(settings, why, [("trace", case), *(("told by trace", other) for other in _others(story))])
            with output_file(output, private=True) as out:
                out.write(f"{text}\n".encode())
        else:
            assert case is not None
            if not tracing.reports_of([case]):
                raise UserError(f"there is no case {case} in the store: report it with `pipeline case report`")
            exposed = tracing.exposures([case])["visitor_id"].to_pylist()
            note_read(settings, f"trace --format {form}", why, case=case, persons=[*exposed, ""])
            _exposures(settings, case, _form(form), output)


@contextmanager
def _open(settings: Settings) -> "Iterator[tuple[TraceStore, CaseJudge]]":
    from pipeline.case_reports import CaseJudge
    from pipeline.store.client import open_store  # the embedded engine takes a second to load
    from pipeline.store.tracing import TraceStore

    judge = CaseJudge(settings)
    with closing(TraceStore(open_store(settings, read_only=True))) as tracing:
        try:
            yield tracing, judge
        except StoreUnavailableError as error:
            cause = error.__cause__
            # What a server says of a question may repeat what is stored about persons.
            told = kind(cause) if isinstance(cause, ClickHouseError) and getattr(cause, "code", None) else str(error)
            raise UserError(f"the store does not answer: {told}") from None


def _exposures(settings: Settings, case: str, form: Format, output: Path | None) -> None:
    from pipeline.store.client import open_store
    from pipeline.store.writer import quoted

    sql = f"SELECT * FROM exposures WHERE case_id = {quoted(case)} ORDER BY overlap_from, venue_id, visitor_id, checked_in_at"
    with closing(open_store(settings, read_only=True)) as client, output_file(output, private=True) as out:
        answer(client, sql, form, out, discreet=True)


def _form(form: str) -> Format:
    return "csv" if form == "csv" else "json" if form == "json" else "parquet" if form == "parquet" else "table"


def _write(table: "pa.Table", form: str, output: Path | None) -> None:
    with output_file(output, private=True) as out:
        write_table(table, _form(form), out)


def _told(story: "Story") -> "Iterator[str]":
    report, window, policy = story.case.report, story.case.window, story.case.policy
    yield f"case {report.case_id}, {report.status}, reported {format_instant(report.reported_at)}"
    yield f"visitor {report.visitor_id}"
    yield f"policy {policy.id}, version {policy.version}"
    yield f"infectious from {_minute(window.start)} until {_minute(window.until)}"
    yield f"can have been infected from {_minute(story.infection.start)} until {_minute(story.infection.until)}"
    if not story.case.counts:
        yield "nothing follows from it: it is withdrawn, or of a status that its policy does not count"
    yield ""
    yield f"visits: {story.visits.num_rows or 'none'}"
    for row in story.visits.to_pylist():
        left = f"{row['left_at']:%F %H:%M}" + ("" if row["ended_by"] == "check_out" else " at most")
        roles = (("infected", row["could_be_infected"]), ("infectious", row["could_infect"]))
        role = " and ".join(word for word, holds in roles if holds)
        yield f"  {row['checked_in_at']:%F %H:%M} – {left:<24}  {row['venue_id']}  ({role})"
    yield ""
    yield "venue exposures     visitors    persons     if low    if high  on check-outs alone"
    for row in story.tiers.to_pylist():
        figures = "".join(f"{row[name]:>11,}" for name in ("visitors", "persons", "if_low", "if_high", "exact"))
        yield f"  {row['tier']:<15}{figures}"
    yield from _list(
        "venues",
        story.venues,
        "{venue_id}  {name}: {exposed:,} of {visitors:,} exposed, {person_minutes:,.0f} person-minutes",
    )
    yield from _list(
        "other cases that exposed it",
        story.sources,
        "{overlap_from:%F %H:%M}  {source_case} at {venue_id}: {minutes:.0f} min ({minutes_low:.0f}–{minutes_high:.0f}), {tier}",
    )
    yield from _list(
        "clusters",
        story.clusters,
        "{first:%F %H:%M} – {last:%F %H:%M}  {venue_id}: {cases} cases ({members}) of {persons:,} persons; "
        "{infectious_later} infectious later, attack rate {attack_rate:.1%}, {onward:,} exposed onward",
    )


def _others(story: "Story") -> list[str]:
    """The other cases that `_told` names: their place and time are told, too."""
    sources = story.sources["source_case"].slice(0, _MOST_SHOWN).to_pylist()
    members = " ".join(story.clusters["members"].slice(0, _MOST_SHOWN).to_pylist()).split()
    return sorted({*sources, *members} - {story.case.report.case_id})


def _list(title: str, table: "pa.Table", line: str) -> "Iterator[str]":
    yield ""
    yield f"{title}: {table.num_rows or 'none'}"
    for row in table.slice(0, _MOST_SHOWN).to_pylist():
        yield "  " + line.format(**row)
    if table.num_rows > _MOST_SHOWN:
        yield f"  … and {table.num_rows - _MOST_SHOWN:,} more"


def _minute(ms: int) -> str:
    return format_instant(ms)[:16].replace("T", " ")
