"""A peer's results that are in topics: the newest record of each key, as rows."""

from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from benchmarks.race.checker import VisitRow

_CALL_RECORDS: Final = 10_000


def read_newest(address: str, topic: str) -> dict[str, str]:
    """The newest value of each key, without those that are empty: they say that the key is no more."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "race-results", "enable.auto.commit": False})
    partitions = [TopicPartition(topic, number) for number in consumer.list_topics(topic, 10).topics[topic].partitions]
    left = sum(end - first for first, end in (consumer.get_watermark_offsets(each, 10) for each in partitions))
    consumer.assign([TopicPartition(topic, each.partition, OFFSET_BEGINNING) for each in partitions])
    newest: dict[str, str] = {}
    while left > 0:
        for message in consumer.consume(_CALL_RECORDS, 1.0):
            if message.error():
                raise KafkaException(message.error())
            newest[message.key().decode()] = message.value().decode()
            left -= 1
    consumer.close()
    return {key: value for key, value in newest.items() if value}


def visit_row(key: str, value: str) -> VisitRow:
    """Of `venue|visitor|start` and `left|ended|persons`."""
    venue, visitor, start = key.split("|")
    left, ended, persons = value.split("|")
    return venue, visitor, int(start), int(left), ended, int(persons)


def minute_row(key: str, value: str) -> tuple[str, int, int, int]:
    """Of `venue|minute` and `arrivals|departures`."""
    venue, minute = key.split("|")
    arrivals, departures = value.split("|")
    return venue, int(minute), int(arrivals), int(departures)
