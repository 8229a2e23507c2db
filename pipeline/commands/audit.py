"""`pipeline audit`: read and prove the log of who read what about persons."""

import json
import sys
from collections import deque

import click

from pipeline.audit import AuditLog
from pipeline.settings import load_settings


@click.group(epilog="Example: pipeline audit verify")
def command() -> None:
    """Every read about a person is noted: who, what, why, when, of how many. Nothing is answered that cannot be noted."""


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


@command.command(epilog="Example: pipeline audit verify --offline")
@click.option("--offline", is_flag=True, help="The file alone: finds changes and gaps, but no cut tail.")
def verify(offline: bool) -> None:
    """Look for changed, missing or added entries and, by the heads in Kafka, a cut tail. Exit status 1 if there are any."""
    from pipeline.audit_heads import told_heads

    settings = load_settings()
    heads = [] if offline else told_heads(settings.kafka_access)
    count, faults = AuditLog(settings.audit_path).faults(heads)
    for fault in faults:
        click.echo(fault)
    if faults:
        sys.exit(1)
    compared = "by itself" if offline else f"and {len(heads):,} heads in Kafka"
    click.echo(f"{count:,} entries follow from one another, {compared}")
