"""What the streaming side gives to the engine and needs of it: without Faust, without Kafka."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.alert_notice import AlertNotice
from pipeline.dead_letters import DeadLetter
from pipeline.overview import Overview

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
    offsets: list[int]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    epoch: int

    def __len__(self) -> int:
        return len(self.offsets)


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
        offsets: Sequence[int],
        timestamps_ms: Sequence[int],
        values: Sequence[bytes | None],
    ) -> list[DeadLetter]:
        """Decode and fold one record batch. Returns the records refused; their keys are filled in by the caller."""

    def load_venues(self, values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> list[DeadLetter]:
        """Apply records of the venue registry, in order; a record without a value deletes its venue.

        `offset` of a returned dead letter is the index in `values`, `partition` is 0: the caller puts the real ones.
        """

    def take(self, *, idle: bool) -> W | None:
        """Cut what has accumulated into one write. None when there is nothing to do.

        `idle` also moves the clock (`as_of`) on for partitions with nothing to read, so that automatic expiry goes on.
        """

    def write(self, write: W) -> Mapping[Partition, int]:
        """Store it. Returns per partition the offset up to which everything is stored (exclusive): what to commit.

        Raises StoreUnavailableError: the same write is tried again. Any other exception is a bug and stops the process.
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

    def undercounted(self) -> int:
        """How many venues had far too few scans in the last closed hour. Called like `write`. Raises StoreUnavailableError."""

    @property
    def settle_due(self) -> bool:
        """Whether `settle` has something to do that should not wait."""

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
