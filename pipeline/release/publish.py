"""A day's release: made from the store once, kept there, and the same whenever it is asked for again."""

import secrets
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.errors import UserError
from pipeline.release.attack import deduce
from pipeline.release.private import CELLS, draw
from pipeline.release.suppression import protect
from pipeline.release.table import Cell, Layout, layout_of
from pipeline.store.closed_days import covered_days
from pipeline.store.decisions import Decisions
from pipeline.store.releases import (
    Figure,
    Kind,
    Release,
    keep_first,
    pairs_of_registry,
    persons_by_cell,
    settled_release,
    start_of,
    visitors_by_cell,
)
from pipeline.store.retention import bounds_in_force

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: Cells with fewer visitors are hidden.
BELOW: Final = 10
_HOURS: Final = 24


def release(
    client: Client,
    kind: Kind,
    day: date | None,
    *,
    base: int,
    epsilon: float,
    decisions: Decisions | None,
    rivals: float = 0.0,
) -> Release:
    """What is released of a UTC day (None: the newest one that is closed): what was kept, or else made now and kept.

    `decisions`: where it is kept beside the store, too. `rivals`: see `rivals_seconds`. Raises UserError for a day that is not
    closed yet, or no longer whole; StoreUnavailableError.
    """
    day = _newest(client) if day is None else day
    if (kept := settled_release(client, kind, day, rivals)) is not None:
        return kept
    _check_day(client, day)
    made = _suppressed(client, day, base) if kind == "suppressed" else _private(client, day, epsilon)
    return keep_first(client, made, decisions, rivals)


def exposed(rows: Sequence[Figure], base: int, small: Collection[tuple[int, Cell]] = ()) -> list[str]:
    """What the rows of a suppressed table give away of hidden numbers, hour by hour, in sentences; empty: nothing.

    `small`: hour and cell of those that are small, where that is known. They are of few visitors, and may be of many persons;
    each must be hidden, and may have been nobody, or `BELOW` persons or more.
    """
    found = []
    for hour in sorted({row.hour for row in rows}):
        shown = [(Cell(row.area, row.category), row.arrivals) for row in rows if row.hour == hour]
        found += [
            f"{_where(hour, cell)}: shown" for cell, value in shown if value is not None and (hour, cell) in small
        ]
        found += [
            f"{_where(hour, each.cell)}: between {each.least:g} and {each.most:g}"
            for each in deduce(shown, base)
            if each.tells(BELOW) or ((hour, each.cell) in small and not each.leaves_open(BELOW))
        ]
    return found


def _where(hour: int, cell: Cell) -> str:
    return (
        f"{datetime.fromtimestamp(hour, UTC):%F %H:%M} {cell.area or 'all areas'}, {cell.category or 'all categories'}"
    )


def _suppressed(client: Client, day: date, base: int) -> Release:
    layout = layout_of(pairs_of_registry(client))
    by_hour: dict[int, dict[Cell, tuple[int, int]]] = {}
    for row in persons_by_cell(client, day):
        cell = Cell(row["area"], row["category"])
        by_hour.setdefault(row["hour"], {})[cell] = (row["persons"], row["visitors"])
    start = start_of(day)
    figures = [
        figure
        for hour in range(start, start + _HOURS * 3600, 3600)
        for figure in _hour(layout, hour, by_hour.get(hour, {}), base)
    ]
    small = {
        (hour, cell)
        for hour in range(start, start + _HOURS * 3600, 3600)
        for cell in layout.cells
        if by_hour.get(hour, {}).get(cell, (0, 0))[1] < BELOW
    }
    method = {"below": BELOW, "base": base, "unit": "persons", "small": "fewer than `below` visitors"}
    made = Release("suppressed", day, _now(), 0.0, method, figures)
    if told := exposed(made.figures, base, small):
        raise UserError(
            f"nothing is released: {len(told)} hidden numbers can be worked out, such as {told[0]}; report this, it is a fault"
        )
    return made


def _hour(layout: Layout, hour: int, counted: dict[Cell, tuple[int, int]], base: int) -> list[Figure]:
    counts = np.array([counted.get(cell, (0, 0))[0] for cell in layout.cells], np.int64)
    visitors = np.array([counted.get(cell, (0, 0))[1] for cell in layout.cells], np.int64)
    shown = protect(layout, counts, visitors < BELOW, BELOW, base)
    return [
        Figure(hour, *cell, None if hidden else int(value))
        for cell, value, hidden in zip(layout.cells, shown.values, shown.hidden, strict=True)
    ]


def _private(client: Client, day: date, epsilon: float) -> Release:
    key = (secrets.randbits(64), secrets.randbits(64))
    counted = {
        (row["hour"], row["area"], row["category"]): (row["arrivals"], row["occupancy"])
        for row in visitors_by_cell(client, day, CELLS, key)
    }
    start = start_of(day)
    # Every cell there can be, whoever came: which ones are listed tells nothing.
    cells = [
        (hour, area, category)
        for hour in range(start, start + _HOURS * 3600, 3600)
        for area, category in sorted(pairs_of_registry(client))
    ]
    arrivals, occupancy = (
        draw([counted.get(cell, (0, 0))[which] for cell in cells], epsilon / 2) for which in range(2)
    )
    method = {
        "unit": "one visitor's UTC day",
        "cells": CELLS,
        "mechanism": "discrete Laplace",
        "scale": {"arrivals": arrivals.scale, "occupancy": occupancy.scale},
        "epsilon": {"arrivals": arrivals.epsilon, "occupancy": occupancy.epsilon},
        "counted": "visitors; occupancy at the end of the hour",
    }
    figures = [Figure(*cell, *noisy) for cell, *noisy in zip(cells, arrivals.counts, occupancy.counts, strict=True)]
    return Release("private", day, _now(), arrivals.epsilon + occupancy.epsilon, method, figures)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _newest(client: Client) -> date:
    covered = covered_days(client)
    if covered is None or covered[1] < covered[0]:
        raise UserError("no day is closed yet: a day is so twelve hours after its end (UTC), by the store's clock")
    return covered[1]


def _check_day(client: Client, day: date) -> None:
    # Not whether anybody was there that day: one visitor would decide whether there is a release.
    covered = covered_days(client)
    if covered is None or not covered[0] <= day <= covered[1]:
        raise UserError(
            f"{day} cannot be released: it is before the first day with anybody, or not closed; a day is so twelve hours after "
            "its end (UTC), by the store's clock"
        )
    if start_of(day) * 1000 < bounds_in_force(client).closed_before:
        raise UserError(
            f"{day} can no longer be released: retention has cut it; release each day while its visits are there"
        )
