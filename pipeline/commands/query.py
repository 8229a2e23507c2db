"""`pipeline query`: ask the store in SQL, read-only."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import click

from pipeline.errors import UserError
from pipeline.person_reads import about_persons, checked_purpose, note_read, refuse_what_tells_beside_rows
from pipeline.query import Format, one_read, write_answer
from pipeline.settings import load_settings


@click.command(
    epilog='Example: pipeline query "SELECT * FROM occupancy_now ORDER BY occupancy DESC LIMIT 5" --format csv'
)
@click.argument("sql")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
    help="csv escapes cells that a spreadsheet would run; json is one object a line.",
)
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse in this folder.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of standard output.")
@click.option("--purpose", help="Why persons are read about, where the question does: one of the setting purposes.")
def command(sql: str, form: Format, store: Path | None, output: Path | None, purpose: str | None) -> None:
    """Run one read-only SQL statement on the database `checkins` and print the answer. `-` reads it from stdin.

    The views are scans, visits, occupancy_minutes, occupancy_hours, rolling_occupancy, occupancy_now and dead_letters;
    all times are UTC. Questions about persons (scans, visits, cases, exposures, venue_warnings) are noted in the audit log
    before they are asked, and their files can be read by their owner only.
    """
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is binary: name a file with --output, or pipe it.")
    settings = load_settings(store=store)
    if store is not None:
        settings = settings.model_copy(update={"clickhouse_url": None})
    from pipeline.store.client import open_store  # the embedded engine takes a second to load

    text = sys.stdin.read() if sql == "-" else sql
    if not text.strip():
        raise UserError("the query is empty: give one SQL statement")
    with closing(open_store(settings, read_only=True)) as client:
        statement = one_read(client, text)
        persons = about_persons(statement)
        if persons:
            refuse_what_tells_beside_rows(statement)
            # Of how many it tells is not known before, and one row can tell of all.
            digest = sha256(statement.encode()).hexdigest()
            note_read(settings, "query", checked_purpose(settings, purpose), case=None, persons=None, what=digest)
        with output_file(output, private=persons) as out:
            write_answer(client, statement, form, out, discreet=persons)


@contextmanager
def output_file(path: Path | None, *, private: bool = False) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears under its name only when it is complete; `private`: for its owner only."""
    try:
        if path is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        else:
            with _complete_only(path, 0o600 if private else 0o666) as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"{path or 'standard output'} cannot be written: {error.strerror or error}") from None


@contextmanager
def _complete_only(path: Path, mode: int) -> Iterator[BinaryIO]:
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        # One that an interrupted command left behind would keep its own mode.
        unfinished.unlink(missing_ok=True)
        with open(unfinished, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
