"""Is the pipeline well: does it read, does it store, is anything lost, and do the numbers add up.

What a metric means and what to do about it is told by `pipeline/streaming/metrics.py`, and only there.
"""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from dashboards.board import Board, Section
from dashboards.levels import none_is_good, words, zero_is
from dashboards.panels import COUNT, PER_SECOND, PERSONS, PLAIN, SECONDS, SHARE, Column, Says, number, over_time, rows
from dashboards.queries import choice
from dashboards.sources import PROMETHEUS, Sql, promql
from pipeline.streaming import metrics
from pipeline.streaming.metrics import Meaning

_NO_WORKER = "no worker is scraped"


def _says(title: str, unit: str, *meanings: Meaning) -> Says:
    return Says(title, " ".join(meaning.help for meaning in meanings), unit, _NO_WORKER)


_NEWEST = number(
    _says("Newest scan", SECONDS, metrics.NEWEST_EVENT),
    promql('time() - max(pipeline_newest_event_timestamp_seconds{instance=~"$worker"})', "ago", now=True),
    steps=((None, "green"), (120, "orange"), (600, "red")),
)

_WORKERS = number(
    _says("Workers and partitions", COUNT, metrics.ASSIGNED),
    promql('count(pipeline_assigned_partitions{instance=~"$worker"})', "workers", now=True),
    promql('sum(pipeline_assigned_partitions{instance=~"$worker"})', "partitions", now=True),
    columns={"workers": Column(), "partitions": Column()},
)

_LAG_NOW = number(
    _says("Unread and unstored", COUNT, metrics.LAG),
    promql('sum(pipeline_consumer_lag_scans{instance=~"$worker"})', "scans", now=True),
    mappings=zero_is("all is stored"),
)

_LOST = number(
    _says("Lost before they were read", COUNT, metrics.SKIPPED),
    promql(
        # The metric appears with the first loss; until then zero, but only where there is a worker to say so.
        'sum(pipeline_offsets_skipped_total{instance=~"$worker"}) or 0 * sum(pipeline_assigned_partitions{instance=~"$worker"})',
        "records",
        now=True,
    ),
    mappings=none_is_good(),
)

_REFUSED = number(
    _says("Refused, of all", SHARE, metrics.DEAD_LETTERED),
    promql(
        '(sum(rate(pipeline_scans_dead_lettered_total{instance=~"$worker"}[$__range])) or vector(0))'
        ' / sum(rate(pipeline_scans_consumed_total{instance=~"$worker"}[$__range]))',
        "refused",
        now=True,
    ),
    steps=((None, "green"), (0.005, "orange"), (0.05, "red")),
    decimals=2,
)

_RATES = over_time(
    _says("Scans", PER_SECOND, metrics.CONSUMED, metrics.ACCEPTED, metrics.STORED, metrics.DUPLICATES),
    promql('sum(rate(pipeline_scans_consumed_total{instance=~"$worker"}[$__rate_interval]))', "consumed"),
    promql('sum(rate(pipeline_scans_accepted_total{instance=~"$worker"}[$__rate_interval]))', "accepted"),
    promql('sum(rate(pipeline_scans_stored_total{instance=~"$worker"}[$__rate_interval]))', "stored"),
    promql('sum(rate(pipeline_scans_duplicate_total{instance=~"$worker"}[$__rate_interval]))', "duplicates"),
)

_LAG = over_time(
    _says("Lag by partition", COUNT, metrics.LAG),
    promql('sum by (topic, partition) (pipeline_consumer_lag_scans{instance=~"$worker"})', "{{topic}} {{partition}}"),
)


def _quantiles(title: str, meaning: Meaning) -> Builder[Panel]:
    return over_time(
        _says(title, SECONDS, meaning),
        *(
            promql(
                f'histogram_quantile({q}, sum by (le) (rate({meaning.name}_bucket{{instance=~"$worker"}}[$__rate_interval])))',
                legend,
            )
            for q, legend in ((0.5, "half within"), (0.99, "99 % within"))
        ),
    )


_DELAY = _quantiles("From sent to stored", metrics.DELAY_SECONDS)
_FLUSH = _quantiles("A write takes", metrics.FLUSH_SECONDS)

_BUFFER = over_time(
    _says("Waiting to be written", SHARE, metrics.BUFFER_FILL),
    promql('max by (instance) (pipeline_buffer_fill_ratio{instance=~"$worker"})', "{{instance}}"),
)

_FAILURES = over_time(
    _says("Calls that the store did not answer", PER_SECOND, metrics.STORE_FAILURES),
    promql(
        'sum by (instance) (rate(pipeline_store_failures_total{instance=~"$worker"}[$__rate_interval]))', "{{instance}}"
    ),
)

_REBALANCES = over_time(
    _says("Rebalances", COUNT, metrics.REBALANCES),
    promql(
        'sum by (instance) (increase(pipeline_rebalances_total{instance=~"$worker"}[$__rate_interval]))', "{{instance}}"
    ),
    bars=True,
)

_REASONS = over_time(
    _says("Refused, by reason", PER_SECOND, metrics.DEAD_LETTERED),
    promql(
        'sum by (reason) (rate(pipeline_scans_dead_lettered_total{instance=~"$worker"}[$__rate_interval]))',
        "{{reason}}",
    ),
    bars=True,
    stacked=True,
)

_UNKNOWN = over_time(
    _says("Scans of unknown venues", PER_SECOND, metrics.UNKNOWN_VENUE),
    promql('sum(rate(pipeline_scans_unknown_venue_total{instance=~"$worker"}[$__rate_interval]))', "unknown venue"),
)

_SENT_LATE = _quantiles("From scanned to sent", metrics.EVENT_DELAY)

_LATE = over_time(
    _says("Scans from before the late window", PER_SECOND, metrics.LATE),
    promql('sum(rate(pipeline_scans_late_total{instance=~"$worker"}[$__rate_interval]))', "late"),
)

_BEHIND = over_time(
    _says("Behind", SECONDS, metrics.WATERMARK, metrics.CLOCK),
    promql(
        'max(pipeline_newest_event_timestamp_seconds{instance=~"$worker"})'
        ' - min(pipeline_watermark_timestamp_seconds{instance=~"$worker"})',
        "slowest partition behind the newest scan",
    ),
    promql('time() - min(pipeline_clock_timestamp_seconds{instance=~"$worker"})', "the pipeline's clock behind now"),
)

_HEARTBEAT = over_time(
    _says("Since the last heartbeat", SECONDS, metrics.HEARTBEAT),
    promql(
        'max by (instance) (time() - pipeline_heartbeat_timestamp_seconds{instance=~"$worker"})',
        "{{instance}}",
    ),
)

_LOOP_LAG = over_time(
    _says("Lag of the event loop", SECONDS, metrics.LOOP_LAG),
    promql('max by (instance) (pipeline_event_loop_lag_seconds{instance=~"$worker"})', "{{instance}}"),
)

_RECOVERY = over_time(
    _says("The last recovery took", SECONDS, metrics.RECOVERY),
    promql('max by (instance) (pipeline_recovery_seconds{instance=~"$worker"})', "{{instance}}"),
)

_OPEN = over_time(
    _says("Crowding alerts in force", COUNT, metrics.ALERTS_OPEN),
    promql('sum by (level) (pipeline_crowding_alerts_open{instance=~"$worker"})', "{{level}}"),
)

_SENT = over_time(
    _says("Requests to Alertmanager", PER_SECOND, metrics.ALERTS_SENT),
    promql(
        'sum by (outcome) (rate(pipeline_alertmanager_requests_total{instance=~"$worker"}[$__rate_interval]))',
        "{{outcome}}",
    ),
)

_VENUES = over_time(
    _says("Venues by how full they are", COUNT, metrics.VENUES_BY),
    promql('sum by (fullness) (pipeline_venues{instance=~"$worker"})', "{{fullness}}"),
    stacked=True,
)

_PERSONS = over_time(
    _says("Persons counted, the ten areas with the most", PERSONS, metrics.PERSONS_IN_AREA),
    promql('topk(10, sum by (area) (pipeline_persons_present{instance=~"$worker"}))', "{{area}}"),
)

_FULLEST = over_time(
    _says("The fullest venues, by rank", SHARE, metrics.FULLEST),
    promql('max by (rank) (pipeline_fullest_venue_ratio{instance=~"$worker"})', "{{rank}}"),
)

_UNDERCOUNTED = over_time(
    _says("Venues that scan too little", COUNT, metrics.UNDERCOUNTED),
    promql('sum(pipeline_undercounted_venues{instance=~"$worker"})', "venues"),
)

_CASES_DUE = over_time(
    _says("Cases to be traced", COUNT, metrics.CASES_DUE),
    promql('sum(pipeline_cases_due{instance=~"$worker"})', "due"),
)

_PASSES = _quantiles("A pass over cases takes", metrics.PASS_SECONDS)

_TRACED = over_time(
    _says("Exposures and warnings sent", PER_SECOND, metrics.TRACED_MESSAGES),
    promql(
        'sum by (topic) (rate(pipeline_tracing_messages_total{instance=~"$worker"}[$__rate_interval]))', "{{topic}}"
    ),
)

_MODEL_AGE = over_time(
    _says("Age of the model of presence", SECONDS, metrics.MODEL_AGE),
    promql('max(pipeline_model_age_seconds{instance=~"$worker"})', "since the last day learned"),
)

_MODEL_COVERED = over_time(
    _says("People with an estimate", SHARE, metrics.MODEL_COVERED),
    promql('min(pipeline_model_people_covered_ratio{instance=~"$worker"})', "of the people counted"),
)

_MODEL_GAPS = over_time(
    _says("Categories without an estimate", COUNT, metrics.MODEL_GAPS, metrics.REFIT_FAILURES),
    promql('max(pipeline_model_categories_without_estimate{instance=~"$worker"})', "categories"),
    promql('sum(increase(pipeline_model_refit_failures_total{instance=~"$worker"}[$__rate_interval]))', "failed fits"),
)

_MODEL_CHECKED = over_time(
    _says("The model against the last closed day", SHARE, metrics.CHECK_COVERAGE, metrics.CHECK_BIAS),
    promql('min(pipeline_model_check_coverage_ratio{instance=~"$worker"})', "intervals that held"),
    promql('max(pipeline_model_check_bias_ratio{instance=~"$worker"})', "too many predicted"),
)

_MODEL_DRIFT = over_time(
    _says("Stays unlike the model's", SHARE, metrics.MODEL_DRIFT),
    promql('max by (category) (pipeline_model_drift_ratio{instance=~"$worker"})', "{{category}}"),
)

_CHECKING_OUT = over_time(
    _says("Visits checked out of", SHARE, metrics.CHECK_OUT_SHARE),
    promql('max by (category) (pipeline_model_check_out_ratio{instance=~"$worker"})', "{{category}}"),
)

_DEAD_LETTERS = rows(
    Says(
        "Dead letters",
        "Records refused in the time range by reason and detail, the most first. The bytes are in the topic "
        "dead-letters; mend the producer, and send the mended records.",
        COUNT,
        "nothing was refused in this time range",
    ),
    Sql("""
SELECT reason, detail, topic, count() AS records, min(received_at) AS first, max(received_at) AS last
FROM checkins.dead_letters
WHERE $__timeFilter(received_at)
GROUP BY reason, detail, topic
ORDER BY records DESC, reason, detail
LIMIT 50
"""),
    columns={"first": Column(unit="dateTimeAsLocal"), "last": Column(unit="dateTimeAsLocal")},
)

_ACCOUNTING = rows(
    Says(
        "Accounting",
        "By partition, since its beginning: consumed = accepted + dead-lettered, accepted = stored + duplicates. "
        "Anything but «adds up» is a bug: stop the worker, run pipeline verify, report it.",
        COUNT,
        "nothing stored yet",
    ),
    Sql("""
SELECT topic, partition, next_offset, consumed, accepted, stored, duplicates, dead_lettered,
  if(consumed = accepted + dead_lettered AND accepted = stored + duplicates, 'adds up', 'does not add up') AS balance
FROM checkins.accounting
ORDER BY balance DESC, topic, partition
LIMIT 1000
"""),
    columns={
        "partition": Column(unit=PLAIN),
        "next_offset": Column(unit=PLAIN, name="next offset"),
        "dead_lettered": Column(name="dead-lettered"),
        "balance": Column(mappings=words({"adds up": "green", "does not add up": "dark-red"}), coloured_cell=True),
    },
)

_MARKS = """
SELECT raised_at AS time, concat('crowded: ', venue_id) AS text, level AS tags
FROM checkins.crowding_alerts
WHERE $__timeFilter(raised_at) AND level = 'critical'
ORDER BY raised_at DESC
LIMIT 50
"""

_WORKER = (
    choice("worker", "Worker", "label_values(pipeline_assigned_partitions, instance)")
    .datasource(PROMETHEUS)
    .query({"query": "label_values(pipeline_assigned_partitions, instance)", "refId": "worker"})
)

BOARD = Board(
    uid="checkins-health",
    title="Pipeline health",
    description="For operators: does it read and store, how late, is anything refused or lost, and do the numbers add up.",
    since="now-1h",
    refresh="30s",
    variables=[_WORKER.all_value(".*")],
    alerts=_MARKS,
    first=[_NEWEST, _WORKERS, _LAG_NOW, _LOST, _REFUSED],
    sections=[
        Section("Reading", [_RATES, _LAG, _SENT_LATE, _LATE, _BEHIND, _HEARTBEAT, _LOOP_LAG, _REBALANCES]),
        Section("Storing", [_DELAY, _FLUSH, _BUFFER, _FAILURES, _RECOVERY]),
        Section("Venues", [_VENUES, _FULLEST, _OPEN, _SENT, _PERSONS, _UNDERCOUNTED]),
        Section("Refused", [_REASONS, _UNKNOWN, _DEAD_LETTERS]),
        Section("Tracing", [_CASES_DUE, _PASSES, _TRACED]),
        Section(
            "The model of presence",
            [_MODEL_AGE, _MODEL_COVERED, _MODEL_GAPS, _MODEL_CHECKED, _MODEL_DRIFT, _CHECKING_OUT],
        ),
        Section("Does it add up", [_ACCOUNTING]),
    ],
    metrics=True,
)
