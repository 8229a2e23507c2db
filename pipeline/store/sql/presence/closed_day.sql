-- The visits that began on one UTC day, each with the same visitor's next check-in elsewhere within the day after.
-- Times of day are local to the venue; durations in whole minutes; -1 where there is none.
SELECT
    visit.2 AS venue_id,
    visit.3 AS category,
    toInt32((intDiv(visit.1, 60000) + visit.4) % 1440) AS arrival_minute,
    if(visit.6, toInt32(intDiv(visit.5 - visit.1, 60000)), -1) AS dwell,
    if(following.1 > 0, toInt32(intDiv(following.1 - visit.1, 60000)), -1) AS next_in,
    following.3 AS next_category
FROM
(
    SELECT
        arraySort(groupArray((
            toUnixTimestamp64Milli(checked_in_at),
            visited.venue_id,
            if(registered.category = '', 'unknown', registered.category),
            transform(coalesce(registered.timezone, ''), {zones:Array(String)}, {offsets:Array(Int64)}, toInt64(0)),
            toUnixTimestamp64Milli(left_at),
            ended_by = 'check_out'
        ))) AS path
    FROM checkins.visits AS visited
    LEFT ANY JOIN checkins.venues AS registered ON visited.venue_id = registered.venue_id
    WHERE checked_in_at >= toDateTime64({day:Date}, 3, 'UTC')
        AND checked_in_at < toDateTime64({day:Date} + 2, 3, 'UTC')
        AND cityHash64(visitor_id) % {slices:UInt64} = {slice:UInt64}
    GROUP BY visitor_id
)
ARRAY JOIN
    path AS visit,
    arrayMap(each -> arrayFirst(other -> other.1 > each.1 AND other.2 != each.2, path), path) AS following
WHERE visit.1 < toUnixTimestamp64Milli(toDateTime64({day:Date} + 1, 3, 'UTC'))
