"""Scans as the core takes them."""

from collections.abc import Sequence

import numpy as np

from pipeline.core.columns import EVENT_TYPES, ScanColumns, Text
from tests.reference import Scan


def columns_of(scans: Sequence[Scan]) -> ScanColumns:
    """The columns of some scans, in their order."""
    data = bytearray()

    def text(values: list[str]) -> Text:
        starts, lengths = [], []
        for value in values:
            starts.append(len(data))
            lengths.append(len(value))
            data.extend(value.encode())
        return Text(np.array(starts, np.int64), np.array(lengths, np.int32))

    event_id = text([scan.event_id for scan in scans])
    venue_id = text([scan.venue_id for scan in scans])
    visitor_id = text([scan.visitor_id for scan in scans])
    source = text([scan.source for scan in scans])
    return ScanColumns(
        np.frombuffer(bytes(data), np.uint8),
        event_id,
        venue_id,
        visitor_id,
        source,
        np.array([EVENT_TYPES.index(scan.event_type) for scan in scans], np.uint8),
        np.array([scan.occurred_at_ms for scan in scans], np.int64),
        np.array([scan.party_size for scan in scans], np.uint8),
        np.arange(len(scans), dtype=np.int32),
    )
