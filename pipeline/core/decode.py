"""Records into columns: the ordinary ones in one pass over their bytes, the others one by one through the judge."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.core.columns import EVENT_TYPES, Rejection, ScanColumns, Text
from pipeline.core.judge import Refusal, judge_scan
from pipeline.core.spelling import SEPARATOR, read_scans
from schemas.scan import Scan

#: How far a scan may lie after its own record's timestamp: clocks differ (contract, section 5).
SKEW_MS: Final = 300_000

_DEFAULT_SOURCE: Final = b"app"


def decode_scans(values: Sequence[bytes | None]) -> tuple[ScanColumns, list[Rejection]]:
    """The valid scans among the records' values, and why each other record is refused; both in the records' order.

    Every record is in exactly one of the two. Accepts just what `judge_scan` accepts, with the same values.
    The columns' buffer is read-only.
    """
    read, joined = _read_ordinary(values)
    unread = np.ones(len(values), np.bool_)
    unread[read.record] = False
    rejections = []
    judged: list[tuple[int, Scan]] = []
    for i in np.flatnonzero(unread).tolist():
        verdict = judge_scan(values[i])
        if isinstance(verdict, Refusal):
            rejections.append(Rejection(i, verdict.reason, verdict.detail))
        else:
            judged.append((i, verdict))
    return (_merge(read, joined, judged) if judged else read), rejections


def judge_times(
    columns: ScanColumns, record_timestamps_ms: NDArray[np.int64], retention_ms: int, skew_ms: int = SKEW_MS
) -> tuple[ScanColumns, list[Rejection]]:
    """Refuse scans more than `retention_ms` before, or more than `skew_ms` after, the timestamp of their own record.

    `record_timestamps_ms` is indexed like the records that were decoded; all times are ms since the epoch, UTC.
    """
    timestamps = record_timestamps_ms[columns.record]
    too_old = columns.occurred_at < timestamps - retention_ms
    refused = too_old | (columns.occurred_at > timestamps + skew_ms)
    if not refused.any():
        return columns, []
    rejections = [
        Rejection(record, "too_old", "occurred_at: further before the record than the retention")
        if old
        else Rejection(record, "from_the_future", f"occurred_at: more than {skew_ms // 1000} s after the record")
        for record, old in zip(columns.record[refused].tolist(), too_old[refused].tolist(), strict=True)
    ]
    return take(columns, ~refused), rejections


def take(columns: ScanColumns, rows: NDArray[np.bool_] | NDArray[np.intp]) -> ScanColumns:
    """The rows that a mask selects, or those of the given numbers in their order; the buffer stays whole."""

    def text(column: Text) -> Text:
        return Text(column.start[rows], column.length[rows])

    return ScanColumns(
        buffer=columns.buffer,
        event_id=text(columns.event_id),
        venue_id=text(columns.venue_id),
        visitor_id=text(columns.visitor_id),
        source=text(columns.source),
        event_type=columns.event_type[rows],
        occurred_at=columns.occurred_at[rows],
        party_size=columns.party_size[rows],
        record=columns.record[rows],
    )


def _read_ordinary(values: Sequence[bytes | None]) -> tuple[ScanColumns, bytes]:
    filled = [value or b"" for value in values]
    joined = SEPARATOR.join([*filled, _DEFAULT_SOURCE])
    n = len(filled)
    lengths = np.fromiter(map(len, filled), np.int64, n)
    end = np.cumsum(lengths + 1) - 1
    buffer = np.frombuffer(joined, np.uint8)
    start, length = np.empty((4, n), np.int64), np.empty((4, n), np.int32)
    event_type, occurred_at = np.empty(n, np.uint8), np.empty(n, np.int64)
    party_size, record = np.empty(n, np.uint8), np.empty(n, np.int32)
    rows = read_scans(buffer, end - lengths, end, start, length, event_type, occurred_at, party_size, record)
    event_id, venue_id, visitor_id, source = (Text(start[i, :rows], length[i, :rows]) for i in range(4))
    columns = ScanColumns(
        buffer,
        event_id,
        venue_id,
        visitor_id,
        source,
        event_type[:rows],
        occurred_at[:rows],
        party_size[:rows],
        record[:rows],
    )
    return columns, joined


def _merge(read: ScanColumns, joined: bytes, judged: list[tuple[int, Scan]]) -> ScanColumns:
    parts = [joined]
    used = len(joined)

    def text(column: Text, values: list[str]) -> Text:
        nonlocal used
        added = "".join(values).encode()
        parts.append(added)
        length = np.fromiter(map(len, values), np.int32, len(values))
        start = np.cumsum(length, dtype=np.int64) - length + used
        used += len(added)
        return Text(np.concatenate([column.start, start]), np.concatenate([column.length, length]))

    scans = [scan for _, scan in judged]
    event_id = text(read.event_id, [scan.event_id for scan in scans])
    venue_id = text(read.venue_id, [scan.venue_id for scan in scans])
    visitor_id = text(read.visitor_id, [scan.visitor_id for scan in scans])
    source = text(read.source, [scan.source for scan in scans])
    event_types = np.array([EVENT_TYPES.index(scan.event_type) for scan in scans], np.uint8)
    occurred_at = np.array([scan.occurred_at for scan in scans], np.int64)
    party_sizes = np.array([scan.party_size for scan in scans], np.uint8)
    record = np.concatenate([read.record, np.array([i for i, _ in judged], np.int32)])
    both = ScanColumns(
        buffer=np.frombuffer(b"".join(parts), np.uint8),
        event_id=event_id,
        venue_id=venue_id,
        visitor_id=visitor_id,
        source=source,
        event_type=np.concatenate([read.event_type, event_types]),
        occurred_at=np.concatenate([read.occurred_at, occurred_at]),
        party_size=np.concatenate([read.party_size, party_sizes]),
        record=record,
    )
    return take(both, np.argsort(record, kind="stable"))
