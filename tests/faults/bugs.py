"""Bugs to be planted, each of a kind that the verifier must catch: a harness that cannot fail shows nothing.

Loaded by tests/faults/sick.py into workers that are to have the bug. `BUGS` names, for each, the faults that bring it out.
"""

import random
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pytest

#: Faults under which every bug that needs a crash shows itself.
_KILLS: Final = {"worker killed": 1}

#: Bug → the faults that it needs, by weight; nothing for one that ordinary traffic brings out.
BUGS: Final[Mapping[str, Mapping[str, int]]] = {
    "commit before insert": {"disk full": 1},
    "skip after rebalance": _KILLS,
    "swallowed store error": {"store refuses": 1, "disk full": 1},
    "non-deterministic id": {},
    "lost late scan": {},
    "double expiry": {},
    "dropped dead letter": {},
    "duplicate counted twice": {},
    "wrong watermark": {},
    "stale epoch": _KILLS,
    "raw identifier in a detail": {},
    "alert a second late": {},
    "missed exposure": {},
}

#: Bug → what it shows itself by, any of it: a worker that was in the way of another fault catches none.
SIGNS: Final[Mapping[str, tuple[str, ...]]] = {
    "commit before insert": ("is committed up to",),
    "skip after rebalance": ("is committed up to", "accounting", "scans: "),
    "swallowed store error": ("scans: ", "visits: ", "occupancy", "accounting", "dead_letters: "),
    "non-deterministic id": ("crowding",),
    "lost late scan": ("accounting", "scans: ", "visits: "),
    "double expiry": ("occupancy_",),
    "dropped dead letter": ("topic dead-letters",),
    "duplicate counted twice": ("accounting",),
    "wrong watermark": ("the watermark",),
    "stale epoch": ("--drain", "accounting", "visits: ", "occupancy", "ended with 1"),
    "raw identifier in a detail": ("raw identifier",),
    "alert a second late": ("crowding_alerts: ",),
    "missed exposure": ("exposures: ",),
}

#: Those by which a pipeline may also come to a standstill.
STANDING_STILL: Final = frozenset({"stale epoch"})


def plant(name: str) -> None:
    """Put a bug into this process."""
    _PATCHES[name]()


def plant_while(patch: "pytest.MonkeyPatch", name: str) -> list[str]:
    """The same for as long as the patch lasts. Returns the names of what was replaced."""
    replaced = []

    def replace(holder: Any, attribute: str, make: Callable[[Any], Any]) -> None:
        method = getattr(holder, attribute)
        patch.setattr(holder, attribute, wraps(method)(make(method)))
        replaced.append(attribute)

    with mock.patch(f"{__name__}._replace", replace):
        plant(name)
    return replaced


def _replace(holder: Any, name: str, make: Callable[[Any], Any]) -> None:
    method = getattr(holder, name)
    setattr(holder, name, wraps(method)(make(method)))


def _commit_before_insert() -> None:
    from pipeline.streaming.worker import Worker

    def make(submit: Any) -> Any:
        async def early(worker: Any, batch: Any) -> None:
            await submit(worker, batch)
            worker.note_stored({(batch.topic, batch.partition): batch.offsets[-1] + 1})

        return early

    _replace(Worker, "submit", make)


def _skip_after_rebalance() -> None:
    from pipeline.engine import Engine

    def make(assign: Any) -> Any:
        return lambda *given: {each: None if offset is None else offset + 20 for each, offset in assign(*given).items()}

    _replace(Engine, "assign", make)


def _swallowed_store_error() -> None:
    from pipeline.errors import StoreUnavailableError
    from pipeline.store.writer import Writer

    def make(insert: Any) -> Any:
        def careless(*given: Any) -> None:
            try:
                insert(*given)
            except StoreUnavailableError:
                return

        return careless

    _replace(Writer, "insert", make)


def _nondeterministic_id() -> None:
    from pipeline import alert_telling

    _replace(alert_telling, "alert_id", lambda _: lambda *_: f"{random.getrandbits(64):016x}")


def _lost_late_scan() -> None:
    from pipeline.engine import Engine

    def make(fold: Any) -> Any:
        def forgetful(self: Any, columns: Any, progress: Any) -> Any:
            venues = fold(self, columns, progress)
            # Counted, or the pipeline would itself refuse to store what does not add up.
            progress.duplicates += len(self._ancient)
            self._ancient.clear()
            return venues

        return forgetful

    _replace(Engine, "_fold", make)


def _double_expiry() -> None:
    from pipeline import engine

    def make(minute_table: Any) -> Any:
        def doubled(*given: Any) -> pa.Table:
            table = minute_table(*given)
            place = table.column_names.index("departures")
            return table.set_column(
                place, "departures", pc.multiply(table["departures"], 2).cast(table["departures"].type)
            )

        return doubled

    _replace(engine, "minute_table", make)


def _dropped_dead_letter() -> None:
    from pipeline.streaming import service

    _replace(service, "publish_dead_letters", lambda publish: lambda app, letters: publish(app, letters[1:]))


def _duplicate_counted_twice() -> None:
    from pipeline.engine import Engine

    def make(fold: Any) -> Any:
        def generous(self: Any, columns: Any, progress: Any) -> Any:
            before = progress.duplicates
            venues = fold(self, columns, progress)
            # As new ones, too, and as duplicates no more, for the same reason.
            progress.stored += progress.duplicates - before
            progress.duplicates = before
            return venues

        return generous

    _replace(Engine, "_fold", make)


def _wrong_watermark() -> None:
    from pipeline.streaming.worker import Worker

    def make(show_counters: Any) -> Any:
        def wavering(self: Any) -> None:
            show_counters(self)
            counters, reasons = self._metrics.counters
            behind = random.randrange(3_600_000)
            self._metrics.counters = counters | {"watermark_ms": max(0, counters["watermark_ms"] - behind)}, reasons

        return wavering

    _replace(Worker, "_show_counters", make)


def _stale_epoch() -> None:
    from dataclasses import replace

    from pipeline.store import recovery

    _replace(recovery, "read_standing", lambda read: lambda client: replace(read(client), epoch=0))
    _replace(recovery, "claimed_epoch", lambda _: lambda _client: 0)


def _raw_identifier_in_a_detail() -> None:
    from dataclasses import replace

    from pipeline import engine

    def make(letter: Any) -> Any:
        def telling(topic: str, partition: int, offset: int, at: int, value: bytes | None, rejection: Any) -> Any:
            shown = (value or b"")[:400].decode(errors="replace")
            return letter(
                topic, partition, offset, at, value, replace(rejection, detail=f"{rejection.detail}: {shown}")
            )

        return telling

    _replace(engine, "_letter", make)


def _alert_a_second_late() -> None:
    from pipeline.core.crowding import Levels

    def make(init: Any) -> Any:
        def late(self: Any, *given: Any) -> None:
            init(self, *given)
            self._limits = tuple((raise_at, hold + 1_000, *rest) for raise_at, hold, *rest in self._limits)

        return late

    _replace(Levels, "__init__", make)


def _missed_exposure() -> None:
    from pipeline.tracing.found import Exposed

    _replace(Exposed, "_table", lambda table: lambda self: table(self)[1:])


_PATCHES: Final[Mapping[str, Callable[[], None]]] = {
    "commit before insert": _commit_before_insert,
    "skip after rebalance": _skip_after_rebalance,
    "swallowed store error": _swallowed_store_error,
    "non-deterministic id": _nondeterministic_id,
    "lost late scan": _lost_late_scan,
    "double expiry": _double_expiry,
    "dropped dead letter": _dropped_dead_letter,
    "duplicate counted twice": _duplicate_counted_twice,
    "wrong watermark": _wrong_watermark,
    "stale epoch": _stale_epoch,
    "raw identifier in a detail": _raw_identifier_in_a_detail,
    "alert a second late": _alert_a_second_late,
    "missed exposure": _missed_exposure,
}
