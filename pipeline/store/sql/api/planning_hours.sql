-- The hours that planning counts, as a subquery: `local_day` and `local_hour` on the venue's own clock.
SELECT
    venue_id,
    name,
    category,
    area,
    capacity,
    hour,
    toDateTime(toUnixTimestamp(hour) + 60 * transform(ifNull(timezone, ''), {zones:Array(String)}, {offsets:Array(Int32)}, 0), 'UTC')
        AS local_time,
    arrivals,
    peak,
    mean_occupancy,
    minutes_over_capacity,
    expected
FROM
(
    SELECT venue_id, hour, arrivals, peak, mean_occupancy, minutes_over_capacity, expected
    FROM occupancy_hours
    WHERE hour >= toDateTime({since:Int64}, 'UTC') AND hour < toDateTime({until:Int64}, 'UTC')
        AND ({venue:String} = '' OR venue_id = {venue:String})
) AS hours
INNER JOIN
(
    SELECT venue_id, name, category, area, capacity, timezone
    FROM venues
    WHERE capacity > 0
        AND ({area:String} = '' OR area = {area:String})
        AND ({category:String} = '' OR category = {category:String})
        AND ({venue:String} = '' OR venue_id = {venue:String})
) AS registered USING (venue_id)
