"""Memory that grows under a steady load, once its windows are full, is wrong; while they fill, it grows and is not."""

from tests.faults.overload import SETTLED, Load, grown

_HURRY = 120.0
_LONG_ENOUGH = SETTLED.total_seconds() / _HURRY


def test_memory_that_grows_when_its_windows_are_full_is_wrong() -> None:
    filling = [100, 200, 300]
    grows, stays = [*filling, 400, 500, 500, 560, 560, 560], [*filling, 400, 500, 500, 500, 450, 520]
    assert grown(Load(930.0, _LONG_ENOUGH, memory=grows), _HURRY) == [
        "memory is not flat: 1.12 times as much in the last third as in the middle one"
    ]
    assert grown(Load(930.0, _LONG_ENOUGH, memory=stays), _HURRY) == []
    assert grown(Load(930.0, _LONG_ENOUGH - 1, memory=grows), _HURRY) == []
