"""`pipeline erase`: take a visitor out of the store for good."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from pipeline.errors import StoreUnavailableError, UserError
from pipeline.person_reads import checked_purpose, note_read
from pipeline.settings import load_settings


@click.command(epilog="Example: pipeline erase p-7f3a9c --purpose legal-request --store .pipeline/store")
@click.argument("visitor")
@click.option(
    "--store", type=click.Path(file_okay=False, path_type=Path), help="The embedded ClickHouse in this folder."
)
@click.option("--purpose", help="Why: one of the setting purposes.")
def command(visitor: str, store: Path | None, purpose: str | None) -> None:
    """Erase the pseudonym VISITOR: its scans, visits, exposures and cases, from all views at once, from the disk within the hour.

    Minutes and hours are counted again as if it had never been there. The hash of the pseudonym stays, so that it is not taken
    again when a topic or a file is read anew. Kafka's topics keep their records until the retention, or until their key is
    destroyed. Prints a receipt. The worker of an embedded store must be stopped, or asked itself: POST /api/v1/erasures. Those
    of a ClickHouse server go on, and do their parts, which takes about half a minute. The erasure may be repeated if it was
    broken off, and later, to see whether the disk is rid of the visitor.
    """
    settings = load_settings(store=store)
    if store is not None:
        settings = settings.model_copy(update={"clickhouse_url": None})
    from pipeline.erasure import erase

    note_read(settings, "erase", checked_purpose(settings, purpose), case=None, persons=1)
    try:
        receipt = erase(settings, visitor)
    except StoreUnavailableError as error:
        raise UserError(f"the store does not answer ({error}): run the same command again") from None
    click.echo(json.dumps(asdict(receipt)))
