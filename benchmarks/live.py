"""How far a live worker is behind a nation's peak: from a scan to the metric, to the alert and to the view, and what it costs.

One worker with everything in the contract on, an embedded store, and a steady stream of scans. Probes ride along: a scan at a
venue that nobody registered, which one counter counts; a party that fills a venue of its own, told of in the topic of alerts; and
another one there, asked for over HTTP from the view of minutes. All is seen from outside: what a probe took is from just before
it is sent until the answer that shows it has come, the pause between two questions included.
"""

import json
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event
from typing import Final

import click
import psutil  # type: ignore[import-untyped]
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.report import run, setting, table, write_between
from benchmarks.serving import beside, metric, running_worker
from benchmarks.watching import get
from pipeline.broker import start_broker
from pipeline.errors import UserError
from pipeline.produce import ScanProducer
from pipeline.topics import CHECK_INS, CROWDING_ALERTS
from schemas.venue import Venue

#: A nation's peak: 8 million check-ins and as many check-outs in a day have such a second.
PEAK: Final = 5_800

_VENUES: Final = 1_028
_TICK: Final = 0.02
_PROBE_EACH: Final = 1.0
#: Between two questions, in seconds.
_ASK_EACH: Final = 0.005
_PATIENCE: Final = 30.0
#: How long occupancy must last, in seconds; an alert can be told that much after the scan at the earliest.
_HOLD: Final = 1
_CROWDING: Final = json.dumps({level: {"raise_for": f"PT{_HOLD}S"} for level in ("warning", "critical")})


@dataclass(slots=True)
class Waits:
    """Of each probe, the seconds from the scan to where it is seen; of an alert, from when it is due."""

    metric: list[float] = field(default_factory=list)
    alert: list[float] = field(default_factory=list)
    view: list[float] = field(default_factory=list)

    @property
    def all(self) -> tuple[list[float], ...]:
        """Those to the metric, to the alert, and to the view."""
        return self.metric, self.alert, self.view


@click.command(epilog="Example: python -m benchmarks.live --seconds 20 --probes 10")
@click.option("--rate", type=click.IntRange(1), default=PEAK, show_default=True, help="Scans a second.")
@click.option("--inside", type=click.IntRange(0), default=200_000, show_default=True, help="Visits open before.")
@click.option("--seconds", type=click.IntRange(5), default=60, show_default=True, help="To measure the CPU time.")
@click.option(
    "--probes", type=click.IntRange(1), default=100, show_default=True, help="Of each kind, one after another."
)
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md.")
def command(rate: int, inside: int, seconds: int, probes: int, write: bool) -> None:
    """Stream scans to a worker at a steady rate, and see how soon they are counted, told and shown."""
    with TemporaryDirectory(prefix="bench-") as folder, start_broker(Path(folder), 0, tied_to_us=True) as broker:
        worker = running_worker(
            Path(folder), broker.address, _venues(probes), CLOCK="wall", CROWDING=_CROWDING, MAX_STAY="PT4H"
        )
        with worker as (port, process), _stream(broker.address, rate, inside):
            url = f"http://127.0.0.1:{port}"
            _until(lambda: metric(url, "pipeline_scans_stored_total") >= inside + 5 * rate, "the store", 300)
            share = _cpu_share(process, seconds)
            lag = metric(url, "pipeline_consumer_lag_scans")
            waits = _probe(broker.address, url, probes)
            lag = max(lag, metric(url, "pipeline_consumer_lag_scans"))
    options = f"--rate {rate} --inside {inside} --seconds {seconds} --probes {probes}"
    rows = [
        ["to the metric", *_spread(waits.metric)],
        [f"to the alert in its topic, after its {_HOLD} s", *_spread(waits.alert)],
        ["to the view", *_spread(waits.view)],
    ]
    text = (
        f"{setting(f'python -m benchmarks.live {options}')}\n\n"
        f"{table(['from a scan, ms', 'half within', '99 % within', 'most'], rows)}\n\n"
        f"The worker, its process at the door included, used {share:.0%} of one core at {rate:,} scans/s before the probes "
        f"asked anything. At most {lag:,.0f} scans waited when looked at: {lag / rate:.1f} s of the stream."
    )
    click.echo(text)
    if write:
        write_between("live", text)


def _venues(probes: int) -> Iterator[Venue]:
    for number in range(_VENUES):
        yield Venue(venue_id=f"ven-{number}", name=f"Venue {number}", category="office", capacity=1_000_000)
    for number in range(probes):
        yield Venue(venue_id=f"probe-{number}", name=f"Probe {number}", category="office", capacity=2)


def _scan(event_type: str, venue: str, visitor: str, party: int = 1) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return (
        f'{{"event_id":"{event_type}-{venue}-{visitor}","event_type":"{event_type}","venue_id":"{venue}",'
        f'"visitor_id":"{visitor}","occurred_at":"{now}","party_size":{party},"source":"app"}}'
    ).encode()


@contextmanager
def _stream(address: str, rate: int, inside: int) -> Iterator[None]:
    """Send so many check-ins at once, then a check-in or a check-out so many times a second, until the end of the block."""

    def send(stop: Event) -> None:
        chance, present, number = random.Random(1), deque[tuple[str, str]](), 0
        with ScanProducer(address, CHECK_INS) as producer:
            began, sent = time.monotonic(), 0
            while not stop.wait(_TICK):
                due = inside + int((time.monotonic() - began) * rate)
                while sent < due:
                    if sent >= inside and present and chance.random() < 0.5:
                        venue, visitor = present.popleft()
                        producer.send(venue.encode(), _scan("check_out", venue, visitor))
                    else:
                        venue, visitor = f"ven-{chance.randrange(_VENUES)}", f"v-{number:08d}"
                        number += 1
                        present.append((venue, visitor))
                        producer.send(venue.encode(), _scan("check_in", venue, visitor))
                    sent += 1
                    if sent == inside:
                        began = time.monotonic()

    with beside(send):
        yield


def _cpu_share(process: psutil.Popen, seconds: int) -> float:
    def spent() -> float:
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        return float(sum(each.user + each.system for each in times))

    before, began = spent(), time.monotonic()
    time.sleep(seconds)
    return (spent() - before) / (time.monotonic() - began)


def _probe(address: str, url: str, probes: int) -> Waits:
    waits = Waits()
    # At once: a client that waits for more to send would be measured instead.
    producer = Producer({"bootstrap.servers": address, "linger.ms": 0})
    alerts = Consumer({"bootstrap.servers": address, "group.id": "live", "fetch.wait.max.ms": 5})
    count = len(alerts.list_topics(CROWDING_ALERTS, 20).topics[CROWDING_ALERTS].partitions)
    alerts.assign(
        [TopicPartition(CROWDING_ALERTS, each, alerts.get_watermark_offsets(TopicPartition(CROWDING_ALERTS, each))[1])
         for each in range(count)]
    )  # fmt: skip

    def send(venue: str, visitor: str, party: int = 1) -> float:
        producer.produce(CHECK_INS, _scan("check_in", venue, visitor, party), venue.encode())
        began = time.perf_counter()
        producer.poll(0)
        return began

    def alerted(venue: str) -> bool:
        message = alerts.poll(0)
        return message is not None and message.error() is None and json.loads(message.value())["venue_id"] == venue

    try:
        for number in range(probes):
            unknown = metric(url, "pipeline_scans_unknown_venue_total")
            began = send(f"nowhere-{number}", "first")
            _until(lambda before=unknown: metric(url, "pipeline_scans_unknown_venue_total") > before, "the metrics")  # type: ignore[misc]
            waits.metric.append(time.perf_counter() - began)
            time.sleep(_PROBE_EACH * random.random())
            venue = f"probe-{number}"
            began = send(venue, "first", 3)
            _until(lambda at=venue: alerted(at), "the topic of alerts", pause=0.001)  # type: ignore[misc]
            waits.alert.append(time.perf_counter() - began - _HOLD)
            time.sleep(_PROBE_EACH * random.random())
            shown = _arrivals(url, venue)
            began = send(venue, "second")
            _until(lambda at=venue, before=shown: _arrivals(url, at) > before, "the view")  # type: ignore[misc]
            waits.view.append(time.perf_counter() - began)
            click.echo(f"{number + 1}/{probes}: {', '.join(f'{each[-1]:.2f} s' for each in waits.all)}", err=True)
            time.sleep(_PROBE_EACH * random.random())
    finally:
        alerts.close()
    return waits


def _arrivals(url: str, venue: str) -> int:
    # Read from the store for each question; `now` would be answered from the copy that is made every second.
    return sum(int(point["arrivals"]) for point in json.loads(get(f"{url}/api/v1/venues/{venue}/history"))["items"])


def _until(happened: Callable[[], bool], what: str, patience: float = _PATIENCE, pause: float = _ASK_EACH) -> None:
    until = time.monotonic() + patience
    while not happened():
        if time.monotonic() > until:
            raise UserError(f"what was sent is not to be seen in {what} after {patience:.0f} s")
        time.sleep(pause)


def _spread(waits: list[float]) -> list[str]:
    ordered = sorted(1000 * each for each in waits)
    return [f"{median(ordered):,.0f}", f"{ordered[ceil(0.99 * len(ordered)) - 1]:,.0f}", f"{ordered[-1]:,.0f}"]


if __name__ == "__main__":
    run(command)
