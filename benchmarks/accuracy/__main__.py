"""The error of estimated occupancy against a simulated truth, beside simpler rules and what chance leaves."""

from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Final

import click
import numpy as np

from benchmarks.accuracy.judge import (
    ESTIMATOR,
    FEWEST_PRESENT,
    FIXED,
    FLOOR,
    HOURS,
    MAX_STAY,
    METHODS,
    TUNED,
    Cells,
    judge,
)
from benchmarks.accuracy.plot import coverage_by_scenario, error_by_missing
from benchmarks.accuracy.scenario import SCENARIOS, Flags
from benchmarks.report import ROOT, run, setting, table, write_between
from pipeline.errors import UserError
from pipeline.simulate.facts import CATEGORIES

PAGE: Final = ROOT / "docs" / "accuracy.md"
PLOTS: Final = ROOT / "docs" / "plots"
#: Seeds begin here; others served for development.
_FIRST_SEED: Final = 101
_MISSING: Final = (0.40, 0.70, 0.95)
_MOSTLY_MISSING: Final = 0.70
#: Where coverage should lie, in %.
_AIM: Final = (88.0, 93.0)
_SIZES: Final = ((FEWEST_PRESENT, 50), (50, 100), (100, 300), (300, 1_000_000))


@click.command(epilog="Example: python -m benchmarks.accuracy --scenario main --seeds 1")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Worlds of each scenario.")
@click.option("--scenario", help="Only this one, by its name.")
@click.option("--quick", is_flag=True, help="One world each, at 70 % missing only.")
@click.option("--write", is_flag=True, help="Write tables and plots of all scenarios into docs/.")
def command(seeds: int, scenario: str | None, quick: bool, write: bool) -> None:
    """Learn seven simulated days, estimate the eighth, and compare with who was there."""
    if write and (scenario or quick):
        raise UserError("--write is for the whole table: leave out --scenario and --quick")
    chosen = [one for one in SCENARIOS if scenario in (None, one.name)]
    if not chosen:
        raise UserError(f"no scenario {scenario!r}; there are: {', '.join(one.name for one in SCENARIOS)}")
    worlds = range(_FIRST_SEED, _FIRST_SEED + (1 if quick else seeds))
    missing = (_MOSTLY_MISSING,) if quick else _MISSING
    began = monotonic()
    judged: dict[tuple[str, float], list[Cells]] = {}
    for one in chosen:
        for share in missing:
            judged[one.name, share] = [judge(one.at(share), seed) for seed in worlds]
            click.echo(f"{one.name}, {share:.0%} missing: {_summary(judged[one.name, share], ESTIMATOR)}", err=True)
    options = " --quick" if quick else f" --seeds {seeds}"
    options += f" --scenario {scenario!r}" if scenario else ""
    minutes = (monotonic() - began) / 60
    parts = [setting("python -m benchmarks.accuracy" + options), f"It took {minutes:.0f} minutes.", _scenarios(judged)]
    if chosen[0] == SCENARIOS[0]:
        parts.append(_detail({share: judged[SCENARIOS[0].name, share] for share in missing}))
    text = "\n\n".join(parts)
    click.echo(text)
    if write:
        write_between("accuracy", text, PAGE)
        _plot(judged, PLOTS)


def _scenarios(judged: dict[tuple[str, float], list[Cells]]) -> str:
    rows = [
        [f"{name}, {share:.0%} missing", *(_summary(cells, method) for method in METHODS)]
        for (name, share), cells in judged.items()
    ]
    return table(["mean error % (bias %) coverage %", *METHODS], rows)


def _detail(main: dict[float, list[Cells]]) -> str:
    """The main scenario by category, people truly present, and hour; the floor at the largest share missing."""
    largest = max(main)

    def row(name: str, where: dict[float, list[Flags]]) -> list[str]:
        estimates = [_summary(main[share], ESTIMATOR, where[share]) for share in main]
        return [name, *estimates, _summary(main[largest], FLOOR, where[largest])]

    rows = []
    for c, category in enumerate(CATEGORIES):
        rows.append(row(category.name, {share: [one.category == c for one in main[share]] for share in main}))
    for fewest, most in _SIZES:
        name = f"{fewest}–{most - 1} people" if most < 1_000_000 else f"{fewest} people or more"
        sized = {share: [(one.truth >= fewest) & (one.truth < most) for one in main[share]] for share in main}
        rows.append(row(name, sized))
    for hour in HOURS:
        rows.append(row(f"{hour:02}:00", {share: [one.hour == hour for one in main[share]] for share in main}))
    header = [SCENARIOS[0].name, *(f"{share:.0%} missing" for share in main), f"floor at {largest:.0%}"]
    return table(header, rows)


def _plot(judged: dict[tuple[str, float], list[Cells]], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    methods = (ESTIMATOR, FIXED, TUNED, FLOOR, MAX_STAY)
    errors = {
        method: [_figures(judged[SCENARIOS[0].name, share], method)[0] for share in _MISSING] for method in methods
    }
    (folder / "accuracy-error.svg").write_text(error_by_missing(_MISSING, errors), encoding="utf-8")
    covered: dict[str, dict[float, float]] = {}
    for (name, share), cells in judged.items():
        covered.setdefault(name, {})[share] = _figures(cells, ESTIMATOR)[2]
    (folder / "accuracy-coverage.svg").write_text(coverage_by_scenario(covered, _AIM), encoding="utf-8")


def _summary(cells: Sequence[Cells], method: str, where: Sequence[Flags] | None = None) -> str:
    error, bias, coverage = _figures(cells, method, where)
    if np.isnan(error):
        return "–"
    return f"{error:.1f} ({bias:+.1f})" + ("" if np.isnan(coverage) else f" {coverage:.0f}")


def _figures(cells: Sequence[Cells], method: str, where: Sequence[Flags] | None = None) -> tuple[float, float, float]:
    """In %: mean of |error| ÷ truth over cells, sum of errors ÷ sum of truths, share of cells in the interval (NaN: none)."""
    parts = where or [np.ones(len(one.truth), bool) for one in cells]
    truth = np.concatenate([one.truth[some] for one, some in zip(cells, parts, strict=True)])
    if not len(truth):
        return np.nan, np.nan, np.nan
    error = np.concatenate([one.said[method][some] for one, some in zip(cells, parts, strict=True)]) - truth
    coverage = np.nan
    if method in cells[0].covered:
        held = np.concatenate([one.covered[method][some] for one, some in zip(cells, parts, strict=True)])
        coverage = float(100 * held.mean())
    return float(100 * np.mean(np.abs(error) / truth)), float(100 * error.sum() / truth.sum()), coverage


if __name__ == "__main__":
    run(command)
