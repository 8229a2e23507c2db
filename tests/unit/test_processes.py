"""Processes are found and ended only where they are certainly ours."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psutil
import pytest

from pipeline.processes import end_process, find_process, tied

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


@contextmanager
def running(*arguments: str, code: str = SLEEP) -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield psutil.Process(child.pid)
        finally:
            child.kill()


def test_a_process_is_found_by_one_whole_argument_only() -> None:
    mark = f"-Dmark={uuid4()}"
    with running(f"{mark}-longer"), running(f"about {mark}"):
        assert find_process(mark) is None
        with running("else", mark) as process:
            assert find_process(mark) == process


def test_sigterm_is_enough_for_a_process_that_heeds_it() -> None:
    with running() as process:
        end_process(process, patience=30)
        assert not process.is_running()


def test_a_process_that_does_not_heed_sigterm_is_killed() -> None:
    with running(code=DEAF) as process:
        end_process(process, patience=0.2)
        assert not process.is_running()


def test_ending_a_process_that_is_gone_is_no_error() -> None:
    with running() as process:
        process.kill()
        process.wait()
        end_process(process, patience=1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child to its parent")
def test_a_tied_child_ends_when_its_parent_is_killed() -> None:
    parent = f"""
import subprocess, sys, time
from pipeline.processes import tied
child = subprocess.Popen(tied([sys.executable, "-c", {SLEEP!r}]), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        starter.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_tied_command_is_the_command() -> None:
    done = subprocess.run(tied([sys.executable, "-c", "print('a b')"]), capture_output=True, text=True, check=True)
    assert done.stdout == "a b\n"
