"""The error of estimated occupancy against a simulated truth, beside simpler rules and what chance leaves."""

from collections.abc import Iterator, Sequence
from typing import Final

import click
import numpy as np

from benchmarks.accuracy.judge import ESTIMATOR, FEWEST_PRESENT, FLOOR, HOURS, METHODS, Cells, judge
from benchmarks.accuracy.scenario import SCENARIOS, Flags, Scenario
from benchmarks.report import ROOT, run, setting, table, write_between
from pipeline.errors import UserError
from pipeline.simulate.facts import CATEGORIES

PAGE: Final = ROOT / "docs" / "accuracy.md"
#: Seeds begin here; others served for development.
_FIRST_SEED: Final = 101
_MISSING: Final = 0.70
#: Shares of missing check-outs beside 70 % at which a scenario is judged too; the first is the main one.
_ALSO: Final = {"main": (0.40, 0.95), "all mixed": (0.40, 0.95)}
_ALSO_MOSTLY: Final = (0.95,)
_SIZES: Final = ((FEWEST_PRESENT, 50), (50, 100), (100, 300), (300, 1_000_000))


@click.command(epilog="Example: python -m benchmarks.accuracy --scenario main --seeds 1")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Worlds of each scenario.")
@click.option("--scenario", help="Only this one, by its name.")
@click.option("--quick", is_flag=True, help="One world each, at 70 % missing only.")
@click.option("--write", is_flag=True, help="Write the figures into docs/accuracy.md.")
def command(seeds: int, scenario: str | None, quick: bool, write: bool) -> None:
    """Learn seven simulated days, estimate the eighth, and compare with who was there."""
    chosen = [one for one in SCENARIOS if scenario in (None, one.name)]
    if not chosen:
        raise UserError(f"no scenario {scenario!r}; there are: {', '.join(one.name for one in SCENARIOS)}")
    worlds = range(_FIRST_SEED, _FIRST_SEED + (1 if quick else seeds))
    rows: list[list[str]] = []
    detail = ""
    for one in chosen:
        for case in _cases(one, quick):
            cells = [judge(case, seed) for seed in worlds]
            rows.append([f"{case.name}, {case.missing:.0%} missing", *(_summary(cells, method) for method in METHODS)])
            click.echo(f"{rows[-1][0]}: {rows[-1][1]}", err=True)
            if case == SCENARIOS[0].at(_MISSING):
                detail = "\n\n" + _detail(cells)
    options = " --quick" if quick else f" --seeds {seeds}"
    options += f" --scenario {scenario!r}" if scenario else ""
    judged = table(["mean error % (bias %) coverage %", *METHODS], rows)
    text = f"{setting('python -m benchmarks.accuracy' + options)}\n\n{judged}{detail}"
    click.echo(text)
    if write:
        write_between("accuracy", text, PAGE)


def _cases(scenario: Scenario, quick: bool) -> Iterator[Scenario]:
    also = () if quick else _ALSO.get(scenario.name, _ALSO_MOSTLY)
    yield from (scenario.at(missing) for missing in sorted((_MISSING, *also)))


def _detail(cells: Sequence[Cells]) -> str:
    """The main scenario at 70 % missing, by category, people truly present, and hour."""
    rows = [_part(category.name, cells, [one.category == c for one in cells]) for c, category in enumerate(CATEGORIES)]
    for fewest, most in _SIZES:
        name = f"{fewest}–{most - 1} people" if most < 1_000_000 else f"{fewest} people or more"
        rows.append(_part(name, cells, [(one.truth >= fewest) & (one.truth < most) for one in cells]))
    rows += [_part(f"{hour:02}:00", cells, [one.hour == hour for one in cells]) for hour in HOURS]
    return table([f"{SCENARIOS[0].name}, {_MISSING:.0%} missing", "cells", ESTIMATOR, FLOOR], rows)


def _part(name: str, cells: Sequence[Cells], where: Sequence[Flags]) -> list[str]:
    count = sum(int(some.sum()) for some in where)
    return [name, f"{count:,}", _summary(cells, ESTIMATOR, where), _summary(cells, FLOOR, where)]


def _summary(cells: Sequence[Cells], method: str, where: Sequence[Flags] | None = None) -> str:
    """Mean of |error| ÷ truth over cells (sum of errors ÷ sum of truths), and the share of cells in the interval."""
    parts = where or [np.ones(len(one.truth), bool) for one in cells]
    truth = np.concatenate([one.truth[some] for one, some in zip(cells, parts, strict=True)])
    if not len(truth):
        return "–"
    error = np.concatenate([one.said[method][some] for one, some in zip(cells, parts, strict=True)]) - truth
    text = f"{100 * np.mean(np.abs(error) / truth):.1f} ({100 * error.sum() / truth.sum():+.1f})"
    if method in cells[0].covered:
        held = np.concatenate([one.covered[method][some] for one, some in zip(cells, parts, strict=True)])
        text += f" {100 * held.mean():.0f}"
    return text


if __name__ == "__main__":
    run(command)
