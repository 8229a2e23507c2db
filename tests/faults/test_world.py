"""A process of the harness that does not do as it is told is an error, and is not left behind."""

from pathlib import Path

import pytest

from tests.faults.world import Process
from tests.waiting import wait_until

_DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def test_a_process_that_does_not_stop_is_an_error_with_what_it_said_and_is_gone(tmp_path: Path) -> None:
    deaf = Process(["-c", _DEAF], {}, tmp_path / "log")
    wait_until(lambda: "up" in deaf.log)
    with pytest.raises(AssertionError, match=r"did not stop within 0 s: up"):
        deaf.stop(0.2)
    assert deaf.status is not None


def test_one_that_died_before_it_was_told_to_stop_has_the_status_that_it_died_with(tmp_path: Path) -> None:
    dead = Process(["-c", "import os; os.kill(os.getpid(), 9)"], {}, tmp_path / "log")
    wait_until(lambda: dead.status is not None)
    assert dead.stop() == -9
