"""`pipeline demo`: one simulated Sunday of a city through Kafka, Faust and ClickHouse."""

import click

from pipeline.settings import load_settings


@click.command(epilog="Example: pipeline demo --once --scans 1000000")
@click.option("--once", is_flag=True, help="Exit when the day is stored, verified and summed up.")
@click.option(
    "--scans",
    type=click.IntRange(5_000, 8_000_000),
    default=200_000,
    show_default=True,
    help="About how many scans the day has.",
)
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="Same seed, same day.")
def command(once: bool, scans: int, seed: int) -> None:
    """One simulated Sunday of a city through a real Kafka, Faust and ClickHouse: stored, verified, summed up.

    Everything is in PIPELINE_HOME/demo, which starts empty each time; your own store and broker are not touched. Without
    --once the worker then goes on until Ctrl-C, the next days come in, and the live page shows it: its address is printed.
    Everything that was started is stopped.
    """
    from pipeline.demo import run_demo  # Kafka's clients take a moment to load
    from pipeline.parts import PartFailedError, end_on_signals

    try:
        with end_on_signals():
            run_demo(load_settings(), once=once, scans=scans, seed=seed, say=click.echo)
    except PartFailedError as error:
        click.echo(error.last_lines, err=True)
        raise
