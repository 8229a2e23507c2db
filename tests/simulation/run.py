"""Play many seeds; say which histories break a promise, and how few of their actions are enough for it.

Example: python -m tests.simulation.run --seeds 10000 --first 7
"""

import os
from collections.abc import Iterator

import click

from tests.simulation.histories import Failure, from_processes, in_parts, options, play_all
from tests.simulation.world import failure, history, shortened


def failures(seeds: range, processes: int = 1) -> Iterator[Failure]:
    """The seeds that fail, each with what is wrong."""
    if processes == 1:
        yield from _some(seeds)
        return
    yield from from_processes(_some, in_parts(seeds), processes)


def _some(seeds: range) -> list[Failure]:
    return [(seed, found) for seed in seeds if (found := failure(seed))]


def told(seed: int, found: str) -> str:
    """A failing seed, what is wrong, and the shortest part of its history that fails in the same way."""
    kind = found.split()[:3]
    actions = shortened(seed, lambda text: text.split()[:3] == kind)
    return "\n".join([f"seed {seed}: {found}", f"{history(seed)[0].partitions} partitions", *map(str, actions)])


@click.command(epilog="Example: python -m tests.simulation.run --seeds 10000 --first 7")
@options(10_000)
def command(seeds: int, first: int | None, record: bool) -> None:
    """Play histories of simulated workers; exit 1 if any breaks a promise."""
    play_all("tests.simulation.run", seeds, first, record, lambda some: failures(some, os.cpu_count() or 1), told)


if __name__ == "__main__":
    command()
