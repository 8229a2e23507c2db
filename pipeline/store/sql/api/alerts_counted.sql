SELECT
    countIf(cleared_at IS NULL) AS raised,
    countIf(cleared_at IS NULL AND level = 'critical') AS critical,
    countIf(cleared_at >= fromUnixTimestamp64Milli({since:Int64})) AS cleared
FROM crowding_alerts
