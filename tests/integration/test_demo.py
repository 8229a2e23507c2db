"""The demo shows a whole day, leaves nothing running, and touches nothing but its own folder."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.broker import find_broker, free_port
from pipeline.produce import ScanProducer
from tests.waiting import wait_until

pytestmark = pytest.mark.kafka

PATIENCE = 300


class Demo:
    """A demo of a small day in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            "PIPELINE_HOME": str(self.home),
            "PIPELINE_KAFKA_PORT": str(free_port()),
            **settings,
        }
        demo = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "demo", "--scans", "5000", *arguments],
            env={**environment, "PIPELINE_HTTP_PORT": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(demo)
        return demo

    def end(self) -> None:
        for demo in self._running:
            demo.kill()
            demo.communicate()

    def parts(self) -> list[psutil.Process]:
        """What runs for this demo besides itself."""
        found = []
        for process in psutil.process_iter():
            try:
                names = str(self.home) in " ".join(process.cmdline()) or (
                    process.environ().get("PIPELINE_HOME", "").startswith(f"{self.home}/demo")
                )
            except psutil.Error:
                continue
            if names:
                found.append(process)
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path / "home")
    yield made
    made.end()
    broker = find_broker(made.home / "demo")
    if broker is not None:
        broker.stop()


def read_until(running: "subprocess.Popen[str]", text: str) -> str:
    """What it prints up to the line with `text`."""
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{''.join(lines)}\n{running.stderr and running.stderr.read()}")


def test_a_day_is_stored_verified_and_summed_up_and_nothing_stays(demo: Demo) -> None:
    mine = demo.home / "store" / "mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("untouched")
    running = demo.start("--once", PIPELINE_CLICKHOUSE_URL="http://127.0.0.1:1/nobodys")
    said, complained = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, complained
    assert complained == ""
    for line in (r"^sent 5,\d{3} scans", r"^stored 5,\d{3} scans", r"^[\d,]+ visits; busiest", r"^verified: "):
        assert re.search(line, said, re.MULTILINE), said
    assert "differ" not in said
    assert demo.parts() == []
    assert mine.read_text() == "untouched"
    assert (demo.home / "demo" / "store").is_dir()


@pytest.mark.long
def test_it_goes_on_serving_until_ctrl_c_and_then_ends_everything(demo: Demo) -> None:
    running = demo.start()
    said = read_until(running, "Ctrl-C ends everything")
    (metrics,) = re.findall(r"http://\S+/metrics", said)
    with urllib.request.urlopen(metrics, timeout=10) as page:
        assert page.status == 200
    running.send_signal(signal.SIGINT)
    _, complained = running.communicate(timeout=PATIENCE)
    assert (running.returncode, complained) == (0, "")
    assert demo.parts() == []


@pytest.mark.long
def test_a_worker_that_dies_is_named_and_everything_else_ends(demo: Demo) -> None:
    running = demo.start()
    read_until(running, "Ctrl-C ends everything")
    (worker,) = [part for part in demo.parts() if part.cmdline()[-1] == "worker"]
    worker.kill()
    _, complained = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert "pipeline: the worker has ended unexpectedly; its log is " in complained
    assert "INFO" in complained  # the log's last lines
    assert demo.parts() == []


@pytest.mark.long
def test_nothing_outlives_a_demo_that_is_terminated_or_killed(demo: Demo) -> None:
    first = demo.start()
    read_until(first, "sent")
    second = demo.start("--once")
    _, complained = second.communicate(timeout=PATIENCE)
    assert second.returncode == 1
    assert complained.startswith("pipeline: another demo is running in ")
    first.terminate()
    assert first.wait(PATIENCE) == 128 + signal.SIGTERM
    assert demo.parts() == []
    third = demo.start()
    read_until(third, "sent")
    third.kill()
    wait_until(lambda: demo.parts() == [])


@pytest.mark.long
def test_somebodys_cluster_with_scans_in_it_is_left_alone(demo: Demo, kafka_topics: Callable[..., str]) -> None:
    kafka = kafka_topics(partitions=2)
    with ScanProducer(kafka, "check-ins") as producer:
        producer.send(b"v", b"somebody's")
    running = demo.start("--once", PIPELINE_KAFKA=kafka)
    _, complained = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert f"of Kafka at {kafka} are not empty: a demo needs topics of its own" in complained
