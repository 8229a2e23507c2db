"""The gateway's metrics. No label says who, where or from what device."""

from typing import Final

import prometheus_client

#: Name → what it says, and what to do about it.
MEANINGS: Final = {
    "pipeline_gateway_scans_total": "Scans by outcome: accepted, duplicate, or the problem that refused them. "
    "One problem rising: tell the senders.",
    "pipeline_gateway_requests_total": "Requests by HTTP status. "
    "5xx rising: see Kafka; 429 rising: raise the quotas, or find the flood.",
    "pipeline_gateway_request_seconds": "From a request's headers to its answer. Growing: Kafka is slow, or the machine is full.",
    "pipeline_gateway_pending_scans": "Scans handed to Kafka and not confirmed. At gateway_pending requests are turned away.",
    "pipeline_gateway_kafka_failures_total": "Batches that Kafka did not take. "
    "Their senders were told to send again; rising: see the brokers.",
    "pipeline_gateway_key_seconds_left": "Until when periods have keys, from now. Under a day: run pipeline keys rotate.",
    "pipeline_gateway_refresh_failures_total": "Keys, devices or venue keys not read again. "
    "The old ones go on; rising: see the log.",
}


class GatewayMetrics:
    """The metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._children: dict[tuple[prometheus_client.Counter, str], prometheus_client.Counter] = {}
        self._scans = self._counter("pipeline_gateway_scans_total", "outcome")
        self._requests = self._counter("pipeline_gateway_requests_total", "status")
        self.seconds = prometheus_client.Histogram(
            "pipeline_gateway_request_seconds", MEANINGS["pipeline_gateway_request_seconds"], registry=self.registry
        )
        self.pending = self._gauge("pipeline_gateway_pending_scans")
        self.kafka_failures = self._counter("pipeline_gateway_kafka_failures_total")
        self.key_seconds_left = self._gauge("pipeline_gateway_key_seconds_left")
        self.refresh_failures = self._counter("pipeline_gateway_refresh_failures_total")

    def scans(self, outcome: str, count: int = 1) -> None:
        """Count scans that ended so."""
        self._child(self._scans, outcome).inc(count)

    def request(self, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._child(self._requests, str(status)).inc()
        self.seconds.observe(seconds)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return prometheus_client.generate_latest(self.registry)

    def _child(self, counter: prometheus_client.Counter, label: str) -> prometheus_client.Counter:
        # The library looks a label up under a lock, at several times the cost of the counting.
        child = self._children.get((counter, label))
        if child is None:
            child = self._children[counter, label] = counter.labels(label)
        return child

    def _counter(self, name: str, *labels: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(name, MEANINGS[name], labels, registry=self.registry)

    def _gauge(self, name: str) -> prometheus_client.Gauge:
        return prometheus_client.Gauge(name, MEANINGS[name], registry=self.registry)
