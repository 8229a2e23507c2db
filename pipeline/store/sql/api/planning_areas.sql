-- By area: how much room its busiest hours leave. Of every twenty hours with anybody, nineteen are at or below the 95 %.
WITH hours AS ({{planning_hours}})
SELECT
    area,
    count() AS venues,
    sum(room) AS capacity,
    any(busy) AS p95_people,
    any(busy_expected) AS p95_expected,
    1 - p95_people / capacity AS headroom_ratio,
    sum(over) AS minutes_over_capacity
FROM
(
    SELECT ifNull(area, '') AS area, venue_id, any(capacity) AS room, sum(minutes_over_capacity) AS over
    FROM hours
    GROUP BY area, venue_id
) AS by_venue
INNER JOIN
(
    SELECT area, quantileExact(0.95)(people) AS busy, if(sum(estimates) > 0, quantileExact(0.95)(expected_people), NULL) AS busy_expected
    FROM
    (
        SELECT
            ifNull(area, '') AS area,
            hour,
            sum(mean_occupancy) AS people,
            sum(ifNull(expected, mean_occupancy)) AS expected_people,
            count(expected) AS estimates
        FROM hours
        GROUP BY area, hour
    )
    GROUP BY area
) AS by_hour USING (area)
GROUP BY area
ORDER BY headroom_ratio, area
LIMIT 1000
