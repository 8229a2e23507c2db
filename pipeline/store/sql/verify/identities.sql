SELECT venue_id, toUnixTimestamp64Milli(occurred_at) AS instant, toString(event_type) AS kind, count() AS copies
FROM checkins.scans
WHERE cityHash64(venue_id) % {slices:UInt64} = {slice:UInt64}
GROUP BY venue_id, visitor_id, kind, instant
