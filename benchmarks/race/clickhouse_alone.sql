-- The job as a batch: the file, judged and read in SQL, folded in SQL, counted in SQL.

CREATE TABLE scans ENGINE = MergeTree ORDER BY (venue, visitor, at, kind) AS
SELECT
    record.venue_id::String AS venue,
    record.visitor_id::String AS visitor,
    toUnixTimestamp64Milli(occurred_at)::Int64 AS at,
    (record.event_type = 'check_out')::UInt8 AS kind,
    -- Of two with one identity the larger party comes first, and the fold takes the first.
    -max(persons)::Int64 AS negative_persons,
    count() AS lines
FROM
(
    SELECT
        JSONExtract(
            line, 'Tuple(event_id String, event_type String, venue_id String, visitor_id String, occurred_at String, source String)'
        ) AS record,
        parseDateTime64BestEffortOrNull(record.occurred_at, 3, 'UTC') AS occurred_at,
        if(JSONHas(line, 'party_size'), JSONExtractInt(line, 'party_size'), 1) AS persons
    FROM file({file:String}, 'LineAsString')
    -- Numbers would be taken for text, and text for numbers.
    WHERE length(line) <= 65536
        AND isValidUTF8(line)
        AND isValidJSON(line)
        AND JSONType(line, 'event_id') = 'String'
        AND JSONType(line, 'venue_id') = 'String'
        AND JSONType(line, 'visitor_id') = 'String'
        AND JSONType(line, 'occurred_at') = 'String'
        AND (NOT JSONHas(line, 'party_size') OR JSONType(line, 'party_size') IN ('Int64', 'UInt64'))
)
WHERE record.event_type IN ('check_in', 'check_out')
    AND persons BETWEEN 1 AND 50
    AND match(record.event_id, '^[A-Za-z0-9._:-]{1,64}$')
    AND match(record.venue_id, '^[A-Za-z0-9._:-]{1,64}$')
    AND match(record.visitor_id, '^[A-Za-z0-9._:-]{1,64}$')
    AND match(record.source, '^[A-Za-z0-9._:-]{0,32}$')
    AND match(record.occurred_at, '^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$')
    AND occurred_at IS NOT NULL
GROUP BY venue, visitor, at, kind;

-- The state of the fold: (persons of the open visit, 0 for none; its start; the closed visits).
CREATE TABLE visits ENGINE = MergeTree ORDER BY (venue, visitor, start) AS
WITH (SELECT max(at) FROM scans) AS as_of
SELECT
    venue,
    visitor,
    visit.1 AS start,
    visit.2 AS left,
    visit.3 AS ended,
    visit.4 AS persons
FROM
(
    SELECT
        venue,
        visitor,
        arrayFold(
            (state, scan) -> (
                multiIf(scan.2 = 1, 0, state.1 = 0 OR scan.1 >= state.2 + {stay:Int64}, -scan.3, state.1)::Int64,
                if(scan.2 = 0 AND (state.1 = 0 OR scan.1 >= state.2 + {stay:Int64}), scan.1, state.2),
                multiIf(
                    state.1 = 0, state.3,
                    scan.2 = 1 AND scan.1 - state.2 <= {hard_limit:Int64},
                    arrayPushBack(state.3, (state.2, scan.1, 'check_out', state.1)),
                    scan.2 = 1 OR scan.1 >= state.2 + {stay:Int64},
                    arrayPushBack(state.3, (state.2, state.2 + {stay:Int64}, 'expired', state.1)),
                    state.3)
            ),
            arraySort(groupArray((at, kind, negative_persons))),
            (0::Int64, 0::Int64, []::Array(Tuple(Int64, Int64, String, Int64)))
        ) AS folded,
        arrayJoin(if(
            folded.1 = 0,
            folded.3,
            arrayPushBack(folded.3, (
                folded.2,
                folded.2 + {stay:Int64},
                if(as_of >= folded.2 + {stay:Int64}, 'expired', 'open'),
                folded.1))
        )) AS visit
    FROM scans
    GROUP BY venue, visitor
);

CREATE TABLE minutes ENGINE = MergeTree ORDER BY (venue, minute) AS
WITH (SELECT max(at) FROM scans) AS as_of
SELECT
    venue,
    minute,
    sum(came) AS arrivals,
    sum(went) AS departures,
    sum(arrivals - departures) OVER (PARTITION BY venue ORDER BY minute ASC ROWS UNBOUNDED PRECEDING) AS occupancy
FROM
(
    SELECT venue, intDiv(start, 60000) AS minute, persons AS came, 0 AS went FROM visits
    UNION ALL
    SELECT venue, intDiv(left, 60000) AS minute, 0 AS came, persons AS went FROM visits WHERE left <= as_of
)
GROUP BY venue, minute;
