"""One venue: found by a search, now, today, and against the same weekday before."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from dashboards.board import Board, Section
from dashboards.levels import ALERTS, FULLNESS, STEPS, fullness, words
from dashboards.panels import COUNT, MINUTES, PERSONS, SHARE, Column, Says, number, over_time, rows
from dashboards.queries import choice, text_box
from dashboards.sources import Sql

#: At most a hundred venues, whatever there are: those whose name or id has the text, the busiest first.
_FOUND = """
SELECT venues.venue_id AS value, concat(name, ' (', category, ', area ', ifNull(area, 'unknown'), ')') AS text
FROM checkins.venues AS venues
LEFT JOIN (SELECT venue_id, occupancy FROM checkins.occupancy_now) AS shown ON venues.venue_id = shown.venue_id
WHERE ${search:singlequote} = ''
   OR venues.venue_id = ${search:singlequote}
   OR positionCaseInsensitiveUTF8(name, ${search:singlequote}) > 0
ORDER BY venues.venue_id = ${search:singlequote} DESC, occupancy DESC, value
LIMIT 100
"""

_NOW = number(
    Says(
        "Here now",
        "Counted: checked in and not yet checked out or expired. Expected: who is really here by the model in force, "
        "with its 90 % interval (low to high).",
        PERSONS,
        "no estimate",
    ),
    Sql("""
SELECT occupancy AS counted, expected, low, high
FROM checkins.occupancy_now
WHERE venue_id = ${venue:singlequote}
LIMIT 1
"""),
    columns={"counted": Column(), "expected": Column(decimals=0), "low": Column(), "high": Column()},
    size=(8, 4),
)

_FULL = number(
    Says(
        "How full",
        "The expected number (or the count, where there is no estimate) of the capacity: at 100 % an alert is raised, "
        "at 110 % it is critical.",
        SHARE,
        "no capacity known",
    ),
    Sql(f"""
SELECT coalesce(expected, toFloat64(occupancy)) / nullIf(capacity, 0) AS ratio, {fullness("ratio")} AS level
FROM checkins.occupancy_now
WHERE venue_id = ${{venue:singlequote}}
LIMIT 1
"""),
    columns={"ratio": Column(decimals=0, name="of capacity"), "level": Column(mappings=words(FULLNESS))},
    steps=STEPS,
)

_HONESTY = number(
    Says(
        "What the estimate rests on",
        "Share of the visits here that people check out of, and the model of presence in force.",
        SHARE,
        "no model in force",
    ),
    Sql("""
SELECT check_out_share AS checking_out, model_version AS model
FROM checkins.occupancy_now
WHERE venue_id = ${venue:singlequote}
LIMIT 1
"""),
    columns={"checking_out": Column(name="check out", decimals=0), "model": Column()},
    size=(8, 4),
)

_REGISTERED = rows(
    Says(
        "The venue",
        "As the registry has it.",
        PERSONS,
        "choose a venue above: type a part of its name or its id into Search",
    ),
    Sql("""
SELECT venue_id, name, category, ifNull(area, 'unknown') AS area, capacity, ifNull(timezone, 'UTC') AS zone, floor_area_m2,
  air_changes_per_hour
FROM checkins.venues
WHERE venue_id = ${venue:singlequote}
LIMIT 1
"""),
    columns={
        "venue_id": Column(name="id"),
        "zone": Column(name="time zone"),
        "floor_area_m2": Column(unit="areaM2", name="floor area"),
        "air_changes_per_hour": Column(unit="suffix:/h", name="air changes"),
    },
    size=(24, 4),
)

_DAY = over_time(
    Says(
        "People here",
        "Peak and count at the end of each step, the expected number with its 90 % interval where a model has estimated "
        "it, and the capacity. A number stands until the next change.",
        PERSONS,
        "nobody came or left in this time range",
    ),
    Sql(
        """
SELECT
  $__timeInterval(minute) AS time,
  max(peak) AS peak,
  argMax(occupancy, minute) AS counted,
  argMax(expected, minute) AS expected,
  argMax(low, minute) AS low,
  argMax(high, minute) AS high,
  any((SELECT max(capacity) FROM checkins.venues WHERE venue_id = ${venue:singlequote})) AS capacity
FROM checkins.occupancy_minutes
WHERE $__timeFilter(minute) AND venue_id = ${venue:singlequote}
GROUP BY time
ORDER BY time
LIMIT 10000
""",
        by_time=True,
    ),
    columns={
        "peak": Column(colour="light-blue"),
        "counted": Column(colour="blue"),
        "expected": Column(colour="green"),
        "high": Column(colour="green", fill_to="low"),
        "low": Column(colour="green", dashed=True),
        "capacity": Column(colour="red", dashed=True),
    },
    stepped=True,
    size=(24, 10),
)

_FLOW = over_time(
    Says(
        "Arriving and leaving",
        "Persons who checked in, and who checked out or expired, in each step of the axis.",
        PERSONS,
        "nobody came or left in this time range",
    ),
    Sql(
        """
SELECT $__timeInterval(minute) AS time, sum(arrivals) AS arriving, sum(departures) AS leaving
FROM checkins.occupancy_minutes
WHERE $__timeFilter(minute) AND venue_id = ${venue:singlequote}
GROUP BY time
ORDER BY time
LIMIT 10000
""",
        by_time=True,
    ),
    bars=True,
)


def _hours(suffix: str, days: int) -> Sql:
    shift = f" - INTERVAL {days} DAY" if days else ""
    moved = f"hour + INTERVAL {days} DAY" if days else "hour"
    return Sql(
        f"""
SELECT {moved} AS time, mean_occupancy AS `counted{suffix}`, expected AS `expected{suffix}`
FROM checkins.occupancy_hours
WHERE hour >= $__fromTime{shift} AND hour <= $__toTime{shift} AND venue_id = ${{venue:singlequote}}
ORDER BY time
LIMIT 10000
""",
        by_time=True,
    )


_WEEKDAY = over_time(
    Says(
        "Against the same weekday before",
        "The mean number present in each hour, counted and (where a model has estimated that hour) expected, and the "
        "same one week before. An hour with nobody has no point.",
        PERSONS,
        "no hour with anybody here, now or a week before",
    ),
    _hours("", 0),
    _hours(" a week before", 7),
    columns={
        "counted": Column(colour="blue"),
        "expected": Column(colour="green"),
        "counted a week before": Column(colour="blue", dashed=True),
        "expected a week before": Column(colour="green", dashed=True),
    },
)

_WINDOWS = rows(
    Says(
        "The last quarter hour and hour",
        "The newest full windows: persons who came, visitors seen, persons at the peak, the mean, and the middle stay "
        "of those who left.",
        PERSONS,
        "nobody was here in the last hour",
    ),
    Sql("""
SELECT `window`, window_end, arrivals, unique_visitors, peak, mean_occupancy, expected, median_dwell_minutes
FROM checkins.rolling_occupancy
WHERE venue_id = ${venue:singlequote}
ORDER BY `window`
LIMIT 2
"""),
    columns={
        "window_end": Column(unit="dateTimeAsLocal", name="until"),
        "unique_visitors": Column(name="visitors"),
        "expected": Column(decimals=0, name="expected at the end"),
        "mean_occupancy": Column(decimals=1, name="mean counted"),
        "median_dwell_minutes": Column(unit=MINUTES, decimals=0, name="middle stay"),
    },
    size=(12, 6),
)


def _by_hour(says: Says, column: str, colour: str) -> Builder[Panel]:
    """A bar for each hour, of one column of `occupancy_hours`."""
    sql = f"""
SELECT hour AS time, {column}
FROM checkins.occupancy_hours
WHERE $__timeFilter(hour) AND venue_id = ${{venue:singlequote}}
ORDER BY time
LIMIT 10000
"""
    return over_time(
        says, Sql(sql, by_time=True), columns={column: Column(name=says.title.lower(), colour=colour)}, bars=True
    )


_BURDEN = _by_hour(
    Says(
        "Minutes over capacity",
        "Minutes of each hour with more persons counted than the capacity allows.",
        MINUTES,
        "no hour with anybody here in this time range",
    ),
    "minutes_over_capacity",
    "orange",
)

_CONTACT = _by_hour(
    Says(
        "Person-contact minutes",
        "Pairs of persons present together, times minutes, in each hour: n(n-1)/2 for n persons. Counted, so an upper "
        "bound where people do not check out; present in one venue, no proof of closeness.",
        COUNT,
        "no hour with anybody here in this time range",
    ),
    "person_contact_minutes",
    "purple",
)

_ALERTS = rows(
    Says(
        "Crowding alerts here",
        "Raised in the time range; without an end they are open. Peak: the most persons present meanwhile.",
        PERSONS,
        "no alert here in this time range",
    ),
    Sql("""
SELECT raised_at, cleared_at, level, peak, capacity, peak / nullIf(capacity, 0) AS ratio
FROM checkins.crowding_alerts
WHERE $__timeFilter(raised_at) AND venue_id = ${venue:singlequote}
ORDER BY raised_at DESC
LIMIT 100
"""),
    columns={
        "raised_at": Column(unit="dateTimeAsLocal", name="from"),
        "cleared_at": Column(unit="dateTimeAsLocal", name="until"),
        "level": Column(mappings=words(ALERTS), coloured_cell=True),
        "ratio": Column(unit=SHARE, decimals=0, name="peak of capacity"),
    },
    size=(12, 6),
)

_MARKS = """
SELECT raised_at AS time, coalesce(cleared_at, (SELECT as_of FROM checkins.clock)) AS timeEnd,
  concat(level, ': ', toString(peak), ' of ', toString(capacity)) AS text, level AS tags
FROM checkins.crowding_alerts
WHERE $__timeFilter(raised_at) AND venue_id = ${venue:singlequote}
ORDER BY raised_at DESC
LIMIT 100
"""

BOARD = Board(
    uid="checkins-venue",
    title="One venue",
    description="Type a part of a name or an id into Search, then choose the venue: now, its day, and the same weekday before.",
    since="now-24h",
    refresh="1m",
    variables=[text_box("search", "Search"), choice("venue", "Venue", _FOUND.strip(), several=False)],
    alerts=_MARKS,
    first=[_NOW, _FULL, _HONESTY],
    sections=[
        Section("The venue", [_REGISTERED]),
        Section("Its day", [_DAY, _FLOW, _WEEKDAY, _WINDOWS, _ALERTS]),
        Section("What it means", [_BURDEN, _CONTACT]),
    ],
)
