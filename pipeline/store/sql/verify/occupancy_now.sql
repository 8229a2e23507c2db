SELECT
    venue_id,
    sum(present) AS occupancy,
    any(registered.capacity) AS capacity,
    occupancy / capacity AS ratio,
    {as_of:Int64} AS as_of
FROM
(
    SELECT venue_id, if(checked_in_at <= {as_of:Int64} AND left_at > {as_of:Int64}, party_size, 0) AS present FROM counted
    UNION ALL
    SELECT DISTINCT venue_id, 0 AS present FROM checkins.scans WHERE cityHash64(venue_id) % {slices:UInt64} = {slice:UInt64}
    UNION ALL
    SELECT venue_id, 0 AS present FROM checkins.venues WHERE cityHash64(venue_id) % {slices:UInt64} = {slice:UInt64}
) AS people
LEFT ANY JOIN checkins.venues AS registered USING (venue_id)
GROUP BY venue_id
