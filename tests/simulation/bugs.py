"""Bugs of the protocol to be planted under the simulation: one that catches none of them shows nothing.

Some are those of the harness of real processes; the others are what it cannot time well enough.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from pipeline import alert_telling
from pipeline import engine as engines
from pipeline.engine import Engine
from pipeline.store import crowding, recovery, retention
from pipeline.store.writer import Writer
from tests.faults import bugs as of_processes
from tests.simulation.world import TOPIC, SimulatedWorker


def plant(name: str, patch: pytest.MonkeyPatch) -> None:
    """Put a bug into this process, for as long as the patch lasts."""
    if name in _OURS:
        _OURS[name](patch)
    else:
        of_processes.plant_while(patch, name)


def _commit_before_insert(patch: pytest.MonkeyPatch) -> None:
    poll = SimulatedWorker.poll

    def early(worker: SimulatedWorker, count: int) -> None:
        poll(worker, count)
        worker._world.commit(
            worker, {(TOPIC, each): at for each, at in worker._position.items() if each in worker.owned}
        )

    patch.setattr(SimulatedWorker, "poll", early)


def _progress_before_scans(patch: pytest.MonkeyPatch) -> None:
    insert = Writer.insert

    def disordered(writer: Any, table: str, rows: Any) -> None:
        if table == "scan_set":
            writer.late = rows
            return
        insert(writer, table, rows)
        if table == "progress_rows" and hasattr(writer, "late"):
            insert(writer, "scan_set", writer.late)
            del writer.late

    patch.setattr(Writer, "insert", disordered)


def _derived_rows_after_scans(patch: pytest.MonkeyPatch) -> None:
    insert = Writer.insert

    def disordered(writer: Any, table: str, rows: Any) -> None:
        if table in ("visit_rows", "minute_rows", "hour_rows"):
            writer.__dict__.setdefault("late", []).append((table, rows))
            return
        if table == "progress_rows":
            for each in writer.__dict__.pop("late", ()):
                insert(writer, *each)
        insert(writer, table, rows)

    patch.setattr(Writer, "insert", disordered)


def _nothing(holder: Any, name: str, value: Any = None) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(holder, name, lambda *_given, **_named: value)


def _clock_of_the_furthest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        recovery,
        "computed_of",
        lambda standing, owned, **_named: dict.fromkeys(owned, standing.as_of),
    )


def _letters_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        engines,
        "_letter",
        lambda topic, partition, _offset, at, value, rejection: engines.DeadLetter(
            topic, partition, 0, rejection.reason, rejection.detail, None, value, at
        ),
    )


def _rules_unheard_of(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "rules_of", lambda _standing, owned, **_named: dict.fromkeys(owned, -1))
    patch.setattr(engines, "read_followed", lambda *_: {})


def _ids_at_random(patch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    for module in (alert_telling, crowding):
        patch.setattr(module, "alert_id", lambda *_given: f"{chance.getrandbits(64):016x}")


def _ever_older_clock(patch: pytest.MonkeyPatch) -> None:
    take = Engine.take

    def forgetful(engine: Engine, *, idle: bool) -> Any:
        engine._watermark = engines.BEGINNING
        return take(engine, idle=idle)

    patch.setattr(Engine, "take", forgetful)


_OURS: Final[Mapping[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "commit before insert": _commit_before_insert,
    "progress row before scans": _progress_before_scans,
    "derived rows after scans": _derived_rows_after_scans,
    "nobody looks who owns": _nothing(Writer, "_hold_claim"),
    "late rows not looked for": _nothing(Engine, "notice_others"),
    "late rows of earlier takeovers not looked for": _nothing(recovery, "takeovers", {}),
    "late scans not looked for": _nothing(recovery, "unaccounted_scans", set()),
    "clock of the worker furthest on": _clock_of_the_furthest,
    "rules unheard of": _rules_unheard_of,
    "dead letters with one offset": _letters_lost,
    "non-deterministic id": _ids_at_random,
    "watermark goes back": _ever_older_clock,
    "visits over the edge of retention stay": _nothing(retention, "_ask_for_visits_over"),
    "scans dropped uncounted": _nothing(retention, "_count_scans"),
    "a cut that was broken off counts twice": _nothing(retention, "_counted", "0"),
}

#: Those of the harness of processes that are of the protocol, not of what is around it.
_SHARED: Final = (
    "skip after rebalance",
    "swallowed store error",
    "lost late scan",
    "double expiry",
    "duplicate counted twice",
    "stale epoch",
)

BUGS: Final = (*_OURS, *_SHARED)
