-- What lasts, newest first, then what was cleared last: so many of each.
SELECT
    alert_id,
    venue_id,
    level,
    toUnixTimestamp64Milli(toDateTime64(crowding_alerts.raised_at, 3, 'UTC')) AS raised_at,
    toUnixTimestamp64Milli(toDateTime64(crowding_alerts.cleared_at, 3, 'UTC')) AS cleared_at,
    peak,
    capacity
FROM crowding_alerts
WHERE crowding_alerts.cleared_at IS NULL OR crowding_alerts.cleared_at >= fromUnixTimestamp64Milli({since:Int64})
ORDER BY cleared_at IS NOT NULL, coalesce(cleared_at, raised_at) DESC, alert_id
LIMIT {limit:UInt32} BY cleared_at IS NULL
