"""Each bug that `make faults` plants is one that this pipeline can have: what it replaces is still there, under that name."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from tests.faults import bugs


@pytest.mark.parametrize("bug", bugs.BUGS)
def test_a_bug_can_be_planted(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = []

    def replace(holder: Any, name: str, make: Callable[[Any], Any]) -> None:
        method = getattr(holder, name)
        monkeypatch.setattr(holder, name, wraps(method)(make(method)))
        replaced.append(name)

    monkeypatch.setattr(bugs, "_replace", replace)
    bugs.plant(bug)
    assert replaced
