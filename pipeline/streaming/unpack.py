"""What one fetch brings of one partition, from Kafka's bytes to columns without a Python object a record.

aiokafka makes an object of each record, and from those lists of values had to be made, and one buffer again of these for the
decoder. Here a kernel walks over the decompressed batch and notes where keys and values lie; the decoder reads them in place.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Any, Final

import numpy as np
from aiokafka import codec
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from pipeline.core.jit import kernel
from pipeline.core.pools import I64, U8
from pipeline.core.values import TAIL, Values
from pipeline.streaming.ports import RecordBatch

#: A record batch (https://kafka.apache.org/documentation/#recordbatch): base offset, length of what follows this field, leader
#: epoch, magic, CRC-32C of what follows this one, attributes, last offset delta, base timestamp, max timestamp, producer's id,
#: epoch and sequence, records.
_HEAD: Final = Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH_COUNTS: Final = 12
_CHECKED_FROM: Final = 21
_MAGIC: Final = 2

_COMPRESSION: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
_CONTROL: Final = 0x20
_DECODERS: Final = {
    0: bytes,
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}


class FetchedRecords:
    """aiokafka's records of one fetch, with the bytes that they are read from."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        records = MemoryRecords(data)
        self.has_next, self.next_batch, self.size_in_bytes = records.has_next, records.next_batch, records.size_in_bytes


# The only way to the bytes of a fetch: aiokafka keeps them where Python cannot look.
fetcher.MemoryRecords = FetchedRecords


@kernel
def _varint(buffer: U8, at: int) -> tuple[int, int]:
    # Zigzag, and where the next thing begins.
    value = np.uint64(0)
    shift = np.uint64(0)
    while shift < 70:
        byte = np.uint64(buffer[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < 0x80:
            break
        shift += np.uint64(7)
    return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at  # type: ignore[return-value]


@kernel
def _slice(buffer: U8, at: int, until: int) -> tuple[int, int]:
    # A length and so many bytes, as [start, end); start + 1 > end for null. What does not fit ends beyond `until`.
    length, at = _varint(buffer, at)
    if length > until - at or length < -1:
        return at, until + 1
    return at, at + length


@kernel
def _read_records(
    buffer: U8,
    heads: I64,
    wanted: int,
    offsets: I64,
    timestamps: I64,
    key_start: I64,
    key_end: I64,
    value_start: I64,
    value_end: I64,
) -> int:
    # Each head: where its records begin and end, how many, base offset, base timestamp, timestamp of all or −1. Returns how many
    # have an offset ≥ wanted, or −1 where a record does not fit.
    count = 0
    for head in range(len(heads)):
        at, until = heads[head, 0], heads[head, 1]
        for _ in range(heads[head, 2]):
            _, end = _slice(buffer, at, until)
            if end > until:
                return -1
            at, _ = _slice(buffer, at, until)
            delta, at = _varint(buffer, at + 1)  # after the record's attributes, of which there are none
            offset_delta, at = _varint(buffer, at)
            offsets[count] = heads[head, 3] + offset_delta
            timestamps[count] = heads[head, 4] + delta if heads[head, 5] < 0 else heads[head, 5]
            key_start[count], key_end[count] = _slice(buffer, at, end)
            value_start[count], value_end[count] = _slice(buffer, max(key_end[count], key_start[count]), end)
            if key_end[count] > end or value_end[count] > end:
                return -1
            count += offsets[count] >= wanted
            at = end
    return count


class _Gathered:
    """Kafka's batches that will make one of ours."""

    def __init__(self) -> None:
        self._sections: list[bytes] = []
        self._heads: list[tuple[int, int, int, int, int, int]] = []
        self._size = 0
        #: Records at most.
        self.count = 0

    def add(self, section: bytes, count: int, base_offset: int, base_timestamp: int, timestamp: int) -> None:
        """Add decompressed records; `timestamp` is that of all of them, or −1."""
        self._heads.append((self._size, self._size + len(section), count, base_offset, base_timestamp, timestamp))
        self._sections.append(section)
        self._size += len(section)
        self.count += count

    def batch(self, records: Any, epoch: int, after: int) -> Iterator[RecordBatch]:
        """Those with the offset that was asked for, or later ones, in one batch if there are any.

        `after` is the offset after them: from there `records` are fetched next.
        """
        columns = np.empty((6, self.count), np.int64)
        buffer = np.frombuffer(b"".join([*self._sections, TAIL]), np.uint8)
        heads = np.array(self._heads, np.int64).reshape(-1, 6)
        count = _read_records(buffer, heads, records.next_fetch_offset, *columns)
        if count < 0:
            raise _unreadable(records, "holds a record that is longer than it")
        records.next_fetch_offset = after
        if not count:
            return
        offsets, timestamps, key_start, key_end, value_start, value_end = columns[:, :count]
        keys, values = Values(buffer, key_start, key_end), Values(buffer, value_start, value_end)
        topic, partition = records._tp
        yield RecordBatch(topic, partition, offsets, timestamps, keys, values, epoch)


def unpack(records: Any, epoch: int, most: int) -> Iterator[RecordBatch]:
    """Yield what one fetch brought of one partition, in batches of some `most` records; `records` is aiokafka's PartitionRecords.

    Does what its `_unpack_records` does for the isolation level read_uncommitted. Raises CorruptRecordException; what was not
    yielded then is fetched again.
    """
    data, at, after = records._records.data, 0, records.next_fetch_offset
    gathered, wanted = _Gathered(), 0
    while len(data) - at >= _HEAD.size:
        base, length, _, magic, crc, attributes, last, base_time, max_time, *_, count = _HEAD.unpack_from(data, at)
        begin, end = at + _HEAD.size, at + _BEFORE_LENGTH_COUNTS + length
        if end > len(data):
            break  # a fetch may end within a batch
        if magic != _MAGIC:
            raise _unreadable(records, f"is of format {magic}, from before Kafka 0.11")
        if records._check_crcs and calc_crc32c(data[at + _CHECKED_FROM : end]) != crc:
            raise _unreadable(records, "has a wrong checksum")
        if not attributes & _CONTROL:
            section = _DECODERS[attributes & _COMPRESSION](data[begin:end])
            gathered.add(section, count, base, base_time, max_time if attributes & _LOG_APPEND_TIME else -1)
            # A batch may start before the offset asked for.
            wanted += min(count, max(0, base + last + 1 - records.next_fetch_offset))
        at, after = end, max(after, base + last + 1)
        if wanted >= most:
            yield from gathered.batch(records, epoch, after)
            gathered, wanted = _Gathered(), 0
    yield from gathered.batch(records, epoch, after)


def _unreadable(records: Any, why: str) -> CorruptRecordException:
    topic, partition = records._tp
    return CorruptRecordException(
        f"a batch of {topic}/{partition} at or after offset {records.next_fetch_offset} {why}"
    )


def compile_unpacking() -> None:
    """Compile what is needed, once."""
    _read_records(np.frombuffer(TAIL, np.uint8), np.zeros((0, 6), np.int64), 0, *np.empty((6, 0), np.int64))
