"""The wall: where people are now, and where it is too full."""

from dashboards.board import Board, Section
from dashboards.levels import ALERTS, FULLNESS, none_is_good, words
from dashboards.panels import COUNT, MINUTES, PERSONS, SHARE, Column, Says, bars, number, over_time, rows
from dashboards.queries import CHOSEN, CHOSEN_VENUES, PRESENT, VENUE_COLUMNS, area_and_category, crowding_marks
from dashboards.sources import Sql

_PEOPLE = number(
    Says(
        "People now",
        "Counted: everybody checked in and not yet checked out or expired, at the chosen venues. Expected: who is "
        "really there by the model in force; a venue without an estimate stands in with its count. Intervals are per "
        "venue, they do not add.",
        PERSONS,
        "no venue chosen is known",
    ),
    Sql(f"""
WITH {PRESENT}
SELECT
  sum(counted) AS counted,
  if(count(expected) > 0, round(sum(people)), NULL) AS expected
FROM present
LIMIT 1
"""),
    columns={"counted": Column(), "expected": Column(decimals=0)},
)

_HONESTY = number(
    Says(
        "What the estimate rests on",
        "Share of visits that people check out of, share of the counted people at venues with an estimate, and the "
        "model. The lower the first, the more the count overstates short stays.",
        SHARE,
        "no model in force",
    ),
    Sql(f"""
WITH {PRESENT}
SELECT
  sumIf(check_out_share * counted, check_out_share IS NOT NULL)
    / nullIf(sumIf(counted, check_out_share IS NOT NULL), 0) AS checking_out,
  sumIf(counted, expected IS NOT NULL) / nullIf(sum(counted), 0) AS estimated,
  anyLast(model_version) AS model
FROM present
LIMIT 1
"""),
    columns={
        "checking_out": Column(name="check out", decimals=0),
        "estimated": Column(name="have an estimate", decimals=0),
        "model": Column(),
    },
    size=(8, 4),
)

_FULL = number(
    Says(
        "Venues by how full",
        "Venues with anybody there; at or over their capacity; at 110 % of it or more. By the expected number where "
        "there is one.",
        COUNT,
        "no venue chosen is known",
    ),
    Sql(f"""
WITH {PRESENT}
SELECT
  countIf(people > 0) AS open,
  countIf(ratio >= 1) AS full,
  countIf(ratio >= 1.1) AS critical
FROM present
LIMIT 1
"""),
    columns={
        "open": Column(name="with people"),
        "full": Column(name="full or over", mappings=none_is_good()),
        "critical": Column(mappings=none_is_good()),
    },
    size=(8, 4),
)

_FULLEST = rows(
    Says(
        "Fullest venues",
        "Counted, expected with its 90 % interval, and the share of capacity by the expected number (or the count: see "
        "basis). Click a venue for its own board.",
        PERSONS,
        "nobody is checked in at the chosen venues",
    ),
    Sql(f"""
WITH {PRESENT}
SELECT venue_id, name, area, category, level, ratio, basis, counted, expected, low, high, capacity, check_out_share
FROM present
WHERE people > 0
ORDER BY ratio DESC NULLS LAST, people DESC, venue_id
LIMIT 25
"""),
    columns={
        **VENUE_COLUMNS,
        "level": Column(mappings=words(FULLNESS), coloured_cell=True),
        "ratio": Column(unit=SHARE, decimals=0, name="of capacity"),
        "expected": Column(decimals=0),
        "check_out_share": Column(unit=SHARE, decimals=0, name="check out"),
    },
    size=(16, 14),
)

_BANDS = bars(
    Says(
        "How many venues are how full",
        "Every chosen venue that the registry or a scan knows, by the share of its capacity that is there now.",
        COUNT,
        "no venue chosen is known",
    ),
    Sql(f"""
WITH {PRESENT}
SELECT level, count() AS venues
FROM present
GROUP BY level
ORDER BY indexOf(['quiet', 'busy', 'nearly full', 'full', 'critical', 'no capacity known'], level)
LIMIT 6
"""),
    "level",
    size=(8, 7),
)

_ARRIVING = rows(
    Says(
        "Most arrivals in the last 15 minutes",
        "From the newest full window of 15 minutes of each venue: persons who came, visitors seen, persons at the peak, "
        "and the middle stay of those who left. Click a venue for its own board.",
        PERSONS,
        "nobody came in the last 15 minutes",
    ),
    Sql(f"""
SELECT rolling.venue_id AS venue_id, venues.name AS name, arrivals, unique_visitors, peak, median_dwell_minutes
FROM checkins.rolling_occupancy AS rolling
INNER JOIN {CHOSEN_VENUES} ON rolling.venue_id = venues.venue_id
WHERE rolling.`window` = '15m'
ORDER BY arrivals DESC, venue_id
LIMIT 12
"""),
    columns={
        **VENUE_COLUMNS,
        "unique_visitors": Column(name="visitors"),
        "median_dwell_minutes": Column(unit=MINUTES, decimals=0, name="middle stay"),
    },
    size=(8, 7),
)

_FLOW = over_time(
    Says(
        "Arriving and leaving",
        "Persons who checked in, and who checked out or expired, in each step of the axis. Late scans still change the "
        "last hours.",
        PERSONS,
        "no arrivals or departures in this time range",
    ),
    Sql(
        f"""
SELECT $__timeInterval(minute) AS time, sum(arrivals) AS arriving, sum(departures) AS leaving
FROM checkins.occupancy_minutes
WHERE $__timeFilter(minute)
  AND venue_id IN (
    SELECT venue_id FROM checkins.venues
    WHERE {CHOSEN}
  )
GROUP BY time
ORDER BY time
LIMIT 10000
""",
        by_time=True,
    ),
    bars=True,
)

_HOURS = over_time(
    Says(
        "People there, hour by hour",
        "The mean number present in each hour that is over: counted, and expected where a model has estimated that hour "
        "(a venue without an estimate stands in with its count).",
        PERSONS,
        "no full hour in this time range",
    ),
    Sql(
        f"""
SELECT
  hour AS time,
  sum(mean_occupancy) AS counted,
  if(count(expected) > 0, sum(coalesce(expected, mean_occupancy)), NULL) AS expected
FROM checkins.occupancy_hours
WHERE $__timeFilter(hour)
  AND hour < toStartOfHour((SELECT as_of FROM checkins.clock))
  AND venue_id IN (
    SELECT venue_id FROM checkins.venues
    WHERE {CHOSEN}
  )
GROUP BY time
ORDER BY time
LIMIT 10000
""",
        by_time=True,
    ),
    columns={"counted": Column(colour="blue"), "expected": Column(colour="green")},
)

_ALERTS = rows(
    Says(
        "Crowding alerts that are open",
        "Raised in the last seven days and not cleared yet, of each venue the gravest, the fullest venue first. Peak: "
        "the most persons present since then.",
        PERSONS,
        "no alert is open",
    ),
    Sql(f"""
SELECT alerts.venue_id AS venue_id, venues.name AS name, venues.area AS area, level, raised_at, peak, alerts.capacity AS capacity,
  peak / nullIf(alerts.capacity, 0) AS ratio
FROM checkins.crowding_alerts AS alerts
INNER JOIN {CHOSEN_VENUES} ON alerts.venue_id = venues.venue_id
WHERE raised_at BETWEEN $__toTime - INTERVAL 7 DAY AND $__toTime AND cleared_at IS NULL
ORDER BY level = 'critical' DESC, ratio DESC, venue_id
LIMIT 1 BY venue_id
LIMIT 50
"""),
    columns={
        **VENUE_COLUMNS,
        "level": Column(mappings=words(ALERTS), coloured_cell=True),
        "raised_at": Column(unit="dateTimeAsLocal", name="since"),
        "ratio": Column(unit=SHARE, decimals=0, name="peak of capacity"),
    },
    size=(24, 8),
)

_MARKS = crowding_marks(
    "concat(level, ': ', venues.name, ', ', toString(peak), ' of ', toString(alerts.capacity))", most=100
)

BOARD = Board(
    uid="checkins-wall",
    title="Live occupancy",
    description="For the wall: how many people are where now, which venues are too full, and how sure that is.",
    since="now-6h",
    refresh="30s",
    variables=area_and_category(),
    alerts=_MARKS,
    first=[_PEOPLE, _FULL, _HONESTY],
    sections=[
        Section("Now", [_FULLEST, _BANDS, _ARRIVING]),
        Section("Alerts", [_ALERTS]),
        Section("The last hours", [_FLOW, _HOURS]),
    ],
)
