"""Which venues are undercounted: far below their own pattern, and not where chance or a single odd week explains it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.undercount import FEWEST_EXPECTED, undercounts
from pipeline.store.undercounts import closed_hour
from tests.isolated import run_isolated

HOUR = 3_600
WEEK = 7 * 24 * HOUR
NOON = 1_632_052_800


def far(arrivals: int, *before: int) -> bool:
    found, _, _ = undercounts(np.array([arrivals]), np.array([before]))
    return bool(found[0])


def test_a_venue_whose_gate_has_failed_is_found() -> None:
    assert far(0, 40, 50)
    assert far(3, 100, 90, 110, 95)
    assert far(200, 1000, 1100, 950)


def test_chance_and_an_ordinary_bad_day_are_no_failure() -> None:
    assert not far(25, 40, 50)
    assert not far(60, 100, 90, 110, 95)
    assert not far(600, 1000, 1100, 950)


def test_one_odd_week_before_neither_raises_nor_hides_it() -> None:
    assert not far(30, 30, 900, 28)
    assert far(2, 100, 0, 110)


def test_where_few_come_nobody_is_no_surprise() -> None:
    assert not far(0, FEWEST_EXPECTED - 1, FEWEST_EXPECTED - 1)
    assert not far(0)


def test_honest_counts_are_hardly_ever_called_too_few() -> None:
    random = np.random.default_rng(20210919)
    mean = random.lognormal(4, 1, 20_000)
    weeks = random.poisson(mean[:, None] * np.exp(random.normal(0, 0.2, (20_000, 5))))
    found, _, _ = undercounts(weeks[:, 0], weeks[:, 1:])
    assert found.mean() < 0.002


@pytest.mark.parametrize(("after_the_hour", "hours_back"), [(9, 2), (10, 1), (59, 1)])
def test_an_hour_is_closed_once_slow_gates_have_had_ten_minutes(after_the_hour: int, hours_back: int) -> None:
    assert closed_hour((NOON + after_the_hour * 60) * 1000) == NOON - hours_back * HOUR


def compared(folder: str) -> list[Any]:
    """A store in which hours are closed, filled by late scans, and compared: what each comparison found, and the view then."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from pipeline.store.undercounts import compare

    client = open_store(Settings(store=Path(folder)))
    version = 0

    def hours(arrivals: dict[tuple[str, int], int]) -> None:
        nonlocal version
        version += 1
        columns: dict[str, Any] = {
            "venue_id": [venue for venue, _ in arrivals],
            "hour": pa.array([at for _, at in arrivals], pa.uint32()),
            "arrivals": pa.array(arrivals.values(), pa.uint32()),
        }
        for name, kind in (("departures", 32), ("peak", 32), ("area_ms", 64), ("over_ms", 32), ("contact_ms", 64)):
            columns[name] = pa.array([0] * len(arrivals), pa.uint32() if kind == 32 else pa.uint64())
        columns["version"] = pa.array([version] * len(arrivals), pa.uint64())
        columns["is_deleted"] = pa.array([0] * len(arrivals), pa.uint8())
        client.insert_arrow("hour_rows", pa.table(columns))

    found: list[Any] = []

    def look(scope: str = "1") -> None:
        nonlocal version
        version += 1
        comparison = compare(client, scope, NOON, version)
        if comparison.rows.num_rows:
            client.insert_arrow("undercount_rows", comparison.rows)
        shown = (
            "SELECT venue_id, toUnixTimestamp(hour), arrivals, expected, weeks FROM undercounts ORDER BY venue_id, hour"
        )
        found.append((comparison.newest, client.query(shown).result_rows))

    steady = {("steady", NOON - weeks * WEEK): 40 + weeks for weeks in range(5)}
    failed = {("failed", NOON - weeks * WEEK): 60 for weeks in range(1, 5)} | {("failed", NOON): 3}
    silent = {("silent", NOON - weeks * WEEK): 50 for weeks in range(1, 5)}
    earlier = {("failed", NOON - HOUR - weeks * WEEK): 60 for weeks in range(5)}
    another_hour = {("silent", NOON - WEEK + HOUR): 500, ("failed", NOON - 4 * WEEK - 4 * HOUR): 500}

    hours({("steady", NOON - WEEK - 4 * HOUR): 1, **{key: 40 for key in steady if key[1] > NOON - 2 * WEEK}})
    hours({("failed", NOON - WEEK): 60, ("failed", NOON): 3})
    look()
    hours(steady | failed | silent | earlier | another_hour | {("new", NOON): 1})
    look()
    look("venue_id != 'silent'")
    hours({("failed", NOON): 58})
    look()
    return found


def test_the_store_finds_the_hours_and_takes_them_back_when_late_scans_fill_them(tmp_path: Path) -> None:
    too_young, both, of_one_scope, filled = run_isolated(compared, str(tmp_path))
    failed, silent = ("failed", NOON, 3, 60.0, 4), ("silent", NOON, 0, 50.0, 4)
    assert too_young == (0, [])
    assert both == (2, [failed, silent])
    # Another worker's venues are not its own to judge, nor to take back.
    assert of_one_scope == (1, [failed, silent])
    assert filled == (1, [silent])
