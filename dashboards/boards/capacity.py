"""How big must it be: peaks against capacity by hour, weekday, venue and area."""

from dashboards.board import Board, Section
from dashboards.levels import FULLNESS, STEPS, fullness, words
from dashboards.panels import COUNT, MINUTES, PERSONS, SHARE, Column, Says, coloured_rows, number, over_time, rows
from dashboards.queries import CHOSEN, TO_AREA, VENUE_COLUMNS, area_and_category, choice
from dashboards.sources import Sql

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_ZONES = """
SELECT ifNull(timezone, 'UTC') AS zone
FROM checkins.venues
GROUP BY zone
ORDER BY count() DESC, zone
LIMIT 50
"""

#: The chosen venues of one time zone, so that an hour of the day is the same hour for all of them.
_ROOMS = f"""rooms AS (
  SELECT venue_id, name, ifNull(area, 'unknown') AS area, category, capacity
  FROM checkins.venues
  WHERE capacity > 0 AND ifNull(timezone, 'UTC') = ${{zone:singlequote}}
    AND {CHOSEN}
)"""

#: Of each of them: its 95th percentile of hourly peaks, over the hours with anybody there.
_PEAKS = f"""{_ROOMS},
peaks AS (
  SELECT rooms.venue_id AS venue_id, any(rooms.name) AS name, any(rooms.area) AS area, any(rooms.category) AS category,
    any(rooms.capacity) AS capacity, quantileExact(0.95)(peak) AS p95_peak, max(peak) AS highest,
    sum(minutes_over_capacity) AS minutes_over, count() AS hours
  FROM checkins.occupancy_hours AS hourly
  INNER JOIN rooms ON hourly.venue_id = rooms.venue_id
  WHERE $__timeFilter(hour)
  GROUP BY venue_id
)"""

_BIAS = "Counted peaks: where people do not check out they are too high, see counted against expected."

_SUMMARY = number(
    Says(
        "The chosen venues",
        "Venues with a capacity and anybody there in the time range; those whose 95th percentile of hourly peaks is at "
        f"or over the capacity; and all minutes over it. {_BIAS}",
        COUNT,
        "no venue with a capacity was visited in this time range",
    ),
    Sql(f"""
WITH {_PEAKS}
SELECT count() AS venues, countIf(p95_peak >= capacity) AS full, sum(minutes_over) AS minutes_over
FROM peaks
HAVING venues > 0
LIMIT 1
"""),
    columns={
        "venues": Column(),
        "full": Column(name="p95 at or over capacity"),
        "minutes_over": Column(unit=MINUTES, decimals=0, name="over capacity"),
    },
    size=(20, 4),
)

_CELLS = ",\n  ".join(
    f"quantileExactIfOrNull(0.95)(peak / capacity, toDayOfWeek(hour, 0, ${{zone:singlequote}}) = {day}) AS {name}"
    for day, name in enumerate(_WEEKDAYS, start=1)
)

_HEAT = coloured_rows(
    Says(
        "How full, by hour and weekday",
        "The 95th percentile of hourly peaks as a share of capacity, over the chosen venues and the hours with anybody "
        f"there. Hours and days are local to the chosen time zone. {_BIAS}",
        SHARE,
        "no venue with a capacity was visited in this time range",
    ),
    Sql(f"""
WITH {_ROOMS}
SELECT
  leftPad(toString(toHour(hour, ${{zone:singlequote}})), 2, '0') AS local_hour,
  {_CELLS}
FROM checkins.occupancy_hours AS hourly
INNER JOIN rooms ON hourly.venue_id = rooms.venue_id
WHERE $__timeFilter(hour)
GROUP BY local_hour
ORDER BY local_hour
LIMIT 24
"""),
    STEPS,
    columns={"local_hour": Column(name="hour"), **{day: Column(decimals=0) for day in _WEEKDAYS}},
)

_TIGHTEST = rows(
    Says(
        "Tightest venues",
        "By the 95th percentile of hourly peaks (p95) against the capacity: headroom is what is left, and the last "
        f"column is the capacity that would have kept p95 under 90 %. {_BIAS} Click a venue for its own board.",
        PERSONS,
        "no venue with a capacity was visited in this time range",
    ),
    Sql(f"""
WITH {_PEAKS}
SELECT venue_id, name, area, category, capacity, p95_peak / capacity AS p95_ratio, {fullness("p95_ratio")} AS level, p95_peak,
  highest, minutes_over, toInt64(capacity) - toInt64(p95_peak) AS headroom, toUInt32(ceil(p95_peak / 0.9)) AS capacity_needed
FROM peaks
ORDER BY p95_ratio DESC, venue_id
LIMIT 50
"""),
    columns={
        **VENUE_COLUMNS,
        "p95_ratio": Column(unit=SHARE, decimals=0, name="p95 of capacity"),
        "level": Column(mappings=words(FULLNESS), coloured_cell=True),
        "p95_peak": Column(name="p95 of peaks"),
        "minutes_over": Column(unit=MINUTES, decimals=0, name="over capacity"),
        "capacity_needed": Column(name="capacity for 90 %"),
    },
    size=(24, 12),
)

_AREAS = rows(
    Says(
        "Headroom by area",
        "Sums over the venues of an area: capacity, p95 of hourly peaks, and the share of capacity that is left. The "
        "peaks of venues do not come at once, so there is at least this headroom. The tightest first. Click an area for "
        "the wall.",
        PERSONS,
        "no venue with a capacity was visited in this time range",
    ),
    Sql(f"""
WITH {_PEAKS}
SELECT area, count() AS venues, sum(capacity) AS capacity, sum(p95_peak) AS p95_peak,
  1 - p95_peak / capacity AS headroom, {fullness("p95_peak / capacity")} AS level
FROM peaks
GROUP BY area
ORDER BY headroom, area
LIMIT 50
"""),
    columns={
        "area": Column(link=TO_AREA),
        "p95_peak": Column(name="p95 of peaks"),
        "headroom": Column(unit=SHARE, decimals=0),
        "level": Column(mappings=words(FULLNESS), coloured_cell=True),
    },
    size=(12, 10),
)

_GROWTH = rows(
    Says(
        "Growth by area",
        "Persons who arrived in the seven days before the end of the time range, in the seven before those, and the "
        "change. No change is shown where nobody came before.",
        PERSONS,
        "nobody arrived in the last two weeks of this time range",
    ),
    Sql(f"""
WITH {_ROOMS}
SELECT area, sumIf(arrivals, hour >= $__toTime - INTERVAL 7 DAY) AS this_week,
  sumIf(arrivals, hour < $__toTime - INTERVAL 7 DAY) AS week_before,
  this_week / nullIf(week_before, 0) - 1 AS growth
FROM checkins.occupancy_hours AS hourly
INNER JOIN rooms ON hourly.venue_id = rooms.venue_id
WHERE hour >= $__toTime - INTERVAL 14 DAY AND hour < $__toTime
GROUP BY area
ORDER BY this_week DESC, area
LIMIT 50
"""),
    columns={
        "area": Column(link=TO_AREA),
        "this_week": Column(name="this week"),
        "week_before": Column(name="the week before"),
        "growth": Column(unit=SHARE, decimals=0, name="change"),
    },
    size=(12, 10),
)

_OVER = over_time(
    Says(
        "Minutes over capacity, by day",
        f"Sum over the chosen venues, by category, by day of the chosen time zone. {_BIAS}",
        MINUTES,
        "no venue with a capacity was visited in this time range",
    ),
    Sql(
        f"""
WITH {_ROOMS}
SELECT toStartOfDay(hour, ${{zone:singlequote}}) AS time, category, sum(minutes_over_capacity) AS minutes_over
FROM checkins.occupancy_hours AS hourly
INNER JOIN rooms ON hourly.venue_id = rooms.venue_id
WHERE $__timeFilter(hour)
GROUP BY time, category
ORDER BY time, category
LIMIT 10000
""",
        by_time=True,
    ),
    name="${__field.labels.category}",
    bars=True,
    stacked=True,
)

_HONESTY = over_time(
    Says(
        "Counted against expected",
        "Mean number present in each hour, summed over the chosen venues: as counted, and as expected where a model has "
        "estimated that hour. The gap is how far counted peaks may be too high.",
        PERSONS,
        "no venue with a capacity was visited in this time range",
    ),
    Sql(
        f"""
WITH {_ROOMS}
SELECT hour AS time, sum(mean_occupancy) AS counted,
  if(count(expected) > 0, sum(coalesce(expected, mean_occupancy)), NULL) AS expected
FROM checkins.occupancy_hours AS hourly
INNER JOIN rooms ON hourly.venue_id = rooms.venue_id
WHERE $__timeFilter(hour)
GROUP BY time
ORDER BY time
LIMIT 10000
""",
        by_time=True,
    ),
    columns={"counted": Column(colour="blue"), "expected": Column(colour="green")},
)

_MARKS = f"""
SELECT raised_at AS time, concat(level, ': ', venues.name) AS text, level AS tags
FROM checkins.crowding_alerts AS alerts
INNER JOIN (
  SELECT venue_id, name FROM checkins.venues
  WHERE ifNull(timezone, 'UTC') = ${{zone:singlequote}}
    AND {CHOSEN}
) AS venues ON alerts.venue_id = venues.venue_id
WHERE $__timeFilter(raised_at)
ORDER BY raised_at DESC
LIMIT 100
"""

BOARD = Board(
    uid="checkins-capacity",
    title="Capacity planning",
    description="For planners: when and where peaks meet capacity, how that grows, and how much room is left.",
    since="now-14d",
    refresh="1h",
    variables=[choice("zone", "Time zone", _ZONES.strip(), several=False), *area_and_category()],
    alerts=_MARKS,
    first=[_SUMMARY],
    sections=[
        Section("When", [_HEAT]),
        Section("Where", [_TIGHTEST, _AREAS, _GROWTH]),
        Section("How it changes", [_OVER, _HONESTY]),
    ],
)
