-- Visits to some venues that began in [since, until) (ms), each until a scan closes it: its check-out, or the same visitor's next
-- check-in there; automatic ends do not count. `closed` is the largest integer where no scan does.
SELECT
    venue_id,
    toUnixTimestamp64Milli(checked_in_at) AS start,
    least(
        if(ended_by = 'check_out', toUnixTimestamp64Milli(left_at), toInt64(9223372036854775807)),
        leadInFrame(toUnixTimestamp64Milli(checked_in_at), 1, toInt64(9223372036854775807)) OVER (
            PARTITION BY venue_id, visitor_id ORDER BY checked_in_at ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
        )
    ) AS closed,
    party_size AS party
FROM checkins.visits
WHERE venue_id IN {venues:Array(String)}
    AND checked_in_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND checked_in_at < fromUnixTimestamp64Milli({until:Int64}, 'UTC')
ORDER BY venue_id, start
