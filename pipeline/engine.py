"""The pure core, the store and the accounting behind one door: what the worker and `replay` drive.

One process holds one `Shard` for all the partitions it owns. The life of a batch: `process` decodes and folds it, `take` cuts
what has changed into a `Write`, `write` stores it (beside the next `process`, in another thread), `settle` does what must have
the store and memory in step: corrections further back than memory reaches, and new rules of venues.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.alert_notice import AlertNotice
from pipeline.alert_rows import AlertRows
from pipeline.alert_telling import AlertTelling
from pipeline.core import names
from pipeline.core.columns import Rejection, ScanColumns, Text
from pipeline.core.decode import Decoded, decode_scans, judge_times, take
from pipeline.core.fold import ANCIENT, DUPLICATE, STORED
from pipeline.core.levels import LEVELS
from pipeline.core.loading import load_compiled
from pipeline.core.moves import REACH
from pipeline.core.pools import HARD_LIMIT, I32, MINUTE, NONE
from pipeline.core.shard import BEGINNING, KEPT_BACK, Changes, Correction, Shard, VenueRules, horizon_of
from pipeline.dead_letters import DeadLetter
from pipeline.estimator import Estimator
from pipeline.overview import UNKNOWN, Groups, Overview, overview
from pipeline.present_rows import PresentRows
from pipeline.settings import Settings
from pipeline.store import crowding, erasure, estimated_rows, models, recovery, repair, retention, stays, undercounts
from pipeline.store.client import connect_further, open_store
from pipeline.store.decisions import decisions_of
from pipeline.store.followed import followed_table, read_followed, record_of
from pipeline.store.registry import LogPosition, Registry
from pipeline.store.tables import (
    hour_table,
    minute_table,
    now_table,
    strings,
    visit_table,
)
from pipeline.store.writer import AncientScan, Progress, ReadScans, Write, Writer, of_venues

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: A partition whose scans are this close to the clock is live: its rows are computed up to the clock. Further back it is
#: catching up, and the minutes in between would only be computed again and again.
_LIVE_MS = 2 * MINUTE

#: A partition that gave nothing for so long (seconds) does not hold the others back.
_QUIET_SECONDS = 2.0

#: Corrections from the store wait so long (seconds), that many share one pass over it.
_SETTLE_SECONDS = 5.0

#: Rows of former owners that came late are looked for this often (seconds).
_STRANGERS_SECONDS = 5.0

#: What other workers have read is asked for this often (seconds).
_FOLLOW_SECONDS = 1.0

#: Of the running number in a version, the bits that a claim of partitions leaves to chance.
_CLAIM_BITS = 30


class Engine:
    """See the module. Not safe for two threads at once, but for `write` beside the rest."""

    def __init__(
        self,
        client: Client,
        writing_client: Client,
        settings: Settings,
        clock: Literal["wall", "events"],
        until: int | None = None,
    ) -> None:
        """`until` (ms) is the clock of a replay that stops there; later scans are left unread."""
        self._client = client
        self._writer = Writer(writing_client)
        self._clock = clock
        self._until = until
        self._estimated_anew_of: Callable[[int, str], None] = lambda _rows, _day: None
        self._embedded = settings.clickhouse_url is None
        self._decisions = decisions_of(settings)
        self._late_window = int(settings.late_window.total_seconds() * 1000)
        self._retention = int(settings.retention.total_seconds() * 1000)
        self._crowding_basis = settings.crowding_basis
        self._registry = Registry(client, settings)
        self._estimator = Estimator(client, self._registry.place)
        self._bounds = retention.Bounds(0, 0)
        # Digests of erased pseudonyms, and whether each one's erasure has ended.
        self._erased: Mapping[bytes, bool] = {}
        self._noticed: Mapping[bytes, bool] | None = None
        self._progress: dict[tuple[str, int], Progress] = {}
        self._epoch = self._version = 0
        # The version of the registry that memory and the store follow; newer rules are in `_ruled`.
        self._followed = 0
        self._writing_client = writing_client
        self._telling = AlertTelling(writing_client, self._writer, self._registry)
        # Where former owners' rows may come in late, under which version, those known, and when they were last looked for
        # (monotonic seconds).
        self._left_behind, self._began = "0", 0
        self._strangers, self._looked_at = set[tuple[object, ...]](), 0.0
        self._followed_at = 0.0
        self._unknown_venue_scans = self._late_scans = 0
        self._compared_hour, self._undercounted = BEGINNING, 0
        #: By how many seconds each scan of the last batch came after it happened, by its Kafka timestamp.
        self.event_delays = np.zeros(0)
        self._forget()

    def _forget(self) -> None:
        self._shard = Shard(self._registry.rules)
        self._ranks = np.zeros(0, np.int32)
        # Which venues, by their codes, the registry does not know, and the version of it that says so.
        self._unknown, self._unknown_in = np.zeros(0, np.bool_), self._registry.version
        self._as_of = self._newest = self._watermark = BEGINNING
        # With the clock of events: the newest scan that any worker has read.
        self._read_anywhere = BEGINNING
        # Per partition: the typical newest scan, and when (monotonic seconds) the partition last gave something.
        self._watermarks: dict[tuple[str, int], tuple[int, float]] = {}
        self._elsewhere: set[bytes] = set()
        self._placed: dict[bytes, tuple[str, int]] = {}
        # The records of the registry that venues follow, not noted in the store yet.
        self._noted: dict[bytes, int] = {}
        self._present = PresentRows()
        self._estimator.forget_places()
        self._alerts = AlertRows(
            self._client,
            self._shard,
            self._registry,
            self._estimator,
            self._crowding_basis,
            lambda: self._bounds.closed_before,
        )
        self._categories, self._areas = Groups(), Groups()
        self._repairs: set[tuple[str, str]] = set()
        # Those of them that others asked for, with the versions of their requests.
        self._asked: dict[tuple[str, str], int] = {}
        self._ruled: dict[bytes, VenueRules] = {}
        self._settle_at: float | None = None
        # A write of `settle` that failed, to be tried again first; and whether a correction, or a recovery, was broken off.
        self._unwritten: Write | None = None
        self._broken_off = self._recovering = False
        self._forget_pending()

    def _forget_pending(self) -> None:
        self._scans: list[ReadScans] = []
        self._ancient: list[AncientScan] = []
        self._dead_letters: list[DeadLetter] = []
        self._moved = False

    def watch_visits(self, stored: Callable[[pa.Table], None]) -> None:
        """Have `stored` called with every row of `visit_rows` that is stored from now on, in the thread that stores it."""
        self._writer.visits_stored = stored

    def watch_estimates(self, made: Callable[[int, str], None]) -> None:
        """Have `made` called as stored estimates are made anew because another model holds: how many more rows, and their day."""
        self._estimated_anew_of = made

    # --- owning partitions -------------------------------------------------------------------------------------------

    def assign(self, topic: str, partitions: Collection[int]) -> dict[int, int | None]:
        """Take over partitions: load their state. Returns the next offset to read of each; None = from the earliest.

        Raises StoreUnavailableError; it may then be called again.
        """
        wanted = [*self._progress, *((topic, partition) for partition in partitions)]
        known = self._recover(list(dict.fromkeys(wanted)))
        return {
            partition: known[topic, partition].next_offset if (topic, partition) in known else None
            for partition in partitions
        }

    def revoke(self, topic: str, partitions: Collection[int]) -> None:
        """Forget partitions, and whatever was processed but not taken."""
        rest = [key for key in self._progress if key[0] != topic or key[1] not in partitions]
        self._progress.clear()
        if rest:
            self._recover(rest)
        else:
            self._forget()

    def _recover(self, owned: list[tuple[str, int]]) -> dict[tuple[str, int], Progress]:
        client = self._client
        self._forget()
        self._broken_off = self._recovering = True
        standing = recovery.read_standing(client)
        before: Mapping[tuple[str, int], Sequence[tuple[int, int]]] = {}
        if self._embedded:
            self._begin_epoch(standing.epoch)
        else:
            before = recovery.takeovers(client, owned)
            self._begin_epoch(max(standing.epoch, recovery.claimed_epoch(client)))
            self._writer.claim(owned, recovery.durable_of(standing, owned, everything=False), self._began)
            # Once more, now that the owner before writes no more: told of what it had stored meanwhile, nobody sees a clock or an
            # account go back.
            standing = recovery.read_standing(client)
        known = {(row.topic, row.partition): row for row in standing.progress}
        self._progress = {key: replace(known.get(key, Progress(*key))) for key in owned}
        durable = recovery.durable_of(standing, owned, everything=self._embedded)
        computed = recovery.computed_of(standing, owned, everything=self._embedded)
        rules = recovery.rules_of(standing, owned, everything=self._embedded)
        left = self._left_behind = recovery.left_behind(durable, before, everything=self._embedded)
        scope = self._scope = recovery.scope_of(owned, everything=self._embedded)
        # Made known before anything else is written: whatever a crash leaves from here on, the next owner's epoch beats.
        claim = Write(
            self._next_versions(1),
            self._version,
            [replace(row) for row in self._progress.values()],
            standing.newest,
            standing.watermark,
            standing.as_of,
            self._clock,
            self._followed,
        )
        self._writer.announce(claim, durable, computed, rules)
        self._registry.refresh()
        self._registry.take_changed()  # everything is loaded by the newest rules
        self._followed = self._registry.version
        self._estimator.refresh()
        self._bounds = retention.bounds_in_force(client)
        self._elsewhere = recovery.venues_elsewhere(client, scope)
        self._follow_stays(scope)
        shard = self._shard
        self._as_of = standing.as_of or BEGINNING
        if standing.newest:
            self._newest, self._watermark = standing.newest, standing.watermark
            shard.start_at(self._horizon(standing.watermark))
        stored: set[tuple[str, str, int, int]] = set()
        if not self._embedded:
            # What a former owner had sent may reach the server while we read: its scans are looked for again below, its
            # other rows by `notice_others`.
            self._strangers = recovery.rows_left_behind(client, left, self._began)
            self._looked_at = time.monotonic()
            stored = recovery.unaccounted_scans(client, scope, standing.progress)
        self._telling.take_over(client, self._places, scope, self._began, alone=self._embedded)
        unfinished = recovery.find_unfinished(client, scope, left)
        asked = self._requests(client)
        unfinished.repairs |= self._unfollowed(rules, scope) | asked.keys()

        # What lies after the clock is not computed again below, and must not be left from a write that had come further.
        for table, rows in repair.deletions(unfinished.minutes, self._next_versions(1)).items():
            self._writer.insert(table, rows)
        spans: dict[str, repair.Span] = {}
        # Of a scan that came in late the visit may have been taken back by a former heir, whose write was complete.
        late = {(venue, visitor) for venue, visitor, *_ in stored}
        histories = self._correct_visits(unfinished.pairs | unfinished.repairs | late, spans)
        for history in histories:
            pair = history.venue, history.visitor
            # How far an unfinished correction came is not known: whatever it could have touched.
            everything = pair in unfinished.repairs or (history.venue, "") in unfinished.repairs
            for start, *_ in history.stored + history.true:
                # Nor is whether a correction has found a visit that came in late from a former owner: nothing differed then, and
                # nothing was counted. Scans that need no correction are counted whatever is stored.
                if everything or (pair in unfinished.pairs and start < shard.horizon):
                    repair.include(spans, history.venue, start, start + HARD_LIMIT + 1)
        for venue, minutes in unfinished.minutes.items():
            repair.include(spans, venue, min(minutes) * MINUTE, (max(minutes) + 1) * MINUTE)
        self._include_uncomputed(computed, spans)
        self._load_shard(scope, standing.progress)
        if not self._embedded and recovery.unaccounted_scans(client, scope, standing.progress) != stored:
            # Scans came in between the visits' correction and the loading. Memory has them now, so nothing would be written when
            # their records are read again: the visits must be corrected with them.
            return self._recover(owned)
        # The clock is that of the worker furthest on; rows of the others' partitions are given from where theirs stood. What lies
        # before memory is counted from the store: memory knows of nobody who left before it begins.
        since = min(computed.values(), default=0) or BEGINNING
        if since != BEGINNING:
            since = max(since, shard.cells_from - 1)
        if since != BEGINNING:
            shard.advance(since, emit=False)
        if self._as_of != BEGINNING:
            shard.rewrite_now()
        self._present.start(
            {width: shard.codes_of(venues) for width, venues in recovery.load_windows(client, scope)},
            shard.codes_of(recovery.estimated_venues(client, scope)),
        )
        self._alerts.start(since)
        self._alerts.load(scope)
        for venue, raised_at in crowding.unfinished_alerts(client, left).items():
            self._alerts.look_again(venue, raised_at - 1)
        for venue, span in spans.items():
            self._alerts.look_again(venue, span.start)
        self._alerts.look_again_by_new_uses(scope, self._places)
        if spans:
            since = max(shard.cells_from, min(span.start for span in spans.values()))
            shown = repair.shown_minutes(client, spans, since)
            for venue, span in spans.items():
                minutes = unfinished.minutes.get(venue, set()) | shown.get(venue, set())
                recent = np.array(sorted(m for m in minutes if m * MINUTE >= shard.cells_from), np.int64)
                shard.rewrite(venue.encode(), recent, max(span.start, shard.cells_from, 0))
            self._recount(spans)
        if self._as_of != BEGINNING or unfinished.repairs:
            self._moved = True
            followed = [venue.encode() for venue, visitor in unfinished.repairs if not visitor]
            self._write_now(repaired=sorted(unfinished.repairs), answered=asked, followed=followed)
        self._apply_uses()
        self._telling.note_stored(self._version)
        self._broken_off = self._recovering = False
        return known

    def _requests(self, client: Client) -> dict[tuple[str, str], int]:
        # What others ask for. The list of the erased after that: who is to be erased is on it before anything is asked.
        asked = repair.asked(client, self._scope)
        self._erased = erasure.noted(client)
        return asked

    def _load_shard(self, scope: str, progress: list[Progress]) -> None:
        going = erasure.lately_erased(self._client) if self._erased else ()
        moves = self._estimator.active
        recovery.load_shard(self._client, self._shard, scope, progress, moves=moves, without=going)

    def _begin_epoch(self, newest: int) -> None:
        self._epoch = max(self._epoch, newest) + 1
        self._version = self._epoch << recovery.EPOCH_SHIFT
        if not self._embedded:
            # Two workers may have read the same epoch, and both begin the next one: this tells their rows apart.
            self._version += secrets.randbits(_CLAIM_BITS)
        self._began = self._version

    def _include_uncomputed(self, computed: Mapping[tuple[str, int], int], spans: dict[str, repair.Span]) -> None:
        # What lies after a partition's own clock and before memory; what memory holds is given by the next `take`.
        until = min(self._as_of, self._shard.cells_from)
        for place, since in computed.items():
            if since < until:
                scope = recovery.scope_of([place], everything=self._embedded)
                extents = repair.extents(self._client, recovery.venues_within(self._client, scope))
                for venue, (first, _) in extents.items():
                    if max(since, first) < until:
                        repair.include(spans, venue, max(since, first), until)

    def _unfollowed(self, rules: Mapping[tuple[str, int], int], scope: str) -> set[tuple[str, str]]:
        # Whole venues whose rows follow another record of the registry than the one that holds now. Of a venue of which that was
        # never noted, by versions: those with a record that their last owner had not heard of, or not acted on.
        followed = read_followed(self._client, scope)
        found = {venue for venue, record in followed.items() if record != record_of(self._registry.rules(venue))}
        for place, version in rules.items():
            if 0 <= version < self._registry.version:
                some = recovery.scope_of([place], everything=self._embedded)
                here = recovery.venues_within(self._client, some)
                newer = {venue.encode() for venue in self._registry.changed_since(version).intersection(here)}
                found |= newer - followed.keys()
        return {(venue.decode(), "") for venue in found}

    def _follow_stays(self, scope: str) -> None:
        # Of venues whose visits follow another max stay, all is corrected in this recovery. It is asked for first: a crash before
        # the new stays are noted asks again.
        places, now = self._places, self._registry.stays
        before = stays.followed(self._client, places)
        if [*before.values()] == [now] * len(places):
            return
        changed = [
            (venue, "")
            for venue in (recovery.venues_within(self._client, scope) if before else ())
            if any(
                stays.stay_of(policy, category) != stays.stay_of(now, category)
                for category in [self._registry.place(venue)[0]]
                for policy in before.values()
            )
        ]
        if changed:
            repair.ask(self._client, changed, self._next_versions(1))
        self._writer.insert("stay_rows", stays.followed_table(places, now, self._next_versions(1)))

    # --- reading -----------------------------------------------------------------------------------------------------

    def process(
        self,
        topic: str,
        partition: int,
        offsets: Sequence[int] | NDArray[np.int64],
        timestamps_ms: Sequence[int] | NDArray[np.int64],
        values: Sequence[bytes | None],
        decoded: Decoded | None = None,
    ) -> list[DeadLetter]:
        """Decode and fold one record batch, in offset order. Returns the records refused; their keys are the caller's.

        `decoded`: what `decode_scans` makes of the values, where they are decoded already.
        """
        progress = self._progress[topic, partition]
        offsets, timestamps_ms = np.asarray(offsets, np.int64), np.asarray(timestamps_ms, np.int64)
        if known := int(np.searchsorted(offsets, progress.next_offset)):
            offsets, timestamps_ms, values, decoded = offsets[known:], timestamps_ms[known:], values[known:], None
        if not len(offsets):
            return []
        columns, rejections = decoded or decode_scans(values)
        if self._clock == "wall":
            columns, late = judge_times(columns, timestamps_ms, self._retention)
            rejections = sorted(rejections + late, key=lambda rejection: rejection.record)
        unread = 0
        if self._until is not None:
            wanted = columns.occurred_at <= self._until
            unread = int(np.count_nonzero(~wanted))
            columns = take(columns, wanted)
        letters = [
            _letter(topic, partition, int(offsets[r.record]), int(timestamps_ms[r.record]), values[r.record], r)
            for r in rejections
        ]
        if self._erased:
            kept = self._not_erased(columns)
            progress.duplicates += int(np.count_nonzero(~kept))
            columns = take(columns, kept)
        self.event_delays = (timestamps_ms[columns.record] - columns.occurred_at) / 1000
        if len(columns):
            venues = self._fold(columns, progress)
            self._scans.append(ReadScans(topic, partition, offsets[columns.record], columns, venues))
        progress.next_offset = int(offsets[-1]) + 1
        progress.consumed += len(offsets) - unread
        progress.dead_lettered += len(letters)
        self._dead_letters += letters
        self._moved = True
        return letters

    def _not_erased(self, columns: ScanColumns) -> NDArray[np.bool_]:
        # Nobody in memory is erased, so only those who are new to it are asked about. What is left out counts as a duplicate: it
        # was taken once, or is nothing that we may know.
        kept = np.ones(len(columns), np.bool_)
        new = np.flatnonzero(names.find(self._shard.visitor_names, columns.buffer, columns.visitor_id) < 0)
        if not len(new):
            return kept
        offsets, data = names.slices(
            columns.buffer, Text(columns.visitor_id.start[new], columns.visitor_id.length[new])
        )
        for i, row in enumerate(new.tolist()):
            kept[row] = erasure.digest_of(data[offsets[i] : offsets[i + 1]].tobytes()) not in self._erased
        return kept

    def _fold(self, columns: ScanColumns, progress: Progress) -> I32:
        # Returns the venue of each scan, by its code.
        topic, partition = progress.topic, progress.partition
        venues = self._meet_venues(topic, partition, columns)
        outcome = self._shard.apply(columns, venues)
        counts = np.bincount(outcome, minlength=3)
        self._unknown_venue_scans += self._count_unknown(venues)
        progress.stored += int(counts[STORED])
        progress.duplicates += int(counts[DUPLICATE])
        self._newest = max(self._newest, int(columns.occurred_at.max()))
        middle = len(columns) // 2
        before, _ = self._watermarks.get((topic, partition), (BEGINNING, 0.0))
        typical = int(np.partition(columns.occurred_at, middle)[middle])
        self._watermarks[topic, partition] = max(before, typical), time.monotonic()
        self._late_scans += int(counts[ANCIENT])
        if counts[ANCIENT]:
            self._ancient += _ancient_scans(topic, partition, take(columns, outcome == ANCIENT))
        return venues

    def _count_unknown(self, venues: I32) -> int:
        shard, version = self._shard, self._registry.version
        known = len(self._unknown) if version == self._unknown_in else 0
        if known < shard.venue_count:
            fresh = shard.venue_ids(np.arange(known, shard.venue_count, dtype=np.int32))
            unknown = np.array([not self._registry.knows(venue) for venue in fresh])
            self._unknown, self._unknown_in = np.concatenate([self._unknown[:known], unknown]), version
        return int(np.count_nonzero(self._unknown[venues]))

    def _meet_venues(self, topic: str, partition: int, columns: ScanColumns) -> I32:
        # The venue of each scan, by its code in the shard.
        shard = self._shard
        before = shard.venue_count
        codes = shard.know_venues(columns.buffer, columns.venue_id)
        if shard.venue_count == before:
            return codes
        ids = set(shard.venue_ids(np.arange(before, shard.venue_count, dtype=np.int32)))
        self._placed |= dict.fromkeys(ids, (topic, partition))
        moved = ids & self._elsewhere
        self._note_followed(ids - moved)
        if moved:
            # Its scans used to come in another partition: what the store has of it is loaded before new ones are folded.
            self._elsewhere -= moved
            scope = of_venues(venue.decode() for venue in sorted(moved))
            progress = recovery.read_standing(self._client).progress
            self._load_shard(scope, progress)
            self._alerts.load(scope)
        return codes

    def load_venues(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None], positions: Sequence[LogPosition] = ()
    ) -> list[DeadLetter]:
        """Apply records of the venue registry, in order. What follows from changed rules is done by `settle`.

        `positions`: where they stand in Kafka's topic; none for records from a file. `offset` of a returned dead letter is the
        index in `values`.
        """
        letters = self._registry.load(values, keys, positions)
        self._categories, self._areas = Groups(), Groups()
        self._expect_rules(self._registry.take_changed())
        return letters

    def _expect_rules(self, changed: Mapping[bytes, VenueRules]) -> None:
        # Of what only a model goes by nothing follows without one.
        known = {
            venue: rules
            for venue, rules in changed.items()
            if self._shard.knows(venue)
            and (
                self._estimator.active
                or not self._shard.follows(venue, rules)
                or not self._alerts.follows(venue.decode(), rules)
            )
        }
        self._note_followed(venue for venue in changed.keys() - known.keys() if self._shard.knows(venue))
        for venue in changed:
            # One that follows its rules again, before others were acted on: those must not be any more.
            self._ruled.pop(venue, None)
        if known:
            self._ruled |= known
            self._settle_at = self._settle_at or time.monotonic() + _SETTLE_SECONDS
        if not self._ruled:
            self._followed = self._registry.version

    # --- writing -----------------------------------------------------------------------------------------------------

    def _next_versions(self, count: int) -> int:
        first = self._version
        self._version += count
        return first

    @property
    def pending_scans(self) -> int:
        """Scans processed and not yet taken."""
        return sum(len(read.columns) for read in self._scans)

    def _clock_now(self) -> int:
        if self._until is not None:
            return self._until
        if self._clock == "wall":
            return time.time_ns() // 1_000_000
        return max(self._newest, self._read_anywhere)

    @property
    def turns_in(self) -> float | None:
        """In how many seconds an alert is raised or cleared if everybody stays where they are; None if none is.

        As of the last `take`; may be asked from any thread. By the clock of `events` nothing happens by itself.
        """
        turn = self._alerts.next_turn
        return None if turn == NONE or self._clock != "wall" else (turn - self._clock_now()) / 1000

    def take(self, *, idle: bool) -> Write | None:
        """Cut what has accumulated into one write; None if there is nothing.

        `idle`: nothing more is waiting to be read, so rows are computed up to the clock and automatic ends become visible.
        None, too, after a takeover or a settlement that was broken off: what it has not stored would be taken for stored.
        Raises StoreUnavailableError, where alerts are to be corrected; it may then be called again.
        """
        return None if self._recovering or self._unwritten is not None else self._take(idle=idle)

    def _take(self, *, idle: bool) -> Write | None:
        if not self._progress:
            return None
        clock = self._clock_now()
        now = time.monotonic()
        active = [mark for mark, seen in self._watermarks.values() if now - seen < _QUIET_SECONDS]
        behind = (
            min(active) if active and not idle else max((m for m, _ in self._watermarks.values()), default=BEGINNING)
        )
        self._watermark = max(self._watermark, behind)
        caught_up = idle or clock - behind < _LIVE_MS
        as_of = max(self._as_of, clock if caught_up else min(clock, behind))
        if not self._moved and as_of == self._as_of:
            return None
        if as_of != BEGINNING:
            self._shard.advance(as_of)
            self._alerts.correct(as_of)  # the store may not answer: nothing is taken before
        first = self._version
        derived = self._venue_rows() + self._followed_rows()
        self._as_of = as_of
        if as_of != BEGINNING:
            changes = self._shard.take_changes()
            derived += self._changed_rows(changes)
            derived += self._alerts.rows(changes, as_of, self._next_versions)
            if self._moved:
                self._present.note_change()
            if caught_up and self._present.due(as_of, idle=idle):
                derived += self._present_rows()
        write = self._cut(first, derived)
        horizon = self._horizon(self._watermark)
        if self._shard.collect_due(horizon):
            self._alerts.collect(horizon)
            self._shard.collect(horizon)
        return write

    def _horizon(self, watermark: int) -> int:
        # Memory never reaches back to what retention has closed: of that it would know a part only.
        horizon, closed = horizon_of(watermark, self._late_window), self._bounds.closed_before
        return max(horizon, closed + KEPT_BACK) if closed else horizon

    def _cut(self, first_version: int, derived: list[tuple[str, pa.Table]]) -> Write:
        write = Write(
            first_version,
            self._next_versions(2) + 1,
            [replace(row) for row in self._progress.values()],
            self._newest,
            self._watermark,
            self._as_of,
            self._clock,
            self._followed,
            self._venue_ranks(),
            derived,
            self._scans,
            self._ancient,
            self._dead_letters,
        )
        self._forget_pending()
        return write

    def _venue_rows(self) -> list[tuple[str, pa.Table]]:
        if not self._placed:
            return []
        placed = sorted(self._placed.items())
        self._placed.clear()
        rows = {
            "venue_id": strings([venue.decode() for venue, _ in placed]),
            "topic": strings([topic for _, (topic, _) in placed]),
            "partition": pa.array([partition for _, (_, partition) in placed], pa.uint32()),
            "version": pa.array(np.full(len(placed), self._next_versions(1), np.uint64)),
        }
        return [("venue_rows", pa.table(rows))]

    def _note_followed(self, venues: Iterable[bytes]) -> None:
        self._noted |= {venue: record_of(self._registry.rules(venue)) for venue in venues}

    def _followed_rows(self) -> list[tuple[str, pa.Table]]:
        if not self._noted:
            return []
        noted, self._noted = self._noted, {}
        return [("followed_rows", followed_table(noted, self._next_versions(1)))]

    def _changed_rows(self, changes: Changes) -> list[tuple[str, pa.Table]]:
        venues, visitors, ranks = changes.venue_names, changes.visitor_names, self._venue_ranks()
        first = self._next_versions(changes.rows)
        of_minutes, of_hours = self._estimator.of_rows(self._shard, changes.minutes, changes.hours)
        tables = []
        if count := int(changes.visits.used[0]):
            tables.append(("visit_rows", visit_table(changes.visits, venues, ranks, visitors, first)))
            first += count
        if count := int(changes.minutes.used[0]):
            tables.append(("minute_rows", minute_table(changes.minutes, of_minutes, venues, ranks, first)))
            first += count
        if count := int(changes.hours.used[0]):
            tables.append(("hour_rows", hour_table(changes.hours, of_hours, venues, ranks, first)))
            first += count
        if int(changes.now.used[0]):
            tables.append(("now_rows", now_table(changes.now, venues, first)))
        return tables

    def _venue_ranks(self) -> I32:
        if len(self._ranks) != self._shard.venue_count:
            self._ranks = names.ranks(self._shard.venue_names)
        return self._ranks

    def _present_rows(self) -> list[tuple[str, pa.Table]]:
        return self._present.make(self._shard, self._as_of, self._estimator, self._next_versions)

    def _apply_uses(self) -> None:
        # Make the stored estimates anew that what was said last about models has changed. Nothing may wait to be written.
        places = self._places
        done, last = models.applied_use(self._client, places), self._estimator.number
        if done == last:
            return
        for piece in estimated_rows.pieces(
            self._client, self._scope, max(self._estimator.changed_since(done), self._bounds.closed_before // MINUTE)
        ):
            self._store(self._cut(self._version, self._estimator.anew(piece, self._next_versions)))
            self._estimated_anew_of(piece.minutes.num_rows + piece.hours.num_rows, str(piece.day))
        self._writer.insert("model_applied_rows", models.applied_table(places, last, self._next_versions(1)))

    def write(self, write: Write) -> dict[tuple[str, int], int]:
        """Store a write, in the order of `take`. Returns what may be committed: the first offset not stored.

        Raises StoreUnavailableError; the same write may be tried again. Raises OwnershipLostError if another worker has taken
        over meanwhile: then nothing is to be committed, and partitions are to be assigned anew.
        """
        stored = self._writer.write(write)
        self._expect_repairs(write)
        self._telling.expect(write)
        return stored

    def notice_others(self) -> bool:
        """On a server, see what other workers have stored: what they have read moves the clock of `events`, and what a former
        owner of our partitions had sent when it lost them may come in after it was looked for; and who is being erased.

        Returns whether an erasure has begun or ended. Like `write`, called by one thread and only while no write is outstanding.
        Raises StoreUnavailableError.
        """
        if self._embedded or not self._progress:
            return False
        now = time.monotonic()
        if self._clock == "events" and now - self._followed_at >= _FOLLOW_SECONDS:
            self._followed_at = now
            self._read_anywhere = recovery.read_standing(self._writing_client).newest
        if self._broken_off or now - self._looked_at < _STRANGERS_SECONDS:
            return False
        self._looked_at = now
        if recovery.rows_left_behind(self._writing_client, self._left_behind, self._began) - self._strangers:
            # The takeover that follows finds them by what this one has noted.
            self._broken_off, self._settle_at = True, time.monotonic()
        asked = self._requests(self._writing_client)
        if erasure.of_erased(asked, self._erased):
            self._broken_off, self._settle_at = True, time.monotonic()  # as in `retain`
        noticed, self._noticed = self._noticed, self._erased
        return noticed is not None and noticed != self._noticed

    def _expect_repairs(self, write: Write) -> None:
        if write.asked:
            self._repairs |= set(write.asked)
            self._settle_at = self._settle_at or time.monotonic() + _SETTLE_SECONDS

    # --- telling alerts ----------------------------------------------------------------------------------------------

    @property
    def _places(self) -> list[tuple[str, int]]:
        return [("", 0)] if self._embedded else list(self._progress)

    def hand_alerts(self, told: int) -> tuple[list[AlertNotice], int]:
        """Alerts that have changed in the store since the last call, and a mark to give back once they are told.

        `told`: the last mark of which everything has been told, 0 for none. After a start what was not told is given again, and
        those in force that were told. What another worker may be telling meanwhile is given several times. Like `write`, called
        by one thread and only while no write is outstanding. Raises StoreUnavailableError; what was to be given is given by the
        next call.
        """
        if not self._progress:
            return [], told
        return self._telling.hand(told)

    def overtaken_alerts(self, ids: Sequence[str], mark: int) -> list[AlertNotice]:
        """Of alerts told up to a mark those that another worker has changed since, and may have told before, as they stand.

        Called like `write`, by the same thread, whoever owns their venues by now. Raises StoreUnavailableError.
        """
        return self._telling.overtaken(ids, mark)

    # --- undercounts -------------------------------------------------------------------------------------------------

    def undercounted(self) -> int:
        """Compare the last closed hours with the weeks before, once an hour. Returns the venues undercounted in the newest one.

        Like `write`, called by one thread and only while no write is outstanding. Raises StoreUnavailableError.
        """
        hour = undercounts.closed_hour(self._as_of) if self._as_of != BEGINNING else BEGINNING
        if self._progress and hour > self._compared_hour:
            found = undercounts.compare(self._writing_client, self._scope, hour, self._version)
            self._writer.insert("undercount_rows", found.rows)
            self._compared_hour, self._undercounted = hour, found.newest
        return self._undercounted

    # --- settling ----------------------------------------------------------------------------------------------------

    @property
    def settle_due(self) -> bool:
        """Whether corrections have waited long enough."""
        return self._settle_at is not None and time.monotonic() >= self._settle_at

    def settle(self) -> None:
        """Bring everything up to the clock: corrections from the store, new rules of venues, rolling windows.

        Called with no write outstanding and nothing being processed. Raises StoreUnavailableError; call it again then.
        """
        if not self._progress:
            return
        if self._broken_off:
            # Memory and store may disagree; everything processed is in the store, which knows what remains to be done.
            self._recover(list(self._progress))
        self._registry.refresh()
        self._expect_rules(self._registry.take_changed())
        self._write_now()
        if self._estimator.refresh():
            # Memory lacks the moves of before, or has more than are needed now.
            self._recover(list(self._progress))
        if self._repairs or self._ruled:
            self._broken_off = True
            self._repair()
            self._broken_off = False
        self._settle_at = None
        if self._as_of != BEGINNING and self._present.behind(self._as_of):
            first = self._version
            self._store(self._cut(first, self._present_rows()))

    def _write_now(
        self,
        repaired: Sequence[tuple[str, str]] = (),
        answered: Mapping[tuple[str, str], int] | None = None,
        followed: Iterable[bytes] = (),
    ) -> None:
        if self._unwritten is not None:
            self._store(self._unwritten)
        write = self._take(idle=True)
        if write is not None:
            write.repaired += repaired
            write.answered = dict(answered or {})
            records = {venue: record_of(self._registry.rules(venue)) for venue in followed}
            write.followed = followed_table(records, write.first_version)
            self._store(write)

    def _store(self, write: Write) -> None:
        self._unwritten = write
        self._writer.write(write)
        self._unwritten = None
        self._expect_repairs(write)
        self._telling.expect(write)

    def _repair(self) -> None:
        spans: dict[str, repair.Span] = {}
        pairs = set(self._repairs)
        extents = repair.extents(self._client, (venue.decode() for venue in self._ruled))
        for venue, rules in self._ruled.items():
            name = venue.decode()
            start, end = extents.get(name, (0, 0))
            repair.include(spans, name, start, self._touched(start, end))
            if self._shard.set_rules(venue, rules):
                pairs.add((name, ""))
            self._alerts.set_rules(name, rules)
            if self._estimator.active:
                self._shard.rewrite(venue, np.zeros(0, np.int64), self._shard.cells_from)
        if self._ruled:
            self._estimator.forget_places()
        histories = self._correct_visits(pairs, spans)
        self._shard.correct([self._correction(history) for history in histories])
        for name, span in spans.items():
            self._alerts.look_again(name, span.start)
        self._recount(spans)
        self._moved = True
        repaired = self._repairs | {(venue.decode(), "") for venue in self._ruled}
        self._write_now(repaired=sorted(repaired), answered=self._asked, followed=self._ruled)
        self._repairs.clear()
        self._asked.clear()
        self._ruled.clear()
        self._followed = self._registry.version

    def _correct_visits(
        self, pairs: Iterable[tuple[str, str]], spans: dict[str, repair.Span]
    ) -> list[repair.PairHistory]:
        # Fold pairs again from the store's scans and store the visits that differ; stretch `spans` over what that touches.
        asked = set(pairs)
        wanted = {pair for pair in asked if pair[1]}
        wanted |= repair.pairs_of_venues(self._client, (venue for venue, visitor in asked if not visitor))
        limits = {venue: self._registry.rules(venue.encode()).limit for venue, _ in wanted}
        if not wanted:
            return []
        progress, since = recovery.read_standing(self._client).progress, retention.going_before(self._client)
        histories = repair.read_histories(self._client, wanted, limits, progress, since)
        rows: list[tuple[str, str, repair.Visit, int]] = []
        gone = erasure.of_erased(wanted, self._erased)
        histories = [replace(each, scans=[], true=[]) if each.visitor in gone else each for each in histories]
        for history in histories:
            starts = {visit[0] for visit in history.true}
            rows += [(history.venue, history.visitor, visit, 1) for visit in history.gone if visit[0] not in starts]
            rows += [(history.venue, history.visitor, visit, 0) for visit in history.come]
            for start, left, *_ in history.gone + history.come:
                repair.include(spans, history.venue, start, self._touched(start, left))
        self._writer.insert("visit_rows", repair.visit_rows(rows, self._next_versions(len(rows))))
        return histories

    def _touched(self, start: int, left: int) -> int:
        # Until when (ms, exclusive) a visit touches rows.
        return max(left + 1, start + REACH * MINUTE) if self._estimator.active else left + 1

    def _correction(self, history: repair.PairHistory) -> Correction:
        horizon, cells_from = self._shard.horizon, self._shard.cells_from
        first = min((visit[0] for visit in history.true if visit[0] >= cells_from), default=horizon)
        kept = np.array([scan for scan in history.scans if scan[0] >= min(first, horizon)], np.int64).reshape(-1, 4)
        return Correction(
            history.venue.encode(),
            history.visitor.encode(),
            (kept[:, 0].copy(), *kept[:, 1:].T.astype(np.uint8)),
            [(start, left, party) for start, left, _, party in history.gone],
            [(start, left, party) for start, left, _, party in history.come],
            history.moves,
        )

    def _recount(self, spans: Mapping[str, repair.Span]) -> None:
        minutes, hours = [], []
        before, closed = self._shard.cells_from, self._bounds.closed_before
        spans = {venue: repair.Span(max(span.start, closed), span.end) for venue, span in spans.items()}
        for shard, minute_rows, hour_rows in repair.recount(
            self._client, spans, before, self._registry.rules, self._as_of
        ):
            estimates = self._estimator.of_other_rows(shard, minute_rows, hour_rows)
            known, first = shard.venue_names, self._next_versions(int(minute_rows.used[0]))
            for venue in shard.venue_ids():
                self._alerts.note_recounted(venue.decode(), int(hour_rows.peak[: hour_rows.used[0]].max(initial=0)))
            ranks = names.ranks(known)
            minutes.append(minute_table(minute_rows, estimates[0], known, ranks, first))
            first = self._next_versions(int(hour_rows.used[0]))
            hours.append(hour_table(hour_rows, estimates[1], known, ranks, first))
        for table, rows in (("minute_rows", minutes), ("hour_rows", hours)):
            if rows:
                self._writer.insert(table, pa.concat_tables(rows, promote_options="default").unify_dictionaries())

    # --- retention ---------------------------------------------------------------------------------------------------

    def retain(self, *, lead: bool) -> bool:
        """Drop what is older than the retention, by the wall clock. Returns whether anything changed.

        One worker leads: it drops, the others correct what that changed in their venues. Called like `settle`; raises
        StoreUnavailableError, and may then be called again.
        """
        if self._as_of == BEGINNING or not self._progress:
            return False
        bounds = retention.bounds_of(self._as_of, self._retention)
        if lead and self._clock == "wall" and retention.overdue(self._client, bounds):
            self._write_now()
            retention.cut(self._client, bounds)
        asked = self._requests(self._client)
        self._asked |= asked
        self._repairs |= asked.keys()
        # Memory knows whoever is being erased: what is loaded anew does not.
        self._broken_off |= bool(erasure.of_erased(asked, self._erased))
        before, self._bounds = self._bounds, retention.bounds_in_force(self._client)
        # Without a cut nothing is closed, though memory may reach back for ever.
        if self._shard.cells_from < self._bounds.closed_before > 0:
            self._broken_off = True
        if self._repairs or self._broken_off:
            self.settle()
        return self._bounds != before

    def erase(self, visitor: str) -> str:
        """Take a visitor out of the store for good, and count again what it was part of. Returns the receipt.

        Called like `settle`, by the only writer of the store, while nobody traces. Raises StoreUnavailableError; it may then be
        called again, and goes on under the same receipt.
        """
        receipt = erasure.begin(self._client, visitor, self._decisions)
        self.settle()
        pairs = erasure.pairs_of(self._client, visitor)
        repair.ask(self._client, pairs, self._next_versions(1))
        erasure.remove_scans(self._client, visitor, receipt)
        self._repairs |= set(pairs)
        self.settle()
        erasure.remove_rest(self._client, visitor)
        # Memory may know the name still; what is loaded anew does not.
        if self._progress:
            self._recover(list(self._progress))
        erasure.finish(self._client, visitor, receipt)
        return receipt

    # --- figures -----------------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """Since the beginning, of the partitions owned. accepted = stored + duplicates once everything is settled:
        scans from before the late window are known to be one or the other only when they meet the store."""
        rows = list(self._progress.values())
        found = [self._writer.found_of(row.topic, row.partition) for row in rows]
        consumed = sum(row.consumed for row in rows)
        dead_lettered = sum(row.dead_lettered for row in rows)
        return {
            "consumed": consumed,
            "accepted": consumed - dead_lettered,
            "stored": sum(row.stored for row in rows) + sum(stored for stored, _ in found),
            "duplicates": sum(row.duplicates for row in rows) + sum(duplicates for _, duplicates in found),
            "dead_lettered": dead_lettered,
            "unknown_venue_scans": self._unknown_venue_scans,
            "late": self._late_scans,
            "newest_event_ms": max(self._newest, 0),
            "watermark_ms": max(self._watermark, 0),
            "as_of_ms": max(self._as_of, 0),
            "venues": self._shard.venue_count,
            "scans_held": self._shard.scans_held,
            "bytes_held": self._shard.bytes_held(),
        }

    @property
    def open_visits(self) -> int:
        """Visits in memory that a check-out could still close."""
        return self._shard.open_visits()

    def overview(self) -> Overview:
        """The venues that have had a scan, at a glance, as of the last `take`."""
        shard = self._shard
        for venue in shard.venue_ids(np.arange(self._categories.count, shard.venue_count, dtype=np.int32)):
            name = venue.decode()
            self._categories.add(self._registry.place(name)[0])
            self._areas.add(self._registry.sign(name)[1] or UNKNOWN)
        alerts = Counter(LEVELS[alert.level] for alert in self._alerts.in_force)
        counts = {level: alerts[level] for level in LEVELS}
        return overview(*shard.presence(), self._categories, self._areas, counts)

    def close(self) -> None:
        """Give the store back."""
        self._writer.close()
        self._client.close()


def _letter(
    topic: str, partition: int, offset: int, timestamp_ms: int, value: bytes | None, rejection: Rejection
) -> DeadLetter:
    return DeadLetter(topic, partition, offset, rejection.reason, rejection.detail, None, value, timestamp_ms)


def _ancient_scans(topic: str, partition: int, columns: ScanColumns) -> list[AncientScan]:
    def ids(text: Text) -> list[bytes]:
        offsets, data = names.slices(columns.buffer, text)
        return [data[offsets[i] : offsets[i + 1]].tobytes() for i in range(len(columns))]

    return [
        AncientScan(topic, partition, venue, visitor, int(kind), int(at), int(party))
        for venue, visitor, kind, at, party in zip(
            ids(columns.venue_id),
            ids(columns.visitor_id),
            columns.event_type,
            columns.occurred_at,
            columns.party_size,
            strict=True,
        )
    ]


def open_engine(
    settings: Settings,
    *,
    clock: Literal["wall", "events"] | None = None,
    until: int | None = None,
) -> Engine:
    """The engine over the store that the settings name; `clock` is the command's default where they name none.

    Raises UserError if the store cannot be opened, StoreAwayError if that may pass.
    """
    client = open_store(settings)
    writing_client = connect_further(settings)
    load_compiled()
    return Engine(client, writing_client, settings, settings.clock or clock or "events", until)
