-- Visitors by cell (area, category, hour of a UTC day): who arrived in the hour, and who was present at its end. A visitor counts in
-- `cells` cells of the day at most: in those of an arrival first, then in those soonest after one, because the end of a long stay is
-- mostly assumed; between equals by a keyed hash. Nobody else's visits decide which.
SELECT area, category, hour, toInt64(countIf(arrived)) AS arrivals, toInt64(countIf(present)) AS occupancy
FROM
(
    SELECT
        visitor_id,
        area,
        category,
        {start:Int64} + 3600 * slot AS hour,
        max(toUnixTimestamp(checked_in_at) >= hour) AS arrived,
        max(left_at >= toDateTime64(hour + 3600, 3, 'UTC')) AS present,
        min(slot - first_slot) AS hours_since
    FROM
    (
        SELECT
            visitor_id,
            ifNull(v.area, '') AS area,
            if(v.category = '', 'unknown', v.category) AS category,
            checked_in_at,
            left_at,
            toInt64(intDiv(greatest(toInt64(toUnixTimestamp(checked_in_at)) - {start:Int64}, 0), 3600)) AS first_slot,
            greatest(intDiv(toInt64(toUnixTimestamp(left_at)) - {start:Int64}, 3600) - 1, first_slot) AS last_slot
        FROM visits
        LEFT JOIN (SELECT venue_id, area, category FROM venues) AS v USING (venue_id)
        WHERE checked_in_at >= toDateTime64({start:Int64} - 86400, 3, 'UTC')
            AND checked_in_at < toDateTime64({start:Int64} + 86400, 3, 'UTC')
            AND left_at >= toDateTime64({start:Int64}, 3, 'UTC')
    )
    ARRAY JOIN range(first_slot, least(last_slot, 23) + 1) AS slot
    GROUP BY visitor_id, area, category, slot
    HAVING arrived OR present
    ORDER BY visitor_id, arrived DESC, hours_since, sipHash64Keyed(({key_1:UInt64}, {key_2:UInt64}), area, category, slot)
    LIMIT {cells:UInt32} BY visitor_id
)
GROUP BY area, category, hour
