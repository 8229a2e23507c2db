"""`pipeline gateway`: scans with raw identifiers come in over HTTP, pseudonymised scans go out to Kafka."""

from pathlib import Path

import click

from pipeline.access_changes import change_note
from pipeline.errors import UserError
from pipeline.settings import load_settings


@click.group(invoke_without_command=True, epilog="Example: pipeline keys create && pipeline gateway")
@click.pass_context
def command(context: click.Context) -> None:
    """Take scans at the settings gateway_host and gateway_port until Ctrl-C: POST /v1/scans, and /v1/scans/batch.

    An answer comes once Kafka has the scan. Raw identifiers end here: they are in no topic, log, metric or error. That none
    comes as a venue_id, see to with the settings venue_codes or gateway_venues.
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    from pipeline.gateway.server import serve_gateway  # the web server and the clients take a second to load
    from pipeline.streaming.logs import set_up_logging

    set_up_logging()
    serve_gateway(settings, say=click.echo)


@command.command("add-device", epilog="Example: PIPELINE_GATEWAY_DEVICES=devices pipeline gateway add-device gate-7")
@click.argument("device")
@click.option(
    "--devices", type=click.Path(dir_okay=False, path_type=Path), help="Default: the setting gateway_devices."
)
def add_device(device: str, devices: Path | None) -> None:
    """Let a DEVICE send: print its token, once, and keep its hash in the file of devices.

    A running gateway knows it within seconds. To shut a device out, remove its line. It is noted in the audit log.
    """
    from pipeline.gateway.devices import add_device as add

    settings = load_settings()
    path = devices or settings.gateway_devices
    if path is None:
        raise UserError("which file of devices? Set PIPELINE_GATEWAY_DEVICES, or give --devices FILE")
    click.echo(add(path, device, change_note(settings, "gateway add-device", device)))
