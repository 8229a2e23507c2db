"""Undercounted venues in the store: closed hours compared with the weeks before, rows where they fall far below."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from pipeline.core.undercount import FEWEST_WEEKS, WEEKS, undercounts
from pipeline.store.tables import strings
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

_HOUR: Final = 3600
_WEEK: Final = 7 * 24 * _HOUR
#: The last closed hours that are compared, the newest and those that late scans may still fill.
HOURS: Final = 3
#: An hour counts as closed so long (seconds) after its end, so that scans from slow gates are in.
GRACE_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of `undercount_rows` to be written, and how many venues were undercounted in the newest hour."""

    rows: pa.Table
    newest: int


def closed_hour(as_of: int) -> int:
    """The start (seconds since the epoch, UTC) of the last hour that is closed at `as_of` (ms)."""
    return (as_of // 1000 - GRACE_SECONDS) // _HOUR * _HOUR - _HOUR


def compare(client: Client, scope: str, hour: int, version: int) -> Comparison:
    """Compare the HOURS hours up to `hour` (its start, seconds) with the weeks before; weekdays and hours are of UTC.

    Rows that no longer hold are deleted. Raises StoreUnavailableError.
    """
    hours = [hour - i * _HOUR for i in range(HOURS)]
    with store_errors():
        first = client.query(f"SELECT toUnixTimestamp(min(hour)) FROM hour_rows WHERE {scope}").result_rows[0][0]
        shown = client.query(
            f"SELECT venue_id, toUnixTimestamp(hour) FROM undercount_rows FINAL WHERE {scope} "
            f"AND toUnixTimestamp(hour) IN ({_listed(hours)})"
        ).result_rows
    weeks = min(WEEKS, (hour - HOURS * _HOUR - first) // _WEEK) if first else 0
    rows: list[tuple[str, int, int, float, float, bool]] = []
    for start in hours if weeks >= FEWEST_WEEKS else []:
        rows += _hour(client, scope, start, weeks)
    found = {(row[0], row[1]) for row in rows}
    gone = [(str(venue), int(start)) for venue, start in shown if (venue, start) not in found]
    rows += [(venue, start, 0, 0.0, 0.0, True) for venue, start in gone]
    return Comparison(_table(rows, weeks, version), sum(row[1] == hour and not row[5] for row in rows))


def _hour(client: Client, scope: str, hour: int, weeks: int) -> list[tuple[str, int, int, float, float, bool]]:
    earlier = [hour - i * _WEEK for i in range(1, weeks + 1)]
    with store_errors():
        seen = client.query(
            f"SELECT venue_id, sumIf(arrivals, toUnixTimestamp(hour) = {hour}), "
            f"groupArrayIf(arrivals, toUnixTimestamp(hour) != {hour}) FROM hour_rows FINAL WHERE {scope} "
            f"AND toUnixTimestamp(hour) IN ({_listed([hour, *earlier])}) "
            "GROUP BY venue_id ORDER BY venue_id"
        ).result_rows
    arrivals = np.array([row[1] for row in seen], np.int64)
    before = np.zeros((len(seen), weeks), np.int64)
    for i, row in enumerate(seen):
        before[i, : len(row[2])] = row[2]
    far, expected, fewest = undercounts(arrivals, before)
    return [
        (str(seen[i][0]), hour, int(arrivals[i]), float(expected[i]), round(float(fewest[i]), 1), False)
        for i in np.flatnonzero(far).tolist()
    ]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _table(rows: list[tuple[str, int, int, float, float, bool]], weeks: int, version: int) -> pa.Table:
    return pa.table(
        {
            "venue_id": strings([row[0] for row in rows]),
            "hour": pa.array([row[1] for row in rows], pa.uint32()),
            "arrivals": pa.array([row[2] for row in rows], pa.uint32()),
            "expected": pa.array([row[3] for row in rows], pa.float64()),
            "fewest": pa.array([row[4] for row in rows], pa.float64()),
            "weeks": pa.array([weeks] * len(rows), pa.uint8()),
            "version": pa.array([version] * len(rows), pa.uint64()),
            "is_deleted": pa.array([row[5] for row in rows], pa.bool_()).cast(pa.uint8()),
        }
    )
