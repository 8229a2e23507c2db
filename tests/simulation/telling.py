"""What several workers tell Kafka of exposures and warnings: played with the real tracers over the real engine.

Tracers run in threads that a scheduler lets go on one at a time, from one question to the store to the next, so that any of them
may stand still between any two, while others take its cases over. Questions and inserts fail, answers are lost, inserts come in
late, workers are killed, also with an insert on its way, or between a word to Kafka and its next look. Visits come and go. At the
end one worker takes everything over, and the last that the topics say must be what the views show.

Example: python -m tests.simulation.telling --seeds 200 --first 7
"""

import json
import os
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Semaphore, Thread
from typing import Any, Final
from unittest import mock

import click

from tests.simulation.histories import Failure, from_processes, options, play_all

#: Questions to the store, about, in which things happen.
STEPS: Final = 600
#: So many workers at most at a time.
_WORKERS: Final = 3
#: A worker at rest that is not done after so many steps never will be.
_PATIENCE: Final = 20_000

_SUNDAY: Final = 1_632_009_600_000
_MINUTE: Final = 60_000
_ILL: Final = {"c": "ill", "d": "sick"}
_TABLES: Final = (
    *("visit_rows", "exposure_rows", "interval_rows", "warning_rows", "published_rows", "case_rows", "report_set"),
    "report_offset_rows",
)
#: Of each topic: the view that shows what holds, and the name of its ids.
_OUTPUTS: Final = {"exposures": ("exposures", "exposure_id"), "venue-warnings": ("venue_warnings", "warning_id")}
_ASKED: Final = ("query", "command", "raw_query", "query_arrow", "insert_arrow")

#: What becomes of a question or insert, and how often: `late` and `killed late` are inserts that the store has after a while.
_FATES: Final = {"refused": 0.015, "answer lost": 0.015}
_FATES_OF_INSERTS: Final = _FATES | {"late": 0.015, "killed late": 0.015}
#: How often something else happens than a worker's next step.
_VISIT, _KILL, _REBALANCE, _LATE_COMES = 0.03, 0.004, 0.006, 0.01
#: How often a worker is killed at each step between its word to Kafka and its next look.
_KILLED_AT_WORD: Final = 0.02


class _Killed(BaseException):
    """What a worker notices of its end."""


class _Wire:
    """A worker's connection to the store."""

    def __init__(self, worker: "_Worker") -> None:
        self._worker = worker

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._worker.history.client, name)
        return partial(self._ask, name, real) if name in _ASKED else real

    def _ask(self, name: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        worker, history = self._worker, self._worker.history
        worker.pause()
        inserts = name == "insert_arrow" or str(arguments[0]).startswith("INSERT")
        match history.fate(inserts):
            case "refused":
                raise OSError("refused")
            case "answer lost":
                real(*arguments, **options)
                raise OSError("the answer was lost")
            case "late":
                history.late.append(partial(real, *arguments, **options))
                raise OSError("no answer")
            case "killed late":
                history.late.append(partial(real, *arguments, **options))
                raise _Killed
        answer = real(*arguments, **options)
        worker.pause()
        return answer


def _tracer(client: Any, settings: Any) -> Any:
    from pipeline.case_reports import CaseJudge
    from pipeline.store.tracing import TraceStore
    from pipeline.tracing.tracer import Tracer

    return Tracer(TraceStore(client), CaseJudge(settings), settings)


class _Worker:
    """A tracer and what `pipeline/streaming/tracing.py` does with it: one call after the other, from one thread."""

    def __init__(self, history: "_History") -> None:
        self.history = history
        self.killed = self.stopping = self.gone = False
        #: Partitions to take over, one after the other.
        self.orders: deque[list[int]] = deque()
        self._telling: Any = None
        self._said = self._busy = False
        self.tracer = _tracer(_Wire(self), history.settings)
        self._go, self._stands = Semaphore(0), Semaphore(0)
        Thread(target=self._run, daemon=True).start()

    def step(self) -> None:
        """Let it go on to its next stop."""
        self._go.release()
        self._stands.acquire()

    def pause(self) -> None:
        """Stand still until it is let go on; it may have been killed."""
        self._stands.release()
        self._go.acquire()
        if self.killed or (self._said and self.history.happens(_KILLED_AT_WORD)):
            raise _Killed

    @property
    def idle(self) -> bool:
        """Whether nothing is left for it to do."""
        tracer = self.tracer
        left = self._busy or self.orders or self._telling is not None
        return not (left or tracer.due or tracer._untold_cases or tracer._untold_venues)

    def _run(self) -> None:
        self._go.acquire()
        try:
            while not (self.stopping and self._telling is None and not self.tracer.contradicted):
                self._busy = True
                self._do_something()
                self._busy = False
                self.pause()
        except _Killed:
            pass
        except Exception as error:
            self.history.error = error
        self.gone = True
        self._stands.release()

    def _do_something(self) -> None:
        from pipeline.errors import StoreUnavailableError

        ways = [self._tell]
        if self.orders:
            ways.append(self._take_over)
        if self.tracer.due:
            ways.append(self._trace)
        if self.history.happens(0.05):
            ways.append(self.tracer.again)
        with suppress(StoreUnavailableError):  # it is tried again
            self.history.chance.choice(ways)()

    def _take_over(self) -> None:
        self.tracer.own(self.orders[0], everything=False)
        self.orders.popleft()

    def _trace(self) -> None:
        self.tracer.trace_some()

    def _tell(self) -> None:
        if self._telling is None:
            self._telling = self.tracer.untold()
        elif not self._said:
            self.history.hear(self._telling)
            self._said = True
        else:
            self.tracer.note_told(self._telling)
            self._telling, self._said = None, False


@dataclass(frozen=True, slots=True)
class _Store:
    client: Any
    settings: Any


class _History:
    """What happens to some workers, by a seed."""

    def __init__(self, store: _Store, seed: int) -> None:
        self.client, self.settings = store.client, store.settings
        self.chance = random.Random(seed)
        #: Inserts that the store has not had yet.
        self.late: list[Callable[[], Any]] = []
        self.error: Exception | None = None
        self._calm = False
        self._workers: list[_Worker] = []
        self._owner: _Worker | None = None
        self._versions = 0
        self._topics: dict[str, dict[str, bool]] = {topic: {} for topic in _OUTPUTS}
        for table in _TABLES:
            self.client.command(f"TRUNCATE TABLE {table}")

    def happens(self, share: float) -> bool:
        """Whether something happens that does so in a share of all times; at rest nothing does."""
        return not self._calm and self.chance.random() < share

    def fate(self, inserts: bool) -> str:
        """What becomes of a question to the store."""
        fates = {} if self._calm else _FATES_OF_INSERTS if inserts else _FATES
        return self.chance.choices(["answered", *fates], [1 - sum(fates.values()), *fates.values()])[0]

    def hear(self, told: Any) -> None:
        """Kafka has this."""
        _, name = _OUTPUTS[told.topic]
        for message in map(json.loads, told.messages):
            stands = message["case_count"] > 0 if "case_count" in message else message["tier"] != "withdrawn"
            self._topics[told.topic][message[name]] = stands

    def play(self, steps: int) -> str:
        """All of it; returns what is wrong at the end, "" for nothing."""
        self._report()
        for _ in range(self.chance.randint(1, _WORKERS)):
            self._workers.append(_Worker(self))
        self._rebalance()
        for _ in range(6):
            self._visit()
        favourite = None
        for _ in range(steps):
            living = self._living()
            if self.happens(_VISIT):
                self._visit()
            elif living and self.happens(_KILL):
                self.chance.choice(living).killed = True
            elif not living or self.happens(_REBALANCE):
                if len(living) < _WORKERS:
                    self._workers.append(_Worker(self))
                self._rebalance()
            elif self.late and self.happens(_LATE_COMES):
                self.late.pop(self.chance.randrange(len(self.late)))()
            else:
                # Mostly the same goes on: the others stand still meanwhile.
                if favourite not in living or self.happens(0.1):
                    favourite = self.chance.choice(living)
                self._step(favourite)
        return self._rest()

    def _rest(self) -> str:
        self._calm = True
        for insert in self.late:
            insert()
        for worker in self._living():
            worker.stopping = True
            self._until(worker, lambda worker=worker: worker.gone)  # type: ignore[misc]
        last = _Worker(self)
        last.orders.append([0, 1])
        self._until(last, lambda: last.idle)
        last.stopping = True
        self._until(last, lambda: last.gone)
        return "; ".join(filter(None, map(self._compare, _OUTPUTS)))

    def _compare(self, topic: str) -> str:
        view, name = _OUTPUTS[topic]
        standing = {each for each, stands in self._topics[topic].items() if stands}
        stored = {str(row[0]) for row in self.client.query(f"SELECT {name} FROM {view}").result_rows}
        if standing == stored:
            return ""
        return f"{topic} lacks {sorted(stored - standing)} and has {sorted(standing - stored)} too much"

    def _until(self, worker: _Worker, condition: Callable[[], bool]) -> None:
        for _ in range(_PATIENCE):
            if condition():
                return
            self._step(worker)
        raise AssertionError("a worker comes to no end")

    def _step(self, worker: _Worker) -> None:
        worker.step()
        if self.error is not None:
            raise self.error

    def _living(self) -> list[_Worker]:
        return [worker for worker in self._workers if not worker.gone]

    def _report(self) -> None:
        tracer = _tracer(self.client, self.settings)
        known = {"status": "confirmed", "reported_at": "2021-09-20T00:00:00Z"}
        known |= {"infectious_from": "2021-09-18T00:00:00Z", "infectious_until": "2021-09-21T00:00:00Z"}
        for partition, (case, visitor) in enumerate(_ILL.items()):
            canonical = json.dumps({"case_id": case, "visitor_id": visitor, **known}).encode()
            tracer.load("case-reports", partition, [0], [_SUNDAY], [case.encode()], [canonical])

    def _visit(self) -> None:
        chance = self.chance
        self._versions += 1
        start = _SUNDAY + chance.choice((0, 20)) * _MINUTE
        left = start + chance.choice((30, 60)) * _MINUTE
        self.client.command(
            "INSERT INTO visit_rows (venue_id, visitor_id, checked_in_at, left_at, ended, party_size, version, is_deleted) "
            f"VALUES ('{chance.choice('vw')}', '{chance.choice(('ill', 'sick', 'one', 'two', 'three'))}', "
            f"fromUnixTimestamp64Milli({start}), fromUnixTimestamp64Milli({left}), 'check_out', 1, {self._versions}, "
            f"{int(chance.random() < 0.35)})"
        )
        rows = self.client.query_arrow(f"SELECT * FROM visit_rows WHERE version = {self._versions}")
        if living := self._living():
            # Who has stored it matches it against its cases; the others find it when they look at all of theirs again.
            storer = self._owner if self._owner in living and chance.random() < 0.5 else chance.choice(living)
            storer.tracer.visits_stored(rows)

    def _rebalance(self) -> None:
        owners = [self.chance.choice(self._living()) for _ in _ILL]
        self._owner = owners[0]
        for worker in self._living():
            worker.orders.append([])
            if mine := [partition for partition, owner in enumerate(owners) if owner is worker]:
                worker.orders.append(mine)


def open_one(folder: str) -> _Store:
    """A store for histories, one after the other; in an interpreter of its own."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    settings = Settings(home=Path(folder), store=Path(folder))
    return _Store(open_store(settings), settings)


def failure(store: _Store, seed: int) -> str:
    """What is wrong at the end of a history; "" for nothing."""
    chance = random.Random(seed)
    with mock.patch("pipeline.tracing.tracer.secrets") as secrets:
        secrets.randbelow, secrets.randbits = chance.randrange, chance.getrandbits
        return _History(store, seed).play(STEPS)


def failures(folder: str, seeds: range) -> list[Failure]:
    """The seeds that fail, each with what is wrong; in an interpreter of its own."""
    store = open_one(folder)
    return [(seed, wrong) for seed in seeds if (wrong := failure(store, seed))]


def _in_a_folder(seeds: range) -> list[Failure]:
    from pipeline.no_pandas import leave_pandas_out

    leave_pandas_out()
    with TemporaryDirectory(prefix="telling-", ignore_cleanup_errors=True) as folder:
        return failures(folder, seeds)


@click.command(epilog="Example: python -m tests.simulation.telling --seeds 200 --first 7")
@options(500)
def command(seeds: int, first: int | None, record: bool) -> None:
    """Play histories of workers that tell Kafka of exposures; exit 1 if the last word of any is not what holds."""
    # They wait for the engine's answers half of the time.
    processes = 2 * (os.cpu_count() or 1)
    play_all(
        "tests.simulation.telling",
        seeds,
        first,
        record,
        lambda some: from_processes(_in_a_folder, [some[at::processes] for at in range(processes)], processes),
    )


if __name__ == "__main__":
    command()
