-- Every instant at which the number of persons at a venue may change, all arrivals and departures of it together:
-- `persons` are present from it on, `before` were present on [since, instant).
SELECT
    venue_id,
    instant,
    arrivals,
    departures,
    sum(change) OVER by_time AS persons,
    persons - change AS before,
    lagInFrame(instant, 1, instant) OVER by_time AS since
FROM
(
    SELECT
        venue_id,
        event.1 AS instant,
        sum(event.2) AS arrivals,
        sumIf(event.3, instant <= {as_of:Int64}) AS departures,
        sum(event.2 - event.3) AS change
    FROM
    (
        SELECT
            venue_id,
            arrayJoin([(checked_in_at, party_size, 0), (left_at, 0, party_size)]::Array(Tuple(Int64, Int64, Int64))) AS event
        FROM counted
    )
    GROUP BY venue_id, instant
)
WINDOW by_time AS (PARTITION BY venue_id ORDER BY instant ASC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
