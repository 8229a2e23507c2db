SELECT
    venue_id,
    instant - positiveModulo(instant, 60000) AS minute,
    sum(i.arrivals) AS arrivals,
    sum(i.departures) AS departures,
    argMax(persons, instant) AS occupancy,
    max(if(instant > minute, greatest(persons, before), persons)) AS peak
FROM instants AS i
GROUP BY venue_id, minute
HAVING arrivals > 0 OR departures > 0
