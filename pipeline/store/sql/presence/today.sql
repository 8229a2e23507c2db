-- Today's visits with a check-out so far, at venues whose clocks are {offset} minutes ahead of UTC; today begins at their midnight,
-- {midnight} (ms). Times of day are local; durations in whole minutes.
SELECT
    visited.venue_id AS venue_id,
    toInt32(intDiv(toUnixTimestamp64Milli(checked_in_at) - {midnight:Int64}, 60000)) AS arrival_minute,
    toInt32(intDiv(toUnixTimestamp64Milli(left_at) - toUnixTimestamp64Milli(checked_in_at), 60000)) AS dwell
FROM checkins.visits AS visited
LEFT ANY JOIN checkins.venues AS registered ON visited.venue_id = registered.venue_id
WHERE ended_by = 'check_out'
    AND checked_in_at >= fromUnixTimestamp64Milli({midnight:Int64}, 'UTC')
    AND left_at <= fromUnixTimestamp64Milli({now:Int64}, 'UTC')
    AND transform(coalesce(registered.timezone, ''), {zones:Array(String)}, {offsets:Array(Int64)}, toInt64(0)) = {offset:Int64}
