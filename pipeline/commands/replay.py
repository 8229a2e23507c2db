"""`pipeline replay`: files of scans through the same engine as the worker's, without a broker."""

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from pipeline.case_reports import Case, CaseJudge, read_reports
from pipeline.case_reports import refusals as case_refusals
from pipeline.commands.params import Time
from pipeline.errors import UserError
from pipeline.files import read_records
from pipeline.interrupts import stop_on_interrupt
from pipeline.progress import progress_bar
from pipeline.settings import Settings, load_settings
from pipeline.streaming.logs import set_up_logging
from pipeline.venues import read_venues, refusals
from schemas.fields import format_instant

if TYPE_CHECKING:
    from pipeline.replay import Replayed


@click.command(epilog="Example: pipeline replay sunday.ndjson.zst --venues venues.csv --store sunday")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse in this folder.")
@click.option("--venues", type=click.Path(path_type=Path), help="The venue registry, loaded first: .csv or .ndjson.")
@click.option(
    "--cases", type=click.Path(path_type=Path), help="Case reports (NDJSON), traced when all scans are stored."
)
@click.option("--until", type=Time(), metavar="TIME", help="Results as of then (RFC 3339); later scans are not read.")
def command(
    files: tuple[Path, ...], store: Path | None, venues: Path | None, cases: Path | None, until: int | None
) -> None:
    """Process files of scans without a broker: same decoding, same results. NDJSON (also .gz, .zst) or Parquet.

    What is stored is a set: neither the order of the files nor scans that are there already change anything, so a replay
    may be repeated. Results are as of the latest scan, or of --until. Records that cannot be taken are in the view
    dead_letters, under the topic replay. Cases that the store holds, and those of --cases, are traced again at the end. Exit
    status 1 when rows of --venues or --cases were refused; the rest is done.
    """
    for path in files:
        next(read_records(path), None)
    rows = read_venues(venues) if venues else []
    settings = load_settings(store=store)
    set_up_logging()
    if store is not None:
        settings = settings.model_copy(update={"clickhouse_url": None})
    if cases and settings.clickhouse_url is not None:
        raise UserError("--cases is for an embedded store; a server's workers trace what `pipeline case report` sends")
    reports = read_reports(cases, CaseJudge(settings)) if cases else []
    refused = refusals(venues, rows) if venues else []
    refused += case_refusals(cases, reports) if cases else []
    for line in refused:
        click.echo(f"pipeline: {line}", err=True)
    with stop_on_interrupt() as stopped:
        replayed, as_of = _replay(settings, files, [row.record for row in rows if not row.refusal], until, stopped)
    _show(replayed, as_of)
    if settings.clickhouse_url is None:
        _trace(settings, [row.record for row in reports if isinstance(row.verdict, Case)])
    if replayed.interrupted:
        click.echo(
            "pipeline: interrupted: these records are stored; the same command again goes on and changes nothing twice",
            err=True,
        )
        sys.exit(130)
    if refused:
        names = " and ".join(str(path) for path in (venues, cases) if path)
        raise UserError(f"rows of {names} were refused, as listed above; everything else is stored")


def _replay(
    settings: Settings, files: Sequence[Path], venues: Sequence[bytes], until: int | None, stopped: Event
) -> tuple["Replayed", int]:
    from pipeline.engine import open_engine  # the embedded engine and the compiled core take seconds to load
    from pipeline.replay import Replay, store_failures
    from pipeline.store.client import open_store
    from pipeline.store.recovery import read_standing

    with (
        store_failures(settings),
        closing(open_engine(settings, clock="events", until=until)) as engine,
        closing(open_store(settings, read_only=True)) as client,
    ):
        standing = read_standing(client)
        reached = max(standing.as_of, standing.newest)
        if until is not None and until < reached:
            raise UserError(
                f"--until {format_instant(until)} is before {format_instant(reached)}, which the store has reached: "
                "results never go back; choose a later time, or another store with --store"
            )
        with progress_bar("loading the state", None) as loaded:
            engine.watch_estimates(lambda rows, day: loaded(rows, f"estimates of {day} anew"))
            replay = Replay(engine, patient=settings.clickhouse_url is not None, stopped=stopped)
        if venues:
            replay.load_venues(venues)
        with progress_bar("replaying", sum(path.stat().st_size for path in files)) as advance:
            replayed = replay.read_files(files, lambda size, records: advance(size, f"{records:,} records"))
        return replayed, read_standing(client).as_of


def _trace(settings: Settings, reports: Sequence[bytes]) -> None:
    from pipeline.replay import store_failures
    from pipeline.tracing.replayed import trace_all

    with store_failures(settings), progress_bar("tracing", None) as advance:
        strangers = trace_all(settings, reports, lambda left: advance(1, f"{left:,} cases left"))
    for case in strangers:
        click.echo(f"pipeline: case {case} has no visit in the store: it stands, and has exposed nobody", err=True)


def _show(replayed: "Replayed", as_of: int) -> None:
    accepted = replayed.stored + replayed.duplicates
    letters = ", ".join(f"{count:,} {reason}" for reason, count in sorted(replayed.dead_letters.items()))
    lines = [
        ("records", f"{replayed.records:,}"),
        ("scans stored", f"{replayed.stored:,}"),
        ("duplicates", f"{replayed.duplicates:,}"),
        ("dead letters", letters or "0"),
        ("after --until", f"{replayed.unread:,}"),
        ("seconds", f"{replayed.seconds:.2f}"),
        ("scans/s", f"{accepted / replayed.seconds:,.0f}"),
        ("as_of", format_instant(as_of) if as_of else "none: no scan was ever stored"),
    ]
    for name, value in lines:
        if name != "after --until" or replayed.unread:
            click.echo(f"{name:<14} {value}")
