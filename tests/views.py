"""The views of a store, read as the reference writes them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.reference import MINUTE, ROWS, Scan, VenueModel, Views, holds, stays

ModelOf = Callable[[str, int], VenueModel | None]

#: Columns that are instants, and those that are whole seconds; the reference counts both in integers since the epoch.
_MILLISECONDS = {"occurred_at", "checked_in_at", "left_at", "as_of", "raised_at", "cleared_at"}
_SECONDS = {"minute", "hour", "window_end"}

#: Differences shown of each view.
_SHOWN = 10


def read_views(client: Any) -> Views:
    """The rows of every view of the database `checkins`, by the view's name.

    `client` is a clickhouse-connect client. Of `occupancy_now` only the venues with anyone present. Views are read without
    `FINAL` and without `DISTINCT`; raises AssertionError where one shows a row twice.
    """
    views: Views = {}
    for view, row_type in ROWS.items():
        columns = ", ".join(_integer(column) for column in row_type._fields)  # type: ignore[attr-defined]
        where = " WHERE occupancy > 0" if view == "occupancy_now" else ""
        rows = Counter(
            row_type(*row) for row in client.query(f"SELECT {columns} FROM checkins.{view}{where}").result_rows
        )
        repeated = [row for row, times in rows.items() if times > 1]
        assert not repeated, f"{view} shows {len(repeated)} rows more than once, such as {repeated[0]}"
        views[view] = set(rows)
    return views


#: (view, key columns) → (expected, low, high, check_out_share, model_version), all None where there is no estimate.
Estimates = dict[tuple[Any, ...], tuple[Any, ...]]

_KEYS = {
    "occupancy_minutes": "venue_id, toUnixTimestamp(minute)",
    "occupancy_hours": "venue_id, toUnixTimestamp(hour)",
    "rolling_occupancy": "venue_id, `window`",
    "occupancy_now": "venue_id",
}


def read_estimates(client: Any) -> Estimates:
    """The estimates of every row of every view that has them, by the view's name and the row's key."""
    return {
        (view, *row[:-5]): row[-5:]
        for view, key in _KEYS.items()
        for row in client.query(
            f"SELECT {key}, expected, low, high, check_out_share, model_version FROM checkins.{view}"
        ).result_rows
    }


def wrong_estimates(
    shown: Estimates, scans: Sequence[Scan], max_stay: Mapping[str, int], as_of: int, model_of: ModelOf
) -> list[str]:
    """The first estimates that are not those of the reference. `model_of` gives a venue's model for a minute, or None."""
    there = stays(scans, max_stay)
    # Of a venue that is registered and was never seen there is nothing to estimate from.
    seen = {scan.venue_id for scan in scans}
    wrong = []
    for (view, venue, *key), found in shown.items():
        minute = key[0] // 60 if view in ("occupancy_minutes", "occupancy_hours") else as_of // MINUTE - 1
        minutes = [minute + inside for inside in range(4, 60, 5)] if view == "occupancy_hours" else [minute]
        model = model_of(venue, minute) if venue in seen else None
        if model is None:
            right = found == (None,) * 5
        else:
            exact = model.estimate(there.get(venue, []), minutes)
            right = None not in found and found[4] == model.version and holds(found[:3], exact)
            right = right and abs(found[3] - model.share()) <= 0.0005 + 1e-9
        if not right:
            wrong.append(f"{view} {venue} {key}: {found}, not {model and (exact, model.share(), model.version)}")
    return wrong[:_SHOWN]


def _integer(column: str) -> str:
    if column in _MILLISECONDS:
        return f"toUnixTimestamp64Milli(`{column}`)"
    if column in _SECONDS:
        return f"toUnixTimestamp(`{column}`)"
    return f"`{column}`"


def differences(actual: Views, expected: Views) -> str:
    """The first rows of each view that are on one side only (`-` expected, `+` shown), or nothing where all agree."""
    lines = []
    for view in ROWS:
        missing, extra = expected[view] - actual[view], actual[view] - expected[view]
        if not missing and not extra:
            continue
        marked = [("-", row) for row in missing] + [("+", row) for row in extra]
        marked.sort(key=lambda mark: (_place(view, mark[1]), mark[0]))
        lines.append(f"{view}: {len(missing)} rows missing (-), {len(extra)} rows unexpected (+)")
        lines += [f"  {sign} {row}" for sign, row in marked[:_SHOWN]]
        if len(marked) > _SHOWN:
            lines.append(f"  … and {len(marked) - _SHOWN} more")
    return "\n".join(lines)


def _place(view: str, row: tuple[Any, ...]) -> tuple[str, ...]:
    # What identifies a row comes first, so that a wrong row stands beside the right one.
    values = tuple(str(value) for value in row)
    return values[1:] + values[:1] if view == "scans" else values


def assert_views_equal(client: Any, expected: Views) -> None:
    """Fail with the first differences where the views of the store are not exactly the `expected` rows."""
    found = differences(read_views(client), expected)
    assert not found, f"the views differ from the reference\n{found}"
