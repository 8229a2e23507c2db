"""What is served over HTTP without a worker and without a store: probes, metrics, pages, plain refusals."""

import hashlib
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline import bounded_http
from pipeline.api.server import serve_http
from pipeline.errors import UserError
from pipeline.settings import Settings
from pipeline.streaming.metrics import Delays, Metrics
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def well() -> tuple[bool, dict[str, object]]:
    return True, {"a": 1}


def unwell() -> tuple[bool, dict[str, object]]:
    return False, {"b": 2}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, http_port=0)


def serve(settings: Settings) -> AbstractContextManager[int]:
    return serve_http(settings, Metrics().exposition, {"/livez": well, "/readyz": unwell})


def test_probes_answer_with_their_facts_and_a_status_that_a_machine_understands(settings: Settings) -> None:
    with serve(settings) as port:
        status, body = get(port, "/livez")
        assert (status, json.loads(body)) == (200, {"ok": True, "a": 1})
        status, body = get(port, "/readyz?verbose")
        assert (status, json.loads(body)) == (503, {"ok": False, "b": 2})


def test_what_is_refused_says_what_where_and_the_way_out(settings: Settings) -> None:
    with serve(settings) as port:
        for path, status in (
            ("/venues/somebody", 404),
            ("/api/v1/venues/mall-1/now", 503),
            ("/api/v1/venues?limit=0", 422),
            ("/static/../server.py", 404),
        ):
            refused, body = get(port, path)
            assert refused == status, path
            assert json.loads(body).keys() == {"what", "where", "way_out"}, path


def test_probes_and_metrics_answer_while_the_process_that_is_watched_hangs(settings: Settings) -> None:
    found: list[tuple[int, bytes]] = []
    with serve(settings) as port:
        asking = threading.Thread(target=lambda: found.extend(get(port, path) for path in ("/livez", "/metrics")))
        asking.start()
        deadline = time.monotonic() + 30
        while asking.is_alive() and time.monotonic() < deadline:  # this thread is the worker's, and does nothing else
            pass
    assert [status for status, _ in found] == [200, 200]
    assert b"pipeline_scans_consumed_total" in found[1][1]


def test_the_process_at_the_door_is_replaced_when_it_dies_and_leaves_with_us(settings: Settings) -> None:
    def doors() -> list[psutil.Process]:
        found = []
        for each in psutil.Process().children():
            with suppress(psutil.Error):  # it ends just now
                if "pipeline.api.front" in each.cmdline():
                    found.append(each)
        return found

    def answers() -> bool:
        with suppress(OSError):
            return get(port, "/livez")[0] == 200
        return False

    with serve(settings) as port:
        wait_until(answers)
        wait_until(lambda: len(doors()) == 1)
        first = doors()[0]
        first.kill()
        wait_until(lambda: [each.pid for each in doors()] not in ([], [first.pid]))
        wait_until(answers)
    assert doors() == []


def exchange(port: int, sent: bytes, after: bytes = b"", pieces: int = 1) -> bytes:
    """All that comes back on one connection, and whether it is `closed` after that or, a second and a half later, still `open`.

    `sent` goes in so many pieces; `after` once the first answer is there.
    """
    answered = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            size = -(-len(sent) // pieces)
            for first in range(0, len(sent), size):
                connection.sendall(sent[first : first + size])
            if after:
                answered = connection.recv(65_536)
                connection.sendall(after)
            connection.settimeout(1.5)
            while part := connection.recv(65_536):
                answered += part
        except TimeoutError:
            return answered + b"open"
        except OSError:
            pass
    return answered + b"closed"


def statuses(answered: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d+) ", answered)


def test_without_tokens_a_page_from_elsewhere_reaches_nothing_by_a_name_that_leads_here(settings: Settings) -> None:
    ours = ("127.0.0.1", "localhost:8080", "[::1]:80")
    others = ("check-ins.example", "127.0.0.1.example:80", "localhost.example", "evil.example@127.0.0.1", "10.0.0.1")
    with serve(settings) as port:
        for path in ("/api/v1/venues", "/api/v1/venues/mall/now", "/api/v1/health"):
            for host in ours + others:
                request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                answered = exchange(port, request.encode())
                assert answered.startswith(b"HTTP/1.1 421") is (host in others), (path, host, answered)


def test_a_request_that_two_readers_would_end_at_two_places_is_refused_and_nothing_after_it_is_read(
    settings: Settings,
) -> None:
    hidden = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with serve(settings) as port:
        for head in (
            b"Content-Length: 4\r\nTransfer-Encoding: chunked",
            b"Content-Length: 0\r\nContent-Length: 40",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            b"Transfer-Encoding: xchunked",
            b"Content-Length : 40",
            b"Content-Length: -1",
            b"Content-Length: +40",
            b"X-A: a\r\n Content-Length: 40",
            b"X-A: a\0b",
            b"X-A: a\nContent-Length: 40",
        ):
            first = b"POST /api/v1/case-reports HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head + b"\r\n\r\n"
            answered = exchange(port, first + b"0\r\n\r\n" + hidden)
            assert statuses(answered) == [b"400"], head
            assert answered.endswith(b"closed"), head


def test_what_is_no_body_and_has_no_end_is_cut_off(settings: Settings) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with serve(settings) as port:
        for begun in (
            head + b"X-A: ",
            head + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: ",
            head + b"Transfer-Encoding: chunked\r\n\r\n1;x=",
        ):
            answered = exchange(port, begun + b"a" * (8 << 20), pieces=64)
            assert not answered.endswith(b"open"), begun
        assert get(port, "/livez")[0] == 200


def test_many_requests_in_one_piece_are_all_answered(settings: Settings) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with serve(settings) as port:
        answered = exchange(port, (head + b"\r\n") * 2_000 + head)
    assert statuses(answered)[:2_000] == [b"200"] * 2_000


def test_a_connection_that_does_not_say_what_it_wants_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_http, "HEAD_SECONDS", 0.3)
    with serve(settings) as port:
        assert exchange(port, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n").startswith(b"HTTP/1.1 408")
        whole = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        for more in (b"\r\n", b"0", b"GET /livez HTTP/1.1\r\n"):
            answered = exchange(port, whole, more)
            assert statuses(answered)[0] == b"200"
            assert answered.endswith(b"closed")
        early = b"POST /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n"
        assert exchange(port, early, b"x").endswith(b"closed")


def test_pages_load_nothing_from_anywhere_else(settings: Settings) -> None:
    with serve(settings) as port:
        for page in ("/", "/planning", "/api/docs"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=30) as answer:
                policy = answer.headers["Content-Security-Policy"]
                text = answer.read().decode()
            assert "default-src 'none'" in policy
            assert "http" not in policy
            assert "http://" not in text
            assert "https://" not in text


def test_every_answer_is_taken_for_what_it_says_it_is_and_framed_by_nobody(settings: Settings) -> None:
    with serve(settings) as port:
        for path in (
            "/",
            "/static/js/dom.js",
            "/livez",
            "/metrics",
            "/nowhere",
            "/api/v1/venues",
            "/api/v1/openapi.json",
        ):
            try:
                headers = urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30).headers
            except urllib.error.HTTPError as error:
                headers = error.headers
            assert headers["X-Content-Type-Options"] == "nosniff", path
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path


def test_the_files_of_others_are_what_was_locked_and_carry_their_licence() -> None:
    folder = ROOT / "pipeline" / "api" / "static" / "vendor"
    lock = (ROOT / "infra" / "web" / "vendor.lock").read_text().splitlines()[1:]
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert dict(line.split() for line in lock) == there
    for name in ("uplot", "echarts", "world-atlas"):
        assert f"{name}.LICENSE" in there


def test_a_taken_port_is_one_sentence_with_the_way_out(settings: Settings) -> None:
    with (
        serve(settings) as port,
        pytest.raises(UserError, match=f"port {port} .* is taken .*PIPELINE_HTTP_PORT"),
        serve(settings.model_copy(update={"http_port": port})),
    ):
        pass


def test_an_address_that_is_not_this_machines_is_one_sentence_with_the_way_out(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"http_host": "192.0.2.1"})
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1:0: .*PIPELINE_HTTP_HOST"), serve(elsewhere):
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
