"""`pipeline retention`: drop what is older than the retention, or prove that nothing is."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.errors import UserError
from pipeline.query import reason
from pipeline.settings import Settings, load_settings
from schemas.fields import format_instant

if TYPE_CHECKING:
    pass

#: A worker drops a day within minutes of its time; so long after midnight (UTC) nothing excuses it any more.
_GRACE = timedelta(hours=1)

_store = click.option(
    "--store", type=click.Path(file_okay=False, path_type=Path), help="Only the embedded ClickHouse in this folder."
)
_as_of = click.option(
    "--as-of",
    metavar="TIME",
    help="As if it were this time (RFC 3339) instead of now, or, in a store by event time, its clock.",
)


@click.group(epilog="Example: pipeline retention check")
def command() -> None:
    """Personal data lives for the setting `retention`: in the store by whole days, in Kafka's topics by record.

    Scans may come up to the retention late, and a visit lasts up to a day: so the store keeps the days that hold the last
    `retention` and one day before them. Minutes, hours and alerts hold no persons and stay.
    """


@command.command(epilog="Example: pipeline retention apply --store .pipeline/store")
@_store
@_as_of
def apply(store: Path | None, as_of: str | None) -> None:
    """Drop what is older, now. Workers do it by themselves; this is for stores without one, and after a shorter retention.

    Without --store the topics' settings are brought in line too.
    """
    settings = _settings(store)
    from pipeline.retention import apply_retention
    from pipeline.topic_admin import kept_too_long
    from pipeline.topics import settings_topics

    with _failures():
        for line in apply_retention(settings, _time(as_of)):
            click.echo(line)
    if store is None:
        for topic, found in kept_too_long(settings.kafka_access, settings_topics(settings), apply=True).items():
            click.echo(f"topic {topic}: set as declared; it had {found}")


@command.command(epilog="Example: pipeline retention check --store .pipeline/store")
@_store
@_as_of
def check(store: Path | None, as_of: str | None) -> None:
    """Say what is kept longer than the retention, and where. Exit status 1 if anything is.

    Without --store the topics are looked at too: how long Kafka is told to keep them, and whether it holds older records now.
    """
    settings = _settings(store)
    from pipeline.retention import clock_of
    from pipeline.store.client import open_store
    from pipeline.store.retention import bounds_of, overdue
    from pipeline.topic_admin import kept_too_long, outlived
    from pipeline.topics import settings_topics

    found = []
    with _failures(), closing(open_store(settings)) as client:
        now = _time(as_of) or clock_of(client)
        bounds = bounds_of(now - _GRACE // timedelta(milliseconds=1), settings.retention // timedelta(milliseconds=1))
        found += [
            f"{each.table}: {each.rows:,} rows from before {format_instant(bounds.kept_from)}"
            + (f", the oldest of {format_instant(each.oldest)}" if each.oldest else "")
            for each in overdue(client, bounds)
        ]
    if store is None:
        topics = settings_topics(settings)
        for told in (
            kept_too_long(settings.kafka_access, topics),
            outlived(settings.kafka_access, topics, time.time_ns() // 1_000_000),
        ):
            found += [f"topic {topic}: {difference}" for topic, difference in told.items()]
    for line in found:
        click.echo(line)
    if found:
        click.echo("drop it with: pipeline retention apply", err=True)
        sys.exit(1)
    click.echo(f"nothing about persons from before {format_instant(bounds.kept_from)}")


def _settings(store: Path | None) -> Settings:
    settings = load_settings(store=store)
    return settings if store is None else settings.model_copy(update={"clickhouse_url": None})


def _time(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise click.UsageError(f"--as-of {text!r} is no time: give one like 2021-09-19T12:00:00+07:00")
    return int(moment.astimezone(UTC).timestamp() * 1000)


@contextmanager
def _failures() -> "Iterator[None]":
    try:
        yield
    except ClickHouseError as error:
        raise UserError(f"the store cannot be asked: {reason(error)}") from None
