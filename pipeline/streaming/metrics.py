"""Every metric of a worker in one typed place: what it means, and what to do when it looks wrong.

There is no series per venue: a hundred thousand of them stall a scrape. Venues belong in ClickHouse.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import prometheus_client
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from pipeline.overview import NOTHING_SEEN
from pipeline.streaming.ports import ModelFigures


@dataclass(frozen=True, slots=True)
class Meaning:
    """A metric's name, what it says in one sentence, and what to do about it in one sentence."""

    name: str
    says: str
    action: str

    @property
    def help(self) -> str:
        return f"{self.says} {self.action}"


CONSUMED: Final = Meaning(
    "pipeline_scans_consumed_total",
    "Records of check-ins read and judged; equals accepted plus dead-lettered.",
    "Flat while the lag grows: see /livez and the log.",
)
ACCEPTED: Final = Meaning(
    "pipeline_scans_accepted_total",
    "Valid scans; equals stored plus duplicates once nothing is buffered.",
    "Far below consumed: look at the dead letters.",
)
STORED: Final = Meaning(
    "pipeline_scans_stored_total",
    "Distinct scans that the store has acknowledged.",
    "Flat while consumed rises: the store is away, see store failures.",
)
DUPLICATES: Final = Meaning(
    "pipeline_scans_duplicate_total",
    "Accepted scans that were stored already: repeats by gates and apps, and what was read again after a restart.",
    "A steady high share: ask the producers why they repeat.",
)
DEAD_LETTERED: Final = Meaning(
    "pipeline_scans_dead_lettered_total",
    "Refused records, by reason.",
    "Rising: read the topic dead-letters or the view dead_letters and tell the producer.",
)
UNKNOWN_VENUE: Final = Meaning(
    "pipeline_scans_unknown_venue_total",
    "Scans of a venue that the registry does not know, processed as category unknown.",
    "Rising: load the missing venues.",
)
NEWEST_EVENT: Final = Meaning(
    "pipeline_newest_event_timestamp_seconds",
    "The latest occurred_at of any valid scan, seconds since the epoch.",
    "Standing still: the gates have stopped sending.",
)
FLUSH_SECONDS: Final = Meaning(
    "pipeline_flush_seconds",
    "How long the store took for one successful write.",
    "Growing: the store is overloaded or its disk is slow.",
)
DELAY_SECONDS: Final = Meaning(
    "pipeline_event_to_store_seconds",
    "From a scan's Kafka timestamp to the store's acknowledgement.",
    "Above your promise with low lag: lower flush_seconds; with high lag: add partitions and workers.",
)
LAG: Final = Meaning(
    "pipeline_consumer_lag_scans",
    "Records between what is stored and the end of the log, by partition, as the broker has it.",
    "Growing for minutes: add workers, up to one a partition.",
)
SKIPPED: Final = Meaning(
    "pipeline_offsets_skipped_total",
    "Records that Kafka's retention deleted before they were read: they are lost to us.",
    "Anything but zero: raise the topic's retention, and send the files again.",
)
STORE_FAILURES: Final = Meaning(
    "pipeline_store_failures_total",
    "Calls that the store did not answer; each is tried again.",
    "Rising: bring ClickHouse back; nothing is lost meanwhile.",
)
BUFFER_FILL: Final = Meaning(
    "pipeline_buffer_fill_ratio",
    "Processed scans that wait to be written, as a share of buffer_scans; at 1 fetching pauses.",
    "Near 1: the store is away or too slow.",
)
REBALANCES: Final = Meaning(
    "pipeline_rebalances_total",
    "How often partitions were assigned to this worker.",
    "More than one a deployment: workers are dying or losing their session.",
)
ASSIGNED: Final = Meaning(
    "pipeline_assigned_partitions",
    "Partitions of check-ins that this worker reads.",
    "Zero on some workers: there are more workers than partitions.",
)
MODEL_AGE: Final = Meaning(
    "pipeline_model_age_seconds",
    "Event time since the end of the last day that the model of presence in force has learned.",
    "Above two days: see model_refit and the failures below, or fit one by hand.",
)
MODEL_GAPS: Final = Meaning(
    "pipeline_model_categories_without_estimate",
    "Venue categories with people counted at venues that have no estimate.",
    "Rising: pipeline model show says what is lacking; blind to estimates that are wrong.",
)
MODEL_COVERED: Final = Meaning(
    "pipeline_model_people_covered_ratio",
    "Share of the people counted now whose venues have an estimate.",
    "Falling: new venues of categories that the model does not know; blind to estimates that are wrong.",
)
CHECK_COVERAGE: Final = Meaning(
    "pipeline_model_check_coverage_ratio",
    "Of the last closed day's known check-outs, hidden: share of 90 % intervals that held who was there.",
    "Under 0.85: see the view model_checks for the category; blind to those who never check out, and to hidden people.",
)
CHECK_BIAS: Final = Meaning(
    "pipeline_model_check_bias_ratio",
    "Of the same people, predicted over there, minus 1: too many are positive.",
    "Beyond 0.05 for days: stays have changed; blind to those who never check out, and to hidden people.",
)
MODEL_DRIFT: Final = Meaning(
    "pipeline_model_drift_ratio",
    "Largest distance between the shares of stays longer than any length, last closed day and model, by category.",
    "From 0.1 on: stays have changed, expect wrong estimates until they are learned; blind to those who never check out.",
)
CHECK_OUT_SHARE: Final = Meaning(
    "pipeline_model_check_out_ratio",
    "Share of the last closed day's visits that were checked out of, by category.",
    "Falling: a gate or the app has stopped asking; blind to why people do not check out.",
)
REFIT_FAILURES: Final = Meaning(
    "pipeline_model_refit_failures_total",
    "Nightly checks and fits that ended with an error; tried again after an hour, the old model goes on.",
    "Rising: read the log; pipeline model fit by hand shows the same error.",
)
CASES_DUE: Final = Meaning(
    "pipeline_cases_due",
    "Cases that wait to be traced, because of a report, a late scan or a start.",
    "Growing while the lag is low: tracing does not keep up; see the time of its passes.",
)
PASS_SECONDS: Final = Meaning(
    "pipeline_tracing_pass_seconds",
    "How long one pass over up to 20 cases took.",
    "Growing: the store is overloaded, or single cases expose very many.",
)
TRACED_MESSAGES: Final = Meaning(
    "pipeline_tracing_messages_total",
    "Messages that Kafka has acknowledged, by topic: exposures and venue-warnings.",
    "Flat while cases come: see the log, and the cases that are due.",
)

LATE: Final = Meaning(
    "pipeline_scans_late_total",
    "Scans from before the late window: stored, and their history corrected from the store.",
    "A steady high share: find the gates that send so late, or raise late_window.",
)
EVENT_DELAY: Final = Meaning(
    "pipeline_event_delay_seconds",
    "From a scan's occurred_at to its Kafka timestamp: how late the gates send.",
    "Growing: gates are offline and send later, or their clocks are wrong.",
)
WATERMARK: Final = Meaning(
    "pipeline_watermark_timestamp_seconds",
    "The typical newest occurred_at of the slowest partition, seconds since the epoch.",
    "Falling behind the newest event: one partition is catching up.",
)
CLOCK: Final = Meaning(
    "pipeline_clock_timestamp_seconds",
    "as_of of what is stored: up to when visits have ended and windows are counted, seconds since the epoch.",
    "Far behind the current time, on the wall clock: there is a backlog, see the lag.",
)
HEARTBEAT: Final = Meaning(
    "pipeline_heartbeat_timestamp_seconds",
    "When something last moved, or there was nothing to move, as /livez has it; seconds since the epoch.",
    "Older than a minute: the worker hangs; see the log, restart it.",
)
LOOP_LAG: Final = Meaning(
    "pipeline_event_loop_lag_seconds",
    "How much later than asked for the event loop woke up, each second.",
    "Above a second: something blocks the loop, or the machine is overloaded; heartbeats to Kafka are at risk.",
)
RECOVERY: Final = Meaning(
    "pipeline_recovery_seconds",
    "How long loading the state of partitions took, at a start or a rebalance.",
    "Growing: the store is slow, or the traffic of thirty hours has grown; spread the partitions over more workers.",
)
ALERTS_OPEN: Final = Meaning(
    "pipeline_crowding_alerts_open",
    "Crowding alerts in force, by level.",
    "Many at once: a city-wide surge, or venues whose check-outs are missing.",
)
ALERTS_SENT: Final = Meaning(
    "pipeline_alertmanager_requests_total",
    "Requests to Alertmanager with alerts, by outcome: accepted or failed. A failed one is tried again.",
    "Failures rise: Alertmanager is away or refuses us; the log has its answer.",
)
VENUES_BY: Final = Meaning(
    "pipeline_venues",
    "Venues seen, by category and fullness: empty, below_half, half, near (90 %), full (100 %), unknown (capacity).",
    "Many full: compare with the crowding alerts; many unknown: register their capacity.",
)
PERSONS_IN_AREA: Final = Meaning(
    "pipeline_persons_present",
    "Persons counted present by area: the 50 areas with the most, and all others as other.",
    "A sudden step: an area's gates have come back, or gone.",
)
FULLEST: Final = Meaning(
    "pipeline_fullest_venue_ratio",
    "Occupancy over capacity of the fullest venues, by rank from 1; their names are in the view occupancy_now.",
    "Rank 1 far above the others: one venue's capacity may be registered wrongly.",
)
UNDERCOUNTED: Final = Meaning(
    "pipeline_undercounted_venues",
    "Venues whose scans of the last closed hour fell far below their own pattern.",
    "Above zero: see the view undercounts; ask those venues whether their gates or codes work.",
)

#: Which of the engine's counters are shown as what.
_ENGINE_COUNTERS: Final = {
    "consumed": CONSUMED,
    "accepted": ACCEPTED,
    "stored": STORED,
    "duplicates": DUPLICATES,
    "unknown_venue_scans": UNKNOWN_VENUE,
    "late": LATE,
}

#: Which of its instants, in ms.
_ENGINE_INSTANTS: Final = {"newest_event_ms": NEWEST_EVENT, "watermark_ms": WATERMARK, "as_of_ms": CLOCK}

#: Upper bounds in seconds of the delay as exported, and as kept for quantiles (20 a decade, 1 ms to 10¹⁰ s: records may
#: carry timestamps of years ago).
_EXPORTED_BOUNDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)
_FINE_BOUNDS: Final = np.logspace(-3, 10, 261)


class Delays:
    """A histogram of delays in seconds that takes arrays, because a scan at a time would cost more than storing it."""

    def __init__(self, meaning: Meaning = DELAY_SECONDS) -> None:
        self._meaning = meaning
        self._coarse = np.zeros(len(_EXPORTED_BOUNDS) + 1, np.int64)
        self._fine = np.zeros(len(_FINE_BOUNDS) + 1, np.int64)
        self._sum = 0.0

    def observe(self, seconds: NDArray[np.float64]) -> None:
        """Add delays; those below zero (clocks that differ) count as zero."""
        seconds = np.maximum(seconds, 0.0)
        coarse = np.searchsorted(np.asarray(_EXPORTED_BOUNDS), seconds)
        self._coarse = self._coarse + np.bincount(coarse, minlength=len(self._coarse))
        self._fine = self._fine + np.bincount(np.searchsorted(_FINE_BOUNDS, seconds), minlength=len(self._fine))
        self._sum += float(seconds.sum())

    def quantile(self, q: float) -> float | None:
        """The delay in seconds that a share `q` of all is at or below, to 12 %; None before the first."""
        total = int(self._fine.sum())
        if not total:
            return None
        bucket = int(np.searchsorted(np.cumsum(self._fine), q * total))
        return float(_FINE_BOUNDS[min(bucket, len(_FINE_BOUNDS) - 1)])

    def family(self) -> HistogramMetricFamily:
        """As Prometheus wants it."""
        cumulative = np.cumsum(self._coarse)
        bounds = [*(str(bound) for bound in _EXPORTED_BOUNDS), "+Inf"]
        family = HistogramMetricFamily(self._meaning.name, self._meaning.help)
        family.add_metric([], [(bound, int(n)) for bound, n in zip(bounds, cumulative, strict=True)], self._sum)
        return family


class _Snapshot(Collector):
    """What the worker's threads have put down last: one consistent view of the engine's counters."""

    def __init__(self, metrics: "Metrics") -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        counters, reasons = self._metrics.counters
        for key, meaning in _ENGINE_COUNTERS.items():
            yield CounterMetricFamily(meaning.name, meaning.help, value=counters.get(key, 0))
        refused = CounterMetricFamily(DEAD_LETTERED.name, DEAD_LETTERED.help, labels=["reason"])
        for reason, count in sorted(reasons.items()):
            refused.add_metric([reason], count)
        yield refused
        for key, meaning in _ENGINE_INSTANTS.items():
            if counters.get(key):
                yield GaugeMetricFamily(meaning.name, meaning.help, value=counters[key] / 1000)
        yield self._metrics.delays.family()
        yield from _model_families(self._metrics.model)
        yield self._metrics.event_delays.family()
        overview = self._metrics.overview
        for meaning, labels, values in (
            (VENUES_BY, ("category", "fullness"), overview.venues),
            (PERSONS_IN_AREA, ("area",), {(area,): persons for area, persons in overview.persons.items()}),
            (FULLEST, ("rank",), {(str(rank),): ratio for rank, ratio in enumerate(overview.fullest, 1)}),
            (ALERTS_OPEN, ("level",), {(level,): count for level, count in overview.alerts.items()}),
        ):
            family = GaugeMetricFamily(meaning.name, meaning.help, labels=labels)
            for names, value in values.items():
                family.add_metric(names, value)
            yield family


def _model_families(model: ModelFigures | None) -> Iterator[Metric]:
    if model is None:
        return
    for meaning, value in (
        (MODEL_AGE, model.age_seconds),
        (MODEL_GAPS, model.categories_without_estimate),
        (MODEL_COVERED, model.covered),
        (CHECK_COVERAGE, model.check_coverage),
        (CHECK_BIAS, model.check_bias),
    ):
        if value is not None:
            yield GaugeMetricFamily(meaning.name, meaning.help, value=value)
    for meaning, by_category in ((MODEL_DRIFT, model.drift), (CHECK_OUT_SHARE, model.check_out_share)):
        family = GaugeMetricFamily(meaning.name, meaning.help, labels=["category"])
        for category, value in by_category.items():
            family.add_metric([category], value)
        yield family


class Metrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.delays = Delays()
        self.event_delays = Delays(EVENT_DELAY)
        #: The venues at a glance; replaced as one.
        self.overview = NOTHING_SEEN
        #: The engine's counters and the dead letters by reason; replaced as one.
        self.counters: tuple[Mapping[str, int], Mapping[str, int]] = ({}, Counter())
        #: Where the model of presence stands; replaced as one. None before the first look.
        self.model: ModelFigures | None = None
        self.refit_failures = self._counter(REFIT_FAILURES)
        self.flush_seconds = prometheus_client.Histogram(FLUSH_SECONDS.name, FLUSH_SECONDS.help, registry=self.registry)
        self.lag = self._gauge(LAG, "topic", "partition")
        self.buffer_fill = self._gauge(BUFFER_FILL)
        self.assigned = self._gauge(ASSIGNED)
        self.skipped = self._counter(SKIPPED, "topic", "partition")
        self.store_failures = self._counter(STORE_FAILURES)
        self.rebalances = self._counter(REBALANCES)
        self.cases_due = self._gauge(CASES_DUE)
        self.pass_seconds = prometheus_client.Histogram(PASS_SECONDS.name, PASS_SECONDS.help, registry=self.registry)
        self.traced_messages = self._counter(TRACED_MESSAGES, "topic")
        self.heartbeat = self._gauge(HEARTBEAT)
        self.recovery_seconds = self._gauge(RECOVERY)
        self.loop_lag = self._gauge(LOOP_LAG)
        self.undercounted = self._gauge(UNDERCOUNTED)
        self.alertmanager_requests = self._counter(ALERTS_SENT, "outcome")
        self.registry.register(_Snapshot(self))

    def _gauge(self, meaning: Meaning, *labels: str) -> prometheus_client.Gauge:
        return prometheus_client.Gauge(meaning.name, meaning.help, labels, registry=self.registry)

    def _counter(self, meaning: Meaning, *labels: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(meaning.name, meaning.help, labels, registry=self.registry)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return prometheus_client.generate_latest(self.registry)
