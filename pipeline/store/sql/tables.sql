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

-- The max stay that the stored visits of a partition's venues follow (JSON, ms by category); an embedded store has one row for all.
CREATE TABLE IF NOT EXISTS stay_rows
(
    topic     String,
    partition UInt32,
    stays     String,
    version   UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (topic, partition);

-- What a closed day says of the model that was in force for it, by category; sums, as `Checked` has them.
CREATE TABLE IF NOT EXISTS model_check_rows
(
    day                 Date,
    model_version       String,
    category            String,
    visits              UInt64,
    check_outs          UInt64,
    expected_check_outs Float64,
    cells               UInt64,
    held                UInt64,
    predicted           Float64,
    there               Float64,
    drift               Nullable(Float64),
    stay_ratio          Nullable(Float64),
    checked_at          DateTime64(3, 'UTC'),
    version             UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (day, model_version, category);

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

-- Where in Kafka's topic the record stands; partition -1 for one from a file, or of an older release.
ALTER TABLE registry_rows
    ADD COLUMN IF NOT EXISTS partition Int32 DEFAULT -1,
    ADD COLUMN IF NOT EXISTS offset Int64 DEFAULT -1,
    ADD COLUMN IF NOT EXISTS timestamp_ms Int64;

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

-- The registry's version whose rules the rows of the partition's venues follow: whoever takes over makes up for newer ones.
-- −1: not noted, by an older release.
ALTER TABLE progress_rows ADD COLUMN IF NOT EXISTS rules Int64 DEFAULT -1;

-- Takeovers of partitions on a server. Rows of their venues with a version of at least `durable` and under `version`, the heir's first,
-- are of writes that did not end. They may come in after the heir has looked, so every later heir looks again.
CREATE TABLE IF NOT EXISTS takeover_rows
(
    topic     String,
    partition UInt32,
    durable   UInt64,
    version   UInt64
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, partition, version);

-- Which record of the registry the rows of a venue follow (pipeline/store/followed.py). Whoever takes over makes up for another one.
CREATE TABLE IF NOT EXISTS followed_rows
(
    venue_id String,
    record   UInt64,
    version  UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY venue_id;

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

-- The same, asked of whoever owns the venue by others: retention and erasures. Apart from those above, because workers number their
-- writes by epochs of their own: here each request beats what was said before it, and an answer carries the version of its request.
CREATE TABLE IF NOT EXISTS asked_rows
(
    venue_id   String,
    visitor_id String,
    version    UInt64,
    is_deleted UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (venue_id, visitor_id);

-- A case's own visits are looked up by its visitor, days back and at any venue.
ALTER TABLE visit_rows ADD INDEX IF NOT EXISTS by_visitor visitor_id TYPE bloom_filter(0.01) GRANULARITY 1;

-- Case reports are a set as scans are: whichever comes first, the newest (then the larger canonical JSON) of a case holds.
CREATE TABLE IF NOT EXISTS report_set
(
    case_id   String,
    -- (reported_at in ms, canonical JSON)
    newest    SimpleAggregateFunction(max, Tuple(Int64, String)),
    -- Of the topic case-reports: its owner traces the case.
    partition SimpleAggregateFunction(max, UInt32)
)
ENGINE = AggregatingMergeTree
ORDER BY case_id;

-- Up to where each partition of case-reports is stored.
CREATE TABLE IF NOT EXISTS report_offset_rows
(
    partition   UInt32,
    next_offset Int64
)
ENGINE = ReplacingMergeTree(next_offset)
ORDER BY partition;

-- A case as it was traced last: written after everything that followed from it, so one whose `report` is not the newest of
-- report_set is still to be traced.
CREATE TABLE IF NOT EXISTS case_rows
(
    case_id          String,
    visitor_id       String,
    infectious_from  DateTime64(3, 'UTC'),
    infectious_until DateTime64(3, 'UTC'),
    policy           LowCardinality(String),
    policy_version   LowCardinality(String),
    status           LowCardinality(String),
    reported_at      DateTime64(3, 'UTC'),
    report           String,
    version          UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY case_id;

-- One pair of visits. `version` rises with each insert for its case, and says in its last 20 bits who made it (the lane), so what is
-- newer than `published_rows` says of that lane is still to be published: this table is the outbox of the topic exposures too,
-- deletions included.
CREATE TABLE IF NOT EXISTS exposure_rows
(
    case_id            String,
    venue_id           String,
    checked_in_at      DateTime64(3, 'UTC'),
    visitor_id         String,
    case_checked_in_at DateTime64(3, 'UTC'),
    policy             LowCardinality(String),
    policy_version     LowCardinality(String),
    overlap_from       DateTime64(3, 'UTC'),
    overlap_until      DateTime64(3, 'UTC'),
    middle_ms          Int64,
    low_ms             Int64,
    high_ms            Int64,
    cumulative_ms      Int64,
    tier               LowCardinality(String),
    tier_low           LowCardinality(String),
    tier_high          LowCardinality(String),
    -- exact, or the policy's word for how it treats visits without a check-out.
    tier_basis         LowCardinality(String),
    party_size         UInt8,
    version            UInt64,
    is_deleted         UInt8,
    exposure_id        String ALIAS lower(hex(substring(SHA256(arrayStringConcat(
        [case_id, visitor_id, venue_id, toString(toUnixTimestamp64Milli(case_checked_in_at)),
         toString(toUnixTimestamp64Milli(checked_in_at)), toString(policy)], '\0')), 1, 8)))
)
ENGINE = ReplacingMergeTree(version, is_deleted)
-- By week: cut into days, a pass's rows take half as long again to store.
PARTITION BY toMonday(checked_in_at)
ORDER BY (case_id, venue_id, checked_in_at, visitor_id, case_checked_in_at, policy);

-- When a case was at a venue, in the eyes of its policy: what warnings are made of.
CREATE TABLE IF NOT EXISTS interval_rows
(
    case_id       String,
    venue_id      String,
    checked_in_at DateTime64(3, 'UTC'),
    policy        LowCardinality(String),
    warn_from     DateTime64(3, 'UTC'),
    warn_until    DateTime64(3, 'UTC'),
    version       UInt64,
    is_deleted    UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (case_id, venue_id, checked_in_at, policy);

-- The union of all cases' intervals at a venue, by policy; a change of the venue's warnings has a higher `version`.
CREATE TABLE IF NOT EXISTS warning_rows
(
    venue_id   String,
    policy     LowCardinality(String),
    warn_from  DateTime64(3, 'UTC'),
    warn_until DateTime64(3, 'UTC'),
    case_count UInt32,
    version    UInt64,
    is_deleted UInt8,
    warning_id String ALIAS lower(hex(substring(SHA256(arrayStringConcat(
        [venue_id, toString(toUnixTimestamp64Milli(warn_from)), toString(toUnixTimestamp64Milli(warn_until)),
         toString(policy)], '\0')), 1, 8)))
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (venue_id, policy, warn_from, warn_until);

-- Several workers write the warnings of one venue, each for its cases, so no version says up to where Kafka has them: each row does. A
-- row that is written anew under its version, with 1 here, is told. What was there before this column was, is.
ALTER TABLE warning_rows ADD COLUMN IF NOT EXISTS told UInt8 DEFAULT 1;

-- Kafka has every row of a case up to this version, of those with this lane: the topic is exposures/LANE, or exposures for lane 0.
-- And what a worker among others is about to tell, or has told: the topic is telling/TOPIC/LANE, the key a case or venue, the version
-- twice the store's time (ms), and 1 as long as it is not settled that this is the last word.
CREATE TABLE IF NOT EXISTS published_rows
(
    topic   LowCardinality(String),
    key     String,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (topic, key);

-- Cuts of retention, by running number: before `kept_from` nothing about persons is kept, before `closed_before` minutes and hours
-- stay as they are. The bounds hold from the first row of a cut on; a second one says that it is finished.
CREATE TABLE IF NOT EXISTS retention_rows
(
    number        UInt64,
    kept_from     DateTime64(3, 'UTC'),
    closed_before DateTime64(3, 'UTC'),
    cut_at        DateTime64(3, 'UTC'),
    finished      UInt8
)
ENGINE = ReplacingMergeTree(finished)
ORDER BY number;

-- Scans that were stored once and are removed: why, of what, and how many. With them stored = there + removed, to the last one.
CREATE TABLE IF NOT EXISTS removed_rows
(
    reason   LowCardinality(String),
    key      String,
    scans    UInt64,
    noted_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(noted_at)
ORDER BY (reason, key);

-- Pseudonyms that were erased, by their SHA-256: nothing of them is taken any more.
CREATE TABLE IF NOT EXISTS erased_rows
(
    digest    String,
    receipt   String,
    erased_at DateTime64(3, 'UTC'),
    finished  UInt8
)
ENGINE = ReplacingMergeTree(finished)
ORDER BY digest;

-- On the disk before anything goes: after a power cut an erased visitor must not be taken again.
ALTER TABLE erased_rows MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;

-- What has left the system, for ever, a row a release: one insert, so it is there whole or not at all, and on the disk before anything
-- is told. Of two draws for one day the earlier holds (the highest `precedence`). NULL: all areas or categories; a hidden number.
CREATE TABLE IF NOT EXISTS release_rows
(
    kind       LowCardinality(String),
    day        Date,
    drawn_at   DateTime64(3, 'UTC'),
    epsilon    Float64,
    -- How it was made: JSON.
    method     String,
    area       Array(Nullable(String)),
    category   Array(Nullable(String)),
    hour       Array(DateTime('UTC')),
    arrivals   Array(Nullable(Int64)),
    occupancy  Array(Nullable(Int64)),
    sha256     String,
    precedence UInt64
)
ENGINE = ReplacingMergeTree(precedence)
ORDER BY (kind, day)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
