"""Views of the store as files: day by day, so that a long range needs no more memory than its busiest day."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import BinaryIO, Final

from clickhouse_connect.driver.client import Client

from pipeline.query import FileFormat, explained, write_parts

#: What a file of each format is called.
SUFFIXES: Final[Mapping[FileFormat, str]] = MappingProxyType({"csv": "csv", "json": "ndjson", "parquet": "parquet"})


@dataclass(frozen=True, slots=True)
class View:
    """`time`: the column that a range is about, None where a view has the present or no time.

    `persons`: how many persons its rows tell of at most, as SQL; None where they tell of none. `small`: numbers go down to single
    persons at one venue, so a file of it is for the venues' operators.
    """

    time: str | None = None
    persons: str | None = None
    small: bool = False


_VISITORS: Final = "uniqExact(visitor_id)"
#: A warning says how many cases it is about and not which: one case at two venues counts twice, but never too few are noted.
_CASES: Final = "sum(case_count)"


#: Every public view.
VIEWS: Final[Mapping[str, View]] = MappingProxyType(
    {
        "occupancy_minutes": View("minute", small=True),
        "occupancy_hours": View("hour", small=True),
        "rolling_occupancy": View(small=True),
        "occupancy_now": View(small=True),
        "crowding_alerts": View("raised_at", small=True),
        "undercounts": View("hour", small=True),
        "venues": View(),
        "dead_letters": View("received_at"),
        "model_checks": View(),
        "accounting": View(),
        "clock": View(),
        "retention": View(),
        "released_suppressed": View("hour"),
        "released_private": View("hour"),
        "privacy_budget": View(),
        "scans": View("occurred_at", persons=_VISITORS),
        "visits": View("checked_in_at", persons=_VISITORS),
        "cases": View("reported_at", persons=_VISITORS),
        "exposures": View("overlap_from", persons=_VISITORS),
        "venue_warnings": View("warn_from", persons=_CASES),
    }
)


@dataclass(frozen=True, slots=True)
class Range:
    """[`since`, `until`) in ms since the epoch; None: no bound."""

    since: int | None = None
    until: int | None = None

    def condition(self, column: str) -> str:
        """As SQL about a column with instants."""
        bounds = [(">=", self.since), ("<", self.until)]
        found = [f"{column} {sign} fromUnixTimestamp64Milli({ms}, 'UTC')" for sign, ms in bounds if ms is not None]
        return " AND ".join(found) or "1"


def parts(client: Client, name: str, range_: Range) -> list[Range | None]:
    """The days (UTC) of a view that hold rows within the range, cut to it; one None for a view without a time.

    Raises UserError where the store does not answer.
    """
    column = VIEWS[name].time
    if column is None:
        return [None]
    sql = f"SELECT DISTINCT toString(toDate({column})) AS day FROM {name} WHERE {range_.condition(column)} ORDER BY day"
    with explained():
        days = client.query(sql).result_rows
    return [_cut(date.fromisoformat(day), range_) for (day,) in days]


def persons_in(client: Client, name: str, range_: Range) -> int:
    """How many persons the rows of a view tell of at most, within a range. Raises UserError where the store does not answer."""
    view = VIEWS[name]
    with explained():
        rows = client.query(
            f"SELECT {view.persons} FROM {name} WHERE {range_.condition(view.time) if view.time else 1}"
        )
    return int(rows.result_rows[0][0])


def export_view(
    client: Client, name: str, days: list[Range | None], form: FileFormat, out: BinaryIO, done: Callable[[], None]
) -> int:
    """Write the `parts` of a view, each in the order of its columns, to one file; returns the number of rows.

    `done` is called after each part. In CSV, text that a spreadsheet would run as a formula begins with an apostrophe. Raises
    UserError where the store does not answer.
    """
    column = VIEWS[name].time
    selects = [
        f"SELECT * FROM {name} WHERE {day.condition(column) if day and column else 1} ORDER BY ALL" for day in days
    ]
    return write_parts(client, selects or [f"SELECT * FROM {name} WHERE 0"], form, out, done)


def _cut(day: date, whole: Range) -> Range:
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    end = start + timedelta(days=1) // timedelta(milliseconds=1)
    return Range(
        start if whole.since is None else max(start, whole.since), end if whole.until is None else min(end, whole.until)
    )
