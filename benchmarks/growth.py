"""How the cost of a scan grows with what there is: venues, open visits, partitions, late scans, and days in the store.

Each line should stay flat: the same scans a second, whatever there is more of. A line is run in one go, its points in turns.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import click

from benchmarks.day import load_day, scans_file, venues_file
from benchmarks.ours import Result, run_replay, run_worker
from benchmarks.report import run, setting, table, write_between
from pipeline.broker import start_broker
from pipeline.simulate import facts
from pipeline.simulate.day import DayPlan
from pipeline.simulate.files import open_lines, write_venues
from pipeline.simulate.options import SimulationOptions

#: A late scan comes up to half a day after its time.
_LATEST: Final = 0.5

Points = Sequence[tuple[str, Callable[[Path, int], Result]]]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that grows, and a replay or a worker at each of its points, from little to much."""

    name: str
    points: Points


@click.command(epilog="Example: python -m benchmarks.growth --check-ins 100000 --repeats 1 --line venues")
@click.option("--check-ins", type=click.IntRange(20_000), default=500_000, show_default=True, help="Visits of a day.")
@click.option("--repeats", type=click.IntRange(1), default=2, show_default=True, help="Of every point.")
@click.option("--line", "chosen", multiple=True, help="Only this one; may be repeated.  [default: all]")
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md.")
def command(check_ins: int, repeats: int, chosen: tuple[str, ...], write: bool) -> None:
    """Replay days of one size that differ in one thing, and compare what a scan costs."""
    lines = [line for line in _lines(check_ins) if not chosen or line.name in chosen]
    rows = []
    for line in lines:
        results: dict[str, list[Result]] = {label: [] for label, _ in line.points}
        for number in range(repeats):
            for label, measure in line.points:
                with TemporaryDirectory(prefix="bench-") as folder:
                    results[label].append(measure(Path(folder), number))
                click.echo(f"{line.name}, {label}: {results[label][-1].rate:,.0f} scans/s", err=True)
        first = results[line.points[0][0]]
        rows += [_row(line.name, label, found, first) for label, found in results.items()]
    options = "".join(f" --line '{name}'" for name in chosen)
    command_line = f"python -m benchmarks.growth --check-ins {check_ins} --repeats {repeats}{options}"
    header = ("", "", "scans/s (min–max)", "CPU s per M scans", "÷ the first", "peak MiB")
    text = f"{setting(command_line)}\n\n{table(header, rows)}"
    click.echo(text)
    if write:
        write_between("growth", text)


def _row(name: str, label: str, found: list[Result], first: list[Result]) -> list[str]:
    def cost(results: list[Result]) -> float:
        return median(each.process.cpu_seconds / each.records * 1e6 for each in results)

    rates = [each.rate for each in found]
    return [
        name,
        label,
        f"{median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
        f"{cost(found):.1f}",
        f"{cost(found) / cost(first):.2f}",
        f"{max(each.process.peak_rss for each in found) / 2**20:,.0f}",
    ]


def _lines(check_ins: int) -> Iterator[Line]:
    venues = check_ins // facts.CHECK_INS_PER_VENUE
    yield Line(
        "venues",
        [
            (f"{count:,}", lambda home, n, count=count: _replay(home, n, SimulationOptions(check_ins, venues=count)))
            for count in (venues // 10, venues, venues * 10)
        ],
    )
    yield Line(
        "visits that stay open",
        [
            (
                f"{count:,}",
                lambda home, n, count=count: _replay(home, n, SimulationOptions(count, missing=1.0), stay=24),
            )
            for count in (check_ins // 5, check_ins, check_ins * 4)
        ],
    )
    yield Line(
        "late scans",
        [
            (f"{share:.0%}", lambda home, n, share=share: _replay(home, n, SimulationOptions(check_ins), late=share))
            for share in (0.0, 0.1, 0.5)
        ],
    )
    yield Line(
        "days in the store",
        [(str(days), lambda home, n, days=days: _days(home, n, check_ins, days)) for days in (1, 4, 14)],
    )
    yield Line(
        "partitions",
        [(str(count), lambda home, n, count=count: _partitions(home, n, check_ins, count)) for count in (1, 4, 16, 64)],
    )


def _make(home: Path, options: SimulationOptions, late: float = 0.0) -> None:
    plan = DayPlan(options)
    if not venues_file(home).exists():
        # Venues stay what they are from day to day: another registry would have every day counted again.
        write_venues(venues_file(home), plan.venues())
    lines = [line for batch in plan.batches() for line in batch.lines]
    if late:
        chance = random.Random(1)
        delay = [chance.uniform(0, _LATEST * len(lines)) if chance.random() < late else 0.0 for _ in lines]
        order = sorted(range(len(lines)), key=lambda i: i + delay[i])
        lines = [lines[i] for i in order]
    with open_lines(scans_file(home)) as file:
        file.write(b"\n".join([*lines, b""]))


def _replay(home: Path, number: int, options: SimulationOptions, late: float = 0.0, stay: int | None = None) -> Result:
    _make(home, options, late)
    if stay is not None:
        (home / "pipeline.toml").write_text(f'max_stay = "PT{stay}H"\n')
    return run_replay(home, number)


def _days(home: Path, number: int, check_ins: int, days: int) -> Result:
    """The last of so many days into one store."""
    for day in range(days - 1, -1, -1):
        _make(home, SimulationOptions(check_ins, seed=day + 1, date=facts.BUSY_SUNDAY - timedelta(days=day)))
        result = run_replay(home, number)
    return result


def _partitions(home: Path, number: int, check_ins: int, partitions: int) -> Result:
    with start_broker(home, 0, tied_to_us=True) as broker:
        load_day(home, broker.address, SimulationOptions(check_ins), partitions)
        return run_worker(home, broker.address, number)


if __name__ == "__main__":
    run(command)
