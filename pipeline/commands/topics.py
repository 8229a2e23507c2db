"""`pipeline topics`: create the topics, or check them."""

import sys

import click

from pipeline.settings import load_settings


@click.command(epilog="Example: PIPELINE_PARTITIONS=12 pipeline topics")
def command() -> None:
    """Create the topics that are missing, and check those that exist: partitions and cleanup policy.

    Existing topics are never changed: where they differ, that is said and the exit status is 1. Records stay for the
    setting retention, counted from their own timestamps; only venues is compacted and stays.
    """
    from pipeline.topics import ensure_topics, settings_topics

    settings = load_settings()
    differs = False
    for state in ensure_topics(settings.kafka_address, settings_topics(settings)):
        click.echo(
            f"{state.topic.name:<16} {'created' if state.created else '; '.join(state.differences) or 'as declared'}"
        )
        differs |= bool(state.differences)
    if differs:
        click.echo(
            "Partitions and policies of topics that hold data are yours to change: make PIPELINE_PARTITIONS agree, "
            "or create the topic anew.",
            err=True,
        )
        sys.exit(1)
