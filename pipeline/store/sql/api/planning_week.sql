WITH
    hours AS ({{planning_hours}}),
    (
        SELECT sum(capacity)
        FROM (SELECT venue_id, any(capacity) AS capacity FROM hours GROUP BY venue_id)
    ) AS room
SELECT
    toDayOfWeek(local_time) AS weekday,
    toHour(local_time) AS hour_of_day,
    uniqExact(toDate(local_time)) AS days,
    sum(mean_occupancy) / days AS mean_people,
    mean_people / room AS mean_ratio,
    if(count(expected) > 0, sum(ifNull(expected, mean_occupancy)) / days, NULL) AS expected_people,
    expected_people / room AS expected_ratio,
    quantileExact(0.95)(peak / capacity) AS p95_peak_ratio
FROM hours
GROUP BY weekday, hour_of_day
ORDER BY weekday, hour_of_day
