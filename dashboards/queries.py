"""SQL that several boards ask, and the variables that it is filtered by.

Names of views and columns are those of the public views of the database `checkins`. `$__…` are macros of the ClickHouse
plugin, `${name:singlequote}` a board's variable as an SQL text.
"""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import QueryVariable, TextBoxVariable
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel, VariableOption, VariableRefresh, VariableSort

from dashboards.levels import FRESHNESS, fullness, words
from dashboards.panels import SECONDS, Column, Says, number
from dashboards.sources import CLICKHOUSE, Sql

#: A condition on `venues`: those that the reader has chosen.
CHOSEN: Final = """$__conditionalAll(ifNull(area, 'unknown') IN (${area:singlequote}), $area)
    AND $__conditionalAll(category IN (${category:singlequote}), $category)"""

#: The same venues, to be joined by `venue_id`.
CHOSEN_VENUES: Final = f"""(
  SELECT venue_id, name, ifNull(area, 'unknown') AS area, category FROM checkins.venues
  WHERE {CHOSEN}
) AS venues"""

#: The chosen venues as they are now. `people` and `ratio` are by the estimate where there is one, else by the count.
PRESENT: Final = f"""present AS (
  SELECT
    shown.venue_id AS venue_id,
    venues.name AS name,
    venues.area AS area,
    venues.category AS category,
    shown.occupancy AS counted,
    shown.expected AS expected,
    shown.low AS low,
    shown.high AS high,
    shown.capacity AS capacity,
    shown.check_out_share AS check_out_share,
    shown.model_version AS model_version,
    coalesce(shown.expected, toFloat64(shown.occupancy)) AS people,
    if(shown.expected IS NULL, 'counted', 'expected') AS basis,
    people / nullIf(shown.capacity, 0) AS ratio,
    {fullness("ratio")} AS level
  FROM checkins.occupancy_now AS shown
  INNER JOIN {CHOSEN_VENUES} ON shown.venue_id = venues.venue_id
)"""

#: Where a click on a venue leads: to its own board, at the same time, with the venue found by its id.
TO_VENUE: Final = (
    "Open this venue",
    "/d/checkins-venue?${__url_time_range}&var-search=${__data.fields.venue_id}&var-venue=${__data.fields.venue_id}"
    "&${clickhouse:queryparam}",
)

#: The columns of a list of venues, of which each leads to its own board.
VENUE_COLUMNS: Final = {"venue_id": Column(hidden=True), "name": Column(name="venue", link=TO_VENUE)}

#: Where a click on an area leads.
TO_AREA: Final = (
    "Open this area on the wall",
    "/d/checkins-wall?${__url_time_range}&var-area=${__data.fields.area}&${category:queryparam}&${clickhouse:queryparam}",
)


def crowding_marks(text: str, condition: str = "1", *, most: int = 50) -> str:
    """SQL of a board's annotations: when venues among the chosen became crowded, with a text made of `alerts` and `venues`."""
    return f"""
SELECT raised_at AS time, {text} AS text, level AS tags
FROM checkins.crowding_alerts AS alerts
INNER JOIN {CHOSEN_VENUES} ON alerts.venue_id = venues.venue_id
WHERE $__timeFilter(raised_at) AND {condition}
ORDER BY raised_at DESC
LIMIT {most}
"""


def area_and_category() -> list[QueryVariable]:
    """The two filters that most boards have."""
    return [
        choice(
            "area",
            "Area",
            "SELECT DISTINCT ifNull(area, 'unknown') AS area FROM checkins.venues ORDER BY area LIMIT 1000",
        ),
        choice("category", "Category", "SELECT DISTINCT category FROM checkins.venues ORDER BY category LIMIT 100"),
    ]


def choice(name: str, label: str, sql: str, *, several: bool = True) -> QueryVariable:
    """A drop-down filled by a query: one column, or the value and the text to show. `several`: any number, and all."""
    variable = QueryVariable(name).label(label).datasource(CLICKHOUSE).query({"editorType": "sql", "rawSql": sql})
    variable.definition(sql).refresh(VariableRefresh.ON_DASHBOARD_LOAD).sort(VariableSort.DISABLED)
    if several:
        variable.multi(True).include_all(True).current(VariableOption(text="All", value="$__all", selected=True))
    return variable


def text_box(name: str, label: str, default: str = "") -> TextBoxVariable:
    """A field to write into."""
    current = VariableOption(text=default, value=default, selected=True)
    return TextBoxVariable(name).label(label).default_value(default).current(current).options([current])


def data_age() -> Builder[Panel]:
    """How old what is shown is, on every board."""
    return number(
        Says(
            "Age of the data",
            "Now minus the pipeline's clock (view clock). Fresh: under 2 minutes; late: under 10; stale: do not rely on this "
            "board, see Pipeline health. History: files were replayed, and the clock is their latest scan.",
            SECONDS,
            "nothing stored yet",
        ),
        Sql("""
SELECT
  dateDiff('second', as_of, now64(3)) AS age,
  multiIf(mode = 'events', 'history', age < 120, 'fresh', age < 600, 'late', 'stale') AS state
FROM checkins.clock
WHERE as_of > fromUnixTimestamp64Milli(0)
LIMIT 1
"""),
        columns={"age": Column(decimals=0), "state": Column(mappings=words(FRESHNESS))},
        steps=((None, "green"), (120, "orange"), (600, "red")),
    )
