"""Contact tracing in sums: cases, venue exposures and warnings, and never anybody's pseudonym."""

from grafana_foundation_sdk.models.dashboard import VariableRefresh

from dashboards.board import Board, Section
from dashboards.panels import COUNT, MINUTES, SECONDS, SHARE, Column, Says, bars, number, over_time, rows
from dashboards.queries import CHOSEN, CHOSEN_VENUES, VENUE_COLUMNS, area_and_category, choice, crowding_marks, text_box
from dashboards.sources import Sql

_POLICIES = "SELECT DISTINCT policy FROM checkins.exposures WHERE $__timeFilter(overlap_from) ORDER BY policy LIMIT 50"

#: A condition: under a policy that the reader has chosen.
_POLICY = "$__conditionalAll(policy IN (${policy:singlequote}), $policy)"

#: The same, and at a venue chosen. Exposures of venues that no registry knows belong to no area.
_HERE = f"""{_POLICY} AND venue_id IN (
    SELECT venue_id FROM checkins.venues
    WHERE {CHOSEN}
  )"""

_CASES = number(
    Says(
        "Cases",
        "Cases whose newest report came in the time range (withdrawn ones apart), and those infectious at the "
        "pipeline's clock.",
        COUNT,
        "no case reported in this time range",
    ),
    Sql("""
SELECT
  countIf(status = 'confirmed') AS confirmed,
  countIf(status = 'suspected') AS suspected,
  countIf(status = 'withdrawn') AS withdrawn,
  countIf(status != 'withdrawn' AND infectious_from <= (SELECT as_of FROM checkins.clock)
    AND infectious_until > (SELECT as_of FROM checkins.clock)) AS infectious
FROM checkins.cases
WHERE $__timeFilter(reported_at)
LIMIT 1
"""),
    columns={
        "confirmed": Column(),
        "suspected": Column(),
        "withdrawn": Column(),
        "infectious": Column(name="infectious now"),
    },
    size=(10, 4),
)

_EXPOSURES = number(
    Says(
        "Venue exposures",
        "Pairs of overlapping visits, a case's and another visitor's, that began in the time range; a visitor with two "
        "such visits counts twice. Over the threshold: those whose tier is not below; policies have thresholds of their "
        "own, so choose one. Present in one venue, no proof of closeness.",
        COUNT,
        "no exposure in this time range",
    ),
    Sql(f"""
SELECT countIf(tier != 'below') AS over_threshold, count() AS pairs, uniqExact(case_id) AS cases, uniqExact(venue_id) AS venues
FROM checkins.exposures
WHERE $__timeFilter(overlap_from) AND {_HERE}
LIMIT 1
"""),
    columns={
        "over_threshold": Column(name="over the threshold"),
        "pairs": Column(name="all pairs"),
        "cases": Column(name="of cases"),
        "venues": Column(name="at venues"),
    },
    size=(10, 4),
)

_REPORTED = over_time(
    Says(
        "Cases by day of report",
        "By the status of their newest report.",
        COUNT,
        "no case reported in this time range",
    ),
    Sql(
        """
SELECT toStartOfDay(reported_at) AS time, status, count() AS cases
FROM checkins.cases
WHERE $__timeFilter(reported_at)
GROUP BY time, status
ORDER BY time, status
LIMIT 10000
""",
        by_time=True,
    ),
    name="${__field.labels.status}",
    bars=True,
    stacked=True,
)

_DELAY = over_time(
    Says(
        "From infectious to reported",
        "Time from the beginning of a case's infectious window to its newest report, by day of report: half of the "
        "cases, and nine in ten, are at or under the line. What tracing cannot win back.",
        SECONDS,
        "no case reported in this time range",
    ),
    Sql(
        """
SELECT
  toStartOfDay(reported_at) AS time,
  quantileExact(0.5)(dateDiff('second', infectious_from, reported_at)) AS half,
  quantileExact(0.9)(dateDiff('second', infectious_from, reported_at)) AS nine_in_ten
FROM checkins.cases
WHERE $__timeFilter(reported_at) AND status != 'withdrawn'
GROUP BY time
ORDER BY time
LIMIT 10000
""",
        by_time=True,
    ),
    columns={"half": Column(name="half of the cases"), "nine_in_ten": Column(name="nine in ten")},
)

_BY_DAY = over_time(
    Says(
        "Exposures by day and tier",
        "Pairs of overlapping visits by the day on which the overlap began, by the policy's tier. Reports that come "
        "later still add to past days.",
        COUNT,
        "no exposure in this time range",
    ),
    Sql(
        f"""
SELECT toStartOfDay(overlap_from) AS time, tier, count() AS pairs
FROM checkins.exposures
WHERE $__timeFilter(overlap_from) AND {_HERE}
GROUP BY time, tier
ORDER BY time, tier
LIMIT 10000
""",
        by_time=True,
    ),
    name="${__field.labels.tier}",
    bars=True,
    stacked=True,
)

_TIERS = bars(
    Says(
        "Exposures by policy and tier",
        "Pairs of overlapping visits under each policy and its version; policies differ in threshold, window and "
        "boundary rule, so their numbers are not to be added.",
        COUNT,
        "no exposure in this time range",
    ),
    Sql(f"""
SELECT concat(policy, ' ', policy_version, ': ', tier) AS rule, count() AS pairs
FROM checkins.exposures
WHERE $__timeFilter(overlap_from) AND {_HERE}
GROUP BY policy, policy_version, tier
ORDER BY policy, policy_version, pairs DESC
LIMIT 40
"""),
    "rule",
)

_SURE = number(
    Says(
        "How sure the minutes are",
        "Share of the pairs whose length is exact because both checked out; and the sum of all overlaps, at least and "
        "at most, where automatic ends leave it open.",
        MINUTES,
        "no exposure in this time range",
    ),
    Sql(f"""
SELECT
  avg(minutes_low = minutes_high) AS exact,
  sum(minutes_low) AS at_least,
  sum(minutes_high) AS at_most
FROM checkins.exposures
WHERE $__timeFilter(overlap_from) AND {_HERE}
HAVING count() > 0
LIMIT 1
"""),
    columns={
        "exact": Column(unit=SHARE, decimals=0, name="exact"),
        "at_least": Column(decimals=0, name="at least"),
        "at_most": Column(decimals=0, name="at most"),
    },
    size=(24, 4),
)

_VENUES = rows(
    Says(
        "Where exposures happen",
        "Venues with the most exposures over the threshold; those with fewer than the smallest number shown (a variable "
        "of this board) are left out, so that no row speaks of a few people. Click a venue for its own board.",
        COUNT,
        "no venue with enough exposures in this time range",
    ),
    Sql(f"""
SELECT venue_id, any(venues.name) AS name, any(venues.area) AS area, any(venues.category) AS category,
  countIf(tier != 'below') AS over_threshold, count() AS pairs, uniqExact(case_id) AS cases, sum(minutes) AS minutes
FROM checkins.exposures AS pairs
INNER JOIN {CHOSEN_VENUES} ON pairs.venue_id = venues.venue_id
WHERE $__timeFilter(overlap_from) AND {_POLICY}
GROUP BY pairs.venue_id AS venue_id
HAVING pairs >= toUInt64OrZero(${{smallest:singlequote}})
ORDER BY over_threshold DESC, pairs DESC, venue_id
LIMIT 50
"""),
    columns={
        **VENUE_COLUMNS,
        "over_threshold": Column(name="over the threshold"),
        "minutes": Column(unit=MINUTES, decimals=0, name="overlap in all"),
    },
    size=(24, 10),
)

_WARNINGS = rows(
    Says(
        "Warnings in force",
        "Venues with a warning that overlaps the time range, the most cases first. Click a venue for its own board.",
        COUNT,
        "no warning in this time range",
    ),
    Sql(f"""
SELECT warnings.venue_id AS venue_id, venues.name AS name, venues.area AS area, warn_from, warn_until, case_count, policy
FROM checkins.venue_warnings AS warnings
INNER JOIN {CHOSEN_VENUES} ON warnings.venue_id = venues.venue_id
WHERE warn_from <= $__toTime AND warn_until > $__fromTime AND {_POLICY}
ORDER BY case_count DESC, warn_from DESC, venue_id
LIMIT 100
"""),
    columns={
        **VENUE_COLUMNS,
        "warn_from": Column(unit="dateTimeAsLocal", name="from"),
        "warn_until": Column(unit="dateTimeAsLocal", name="until"),
        "case_count": Column(name="cases"),
    },
    size=(24, 10),
)

_WARNED = over_time(
    Says(
        "Warnings by day",
        "Warnings by the day on which they begin, and the venues that they are about.",
        COUNT,
        "no warning in this time range",
    ),
    Sql(
        f"""
SELECT toStartOfDay(warn_from) AS time, count() AS warnings, uniqExact(venue_id) AS venues
FROM checkins.venue_warnings
WHERE $__timeFilter(warn_from) AND {_HERE}
GROUP BY time
ORDER BY time
LIMIT 10000
""",
        by_time=True,
    ),
    bars=True,
)

_MARKS = crowding_marks("concat('crowded: ', venues.name)")

BOARD = Board(
    uid="checkins-tracing",
    title="Contact tracing",
    description="For epidemiologists: cases, venue exposures by policy and tier, and warnings, in sums only. Days are UTC.",
    since="now-14d",
    refresh="5m",
    variables=[
        *area_and_category(),
        choice("policy", "Policy", _POLICIES).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED),
        text_box("smallest", "Smallest number shown", "5"),
    ],
    alerts=_MARKS,
    first=[_CASES, _EXPOSURES],
    sections=[
        Section("Cases", [_REPORTED, _DELAY]),
        Section("Exposures", [_SURE, _BY_DAY, _TIERS, _VENUES]),
        Section("Warnings", [_WARNINGS, _WARNED]),
    ],
)
