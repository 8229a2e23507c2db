"""What the programs that play many seeds have in common: all cores, what they say, what is recorded, how they end."""

import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import click

from tests.faults import report

#: A seed that fails, and what is wrong.
Failure = tuple[int, str]

_AT_ONCE = 50


def from_processes(play: Callable[[range], list[Failure]], parts: Iterable[range], processes: int) -> Iterator[Failure]:
    """The failures among the seeds of all parts, each played in a process of its own, so many at a time."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for found in pool.map(play, parts):
            yield from found


def in_parts(seeds: range) -> list[range]:
    """The seeds, so many at a time that a process is worth its start."""
    return [seeds[at : at + _AT_ONCE] for at in range(0, len(seeds), _AT_ONCE)]


def options(seeds: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of such a program, which plays so many seeds unless told otherwise."""
    given: list[Callable[..., Any]] = [
        click.option("--seeds", type=click.IntRange(1), default=seeds, show_default=True, help="How many."),
        click.option("--first", type=int, help="Default: another one each time."),
        click.option(
            "--record/--no-record", default=False, help="Add to docs/reliability.json, and make docs/reliability.md."
        ),
    ]

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(given):
            command = option(command)
        return command

    return add


def play_all(
    module: str,
    seeds: int,
    first: int | None,
    record: bool,
    failures: Callable[[range], Iterable[Failure]],
    told: Callable[[int, str], str] = "seed {}: {}".format,
) -> None:
    """Play so many seeds from the first on, say which fail and, if asked to, record how many; ends with 1 if any does."""
    first = random.randrange(1 << 32) if first is None else first
    click.echo(f"seeds {first} to {first + seeds - 1}")
    wrong = 0
    for seed, found in failures(range(first, first + seeds)):
        click.echo(told(seed, found))
        wrong += 1
    counts = {"command": f"{module} --seeds {seeds} --first {first}", "histories": seeds, "wrong": wrong}
    click.echo(json.dumps(counts))
    if record:
        report.record(counts)
    sys.exit(bool(wrong))
