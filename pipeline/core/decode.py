"""Records into columns: the ordinary ones in one pass over their bytes, the others one by one through the judge."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.core.columns import EVENT_TYPES, Rejection, ScanColumns, Text
from pipeline.core.judge import Refusal, judge_scan
from pipeline.core.spelling import read_scans
from pipeline.core.values import Values
from schemas.scan import Scan

#: How far a scan may lie after its own record's timestamp: clocks differ (contract, section 5).
SKEW_MS: Final = 300_000


#: The valid scans among some records, and why each other record is refused.
Decoded = tuple[ScanColumns, list[Rejection]]


def decode_scans(values: Sequence[bytes | None]) -> Decoded:
    """The valid scans among the records' values, and why each other record is refused; both in the records' order.

    Every record is in exactly one of the two. Accepts just what `judge_scan` accepts, with the same values.
    The columns' buffer is that of the values, or holds it.
    """
    values = Values.of(values)
    read = _read_ordinary(values)
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
    return (_merge(read, judged) if judged else read), rejections


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


def together(parts: Sequence[ScanColumns]) -> ScanColumns:
    """The rows of several batches, one after the other, with one buffer."""
    base = np.cumsum([0, *(len(part.buffer) for part in parts)])

    def text(columns: Sequence[Text]) -> Text:
        start = [column.start + at for column, at in zip(columns, base[:-1].tolist(), strict=True)]
        return Text(np.concatenate(start), np.concatenate([column.length for column in columns]))

    return ScanColumns(
        buffer=np.concatenate([part.buffer for part in parts]),
        event_id=text([part.event_id for part in parts]),
        venue_id=text([part.venue_id for part in parts]),
        visitor_id=text([part.visitor_id for part in parts]),
        source=text([part.source for part in parts]),
        event_type=np.concatenate([part.event_type for part in parts]),
        occurred_at=np.concatenate([part.occurred_at for part in parts]),
        party_size=np.concatenate([part.party_size for part in parts]),
        record=np.concatenate([part.record for part in parts]),
    )


def _read_ordinary(values: Values) -> ScanColumns:
    n = len(values)
    start, length = np.empty((4, n), np.int64), np.empty((4, n), np.int32)
    event_type, occurred_at = np.empty(n, np.uint8), np.empty(n, np.int64)
    party_size, record = np.empty(n, np.uint8), np.empty(n, np.int32)
    rows = read_scans(
        values.buffer, values.start, values.end, start, length, event_type, occurred_at, party_size, record
    )
    event_id, venue_id, visitor_id, source = (Text(start[i, :rows], length[i, :rows]) for i in range(4))
    return ScanColumns(
        values.buffer,
        event_id,
        venue_id,
        visitor_id,
        source,
        event_type[:rows],
        occurred_at[:rows],
        party_size[:rows],
        record[:rows],
    )


def _merge(read: ScanColumns, judged: list[tuple[int, Scan]]) -> ScanColumns:
    parts = []
    used = len(read.buffer)

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
    buffer = np.concatenate([read.buffer, np.frombuffer(b"".join(parts), np.uint8)])
    buffer.flags.writeable = False
    both = ScanColumns(
        buffer=buffer,
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
