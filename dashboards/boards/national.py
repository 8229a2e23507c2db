"""The country on one page: areas on a map and in a table, categories, alerts."""

from dashboards.board import Board, Section
from dashboards.levels import FULLNESS, STEPS, fullness, none_is_good, words
from dashboards.panels import COUNT, PERSONS, PLAIN, SHARE, Column, Says, bars, number, over_time, rows, world
from dashboards.queries import CHOSEN, CHOSEN_VENUES, PRESENT, TO_AREA, area_and_category, crowding_marks
from dashboards.sources import Sql

#: The chosen areas as they are now. `ratio` is of the capacity of their venues that have one.
_AREAS = f"""{PRESENT},
areas AS (
  SELECT area, count() AS venues, sum(counted) AS all_counted, if(count(expected) > 0, round(sum(people)), NULL) AS all_expected,
    sum(people) AS persons, sum(capacity) AS room, sumIf(people, capacity > 0) / nullIf(room, 0) AS share,
    countIf(ratio >= 1) AS full
  FROM present
  GROUP BY area
)"""

_PEOPLE = number(
    Says(
        "People now",
        "Counted: everybody checked in and not yet checked out or expired. Expected: who is really there by the model "
        "in force; a venue without an estimate stands in with its count.",
        PERSONS,
        "no venue chosen is known",
    ),
    Sql(f"""
WITH {PRESENT}
SELECT sum(counted) AS counted, if(count(expected) > 0, round(sum(people)), NULL) AS expected
FROM present
LIMIT 1
"""),
    columns={"counted": Column(), "expected": Column(decimals=0)},
    size=(6, 4),
)

_FULL = number(
    Says(
        "Where it is full",
        "Venues at or over their capacity now, and the areas that they lie in.",
        COUNT,
        "no venue chosen is known",
    ),
    Sql(f"""
WITH {_AREAS}
SELECT sum(full) AS full_venues, countIf(full > 0) AS full_areas
FROM areas
LIMIT 1
"""),
    columns={
        "full_venues": Column(name="venues", mappings=none_is_good()),
        "full_areas": Column(name="areas", mappings=none_is_good()),
    },
    size=(6, 4),
)

_RAISED = number(
    Says(
        "Crowding alerts",
        "Venues among the chosen ones at which an alert was raised in the time range, at which one became critical, and "
        "at which one of them is not cleared yet.",
        COUNT,
        "no alert in this time range",
    ),
    Sql(f"""
SELECT uniqExact(venue_id) AS raised, uniqExactIf(venue_id, level = 'critical') AS critical,
  uniqExactIf(venue_id, cleared_at IS NULL) AS open
FROM checkins.crowding_alerts
WHERE $__timeFilter(raised_at)
  AND venue_id IN (
    SELECT venue_id FROM checkins.venues
    WHERE {CHOSEN}
  )
LIMIT 1
"""),
    columns={"raised": Column(), "critical": Column(), "open": Column(mappings=none_is_good())},
    size=(8, 4),
)

_MAP = world(
    Says(
        "Areas now",
        "One marker for each area, in the middle of its venues: as large as the people there, coloured by the share of "
        "their venues' capacity. The number on it is that share.",
        PERSONS,
        "no venue chosen has a place on the map",
    ),
    Sql(f"""
WITH {_AREAS},
places AS (
  SELECT ifNull(area, 'unknown') AS place, avg(latitude) AS north, avg(longitude) AS east
  FROM checkins.venues
  WHERE latitude IS NOT NULL AND longitude IS NOT NULL
  GROUP BY place
)
SELECT area, north AS latitude, east AS longitude, round(persons) AS people, share AS ratio,
  concat(toString(round(100 * share)), ' %') AS label, {fullness("share")} AS level, venues, all_counted AS counted,
  all_expected AS expected
FROM areas
INNER JOIN places ON areas.area = places.place
ORDER BY people DESC, area
LIMIT 600
"""),
    sized_by="people",
    coloured_by="ratio",
    labelled_by="label",
    columns={
        "ratio": Column(unit=SHARE, decimals=0),
        "latitude": Column(unit=PLAIN),
        "longitude": Column(unit=PLAIN),
        "level": Column(mappings=words(FULLNESS)),
        "area": Column(link=TO_AREA),
    },
    steps=STEPS,
    size=(14, 18),
)

_TABLE = rows(
    Says(
        "Areas",
        "The areas with the most people: venues, people counted and expected, the share of capacity, and venues that "
        "are full. Click an area for the wall.",
        PERSONS,
        "no venue chosen is known",
    ),
    Sql(f"""
WITH {_AREAS}
SELECT area, {fullness("share")} AS level, share AS ratio, all_counted AS counted, all_expected AS expected, room AS capacity,
  venues, full
FROM areas
ORDER BY persons DESC, area
LIMIT 50
"""),
    columns={
        "area": Column(link=TO_AREA),
        "level": Column(mappings=words(FULLNESS), coloured_cell=True),
        "ratio": Column(unit=SHARE, decimals=0, name="of capacity"),
        "full": Column(name="venues full", mappings=none_is_good()),
    },
    size=(10, 18),
)

_CATEGORIES = bars(
    Says(
        "People by category",
        "Counted, and expected where a model has an estimate (a venue without one stands in with its count).",
        PERSONS,
        "no venue chosen is known",
    ),
    Sql(f"""
WITH {PRESENT}
SELECT category, sum(counted) AS counted, if(count(expected) > 0, round(sum(people)), NULL) AS expected
FROM present
GROUP BY category
ORDER BY counted DESC, category
LIMIT 20
"""),
    "category",
    columns={"counted": Column(colour="blue"), "expected": Column(colour="green", decimals=0)},
)

_HOURS = over_time(
    Says(
        "People there, hour by hour",
        "The mean number present in each hour that is over, by category: expected where a model has estimated that hour "
        "and venue, else counted.",
        PERSONS,
        "no full hour in this time range",
    ),
    Sql(
        f"""
SELECT hour AS time, category, sum(coalesce(expected, mean_occupancy)) AS people
FROM checkins.occupancy_hours AS hourly
INNER JOIN {CHOSEN_VENUES} ON hourly.venue_id = venues.venue_id
WHERE $__timeFilter(hour) AND hour < toStartOfHour((SELECT as_of FROM checkins.clock))
GROUP BY time, category
ORDER BY time, category
LIMIT 10000
""",
        by_time=True,
    ),
    name="${__field.labels.category}",
    stacked=True,
)

_RAISED_BY_HOUR = over_time(
    Says(
        "Alerts raised",
        "Crowding alerts at the chosen venues by the hour in which they were raised, by level.",
        COUNT,
        "no alert in this time range",
    ),
    Sql(
        f"""
SELECT toStartOfHour(raised_at) AS time, level, count() AS alerts
FROM checkins.crowding_alerts
WHERE $__timeFilter(raised_at)
  AND venue_id IN (
    SELECT venue_id FROM checkins.venues
    WHERE {CHOSEN}
  )
GROUP BY time, level
ORDER BY time, level
LIMIT 10000
""",
        by_time=True,
    ),
    name="${__field.labels.level}",
    bars=True,
    stacked=True,
    size=(24, 8),
)

_MARKS = crowding_marks("concat(level, ': ', venues.name, ', area ', venues.area)", "level = 'critical'")

BOARD = Board(
    uid="checkins-national",
    title="National overview",
    description="For a ministry: areas on a map and in a table, categories, and crowding alerts across the country.",
    since="now-24h",
    refresh="1m",
    variables=area_and_category(),
    alerts=_MARKS,
    first=[_PEOPLE, _FULL, _RAISED],
    sections=[
        Section("Areas", [_MAP, _TABLE]),
        Section("Categories and alerts", [_CATEGORIES, _HOURS, _RAISED_BY_HOUR]),
    ],
)
