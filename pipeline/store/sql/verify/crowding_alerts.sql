-- Of each venue and level the stretches at or over the upper threshold, and those under the lower one, that last long enough;
-- one of the first kind after none or one of the second raises, the next of the second kind clears.
WITH
    ruled AS
    (
        SELECT
            venue_id,
            toInt64(capacity) AS capacity,
            arrayJoin([1, 2]) AS number,
            {levels:Array(String)}[number] AS level,
            if(
                has({ruled_venues:Array(String)}, venue_id),
                {venue_rules:Array(Array(Int64))}[indexOf({ruled_venues:Array(String)}, venue_id)],
                {category_rules:Array(Array(Int64))}[indexOf({categories:Array(String)}, category)]
            ) AS rules,
            rules[4 * number - 3] AS raise_at,
            rules[4 * number - 2] AS raise_for,
            rules[4 * number - 1] AS clear_below,
            rules[4 * number] AS clear_for
        FROM checkins.venues
        WHERE capacity > 0
    ),
    steps AS
    (
        SELECT
            venue_id, level, capacity, raise_for, clear_for, at, until, persons,
            multiIf(persons * 1000 >= raise_at * capacity, 1, persons * 1000 < clear_below * capacity, -1, 0) AS band
        FROM
        (
            SELECT
                venue_id,
                instant AS at,
                leadInFrame(instant, 1, {as_of:Int64} + 1) OVER by_time AS until,
                persons,
                max(persons) OVER by_time AS most
            FROM instants
            WHERE instant <= {as_of:Int64}
            WINDOW by_time AS (PARTITION BY venue_id ORDER BY instant ASC ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
        ) AS curve
        INNER JOIN ruled USING (venue_id)
        WHERE most * 1000 >= raise_at * capacity
    ),
    stretches AS
    (
        SELECT venue_id, level, band, min(at) AS start, max(until) AS stop, start + if(band = 1, any(raise_for), any(clear_for)) AS turn
        FROM
        (
            SELECT *, sum(begins) OVER (PARTITION BY venue_id, level ORDER BY at ASC) AS stretch
            FROM
            (
                SELECT
                    *,
                    band != lagInFrame(band, 1, 0) OVER
                        (PARTITION BY venue_id, level ORDER BY at ASC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS begins
                FROM steps
            )
        )
        GROUP BY venue_id, level, stretch, band
        HAVING band != 0 AND turn <= least(stop, {as_of:Int64})
    ),
    turns AS
    (
        SELECT
            venue_id,
            level,
            band,
            turn,
            leadInFrame(turn, 1, 0) OVER
                (PARTITION BY venue_id, level ORDER BY start ASC ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS next_turn
        FROM
        (
            SELECT
                *,
                lagInFrame(band, 1, -1) OVER
                    (PARTITION BY venue_id, level ORDER BY start ASC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS previous
            FROM stretches
        )
        WHERE band != previous
    )
SELECT
    venue_id,
    level,
    turn AS raised_at,
    lower(hex(substring(SHA256(concat(venue_id, '|', level, '|', toString(raised_at))), 1, 8))) AS alert_id,
    nullIf(any(next_turn), 0) AS cleared_at,
    max(persons) AS peak,
    any(steps.capacity) AS capacity
FROM turns
INNER JOIN steps USING (venue_id, level)
WHERE turns.band = 1 AND until > turn AND (next_turn = 0 OR at < next_turn)
GROUP BY venue_id, level, turn
