"""What a worker tells over HTTP, without a worker."""

import json
import urllib.error
import urllib.request

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.streaming.http import serve_http
from pipeline.streaming.metrics import Delays, Metrics


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_probes_answer_with_their_facts_and_a_status_that_a_machine_understands() -> None:
    with serve_http(0, Metrics(), lambda: (True, {"a": 1}), lambda: (False, {"b": 2})) as port:
        status, body = get(port, "/livez")
        assert (status, json.loads(body)) == (200, {"ok": True, "a": 1})
        status, body = get(port, "/readyz?verbose")
        assert (status, json.loads(body)) == (503, {"ok": False, "b": 2})
        assert get(port, "/venues/somebody")[0] == 404


def test_a_taken_port_is_one_sentence_with_the_way_out() -> None:
    def well() -> tuple[bool, dict[str, object]]:
        return True, {}

    with (
        serve_http(0, Metrics(), well, well) as port,
        pytest.raises(UserError, match=f"port {port} .* is taken .*PIPELINE_HTTP_PORT"),
        serve_http(port, Metrics(), well, well),
    ):
        pass


def test_metrics_show_one_snapshot_of_the_engines_counters() -> None:
    metrics = Metrics()
    metrics.counters = (
        {"consumed": 7, "accepted": 5, "stored": 4, "duplicates": 1, "dead_lettered": 2, "newest_event_ms": 1500},
        {"schema": 1, "not_json": 1},
    )
    metrics.delays.observe(np.array([0.15, 3.0]))
    lines = metrics.exposition().decode().splitlines()
    for line in (
        "pipeline_scans_consumed_total 7.0",
        "pipeline_scans_accepted_total 5.0",
        'pipeline_scans_dead_lettered_total{reason="not_json"} 1.0',
        'pipeline_scans_dead_lettered_total{reason="schema"} 1.0',
        "pipeline_newest_event_timestamp_seconds 1.5",
        'pipeline_event_to_store_seconds_bucket{le="0.2"} 1.0',
        'pipeline_event_to_store_seconds_bucket{le="+Inf"} 2.0',
        "pipeline_event_to_store_seconds_sum 3.15",
    ):
        assert line in lines


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_quantiles_of_delays_are_right_to_an_eighth(q: float) -> None:
    seconds = np.random.default_rng(5).lognormal(0.0, 2.0, 20_000)
    delays = Delays()
    for part in np.array_split(seconds, 7):
        delays.observe(part)
    exact = float(np.quantile(seconds, q))
    found = delays.quantile(q)
    assert found is not None
    assert exact * 0.99 <= found <= exact * 1.13


def test_clocks_that_differ_give_no_negative_delay() -> None:
    delays = Delays()
    assert delays.quantile(0.5) is None
    delays.observe(np.array([-4.0]))
    assert delays.quantile(0.5) == pytest.approx(0.001)
