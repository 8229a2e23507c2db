"""The parts of the batch transport that need no broker; the rest is held by tests/integration/test_worker.py."""

import asyncio
from collections.abc import Sequence
from unittest.mock import AsyncMock, MagicMock

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from pipeline.streaming import batch_transport
from pipeline.streaming.assignor import BroadcastAssignor
from pipeline.streaming.unpack import FetchedRecords, unpack

CONTROL_BATCH = 0x20
ATTRIBUTES_AT = 21

Record = tuple[int, bytes | None, bytes | None]


def kafka_batch(first_offset: int, records: Sequence[Record], compression: int = 0, control: bool = False) -> bytes:
    """One batch as Kafka keeps it: the builder always begins at offset 0, the broker puts the base offset."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 20)
    for at, (timestamp, key, value) in enumerate(records):
        assert builder.append(at, timestamp, key, value, []) is not None
    data = bytearray(builder.build())
    data[0:8] = first_offset.to_bytes(8, "big")
    if control:
        data[ATTRIBUTES_AT + 1] |= CONTROL_BATCH
    return bytes(data)


def partition_records(data: bytes, fetch_offset: int) -> PartitionRecords:
    return PartitionRecords(
        TopicPartition("check-ins", 3), FetchedRecords(data), [], fetch_offset, None, None, False, READ_UNCOMMITTED
    )


records = st.lists(
    st.tuples(st.integers(0, 2**41), st.none() | st.binary(max_size=8), st.none() | st.binary(max_size=40)), min_size=1
)
batches = st.lists(st.tuples(st.integers(0, 5), records, st.sampled_from([0, 1, 4]), st.booleans()), max_size=6)


@given(batches, st.integers(0, 20), st.integers(1, 8))
def test_batches_hold_exactly_what_aiokafka_itself_would_have_delivered(
    layout: list[tuple[int, list[Record], int, bool]], skip: int, batch_records: int
) -> None:
    data, offset = b"", 1000
    for gap, rows, compression, control in layout:
        offset += gap
        data += kafka_batch(offset, rows, compression, control)
        offset += len(rows)
    reference = partition_records(data, 1000 + skip)
    # It gives records before the offset asked for if these fill a batch of their own, which no broker sends.
    expected = [(each.offset, each.timestamp, each.key, each.value) for each in reference if each.offset >= 1000 + skip]
    ours = partition_records(data, 1000 + skip)
    got = list(unpack(ours, 7, batch_records))
    assert [
        row for batch in got for row in zip(batch.offsets, batch.timestamps_ms, batch.keys, batch.values, strict=True)
    ] == expected
    assert ours.next_fetch_offset == max(reference.next_fetch_offset, 1000 + skip)
    assert all(len(batch) and (batch.topic, batch.partition, batch.epoch) == ("check-ins", 3, 7) for batch in got)
    assert all(len(batch) >= batch_records for batch in got[:-1])


def test_a_damaged_batch_is_not_delivered() -> None:
    data = bytearray(kafka_batch(0, [(1, None, b"whole")]))
    data[-3] ^= 0xFF
    checked = PartitionRecords(
        TopicPartition("check-ins", 0), FetchedRecords(bytes(data)), [], 0, None, None, True, READ_UNCOMMITTED
    )
    with pytest.raises(CorruptRecordException, match="check-ins/0 at or after offset 0 has a wrong checksum"):
        list(unpack(checked, 1, 1))


def test_faust_keeps_read_offsets_of_single_message_topics_only() -> None:
    offsets = batch_transport._ReadOffsets(("check-ins",))
    offsets[TP("check-ins", 0)] = 41
    offsets[TP("case-reports", 0)] = 42
    assert offsets[TP("check-ins", 0)] is None
    assert offsets[TP("case-reports", 0)] == 42


@pytest.mark.parametrize("ends", ["by a rebalance", "by the listener"])
def test_nothing_is_read_under_an_assignment_that_ended_while_it_was_taken_over(ends: str) -> None:
    consumer = MagicMock(epoch=1, _start_reading=AsyncMock())
    consumer.transport.topics = ("venues", "check-ins", "case-reports")
    asked = list[str]()

    async def assigned(topic: str, *_: object) -> dict[int, int | None] | None:
        asked.append(topic)
        if topic == "check-ins" and ends == "by a rebalance":
            consumer.epoch = 2
        return {0: 7} if topic == "venues" or ends == "by a rebalance" else None

    consumer.transport.listener.assigned = assigned
    owned = {TP(topic, 0) for topic in consumer.transport.topics}
    asyncio.run(batch_transport.BatchConsumer._take_over(consumer, owned, 1))
    assert asked == ["venues", "check-ins"]
    consumer._start_reading.assert_not_called()
    consumer.app.crash.assert_not_called()


class Cluster(ClusterMetadata):
    def __init__(self, partitions: dict[str, int]) -> None:
        super().__init__()
        self._counts = partitions

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._counts[topic]))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6))
def test_each_check_in_partition_has_one_worker_and_each_worker_all_venues(
    check_ins: int, venues: int, workers: int
) -> None:
    cluster = Cluster({"check-ins": check_ins, "venues": venues})
    members = {
        f"worker-{each}": ConsumerProtocolMemberMetadata(0, ["check-ins", "venues"], b"") for each in range(workers)
    }
    assignments = BroadcastAssignor.assign(cluster, members)
    assert assignments.keys() == members.keys()
    dealt = {member: dict(assignment.assignment) for member, assignment in assignments.items()}
    assert all(topics["venues"] == list(range(venues)) for topics in dealt.values())
    assert sorted(each for topics in dealt.values() for each in topics.get("check-ins", ())) == list(range(check_ins))
