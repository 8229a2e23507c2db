-- The fold of the contract, section 2: visits of one slice of the venues, from the scans alone. Times are epoch milliseconds.
-- The state is (persons of the open visit, 0 for none; its start; the closed visits).
SELECT
    venue_id,
    visitor_id,
    visit.1 AS checked_in_at,
    visit.2 AS left_at,
    visit.3 AS ended_by,
    visit.4 AS party_size
FROM
(
    SELECT
        venue_id,
        visitor_id,
        transform(category, {categories:Array(String)}, {stays:Array(Int64)}, {unknown_stay:Int64}) AS stay,
        arrayFold(
            (state, scan) -> (
                multiIf(
                    scan.2 = 1, 0,
                    state.1 = 0 OR scan.1 >= state.2 + stay, scan.3,
                    state.1)::Int64,
                if(scan.2 = 0 AND (state.1 = 0 OR scan.1 >= state.2 + stay), scan.1, state.2),
                multiIf(
                    state.1 = 0, state.3,
                    scan.2 = 1 AND scan.1 - state.2 <= {hard_limit:Int64},
                    arrayPushBack(state.3, (state.2, scan.1, 'check_out', state.1)),
                    scan.2 = 1 OR scan.1 >= state.2 + stay,
                    arrayPushBack(state.3, (state.2, state.2 + stay, 'expired', state.1)),
                    state.3)
            ),
            scans_in_order,
            (0::Int64, 0::Int64, []::Array(Tuple(Int64, Int64, String, Int64)))
        ) AS folded,
        arrayJoin(if(
            folded.1 = 0,
            folded.3,
            arrayPushBack(
                folded.3,
                (folded.2, folded.2 + stay, if({as_of:Int64} >= folded.2 + stay, 'expired', 'open'), folded.1))
        )) AS visit
    FROM
    (
        SELECT
            venue_id,
            visitor_id,
            arraySort(groupArray((
                toUnixTimestamp64Milli(occurred_at), toUInt8(event_type = 'check_out'), toInt64(party_size)
            ))) AS scans_in_order
        FROM checkins.scans
        WHERE cityHash64(venue_id) % {slices:UInt64} = {slice:UInt64}
        GROUP BY venue_id, visitor_id
    ) AS pairs
    LEFT ANY JOIN checkins.venues AS registered USING (venue_id)
)
