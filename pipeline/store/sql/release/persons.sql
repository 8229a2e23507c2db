-- Persons who arrived on a UTC day, by hour, area and category, and the visitors they came with; NULL: all areas, or categories.
SELECT
    area,
    category,
    toUnixTimestamp(toStartOfHour(checked_in_at)) AS hour,
    sum(toInt64(party_size)) AS persons,
    toInt64(uniqExact(visitor_id)) AS visitors
FROM
(
    SELECT checked_in_at, visitor_id, party_size, ifNull(v.area, '') AS area, if(v.category = '', 'unknown', v.category) AS category
    FROM visits
    LEFT JOIN (SELECT venue_id, area, category FROM venues) AS v USING (venue_id)
    WHERE checked_in_at >= toDateTime64({start:Int64}, 3, 'UTC') AND checked_in_at < toDateTime64({start:Int64} + 86400, 3, 'UTC')
)
GROUP BY GROUPING SETS ((hour, area, category), (hour, area), (hour, category), (hour))
SETTINGS group_by_use_nulls = 1
