"""`pipeline release`: numbers that may leave the system."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.access_changes import change_note
from pipeline.commands.query import output_file
from pipeline.errors import StoreUnavailableError, UserError
from pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from pipeline.store.releases import Kind, Release

_store = click.option(
    "--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse in this folder."
)
_day = click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), metavar="YYYY-MM-DD", help="A UTC day. Default: the newest closed one."
)
_output = click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Also write all of it as JSON to this file."
)


@click.group(epilog="Example: pipeline release private --day 2021-09-19 --output 2021-09-19.json")
def command() -> None:
    """Counts by area, category of venue and hour, of a day that is closed: twelve hours after its end (UTC).

    Each kind is made once for a day, and kept in the store before anything is told: asked again, also after a crash, the same
    comes out, whatever was corrected since. The views released_suppressed, released_private and privacy_budget hold all of it,
    the audit log who asked.
    """


@command.command(epilog="Example: pipeline release suppressed --day 2021-09-19 --store .pipeline/store")
@_day
@_output
@_store
def suppressed(day: datetime | None, output: Path | None, store: Path | None) -> None:
    """For viewers and planners: persons who arrived, with totals by hour; rounded, and hidden where fewer than ten visitors came.

    Others are hidden where a small one could be worked out from them. A solver tries to: nothing is released if it can.
    """
    with _opened(store) as (client, settings):
        made = _release(client, settings, "suppressed", day)
        hidden = sum(row.arrivals is None for row in made.figures)
        _write(made, output)
        click.echo(f"{made.day}: {len(made.figures):,} numbers, {hidden:,} of them hidden; sha256 {made.digest}")


@command.command(epilog="Example: pipeline release private --day 2021-09-19 --output 2021-09-19.json")
@_day
@_output
@_store
def private(day: datetime | None, output: Path | None, store: Path | None) -> None:
    """For everybody: visitors who arrived, and who were there at the hour's end, with noise (differential privacy).

    One visitor's whole day moves the chance of any result by a factor of e^ε at most; ε is the setting release_epsilon. A visitor
    counts in four cells of the day at most. Numbers may be negative; sums of many cells are closer to the truth than each.
    """
    with _opened(store) as (client, settings):
        made = _release(client, settings, "private", day)
        _write(made, output)
        click.echo(f"{made.day}: {len(made.figures):,} cells, ε {made.epsilon:g} spent; sha256 {made.digest}")


@command.command(epilog="Example: pipeline release budget --format json --output budget.json")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of standard output.")
@_store
def budget(form: str, output: Path | None, store: Path | None) -> None:
    """The ledger: what each day's release with noise has spent, when it was drawn, and how. It may be published."""
    from pipeline.query import answer

    with _opened(store) as (client, _), output_file(output) as out:
        columns = "*" if form == "json" else "day, epsilon, drawn_at, sha256"
        answer(
            client,
            f"SELECT {columns} FROM privacy_budget ORDER BY day",
            "json" if form == "json" else "csv" if form == "csv" else "table",
            out,
        )


@command.command(epilog="Example: pipeline release check --day 2021-09-19")
@_day
@_store
def check(day: datetime | None, store: Path | None) -> None:
    """Try to work out the hidden numbers of a released table from those that are shown. Exit status 1 if it can be done."""
    with _opened(store) as (client, settings):
        from pipeline.release.publish import exposed

        made = _release(client, settings, "suppressed", day)
        told = exposed(made.figures, int(str(made.method["base"])))
        for line in told[:20]:
            click.echo(line)
        if told:
            raise UserError(f"{len(told):,} hidden numbers of {made.day} can be worked out; withdraw the table")
        hidden = sum(row.arrivals is None for row in made.figures)
        click.echo(
            f"{made.day}: none of {hidden:,} hidden numbers can be told from 0, nor from {made.method['below']} or more"
        )


@contextmanager
def _opened(store: Path | None) -> "Iterator[tuple[Client, Settings]]":
    settings = load_settings(store=store)
    if store is not None:
        settings = settings.model_copy(update={"clickhouse_url": None})
    from pipeline.store.client import open_store  # the embedded engine takes a second to load

    with closing(open_store(settings, read_only=True)):
        pass  # what is not there is not made: say so
    try:
        with closing(open_store(settings)) as client:
            yield client, settings
    except StoreUnavailableError as error:
        raise UserError(f"the store does not answer: {error}") from None


def _release(client: "Client", settings: Settings, kind: "Kind", day: datetime | None) -> "Release":
    from pipeline.release.publish import release
    from pipeline.store.decisions import decisions_of
    from pipeline.store.releases import rivals_seconds

    asked: date | None = day.date() if day else None
    change_note(settings, f"release {kind}", str(asked or "the newest closed day"))()
    return release(
        client,
        kind,
        asked,
        base=settings.release_base,
        epsilon=settings.release_epsilon,
        decisions=decisions_of(settings),
        rivals=rivals_seconds(settings),
    )


def _write(made: "Release", output: Path | None) -> None:
    if output is not None:
        with output_file(output) as out:
            out.write(json.dumps({**made.content(), "sha256": made.digest}, ensure_ascii=False).encode() + b"\n")
