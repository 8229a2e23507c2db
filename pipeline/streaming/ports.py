"""What the streaming side gives to the engine and needs of it: without Faust, without Kafka."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.alert_notice import AlertNotice
from pipeline.dead_letters import DeadLetter
from pipeline.overview import Overview
from pipeline.store.registry import LogPosition
from pipeline.store.tracing import Untold

W = TypeVar("W")

#: A partition: (topic, number).
Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Consecutive records of one partition, as equally long columns; never empty.

    `timestamps_ms` are the records' Kafka timestamps (milliseconds since the epoch, UTC). `epoch` is the assignment
    under which the batch was read: it must not be processed under a later one, because the reader has been put
    elsewhere since.
    """

    topic: str
    partition: int
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    epoch: int

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def end(self) -> int:
        """The offset after the last one."""
        return int(self.offsets[-1]) + 1


class Engine(Protocol[W]):
    """The core, the store and the accounting behind one door. Every method may block and is called from a thread.

    `assign`, `revoke`, `process`, `take`, `settle` and `load_venues` are never called at the same time as one another;
    `write` may run beside `process`, but only one write at a time and in the order of `take`.
    """

    def assign(self, topic: str, partitions: Collection[int]) -> Mapping[int, int | None]:
        """Take over partitions: load their state from the store.

        Returns the next offset to read per partition; None = from the earliest. The store, not Kafka, is the authority.
        Raises StoreUnavailableError.
        """

    def revoke(self, topic: str, partitions: Collection[int]) -> None:
        """Forget partitions; what was processed but not written of them is discarded (it will be read again)."""

    def process(
        self,
        topic: str,
        partition: int,
        offsets: NDArray[np.int64],
        timestamps_ms: NDArray[np.int64],
        values: Sequence[bytes | None],
    ) -> list[DeadLetter]:
        """Decode and fold one record batch. Returns the records refused; their keys are filled in by the caller.

        Raises StoreUnavailableError where a venue's history had to be asked for: then what is in memory is of no use any more.
        """

    def load_venues(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None], positions: Sequence[LogPosition]
    ) -> list[DeadLetter]:
        """Apply records of the venue registry, in order; a record without a value deletes its venue.

        What is older than what is known already is left alone: whoever starts reads the registry from its beginning.
        `offset` of a returned dead letter is the index in `values`, `partition` is 0: the caller puts the real ones.
        """

    def take(self, *, idle: bool) -> W | None:
        """Cut what has accumulated into one write. None when there is nothing to do.

        `idle` also moves the clock (`as_of`) on for partitions with nothing to read, so that automatic expiry goes on. Raises
        StoreUnavailableError: nothing was taken, it may be called again.
        """

    def write(self, write: W) -> Mapping[Partition, int]:
        """Store it. Returns per partition the offset up to which everything is stored (exclusive): what to commit.

        Raises StoreUnavailableError: the same write is tried again; OwnershipLostError: another worker has taken over, the
        partitions are revoked and assigned anew. Any other exception is a bug and stops the process.
        """

    def notice_others(self) -> bool:
        """See what other workers on the same store have done that concerns this one. Called like `write`.

        Returns whether a visitor's erasure has begun or ended, which concerns tracing, too. Raises StoreUnavailableError.
        """

    def settle(self) -> None:
        """Finish corrections of very late scans and refresh rolling windows.

        Called when no write is outstanding and nothing is being processed. Raises StoreUnavailableError.
        """

    def hand_alerts(self, told: int) -> tuple[list[AlertNotice], int]:
        """Crowding alerts that have changed in the store since the last call, and a mark to give back once they are told.

        Called like `write`, by the same thread. `told` is the last mark of which everything is told, 0 for none. Raises
        StoreUnavailableError.
        """

    def overtaken_alerts(self, ids: Sequence[str], mark: int) -> Sequence[AlertNotice]:
        """Of alerts told up to a mark those that another worker has changed since, and may have told before, as they stand.

        Called like `write`, by the same thread. Raises StoreUnavailableError.
        """

    def undercounted(self) -> int:
        """How many venues had far too few scans in the last closed hour. Called like `write`. Raises StoreUnavailableError."""

    @property
    def turns_in(self) -> float | None:
        """In how many seconds the next `take` has an alert to tell that time alone raises or clears; None: not known of any."""

    @property
    def settle_due(self) -> bool:
        """Whether `settle` has something to do that should not wait."""

    def erase(self, visitor: str) -> str:
        """Take a visitor out of the store, whose only writer this is; nobody may be tracing. Returns a receipt.

        Called like `settle`. Raises StoreUnavailableError; it may then be called again.
        """

    def retain(self, *, lead: bool) -> bool:
        """Drop what is older than the retention (`lead`), and correct what that changes. Returns whether anything was dropped.

        Called like `settle`. Raises StoreUnavailableError.
        """

    def counters(self) -> Mapping[str, int]:
        """A consistent snapshot: consumed, accepted, stored, duplicates, dead_lettered.

        consumed = accepted + dead_lettered, always. May also hold unknown_venue_scans and newest_event_ms.
        """

    @property
    def event_delays(self) -> NDArray[np.float64]:
        """By how many seconds each valid scan of the last `process` came after it happened, by its Kafka timestamp."""

    def overview(self) -> Overview:
        """The venues at a glance. Called like `take`."""

    def close(self) -> None:
        """Give the store back."""


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """The model of presence in force, and the last check of one. None where there is none, or too little evidence."""

    #: Event time since the end of the last day that it learned, in seconds.
    age_seconds: float | None = None
    #: Categories with people counted at venues that have no estimate, and the share of all people counted whose venues have one.
    categories_without_estimate: int = 0
    covered: float | None = None
    #: Of the newest day checked, all categories: share of intervals that held, and predicted over there, minus 1.
    check_coverage: float | None = None
    check_bias: float | None = None
    #: By category, of those with the most check-outs: at most MOST_CATEGORIES.
    drift: Mapping[str, float] = field(default_factory=dict)
    check_out_share: Mapping[str, float] = field(default_factory=dict)


#: Categories that have a series of their own; the registry may hold any number.
MOST_CATEGORIES = 50


class ModelCare(Protocol):
    """Looks after the model of presence, beside the stream. Its calls may take minutes, and all come from one thread."""

    def figures(self) -> ModelFigures:
        """Where the model stands. Raises StoreUnavailableError."""

    def refit(self) -> str | None:
        """If a day has closed since, check the model, fit it anew and put it in force; returns the new version.

        Raises StoreUnavailableError. Ends early, with None, once `stop` was called.
        """

    def stop(self) -> None:
        """Ask a call that is under way to end soon; from any thread."""

    def close(self) -> None:
        """Give the store back."""


class Tracer(Protocol):
    """Cases in, exposures and warnings out. Every method may block; all are called from one thread.

    All but `due` and `contradicted` raise StoreUnavailableError, and may then be called again.
    """

    def own(self, partitions: Collection[int], *, everything: bool) -> Mapping[int, int | None]:
        """Take over the cases of partitions of case-reports (or `everything` there is), and only those.

        Returns the next offset to read per partition; None = from the earliest.
        """

    def load(
        self,
        topic: str,
        partition: int,
        offsets: Sequence[int],
        timestamps_ms: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
    ) -> list[DeadLetter]:
        """Store a batch of reports, whose cases are due then. Returns the records refused."""

    @property
    def due(self) -> int:
        """How many cases are to be traced; may be asked from any thread."""

    def trace_some(self) -> int:
        """Trace some of them; returns how many."""

    def again(self) -> None:
        """Make every case due."""

    def forget(self) -> None:
        """Let go of all that is known of the cases, until `own_again`; never raises."""

    def own_again(self) -> None:
        """Take over the same cases anew: retention, or an erasure, has changed what is stored."""

    def untold(self) -> Untold | None:
        """What Kafka lacks, of one key; None = nothing."""

    def note_told(self, told: Untold) -> None:
        """Kafka has acknowledged what `untold` gave."""

    @property
    def contradicted(self) -> bool:
        """Whether Kafka has what was true before as the last word, which only we know; may be asked from any thread."""

    def close(self) -> None:
        """Give the store back."""
