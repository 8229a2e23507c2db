"""Workers, a log, a group, a clock and a store, all simulated around the real engine; nothing is left to chance but the seed.

A history is a list of actions, made from a seed beforehand. An action names what it is about by numbers, taken modulo what there
is, so any part of a history is a history too: that is how a failing one is made short.
"""

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import pytest

from pipeline import engine as engines
from pipeline.core.shard import Shard
from pipeline.errors import OwnershipLostError, StoreUnavailableError
from pipeline.settings import Settings
from pipeline.store.registry import LogPosition
from pipeline.store.writer import Write
from tests.reference import DAY, HOUR, MINUTE, SECOND, Scan, Views, expected_views, line_of
from tests.simulation.store import Client, Store, StoreDownError
from tests.views import differences

TOPIC: Final = "check-ins"
#: A Sunday, 06:00 UTC.
BEGINNING: Final = 1_632_031_200_000

#: How long a visit lasts that nobody ends: of most histories, of some (so that whole hours pass in which nobody moves), and of
#: the category `short`.
STAY, LONG_STAY, SHORT_STAY = 40 * MINUTE, 9 * HOUR, 10 * MINUTE
RETENTION: Final = 2 * DAY
SKEW: Final = 5 * MINUTE
VENUES: Final = ("a", "b", "c", "d", "e", "f")
VISITORS: Final = ("p", "q", "r", "s")


class Crash(BaseException):
    """The process ends here."""


class BrokenError(AssertionError):
    """A promise that was not kept."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at the given statement of a call to the engine: `error`, `crash` or `stop`, before or after it."""

    kind: str
    step: int
    after: bool


class Action(NamedTuple):
    """Something that happens: `what`, to the worker `who` (modulo), and more about it."""

    what: str
    who: int = 0
    fault: Fault | None = None
    more: tuple[Any, ...] = ()


class _Call:
    """A call to an engine. One that is to stop half-way has a thread of its own; never do two threads run at once."""

    def __init__(self, run: Callable[[], Any], fault: Fault | None) -> None:
        self._run, self.fault, self._steps = run, fault, 0
        self._killed = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = False
        self._thread: threading.Thread | None = None
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)

    def start(self) -> None:
        if self.fault is None or self.fault.kind != "stop":
            self._work()
            return
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._back.acquire()

    def resume(self, *, fault: Fault | None = None, killed: bool = False) -> None:
        """Go on, or end here."""
        self.fault, self._steps, self._killed = fault, 0, killed
        self._go.release()
        self._back.acquire()

    def _work(self) -> None:
        _running.call = self
        try:
            self.value = self._run()
        except BaseException as error:
            self.error = error
        finally:
            _running.call = None
        self.done = True
        self._back.release()

    @contextmanager
    def statement(self) -> Iterator[None]:
        self._steps += 1
        self._strike(after=False)
        yield
        self._strike(after=True)

    def _strike(self, *, after: bool) -> None:
        fault = self.fault
        if fault is None or (fault.step, fault.after) != (self._steps, after):
            return
        if fault.kind == "error":
            raise StoreDownError("simulated")
        if fault.kind == "crash":
            raise Crash
        self._back.release()
        self._go.acquire()
        if self._killed:
            raise Crash


class _Running(threading.local):
    call: _Call | None = None


_running = _Running()


@contextmanager
def _gate(_what: str) -> Iterator[None]:
    call = _running.call
    if call is None:
        yield
    else:
        with call.statement():
            yield


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the log; `scan` is None for one that is no scan."""

    value: bytes
    at: int
    scan: Scan | None

    @property
    def valid(self) -> bool:
        """Whether the contract takes it."""
        return self.scan is not None and self.at - RETENTION <= self.scan.occurred_at_ms <= self.at + SKEW


class SimulatedWorker:
    """One worker process: a real engine, and what `pipeline.streaming.worker` and the transport do around it."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.engine = engines.Engine(Client(world.store, _gate), Client(world.store, _gate), world.settings, "wall")  # type: ignore[arg-type]
        self.alive, self.member = True, False
        self.owned: list[int] = []
        self.wanted: list[int] | None = None
        # What the engine was told to take over, whether or not that ended.
        self._claimed: set[int] = set()
        self._position: dict[int, int] = {}
        self._venues_read = 0
        self._outstanding: Write | None = None
        self._call: _Call | None = None
        self._told = 0
        self._then: Callable[[Any, Exception | None], None] = lambda _value, _error: None
        # `_writing`: what it stands still in is a write. `_settling`: a settlement failed, and must be done before anything else.
        self._writing = self._settling = False

    # --- calls

    @property
    def stopped(self) -> bool:
        """Whether it stands still in the middle of a call."""
        return self._call is not None

    def _start(
        self, run: Callable[[], Any], fault: Fault | None, then: Callable[[Any, Exception | None], None]
    ) -> None:
        call = _Call(run, fault)
        call.start()
        self._go_on(call, then)

    def _go_on(self, call: _Call, then: Callable[[Any, Exception | None], None]) -> None:
        if not call.done:
            self._call, self._then = call, then
            return
        self._call = None
        if isinstance(call.error, Crash):
            self.die()
        elif call.error is None or isinstance(call.error, (OwnershipLostError, StoreUnavailableError)):
            then(call.value, call.error)
        else:
            raise call.error

    def resume(self, fault: Fault | None = None) -> None:
        """Go on where it stood still."""
        if self._call is not None:
            self._call.resume(fault=fault)
            self._go_on(self._call, self._then)

    def die(self) -> None:
        """SIGKILL. What it had sent before is with the store, or never will be."""
        self.alive = self.member = False
        if self._call is not None:
            call, self._call = self._call, None
            call.resume(killed=True)

    # --- what the loop does

    def poll(self, count: int) -> None:
        """Read some records of each partition; beside a write that stands still, too."""
        if not self.alive or self.wanted is not None or self._settling or (self.stopped and not self._writing):
            return
        for partition in self.owned:
            log = self._world.logs[partition]
            start = self._position[partition]
            records = log[start : start + count]
            if not records:
                continue
            offsets = range(start, start + len(records))
            self.engine.process(
                TOPIC, partition, offsets, [record.at for record in records], [record.value for record in records]
            )
            self._position[partition] = start + len(records)

    def read_venues(self, fault: Fault | None) -> None:
        """Apply the registry's records."""
        records = self._world.venue_log[self._venues_read :]
        if not self._free() or self.wanted is not None or not records:
            return
        until = len(self._world.venue_log)

        def then(_value: Any, error: Exception | None) -> None:
            if error is None:
                self._venues_read = until

        keys, values = zip(*records, strict=True)
        positions = [LogPosition(0, offset, 0) for offset in range(self._venues_read, until)]
        self._start(lambda: self.engine.load_venues(values, keys, positions), fault, then)

    def write(self, fault: Fault | None, *, idle: bool) -> None:
        """See what others have stored; then take and store, or try again what was not stored, and commit."""
        if not self._free() or not self.owned or self.wanted is not None:
            return

        def then(_value: Any, error: Exception | None) -> None:
            if isinstance(error, OwnershipLostError):
                self._begin_anew()
            elif error is None and self._settling:
                self.settle(fault)
            elif error is None:
                self._write(fault, idle=idle)

        self._start(self.engine.notice_others, None, then)

    def _write(self, fault: Fault | None, *, idle: bool, after: Callable[[bool], None] = lambda _stored: None) -> None:
        if self._outstanding is None:
            self._outstanding = self.engine.take(idle=idle)
        write = self._outstanding
        if write is None:
            after(True)
            return

        def then(offsets: Any, error: Exception | None) -> None:
            self._writing = False
            if isinstance(error, OwnershipLostError):
                self._begin_anew()
            elif error is None:
                self._outstanding = None
                self._world.commit(self, offsets)
            after(error is None)

        self._writing = True
        self._start(lambda: self.engine.write(write), fault, then)

    def settle(self, fault: Fault | None) -> None:
        """Bring corrections up to date; what waits to be stored comes first."""
        if not self._free() or not self.owned or self.wanted is not None or self._outstanding is not None:
            return

        def then(_value: Any, error: Exception | None) -> None:
            self._settling = isinstance(error, StoreUnavailableError)
            if isinstance(error, OwnershipLostError):
                self._begin_anew()

        self._start(self.engine.settle, fault, then)

    def retain(self, fault: Fault | None) -> None:
        """Drop what is older than the retention, if this one leads, and correct what that changes here."""
        if not self._free() or not self.owned or self.wanted is not None or self._outstanding is not None:
            return
        if self._settling or self.behind:
            return

        def then(_value: Any, error: Exception | None) -> None:
            self._settling = isinstance(error, StoreUnavailableError)
            if isinstance(error, OwnershipLostError):
                self._begin_anew()

        self._world.retains = True
        self._start(lambda: self.engine.retain(lead=0 in self.owned), fault, then)

    def tell_alerts(self, fault: Fault | None) -> None:
        """Hand stored alerts on to Kafka, which is always there."""
        if not self._free() or not self.owned or self.wanted is not None or self._outstanding is not None:
            return

        def then(handed: Any, error: Exception | None) -> None:
            if error is None:
                self._world.told |= {notice.alert_id for notice in handed[0]}
                self._told = handed[1]
            elif isinstance(error, OwnershipLostError):
                self._begin_anew()

        self._start(lambda: self.engine.hand_alerts(self._told), fault, then)

    @property
    def settle_due(self) -> bool:
        """Whether corrections have waited long enough."""
        return self.engine.settle_due

    def _free(self) -> bool:
        return self.alive and not self.stopped

    def _begin_anew(self) -> None:
        self._outstanding, self._settling = None, False
        self._forget()
        self.wanted, self.owned = self.owned, []

    def _forget(self) -> None:
        self.engine.revoke(TOPIC, self._claimed)
        self._claimed.clear()

    # --- rebalances

    def revoked(self, fault: Fault | None) -> None:
        """Write and commit what is processed, if the store answers, and forget the partitions."""
        if not self._free():
            return

        def forget(_stored: bool) -> None:
            self._outstanding, self.wanted, self._settling = None, None, False
            if self.alive:
                self._forget()
            self.owned = []

        if self.owned and not self._settling:
            self._write(fault, idle=False, after=forget)
        else:
            forget(False)

    def assign(self, fault: Fault | None) -> None:
        """Load the state of what the group gave it; tried again when the store was away, or another was quicker."""
        if not self._free() or self.wanted is None:
            return
        wanted = self.wanted
        self._claimed |= set(wanted)

        def then(starts: Any, error: Exception | None) -> None:
            if error is None and self.wanted == wanted:
                self._position = {partition: starts[partition] or 0 for partition in wanted}
                self.owned, self.wanted = wanted, None
                self._world.commit(self, {(TOPIC, each): at for each, at in starts.items() if at is not None})

        self._start(lambda: self.engine.assign(TOPIC, wanted), fault, then)

    @property
    def behind(self) -> bool:
        """Whether anything is left to be read."""
        return self.wanted is not None or any(self._position[each] < len(self._world.logs[each]) for each in self.owned)


@dataclass
class World:
    """Everything there is. `shared`: the store is a server, which several workers share; otherwise one owns it."""

    partitions: int = 4
    shared: bool = True
    stay: int = STAY
    store: Store = field(default_factory=Store)
    now: int = BEGINNING
    workers: list[SimulatedWorker] = field(default_factory=list)
    venue_log: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    #: Whether anything was asked to go that is too old.
    retains: bool = False

    def __post_init__(self) -> None:
        self.logs: list[list[Record]] = [[] for _ in range(self.partitions)]
        self.committed = [0] * self.partitions
        self.owner: dict[int, SimulatedWorker] = {}
        self._clock_seen = (0, 0)
        self._capacity: dict[str, int] = {}
        self._short: set[str] = set()
        self.settings = Settings(store=Path("/nowhere")).model_copy(
            update={
                "late_window": timedelta(hours=1),
                "clickhouse_url": "http://nowhere" if self.shared else None,
                "max_stay": timedelta(milliseconds=self.stay),
                "max_stay_by_category": {"short": timedelta(milliseconds=SHORT_STAY)},
                "retention": timedelta(milliseconds=RETENTION),
            }
        )

    # --- what happens

    def play(self, actions: list[Action]) -> None:
        """Let everything happen, then come to rest and hold it to the promises. Raises BrokenError."""
        try:
            for action in actions:
                self._act(action)
                self._check_clock()
            self.come_to_rest()
            self.check()
        finally:
            for worker in self.workers:
                worker.die()

    def _act(self, action: Action) -> None:
        self.now += 150
        kind, more = action.what, action.more
        if kind in ("scan", "again", "overnight", "poison", "venue", "tick", "merge"):
            getattr(self, f"_{kind}")(*more)
            return
        if kind == "join":
            self._join()
            return
        if kind == "rebalance":
            self._rebalance(*more)
            return
        living = [worker for worker in self.workers if worker.alive]
        if not living:
            return
        worker = living[action.who % len(living)]
        if kind == "poll":
            worker.poll(*more)
        elif kind == "write":
            worker.write(action.fault, idle=more[0] and not worker.behind)
        elif kind == "settle":
            worker.settle(action.fault)
        elif kind == "retain":
            worker.retain(action.fault)
        elif kind == "alerts":
            worker.tell_alerts(action.fault)
        elif kind == "venues":
            worker.read_venues(action.fault)
        elif kind == "assign":
            worker.assign(action.fault)
        elif kind == "resume":
            worker.resume(action.fault)
        elif kind == "notice" and not worker.member:
            worker.revoked(action.fault)
        elif kind == "kill":
            worker.die()

    def _tick(self, ms: int) -> None:
        if ms >= DAY:
            # No statement stands still for days: its connection would have been given up.
            self._resume_all()
        self.now += ms

    def _resume_all(self) -> None:
        for worker in list(self.workers):
            while worker.alive and worker.stopped:
                worker.resume()

    def _merge(self) -> None:
        self.store.merge()

    def _scan(self, venue: str, visitor: str, event_type: str, age: int, party: int, event_id: str) -> None:
        scan = Scan(venue, visitor, event_type, self.now - age, party, event_id)
        self._produce(venue, line_of(scan), scan)

    def _again(self, back: int, party: int) -> None:
        sent = [record.scan for log in self.logs for record in log if record.scan is not None]
        if sent:
            scan = sent[-1 - back % len(sent)]
            scan = Scan(scan.venue_id, scan.visitor_id, scan.event_type, scan.occurred_at_ms, party, scan.event_id)
            self._produce(scan.venue_id, line_of(scan), scan)

    def _overnight(self, venue: str, visitor: str) -> None:
        # Two check-ins of one stay, on either side of the last midnight.
        midnight = self.now // DAY * DAY
        for i, at in enumerate((midnight - 10 * MINUTE, midnight + 10 * MINUTE)):
            scan = Scan(venue, visitor, "check_in", at, 1, f"n{i}")
            self._produce(venue, line_of(scan), scan)

    def _poison(self, venue: str) -> None:
        self._produce(venue, b'{"not": "a scan"}', None)

    def _produce(self, venue: str, value: bytes, scan: Scan | None) -> None:
        self.logs[VENUES.index(venue) % self.partitions].append(Record(value, self.now, scan))

    def _venue(self, venue: str, capacity: int | None, short: bool, gone: bool) -> None:
        record = {"venue_id": venue, "name": venue, "category": "short" if short else "plain"}
        self._capacity.pop(venue, None)
        self._short.discard(venue)
        if gone:
            self.venue_log.append((venue.encode(), None))
            return
        if capacity is not None:
            record["capacity"] = self._capacity[venue] = capacity  # type: ignore[assignment]
        if short:
            self._short.add(venue)
        self.venue_log.append((venue.encode(), json.dumps(record).encode()))

    def _join(self) -> None:
        most = 4 if self.shared else 1
        if sum(worker.alive for worker in self.workers) < most:
            self.workers.append(SimulatedWorker(self))
            self._rebalance(0, (None,))

    def _rebalance(self, order: int, faults: tuple[Fault | None, ...]) -> None:
        chance = random.Random(order)
        living = [worker for worker in self.workers if worker.alive]
        for i, worker in enumerate(living):
            if not worker.stopped:
                worker.revoked(faults[i % len(faults)])
        members = [worker for worker in living if worker.alive and not worker.stopped]
        for worker in living:
            worker.member = worker in members
        self.owner = {}
        if not members:
            return
        chance.shuffle(members)
        given: dict[int, list[int]] = {i: [] for i in range(len(members))}
        for partition in range(self.partitions):
            given[partition % len(members)].append(partition)
        for i, worker in enumerate(members):
            worker.wanted = given[i] or None
            self.owner |= dict.fromkeys(given[i], worker)
        for i, worker in enumerate(members):
            worker.assign(faults[(len(living) + i) % len(faults)])

    # --- what is promised

    def commit(self, worker: SimulatedWorker, offsets: Mapping[tuple[str, int], int]) -> None:
        """The group takes commits of who owns a partition; none may be past a record that is not stored."""
        for (_, partition), offset in offsets.items():
            if not worker.member or self.owner.get(partition) is not worker:
                continue
            for at in range(self.committed[partition], offset):
                if not self._is_stored(partition, at):
                    raise BrokenError(f"partition {partition} is committed up to {offset}, but {at} is not stored")
            self.committed[partition] = max(self.committed[partition], offset)

    def _is_stored(self, partition: int, offset: int) -> bool:
        record = self.logs[partition][offset]
        if record.scan is None or not record.valid:
            return (TOPIC, partition, offset) in self.store.keys("dead_letter_rows")
        scan = record.scan
        if scan.occurred_at_ms < self._kept()[0]:
            return True  # it may be gone again
        kind = ("check_in", "check_out").index(scan.event_type)
        return (scan.venue_id, scan.visitor_id, scan.occurred_at_ms, kind) in self.store.keys("scan_set")

    def _check_clock(self) -> None:
        rows = self.store.final("progress_rows")
        seen = max((row["as_of"] for row in rows), default=0), max((row["watermark"] for row in rows), default=0)
        if seen[0] < self._clock_seen[0] or seen[1] < self._clock_seen[1]:
            raise BrokenError(f"as_of and watermark went back from {self._clock_seen} to {seen}")
        self._clock_seen = seen

    def come_to_rest(self) -> None:
        """No more faults: whoever stood still goes on, everything is read, stored and settled."""
        self._resume_all()
        for worker in list(self.workers):
            if worker.alive and not worker.member:
                worker.revoked(None)
        if not any(worker.alive for worker in self.workers):
            self.workers.append(SimulatedWorker(self))
        self._rebalance(0, (None,))
        living = [worker for worker in self.workers if worker.alive]
        for _ in range(4):
            self.now += 7 * SECOND
            for worker in living:
                worker.assign(None)
                worker.read_venues(None)
                worker.poll(1 << 30)
                worker.write(None, idle=not worker.behind)
                if worker.settle_due:
                    worker.settle(None)
            self._check_clock()
        for _ in range(2):
            for worker in living:
                worker.settle(None)
                worker.tell_alerts(None)
        for _ in range(3 * self.retains):
            for worker in living:
                worker.retain(None)
        self._check_clock()

    def check(self) -> None:
        """Hold the store to what the log says. Raises BrokenError."""
        for partition, log in enumerate(self.logs):
            self._check_partition(partition, log)
        records = [record for log in self.logs for record in log]
        scans = [record.scan for record in records if record.scan is not None and record.valid]
        kept_from, closed_before = self._kept()
        scans = [scan for scan in scans if scan.occurred_at_ms >= kept_from]
        stays = {venue: SHORT_STAY if venue in self._short else self.stay for venue in VENUES}
        as_of = max((row["as_of"] for row in self.store.final("progress_rows")), default=0)
        if scans and as_of != self.now:
            raise BrokenError(f"as_of is {as_of}, not {self.now}")
        expected = expected_views(scans, stays, self._capacity, as_of)
        views = self.store.views()
        if closed_before:
            _forget_history(views, closed_before)
            _forget_history(expected, closed_before)
        if found := differences(views, expected):
            raise BrokenError(found)
        there = len(self.store.final("scan_set"))
        removed = sum(row["scans"] for row in self.store.final("removed_rows"))
        stored = sum(row["stored"] for row in self.store.final("progress_rows"))
        if stored != there + removed:
            raise BrokenError(f"{stored} scans were stored, but {there} are there and {removed} removed")
        if asked := self.store.final("repair_rows") + self.store.final("asked_rows"):
            raise BrokenError(f"corrections are asked for and not made: {asked}")
        if untold := {row.alert_id for row in views["crowding_alerts"]} - self.told:
            raise BrokenError(f"alerts were never told: {untold}")

    def _kept(self) -> tuple[int, int]:
        # From when on scans are kept, and before when minutes and hours are history.
        cuts = self.store.final("retention_rows")
        return max((row["kept_from"] for row in cuts), default=0), max(
            (row["closed_before"] for row in cuts), default=0
        )

    def _check_partition(self, partition: int, log: list[Record]) -> None:
        letters = {row["offset"] for row in self.store.final("dead_letter_rows") if row["partition"] == partition}
        refused = {offset for offset, record in enumerate(log) if not record.valid}
        if letters != refused:
            raise BrokenError(f"partition {partition}: dead letters {sorted(letters)}, not {sorted(refused)}")
        [row] = [row for row in self.store.final("progress_rows") if row["partition"] == partition] or [None]
        if row is None:
            raise BrokenError(f"nothing is known of partition {partition}")
        identities = {
            (scan.venue_id, scan.visitor_id, scan.event_type, scan.occurred_at_ms)
            for record in log
            for scan in [record.scan]
            if scan is not None and record.valid
        }
        accepted = len(log) - len(refused)
        wanted = {
            "next_offset": len(log),
            "consumed": len(log),
            "dead_lettered": len(refused),
            "accepted": accepted,
            "stored": len(identities),
            "duplicates": accepted - len(identities),
        }
        if self._kept()[0]:
            # What comes again once it is gone is stored again.
            del wanted["stored"], wanted["duplicates"]
        found = {name: row[name] for name in wanted}
        if found != wanted:
            raise BrokenError(f"accounting of partition {partition}: {found}, not {wanted}")
        if self.committed[partition] != len(log):
            raise BrokenError(f"partition {partition} is committed up to {self.committed[partition]} of {len(log)}")


def _forget_history(views: Views, closed_before: int) -> None:
    """Leave out what retention has closed; whether an alert began before that decides about later ones, so all of those."""
    for view, time in (("occupancy_minutes", "minute"), ("occupancy_hours", "hour")):
        views[view] = {row for row in views[view] if getattr(row, time) * 1000 >= closed_before}
    views["crowding_alerts"] = set()


# --- histories from seeds -----------------------------------------------------------------------------------------------


#: What happens, and how often.
_KINDS: Final = {
    "traffic": 12,
    "poll": 10,
    "write": 10,
    "settle": 3,
    "alerts": 2,
    "tick": 4,
    "join": 2,
    "rebalance": 2,
    "resume": 4,
    "notice": 2,
    "kill": 1,
    "venue": 1,
    "merge": 1,
    "takeover": 2,
}


@dataclass(frozen=True, slots=True)
class _Mixture:
    """What a history is made of: where the scans are, whether workers share the store, and how often a call goes wrong."""

    chance: random.Random
    shared: bool
    hurt: float
    venues: tuple[str, ...]
    visitors: tuple[str, ...]

    def some(self) -> list[Action]:
        """The next actions."""
        chance = self.chance
        who = chance.randrange(4)
        [kind] = chance.choices(tuple(_KINDS), tuple(_KINDS.values()))
        if kind == "traffic":
            return [self._traffic() for _ in range(chance.choice([1, 2, 5]))]
        if kind == "poll":
            return [Action("poll", who, None, (chance.choice([1, 3, 100]),))]
        if kind == "write":
            return [Action("write", who, self._fault(14), (chance.random() < 0.6,))]
        if kind in ("settle", "alerts"):
            return [Action(kind, who, self._fault(40 if kind == "settle" else 4))]
        if kind == "tick":
            return [Action("tick", 0, None, (chance.choice([SECOND, 6 * SECOND, MINUTE, 20 * MINUTE, 2 * HOUR]),))]
        if kind == "rebalance":
            faults = tuple(self._fault(chance.choice([14, 45])) for _ in range(8))
            return [Action("rebalance", 0, None, (chance.randrange(1000), faults))]
        if kind == "resume":
            # Of whoever is killed the statement it stood before may still arrive.
            late = Fault("crash", 0, after=True) if chance.random() < 0.2 else None
            return [Action("resume", who, late or self._fault(14))]
        if kind == "notice":
            return [Action("notice", who, self._fault(14)), Action("assign", who)]
        if kind == "takeover":
            return self._takeover()
        if kind == "venue":
            rules = (chance.choice([None, 1, 2, 4]), chance.random() < 0.3, chance.random() < 0.1)
            return [
                Action("venue", 0, None, (chance.choice(self.venues), *rules)),
                *(Action("venues", who, self._fault(6)) for who in range(4)),
            ]
        return [Action(kind, who)]

    def retention(self) -> list[Action]:
        """Days go by, and whoever leads drops what is too old then."""
        chance = self.chance
        reading = [
            action
            for who in range(4)
            for action in (
                Action("assign", who),
                Action("poll", who, None, (100,)),
                Action("write", who, None, (True,)),
            )
        ]
        actions = [
            Action("overnight", 0, None, (chance.choice(self.venues), chance.choice(self.visitors))),
            *reading,
            Action("tick", 0, None, (chance.choice([DAY, 2 * DAY, 3 * DAY]),)),
            *reading,
        ]
        kinds = ["error", "crash", "stop"] if self.shared else ["error", "crash"]
        for who in chance.sample(range(4), 4):
            hurt = self.hurt and chance.random() < 0.5
            fault = Fault(chance.choice(kinds), chance.randrange(5, 30), chance.random() < 0.5) if hurt else None
            actions.append(Action("retain", who, fault))
        return actions

    def _takeover(self) -> list[Action]:
        # What hurts most: writes that end or stand still half-way, partitions that go elsewhere, and rows that come late.
        chance, everybody = self.chance, range(4)
        kinds = ["crash", "stop", "stop"] if self.shared and self.hurt else ["crash"] if self.hurt else []
        actions = [self._traffic() for _ in range(3)] + [Action("poll", who, None, (100,)) for who in everybody]
        for who in everybody:
            fault = Fault(chance.choice(kinds), chance.randrange(1, 25), chance.random() < 0.3) if kinds else None
            actions.append(Action("write", who, fault, (chance.random() < 0.5,)))
        actions += [Action("join"), Action("rebalance", 0, None, (chance.randrange(1000), (None,)))]
        actions += [self._traffic() for _ in range(2)]
        for who in everybody:
            actions += [Action("poll", who, None, (100,)), Action("write", who, None, (True,))]
        late = Fault("crash", 0, after=True)
        return actions + [Action("resume", who, late if chance.random() < 0.3 else None) for who in everybody]

    def _fault(self, most: int) -> Fault | None:
        chance = self.chance
        if chance.random() >= self.hurt:
            return None
        kind = chance.choice(["error", "crash", "stop", "stop"] if self.shared else ["error", "crash"])
        return Fault(kind, chance.randrange(1, most), chance.random() < 0.5)

    def _traffic(self) -> Action:
        chance = self.chance
        if chance.random() < 0.05:
            return Action("poison", 0, None, (chance.choice(self.venues),))
        if chance.random() < 0.15:
            return Action("again", 0, None, (chance.randrange(8), chance.choice([1, 1, 3])))
        ages = (0, 10 * SECOND, 10 * MINUTE, 50 * MINUTE, 3 * HOUR, 30 * HOUR, RETENTION + HOUR, -HOUR)
        age = chance.choices(ages, (10, 6, 4, 2, 3, 1, 0.2, 0.2))[0] + chance.choice([0, 0, 1, SECOND])
        scan = (
            chance.choice(self.venues),
            chance.choice(self.visitors),
            chance.choice(["check_in", "check_in", "check_out"]),
            age,
            chance.choice([1, 1, 2]),
            chance.choice(["e", "f"]),
        )
        return Action("scan", 0, None, scan)


def history(seed: int) -> tuple[World, list[Action]]:
    """The world and the history that a seed stands for."""
    chance = random.Random(seed)
    mixture = _Mixture(
        chance,
        shared=chance.random() < 0.8,
        hurt=chance.choice([0.0, 0.15, 0.4]),
        venues=VENUES[: chance.choice([2, 3, 6])],
        visitors=VISITORS[: chance.choice([1, 2, 4])],
    )
    world = World(
        partitions=chance.choice([1, 2, 2, 3]),
        shared=mixture.shared,
        stay=LONG_STAY if seed % 3 == 0 else STAY,
    )
    actions = [Action("join")]
    for _ in range(chance.choice([8, 20, 40])):
        actions += mixture.some()
    if chance.random() < 0.3:
        for _ in range(chance.choice([1, 3])):
            at = chance.randrange(len(actions) // 2, len(actions)) + 1
            actions[at:at] = mixture.retention()
    return world, actions


@contextmanager
def simulated(world: World, seed: int) -> Iterator[None]:
    """Have the engine take the world's clock and chance for its own."""
    clock = SimpleNamespace(
        monotonic=lambda: world.now / 1000, time=lambda: world.now / 1000, time_ns=lambda: world.now * 1_000_000
    )
    bits = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "time", clock)
        patch.setattr(engines, "secrets", SimpleNamespace(randbits=bits.getrandbits))
        patch.setattr(Shard, "collect_due", lambda shard, horizon: horizon > shard.horizon)
        yield


def failure(seed: int, actions: list[Action] | None = None) -> str | None:
    """What is wrong at the end of a seed's history, or of a part of it; None if nothing is."""
    world, all_actions = history(seed)
    with simulated(world, seed):
        try:
            world.play(all_actions if actions is None else actions)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def shortened(seed: int, fails: Callable[[str], bool] = bool) -> list[Action]:
    """A history as short as leaving out actions makes it, that still fails."""
    actions = history(seed)[1]
    size = len(actions) // 2
    while size:
        at = 0
        while at < len(actions):
            fewer = actions[:at] + actions[at + size :]
            found = failure(seed, fewer)
            if found and fails(found):
                actions = fewer
            else:
                at += size
        size //= 2
    return actions
