-- What is stored. Every row is either an element of a set or a versioned snapshot, so writing it twice is harmless:
-- AggregatingMergeTree keeps the winner of a scan's identity, whichever came first; ReplacingMergeTree the highest version.
-- Days are partitions, so that retention is the dropping of partitions, and so that FINAL never merges across them.

CREATE TABLE IF NOT EXISTS scan_set
(
    venue_id    String,
    visitor_id  String,
    event_type  Enum8('check_in' = 0, 'check_out' = 1),
    occurred_at DateTime64(3, 'UTC'),
    -- (−party_size, event_id, source): the smallest wins, that is the largest party, then the smallest event_id.
    winner      SimpleAggregateFunction(min, Tuple(Int16, String, String)),
    -- (version, topic, partition, offset) of the record that brought it first: while that offset is not accounted for, the
    -- record will be read again after a crash, and must not count as a duplicate of itself.
    origin      SimpleAggregateFunction(min, Tuple(UInt64, String, UInt32, Int64))
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(occurred_at)
ORDER BY (venue_id, visitor_id, occurred_at, event_type);

CREATE TABLE IF NOT EXISTS visit_rows
(
    venue_id      String,
    visitor_id    String,
    checked_in_at DateTime64(3, 'UTC'),
    left_at       DateTime64(3, 'UTC'),
    -- open: the newest check-in of its pair, without a check-out; the view says whether its automatic end has passed.
    ended         Enum8('check_out' = 0, 'expired' = 1, 'open' = 2),
    party_size    UInt8,
    version       UInt64,
    is_deleted    UInt8,
    INDEX by_version version TYPE minmax GRANULARITY 1,
    INDEX by_left left_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toDate(checked_in_at)
ORDER BY (venue_id, visitor_id, checked_in_at);

CREATE TABLE IF NOT EXISTS minute_rows
(
    venue_id   String,
    minute     DateTime('UTC'),
    arrivals   UInt32,
    departures UInt32,
    occupancy  UInt32,
    peak       UInt32,
    version    UInt64,
    is_deleted UInt8,
    INDEX by_version version TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toDate(minute)
ORDER BY (venue_id, minute);

-- Who is really there, at the end of the minute or as the mean of the hour; no model_version means no estimate.
ALTER TABLE minute_rows
    ADD COLUMN IF NOT EXISTS expected_tenths UInt32,
    ADD COLUMN IF NOT EXISTS low UInt32,
    ADD COLUMN IF NOT EXISTS high UInt32,
    ADD COLUMN IF NOT EXISTS share_thousandths UInt16,
    ADD COLUMN IF NOT EXISTS model_version LowCardinality(String);

CREATE TABLE IF NOT EXISTS hour_rows
(
    venue_id   String,
    hour       DateTime('UTC'),
    arrivals   UInt32,
    departures UInt32,
    peak       UInt32,
    area_ms    UInt64,
    over_ms    UInt32,
    contact_ms UInt64,
    version    UInt64,
    is_deleted UInt8,
    INDEX by_version version TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toDate(hour)
ORDER BY (venue_id, hour);

ALTER TABLE hour_rows
    ADD COLUMN IF NOT EXISTS expected_tenths UInt32,
    ADD COLUMN IF NOT EXISTS low UInt32,
    ADD COLUMN IF NOT EXISTS high UInt32,
    ADD COLUMN IF NOT EXISTS share_thousandths UInt16,
    ADD COLUMN IF NOT EXISTS model_version LowCardinality(String);

CREATE TABLE IF NOT EXISTS rolling_rows
(
    venue_id        String,
    width           UInt8,
    window_end      DateTime('UTC'),
    arrivals        UInt32,
    unique_visitors UInt32,
    peak            UInt32,
    area_ms         UInt64,
    dwell_sum_ms    Nullable(UInt64),
    version         UInt64,
    is_deleted      UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (venue_id, width);

CREATE TABLE IF NOT EXISTS now_rows
(
    venue_id  String,
    occupancy UInt32,
    version   UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY venue_id;

-- What a model of presence makes of the open visits: who is really there at the end of the last full minute, and a 90 % interval.
-- A venue of whose category the model knows too little has no row.
CREATE TABLE IF NOT EXISTS estimate_rows
(
    venue_id        String,
    expected        Nullable(Float64),
    low             Nullable(UInt32),
    high            Nullable(UInt32),
    check_out_share Nullable(Float64),
    model_version   Nullable(String),
    version         UInt64,
    is_deleted      UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY venue_id;

-- Crowding alerts; one that a late scan has taken back is deleted. `alert_id` follows from the key.
CREATE TABLE IF NOT EXISTS alert_rows
(
    venue_id   String,
    level      Enum8('warning' = 0, 'critical' = 1),
    raised_at  DateTime64(3, 'UTC'),
    alert_id   String,
    cleared_at Nullable(DateTime64(3, 'UTC')),
    peak       UInt32,
    capacity   UInt32,
    version    UInt64,
    is_deleted UInt8,
    INDEX by_version version TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toDate(raised_at)
ORDER BY (venue_id, level, raised_at);

-- Up to which version rows of `alert_rows` have been told to Kafka, by partition; ('', 0) of an embedded store.
CREATE TABLE IF NOT EXISTS told_rows
(
    topic     String,
    partition UInt32,
    version   UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (topic, partition);

-- Closed hours in which far fewer came to a venue than at the same hour of the same weekday before.
CREATE TABLE IF NOT EXISTS undercount_rows
(
    venue_id   String,
    hour       DateTime('UTC'),
    arrivals   UInt32,
    expected   Float64,
    fewest     Float64,
    weeks      UInt8,
    version    UInt64,
    is_deleted UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toDate(hour)
ORDER BY (venue_id, hour);

-- Models of presence, each with what it was made from; never changed. `body` and `figures` are JSON.
CREATE TABLE IF NOT EXISTS model_rows
(
    model_version String,
    made_at       DateTime64(3, 'UTC'),
    first_day     Nullable(Date),
    last_day      Nullable(Date),
    body          String,
    figures       String,
    version       UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY model_version;

-- Which model holds for the event times from `since` (on an hour) on: of those said to, the one of the highest version. An empty
-- model_version means none.
CREATE TABLE IF NOT EXISTS model_use_rows
(
    model_version String,
    since         DateTime64(3, 'UTC'),
    version       UInt64
)
ENGINE = MergeTree
ORDER BY version;

ALTER TABLE model_use_rows ADD COLUMN IF NOT EXISTS said_at DateTime64(3, 'UTC') DEFAULT since;

-- Up to which of these uses (its version) the estimates of a partition's venues are made; an embedded store has one row for all.
CREATE TABLE IF NOT EXISTS model_applied_rows
(
    topic     String,
    partition UInt32,
    number    UInt64,
    version   UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (topic, partition);

-- Which partition a venue's scans come in: whoever takes the partition over loads the venue.
CREATE TABLE IF NOT EXISTS venue_rows
(
    venue_id  String,
    topic     String,
    partition UInt32,
    version   UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY venue_id;

CREATE TABLE IF NOT EXISTS registry_rows
(
    venue_id             String,
    name                 String,
    category             String,
    capacity             Nullable(UInt32),
    area                 Nullable(String),
    latitude             Nullable(Float64),
    longitude            Nullable(Float64),
    timezone             Nullable(String),
    air_changes_per_hour Nullable(Float64),
    floor_area_m2        Nullable(Float64),
    version              UInt64,
    is_deleted           UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY venue_id;

CREATE TABLE IF NOT EXISTS dead_letter_rows
(
    topic       String,
    partition   UInt32,
    offset      Int64,
    reason      LowCardinality(String),
    detail      String,
    sha256      String,
    received_at DateTime64(3, 'UTC'),
    version     UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (topic, partition, offset);

-- Written last, with each write: up to where each partition is stored and accounted for, and the clock.
-- `durable`: derived rows with a higher version belong to a write that did not end; whoever takes over computes them again.
CREATE TABLE IF NOT EXISTS progress_rows
(
    topic         String,
    partition     UInt32,
    next_offset   Int64,
    consumed      UInt64,
    accepted      UInt64,
    stored        UInt64,
    duplicates    UInt64,
    dead_lettered UInt64,
    newest        DateTime64(3, 'UTC'),
    watermark     DateTime64(3, 'UTC'),
    as_of         DateTime64(3, 'UTC'),
    mode          LowCardinality(String),
    durable       UInt64,
    version       UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (topic, partition);

-- Corrections to be made from the store, because memory does not reach back so far: written before the scan that asks for it,
-- deleted when done. An empty visitor_id stands for the whole venue (its max stay or its capacity changed).
CREATE TABLE IF NOT EXISTS repair_rows
(
    venue_id   String,
    visitor_id String,
    version    UInt64,
    is_deleted UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (venue_id, visitor_id);
