"""The loop between Kafka and the store: processes batches, writes what they gave, commits what is stored.

Two threads: one runs everything that touches the engine's state (`process`, `take`, `assign`, …) in order of arrival,
the other runs `write`, so that the next batches are folded while the previous ones are inserted. The event loop only
decides.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.alert_notice import AlertNotice
from pipeline.dead_letters import DeadLetter
from pipeline.errors import OwnershipLostError, StateLostError, StoreUnavailableError, UserError
from pipeline.settings import Settings
from pipeline.store.registry import LogPosition
from pipeline.streaming.alert_delivery import AlertDelivery
from pipeline.streaming.dead_letter_limit import DeadLetterLimit
from pipeline.streaming.metrics import Metrics
from pipeline.streaming.ports import Engine, Partition, RecordBatch, W
from pipeline.streaming.tracing import TracingLoop
from pipeline.topics import CASE_REPORTS, CHECK_INS, VENUES

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The clock (`as_of`) moves on at least this often, in seconds, whether or not anything arrives.
IDLE_SECONDS = 1.0
#: An alert that time alone raises or clears is written when it is due, but so long after the last write, in seconds.
TURN_SECONDS = 0.1
#: Pauses between tries while the store is away: doubled from the first to the last, in seconds.
FIRST_PAUSE, LAST_PAUSE = 0.5, 15.0
#: How long a rebalance or a stop waits for the store; then what is not written is discarded, to be read again.
LAST_WRITE_SECONDS = 10.0
#: How long scans wait at the start for the venue registry to be read. Results do not depend on it, rewriting does.
VENUES_FIRST_SECONDS = 30.0
#: So long does a worker wait that others have claimed partitions of, before it claims them again, if they are still its own.
TAKEN_OVER_SECONDS = 3.0
#: The venues at a glance are counted so often, in seconds.
OVERVIEW_SECONDS = 10.0
#: Whether an hour has closed whose scans are to be compared with the weeks before is asked so often, in seconds.
UNDERCOUNT_SECONDS = 60.0
#: Whether days have become older than the retention is looked at so often, in seconds.
RETENTION_SECONDS = 600.0
#: With a backlog so many writes follow each other, each cut while the one before is stored, before anything else is looked after.
WRITES_IN_A_ROW = 4
#: What is cut ahead is so much of the buffer at least: the larger a write, the less often a venue's rows are written anew.
AHEAD_SHARE = 0.5
#: Without progress for this long a worker is not live; while a call into the engine runs, it may take longer: loading the
#: state of large partitions does.
STALLED_SECONDS, LONG_CALL_SECONDS = 30.0, 600.0


@dataclass(frozen=True, slots=True)
class _Cut(Generic[W]):
    """What one write is about: the engine's part, and what has to happen around it."""

    write: W | None
    letters: list[DeadLetter]
    timestamps_ms: list[NDArray[np.int64]]
    venues: dict[Partition, int]


class Worker(Generic[W]):
    """One worker's loop over an engine. It is the batch transport's listener.

    `commit` sends next offsets to Kafka and says whether that worked; `publish` sends dead letters, trying until it
    has; `take_over_again` has the transport assign all partitions anew.
    """

    def __init__(
        self,
        engine: Engine[W],
        settings: Settings,
        metrics: Metrics,
        commit: Callable[[Mapping[Partition, int]], Awaitable[bool]],
        publish: Callable[[list[DeadLetter]], Coroutine[None, None, None]],
        tracing: TracingLoop | None = None,
        take_over_again: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._commit = commit
        self._publish = publish
        self._tracing = tracing
        self._take_over_again = take_over_again
        self._alerts: AlertDelivery | None = None
        self._ahead_from = max(settings.flush_rows, int(AHEAD_SHARE * settings.buffer_scans))
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._write_thread = ThreadPoolExecutor(1, "write")

        #: The assignment in force; None = none, and batches are dropped.
        self.epoch: int | None = None
        #: No assignment up to this one is ever in force again, though its takeover may still be under way.
        self._ended = 0
        #: Per partition, the offset up to which everything is stored (exclusive), since it was assigned.
        self.stored: dict[Partition, int] = {}
        #: Set to the exception that must stop the process.
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        #: When something last moved, or there was nothing to move (monotonic seconds).
        self.progress_at = time.monotonic()
        #: Whether every alert that was stored when a write last ended has been told.
        self.alerts_told = True
        #: Scans processed so far, and when reading first started (monotonic seconds).
        self.scans = 0
        self.reading_since: float | None = None

        # Changed in the engine's thread only.
        self._pending = 0
        self._letters: list[DeadLetter] = []
        self._timestamps_ms: list[NDArray[np.int64]] = []
        self._venues_done: dict[Partition, int] = {}
        self._claimed: set[int] = set()
        self._reasons: Counter[str] = Counter()
        self._limit = DeadLetterLimit(settings)
        self._refused_too_many: UserError | None = None
        self._half_read: StateLostError | None = None
        self._overviewed_at = -OVERVIEW_SECONDS

        # Scans that are cut for the write after the one under way; with those pending it is what is held.
        self._ahead = 0
        # Rebalances that have begun.
        self._revocations = 0
        self._pending_since = 0.0
        self._last_idle = self._written_at = 0.0
        self._read: dict[Partition, int] = {}
        self._ends: Mapping[Partition, int] = {}
        self._compared_at = -UNDERCOUNT_SECONDS
        self._retained_at = -RETENTION_SECONDS
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._flushes: list[tuple[asyncio.Future[bool], bool]] = []
        self._erasures: list[tuple[str, asyncio.Future[str | None]]] = []
        self._calls = 0
        self._settling = False
        self._give_up = self._stopping = self._closed = False
        self._outage_since: float | None = None
        self._reading: set[Partition] = set()
        self._venues_next: dict[int, int] = {}
        self._venues_read = asyncio.Event()
        self._committable: dict[Partition, int] = {}
        self._commit_wanted = asyncio.Event()
        self._commit_lock = asyncio.Lock()
        # Held while something is written, and while partitions are taken over or forgotten: a write that ends beside either would
        # be counted on top of what was just read of it.
        self._writing = asyncio.Lock()

    def tell_alerts(self, alerts: AlertDelivery) -> None:
        """Hand stored crowding alerts on to this from now on."""
        self._alerts, self.alerts_told = alerts, False

    async def overtaken_alerts(self, notices: Sequence[AlertNotice], mark: int) -> Sequence[AlertNotice]:
        """Of notices just told those that another worker has overtaken, as they stand; none once the worker gives up."""
        ids = [notice.alert_id for notice in notices]
        # Not beside a settlement or a takeover, which ask on the same connection.
        async with self._writing:
            found = await self._until_stored(
                self._write_thread, lambda: self._engine.overtaken_alerts(ids, mark), lambda: not self._give_up
            )
        return found or ()

    # --- what the agents call

    async def submit(self, batch: RecordBatch) -> None:
        """Process a batch of check-ins; returns once it is, or drops it if it belongs to a former assignment.

        Waits while the buffer is full: that is the back-pressure, Faust then stops fetching.
        """
        while (self._settling or self._held() >= self._settings.buffer_scans) and batch.epoch == self.epoch:
            self._room.clear()
            await self._room.wait()
        if batch.epoch != self.epoch or self.failure.done():
            return
        if not self._pending:
            self._pending_since = time.monotonic()
        await self._in_engine_thread(self._process, batch)
        if batch.epoch == self.epoch:
            self._read[batch.topic, batch.partition] = batch.end
        self.progress_at = time.monotonic()
        self._wake.set()

    async def submit_venues(self, batch: RecordBatch) -> None:
        """Apply a batch of the venue registry."""
        if batch.epoch != self.epoch or self.failure.done():
            return
        epoch = self.epoch
        await self._until_stored(
            self._engine_thread, lambda: self._load_venues(batch), lambda: epoch == self.epoch and not self._give_up
        )
        self.progress_at = time.monotonic()
        if epoch == self.epoch:
            self._venues_next[batch.partition] = self._read[VENUES, batch.partition] = batch.end
            self._venues_read.set()

    async def submit_reports(self, batch: RecordBatch) -> None:
        """Store a batch of case reports; what follows from them is the tracing loop's."""
        if batch.epoch != self.epoch or self.failure.done() or self._tracing is None:
            return
        await self._tracing.submit(batch)
        if batch.epoch == self.epoch:
            self._read[batch.topic, batch.partition] = batch.end

    def fail(self, error: BaseException) -> None:
        """Ask for the process to be stopped: after a bug there is no way on but a restart from what is stored."""
        if not self.failure.done():
            self.failure.set_result(error)

    # --- what the batch transport calls

    async def assigned(self, topic: str, partitions: Collection[int], epoch: int) -> Mapping[int, int | None] | None:
        """Load the state of partitions; keeps trying while the store is away. One that is stopping takes nothing over."""
        if self._stopping or epoch <= self._ended:
            return None
        self.epoch = epoch
        if topic == VENUES:
            return {partition: self._venues_next.get(partition) for partition in partitions}
        if topic == CASE_REPORTS and self._tracing is not None:
            return await self._tracing.assigned(partitions)
        self._metrics.rebalances.inc()
        begun = time.monotonic()
        nexts = None
        async with self._writing:
            self._claimed |= set(partitions)
            while nexts is None and epoch == self.epoch:
                # Two that take over at once may each find the other's claim: the last one has it.
                with suppress(OwnershipLostError):
                    nexts = await self._until_stored(
                        self._engine_thread, lambda: self._engine.assign(topic, partitions), lambda: epoch == self.epoch
                    )
        self._metrics.recovery_seconds.set(time.monotonic() - begun)
        return nexts

    def starting(self, ranges: Mapping[Partition, tuple[int, int]], known: Collection[Partition]) -> None:
        """Note where reading starts, and where it will have caught up; of what is `known` Kafka is told, too.

        The worker that stored it may have died before it could say so.
        """
        if self.epoch is None:  # it has ended while this went on
            return
        for each, (first, end) in ranges.items():
            self._reading.add(each)
            self.stored[each] = self._read[each] = first
            self._ends = {**self._ends, each: end}
        self._committable |= {each: self.stored[each] for each in known}
        self._commit_wanted.set()
        numbers = sorted(partition for topic, partition in ranges if topic == CHECK_INS)
        if numbers:
            self._metrics.assigned.set(len(numbers))
            self.reading_since = self.reading_since or time.monotonic()
            log.info("reading partitions %s of %s", ", ".join(map(str, numbers)), CHECK_INS)

    async def caught_up(self, topic: str) -> None:
        """Of the venue registry: return when it has been read to its end. Of check-ins: at once."""
        if topic != VENUES:
            return
        epoch = self.epoch
        patience = time.monotonic() + VENUES_FIRST_SECONDS
        ends = {each: end for each, end in self._ends.items() if each[0] == VENUES}
        while epoch == self.epoch and any(self._read[each] < end for each, end in ends.items()):
            self._venues_read.clear()
            try:
                await asyncio.wait_for(self._venues_read.wait(), max(0.0, patience - time.monotonic()))
            except TimeoutError:
                log.warning("the venue registry was not read to its end in %.0f s: going on", VENUES_FIRST_SECONDS)
                return

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """Write and commit what has been processed, if the store answers in time, and forget the partitions."""
        self._revocations += 1
        await self._finish()
        topics = {topic for topic, _ in partitions} - {VENUES, CASE_REPORTS}
        for topic in topics:
            await self._forget(topic, {partition for name, partition in partitions if name == topic})
        if self._tracing is not None:
            await self._tracing.revoked()
        self._forget_positions()

    def skipped(self, topic: str, partition: int, count: int) -> None:
        """Count what Kafka's retention has taken."""
        self._metrics.skipped.labels(topic, str(partition)).inc(count)

    # --- the loop

    async def run(self) -> None:
        """Write, settle and commit until cancelled."""
        committing = asyncio.create_task(self._commit_when_wanted())
        try:
            while True:
                idle = await self._until_due()
                self._written_at = time.monotonic()
                flushes, self._flushes = self._flushes, []
                erasures, self._erasures = self._erasures, []
                retain = self._retention_due()
                asked = bool(erasures) or any(settle for _, settle in flushes)
                self._settling = retain or asked or self._engine.settle_due
                done = False
                try:
                    async with self._writing:
                        done = not self._closed and await self._take_turn(idle, retain, erasures)
                except StateLostError as lost:
                    await self._begin_anew(lost)
                if self._settling:
                    self._settling = False
                    self._room.set()
                for future, _ in flushes:
                    future.set_result(done)
                for _, erased in erasures:
                    if not erased.done():
                        erased.set_result(None)
        except Exception as error:
            self.fail(error)
        finally:
            committing.cancel()

    async def _take_turn(
        self, idle: bool, retain: bool, erasures: list[tuple[str, asyncio.Future[str | None]]]
    ) -> bool:
        """Write, and look after what may only be done with no write outstanding. False if the write was given up."""
        await self._notice_others()
        done = await self._write_once(idle) and (not self._settling or await self._settle_once(retain))
        if done and erasures and self._reads_scans():
            await self._erase(erasures)
        await self._hand_on_alerts()
        await self._count_undercounted()
        return done

    @property
    def quiet(self) -> bool:
        """Whether partitions are being read, and nothing of them is waiting."""
        return self.epoch is not None and bool(self._reading) and not self._settling and self._backlog() == 0

    async def settle(self) -> bool:
        """Store what is processed, bring corrections and rolling windows up to date, and trace. False if that was given up."""
        settled = await self._flush(settle=True)
        if settled and self._tracing is not None:
            await self._tracing.settle()
        return settled

    async def erase(self, visitor: str) -> str:
        """Take a visitor out of an embedded store for good; returns a receipt once nothing of it is in any view.

        Raises UserError if the store went away: ask again then.
        """
        if self.epoch is None or self._stopping:
            raise UserError("this worker reads no partitions now: ask again in a moment")
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._erasures.append((visitor, future))
        self._wake.set()
        receipt = await future
        if receipt is None:
            raise UserError("the erasure was broken off: ask again, and it goes on where it was")
        return receipt

    async def stop(self) -> None:
        """Take no more batches, write and commit what there is, bring the views up to the clock, give the store back.

        With a backlog the clock stays: what is unread belongs before it.
        """
        self._stopping = True
        await self._finish(settle=self._backlog() == 0)
        if self._tracing is not None:
            await self._tracing.stop()
        # What a rebalance has begun to write may end. Nobody gets a turn after that.
        turn = asyncio.create_task(self._writing.acquire())
        await self._first_of(turn, LAST_WRITE_SECONDS)
        self._give_up = True
        await turn
        self._closed = True
        await self._in_engine_thread(self._engine.close)
        self._writing.release()
        self._engine_thread.shutdown()
        self._write_thread.shutdown()

    def note_ends(self, ends: Mapping[Partition, int]) -> None:
        """Note the broker's log ends of the partitions being read: for the lag, and because being done is progress."""
        self._ends = ends
        lags = {each: max(0, ends[each] - self.stored[each]) for each in self._reading if each in ends}
        for (topic, partition), lag in lags.items():
            if topic == CHECK_INS:
                self._metrics.lag.labels(topic, str(partition)).set(lag)
        if not any(lags.values()):
            self.progress_at = time.monotonic()

    def close_gap(self, partition: Partition, unpacked: int, position: int, end: int) -> None:
        """Commit past what holds no record: transaction markers at the end of a log.

        The reader is at `position` ≥ `end`, and all that it handed on (up to `unpacked`, exclusive) is stored.
        """
        if unpacked <= self.stored.get(partition, end) < end <= position:
            self.note_stored({partition: position})

    def live(self) -> tuple[bool, Mapping[str, object]]:
        """Whether anything moved of late, or there was nothing to move."""
        stalled = time.monotonic() - self.progress_at
        limit = LONG_CALL_SECONDS if self._calls else STALLED_SECONDS
        return stalled < limit, {"seconds_since_progress": round(stalled, 1)}

    def ready(self) -> tuple[bool, Mapping[str, object]]:
        """Whether partitions are being read, with progress, and the store answers."""
        assigned = sum(topic == CHECK_INS for topic, _ in self._reading)
        outage = self._outage_since
        facts: dict[str, object] = {"assigned_partitions": assigned, "store_answers": outage is None}
        if outage is not None:
            facts["store_away_seconds"] = round(time.monotonic() - outage, 1)
        live, progress = self.live()
        return live and self.epoch is not None and assigned > 0 and outage is None, {**facts, **progress}

    # --- in the engine's thread

    def _process(self, batch: RecordBatch) -> None:
        if self._half_read:
            return
        try:
            letters = self._engine.process(
                batch.topic, batch.partition, batch.offsets, batch.timestamps_ms, batch.values
            )
        except StoreUnavailableError as error:
            # A venue that came in another partition before is asked of the store, and some of the batch is in memory by then.
            self._half_read = StateLostError(f"the store went away while a batch was being read ({error})")
            return
        try:
            self._limit.note(time.monotonic(), len(batch), (letter.reason for letter in letters))
        except UserError as error:
            self._refused_too_many = error
            raise
        for letter in letters:
            self._letters.append(replace(letter, key=batch.keys[int(np.searchsorted(batch.offsets, letter.offset))]))
        self._reasons.update(letter.reason for letter in letters)
        self._timestamps_ms.append(batch.timestamps_ms)
        self._metrics.event_delays.observe(self._engine.event_delays)
        self._pending += len(batch)
        self.scans += len(batch)
        self._show_counters()

    def _load_venues(self, batch: RecordBatch) -> None:
        positions = [
            LogPosition(batch.partition, offset, timestamp)
            for offset, timestamp in zip(batch.offsets.tolist(), batch.timestamps_ms.tolist(), strict=True)
        ]
        for letter in self._engine.load_venues(batch.values, batch.keys, positions):
            at = letter.offset
            self._letters.append(
                replace(
                    letter,
                    topic=batch.topic,
                    partition=batch.partition,
                    offset=int(batch.offsets[at]),
                    key=batch.keys[at],
                )
            )
        self._venues_done[batch.topic, batch.partition] = batch.end

    def _take(self, idle: bool) -> _Cut[W]:
        if self._half_read:
            raise self._half_read
        if self._refused_too_many:
            raise self._refused_too_many  # what was processed since the last write stays unwritten, to be read again
        cut = _Cut(self._engine.take(idle=idle), self._letters, self._timestamps_ms, self._venues_done)
        self._let_go()
        self._show_counters()
        if time.monotonic() - self._overviewed_at >= OVERVIEW_SECONDS:
            self._metrics.overview = self._engine.overview()
            self._overviewed_at = time.monotonic()
        return cut

    def _let_go(self) -> None:
        self._letters, self._timestamps_ms, self._venues_done = [], [], {}
        self._pending, self._ahead, self._half_read = 0, 0, None

    def _show_counters(self) -> None:
        # Between two assignments the engine knows no time; what was shown does not go back.
        counters, (shown, _) = self._engine.counters(), self._metrics.counters
        times = {name: max(at, shown.get(name, 0)) for name, at in counters.items() if name.endswith("_ms")}
        self._metrics.counters = ({**counters, **times}, Counter(self._reasons))
        self._metrics.buffer_fill.set(self._held() / self._settings.buffer_scans)

    def _held(self) -> int:
        # What is processed, but for what is being stored.
        return self._pending + self._ahead

    # --- the loop's steps

    async def _until_due(self) -> bool:
        """Wait until there is reason to write; returns whether the clock is to move on for idle partitions."""
        while True:
            now = time.monotonic()
            due = self._last_idle + IDLE_SECONDS
            if self.epoch is None and not self._flushes and now >= due:
                # What is revoked is written once, before it is forgotten, and not again beside that.
                self._last_idle = now
                continue
            if now >= due:
                self._last_idle = now
                return self._read_whole()
            if self._flushes or self._erasures or self._pending >= self._settings.flush_rows:
                return False
            # With a backlog, fewer and larger writes: each costs something for every venue that it touches.
            if self.is_caught_up():
                if self._pending:
                    due = min(due, self._pending_since + self._settings.flush_seconds)
                    if now >= due:
                        return False
                turns_in = self._engine.turns_in
                if turns_in is not None:
                    turn = max(now + turns_in, self._written_at + TURN_SECONDS)
                    if now >= turn:
                        return self._read_whole()
                    due = min(due, turn)
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), due - now)
            except TimeoutError:
                continue

    def _read_whole(self) -> bool:
        # With a backlog the clock must wait: it would expire visits whose check-out is still unread.
        return all(offset >= self._ends.get(each, 0) for each, offset in self._read.items())

    def is_caught_up(self) -> bool:
        """Whether no more is unread than a live worker has at times."""
        return self._backlog() < self._settings.flush_rows

    def _backlog(self) -> int:
        return sum(max(0, self._ends.get(each, 0) - offset) for each, offset in self._read.items())

    async def _write_once(self, idle: bool) -> bool:
        """Take what has accumulated and store it; with a backlog, some of what comes meanwhile too.

        False if that was given up.
        """
        cut, writes = await self._cut(idle), 1
        while cut is not None:
            self._ahead = 0
            self._room.set()
            storing = asyncio.create_task(self._store(cut))
            try:
                cut = await self._cut_beside(storing) if writes < WRITES_IN_A_ROW else None
            finally:
                stored = await storing
            if not stored:
                break
            if cut is None:
                return True
            writes += 1
        # A later turn would store what is processed, and its refused records would not have been told of.
        await self._in_engine_thread(self._engine.revoke, CHECK_INS, sorted(self._claimed))
        await self._in_engine_thread(self._let_go)
        self._venues_next.clear()  # the registry's rows went with the write: read it again
        return False

    async def _cut(self, idle: bool) -> _Cut[W] | None:
        # Most cuts ask the store nothing, so one that succeeds does not say that it answers.
        return await self._until_stored(
            self._engine_thread, lambda: self._take(idle), lambda: not self._give_up, proves_answer=False
        )

    async def _cut_beside(self, storing: asyncio.Task[bool]) -> _Cut[W] | None:
        """The next cut, once it is large enough to be written at once, so that its write can follow; None if none came."""
        while not storing.done():
            if self._pending >= self._ahead_from and not self._is_wanted():
                cut = await self._cut(idle=False)
                self._ahead = sum(map(len, cut.timestamps_ms)) if cut is not None else 0
                self._room.set()
                return cut
            self._wake.clear()
            waking = asyncio.create_task(self._wake.wait())
            await asyncio.wait({storing, waking}, return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
        return None

    def _is_wanted(self) -> bool:
        # Whether something else is to be done as soon as a write has ended.
        return bool(self._settling or self._flushes or self._erasures or self._engine.settle_due or self.epoch is None)

    async def _store(self, cut: _Cut[W]) -> bool:
        # Before they are stored: what the store accounts for is not read again, so nobody would send them any more.
        if not await self._publish_letters(cut.letters):
            return False
        offsets: Mapping[Partition, int] = {}
        if cut.write is not None:
            write = cut.write
            begun = time.monotonic()
            answer = await self._until_stored(
                self._write_thread, lambda: self._engine.write(write), lambda: not self._give_up
            )
            if answer is None:
                return False
            offsets = answer
            self._metrics.flush_seconds.observe(time.monotonic() - begun)
        if cut.timestamps_ms:
            self._metrics.delays.observe(time.time() - np.concatenate(cut.timestamps_ms) / 1000)
        self.note_stored({**offsets, **cut.venues})
        return True

    async def _publish_letters(self, letters: list[DeadLetter]) -> bool:
        """Return once Kafka has them; False if that was given up."""
        if not letters:
            return True
        sending = asyncio.create_task(self._publish(letters))
        while not sending.done() and not self._give_up:
            await asyncio.wait({sending}, timeout=0.1)
        if not sending.done():
            sending.cancel()
            return False
        sending.result()
        return True

    async def _begin_anew(self, lost: StateLostError) -> None:
        # Who has stood still for too long is about to be told so by the group; whoever owns the partitions ends up the last to
        # have claimed them. Waiting lets the others finish theirs first.
        log.warning("%s: loading the state of its partitions anew", lost)
        epoch = self._end_epoch()
        revocations = self._revocations
        self._forget_positions()
        await self._forget(CHECK_INS, self._claimed)
        await self._in_engine_thread(self._let_go)
        self._venues_next.clear()
        await asyncio.sleep(TAKEN_OVER_SECONDS)
        # After a rebalance it is given partitions anyway; before it is over, it would forget what it took over.
        rebalances = self._revocations != revocations
        if epoch is not None and self.epoch is None and not rebalances and not self._stopping:
            self._take_over_again()

    def _forget_positions(self) -> None:
        self._reading.clear()
        self._read.clear()
        self._ends = {}
        self.stored.clear()
        self._committable.clear()
        self._metrics.assigned.set(0)
        self._metrics.lag.clear()

    def _end_epoch(self) -> int | None:
        # Its takeover may go on with the topics that it has not come to yet: that must not bring it back.
        epoch, self.epoch = self.epoch, None
        if epoch is not None:
            self._ended = epoch
            self._room.set()
            self._venues_read.set()
        return epoch

    async def _forget(self, topic: str, partitions: set[int]) -> None:
        async with self._writing:
            if not self._closed:
                await self._in_engine_thread(self._engine.revoke, topic, sorted(partitions))
                self._claimed -= partitions

    def _reads_scans(self) -> bool:
        # Not while state is being loaded: that has the store for itself.
        return self.epoch is not None and any(topic == CHECK_INS for topic, _ in self._reading)

    async def _notice_others(self) -> None:
        if self._reads_scans():
            changed = await self._until_stored(self._write_thread, self._engine.notice_others, self._reads_scans)
            if changed and self._tracing is not None:
                await self._tracing.changed()

    async def _hand_on_alerts(self) -> None:
        alerts = self._alerts
        if alerts is None or not alerts.ready or not self._reads_scans():
            self.alerts_told = alerts is None
            return
        handed = await self._until_stored(
            self._write_thread, lambda: self._engine.hand_alerts(alerts.told), self._reads_scans
        )
        self.alerts_told = handed is not None and not handed[0]
        if handed is not None and handed[0]:
            alerts.deliver(*handed)

    async def _count_undercounted(self) -> None:
        if not self._reads_scans() or self._backlog() or time.monotonic() - self._compared_at < UNDERCOUNT_SECONDS:
            return
        count = await self._until_stored(self._write_thread, self._engine.undercounted, self._reads_scans)
        self._metrics.undercounted.set(count or 0)
        self._compared_at = time.monotonic()

    def _retention_due(self) -> bool:
        waited = time.monotonic() - self._retained_at
        moment = self._backlog() == 0 or waited >= 6 * RETENTION_SECONDS
        return waited >= RETENTION_SECONDS and moment and self._reads_scans()

    async def _settle_once(self, retain: bool) -> bool:
        def settle() -> bool:
            self._engine.settle()
            return True

        settled = await self._until_stored(self._engine_thread, settle, lambda: not self._give_up)
        if settled and retain:
            await self._retain()
        return bool(settled) and await self._write_once(idle=False)

    async def _retain(self) -> None:
        lead = (CHECK_INS, 0) in self._reading
        dropped = await self._until_stored(
            self._engine_thread, lambda: self._engine.retain(lead=lead), lambda: not self._give_up
        )
        if dropped is None:
            return
        self._retained_at = time.monotonic()
        if dropped:
            log.info("dropped what is older than the retention")
            if self._tracing is not None:
                await self._tracing.changed()

    async def _erase(self, erasures: list[tuple[str, asyncio.Future[str | None]]]) -> None:
        # A pass under way might store exposures of who is just being erased.
        async with self._tracing.standing_still() if self._tracing is not None else nullcontext():
            for visitor, future in erasures:
                receipt = await self._until_stored(
                    self._engine_thread, partial(self._engine.erase, visitor), lambda: not self._give_up
                )
                if not future.done():
                    future.set_result(receipt)

    def note_stored(self, offsets: Mapping[Partition, int]) -> None:
        """Something moved, and these offsets may be committed."""
        self.progress_at = time.monotonic()
        ours = {each: offset for each, offset in offsets.items() if each in self._reading}
        self.stored |= ours
        self._committable |= ours
        if ours:
            self._commit_wanted.set()

    async def _flush(self, settle: bool = False) -> bool:
        """Have everything processed up to now stored; False if that was given up."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._flushes.append((future, settle))
        self._wake.set()
        return await future

    async def _finish(self, *, settle: bool = False) -> None:
        """Take no more batches; write and commit what has been processed, or give it up when the store is away."""
        if self._end_epoch() is None:
            return
        flush = asyncio.create_task(self._flush(settle))
        await self._first_of(flush, LAST_WRITE_SECONDS)
        if not flush.done() and not self.failure.done():
            log.warning("the store does not answer: what is not written yet is let go, and will be read again")
            self._give_up = True
            await self._first_of(flush, None)
            self._give_up = False
        if self.failure.done():
            flush.cancel()
            return
        await self._commit_stored()

    async def _first_of(self, task: asyncio.Task[bool], timeout: float | None) -> None:
        waited: set[asyncio.Future[Any]] = {task, self.failure}
        await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    async def _commit_when_wanted(self) -> None:
        try:
            while True:
                await self._commit_wanted.wait()
                self._commit_wanted.clear()
                if not await self._commit_stored():
                    await asyncio.sleep(1)
                    self._commit_wanted.set()
        except Exception as error:
            self.fail(error)

    async def _commit_stored(self) -> bool:
        async with self._commit_lock:
            offsets = dict(self._committable)
            if offsets and not await self._commit(offsets):
                return False
            for partition, offset in offsets.items():
                if self._committable.get(partition) == offset:
                    del self._committable[partition]
            return True

    # --- calls into the engine

    async def _in_engine_thread(self, call: Callable[..., T], *args: object) -> T:
        return await self._call(self._engine_thread, call, *args)

    async def _call(self, thread: ThreadPoolExecutor, call: Callable[..., T], *args: object) -> T:
        self._calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, call, *args)
        finally:
            self._calls -= 1

    async def _until_stored(
        self,
        thread: ThreadPoolExecutor,
        call: Callable[[], T],
        wanted: Callable[[], bool],
        *,
        proves_answer: bool = True,
    ) -> T | None:
        """Call until the store answers; None once it is not `wanted` any more."""
        pause = FIRST_PAUSE
        while wanted():
            try:
                result = await self._call(thread, call)
            except StoreUnavailableError as error:
                self._note_outage(error)
            else:
                if proves_answer:
                    self._note_answer()
                return result
            resume = time.monotonic() + pause
            while wanted() and time.monotonic() < resume:
                await asyncio.sleep(0.1)
            pause = min(pause * 2, LAST_PAUSE)
        return None

    def _note_outage(self, error: StoreUnavailableError) -> None:
        self._metrics.store_failures.inc()
        self.progress_at = time.monotonic()
        if self._outage_since is None:
            self._outage_since = time.monotonic()
            log.warning("the store is away (%s): keeping what is read, trying again; nothing is lost", error)

    def _note_answer(self) -> None:
        if self._outage_since is not None:
            log.warning("the store is back after %.1f s", time.monotonic() - self._outage_since)
            self._outage_since = None
