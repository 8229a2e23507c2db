SELECT
    alert_id,
    venue_id,
    level,
    toUnixTimestamp64Milli(toDateTime64(crowding_alerts.raised_at, 3, 'UTC')) AS raised_at,
    toUnixTimestamp64Milli(toDateTime64(crowding_alerts.cleared_at, 3, 'UTC')) AS cleared_at,
    peak,
    capacity
FROM crowding_alerts
WHERE (NOT {active:UInt8} OR cleared_at IS NULL)
    AND ({venue:String} = '' OR venue_id = {venue:String})
    AND ({before:Int64} < 0 OR (toUnixTimestamp64Milli(toDateTime64(crowding_alerts.raised_at, 3, 'UTC')), alert_id) < ({before:Int64}, {before_id:String}))
ORDER BY raised_at DESC, alert_id DESC
LIMIT {limit:UInt32}
