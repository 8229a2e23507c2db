SELECT
    toUnixTimestamp(hour) AS at,
    arrivals,
    departures,
    mean_occupancy AS occupancy,
    peak,
    toNullable(minutes_over_capacity) AS minutes_over_capacity,
    toNullable(person_contact_minutes) AS person_contact_minutes,
    expected,
    low,
    high,
    check_out_share,
    model_version
FROM occupancy_hours
WHERE venue_id = {venue:String} AND hour >= toDateTime({since:Int64}, 'UTC') AND hour < toDateTime({until:Int64}, 'UTC')
ORDER BY hour
LIMIT {limit:UInt32}
