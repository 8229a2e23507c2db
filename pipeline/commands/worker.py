"""`pipeline worker`: consume check-ins and case reports, compute occupancy and exposures, store them."""

import logging
from pathlib import Path

import click

from pipeline.settings import load_settings

log = logging.getLogger(__name__)


@click.command(epilog="Example: pipeline worker --drain")
@click.option(
    "--drain",
    is_flag=True,
    help="Exit 0 once everything in the topics at the start is stored and committed by the group.",
)
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse lives here.")
@click.pass_context
def command(context: click.Context, drain: bool, store: Path | None) -> None:
    """Consume check-ins, compute occupancy, store it; trace cases and publish whom they exposed.

    Run as many as there are partitions. Ctrl-C or SIGTERM finishes the outstanding write and leaves; Ctrl-C again exits
    at once. With --drain the last line on stdout is JSON: scans, seconds, scans_per_second, delays, dead_letters,
    duplicates.
    """
    from pipeline.engine import open_engine
    from pipeline.model_care import StoreModelCare
    from pipeline.store.patience import opened_patiently
    from pipeline.streaming.logs import set_up_logging
    from pipeline.streaming.service import run_worker
    from pipeline.tracing.tracer import open_tracer

    settings = load_settings(store=store)
    set_up_logging()
    engine = opened_patiently(lambda: open_engine(settings, clock=settings.clock or "wall"))
    tracer = opened_patiently(lambda: open_tracer(settings))
    engine.watch_visits(tracer.visits_stored)
    engine.watch_estimates(lambda rows, day: log.info("estimates of %s made anew: %s rows", day, f"{rows:,}"))
    care = None if drain else StoreModelCare(settings)
    context.exit(run_worker(settings, engine, tracer=tracer, care=care, drain=drain))
