"""How many scans a second: from Kafka to stored, without a broker, and beside what a bare reader of the topic can do.

All three read the same simulated day, in turns, so that what else the machine does meanwhile hits all of them.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, mkdtemp
from typing import Final

import click

from benchmarks import limit
from benchmarks.measure import Run, pipeline_command, run_measured
from benchmarks.report import run, setting, table, write_between
from pipeline.broker import start_broker
from pipeline.errors import UserError
from pipeline.produce import ScanProducer
from pipeline.progress import progress_bar
from pipeline.simulate.day import DayPlan
from pipeline.simulate.files import open_lines, write_venues
from pipeline.simulate.options import SimulationOptions
from pipeline.topics import CHECK_INS, declared_topics, ensure_topics

LIMIT: Final = "limit: librdkafka + orjson, one process"
WORKER: Final = "worker --drain: Kafka to stored"
REPLAY: Final = "replay: file to stored"


@dataclass(frozen=True, slots=True)
class Result:
    """One run: the records it took, the seconds it says it worked for, and the process from start to end."""

    records: int
    seconds: float
    process: Run

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds


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
        records = _prepare(home, broker.address, SimulationOptions(check_ins=check_ins), partitions)
        results: dict[str, list[Result]] = {LIMIT: [], WORKER: [], REPLAY: []}
        for number in range(repeats):
            results[LIMIT].append(_limit(home, broker.address))
            results[WORKER].append(_worker(home, broker.address, number))
            _finish(home, f"worker-{number}", verify=number == 0, keep=keep)
            results[REPLAY].append(_replay(home, number))
            _finish(home, f"replay-{number}", verify=number == 0, keep=keep)
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


def _prepare(home: Path, address: str, options: SimulationOptions, partitions: int) -> int:
    """Make the day, once, as a file and in Kafka, with its venues; and the compiled code. Returns how many records."""
    # Retention counts from the records' own timestamps, which are of the simulated day: none may be set.
    ensure_topics(address, declared_topics(partitions, retention=None))
    plan = DayPlan(options)
    write_venues(_venues(home), plan.venues())
    with (
        ScanProducer(address, CHECK_INS) as producer,
        open_lines(_scans(home)) as file,
        progress_bar("making the day", plan.line_count) as advance,
    ):
        for batch in plan.batches():
            file.write(b"\n".join([*batch.lines, b""]))
            for key, line, arrival in zip(batch.keys, batch.lines, batch.arrival_ms.tolist(), strict=True):
                producer.send(key, line, arrival)
            advance(len(batch.lines))
        producer.flush()
        if producer.confirmed != plan.line_count:
            raise UserError(f"Kafka took {producer.confirmed:,} of {plan.line_count:,} records")
    run_measured(pipeline_command("venues", "load", str(_venues(home))), home, {"kafka": address})
    # Compiling belongs to the first start on a machine, not to a figure.
    small = home / "small.ndjson"
    with open_lines(small) as file:
        for batch in DayPlan(SimulationOptions(check_ins=1_000)).batches():
            file.write(b"\n".join([*batch.lines, b""]))
    run_measured(pipeline_command("replay", str(small), "--store", str(home / "small")), home, {})
    return plan.line_count


def _scans(home: Path) -> Path:
    return home / "day.ndjson.zst"


def _venues(home: Path) -> Path:
    return home / "venues.csv"


def _limit(home: Path, address: str) -> Result:
    process = run_measured([sys.executable, str(limit.__file__), address, CHECK_INS], home, {})
    said = json.loads(process.stdout)
    return Result(said["scans"], said["seconds"], process)


def _worker(home: Path, address: str, number: int) -> Result:
    settings = {
        "home": str(home),
        "store": str(home / f"worker-{number}"),
        "kafka": address,
        "clock": "events",
        "group": f"bench-{number}",
        "http_port": "0",
    }
    process = run_measured(pipeline_command("worker", "--drain"), home, settings)
    said = json.loads(process.stdout.splitlines()[-1])
    return Result(said["scans"], said["seconds"], process)


def _replay(home: Path, number: int) -> Result:
    store = str(home / f"replay-{number}")
    arguments = ("replay", str(_scans(home)), "--venues", str(_venues(home)), "--store", store)
    process = run_measured(pipeline_command(*arguments), home, {"clock": "events"})
    said = dict(re.findall(r"^(\w[\w /]*?)\s{2,}([\d.,]+)$", process.stdout, re.MULTILINE))
    return Result(int(said["records"].replace(",", "")), float(said["seconds"].replace(",", "")), process)


def _finish(home: Path, store: str, *, verify: bool, keep: bool) -> None:
    if verify:
        run_measured(pipeline_command("verify", "--store", str(home / store)), home, {})
    if not keep:
        shutil.rmtree(home / store)


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
