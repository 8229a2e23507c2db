"""The views of a store, read as the reference writes them."""

from collections import Counter
from typing import Any

from tests.reference import ROWS, Views

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
