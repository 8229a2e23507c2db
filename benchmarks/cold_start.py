"""How long a worker takes to come back to a day whose visits are open: what it loads, and the whole of its start."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click

from benchmarks.day import replay_day
from benchmarks.measure import high_water
from benchmarks.report import run, setting, table, write_between
from benchmarks.serving import running_worker
from pipeline.broker import start_broker
from pipeline.engine import open_engine
from pipeline.replay import TOPIC
from pipeline.settings import load_settings
from pipeline.topic_admin import ensure_topics
from pipeline.topics import declared_topics


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading the state took, in seconds, and what there was to load."""

    seconds: float
    open_visits: int
    scans: int


@click.command(epilog="Example: python -m benchmarks.cold_start --check-ins 200000 --repeats 1")
@click.option(
    "--check-ins", type=click.IntRange(1_000), default=2_000_000, show_default=True, help="Visits of the day."
)
@click.option(
    "--days-before", type=click.IntRange(0), default=1, show_default=True, help="Days of that size before it."
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Starts.")
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md.")
def command(check_ins: int, days_before: int, repeats: int, write: bool) -> None:
    """Replay days into a store, then start a worker over it, with nothing to read, again and again."""
    with TemporaryDirectory(prefix="bench-") as folder, start_broker(Path(folder), 0, tied_to_us=True) as broker:
        home = Path(folder)
        ensure_topics(broker.address, declared_topics(1, retention=None))
        replay_day(home, check_ins, days_before)
        starts = [_start(home, broker.address) for _ in range(repeats)]
        loads = list(_loads(home / "store", repeats))
    command_line = (
        f"python -m benchmarks.cold_start --check-ins {check_ins} --days-before {days_before} --repeats {repeats}"
    )
    text = f"{setting(command_line)}\n\n{_figures(starts, loads)}"
    click.echo(text)
    if write:
        write_between("cold_start", text)


def _start(home: Path, address: str) -> tuple[float, int]:
    """Seconds that a worker takes from its start until it reads, and the most memory that it has held by then, in bytes."""
    with running_worker(home, address, (), STORE=str(home / "store")) as (_, worker):
        return time.time() - worker.create_time(), high_water(worker.pid)


def _loads(store: Path, repeats: int) -> Iterator[Loaded]:
    with closing(open_engine(load_settings(store=store), clock="events")) as engine:
        for _ in range(repeats):
            began = time.monotonic()
            engine.assign(TOPIC, [0])
            seconds = time.monotonic() - began
            yield Loaded(seconds, engine.open_visits, engine.counters()["scans_held"])
            engine.revoke(TOPIC, [0])


def _figures(starts: list[tuple[float, int]], loads: list[Loaded]) -> str:
    load = [each.seconds for each in loads]
    whole = [seconds for seconds, _ in starts]
    rows = [
        ("visits open", f"{loads[0].open_visits:,}"),
        ("scans in memory", f"{loads[0].scans:,}"),
        ("loading the state, s (each)", f"{median(load):.1f} ({', '.join(f'{each:.1f}' for each in load)})"),
        (
            "`pipeline worker`, from its start until it reads, s (each)",
            f"{median(whole):.1f} ({', '.join(f'{each:.1f}' for each in whole)})",
        ),
        ("its peak memory, MiB", f"{max(peak for _, peak in starts) / 2**20:,.0f}"),
    ]
    return table(("a worker over a day's store", ""), rows)


if __name__ == "__main__":
    run(command)
