"""The core's columns as Arrow tables, ready to insert, and back."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core import names
from pipeline.core.columns import CHECK_OUT, ScanColumns, Text
from pipeline.core.fold import VisitRows
from pipeline.core.occupancy import HourRows, MinuteRows, NowRows
from pipeline.core.pools import NONE, Names
from pipeline.core.rolling import WindowRows


def _strings(offsets: NDArray[np.int32], data: NDArray[np.uint8]) -> pa.Array:
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def _named(known: Names, codes: NDArray[np.int32]) -> pa.Array:
    return _strings(*names.texts(known, codes))


def _sliced(buffer: NDArray[np.uint8], text: Text) -> pa.Array:
    return _strings(*names.slices(buffer, text))


def _milliseconds(values: NDArray[np.int64]) -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp("ms"))


def _seconds(values: NDArray[np.int32], unit_seconds: int) -> pa.Array:
    return pa.array(values.astype(np.int64) * unit_seconds).cast(pa.uint32())


def scan_table(columns: ScanColumns, origin: tuple[str, int, NDArray[np.int64]], version: int) -> pa.Table:
    """Rows of `scan_set`. `origin` is the topic, the partition and each scan's offset."""
    count = len(columns)
    topic, partition, offsets = origin
    coordinates = pa.StructArray.from_arrays(
        [
            pa.array(np.full(count, version, np.uint64)),
            pa.repeat(pa.scalar(topic), count),
            pa.array(np.full(count, partition, np.uint32)),
            pa.array(offsets),
        ],
        names=["1", "2", "3", "4"],
    )
    winner = pa.StructArray.from_arrays(
        [
            pa.array(-columns.party_size.astype(np.int16)),
            _sliced(columns.buffer, columns.event_id),
            _sliced(columns.buffer, columns.source),
        ],
        names=["1", "2", "3"],
    )
    return pa.table(
        {
            "venue_id": _sliced(columns.buffer, columns.venue_id),
            "visitor_id": _sliced(columns.buffer, columns.visitor_id),
            "event_type": pa.array(columns.event_type.astype(np.int8)),
            "occurred_at": _milliseconds(columns.occurred_at),
            "winner": winner,
            "origin": coordinates,
        }
    )


def visit_table(rows: VisitRows, venues: Names, visitors: Names, version: int) -> pa.Table:
    """Rows of `visit_rows`, versions `version`, `version` + 1, …"""
    count = int(rows.used[0])
    return pa.table(
        {
            "venue_id": _named(venues, rows.venue[:count]),
            "visitor_id": _named(visitors, rows.visitor[:count]),
            "checked_in_at": _milliseconds(rows.start[:count]),
            "left_at": _milliseconds(rows.left[:count]),
            "ended": pa.array(rows.ended[:count].astype(np.int8)),
            "party_size": pa.array(rows.party[:count]),
            "version": _versions(version, count),
            "is_deleted": pa.array(rows.deleted[:count]),
        }
    )


def _versions(version: int, count: int) -> pa.Array:
    return pa.array(np.arange(version, version + count, dtype=np.uint64))


def minute_table(rows: MinuteRows, venues: Names, version: int) -> pa.Table:
    """Rows of `minute_rows`."""
    count = int(rows.used[0])
    return pa.table(
        {
            "venue_id": _named(venues, rows.venue[:count]),
            "minute": _seconds(rows.minute[:count], 60),
            "arrivals": pa.array(rows.arrivals[:count]),
            "departures": pa.array(rows.departures[:count]),
            "occupancy": pa.array(rows.occupancy[:count]),
            "peak": pa.array(rows.peak[:count]),
            "version": _versions(version, count),
            "is_deleted": pa.array(rows.deleted[:count]),
        }
    )


def hour_table(rows: HourRows, venues: Names, version: int) -> pa.Table:
    """Rows of `hour_rows`."""
    count = int(rows.used[0])
    return pa.table(
        {
            "venue_id": _named(venues, rows.venue[:count]),
            "hour": _seconds(rows.hour[:count], 3600),
            "arrivals": pa.array(rows.arrivals[:count]),
            "departures": pa.array(rows.departures[:count]),
            "peak": pa.array(rows.peak[:count]),
            "area_ms": pa.array(rows.area[:count]),
            "over_ms": pa.array(rows.over[:count]),
            "contact_ms": pa.array(rows.contact[:count]),
            "version": _versions(version, count),
            "is_deleted": pa.array(rows.deleted[:count]),
        }
    )


def now_table(rows: NowRows, venues: Names, version: int) -> pa.Table:
    """Rows of `now_rows`."""
    count = int(rows.used[0])
    return pa.table(
        {
            "venue_id": _named(venues, rows.venue[:count]),
            "occupancy": pa.array(rows.occupancy[:count]),
            "version": _versions(version, count),
        }
    )


def window_table(
    rows: WindowRows, gone: NDArray[np.int32], venues: Names, width: int, end_minute: int, version: int
) -> pa.Table:
    """Rows of `rolling_rows`: the windows of one width, and the deletion of those of the venues in `gone`."""
    count = len(rows.venue) + len(gone)
    zeros = np.zeros(len(gone), np.int32)
    dwell = np.concatenate([rows.dwell_sum, zeros.astype(np.int64)])
    return pa.table(
        {
            "venue_id": _named(venues, np.concatenate([rows.venue, gone])),
            "width": pa.array(np.full(count, width, np.uint8)),
            "window_end": pa.array(np.full(count, end_minute * 60, np.uint32)),
            "arrivals": pa.array(np.concatenate([rows.arrivals, zeros])),
            "unique_visitors": pa.array(np.concatenate([rows.visitors, zeros])),
            "peak": pa.array(np.concatenate([rows.peak, zeros])),
            "area_ms": pa.array(np.concatenate([rows.area, zeros.astype(np.int64)])),
            "dwell_sum_ms": pa.array(dwell, mask=dwell == NONE),
            "version": _versions(version, count),
            "is_deleted": pa.array(np.concatenate([np.zeros(len(rows.venue)), np.ones(len(gone))]).astype(np.uint8)),
        }
    )


def estimate_table(
    venues: Sequence[str],
    expected: NDArray[np.float64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    share: NDArray[np.float64],
    model: str,
    gone: Sequence[str],
    version: int,
) -> pa.Table:
    """Rows of `estimate_rows`: what `model` makes of some venues, and the deletion of those of the venues in `gone`."""
    none = [None] * len(gone)
    count = len(venues) + len(gone)

    def column(values: NDArray[np.float64] | NDArray[np.int64], kind: pa.DataType) -> pa.Array:
        return pa.array([*values.tolist(), *none], kind)

    return pa.table(
        {
            "venue_id": strings([*venues, *gone]),
            "expected": column(expected, pa.float64()),
            "low": column(low, pa.uint32()),
            "high": column(high, pa.uint32()),
            "check_out_share": column(share, pa.float64()),
            "model_version": pa.array([*([model] * len(venues)), *none], pa.string()),
            "version": _versions(version, count),
            "is_deleted": pa.array(np.arange(count) >= len(venues)).cast(pa.uint8()),
        }
    )


def texts_of(*columns: pa.ChunkedArray) -> tuple[NDArray[np.uint8], list[Text]]:
    """Arrow string columns as slices of one buffer."""
    buffers, texts, base = [], [], 0
    for column in columns:
        array = column.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.string())
        array = array.cast(pa.large_string())
        offsets = (
            np.frombuffer(array.buffers()[1], np.int64, len(array) + 1, array.offset * 8)
            if len(array)
            else np.zeros(1, np.int64)
        )
        data = array.buffers()[2]
        bytes_ = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
        buffers.append(bytes_)
        texts.append(Text(offsets[:-1] + base, np.diff(offsets).astype(np.int32)))
        base += len(bytes_)
    return np.concatenate(buffers), texts


def scan_columns(table: pa.Table) -> ScanColumns:
    """Scans as read from the store (venue_id, visitor_id, kind, at, party): without event_id and source, which nobody needs."""
    buffer, (venue, visitor) = texts_of(table["venue_id"], table["visitor_id"])
    count = table.num_rows
    none = Text(np.zeros(count, np.int64), np.zeros(count, np.int32))
    return ScanColumns(
        buffer,
        none,
        venue,
        visitor,
        none,
        (integers(table, "kind") & CHECK_OUT).astype(np.uint8),
        integers(table, "at"),
        integers(table, "party").astype(np.uint8),
        np.arange(count, dtype=np.int32),
    )


def integers(table: pa.Table, column: str) -> NDArray[np.int64]:
    """One column as 64-bit integers."""
    return np.ascontiguousarray(table[column].to_numpy()).astype(np.int64)


def strings(values: Sequence[str]) -> pa.Array:
    """A column of strings, typed also when it is empty."""
    return pa.array(values, pa.string())
