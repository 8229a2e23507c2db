"""How often the public status of a venue can be asked while scans stream in: requests a second, and how long they take.

One worker, one port, an embedded store: the same process stores the scans and answers. The load comes from wrk on the same
machine, so its own share of the cores is part of the figures. With `--venues` also what so many venues do to the page and to a
scrape of the metrics.
"""

import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Final

import click
import psutil  # type: ignore[import-untyped]

from benchmarks.measure import pipeline_command
from benchmarks.report import run, setting, table, write_between
from benchmarks.watching import get, page_figures, watch
from pipeline.broker import free_port, start_broker
from pipeline.errors import UserError
from pipeline.processes import end_process, tied
from pipeline.produce import ScanProducer
from pipeline.simulate import facts
from pipeline.simulate.day import DayPlan
from pipeline.simulate.options import SimulationOptions
from pipeline.topic_admin import ensure_topics
from pipeline.topics import CHECK_INS, VENUES, declared_topics
from schemas.venue import Venue

_TICK: Final = 0.05
_START_SECONDS: Final = 120.0
#: Of the simulator's records so many are valid, at least.
_VALID: Final = 0.99
_UNITS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0}

#: Who answers, and what makes a request's path so: with a question mark it is not what the process at the door knows.
_ANSWERED_BY: Final = {"the process at the door": "", "the worker's own process": "?"}
#: wrk's script: every request asks for another venue.
_SCRIPT: Final = """
local n = 0
request = function()
  n = n + 1
  return wrk.format("GET", string.format("/api/v1/venues/ven-%06d/now{end}", n % {venues}))
end
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One run of the load: requests a second, latencies in ms, and answers that were no answer."""

    rate: float
    p50: float
    p99: float
    failed: int


@click.command(epilog="Example: python -m benchmarks.serving --seconds 5 --rounds 1")
@click.option("--seconds", type=click.IntRange(2), default=10, show_default=True, help="Of load a round.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--connections", type=click.IntRange(1), default=32, show_default=True, help="Kept open by wrk.")
@click.option(
    "--scans", type=click.IntRange(0), default=1_000, show_default=True, help="A second, while it is measured."
)
@click.option("--venues", type=click.IntRange(1), help="How many venues there are.  [default: one city's 1,028]")
@click.option(
    "--before", type=click.IntRange(0), default=0, show_default=True, help="Scans stored before it is measured."
)
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md.")
def command(
    seconds: int, rounds: int, connections: int, scans: int, venues: int | None, before: int, write: bool
) -> None:
    """Ask a worker for the status of venues, as often as it answers, while it stores scans."""
    wrk = shutil.which("wrk")
    if wrk is None:
        click.echo("wrk is not installed (Debian has it: apt-get install wrk): requests a second were not measured")
        return
    with TemporaryDirectory(prefix="bench-") as folder, start_broker(Path(folder), 0, tied_to_us=True) as broker:
        plan = DayPlan(_day(venues, before))
        scripts = {}
        for name, end in _ANSWERED_BY.items():
            scripts[name] = Path(folder, f"venues{len(scripts)}.lua")
            scripts[name].write_text(_SCRIPT.format(venues=plan.options.venue_count, end=end))
        worker = running_worker(Path(folder), broker.address, plan.venues())
        with worker as (port, _), _stream(broker.address, plan, before, scans):
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/api/v1/venues/ven-000000/now")
            _wait_until_stored(url, before)
            time.sleep(3)  # the stream has come into its stride, and every venue of the fast path is known
            results: dict[str, list[Round]] = {name: [] for name in scripts}
            pages = []
            for number in range(rounds):
                for name, script in scripts.items():
                    asked = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
                    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
                    results[name].append(measured(said))
                    last = results[name][-1]
                    click.echo(f"{number + 1}/{rounds} {name}: {last.rate:,.0f}/s, 99 % in {last.p99:.1f} ms", err=True)
                if venues:
                    pages.append(watch(url))
                    click.echo(f"{number + 1}/{rounds} the page: {median(pages[-1].pauses):.1f} s apart", err=True)
            stored, lag = metric(url, "pipeline_scans_stored_total"), metric(url, "pipeline_consumer_lag_scans")
    options = f"--seconds {seconds} --rounds {rounds} --connections {connections} --scans {scans}"
    options += f" --venues {venues} --before {before}" if venues else ""
    rows = [
        [
            name,
            spread([each.rate for each in found], 0),
            spread([each.p50 for each in found], 1),
            spread([each.p99 for each in found], 1),
            str(sum(each.failed for each in found)),
        ]
        for name, found in results.items()
    ]
    figures = table(["answered by", "requests/s", "half within, ms", "99 % within, ms", "failed"], rows)
    figures += f"\n\n{stored:,.0f} scans stored meanwhile; {lag:,.0f} waiting at the end. Medians (min–max)."
    if pages:
        figures += f"\n\n{page_figures(pages)}"
    text = f"{setting(f'python -m benchmarks.serving {options}')}\n\n{figures}"
    click.echo(text)
    if write:
        write_between("serving-nation" if venues else "serving", text)


def _day(venues: int | None, before: int) -> SimulationOptions:
    if venues is None:
        return SimulationOptions(check_ins=147_000, city=facts.ONE_CITY)
    # Two scans or so a check-in; the stream must not run dry.
    return SimulationOptions(check_ins=max(venues, before + 300_000), venues=venues)


def _wait_until_stored(url: str, scans: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while metric(url, "pipeline_scans_accepted_total") < scans * _VALID:
        if time.monotonic() > deadline:
            raise UserError(f"{scans:,} scans are not stored after {_START_SECONDS:.0f} s")
        time.sleep(0.5)


def spread(values: list[float], digits: int) -> str:
    """The median, and the least and the most."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


@contextmanager
def running_worker(
    home: Path, address: str, venues: Iterable[Venue], **more: str
) -> Iterator[tuple[int, psutil.Popen]]:
    """A worker that is ready, these venues in its topic: its port and process. Missing topics are made; `more` are settings."""
    ensure_topics(address, declared_topics(4, retention=None))
    with ScanProducer(address, VENUES) as producer:
        for venue in venues:
            producer.send(venue.venue_id.encode(), venue.model_dump_json(exclude_none=True).encode())
    port = free_port()
    settings = {"HOME": str(home), "KAFKA": address, "CLOCK": "events", "HTTP_PORT": str(port), **more}
    with (home / "worker.log").open("wb") as log:
        process = psutil.Popen(
            tied(pipeline_command("worker")),
            env={"PATH": "", **{f"PIPELINE_{name}": value for name, value in settings.items()}},
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/readyz", lambda: process.poll() is None)
            yield port, process
        finally:
            end_process(process, 15)


@contextmanager
def _stream(address: str, plan: DayPlan, at_once: int, rate: int) -> Iterator[None]:
    """Send the first scans of the day as fast as Kafka takes them, then so many a second, until the end of the block."""

    def send(stop: Event) -> None:
        with ScanProducer(address, CHECK_INS) as producer:
            began, sent = time.monotonic(), 0
            for batch in plan.batches():
                for key, line in zip(batch.keys, batch.lines, strict=True):
                    while sent >= at_once + (time.monotonic() - began) * rate:
                        if stop.wait(_TICK):
                            return
                    producer.send(key, line)
                    sent += 1
                    if sent == at_once:
                        began = time.monotonic()

    with beside(send) if rate else nullcontext():
        yield


@contextmanager
def beside(send: Callable[[Event], None]) -> Iterator[None]:
    """Have `send` run in a thread of its own until the end of the block, when its event is set and it is waited for."""
    stop = Event()
    thread = Thread(target=send, args=(stop,), name="scans", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def wait_for(url: str, lives: Callable[[], bool] = lambda: True) -> None:
    """Return once an address answers well. Raises UserError after two minutes, or once who should answer no longer `lives`."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        if not lives():
            raise UserError(f"{url} does not answer: its process has ended")
        time.sleep(0.2)
    raise UserError(f"{url} does not answer after {_START_SECONDS:.0f} s")


def metric(url: str, name: str, labels: str = "") -> float:
    """The sum of a metric's series whose labels contain `labels`."""
    text = get(f"{url}/metrics").decode()
    return sum(map(float, re.findall(rf"^{name}(?:{{.*{re.escape(labels)}.*}})? (\S+)$", text, re.MULTILINE)))


def measured(said: str) -> Round:
    """What wrk said."""
    rate = float(_found(r"Requests/sec:\s+([\d.]+)", said)[1])
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    p50, p99 = (_milliseconds(_found(rf"{share}%\s+([\d.]+)(us|ms|s)", said)) for share in (50, 99))
    return Round(rate, p50, p99, int(failed[1]) if failed else 0)


def _found(pattern: str, said: str) -> "re.Match[str]":
    found = re.search(pattern, said)
    if found is None:
        raise UserError(f"wrk said something else than expected:\n{said}")
    return found


def _milliseconds(found: "re.Match[str]") -> float:
    return float(found[1]) * _UNITS[found[2]]


if __name__ == "__main__":
    run(command)
