-- A row a venue. `capacity_for_90` is the smallest capacity that its highest peak would have stayed under nine tenths of;
-- `growth` compares the arrivals of the last seven days with the seven before, where the store reaches back so far.
WITH
    hours AS ({{planning_hours}}),
    toDateTime({until:Int64} - 7 * 86400, 'UTC') AS week,
    toDateTime({until:Int64} - 14 * 86400, 'UTC') AS week_before,
    (SELECT min(hour) FROM hours) < week_before + 86400 AS two_weeks
SELECT
    hours.venue_id AS venue_id,
    hours.name AS name,
    hours.category AS category,
    hours.area AS area,
    hours.capacity AS capacity,
    sum(hours.arrivals) AS arrivals,
    max(hours.peak) AS highest_peak,
    max(hours.expected) AS highest_expected,
    quantileExact(0.95)(hours.peak / hours.capacity) AS p95_peak_ratio,
    sum(hours.minutes_over_capacity) AS minutes_over_capacity,
    sumIf(hours.arrivals, hour >= week) AS this_week,
    sumIf(hours.arrivals, hour >= week_before AND hour < week) AS last_week,
    if(two_weeks AND last_week > 0, this_week / last_week - 1, NULL) AS growth,
    toUInt32(intDiv(highest_peak * 10, 9) + 1) AS capacity_for_90
FROM hours
GROUP BY venue_id, name, category, area, capacity
ORDER BY minutes_over_capacity DESC, p95_peak_ratio DESC, venue_id
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
