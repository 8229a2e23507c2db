"""`pipeline audit`: read and prove the log of who read what about persons, and who changed access."""

import json
import sys
from collections import deque
from pathlib import Path

import click

from pipeline.audit import AuditLog, unaccounted
from pipeline.settings import load_settings


@click.group(epilog="Example: pipeline audit verify")
def command() -> None:
    """Every read about a person is noted: who, what, why, when, of how many. Nothing is answered that cannot be noted.

    So are changes of access: tokens, devices, keys, releases.
    """


@command.command(epilog="Example: pipeline audit show --last 20")
@click.option("--last", type=click.IntRange(1), default=50, show_default=True, help="So many entries.")
def show(last: int) -> None:
    """Print the last entries, one JSON object a line."""
    for entry in deque(AuditLog(load_settings().audit_path).entries(), last):
        click.echo(json.dumps(entry))


@command.command(epilog="Example: pipeline audit anchor")
def anchor() -> None:
    """Tell Kafka (topic audit-heads) what the last entry is: whoever cuts the log afterwards is found out.

    A worker does so by itself each minute. Send the topic to a cluster that the log's keeper cannot write to.
    """
    from pipeline.audit_heads import tell_head

    settings = load_settings()
    head = AuditLog(settings.audit_path).head()
    if head is None:
        click.echo("the log is empty: there is nothing to tell")
        return
    tell_head(settings.kafka_access, head)
    click.echo(f"entry {head.number} of log {head.log} is told")


@command.command(epilog="Example: pipeline audit verify --elsewhere 5f2b9c0d1e8a7746")
@click.option("--offline", is_flag=True, help="The file alone: finds changes and gaps, but no cut tail.")
@click.option(
    "--log",
    "logs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A log, or a copy of another machine's, instead of the setting audit_log. May be given again.",
)
@click.option(
    "--elsewhere", multiple=True, metavar="NAME", help="A log that is verified on its own machine. May be given again."
)
@click.option(
    "--disregard",
    multiple=True,
    metavar="PARTITION/OFFSET",
    help="A head in Kafka that was found to be false. May be given again.",
)
def verify(offline: bool, logs: tuple[Path, ...], elsewhere: tuple[str, ...], disregard: tuple[str, ...]) -> None:
    """Look for changed, missing or added entries and, by the heads in Kafka, a cut tail. Exit status 1 if there are any.

    Each head in Kafka must be borne out by a log that is verified here, or be of one that is named with --elsewhere: otherwise a
    log that was deleted, replaced or renamed would not be missed. And each log must have a head there.
    """
    from pipeline.audit_heads import ToldHeads, told_heads

    settings = load_settings()
    # First what was told, then what it is compared with: entries may be added meanwhile.
    told = ToldHeads() if offline else told_heads(settings.kafka_access, disregard)
    readings = [AuditLog(path).reading() for path in logs or (settings.audit_path,)]
    faults = [f"{reading.path}: {fault}" for reading in readings for fault in reading.faults] + told.faults
    if not offline:
        faults += unaccounted(readings, told.heads, elsewhere)
    for fault in faults:
        click.echo(fault)
    if faults:
        sys.exit(1)
    compared = "by itself" if offline else f"and {len(told.heads):,} heads in Kafka"
    for reading in readings:
        name = f" of log {reading.log}" if reading.log else ""
        click.echo(f"{len(reading.hashes):,} entries{name} follow from one another, {compared}")
