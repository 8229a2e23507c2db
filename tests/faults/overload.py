"""Ten times the national mean for a while, then a burst of twenty times: what lag, back-pressure and memory do meanwhile."""

import random
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
from confluent_kafka import Producer

from tests.faults.feed import PRODUCER
from tests.faults.verifier import Promise, verify
from tests.faults.world import World

#: 8 million check-ins a day.
NATIONAL_MEAN: Final = 93.0
PARTITIONS: Final = 4
VENUES: Final = 56_000
VISITORS: Final = 3_000_000


@dataclass(slots=True)
class Load:
    """What was seen, each second or so. Lag in records, memory in MiB, of all workers together."""

    scans_per_second: float
    seconds: float = 0.0
    sent: int = 0
    lag: list[int] = field(default_factory=list)
    buffer_fill: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    caught_up_in: float = 0.0

    def figures(self) -> dict[str, Any]:
        """As JSON has it."""
        shown = asdict(self)
        for name in ("lag", "buffer_fill", "memory"):
            values = shown.pop(name)
            third = max(1, len(values) // 3)
            shown[name] = {
                "first third": round(sum(values[:third]) / third, 3),
                "last third": round(sum(values[-third:]) / third, 3),
                "most": max(values, default=0),
            }
        return shown


class Overload:
    """A pipeline under load: workers on a store of their own, at twice so many scans a second and back."""

    def __init__(self, folder: Path, workers: int, settings: dict[str, str]) -> None:
        self.world = World(folder, PARTITIONS, settings)
        self._producer = Producer(
            PRODUCER | {"bootstrap.servers": self.world.kafka, "queue.buffering.max.messages": 1_000_000}
        )
        self._workers = [self.world.start_worker() for _ in range(workers)]
        self._chance = random.Random(1)
        self._started = False

    def load(self, rate: float, seconds: float, patience: float) -> Load:
        """Send at a rate, watching; then wait until all is stored, for `patience` seconds at the most."""
        if not self._started:
            self._started = True
            self.load(50, 2, 600)
        load = Load(rate)
        begun = time.monotonic()
        while (now := time.monotonic() - begun) < seconds:
            due = round(rate * now) - load.sent
            for _ in range(due):
                key, value = self._record()
                self._producer.produce("check-ins", value, key)
                load.sent += 1
            self._producer.poll(0)
            if len(load.lag) < now:
                self._look(load)
            time.sleep(0.02)
        load.seconds = time.monotonic() - begun
        self._producer.flush(60)
        ends, sent = self.world.ends(), time.monotonic()
        while any(self.world.accounting().get(each, 0) < end for each, end in ends.items()):
            assert time.monotonic() < sent + patience, f"not caught up after {patience:.0f} s"
            time.sleep(0.2)
        load.caught_up_in = time.monotonic() - sent
        return load

    def _look(self, load: Load) -> None:
        figures = [worker.metrics() for worker in self._workers]
        load.lag.append(int(_sum(figures, "pipeline_consumer_lag_scans")))
        load.buffer_fill.append(_sum(figures, "pipeline_buffer_fill_ratio"))
        load.memory.append(sum(psutil.Process(worker.pid).memory_info().rss for worker in self._workers) >> 20)

    def _record(self) -> tuple[bytes, bytes]:
        chance = self._chance
        venue = b"v-%d" % min(int(chance.expovariate(1 / 5_000)), VENUES - 1)
        at = datetime.now(UTC).isoformat(timespec="milliseconds").encode()
        kind = b"check_in" if chance.random() < 0.77 else b"check_out"
        return venue, (
            b'{"event_id":"e-%x","event_type":"%b","venue_id":"%b","visitor_id":"p-%d","occurred_at":"%b"}'
            % (chance.getrandbits(48), kind, venue, chance.randrange(VISITORS), at)
        )

    def wrong(self) -> list[str]:
        """Stop the workers, and compare what is stored with the log."""
        for worker in self._workers:
            worker.stop()
        said = self.world.run("worker", "--drain")
        promise = Promise(self.world.kafka, self.world.store_url, self.world.group, 4 * 3_600_000)
        return verify(promise, [said]).wrong

    def close(self) -> None:
        """End everything."""
        for worker in self._workers:
            worker.kill()
        self.world.close()


def _sum(figures: list[dict[str, float]], name: str) -> float:
    return sum(value for each in figures for key, value in each.items() if key.split("{")[0] == name)
