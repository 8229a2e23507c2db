"""A simulated day sent record by record, as fast as it would have come, or faster."""

from collections.abc import Iterable, Iterator
from threading import Event
from time import monotonic
from typing import Final, Protocol

import numpy as np

from pipeline.simulate.day import ArrivalBatch

#: Seconds between two looks at what is due.
_TICK: Final = 0.01


class Sink(Protocol):
    """What takes the records: a Kafka producer."""

    def send(self, key: bytes | None, value: bytes, timestamp_ms: int | None = None) -> None: ...


def send_day(batches: Iterable[ArrivalBatch], sink: Sink, speed: float | None, stopped: Event) -> Iterator[int]:
    """Send every record with the time of its arrival as its timestamp; yields how many were sent since the last yield.

    `speed` is how many times faster than the day itself, from its first arrival on; None waits for nothing.
    Ends early once `stopped` is set.
    """
    started = monotonic()
    first: int | None = None
    for batch in batches:
        times = batch.arrival_ms.tolist()
        first = times[0] if first is None else first
        at = 0
        while at < len(times):
            if stopped.is_set():
                return
            until = len(times)
            if speed is not None:
                now = first + (monotonic() - started) * 1000 * speed
                until = int(np.searchsorted(batch.arrival_ms, now, "right"))
                if until == at:
                    stopped.wait(max(_TICK, (times[at] - now) / 1000 / speed))
                    continue
            for record in range(at, until):
                sink.send(batch.keys[record], batch.lines[record], timestamp_ms=times[record])
            yield until - at
            at = until
