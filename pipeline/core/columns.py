"""A batch of valid scans as columns: what the decoder gives and the fold takes."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CHECK_IN: Final = 0
CHECK_OUT: Final = 1

#: `event_type` as text, by its code.
EVENT_TYPES: Final = ("check_in", "check_out")


@dataclass(frozen=True, slots=True)
class Text:
    """A column of short ASCII strings as slices of a shared byte buffer: row i is buffer[start[i] : start[i] + length[i]]."""

    start: NDArray[np.int64]
    length: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ScanColumns:
    """Valid scans in order of arrival; all arrays have one length.

    `buffer` holds the bytes that the four text columns point into. `occurred_at` is milliseconds since the epoch, UTC.
    `event_type` is CHECK_IN or CHECK_OUT. `record` is the index, in the list that was decoded, of the record it came from.
    """

    buffer: NDArray[np.uint8]
    event_id: Text
    venue_id: Text
    visitor_id: Text
    source: Text
    event_type: NDArray[np.uint8]
    occurred_at: NDArray[np.int64]
    party_size: NDArray[np.uint8]
    record: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.occurred_at)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one record was refused. `detail` never holds personal data: field names and rules, no values of ids."""

    record: int
    reason: str
    detail: str
