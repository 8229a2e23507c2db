"""`pipeline broker`: start, stop or look at a real local Apache Kafka."""

import shlex
import sys

import click

from pipeline.settings import Settings, load_settings


@click.group(epilog="Example: pipeline broker start")
def command() -> None:
    """Start, stop or look at a real local Apache Kafka. Its data and its log are in PIPELINE_HOME/kafka.

    It listens on 127.0.0.1 only, on the port PIPELINE_KAFKA_PORT.
    """


@command.command(epilog="Example: PIPELINE_KAFKA_PORT=9092 pipeline broker start")
@click.option("--secured", is_flag=True, help="Make it one that asks for TLS, a user and rights (infra/kafka).")
def start(secured: bool) -> None:
    """Start it and wait until it answers; it runs until `broker stop`. Does nothing when it already runs.

    What was once made with --secured stays so. Its certificates and passwords are in PIPELINE_HOME/kafka/secured.
    """
    from pipeline.broker import find_broker, start_broker
    from pipeline.kafka_identity import authority_file, password_file

    settings = load_settings()
    known = find_broker(settings.home)
    broker = start_broker(settings.home, settings.kafka_port, secured=secured)
    already = known is not None and known.process == broker.process
    click.echo(f"Kafka {'already runs' if already else 'runs'} at {broker.address}, process {broker.process.pid}")
    if broker.secured is not None:
        click.echo(
            "Give each part its user, as here the worker:\n"
            "    export PIPELINE_KAFKA_PROTOCOL=SASL_SSL PIPELINE_KAFKA_USER=worker\n"
            f"    export PIPELINE_KAFKA_CA={shlex.quote(str(authority_file(broker.secured)))}\n"
            f'    export PIPELINE_KAFKA_PASSWORD="$(cat {shlex.quote(str(password_file(broker.secured, "worker")))})"'
        )
    _note_other_cluster(settings)


@command.command(epilog="Example: pipeline broker stop")
def stop() -> None:
    """Stop it and wait until it is gone. Its data stays. Does nothing when it does not run."""
    from pipeline.broker import find_broker

    broker = find_broker(load_settings().home)
    if broker is None:
        click.echo("Kafka does not run")
        return
    broker.stop()
    click.echo(f"Kafka at {broker.address} has stopped")


@command.command(epilog="Example: pipeline broker status || pipeline broker start")
def status() -> None:
    """Say whether it runs and answers: exit status 0 if it does, 1 if not."""
    from pipeline.broker import find_broker

    settings = load_settings()
    broker = find_broker(settings.home)
    if broker is None:
        click.echo("Kafka does not run")
        sys.exit(1)
    answering = broker.answers()
    verdict = "runs" if answering else "runs but does not answer"
    click.echo(f"Kafka {verdict} at {broker.address}, process {broker.process.pid}, log {broker.log}")
    _note_other_cluster(settings)
    sys.exit(0 if answering else 1)


def _note_other_cluster(settings: Settings) -> None:
    if settings.kafka:
        click.echo(f"Note: PIPELINE_KAFKA={settings.kafka} is set, so the other commands do not use it.", err=True)
