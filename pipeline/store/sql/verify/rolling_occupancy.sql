SELECT
    venue_id,
    `window`,
    {window_end:Int64} AS window_end,
    arrivals,
    unique_visitors,
    peak,
    person_ms / width AS mean_occupancy,
    if(empty(dwells), NULL, (dwells[intDiv(length(dwells) + 1, 2)] + dwells[intDiv(length(dwells), 2) + 1]) / 120000) AS median_dwell_minutes
FROM
(
    SELECT
        venue_id,
        arrayJoin([('15m', 900000), ('60m', 3600000)]::Array(Tuple(String, Int64))) AS kind,
        kind.1 AS `window`,
        kind.2 AS width,
        {window_end:Int64} - width AS window_start,
        sumIf(party_size, checked_in_at >= window_start) AS arrivals,
        uniqExactIf(visitor_id, left_at > window_start AND left_at > checked_in_at) AS unique_visitors,
        arraySort(groupArrayIf(left_at - checked_in_at, left_at >= window_start AND left_at < {window_end:Int64})) AS dwells
    FROM counted
    GROUP BY venue_id, kind
    HAVING arrivals > 0 OR unique_visitors > 0 OR notEmpty(dwells)
) AS people
LEFT ANY JOIN
(
    SELECT venue_id, `window`, max(before) AS peak, sum(before * (until - start)) AS person_ms
    FROM
    (
        SELECT
            venue_id,
            before,
            arrayJoin([('15m', 900000), ('60m', 3600000)]::Array(Tuple(String, Int64))) AS kind,
            kind.1 AS `window`,
            greatest(since, {window_end:Int64} - kind.2) AS start,
            least(instant, {window_end:Int64}) AS until
        FROM instants
    )
    WHERE until > start
    GROUP BY venue_id, `window`
) AS presence USING (venue_id, `window`)
