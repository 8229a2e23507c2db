"""What released numbers are worth: noise and bounding against the exact answer of a simulated day, and what suppression hides."""

import json
import time
from contextlib import closing
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import pipeline_command, run_measured
from benchmarks.report import ROOT, run, setting, table, write_between
from pipeline.release.attack import deduce
from pipeline.release.private import CELLS, draw
from pipeline.release.publish import BELOW, release
from pipeline.release.table import Cell
from pipeline.settings import load_settings
from pipeline.store.client import open_store
from pipeline.store.releases import Figure, pairs_of_registry, start_of, visitors_by_cell

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

_DAY: Final = date(2021, 9, 19)
_CLOSES: Final = {
    "event_id": "closes",
    "event_type": "check_in",
    "venue_id": "nowhere",
    "visitor_id": "nobody",
    "occurred_at": "2021-09-20T13:00:00Z",
}
_DRAWS: Final = 20
#: No visitor has more cells in a day than there are hours, in each pair of area and category.
_UNBOUNDED: Final = 1 << 20
_MEASURES: Final = ("arrivals", "occupancy")
_SIZES: Final = ((0, 10), (10, 100), (100, 1_000), (1_000, np.inf))

Array = NDArray[np.float64]
#: (hour, area, category) → visitors
Counts = dict[tuple[int, str, str], int]


@click.command(epilog="Example: python -m benchmarks.release --check-ins 100000")
@click.option(
    "--check-ins", type=click.IntRange(1_000), default=1_000_000, show_default=True, help="Visits of the day."
)
@click.option("--write", is_flag=True, help="Write the figures into docs/privacy.md.")
def command(check_ins: int, write: bool) -> None:
    """Simulate a day, release it, and hold what was released against the exact counts, which no command ever prints.

    Occupancy is held against who was really there too: without a check-out the exact count takes people for present for hours.
    """
    with TemporaryDirectory(prefix="bench-") as folder:
        home = Path(folder)
        _prepare(home, check_ins)
        with closing(open_store(load_settings(store=home / "store"))) as client:
            texts = [_noise(client, _really_there(client, home)), _suppression(client, 5), _suppression(client, 10)]
    text = "\n\n".join([setting(f"python -m benchmarks.release --check-ins {check_ins}"), *texts])
    click.echo(text)
    if write:
        write_between("release", text, ROOT / "docs" / "privacy.md")


def _prepare(home: Path, check_ins: int) -> None:
    scans, venues, last = home / "day.ndjson.zst", home / "venues.csv", home / "last.ndjson"
    made = ("--out", str(scans), "--venues-out", str(venues), "--truth", str(home / "truth.parquet"))
    run_measured(pipeline_command("simulate", "--check-ins", str(check_ins), *made), home, {})
    last.write_text(json.dumps(_CLOSES) + "\n")
    run_measured(
        pipeline_command("replay", str(scans), str(last), "--venues", str(venues), "--store", str(home / "store")),
        home,
        {},
    )


def _really_there(client: Client, home: Path) -> Counts:
    rows = client.query(
        """
        SELECT {start:Int64} + 3600 * slot AS hour, ifNull(v.area, '') AS area, v.category AS category, uniqExact(visitor_id)
        FROM file({path:String}, 'Parquet') AS truth
        INNER JOIN (SELECT venue_id, area, category FROM venues) AS v USING (venue_id)
        ARRAY JOIN range(24) AS slot
        WHERE entered_at < toDateTime64(hour + 3600, 3, 'UTC') AND left_at >= toDateTime64(hour + 3600, 3, 'UTC')
        GROUP BY hour, area, category
        """,
        {"start": start_of(_DAY), "path": str(home / "truth.parquet")},
    ).result_rows
    return {(hour, area, category): int(count) for hour, area, category, count in rows}


def _noise(client: Client, really_there: Counts) -> str:
    cells = [
        (start_of(_DAY) + 3600 * hour, area, category)
        for hour in range(24)
        for area, category in sorted(pairs_of_registry(client))
    ]

    def kept_of(most: int) -> dict[str, Array]:
        found = {
            (row["hour"], row["area"], row["category"]): row for row in visitors_by_cell(client, _DAY, most, (1, 2))
        }
        return {name: np.array([found.get(cell, {name: 0})[name] for cell in cells], float) for name in _MEASURES}

    exact, bounded = kept_of(_UNBOUNDED), kept_of(CELLS)
    there = np.array([really_there.get(cell, 0) for cell in cells], float)
    rows = []
    for name, measure, truth in (
        ("arrivals", "arrivals", exact["arrivals"]),
        ("occupancy, counted", "occupancy", exact["occupancy"]),
        ("occupancy, really there", "occupancy", there),
    ):
        kept = bounded[measure]
        noisy = np.array([draw(kept.astype(int).tolist(), 0.5).counts for _ in range(_DRAWS)], float)
        for low, high in _SIZES:
            within = (truth >= low) & (truth < high)
            if within.any():
                size = f"{low:,}–{high - 1:,.0f}" if high < np.inf else f"from {low:,} on"
                error = np.abs(noisy[:, within] - truth[within]).mean()
                rows.append(_errors(f"{name}, cells {size}", truth[within], kept[within], error))
        total = np.abs(noisy.sum(axis=1) - truth.sum()).mean()
        rows.append(_errors(f"{name}, the whole day", truth.sum(keepdims=True), kept.sum(keepdims=True), total))
    header = ("visitors", "numbers", "in all", "kept", "mean error", "of the mean")
    return f"With noise, ε 1, mean of {_DRAWS} draws:\n\n{table(header, rows)}"


def _errors(name: str, truth: Array, kept: Array, error: float) -> list[str]:
    figures = [f"{len(truth):,}", f"{truth.sum():,.0f}", _share(kept.sum() / truth.sum())]
    return [name, *figures, f"{error:,.1f}", _share(error / truth.mean())]


def _suppression(client: Client, base: int) -> str:
    client.command("TRUNCATE TABLE release_rows")
    began = time.perf_counter()
    made = release(client, "suppressed", _DAY, base=base, epsilon=1.0, decisions=None)
    seconds = time.perf_counter() - began
    kinds = (
        ("cells", lambda cell: cell.area is not None and cell.category is not None),
        ("totals of an area", lambda cell: cell.area is not None and cell.category is None),
        ("totals of a category", lambda cell: cell.area is None and cell.category is not None),
        ("totals of an hour", lambda cell: cell.area is None and cell.category is None),
    )
    rows = []
    for name, holds in kinds:
        of_kind = [figure for figure in made.figures if holds(Cell(figure.area, figure.category))]
        shown = [figure.arrivals for figure in of_kind if figure.arrivals is not None]
        rows.append([name, f"{len(of_kind):,}", _share(1 - len(shown) / len(of_kind)), f"{sum(shown):,}"])
    header = ("rounded, the small hidden", "numbers", "hidden", "persons in those shown")
    return (
        f"Rounded to {base}, made and checked in {seconds:.1f} s:\n\n{table(header, rows)}\n\n"
        f"Attacked by the solver: {_attacked(made.figures, base)}"
    )


def _attacked(figures: Any, base: int) -> str:
    hours: dict[int, list[Figure]] = {}
    for figure in figures:
        hours.setdefault(figure.hour, []).append(figure)
    found = [
        each
        for rows in hours.values()
        for each in deduce([(Cell(row.area, row.category), row.arrivals) for row in rows], base)
    ]
    told = sum(each.tells(BELOW) for each in found)
    least = min(each.most for each in found)
    return f"{told:,} of {len(found):,} hidden numbers are told to within {BELOW}; the lowest upper bound of any is {least:g}."


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


if __name__ == "__main__":
    run(command)
