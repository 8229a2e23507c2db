"""Each bug that `make faults` plants is one that this pipeline can have: what it replaces is still there, under that name."""

import pytest

from tests.faults import bugs


@pytest.mark.parametrize("bug", bugs.BUGS)
def test_a_bug_can_be_planted(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bugs.plant_while(monkeypatch, bug)
