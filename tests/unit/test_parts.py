"""Whatever happens to a command, the parts that it started end, and it says which one failed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from pipeline.parts import Part, PartFailedError, Parts, end_on_signals, last_lines

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
#: Takes a moment after SIGTERM, and writes down when it ended.
SLOW_TO_END = """
import signal, sys, time
def end(*_):
    open(sys.argv[1], "a").write(sys.argv[2] + " ")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(60)
"""
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


@pytest.fixture
def log(tmp_path: Path) -> Any:
    with (tmp_path / "part.log").open("w+") as file:
        yield file


def start(parts: Parts, log: IO[str], name: str, code: str, *arguments: str) -> Part:
    """Start a part and wait until it says that it is up."""
    read, write = os.pipe()
    with os.fdopen(read) as said, os.fdopen(write, "w") as output:
        part = parts.start(name, [sys.executable, "-c", code, *arguments], os.environ, output, log)
        output.close()
        if "'up'" in code or '"up"' in code:
            assert said.readline() == "up\n"
    return part


def until_ended(parts: Parts, part: Part) -> int:
    while (status := parts.wait(part, 0.02)) is None:
        pass
    return status


def check_for(parts: Parts, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        parts.check()
        time.sleep(0.02)


def ended(part: Part) -> bool:
    return not psutil.pid_exists(part.process.pid)


def test_parts_end_in_the_opposite_order_of_their_start(tmp_path: Path, log: IO[str]) -> None:
    order = tmp_path / "order"
    with Parts() as parts:
        for name in ("first", "second", "third"):
            start(parts, log, name, SLOW_TO_END, str(order), name)
    assert order.read_text().split() == ["third", "second", "first"]


def test_parts_end_when_the_block_fails(log: IO[str]) -> None:
    parts = Parts()
    part = start(parts, log, "part", SLEEP)
    with pytest.raises(ZeroDivisionError), parts:
        _ = 1 / 0
    assert ended(part)


def test_an_impatient_interrupt_kills_what_is_left(log: IO[str]) -> None:
    parts = Parts()
    first, deaf = start(parts, log, "first", DEAF), start(parts, log, "deaf", DEAF)
    with end_on_signals():
        subprocess.Popen(
            [sys.executable, "-c", f"import os, time; time.sleep(0.5); os.kill({os.getpid()}, {int(signal.SIGTERM)})"]
        )
        began = time.monotonic()
        with pytest.raises(SystemExit), parts:
            pass
    assert time.monotonic() - began < 20
    assert ended(first)
    assert ended(deaf)


def test_a_part_that_ends_by_itself_is_named_with_its_last_words(log: IO[str]) -> None:
    with Parts() as parts:
        start(parts, log, "other", SLEEP)
        part = start(parts, log, "worker", "import sys; sys.exit('out of memory')")
        with pytest.raises(PartFailedError, match=r"the worker has ended unexpectedly; its log is .*part.log") as error:
            check_for(parts, seconds=30)
    assert error.value.last_lines == "out of memory"
    assert ended(part)


def test_waiting_for_one_part_notices_that_another_has_ended(log: IO[str]) -> None:
    with Parts() as parts:
        waited = start(parts, log, "waited", SLEEP)
        broker = start(parts, log, "broker", SLEEP)
        assert parts.wait(waited, 0.01) is None
        broker.process.kill()
        with pytest.raises(PartFailedError, match="the broker has ended"):
            until_ended(parts, waited)


@pytest.mark.parametrize("status", [0, 3])
def test_a_part_that_is_meant_to_end_gives_its_status(log: IO[str], status: int) -> None:
    with Parts() as parts:
        part = start(parts, log, "part", f"import sys, time; time.sleep(0.1); sys.exit({status})")
        assert until_ended(parts, part) == status
        parts.check()


def test_the_terminals_interrupt_does_not_reach_a_part(log: IO[str]) -> None:
    with Parts() as parts:
        assert os.getsid(start(parts, log, "part", SLEEP).process.pid) != os.getsid(0)


def test_only_the_end_of_a_long_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(f"line {n}" for n in range(100_000)))
    assert last_lines(log).splitlines() == [f"line {n}" for n in range(99_985, 100_000)]
