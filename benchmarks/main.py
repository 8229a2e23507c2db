"""How many scans a second: from Kafka to stored, without a broker, and beside what a bare reader of the topic can do.

All three read the same simulated day, in turns, so that what else the machine does meanwhile hits all of them.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, mkdtemp
from typing import Final

import click

from benchmarks.day import load_day
from benchmarks.measure import pipeline_command, run_measured
from benchmarks.ours import Result, run_limit, run_replay, run_worker
from benchmarks.report import run, setting, table, write_between
from pipeline.broker import start_broker
from pipeline.errors import UserError
from pipeline.simulate.options import SimulationOptions

LIMIT: Final = "limit: librdkafka + orjson, one process"
WORKER: Final = "worker --drain: Kafka to stored"
REPLAY: Final = "replay: file to stored"


@click.command(epilog="Example: python -m benchmarks.main --check-ins 200000 --repeats 1")
@click.option(
    "--check-ins", type=click.IntRange(1_000), default=1_000_000, show_default=True, help="Visits of the day."
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Rounds of all three.")
@click.option("--partitions", type=click.IntRange(1, 64), default=4, show_default=True, help="Of the topic check-ins.")
@click.option("--keep", is_flag=True, help="Leave the files and stores where they are.")
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md.")
def command(check_ins: int, repeats: int, partitions: int, keep: bool, write: bool) -> None:
    """Measure scans a second with a real broker and a real store, and verify what was stored.

    Of our runs, the first worker's and the first replay's stores must stand `pipeline verify`.
    """
    with _folder(keep) as home, start_broker(home, 0, tied_to_us=True) as broker:
        records = load_day(home, broker.address, SimulationOptions(check_ins=check_ins), partitions)
        results: dict[str, list[Result]] = {LIMIT: [], WORKER: [], REPLAY: []}
        for number in range(repeats):
            results[LIMIT].append(run_limit(home, broker.address))
            results[WORKER].append(run_worker(home, broker.address, number))
            results[REPLAY].append(run_replay(home, number))
            # No store is removed before the end: for some time after, ext4 makes new ones slowly.
            if not number:
                _verify(home, "worker-0")
                _verify(home, "replay-0")
            for name, runs in results.items():
                click.echo(f"{number + 1}/{repeats} {name}: {runs[-1].rate:,.0f}/s", err=True)
        for name, runs in results.items():
            if any(each.records != records for each in runs):
                raise UserError(f"{name} took {[each.records for each in runs]} records of {records:,}: a bug")
    options = f"--check-ins {check_ins} --repeats {repeats} --partitions {partitions}"
    text = f"{setting(f'python -m benchmarks.main {options}')}\n\n{_figures(results, records)}"
    click.echo(text)
    if write:
        write_between("bench", text)


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    with ExitStack() as stack:
        if keep:
            home = Path(mkdtemp(prefix="bench-"))
            click.echo(f"kept in {home}", err=True)
        else:
            home = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        yield home


def _verify(home: Path, store: str) -> None:
    run_measured(pipeline_command("verify", "--store", str(home / store)), home, {})


def _figures(results: dict[str, list[Result]], records: int) -> str:
    rows = []
    for name, runs in results.items():
        rates = [each.rate for each in runs]
        ratios = [each.rate / bare.rate for each, bare in zip(runs, results[LIMIT], strict=True)]
        rows.append(
            [
                name,
                f"{median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
                f"{median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
                f"{median(each.seconds for each in runs):.1f}",
                f"{median(each.process.seconds for each in runs):.1f}",
                f"{median(each.process.cpu_seconds / each.records * 1e6 for each in runs):.1f}",
                f"{max(each.process.peak_rss for each in runs) / 2**20:,.0f}",
            ]
        )
    header = ["", "scans/s (min–max)", "÷ limit (each)", "s", "whole s", "CPU s per M scans", "peak MiB"]
    return f"{records:,} records a run; medians, of the peak memory the most.\n\n{table(header, rows)}"


if __name__ == "__main__":
    run(command)
