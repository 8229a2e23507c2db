"""`pipeline venues load`: the venue registry from a file, into Kafka or straight into a store."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from pipeline.errors import UserError
from pipeline.progress import progress_bar
from pipeline.settings import load_settings
from pipeline.venues import VenueRow, read_venues, refusals


@click.group(epilog="Example: pipeline venues load venues.csv")
def command() -> None:
    """Load the venue registry: which places there are, their categories and how many persons they hold."""


@command.command(epilog="Example: pipeline venues load venues.csv --store .pipeline/store")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="Into the embedded ClickHouse in this folder instead of Kafka.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out rows that are no venue, and load the others.")
def load(file: Path, store: Path | None, skip_bad: bool) -> None:
    """Send the venues of FILE to the topic venues, for every worker to use. The newest record of a venue holds.

    FILE is CSV with a header (an empty cell is an absent value) or NDJSON, of venue_id, name, category, and if known
    capacity, area, latitude, longitude, timezone, air_changes_per_hour, floor_area_m2. Every row is checked before any is
    sent. What is stored already is corrected where capacity or category change it.
    """
    rows = read_venues(file)
    refused = refusals(file, rows)
    for line in refused:
        click.echo(f"pipeline: {line}", err=True)
    good = [row for row in rows if not row.refusal]
    left_out = len(rows) - len(good)
    if refused and not skip_bad:
        raise UserError(
            f"{left_out:,} of {len(rows):,} rows of {file} are refused, so nothing was loaded: mend them, or leave them "
            "out with --skip-bad"
        )
    place = _send(good) if store is None else _store(good, store)
    click.echo(f"{len(good):,} venues into {place}" + (f"; left out: {left_out:,}" if left_out else ""))


def _send(rows: Sequence[VenueRow]) -> str:
    from pipeline.produce import ScanProducer  # the client takes a moment to load
    from pipeline.topics import VENUES

    address = load_settings().kafka_address
    with ScanProducer(address, VENUES) as producer, progress_bar("sending", len(rows)) as advance:
        for row in rows:
            producer.send(row.key, row.record)
            advance(1)
    return f"the topic {VENUES} at {address}"


def _store(rows: Sequence[VenueRow], folder: Path) -> str:
    from pipeline.engine import open_engine  # the embedded engine and the compiled core take seconds to load
    from pipeline.replay import Replay, store_failures
    from pipeline.store.client import open_store

    settings = load_settings(store=folder).model_copy(update={"clickhouse_url": None})
    with closing(open_store(settings)) as client:
        # The store of a worker goes on by the wall clock, that of a replay by its scans.
        clock = client.query("SELECT mode FROM clock").result_rows[0][0] or None
    with store_failures(settings), closing(open_engine(settings, clock=clock)) as engine, progress_bar("loading", None):
        Replay(engine).load_venues([row.record for row in rows])
    return f"the store {settings.store_path}"
