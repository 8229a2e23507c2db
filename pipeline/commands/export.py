"""`pipeline export`: views of the store as files."""

from contextlib import closing
from pathlib import Path

import click

from pipeline.commands.params import Time
from pipeline.commands.query import output_file
from pipeline.errors import UserError
from pipeline.export import SUFFIXES, VIEWS, Range, export_view, parts, persons_in
from pipeline.person_reads import checked_purpose, note_read
from pipeline.progress import progress_bar
from pipeline.query import FileFormat, make_read_only
from pipeline.settings import load_settings


@click.command(
    epilog="Example: pipeline export occupancy_hours crowding_alerts --since 2021-09-12T00:00:00+07:00 --out september"
)
@click.argument("views", nargs=-1, type=click.Choice(list(VIEWS)), metavar="[VIEW]...")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="The folder.  [default: this one]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(SUFFIXES)),
    default="csv",
    show_default=True,
    help="csv escapes cells that a spreadsheet would run; json is one object a line (.ndjson).",
)
@click.option("--since", type=Time(), metavar="TIME", help="Only rows from then on (RFC 3339).")
@click.option("--until", type=Time(), metavar="TIME", help="Only rows before then.")
@click.option(
    "--persons",
    is_flag=True,
    help="Also views whose rows name visitors, or tell when a case was where.",
)
@click.option("--purpose", help="… why they are read: one of the setting purposes. It is noted in the audit log.")
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse in this folder.")
def command(
    views: tuple[str, ...],
    out: Path,
    form: FileFormat,
    since: int | None,
    until: int | None,
    persons: bool,
    purpose: str | None,
    store: Path | None,
) -> None:
    """Write views to files, VIEW.csv, .ndjson or .parquet; without a VIEW all that hold no row about one person.

    \b
    With a time:     occupancy_minutes, occupancy_hours, crowding_alerts,
                     undercounts, dead_letters, released_suppressed,
                     released_private
    As they are:     occupancy_now, rolling_occupancy, venues, model_checks,
                     accounting, clock, retention, privacy_budget
    With --persons:  scans, visits, cases, exposures, venue_warnings
                     (by time)

    A range concerns the views with a time. Times are UTC, rows ordered by day, then by their columns. A file appears when it is
    complete, in place of one of its name. Those about persons, and those that count single persons at a venue, can be read by
    their owner only; released_suppressed and released_private are made to be given away.
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError("The range is empty: give a --since before --until.")
    chosen = list(dict.fromkeys(views or (name for name, view in VIEWS.items() if persons or not view.persons)))
    if refused := [name for name in chosen if VIEWS[name].persons and not persons]:
        raise UserError(
            f"{' and '.join(refused)}: every row names a visitor by a pseudonym, or tells when a case was where, which is "
            "personal data; add --persons if you may have it and will keep the file from all who may not, or export "
            "occupancy_hours, which holds sums only"
        )
    settings = load_settings(store=store)
    if store is not None:
        settings = settings.model_copy(update={"clickhouse_url": None})
    why = checked_purpose(settings, purpose) if any(VIEWS[name].persons for name in chosen) else ""
    from pipeline.store.client import open_store  # the embedded engine takes a second to load

    with closing(open_store(settings, read_only=True)) as client:
        make_read_only(client)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{out} cannot be written: {error.strerror}; name another folder with --out") from None
        for name in chosen:
            path = out / f"{name}.{SUFFIXES[form]}"
            days = parts(client, name, Range(since, until))
            if VIEWS[name].persons:
                count = persons_in(client, name, Range(since, until))
                note_read(settings, f"export {name}", why, case=None, persons=count)
            with (
                progress_bar(name, len(days)) as advance,
                output_file(path, private=bool(VIEWS[name].persons) or VIEWS[name].small) as file,
            ):
                rows = export_view(client, name, days, form, file, lambda: advance(1))
            click.echo(f"{path}  {rows:,} rows")
        if small := [name for name in chosen if VIEWS[name].small]:
            click.echo(
                f"pipeline: {', '.join(small)}: numbers down to single persons, for operators; to give numbers away, export "
                "released_suppressed or released_private (pipeline release)",
                err=True,
            )
