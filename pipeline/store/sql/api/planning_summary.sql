WITH hours AS ({{planning_hours}})
SELECT
    uniqExact(venue_id) AS venues,
    toUnixTimestamp(min(hour)) AS first_hour,
    toUnixTimestamp(max(hour)) AS last_hour,
    sum(arrivals) AS arrivals,
    quantileExact(0.95)(peak / capacity) AS p95_peak_ratio,
    sum(minutes_over_capacity) AS minutes_over_capacity,
    uniqExactIf(venue_id, peak * 10 >= capacity * 9) AS venues_over_90,
    sumIf(mean_occupancy, expected IS NOT NULL) / nullIf(sum(expected), 0) AS counted_to_expected
FROM hours
