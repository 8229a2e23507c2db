"""Ten times the national mean for a while, then a burst of twenty times: what lag, back-pressure and memory do meanwhile.

What a worker holds is the state of the last thirty-one hours (the late window, and the day before it), so an hour of real time
shows its growth and nothing else. Time can be hurried: the same scans a second, of a nation so much smaller, whose days pass so
much faster. Then memory fills, is cleared and fills again within the hour, and must stay as it is.
"""

import random
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
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

#: Memory is at its most when a third of what it holds can go: half as long again as the thirty-one hours. From two thirds of so
#: many hours on it has been there, and grows no more …
SETTLED: Final = timedelta(hours=71)
#: … but for what the machine's allocator makes of it.
_GROWTH: Final = 1.1

#: What starting and catching up take beside the loads, at most.
_SLACK_SECONDS: Final = 1_200.0


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
            first, middle, last = self._thirds(values)
            shown[name] = {
                "first third": _mean(first),
                "middle third": _mean(middle),
                "last third": _mean(last),
                "most": max(values, default=0),
            }
        return shown

    def growth(self) -> float:
        """The most memory of the last third, by that of the middle third."""
        _, middle, last = self._thirds(self.memory)
        return max(last) / max(middle)

    @staticmethod
    def _thirds(values: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        third = max(1, len(values) // 3)
        return values[:third], values[third:-third], values[-third:]


class Overload:
    """A pipeline under load: workers on a store of their own, at twice so many scans a second and back."""

    def __init__(self, folder: Path, workers: int, hurry: float, seconds: float) -> None:
        """`hurry`: how many times faster than the clock the scans' own time goes; in all, for about so many seconds."""
        self.world = World(folder, PARTITIONS, {"PIPELINE_CLOCK": "events"} if hurry != 1 else {})
        self._hurry = hurry
        self._begun = time.time()
        # Hurried time goes on while workers start and catch up: then, too, nothing may be from the future, which Kafka refuses.
        self._first = self._begun - (seconds + _SLACK_SECONDS) * (hurry - 1)
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
                key, value, at = self._record()
                self._producer.produce("check-ins", value, key, timestamp=at)
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

    def _record(self) -> tuple[bytes, bytes, int]:
        chance, hurry = self._chance, self._hurry
        venue = b"v-%d" % min(int(chance.expovariate(hurry / 5_000)), int(VENUES / hurry) - 1)
        at = self._first + (time.time() - self._begun) * hurry
        kind = b"check_in" if chance.random() < 0.77 else b"check_out"
        value = b'{"event_id":"e-%x","event_type":"%b","venue_id":"%b","visitor_id":"p-%d","occurred_at":"%b"}' % (
            chance.getrandbits(48),
            kind,
            venue,
            chance.randrange(int(VISITORS / hurry)),
            datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").encode(),
        )
        return venue, value, int(at * 1000)

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


def grown(load: Load, hurry: float) -> list[str]:
    """What is wrong with the memory under a load that went on for long enough to have settled."""
    if load.seconds * hurry < SETTLED.total_seconds() or load.growth() <= _GROWTH:
        return []
    return [f"memory is not flat: {load.growth():.2f} times as much in the last third as in the middle one"]


def _mean(values: list[Any]) -> float:
    return round(sum(values) / max(1, len(values)), 3)


def _sum(figures: list[dict[str, float]], name: str) -> float:
    return sum(value for each in figures for key, value in each.items() if key.split("{")[0] == name)
