"""Play many seeds; say which histories break a promise, and how few of their actions are enough for it.

Example: python -m tests.simulation.run --seeds 10000 --first 7
"""

import json
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import click

from tests.faults import report
from tests.simulation.world import failure, history, shortened

_AT_ONCE = 50


def failures(seeds: range, processes: int = 1) -> Iterator[tuple[int, str]]:
    """The seeds that fail, each with what is wrong."""
    if processes == 1:
        yield from _some(seeds)
        return
    parts = [seeds[at : at + _AT_ONCE] for at in range(0, len(seeds), _AT_ONCE)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for found in pool.map(_some, parts):
            yield from found


def _some(seeds: range) -> list[tuple[int, str]]:
    return [(seed, found) for seed in seeds if (found := failure(seed))]


def told(seed: int, found: str) -> str:
    """A failing seed, what is wrong, and the shortest part of its history that fails in the same way."""
    kind = found.split()[:3]
    actions = shortened(seed, lambda text: text.split()[:3] == kind)
    return "\n".join([f"seed {seed}: {found}", f"{history(seed)[0].partitions} partitions", *map(str, actions)])


@click.command(epilog="Example: python -m tests.simulation.run --seeds 10000 --first 7")
@click.option("--seeds", type=click.IntRange(1), default=10_000, show_default=True, help="How many.")
@click.option("--first", type=int, help="Default: another one each time.")
@click.option("--record/--no-record", default=False, help="Add to docs/reliability.json, and make docs/reliability.md.")
def command(seeds: int, first: int | None, record: bool) -> None:
    """Play histories of simulated workers; exit 1 if any breaks a promise."""
    first = random.randrange(1 << 32) if first is None else first
    click.echo(f"seeds {first} to {first + seeds - 1}")
    wrong = 0
    for seed, found in failures(range(first, first + seeds), os.cpu_count() or 1):
        click.echo(told(seed, found))
        wrong += 1
    found = {"command": f"tests.simulation.run --seeds {seeds} --first {first}", "histories": seeds, "wrong": wrong}
    click.echo(json.dumps(found))
    if record:
        report.record(found)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    command()
