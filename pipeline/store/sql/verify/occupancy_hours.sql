SELECT
    venue_id,
    part.1 AS hour,
    sum(part.2) AS arrivals,
    sum(part.3) AS departures,
    sum(part.4 * part.5) / 3600000 AS mean_occupancy,
    max(part.4) AS peak,
    sumIf(part.5, part.4 > capacity) / 60000 AS minutes_over_capacity,
    sum(intDiv(part.4 * (part.4 - 1), 2) * part.5) / 60000 AS person_contact_minutes
FROM
(
    -- (hour, arrivals, departures, persons, for how many milliseconds): the change itself, and the time that led up to it.
    SELECT
        venue_id,
        arrayJoin(arrayConcat(
            [(instant - positiveModulo(instant, 3600000), arrivals, departures, 0, 0)]::Array(Tuple(Int64, Int64, Int64, Int64, Int64)),
            arrayMap(
                start -> (
                    start, 0, 0, before, least(instant, start + 3600000) - greatest(since, start)
                )::Tuple(Int64, Int64, Int64, Int64, Int64),
                if(before = 0, [], range(since - positiveModulo(since, 3600000), instant, 3600000)))
        )) AS part
    FROM instants
) AS parts
LEFT ANY JOIN checkins.venues AS registered USING (venue_id)
GROUP BY venue_id, hour
HAVING arrivals > 0 OR departures > 0 OR (mean_occupancy > 0 AND hour <= {as_of:Int64})
