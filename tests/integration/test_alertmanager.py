"""What the worker tells Alertmanager, against the real one with the configuration of this repository."""

import asyncio
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipeline.alert_notice import AlertNotice
from pipeline.streaming import alertmanager as module
from pipeline.streaming.alertmanager import ALERT_NAME, Alertmanager, Outbox
from schemas.fields import format_instant
from tests.needed import program
from tests.waiting import PATIENCE, wait_until

ROOT = Path(__file__).resolve().parents[2]
QUIET_MS = 300_000


def notice(**changed: Any) -> AlertNotice:
    now = time.time_ns() // 1_000_000
    plain = AlertNotice("a1", "mall-1", "warning", now - 10_000, None, 120, 100, "The mall", "mall", "31.73")
    return replace(plain, **changed)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running Alertmanager."""
    binary = program("prometheus-alertmanager", "prometheus-alertmanager")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("alertmanager")
    config = ROOT / "infra" / "alertmanager" / "alertmanager.yml"
    with (folder / "log").open("wb") as output:
        server = subprocess.Popen(
            [
                binary,
                f"--config.file={config}",
                f"--storage.path={folder}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert server.poll() is None, (folder / "log").read_text()
        try:
            return bool(urllib.request.urlopen(f"{url}/-/ready", timeout=5).status == 200)
        except OSError:
            return False

    try:
        wait_until(ready)
        yield url
    finally:
        server.terminate()
        server.wait(20)


def held(address: str, venue: str) -> dict[str, dict[str, Any]]:
    """Alertmanager's alerts of a venue that have not ended, by severity."""
    with urllib.request.urlopen(f"{address}/api/v2/alerts?filter=venue_id%3D%22{venue}%22", timeout=10) as answer:
        return {alert["labels"]["severity"]: alert for alert in json.load(answer)}


def post(address: str, alerts: list[dict[str, Any]]) -> None:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/api/v2/alerts", json.dumps(alerts).encode(), headers)
    urllib.request.urlopen(request, timeout=10).close()


def play(address: str, *steps: tuple[list[AlertNotice], Callable[[], bool]]) -> tuple[int, int]:
    """Note each step's notices and wait for its condition; returns how many sendings failed and were accepted."""
    counts = [0, 0]

    async def scene() -> None:
        def count(which: int) -> Callable[[], None]:
            def add() -> None:
                counts[which] += 1

            return add

        sender = Alertmanager(address, QUIET_MS, count(0), count(1))
        running = asyncio.create_task(sender.run())
        try:
            for notices, condition in steps:
                sender.note(notices)
                await asyncio.to_thread(wait_until, condition)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    asyncio.run(asyncio.wait_for(scene(), len(steps) * PATIENCE))
    return counts[0], counts[1]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.05)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)


def test_an_alert_is_raised_with_its_venue_and_ends_when_it_is_cleared(address: str) -> None:
    raised = notice(venue="v-1")
    cleared = replace(raised, cleared_at=time.time_ns() // 1_000_000)

    def is_there() -> bool:
        found = held(address, "v-1")
        if "warning" not in found:
            return False
        alert = found["warning"]
        assert alert["startsAt"] == format_instant(raised.raised_at)
        assert alert["annotations"]["alert_id"] == raised.alert_id
        assert alert["labels"] == {
            "alertname": ALERT_NAME,
            "venue_id": "v-1",
            "severity": "warning",
            "category": "mall",
            "area": "31.73",
        }
        return True

    assert play(address, ([raised], is_there), ([cleared], lambda: not held(address, "v-1")))[0] == 0


def test_an_alert_that_a_late_scan_moves_stays_the_same_one_and_ends_when_it_is_taken_back(address: str) -> None:
    first = notice(venue="v-2")
    moved = replace(first, alert_id="a2", raised_at=first.raised_at - 400_000)

    def moved_there() -> bool:
        return held(address, "v-2")["warning"]["annotations"]["alert_id"] == "a2"

    play(
        address,
        ([first], lambda: "warning" in held(address, "v-2")),
        ([replace(first, retracted=True), moved], moved_there),
        ([replace(moved, retracted=True)], lambda: not held(address, "v-2")),
    )


def test_a_worker_that_starts_anew_goes_on_with_what_alertmanager_has_and_is_quiet_about_the_rest(address: str) -> None:
    ours = notice(venue="v-3", raised_at=notice().raised_at - 3_600_000)
    others = replace(ours, venue="v-4", alert_id="a4")
    labels = {"alertname": ALERT_NAME, "venue_id": "v-3", "severity": "warning", "category": "mall", "area": "31.73"}
    soon = format_instant(time.time_ns() // 1_000_000 + 60_000)
    post(address, [{"labels": labels, "startsAt": format_instant(ours.raised_at), "endsAt": soon}])

    def sent_again() -> bool:
        return held(address, "v-3")["warning"]["endsAt"] > soon

    play(address, ([replace(ours, told=True), replace(others, told=True)], sent_again))
    assert not held(address, "v-4")


def test_a_pipeline_that_stands_still_silences_crowded_venues_and_a_critical_one_its_warning(address: str) -> None:
    warning, critical = notice(venue="v-5"), notice(venue="v-5", level="critical", alert_id="a5")

    def state(severity: str) -> str:
        return str(held(address, "v-5").get(severity, {}).get("status", {}).get("state"))

    play(address, ([warning, critical], lambda: (state("warning"), state("critical")) == ("suppressed", "active")))
    post(address, [{"labels": {"alertname": "PipelineStale", "severity": "page", "stale": "yes"}}])
    wait_until(lambda: state("critical") == "suppressed")


def test_a_refusal_is_tried_again_until_it_is_taken(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, tries = Alertmanager._call, []

    def refused_first(self: Alertmanager, path: str, body: Any = None) -> bytes:
        tries.append(path)
        if len(tries) < 3:
            raise OSError("503: not yet")
        return plain(self, path, body)

    monkeypatch.setattr(Alertmanager, "_call", refused_first)
    failed, accepted = play(address, ([notice(venue="v-6")], lambda: "warning" in held(address, "v-6")))
    assert (failed, accepted >= 0) == (2, True)


def test_who_answers_cannot_send_alerts_and_their_password_elsewhere() -> None:
    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        alertmanager = Alertmanager(f"http://u:p@127.0.0.1:{server.server_port}", QUIET_MS, lambda: None, lambda: None)
        with pytest.raises(OSError, match="302"):
            alertmanager._call("/api/v2/alerts", [])
        server.shutdown()
    assert asked == ["/api/v2/alerts"]


def test_history_is_not_sent_and_neither_is_its_end() -> None:
    outbox = Outbox(QUIET_MS)
    old = notice(raised_at=1_632_000_000_000)
    assert not outbox.note([old], time.time_ns() // 1_000_000)
    assert not outbox.note([replace(old, cleared_at=1_632_000_400_000)], time.time_ns() // 1_000_000)
    assert outbox.payload(0) == []


def test_alerts_in_force_are_sent_again_before_they_time_out() -> None:
    outbox = Outbox(QUIET_MS)
    first = notice()
    outbox.note([first], first.raised_at)
    for now in (first.raised_at, first.raised_at + 60_000):
        payload = outbox.payload(now)
        outbox.sent(payload)
        assert [alert["endsAt"] for alert in payload] == [format_instant(now + 240_000)]
    assert module.RESEND_SECONDS * 2 < module.LASTS_SECONDS
