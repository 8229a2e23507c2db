"""Scans as a bad day brings them, from a seed: duplicates, late and reordered ones, wrong clocks, poison, a newer schema."""

import json
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from confluent_kafka import Producer

#: What stands for a raw identifier; it is only in records and fields that must leave nothing behind.
SECRET: Final = "RAW-3174"

#: Category → max stay. Short, so that visits end by themselves while the harness runs.
STAYS: Final = {"kiosk": timedelta(minutes=1), "mall": timedelta(minutes=3), "office": timedelta(hours=12)}
MAX_STAY: Final = timedelta(minutes=2)

VENUES: Final = 40
VISITORS: Final = 400

#: Share of the records of each kind; the rest is ordinary.
DUPLICATES: Final = 0.01
REORDERED: Final = 0.05
LATE: Final = 0.01
WRONG_CLOCK: Final = 0.005
POISON: Final = 0.01

PRODUCER: Final = {
    # As the registered partitioner of the workers' topics, and no record lost or moved by a retry.
    "partitioner": "murmur2_random",
    "enable.idempotence": True,
    "linger.ms": 20,
    "message.max.bytes": 1 << 20,
    "delivery.timeout.ms": 600_000,
    "log_level": 2,
}


def venues(chance: random.Random) -> Iterator[dict[str, Any]]:
    """The registry: most venues, of all categories; some are never registered."""
    for number in range(VENUES - 3):
        category = ("kiosk", "mall", "office", "restaurant")[number % 4]
        yield venue(number, category, chance.randint(3, 30))


def venue(number: int, category: str, capacity: int) -> dict[str, Any]:
    """One registered venue."""
    return {"venue_id": f"v-{number}", "name": f"Venue {number}", "category": category, "capacity": capacity}


class Feed:
    """Sends scans in a thread of its own, `rate` a second, until `stop`."""

    def __init__(self, kafka: str, chance: random.Random, rate: float) -> None:
        self.rate = rate
        self.sent = 0
        #: Whether producers already send the next version of the schema: fields that nobody here knows.
        self.version = 1
        self._chance = chance
        self._producer = Producer(PRODUCER | {"bootstrap.servers": kafka})
        self._recent: list[tuple[str, bytes]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed")
        self.begun_at = time.time()

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more; returns when Kafka has everything."""
        self._stopping.set()
        self._thread.join()
        left = self._producer.flush(120)
        assert left == 0, f"Kafka has not taken {left} records"

    def register(self, record: dict[str, Any]) -> None:
        """Put a venue into the registry's topic."""
        self._producer.produce("venues", json.dumps(record).encode(), record["venue_id"].encode())

    def report(self, case: str, visitor: str) -> None:
        """Report a case, infectious since the harness began."""
        now = datetime.now(UTC)
        report = {
            "case_id": case,
            "visitor_id": visitor,
            "status": "confirmed",
            "reported_at": now.isoformat(timespec="milliseconds"),
            "infectious_from": (now - timedelta(days=4)).isoformat(timespec="milliseconds"),
            "infectious_until": (now + timedelta(days=1)).isoformat(timespec="milliseconds"),
        }
        self._producer.produce("case-reports", json.dumps(report).encode(), case.encode())

    def _run(self) -> None:
        while not self._stopping.is_set():
            begun = time.monotonic()
            for _ in range(max(1, round(self.rate / 10))):
                key, value = self._record()
                self._producer.produce("check-ins", value, key.encode())
                self.sent += 1
            self._producer.poll(0)
            self._stopping.wait(max(0.0, 0.1 - (time.monotonic() - begun)))

    def _record(self) -> tuple[str, bytes]:
        chance = self._chance
        dice = chance.random()
        if dice < DUPLICATES and self._recent:
            return chance.choice(self._recent)
        scan = self._scan()
        if dice > 1 - POISON:
            return scan["venue_id"], self._poison(scan)
        if self.version > 1:
            scan |= {"schema_version": 2, "gate": {"id": "g-1", "name": f"{SECRET}-name"}, "party_size_children": 1}
        record = scan["venue_id"], json.dumps(scan).encode()
        self._recent.append(record)
        del self._recent[:-500]
        return record

    def _scan(self) -> dict[str, Any]:
        chance = self._chance
        at = datetime.now(UTC)
        dice = chance.random()
        if dice < REORDERED:
            at -= timedelta(seconds=chance.uniform(0, 900))
        elif dice < REORDERED + LATE:
            at -= timedelta(hours=chance.uniform(0.5, 72))
        elif dice < REORDERED + LATE + WRONG_CLOCK:
            at += timedelta(days=chance.choice((-1, 1)))
        # A few busy venues, so that they get crowded.
        number = min(int(chance.expovariate(1 / 10)), VENUES - 1)
        return {
            "event_id": f"e-{chance.getrandbits(40):x}",
            "event_type": chance.choice(("check_in", "check_in", "check_out")),
            "venue_id": f"v-{number}",
            "visitor_id": f"p-{chance.randrange(VISITORS)}",
            "occurred_at": at.isoformat(timespec="milliseconds"),
            "party_size": chance.choice((1, 1, 1, 2, 4)),
        }

    def _poison(self, scan: dict[str, Any]) -> bytes:
        text = json.dumps(scan)
        kind = self._chance.randrange(8)
        if kind == 0:
            return b"\xff\xfe" + text.encode()
        if kind == 1:
            return text[:-5].encode()
        if kind == 2:
            return json.dumps(scan | {"visitor_id": f"{SECRET} 0812-3456"}).encode()
        if kind == 3:
            return json.dumps(scan | {"note": SECRET + "x" * 70_000}).encode()
        if kind == 4:
            return json.dumps(scan | {"party_size": 51}).encode()
        if kind == 5:
            return json.dumps(scan | {"occurred_at": "yesterday"}).encode()
        if kind == 6:
            return json.dumps([scan]).encode()
        return f"name={SECRET}".encode()
