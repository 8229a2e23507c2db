"""The local broker is a real Kafka that starts once, keeps its data, and leaves nothing running."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from pipeline import broker as broker_module
from pipeline.broker import HOST, RunningBroker, answers, find_broker, start_broker
from pipeline.errors import UserError
from pipeline.topic_admin import ensure_topics
from pipeline.topics import Topic
from tests.waiting import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "a home, naïve"
    yield folder
    left = find_broker(folder)
    if left is not None:
        left.stop()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        yield other.getsockname()[1]


def pipeline(*arguments: str, home: Path, port: int = 1) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PIPELINE_HOME": str(home), "PIPELINE_KAFKA_PORT": str(port)}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_starting_again_finds_the_same_broker_and_stopping_ends_it(home: Path) -> None:
    with start_broker(home, 0) as first:
        again = start_broker(home, 0)
        assert (again.address, again.process.pid) == (first.address, first.process.pid)
        with pytest.raises(UserError, match=r"already runs on port .* stop it first with: pipeline broker stop"):
            start_broker(home, 1)
        assert answers(first.port)
        # Ctrl-C in our terminal goes to our session; the broker has its own.
        assert os.getsid(first.process.pid) != os.getsid(0)
    assert not answers(first.port)
    assert find_broker(home) is None


@pytest.mark.long
def test_topics_survive_a_killed_broker_and_a_change_of_ports(home: Path) -> None:
    kept = Topic("kept", 3)
    with start_broker(home, 0) as killed:
        ensure_topics(killed.address, [kept])
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
        with start_broker(home, 0) as restarted:
            assert restarted.port != killed.port
            (state,) = ensure_topics(restarted.address, [kept])
            assert not state.created
            assert not state.differences


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child to its parent")
def test_a_tied_broker_ends_when_its_starter_is_killed(home: Path) -> None:
    code = (
        "import sys, time, pathlib, pipeline.broker as b\n"
        "print(b.start_broker(pathlib.Path(sys.argv[1]), 0, tied_to_us=True).port, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline())
        assert answers(port)
        starter.kill()
    wait_until(lambda: find_broker(home) is None)
    assert not answers(port)


@pytest.mark.long
def test_the_commands_start_show_and_stop_it(home: Path) -> None:
    assert pipeline("broker", "status", home=home).returncode == 1
    port = broker_module.free_port()
    started = pipeline("broker", "start", home=home, port=port)
    assert started.stdout.startswith(f"Kafka runs at {HOST}:{port}, process "), started.stderr
    assert pipeline("broker", "start", home=home, port=port).stdout.startswith("Kafka already runs")
    status = pipeline("broker", "status", home=home)
    assert status.returncode == 0
    assert f"{HOST}:{port}" in status.stdout
    assert pipeline("broker", "stop", home=home).returncode == 0
    assert find_broker(home) is None
    assert pipeline("broker", "stop", home=home).stdout == "Kafka does not run\n"


def test_a_taken_port_is_named_and_nothing_is_left_running(home: Path, taken_port: int) -> None:
    with pytest.raises(UserError, match=rf"port {taken_port} of .* is taken by another program; .*PIPELINE_KAFKA_PORT"):
        start_broker(home, taken_port)
    assert find_broker(home) is None


@pytest.mark.long
def test_a_port_lost_in_a_race_is_replaced_by_another(
    home: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([taken_port, *range(taken_port + 1, 65_536)])

    def free_port() -> int:
        return next(port for port in ports if port == taken_port or broker_module.is_free(port))

    monkeypatch.setattr(broker_module, "free_port", free_port)
    with start_broker(home, 0) as broker:
        assert broker.port != taken_port


def test_a_broker_that_cannot_start_leaves_nothing_running_and_names_its_log(home: Path) -> None:
    data = home / "kafka" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=another\n")
    with pytest.raises(UserError, match=r"Kafka ended while starting \(.*node.*\); see .*broker.log"):
        start_broker(home, 0)
    assert find_broker(home) is None


def test_a_cluster_id_is_never_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter([UUID(bytes=b"\xfb" * 16), UUID(int=1)])
    monkeypatch.setattr(broker_module.uuid, "uuid4", lambda: next(ids))
    assert broker_module._cluster_id() == "AAAAAAAAAAAAAAAAAAAAAQ"


def test_a_full_disk_is_called_a_full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(*_: object) -> RunningBroker:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(broker_module, "_launch", launch)
    with pytest.raises(UserError, match=r"the disk of .*kafka is full; free some space"):
        start_broker(home, 0)


def test_what_java_says_of_a_full_disk_is_understood(tmp_path: Path) -> None:
    said = "ERROR Error while writing meta.properties\njava.io.IOException: No space left on device"
    assert "is full" in str(broker_module._explained(tmp_path / "broker.log", said))


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file/kafka: .*; make it writable, or set PIPELINE_HOME"):
        start_broker(tmp_path / "file", 0)
