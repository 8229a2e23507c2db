"""`pipeline serve`: the pages and the API over a store that no worker of this machine has."""

from pathlib import Path

import click

from pipeline.settings import load_settings


@click.command(
    epilog="Example: PIPELINE_CLICKHOUSE_URL=https://reader:PASSWORD@clickhouse.example:8443/default pipeline serve"
)
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse in this folder.")
def command(store: Path | None) -> None:
    """Serve the live page, the planner's page and the API at the settings http_host and http_port, until Ctrl-C.

    A worker serves the same for the store that it has: this is for a ClickHouse server, as often as it takes, and for an
    embedded store while no worker runs. It only reads.
    """
    settings = load_settings(store=store)
    if store is not None:
        settings = settings.model_copy(update={"clickhouse_url": None})
    from pipeline.api.standalone import serve_until_interrupt  # the web server and the engine take a second to load
    from pipeline.streaming.logs import set_up_logging

    set_up_logging()
    serve_until_interrupt(settings, say=click.echo)
