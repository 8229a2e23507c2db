"""How much memory a national day takes: the whole process, and the state in it by open visit."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
import numpy as np

from benchmarks.day import replay_day
from benchmarks.measure import Run
from benchmarks.report import run, setting, table, write_between
from pipeline.core.decode import decode_scans
from pipeline.core.shard import BEGINNING, Shard, VenueRules, horizon_of
from pipeline.files import read_records
from pipeline.progress import progress_bar
from pipeline.settings import Settings

#: Scans between two looks at the state.
_LOOK_RECORDS: Final = 250_000
#: Bytes by open visit are told where at least this share of the day's most visits is open: at night the quotient of what is
#: kept for late scans and of nobody says nothing.
_BUSY: Final = 0.5


@dataclass(frozen=True, slots=True)
class State:
    """The state after some of the day's scans. `open_visits` are those that a check-out could still close."""

    size: int
    open_visits: int
    pairs: int
    scans: int


@dataclass(slots=True)
class Work:
    """Seconds that the core took for the day: folding scans, and computing what changed."""

    fold: float = 0.0
    advance: float = 0.0
    records: int = 0


@click.command(epilog="Example: python -m benchmarks.memory --check-ins 200000")
@click.option(
    "--check-ins", type=click.IntRange(1_000), default=8_000_000, show_default=True, help="Visits of the day."
)
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md.")
def command(check_ins: int, write: bool) -> None:
    """Replay a day into a store and watch the process; then feed the core alone and count the bytes of its state."""
    with TemporaryDirectory(prefix="bench-") as folder:
        home = Path(folder)
        scans, whole = replay_day(home, check_ins)
        click.echo(whole.stdout, err=True)
        work = Work()
        states = list(_feed(scans, work))
    text = f"{setting(f'python -m benchmarks.memory --check-ins {check_ins}')}\n\n{_figures(whole, states, work)}"
    click.echo(text)
    if write:
        write_between("memory", text)


def _feed(path: Path, work: Work) -> Iterator[State]:
    """The state through the day, in the steps in which the engine folds, moves the clock on and forgets. Adds to `work`."""
    settings = Settings.model_construct()  # the defaults, which the replay has too
    shard = Shard(lambda _venue: VenueRules(limit=_ms(settings.max_stay)))
    watermark, unseen = BEGINNING, 0
    with progress_bar("feeding the core", path.stat().st_size) as advance:
        for values in read_records(path, advance):
            columns, _ = decode_scans(values)
            if len(columns):
                began = time.perf_counter()
                shard.apply(columns)
                work.fold += time.perf_counter() - began
                watermark = max(watermark, int(np.median(columns.occurred_at)))
            unseen += len(values)
            work.records += len(values)
            if unseen >= _LOOK_RECORDS:
                unseen = 0
                began = time.perf_counter()
                shard.advance(watermark)
                work.advance += time.perf_counter() - began
                shard.take_changes()
                horizon = horizon_of(watermark, _ms(settings.late_window))
                # Just before it forgets, it holds the most.
                yield _look(shard)
                if shard.collect_due(horizon):
                    shard.collect(horizon)
    yield _look(shard)


def _look(shard: Shard) -> State:
    return State(shard.bytes_held(), shard.open_visits(), shard.pairs_held, shard.scans_held)


def _ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _figures(whole: Run, states: list[State], work: Work) -> str:
    most_open = max(state.open_visits for state in states)
    largest = max(states, key=lambda state: state.size)
    busy = [state for state in states if state.open_visits >= _BUSY * most_open]
    dearest = max(busy, key=lambda state: state.size / state.open_visits)
    said = dict(re.findall(r"^(\w[\w /]*?)\s{2,}(.+)$", whole.stdout, re.MULTILINE))
    rows = [
        ["records replayed", said["records"]],
        ["scans/s", said["scans/s"]],
        ["peak memory of the whole process, MiB", _mebibytes(whole.peak_rss)],
        ["peak of the state alone, MiB", _mebibytes(largest.size)],
        ["… with open visits", f"{largest.open_visits:,}"],
        ["… bytes by open visit", f"{largest.size / largest.open_visits:,.0f}"],
        ["… scans held", f"{largest.scans:,}"],
        ["… bytes by scan held", f"{largest.size / largest.scans:,.0f}"],
        ["most open visits", f"{most_open:,}"],
        [
            f"most bytes by open visit while ≥ {_BUSY:.0%} of that are open",
            f"{dearest.size / dearest.open_visits:,.0f}",
        ],
        ["the core alone, µs a scan: fold", f"{work.fold / work.records * 1e6:.1f}"],
        ["… and computing what changed", f"{work.advance / work.records * 1e6:.1f}"],
    ]
    return table(["a day through `pipeline replay`", ""], rows)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f}"


if __name__ == "__main__":
    run(command)
