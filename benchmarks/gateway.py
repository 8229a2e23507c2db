"""How many scans a second one gateway takes, pseudonymises and has confirmed by Kafka, and how long a sender waits.

Gateway, broker and the load (wrk) share the machine, so the load's own share of the cores is part of the figures. Every scan is
of another person; what was accepted is compared with what the topic has.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import psutil  # type: ignore[import-untyped]
from kafka import KafkaConsumer, TopicPartition

from benchmarks.measure import pipeline_command
from benchmarks.report import run, setting, table, write_between
from benchmarks.serving import measured, metric, spread, wait_for
from pipeline.broker import free_port, start_broker
from pipeline.errors import UserError
from pipeline.processes import end_process, tied
from pipeline.topic_admin import ensure_topics
from pipeline.topics import CHECK_INS, declared_topics
from pipeline.venue_codes import PUBLIC_FILE, CodeSigner, create_signing_key

#: The busiest moment that is planned for: 50 million accesses a day, ten times the mean.
_NEEDED: Final = 5_800
_VENUES: Final = 1_000

#: wrk's script: every scan of another person, at one of a thousand venues, now.
_SCRIPT: Final = """
local venues = {{ {venues} }}
local n = {first}
local function scan()
  n = n + 1
  return string.format('{{"event_id":"%d","event_type":"check_in",%s,"identifier":{{"kind":"phone","value":"+62 8%010d"}},' ..
    '"occurred_at":"%s","source":"gate"}}', n, venues[n % #venues + 1], n, os.date("!%Y-%m-%dT%H:%M:%SZ"))
end
wrk.headers["Content-Type"] = "application/json"
request = function()
  if {batch} == 1 then return wrk.format("POST", "/v1/scans", nil, scan()) end
  local scans = {{}}
  for i = 1, {batch} do scans[i] = scan() end
  return wrk.format("POST", "/v1/scans/batch", nil, "[" .. table.concat(scans, ",") .. "]")
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """One way to send: scans in a request, connections, and whether venues come as signed codes."""

    name: str
    batch: int
    connections: int
    signed: bool


_LOADS: Final = (
    Load("one scan a request", 1, 128, False),
    Load("one scan a request, signed codes", 1, 128, True),
    Load("100 scans a request", 100, 8, False),
)


@click.command(epilog="Example: python -m benchmarks.gateway --seconds 5 --rounds 1")
@click.option("--seconds", type=click.IntRange(2), default=10, show_default=True, help="Of load a round.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md.")
def command(seconds: int, rounds: int, write: bool) -> None:
    """Send scans to a gateway as fast as it has them confirmed, one by one and in batches, in turns."""
    wrk = shutil.which("wrk")
    if wrk is None:
        click.echo("wrk is not installed (Debian has it: apt-get install wrk): the gateway was not measured")
        return
    with TemporaryDirectory(prefix="bench-") as name, start_broker(Path(name), 0, tied_to_us=True) as broker:
        folder = Path(name)
        ensure_topics(broker.address, declared_topics(4, retention=None))
        with _gateway(folder, broker.address) as (url, process):
            found: dict[str, list[tuple[float, float, float]]] = {load.name: [] for load in _LOADS}
            failed = dict.fromkeys(found, 0)
            cpu: dict[str, list[float]] = {load.name: [] for load in _LOADS}
            for number in range(rounds):
                for load in _LOADS:
                    script = folder / "load.lua"
                    script.write_text(_script(load, folder, number))
                    before, used = metric(url, "pipeline_gateway_scans_total"), _cpu(process)
                    options = ["-t1", f"-c{load.connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
                    began = time.monotonic()
                    said = subprocess.run([wrk, *options], capture_output=True, text=True, check=True).stdout
                    took = time.monotonic() - began
                    scans = metric(url, "pipeline_gateway_scans_total") - before
                    cpu[load.name].append((_cpu(process) - used) / max(scans, 1) * 1e6)
                    each = measured(said)
                    found[load.name].append((scans / took, each.p50, each.p99))
                    failed[load.name] += each.failed
                    click.echo(f"{number + 1}/{rounds} {load.name}: {scans / took:,.0f} scans/s", err=True)
            while metric(url, "pipeline_gateway_pending_scans"):
                time.sleep(0.1)
            accepted = metric(url, "pipeline_gateway_scans_total", 'outcome="accepted"')
        stored = _records(broker.address)
    if stored != accepted:
        raise UserError(f"{accepted:,.0f} scans were confirmed to senders, but the topic has {stored:,}")
    rows = [
        [
            name,
            spread([rate for rate, _, _ in each], 0),
            spread([p50 for _, p50, _ in each], 1),
            spread([p99 for _, _, p99 in each], 1),
            spread(cpu[name], 0),
            str(failed[name]),
        ]
        for name, each in found.items()
    ]
    header = ["sent as", "scans/s", "half within, ms", "99 % within, ms", "CPU µs a scan", "failed"]
    figures = table(header, rows)
    figures += f"\n\n{stored:,} scans confirmed to senders, and as many in the topic. {_NEEDED:,}/s are needed."
    figures += " Medians (min–max)."
    text = f"{setting(f'python -m benchmarks.gateway --seconds {seconds} --rounds {rounds}')}\n\n{figures}"
    click.echo(text)
    if write:
        write_between("gateway", text)


def _script(load: Load, folder: Path, number: int) -> str:
    if load.signed:
        signer, now = CodeSigner(folder / "codes"), int(datetime.now(UTC).timestamp() * 1000) - 60_000
        codes = (signer.code(f"ven-{venue:06}", now, timedelta(days=365)) for venue in range(_VENUES))
        venues = [f'"venue_code":"{code}"' for code in codes]
    else:
        venues = [f'"venue_id":"ven-{venue:06}"' for venue in range(_VENUES)]
    first = (_LOADS.index(load) + 1) * 1_000_000_000 + number * 100_000_000
    return _SCRIPT.format(venues=",".join(f"'{each}'" for each in venues), first=first, batch=load.batch)


@contextmanager
def _gateway(home: Path, address: str) -> Iterator[tuple[str, Any]]:
    create_signing_key(home / "codes")
    port = free_port()
    settings = {
        "HOME": str(home),
        "KAFKA": address,
        "GATEWAY_PORT": str(port),
        "GATEWAY_VENUE_RATE": "1000",
        "VENUE_CODE_KEYS": str(home / "codes" / PUBLIC_FILE),
    }
    environment = {"PATH": "", **{f"PIPELINE_{name}": value for name, value in settings.items()}}
    subprocess.run(pipeline_command("keys", "create"), env=environment, check=True, capture_output=True)
    with (home / "gateway.log").open("wb") as log:
        process = psutil.Popen(tied(pipeline_command("gateway")), env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/readyz")
            yield f"http://127.0.0.1:{port}", process
        finally:
            end_process(process, 15)


def _cpu(process: Any) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _records(address: str) -> int:
    consumer = KafkaConsumer(bootstrap_servers=address, enable_auto_commit=False)
    partitions = [TopicPartition(CHECK_INS, each) for each in consumer.partitions_for_topic(CHECK_INS)]
    ends = consumer.end_offsets(partitions)
    consumer.close()
    return sum(ends.values())


if __name__ == "__main__":
    run(command)
