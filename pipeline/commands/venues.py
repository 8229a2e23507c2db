"""`pipeline venues`: the venue registry from a file, into Kafka or straight into a store; and the venues' signed codes."""

import json
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import click

from pipeline.errors import UserError
from pipeline.progress import progress_bar
from pipeline.settings import load_settings
from pipeline.venues import VenueRow, read_venues, refusals


@click.group(epilog="Example: pipeline venues load venues.csv")
def command() -> None:
    """Load the venue registry: which places there are, and how many persons they hold; sign and print their codes."""


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

    kafka = load_settings().kafka_access
    with ScanProducer(kafka, VENUES) as producer, progress_bar("sending", len(rows)) as advance:
        for row in rows:
            producer.send(row.key, row.record)
            advance(1)
    return f"the topic {VENUES} at {kafka.address}"


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


_FOLDER = click.option(
    "--keys",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the signing key and the public keys are. Default: HOME/venue-keys.",
)


def _folder(folder: Path | None) -> Path:
    return folder or load_settings().home / "venue-keys"


def _now() -> int:
    return time.time_ns() // 1_000_000


@command.command("signing-key", epilog="Example: pipeline venues signing-key --keys /var/lib/venue-keys")
@_FOLDER
@click.option("--retire", metavar="KEY", help="Instead take this public key out of the set: its codes are refused.")
def signing_key(folder: Path | None, retire: str | None) -> None:
    """Make a new key to sign codes with (ES256), and add its public half to venue-keys.json, which gateways judge by.

    Codes signed with an older key stay good until they expire, or their key is retired.
    """
    from pipeline.venue_codes import PUBLIC_FILE, create_signing_key, retire_key

    place = _folder(folder)
    if retire is not None:
        retire_key(place, retire)
        click.echo(f"the codes of the key {retire} are refused by gateways with {place / PUBLIC_FILE}")
        return
    kid = create_signing_key(place)
    click.echo(f"made the signing key {kid}; give gateways PIPELINE_VENUE_CODE_KEYS={place / PUBLIC_FILE}")


@command.command(epilog="Example: pipeline venues qr --venues venues.csv --out posters")
@click.argument("venue_ids", nargs=-1, metavar="[VENUE_ID]…")
@_FOLDER
@click.option(
    "--venues",
    "registry",
    type=click.Path(path_type=Path),
    help="The registry, for the names; all of its venues if none is given.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("posters"), show_default=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["svg", "png"]),
    default="svg",
    show_default=True,
    help="svg has the name beneath the code; png is the code alone.",
)
@click.option("--days", type=click.IntRange(1, 3660), default=365, show_default=True, help="How long a code is good.")
@click.option("--prefix", default="", help="Put before the code, such as https://check-in.example/#, for a camera.")
def qr(
    venue_ids: tuple[str, ...],
    folder: Path | None,
    registry: Path | None,
    out: Path,
    form: str,
    days: int,
    prefix: str,
) -> None:
    """Make a signed code to print for each VENUE_ID, a file each.

    A printed code can be photographed: it proves which venue was meant, not that somebody was there.
    """
    from pipeline.venue_codes import CodeSigner
    from pipeline.venue_posters import code_png, poster_svg

    names = {} if registry is None else _names(registry)
    wanted = venue_ids or tuple(names)
    if not wanted:
        raise click.UsageError("which venues? Give a VENUE_ID, or --venues FILE for all of a registry.")
    if registry is not None and (unknown := [each for each in wanted if each not in names]):
        raise UserError(f"{registry} has no venue {unknown[0]}: leave out --venues, or add it")
    signer, now = CodeSigner(_folder(folder)), _now()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with progress_bar("drawing", len(wanted)) as advance:
            for venue in wanted:
                content = prefix + signer.code(venue, now, timedelta(days=days))
                drawn = (
                    code_png(content) if form == "png" else poster_svg(content, names.get(venue, ""), venue).encode()
                )
                (out / f"{venue}.{form}").write_bytes(drawn)
                advance(1)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None
    click.echo(f"{len(wanted):,} codes in {out}, good for {days} days")


@command.command(epilog="Example: pipeline venues code mall-0042 --seconds 60")
@click.argument("venue_id")
@_FOLDER
@click.option(
    "--seconds", type=click.IntRange(10, 300), default=60, show_default=True, help="How long the code is good."
)
def code(venue_id: str, folder: Path | None, seconds: int) -> None:
    """Print a code for a venue's display that changes: short-lived, and good once for each person."""
    from pipeline.venue_codes import CodeSigner

    click.echo(CodeSigner(_folder(folder)).code(venue_id, _now(), timedelta(seconds=seconds)))


def _names(registry: Path) -> dict[str, str]:
    rows = read_venues(registry)
    if refused := refusals(registry, rows):
        raise UserError(f"{refused[0]}; no code was made: mend the file")
    return {row.key.decode(): str(json.loads(row.record).get("name") or "") for row in rows}
