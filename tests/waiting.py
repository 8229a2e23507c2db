"""Waiting for what another process does, on machines that may be busy."""

import time
from collections.abc import Callable
from typing import Final

#: How long a test waits before it says that something did not happen, in seconds. A bound for what went wrong, not a promise
#: of speed: a worker that starts on a busy machine once took more than 20 s, and a right answer failed the whole run.
PATIENCE: Final = 180.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; AssertionError after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in {PATIENCE:.0f} s"
        time.sleep(0.05)
