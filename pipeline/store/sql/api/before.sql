-- The newest row before a moment: an occupancy holds until the next change, and no stay is longer than 24 hours.
SELECT occupancy
FROM occupancy_minutes
WHERE venue_id = {venue:String}
    AND minute < toDateTime({since:Int64}, 'UTC')
    AND minute >= toDateTime({since:Int64} - 86400, 'UTC')
ORDER BY minute DESC
LIMIT 1
