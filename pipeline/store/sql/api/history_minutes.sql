SELECT
    toUnixTimestamp(minute) AS at,
    arrivals,
    departures,
    toFloat64(occupancy) AS occupancy,
    peak,
    CAST(NULL, 'Nullable(Float64)') AS minutes_over_capacity,
    CAST(NULL, 'Nullable(Float64)') AS person_contact_minutes,
    expected,
    low,
    high,
    check_out_share,
    model_version
FROM occupancy_minutes
WHERE venue_id = {venue:String} AND minute >= toDateTime({since:Int64}, 'UTC') AND minute < toDateTime({until:Int64}, 'UTC')
ORDER BY minute
LIMIT {limit:UInt32}
