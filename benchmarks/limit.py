"""The limit: a bare librdkafka consumer that reads all of a topic and parses every value with orjson, and no more.

A program of its own, `limit.py ADDRESS TOPIC`, so that it is measured like any other; prints one JSON line.
"""

import json
import sys
import time

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

#: Records that librdkafka hands over at most in one call.
_CALL_RECORDS = 10_000
#: By default librdkafka stops fetching a partition for a whole second once enough is queued: reading would then be three
#: times slower with most of the time spent asleep, and no limit at all.
_BACKOFF_MS = 5


def read_topic(address: str, topic: str) -> dict[str, float]:
    """Read what the topic holds now. `seconds` count from the assignment of the partitions to the last record.

    `not_json` are the values that orjson refuses. Raises KafkaException.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "bench-limit",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": _BACKOFF_MS,
        }
    )
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    ranges = [consumer.get_watermark_offsets(TopicPartition(topic, number), 10) for number in partitions]
    total = sum(end - first for first, end in ranges)
    records = not_json = 0
    began = time.monotonic()
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    while records < total:
        for message in consumer.consume(_CALL_RECORDS, 1.0):
            if message.error():
                raise KafkaException(message.error())
            records += 1
            try:
                orjson.loads(message.value())
            except orjson.JSONDecodeError:
                not_json += 1
    seconds = time.monotonic() - began
    consumer.close()
    return {"scans": records, "seconds": seconds, "not_json": not_json}


if __name__ == "__main__":
    print(json.dumps(read_topic(*sys.argv[1:])))
