-- The public views: final, deduplicated state. The first two are for the others and for `pipeline verify`.

CREATE OR REPLACE VIEW clock AS
SELECT argMax(mode, version) AS mode, max(as_of) AS as_of
FROM progress_rows FINAL;

CREATE OR REPLACE VIEW accounting AS
SELECT topic, partition, next_offset, consumed, accepted, stored, duplicates, dead_lettered
FROM progress_rows FINAL;

-- What retention has cut, and how many scans were removed by it and by erasures.
CREATE OR REPLACE VIEW retention AS
SELECT
    (SELECT max(kept_from) FROM retention_rows) AS kept_from,
    (SELECT max(closed_before) FROM retention_rows) AS closed_before,
    (SELECT sum(scans) FROM removed_rows FINAL) AS scans_removed;

CREATE OR REPLACE VIEW venues AS
SELECT venue_id, name, category, capacity, area, latitude, longitude, timezone, air_changes_per_hour, floor_area_m2
FROM registry_rows FINAL;

CREATE OR REPLACE VIEW scans AS
SELECT
    winner.2 AS event_id,
    event_type,
    venue_id,
    visitor_id,
    occurred_at,
    toUInt8(-winner.1) AS party_size,
    winner.3 AS source
FROM scan_set FINAL;

CREATE OR REPLACE VIEW visits AS
SELECT
    venue_id,
    visitor_id,
    checked_in_at,
    left_at,
    multiIf(ended != 'open', toString(ended), left_at <= (SELECT as_of FROM clock), 'expired', 'open') AS ended_by,
    party_size
FROM visit_rows FINAL;

CREATE OR REPLACE VIEW occupancy_minutes AS
SELECT
    venue_id,
    minute,
    arrivals,
    departures,
    occupancy,
    peak,
    if(r.model_version = '', NULL, r.expected_tenths / 10) AS expected,
    if(r.model_version = '', NULL, r.low) AS low,
    if(r.model_version = '', NULL, r.high) AS high,
    if(r.model_version = '', NULL, r.share_thousandths / 1000) AS check_out_share,
    CAST(nullIf(r.model_version, ''), 'Nullable(String)') AS model_version
FROM minute_rows AS r FINAL;

CREATE OR REPLACE VIEW occupancy_hours AS
SELECT
    venue_id,
    hour,
    arrivals,
    departures,
    area_ms / 3600000 AS mean_occupancy,
    peak,
    over_ms / 60000 AS minutes_over_capacity,
    contact_ms / 60000 AS person_contact_minutes,
    if(r.model_version = '', NULL, r.expected_tenths / 10) AS expected,
    if(r.model_version = '', NULL, r.low) AS low,
    if(r.model_version = '', NULL, r.high) AS high,
    if(r.model_version = '', NULL, r.share_thousandths / 1000) AS check_out_share,
    CAST(nullIf(r.model_version, ''), 'Nullable(String)') AS model_version
FROM hour_rows AS r FINAL;

CREATE OR REPLACE VIEW rolling_occupancy AS
SELECT
    venue_id,
    concat(toString(width), 'm') AS `window`,
    window_end,
    arrivals,
    unique_visitors,
    peak,
    area_ms / (width * 60000) AS mean_occupancy,
    dwell_sum_ms / 120000 AS median_dwell_minutes,
    expected,
    low,
    high,
    check_out_share,
    model_version
FROM rolling_rows FINAL
LEFT JOIN (SELECT venue_id, expected, low, high, check_out_share, model_version FROM estimate_rows FINAL) AS estimated
    USING (venue_id);

CREATE OR REPLACE VIEW occupancy_now AS
SELECT
    coalesce(nullIf(counted.venue_id, ''), registered.venue_id) AS venue_id,
    counted.occupancy AS occupancy,
    registered.capacity AS capacity,
    occupancy / capacity AS ratio,
    (SELECT as_of FROM clock) AS as_of,
    counted.expected AS expected,
    counted.low AS low,
    counted.high AS high,
    counted.check_out_share AS check_out_share,
    counted.model_version AS model_version
FROM
(
    SELECT venue_id, occupancy, expected, low, high, check_out_share, model_version
    FROM now_rows FINAL
    LEFT JOIN (SELECT venue_id, expected, low, high, check_out_share, model_version FROM estimate_rows FINAL) AS estimated
        USING (venue_id)
) AS counted
FULL JOIN (SELECT venue_id, capacity FROM registry_rows FINAL) AS registered ON counted.venue_id = registered.venue_id;

-- A closed day's known check-outs, hidden and predicted: share of cells (a venue at a full hour) whose 90 % interval held who was
-- there, and too many (+) or too few (−) predicted. Null where there is too little evidence.
CREATE OR REPLACE VIEW model_checks AS
SELECT
    day,
    model_version,
    category,
    visits,
    cells,
    held / nullIf(cells, 0) AS coverage,
    predicted / nullIf(there, 0) - 1 AS bias,
    drift,
    stay_ratio,
    check_outs / nullIf(visits, 0) AS check_out_share,
    expected_check_outs / nullIf(visits, 0) AS expected_check_out_share,
    checked_at
FROM model_check_rows FINAL;

CREATE OR REPLACE VIEW crowding_alerts AS
SELECT alert_id, venue_id, toString(level) AS level, raised_at, cleared_at, peak, capacity
FROM alert_rows FINAL;

CREATE OR REPLACE VIEW undercounts AS
SELECT venue_id, hour, arrivals, expected, fewest, weeks
FROM undercount_rows FINAL;

CREATE OR REPLACE VIEW dead_letters AS
SELECT topic, partition, offset, reason, detail, sha256, received_at
FROM dead_letter_rows FINAL;

CREATE OR REPLACE VIEW cases AS
SELECT case_id, visitor_id, infectious_from, infectious_until, policy, status, reported_at, policy_version
FROM case_rows FINAL;

CREATE OR REPLACE VIEW exposures AS
SELECT
    case_id,
    visitor_id,
    venue_id,
    overlap_from,
    overlap_until,
    middle_ms / 60000 AS minutes,
    low_ms / 60000 AS minutes_low,
    high_ms / 60000 AS minutes_high,
    cumulative_ms / 60000 AS cumulative_minutes,
    tier,
    policy,
    policy_version,
    tier_low,
    tier_high,
    tier_basis,
    party_size,
    case_checked_in_at,
    checked_in_at,
    exposure_id
FROM exposure_rows FINAL;

CREATE OR REPLACE VIEW venue_warnings AS
SELECT
    venue_id,
    warn_from,
    warn_until,
    case_count,
    policy,
    warning_id
FROM warning_rows FINAL;

-- Persons who arrived, rounded; NULL as area or category: all of them; NULL as arrivals: hidden.
CREATE OR REPLACE VIEW released_suppressed AS
SELECT figure.1 AS hour, figure.2 AS area, figure.3 AS category, figure.4 AS arrivals
FROM
(
    SELECT arrayJoin(arrayZip(r.hour, r.area, r.category, r.arrivals)) AS figure
    FROM release_rows AS r FINAL
    WHERE kind = 'suppressed'
);

-- Visitors, with noise: negative numbers are right, and sums of cells unbiased.
CREATE OR REPLACE VIEW released_private AS
SELECT
    figure.1 AS hour,
    assumeNotNull(figure.2) AS area,
    assumeNotNull(figure.3) AS category,
    assumeNotNull(figure.4) AS arrivals,
    assumeNotNull(figure.5) AS occupancy
FROM
(
    SELECT arrayJoin(arrayZip(r.hour, r.area, r.category, r.arrivals, r.occupancy)) AS figure
    FROM release_rows AS r FINAL
    WHERE kind = 'private'
);

-- The ledger: what each day's release with noise has spent of its privacy budget.
CREATE OR REPLACE VIEW privacy_budget AS
SELECT day, epsilon, drawn_at, method, sha256
FROM release_rows FINAL
WHERE kind = 'private';
