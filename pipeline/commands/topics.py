"""`pipeline topics`: create the topics, or check them."""

import sys

import click

from pipeline.settings import Settings, load_settings


@click.command(epilog="Example: PIPELINE_PARTITIONS=12 pipeline topics")
@click.option("--acls", is_flag=True, help="Give every user the rights of infra/kafka/acls.toml too.")
def command(acls: bool) -> None:
    """Create the topics that are missing, and check those that exist: partitions and cleanup policy.

    Existing topics are never changed: where they differ, that is said and the exit status is 1. Records stay for the
    setting retention, counted from their own timestamps; only venues is compacted and stays.

    --acls is for the cluster's super user. Rights that are not in the file are named, never taken away, and the exit status is 1.
    """
    from pipeline.topic_admin import ensure_topics
    from pipeline.topics import settings_topics

    settings = load_settings()
    differs = False
    for state in ensure_topics(settings.kafka_access, settings_topics(settings)):
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
    if acls:
        differs |= _ensure_rights(settings)
    if differs:
        sys.exit(1)


def _ensure_rights(settings: Settings) -> bool:
    from pipeline.kafka_acls import declared_rights, ensure_rights

    state = ensure_rights(settings.kafka_access, declared_rights(settings.group))
    for right in state.given:
        click.echo(f"given: {right}")
    click.echo(f"{len(state.given)} rights given, {len(state.present)} as declared")
    for words in state.superfluous:
        click.echo(f"not declared: {words}")
    if state.superfluous:
        click.echo("Take what is not declared away with kafka-acls.sh --remove, or declare it.", err=True)
    return bool(state.superfluous)
