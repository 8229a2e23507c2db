SELECT venue_id, toUnixTimestamp(minute) AS minute, occupancy
FROM occupancy_minutes
WHERE venue_id IN {venues:Array(String)} AND minute >= toDateTime({since:Int64}, 'UTC')
ORDER BY venue_id, minute
