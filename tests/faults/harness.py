"""The fault harness: a running pipeline, hurt at random from a seed, watched meanwhile and compared with its log at the end."""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
from clickhouse_connect.driver.exceptions import ClickHouseError
from kafka.errors import KafkaError

from tests.faults import feed as feeds
from tests.faults.bugs import SIGNS
from tests.faults.feed import Feed
from tests.faults.recount import Crowding
from tests.faults.sick import POINTS
from tests.faults.verifier import Promise, Verdict, Watch, committed, verify, verify_running
from tests.faults.world import Process, World

PARTITIONS: Final = 4
MOST_WORKERS: Final = 4

_SETTINGS: Final = {
    "PIPELINE_FLUSH_ROWS": "2000",
    "PIPELINE_FLUSH_SECONDS": "0.2",
    # The least: so that scans that are days late, or hours, are corrected from the store.
    "PIPELINE_LATE_WINDOW": "PT2H",
    "PIPELINE_MAX_STAY": "PT2M",
    "PIPELINE_MAX_STAY_BY_CATEGORY": '{"kiosk": "PT1M", "mall": "PT3M", "office": "PT12H"}',
    "PIPELINE_CROWDING": json.dumps(
        {level: {"raise_for": "PT5S", "clear_for": "PT5S"} for level in ("warning", "critical")}
    ),
}

#: What may never go back is looked at so often, in seconds.
LOOK_SECONDS: Final = 2.0

#: What no worker may hold in memory, in MiB, by whether the store is shared: twice what one does with the few scans of a run,
#: without an engine of its own and with one.
MOST_MIB: Final = {True: 1_024, False: 2_048}

#: What may happen, and how often of a hundred.
WEIGHTS: Final = {
    "worker killed": 18,
    "worker killed at a point": 18,
    "worker stopped 5 s": 5,
    "worker stopped 20 s": 3,
    "worker stopped 70 s": 1,
    "worker joins": 6,
    "worker leaves": 6,
    "connections to Kafka cut": 9,
    "Kafka slow": 5,
    "Kafka black-holed": 5,
    "broker killed": 3,
    "store killed": 3,
    "store refuses": 4,
    "store answers are lost": 4,
    "store answers are cut": 4,
    "store slow": 3,
    "store hangs": 2,
    "disk full": 4,
    "venue changed": 4,
}

#: What may happen to the one worker of an embedded store.
ALONE: Final = {
    "worker killed": 26,
    "local state deleted": 4,
    "worker killed at a point": 40,
    "connections to Kafka cut": 8,
    "Kafka slow": 4,
    "Kafka black-holed": 4,
    "broker killed": 4,
    "venue changed": 10,
}

#: Nothing but what is measured, far apart: what recovery takes by itself.
CALM: Final = {"worker killed": 4, "broker killed": 1}

#: After a fault of these it is measured how long it takes until all that was sent before it is stored; the most that it may take
#: where nothing else is wrong, in seconds.
MEASURED: Final = {"worker killed": 15.0, "broker killed": 30.0}

#: Corrections and tracing may follow what was read last by so many seconds: of visits that another worker has stored a case hears
#: by its worker's next sweep, a minute after the last, or three times as long as one takes.
SETTLED_SECONDS: Final = 300.0


@dataclass(slots=True)
class Result:
    """What a run found."""

    seed: int
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    recovery: dict[str, list[float]] = field(default_factory=dict)
    exits: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    memory_mib: int = 0
    wrong: list[str] = field(default_factory=list)
    verdict: Verdict | None = None


def promise_of(world: World) -> Promise:
    """What the verifier has to be told."""
    millisecond = timedelta(milliseconds=1)
    return Promise(
        world.kafka,
        world.store_url,
        world.group,
        feeds.MAX_STAY // millisecond,
        {category: stay // millisecond for category, stay in feeds.STAYS.items()},
        crowding={"warning": Crowding(1000, 5_000, 900, 5_000), "critical": Crowding(1100, 5_000, 900, 5_000)},
        secrets=(feeds.SECRET,),
    )


class Harness:
    """One run. `bug`: every worker has this one of tests/faults/bugs.py. `shared`: several workers on one store, or one alone."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        rate: float = 150.0,
        bug: str | None = None,
        say: Callable[[str], None] = print,
        shared: bool = True,
    ) -> None:
        self.result = Result(seed)
        self._chance = random.Random(seed)
        self._say = say
        self._shared = shared
        self._bug = {"FAULTS_BUG": bug} if bug else {}
        self._signs = SIGNS[bug] if bug else ()
        self.world = World(folder, PARTITIONS, dict(_SETTINGS), shared=shared)
        self.feed = Feed(self.world.kafka, random.Random(seed + 1), rate)
        self.workers: list[Process] = []
        self._doomed: list[Process] = []
        self._watch = Watch(promise_of(self.world))
        self._ends: list[tuple[float, Callable[[], None]]] = []
        self._said: list[str] = []
        self._look_at = 0.0

    # --- a run

    def run(self, faults: int, seconds: float, pace: float, kinds: Mapping[str, int] = WEIGHTS) -> Result:
        """Start, hurt until there were so many faults or the time is over, and compare at the end."""
        begun = time.monotonic()
        try:
            self.start(2 if self._shared else 1)
            if faults:
                self._hurt(faults, time.monotonic() + seconds, pace, kinds)
            else:
                self.tend(seconds)
            if self.signs():
                return self.result
            self.rest()
            if self.result.memory_mib > MOST_MIB[self._shared]:
                self.result.wrong.append(f"a worker held {self.result.memory_mib:,} MiB: too much for so few scans")
            rebuilt = "local state deleted" in self.result.faults
            self.result.verdict = verify(promise_of(self.world), [self.world.logs(), *self._said], rebuilt=rebuilt)
            self.result.wrong += self.result.verdict.wrong
            self._verify_by_itself()
        finally:
            self.close()
        self.result.looks = self._watch.looks
        self.result.seconds = time.monotonic() - begun
        return self.result

    def start(self, workers: int) -> None:
        """Register the venues, start workers, begin to send; returns when everything is being read."""
        for record in feeds.venues(self._chance):
            self.feed.register(record)
        self.feed.report("case", f"p-{self._chance.randrange(feeds.VISITORS)}")
        self.feed.start()
        for _ in range(workers):
            self._start_worker()
        while self.feed.sent < self.feed.rate:
            time.sleep(0.1)
        self.wait_until_stored(240)

    def _hurt(self, faults: int, until: float, pace: float, kinds: Mapping[str, int]) -> None:
        names, weights = list(kinds), list(kinds.values())
        done = 0
        while done < faults and time.monotonic() < until:
            if done == faults // 2:
                self.feed.version = 2
            if done % 10 == 5:
                self.feed.report(f"case-{done}", f"p-{self._chance.randrange(feeds.VISITORS)}")
            name = self._chance.choices(names, weights)[0]
            if "worker" in name or "local" in name or kinds is CALM:
                self._wait_for_workers(all if kinds is CALM else any)
            since = time.monotonic()
            self._inflict(name)
            done += 1
            if self.signs():
                return
            if name in MEASURED and not self._ends and (kinds is CALM or self._chance.random() < 0.6):
                took = self._measure(name, since)
                if kinds is CALM and took > MEASURED[name]:
                    self.result.wrong.append(
                        f"{name}: all stored again after {took:.1f} s, more than {MEASURED[name]:.0f}"
                    )
            self.tend(pace * self._chance.uniform(0.3, 1.7))

    def _inflict(self, name: str) -> None:
        self.result.faults[name] += 1
        self._say(f"{time.strftime('%H:%M:%S')} {name}")
        getattr(self, f"_{name.replace(' ', '_').replace('-', '_').lower()}")()

    def _measure(self, name: str, since: float) -> float:
        self.wait_until_stored(120)
        took = round(time.monotonic() - since, 2)
        self.result.recovery.setdefault(name, []).append(took)
        return took

    def signs(self) -> list[str]:
        """Of what is wrong, what a planted bug may show itself by."""
        return [each for each in self.result.wrong if any(sign in each for sign in self._signs)]

    def tend(self, seconds: float) -> None:
        """Look on for some time: bring back workers that died, end faults that have lasted, watch what may not go back."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            for each in [each for each in self._ends if each[0] <= now]:
                self._ends.remove(each)
                each[1]()
            self._bury()
            self._look()
            if time.monotonic() >= until:
                return
            time.sleep(0.2)

    def _look(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        for worker in self.workers:
            with suppress(psutil.Error):
                held = psutil.Process(worker.pid).memory_info().rss >> 20
                self.result.memory_mib = max(self.result.memory_mib, held)
        if not self._shared:
            return
        metrics = {worker.pid: worker.metrics() for worker in self.workers}
        self._said += map(str, metrics.values())
        with suppress(ClickHouseError, KafkaError, OSError, IndexError):
            before = committed(self.world.kafka, self.world.group)
            self.result.wrong += [f"meanwhile: {each}" for each in self._watch.look(before, metrics)]

    def _bury(self) -> None:
        for worker in list(self.workers):
            if worker.status is not None:
                self.workers.remove(worker)
                self.result.exits[f"status {worker.status}"] += 1
                if worker.status not in (0, -signal.SIGKILL):
                    self._say(worker.log[-2000:])
                    last = (worker.log.rstrip().splitlines() or ["it said nothing"])[-1]
                    self.result.wrong.append(f"meanwhile: a worker ended with {worker.status}: {last[:300]}")
                self._start_worker()

    def wait_until_stored(self, patience: float) -> None:
        """Return once all that is in the log now is stored; AssertionError after `patience` seconds."""
        ends = self.world.ends()
        until = time.monotonic() + patience
        while any(self.world.accounting().get(partition, 0) < end for partition, end in ends.items() if end):
            self._bury()
            for each in [each for each in self._ends if each[0] <= time.monotonic()]:
                self._ends.remove(each)
                each[1]()
            assert time.monotonic() < until, (
                f"not stored after {patience:.0f} s: {ends}, {self.world.accounting()}\n{self._where_they_are()}"
            )
            time.sleep(0.1)

    def _where_they_are(self) -> str:
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
            worker.signal(signal.SIGUSR1)
        time.sleep(3)
        return "\n".join(f"worker {worker.pid}:\n{worker.log[-40_000:]}" for worker in self.workers)

    def rest(self) -> None:
        """Stop sending, heal everything, have everything stored, and bring all to one clock with a last worker."""
        for _, heal in self._ends:
            heal()
        self._ends.clear()
        self.feed.stop()
        self.wait_until_stored(240)
        if self._shared and not self._bug:
            # Before anybody takes over and mends what is wrong.
            self.result.wrong += [f"while workers ran: {each}" for each in self._settled()]
        self._said += [str(worker.metrics()) for worker in self.workers]
        for worker in self.workers:
            status = worker.stop()
            self.result.exits[f"status {status}"] += 1
            # The stop of another is a rebalance, in which one that is to die at a point may come to it.
            if status and not (status == -signal.SIGKILL and worker in self._doomed):
                self._say(worker.log[-12_000:])
                self.result.wrong.append(f"a worker that was asked to stop ended with {status}")
        self.workers.clear()
        self._said.append(self.world.run("worker", "--drain", module="tests.faults.sick", **self._bug))
        if not self._shared:
            self.world.share_store()

    def _settled(self) -> list[str]:
        until = time.monotonic() + SETTLED_SECONDS
        while True:
            self._bury()
            with suppress(ClickHouseError, OSError):
                if not (wrong := verify_running(promise_of(self.world))) or time.monotonic() >= until:
                    return wrong
            time.sleep(3)

    def _verify_by_itself(self) -> None:
        if not self._bug:
            try:
                self.world.run("verify")
            except AssertionError as error:
                self.result.wrong.append(f"pipeline verify: {error}")

    def close(self) -> None:
        """End everything, whatever happened."""
        with suppress(AssertionError, RuntimeError):
            self.feed.stop()
        for worker in self.workers:
            worker.kill()
        self.world.close()

    # --- the faults

    def _start_worker(self, **patches: str) -> Process:
        worker = self.world.start_worker(**self._bug, **patches)
        self.workers.append(worker)
        return worker

    def _any_worker(self) -> Process:
        # One that has come to read, mostly: on a busy machine a worker that was just started does nothing worth interrupting.
        up = [worker for worker in self.workers if "reading partitions" in worker.log]
        return self._chance.choice(up if up and self._chance.random() < 0.9 else self.workers)

    def _wait_for_workers(self, enough: Callable[[Iterable[bool]], bool]) -> None:
        until = time.monotonic() + 60
        while not enough("reading partitions" in worker.log for worker in self.workers) and time.monotonic() < until:
            self.tend(0.5)

    def _later(self, seconds: float, heal: Callable[[], None]) -> None:
        self._ends.append((time.monotonic() + seconds, heal))

    def _worker_killed(self) -> None:
        self._any_worker().kill()
        self._bury()

    def _worker_killed_at_a_point(self) -> None:
        # It takes the place of another, comes to its point sooner or later, and is replaced by a healthy one.
        point = self._chance.choice(POINTS)
        self._any_worker().kill()
        self.workers = [worker for worker in self.workers if worker.status is None]
        self._doomed.append(self._start_worker(FAULTS_KILL=f"{point}:{self._chance.choice((1, 2, 5, 20))}"))
        self.result.faults[f"… {point}"] += 1

    def _paused(self, seconds: float) -> None:
        worker = self._any_worker()
        worker.signal(signal.SIGSTOP)
        self._later(seconds, lambda: worker.signal(signal.SIGCONT))

    def _worker_stopped_5_s(self) -> None:
        self._paused(5)

    def _worker_stopped_20_s(self) -> None:
        self._paused(20)

    def _worker_stopped_70_s(self) -> None:
        self._paused(70)

    def _worker_joins(self) -> None:
        if len(self.workers) < MOST_WORKERS:
            self._start_worker()
        else:
            self._worker_leaves()

    def _worker_leaves(self) -> None:
        if len(self.workers) > 1:
            worker = self._any_worker()
            self.workers.remove(worker)
            worker.signal(signal.SIGCONT)
            worker.signal(signal.SIGTERM)
            self._later(30, worker.kill)
        else:
            self._start_worker()

    def _local_state_deleted(self) -> None:
        # Of a server's workers there is none.
        self._any_worker().kill()
        self.world.forget_local_state()
        self._bury()

    def _connections_to_kafka_cut(self) -> None:
        self.world.proxy.cut()

    def _kafka_slow(self) -> None:
        self.world.proxy.slow(self._chance.uniform(0.1, 1.0))
        self._later(self._chance.uniform(2, 10), lambda: self.world.proxy.slow(0))

    def _kafka_black_holed(self) -> None:
        self.world.proxy.hole(True)
        self._later(self._chance.uniform(2, 15), lambda: self.world.proxy.hole(False))

    def _broker_killed(self) -> None:
        self.world.restart_broker()

    def _store_killed(self) -> None:
        self.world.restart_front()

    def _bad_store(self, name: str, share: float) -> None:
        self.world.store_mode(name, share, self._chance.uniform(2, 10))

    def _store_refuses(self) -> None:
        self._bad_store("refuse", self._chance.choice((0.2, 1.0)))

    def _store_answers_are_lost(self) -> None:
        self._bad_store("lost", self._chance.choice((0.1, 0.5)))

    def _store_answers_are_cut(self) -> None:
        self._bad_store("cut", self._chance.choice((0.1, 0.5)))

    def _store_slow(self) -> None:
        self._bad_store("slow", 1.0)

    def _store_hangs(self) -> None:
        self._bad_store("hang", 1.0)

    def _disk_full(self) -> None:
        self._bad_store("full", self._chance.choice((0.3, 1.0)))

    def _venue_changed(self) -> None:
        number = self._chance.randrange(feeds.VENUES - 3)
        category = self._chance.choice((*feeds.STAYS, "restaurant"))
        self.feed.register(feeds.venue(number, category, self._chance.randint(3, 30)))


def summary(result: Result) -> dict[str, Any]:
    """As JSON has it."""
    verdict = result.verdict
    return {
        "seed": result.seed,
        "seconds": round(result.seconds),
        "faults": {name: count for name, count in result.faults.items() if not name.startswith("…")},
        "points": {name[2:]: count for name, count in result.faults.items() if name.startswith("…")},
        "recovery": result.recovery,
        "exits": dict(result.exits),
        "looks": result.looks,
        "memory_mib": result.memory_mib,
        "records": verdict.records if verdict else 0,
        "rows": verdict.rows if verdict else 0,
        "told": verdict.told if verdict else {},
        "dead_letters": verdict.dead_letters if verdict else 0,
        "duplicates": verdict.duplicates if verdict else 0,
        "wrong": result.wrong,
    }
