"""The core's columns as Arrow tables, ready to insert, and back.

Rows of scans, visits, minutes and hours are put in the order of their tables' keys, so that the engine need not sort texts. The
order is a help and no promise: where it is not quite that of the keys, the engine sorts as it always does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core import names
from pipeline.core.columns import CHECK_OUT, ScanColumns, Text
from pipeline.core.decode import take
from pipeline.core.fold import VisitRows
from pipeline.core.occupancy import HourRows, MinuteRows, NowRows
from pipeline.core.pools import NONE, Names
from pipeline.core.rolling import WindowRows


@dataclass(frozen=True, slots=True)
class Estimates:
    """Of some rows, who is really there: expected in tenths of a person, low and high in persons, the share of visits with a
    check-out in thousandths, and the model as a place in `versions`; arrays of one length. Place 0 is no model: no estimate.
    """

    versions: list[str]
    model: NDArray[np.int32]
    expected: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.int64]

    @classmethod
    def none(cls, count: int) -> "Estimates":
        """No estimate of any of `count` rows."""
        return cls([""], np.zeros(count, np.int32), *(np.zeros(count, np.int64) for _ in range(4)))

    def put(
        self,
        version: str,
        rows: NDArray[np.int64],
        expected: NDArray[np.float64],
        low: NDArray[np.int64],
        high: NDArray[np.int64],
        share: NDArray[np.float64],
    ) -> None:
        """Set the estimates of some rows; `expected` in persons and `share` as a fraction are rounded."""
        if version not in self.versions:
            self.versions.append(version)
        self.model[rows] = self.versions.index(version)
        self.expected[rows] = np.rint(10 * expected)
        self.low[rows], self.high[rows] = low, high
        self.share[rows] = np.rint(1000 * share)

    def of(self, rows: NDArray[np.integer] | slice) -> "Estimates":
        """Those of some of the rows."""
        return Estimates(
            self.versions, self.model[rows], self.expected[rows], self.low[rows], self.high[rows], self.share[rows]
        )

    def columns(self) -> dict[str, pa.Array]:
        """As columns of `minute_rows` and `hour_rows`."""
        return {
            "expected_tenths": pa.array(self.expected.astype(np.uint32)),
            "low": pa.array(self.low.astype(np.uint32)),
            "high": pa.array(self.high.astype(np.uint32)),
            "share_thousandths": pa.array(self.share.astype(np.uint16)),
            "model_version": pa.DictionaryArray.from_arrays(pa.array(self.model), pa.array(self.versions)),
        }


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


def scan_table(
    columns: ScanColumns,
    venue: NDArray[np.int32],
    ranks: NDArray[np.int32],
    origin: tuple[str, NDArray[np.uint32], NDArray[np.int64]],
    version: int,
) -> pa.Table:
    """Rows of `scan_set`. `venue` are codes, `ranks` their order; `origin` is the topic, and each scan's partition and offset."""
    count = len(columns)
    prefix = names.prefixes(columns.buffer, columns.visitor_id)
    time = 2 * columns.occurred_at + columns.event_type
    order = names.sorted_rows(ranks[venue], len(ranks), prefix, time)
    columns = take(columns, order)
    topic, partitions, offsets = origin
    coordinates = pa.StructArray.from_arrays(
        [
            pa.array(np.full(count, version, np.uint64)),
            pa.repeat(pa.scalar(topic), count),
            pa.array(partitions[order]),
            pa.array(offsets[order]),
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


def visit_table(rows: VisitRows, venues: Names, ranks: NDArray[np.int32], visitors: Names, version: int) -> pa.Table:
    """Rows of `visit_rows`, in their order of versions `version`, `version` + 1, …; `ranks` is the order of the venues."""
    count = int(rows.used[0])
    visitor = rows.visitor[:count]
    prefix = names.prefixes(visitors.arena, Text(visitors.start[visitor], visitors.length[visitor].astype(np.int32)))
    order = names.sorted_rows(ranks[rows.venue[:count]], len(ranks), prefix, rows.start[:count])
    return pa.table(
        {
            "venue_id": _named(venues, rows.venue[order]),
            "visitor_id": _named(visitors, rows.visitor[order]),
            "checked_in_at": _milliseconds(rows.start[order]),
            "left_at": _milliseconds(rows.left[order]),
            "ended": pa.array(rows.ended[order].astype(np.int8)),
            "party_size": pa.array(rows.party[order]),
            "version": _versions_of(version, order),
            "is_deleted": pa.array(rows.deleted[order]),
        }
    )


def _versions(version: int, count: int) -> pa.Array:
    return _versions_of(version, np.arange(count))


def _versions_of(version: int, order: NDArray[np.int64]) -> pa.Array:
    # Of rows that were put in another order: each keeps the version of its old place.
    return pa.array((version + order).astype(np.uint64))


def minute_table(
    rows: MinuteRows, estimates: Estimates | None, venues: Names, ranks: NDArray[np.int32], version: int
) -> pa.Table:
    """Rows of `minute_rows`, with their estimates if there are any; `ranks` is the order of the venues."""
    figures = {name: getattr(rows, name) for name in ("arrivals", "departures", "occupancy", "peak")}
    return _figure_table(rows, ("minute", 60), figures, estimates, venues, ranks, version)


def hour_table(
    rows: HourRows, estimates: Estimates | None, venues: Names, ranks: NDArray[np.int32], version: int
) -> pa.Table:
    """Rows of `hour_rows`, with their estimates if there are any; `ranks` is the order of the venues."""
    figures = {name: getattr(rows, name) for name in ("arrivals", "departures", "peak")}
    figures |= {f"{name}_ms": getattr(rows, name) for name in ("area", "over", "contact")}
    return _figure_table(rows, ("hour", 3600), figures, estimates, venues, ranks, version)


def _figure_table(
    rows: MinuteRows | HourRows,
    time: tuple[str, int],
    figures: Mapping[str, NDArray[np.integer]],
    estimates: Estimates | None,
    venues: Names,
    ranks: NDArray[np.int32],
    version: int,
) -> pa.Table:
    # `time`: the column that has it, and how many seconds its unit has.
    name, seconds = time
    order = names.order_by(ranks[rows.venue[: rows.used[0]]], len(ranks))
    return pa.table(
        {
            "venue_id": _named(venues, rows.venue[order]),
            name: _seconds(getattr(rows, name)[order], seconds),
            **{figure: pa.array(column[order]) for figure, column in figures.items()},
            **(estimates.of(order).columns() if estimates else {}),
            "version": _versions_of(version, order),
            "is_deleted": pa.array(rows.deleted[order]),
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


def estimated_table(rows: pa.Table, estimates: Estimates | None, version: int) -> pa.Table:
    """Rows of `minute_rows` or `hour_rows` as they are stored, with other estimates and versions `version`, `version` + 1, …"""
    found = estimates or Estimates.none(rows.num_rows)
    for name, column in {**found.columns(), "version": _versions(version, rows.num_rows)}.items():
        rows = rows.append_column(name, column)
    return rows.append_column("is_deleted", pa.array(np.zeros(rows.num_rows, np.uint8)))


def estimate_table(estimates: Estimates, venue: NDArray[np.int32], venues: Names, version: int) -> pa.Table:
    """Rows of `estimate_rows`: the newest estimate of some venues; one of no model is a deletion."""
    none = estimates.model == 0

    def column(values: NDArray[np.int64] | NDArray[np.float64]) -> pa.Array:
        return pa.array(values, mask=none)

    return pa.table(
        {
            "venue_id": _named(venues, venue),
            "expected": column(estimates.expected / 10),
            "low": column(estimates.low).cast(pa.uint32()),
            "high": column(estimates.high).cast(pa.uint32()),
            "check_out_share": column(estimates.share / 1000),
            "model_version": pa.array(estimates.versions).take(pa.array(estimates.model, mask=none)),
            "version": _versions(version, len(venue)),
            "is_deleted": pa.array(none).cast(pa.uint8()),
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


def place_table(places: Sequence[tuple[str, int]], version: int, **columns: pa.Scalar) -> pa.Table:
    """One row a place (topic, partition) under one version, each with the same values in the other columns."""
    count = len(places)
    return pa.table(
        {
            "topic": strings([topic for topic, _ in places]),
            "partition": pa.array([partition for _, partition in places], pa.uint32()),
            **{name: pa.repeat(value, count) for name, value in columns.items()},
            "version": pa.repeat(pa.scalar(version, pa.uint64()), count),
        }
    )
