"""How long it takes from a report to everyone exposed, over two weeks of a nation's visits; and from a later scan to Kafka.

The visits are made in SQL straight into a store, without scans: only tracing is measured, and nothing else reads them.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.request import urlopen

import click
import numpy as np
import pyarrow as pa

from benchmarks.measure import Run, pipeline_command, run_measured
from benchmarks.report import run, setting, table, write_between
from pipeline.errors import UserError
from pipeline.simulate.facts import (
    CATEGORIES,
    HOURLY_SHARES,
    LONGEST_STAY,
    VENUE_MEDIAN,
    VENUE_MOST,
    VENUE_SIGMA,
)

#: The last day; every visit began before its end.
_LAST_DAY: Final = datetime(2021, 9, 19, tzinfo=UTC)
#: Visits without a check-out, and until when those count; of the facts and the settings.
_MISSING: Final = 0.7
_MAX_STAY_MS: Final = 4 * 3_600_000
_DAYS_PER_VISITOR_VISIT: Final = 2.67
_LATE_SCANS: Final = 30

# Uniform numbers in (0, 1) from hashes: the same visits on every machine.
_DAY_OF_VISITS: Final = """
INSERT INTO visit_rows
WITH
    (k -> (cityHash64({day:UInt32}, venue_id, i, k) + 1) / 18446744073709551616.) AS u,
    arrayFirstIndex(share -> share > u(1), {hours:Array(Float64)}) - 1 AS hour,
    toInt64(({day_ms:Int64} + hour * 3600000) + toInt64(u(2) * 3600000)) AS start,
    toInt64(60000 * least({longest:Float64}, median * exp(sigma * sqrt(-2 * log(u(3))) * cos(2 * pi() * u(4))))) AS stay,
    u(5) < {missing:Float64} AS expired
SELECT
    venue_id,
    concat('v-', lower(hex(cityHash64(toUInt64(u(6) * {visitors:UInt64}))))),
    fromUnixTimestamp64Milli(start, 'UTC'),
    fromUnixTimestamp64Milli(start + if(expired, {max_stay:Int64}, stay), 'UTC'),
    CAST(expired, 'Enum8(\\'check_out\\' = 0, \\'expired\\' = 1, \\'open\\' = 2)'),
    1, rowNumberInAllBlocks() + 1, 0
FROM bench_venues ARRAY JOIN range(visits) AS i
SETTINGS max_partitions_per_insert_block = 0
"""


@click.command(epilog="Example: python -m benchmarks.tracing --days 3 --visits 200000 --cases 50")
@click.option("--days", type=click.IntRange(1, 14), default=14, show_default=True, help="Days of visits.")
@click.option("--visits", type=click.IntRange(1_000), default=8_000_000, show_default=True, help="Visits a day.")
@click.option("--singles", type=click.IntRange(1), default=50, show_default=True, help="Cases reported one by one.")
@click.option("--cases", type=click.IntRange(1), default=1_000, show_default=True, help="Cases reported at once.")
@click.option("--home", type=click.Path(path_type=Path), help="Keep the store here; one that is there is used again.")
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md.")
@click.option("--phase", type=click.Choice(["make", "trace"]), hidden=True)
def command(
    days: int, visits: int, singles: int, cases: int, home: Path | None, write: bool, phase: str | None
) -> None:
    """Measure tracing at an embedded store: one case, many at once, and a later scan from Kafka to Kafka."""
    if phase is not None:
        assert home is not None
        print(json.dumps(_make(home, days, visits) if phase == "make" else _trace(home, singles, cases)))
        return
    with _folder(home) as folder:
        if not (folder / "made").exists():
            made = _phase(folder, "make", days, visits, singles, cases)
            (folder / "made").write_text(made.stdout)
        facts = json.loads((folder / "made").read_text())
        click.echo(f"{facts['visits']:,} visits, {facts['bytes'] / 2**30:.1f} GiB", err=True)
        traced = _phase(folder, "trace", days, visits, singles, cases)
        figures = json.loads(traced.stdout.splitlines()[-1])
        click.echo(json.dumps(figures), err=True)
        delays = _later_scans(folder, figures.pop("places"))
    options = f"--days {days} --visits {visits} --singles {singles} --cases {cases}"
    text = f"{setting(f'python -m benchmarks.tracing {options}')}\n\n{_figures(facts, figures, traced, delays)}"
    click.echo(text)
    if write:
        write_between("tracing", text)


@contextmanager
def _folder(home: Path | None) -> Iterator[Path]:
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        yield home.absolute()
    else:
        with TemporaryDirectory(prefix="bench-") as folder:
            yield Path(folder)


def _phase(folder: Path, name: str, days: int, visits: int, singles: int, cases: int) -> Run:
    options = {"days": days, "visits": visits, "singles": singles, "cases": cases, "home": folder, "phase": name}
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[1]), before]))
    return run_measured([sys.executable, "-m", "benchmarks.tracing", *words], folder, {"store": str(folder / "store")})


def _venues(visits: int) -> pa.Table:
    """Venues until they have `visits` a day: sizes are lognormal as a nation's are, of each category a share of the venues."""
    chance = np.random.default_rng(1)
    shares = np.array([kind.share for kind in CATEGORIES])
    sizes: list[int] = []
    while sum(sizes) < visits:
        drawn = VENUE_MEDIAN * np.exp(VENUE_SIGMA * chance.standard_normal(256))
        sizes += np.clip(drawn, 1, VENUE_MOST).astype(int).tolist()
    sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), visits)) + 1]
    kinds = [CATEGORIES[code] for code in chance.choice(len(CATEGORIES), len(sizes), p=shares / shares.sum())]
    return pa.table(
        {
            "venue_id": [f"ven-{number:06}" for number in range(len(sizes))],
            "category": [kind.name for kind in kinds],
            "visits": sizes,
            "median": [kind.dwell_median for kind in kinds],
            "sigma": [kind.dwell_sigma for kind in kinds],
        }
    )


def _make(home: Path, days: int, visits: int) -> dict[str, int]:
    from pipeline.settings import load_settings
    from pipeline.store.client import open_store
    from pipeline.store.writer import Progress, Write, Writer

    venues = _venues(visits)
    hours = np.cumsum(HOURLY_SHARES) / np.sum(HOURLY_SHARES)
    with closing(open_store(load_settings(store=home / "store"))) as client:
        client.command(
            "CREATE TABLE bench_venues (venue_id String, category String, visits UInt32, median Float64, sigma Float64) "
            "ENGINE = Memory"
        )
        client.insert_arrow("bench_venues", venues)
        client.command(
            "INSERT INTO registry_rows (venue_id, name, category, version, is_deleted) "
            "SELECT venue_id, venue_id, category, 1, 0 FROM bench_venues"
        )
        for number in range(days):
            day = _LAST_DAY - timedelta(days=number)
            client.command(
                _DAY_OF_VISITS,
                parameters={
                    "day": number,
                    "day_ms": int(day.timestamp()) * 1000,
                    "hours": hours.tolist(),
                    "longest": LONGEST_STAY * 60.0,
                    "missing": _MISSING,
                    "visitors": int(visits / _DAYS_PER_VISITOR_VISIT),
                    "max_stay": _MAX_STAY_MS,
                },
            )
        client.command("DROP TABLE bench_venues")
        end = int((_LAST_DAY + timedelta(days=1)).timestamp()) * 1000 - 1
        Writer(client).write(Write(1 << 30, 1 << 31, [Progress("check-ins", 0)], end, end, end, "events"))
        rows, size = client.query(
            "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE table = 'visit_rows' AND active"
        ).result_rows[0]
    return {"visits": rows, "bytes": size, "venues": venues.num_rows}


def _reports(client: Any, count: int, name: str, *, whole: bool) -> list[bytes]:
    """Reports on the last evening: infectious all the time, or with an onset one to six days before."""
    visitors = client.query(
        f"SELECT DISTINCT visitor_id FROM visit_rows WHERE checked_in_at >= toDateTime('{_LAST_DAY:%F} 21:00:00', 'UTC') "
        f"ORDER BY cityHash64(visitor_id, '{name}') LIMIT {count}"
    ).result_rows
    reported = _LAST_DAY + timedelta(days=1)
    reports = []
    for number, (visitor,) in enumerate(visitors):
        record = {"case_id": f"{name}-{number}", "visitor_id": visitor, "status": "confirmed"}
        record |= {
            "reported_at": f"{reported:%FT%TZ}",
            "onset_date": f"{_LAST_DAY - timedelta(days=1 + number % 6):%F}",
        }
        if whole:
            record |= {"infectious_from": f"{reported - timedelta(days=14):%FT%TZ}"}
        reports.append(json.dumps(record).encode())
    return reports


def _trace(home: Path, singles: int, cases: int) -> dict[str, Any]:
    from pipeline.settings import load_settings
    from pipeline.store.client import open_store
    from pipeline.tracing.tracer import open_tracer

    settings = load_settings(store=home / "store")
    figures: dict[str, Any] = {}
    with closing(open_store(settings)) as client:
        for name in ("report_set", "case_rows", "exposure_rows", "interval_rows", "warning_rows", "published_rows"):
            client.command(f"TRUNCATE TABLE {name}")
        kinds = {
            "fortnight": _reports(client, singles, "fortnight", whole=True),
            "typical": _reports(client, singles, "typical", whole=False),
            "many": _reports(client, cases, "many", whole=False),
        }
        with closing(open_tracer(settings)) as tracer:
            tracer.own((), everything=True)
            # The first pass pays for what is loaded once.
            _report(tracer, _reports(client, 1, "first", whole=False))
            for kind in ("fortnight", "typical"):
                figures[kind] = [_report(tracer, [report]) for report in kinds[kind]]
            figures["many"] = _report(tracer, kinds["many"])
            for kind in kinds:
                figures[f"{kind}_exposures"] = client.query(
                    f"SELECT count() FROM exposures WHERE startsWith(case_id, '{kind}')"
                ).result_rows[0][0]
            # Only the last of the visits: of a scan further back than the late window the correction waits for others.
            figures["places"] = client.query(
                "SELECT venue_id, toUnixTimestamp64Milli(warn_from) FROM interval_rows FINAL "
                f"WHERE checked_in_at >= toDateTime('{_LAST_DAY:%F} 21:00:00', 'UTC') AND startsWith(case_id, 'typical') "
                f"ORDER BY cityHash64(case_id, venue_id) LIMIT {_LATE_SCANS}"
            ).result_rows
        # As if Kafka had them all: how long a later scan takes is to be seen, not how long a million messages do.
        client.command(
            "INSERT INTO published_rows SELECT 'exposures', case_id, max(version) FROM exposure_rows GROUP BY case_id"
        )
        client.command("ALTER TABLE warning_rows UPDATE told = 1 WHERE 1 SETTINGS mutations_sync = 2")
    return figures


def _report(tracer: Any, reports: list[bytes]) -> float:
    began = time.monotonic()
    nothing = [None] * len(reports)
    assert not tracer.load("case-reports", 0, (), nothing, nothing, reports)
    tracer.trace_due()
    return time.monotonic() - began


def _later_scans(home: Path, places: list[tuple[str, int]]) -> list[float]:
    """Seconds from a scan's Kafka timestamp to that of the exposure which follows from it, one scan after the other."""
    import psutil  # type: ignore[import-untyped]
    from confluent_kafka import Consumer, TopicPartition

    from pipeline.broker import start_broker
    from pipeline.processes import end_process, tied
    from pipeline.produce import ScanProducer
    from pipeline.topic_admin import ensure_topics
    from pipeline.topics import declared_topics

    delays = []
    with start_broker(home / "kafka", 0, tied_to_us=True) as broker, (home / "worker.log").open("wb") as log:
        ensure_topics(broker.address, declared_topics(1, retention=None))
        environment = {
            **os.environ,
            "PIPELINE_KAFKA": broker.address,
            "PIPELINE_HTTP_PORT": "18089",
            "PIPELINE_CLOCK": "events",
            # The last day's visits are all in memory's reach, and loaded at the start.
            "PIPELINE_STORE_MEMORY_MIB": "8192",
        }
        command = tied(pipeline_command("worker", "--store", str(home / "store")))
        worker = psutil.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
        consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "bench", "enable.auto.commit": False})
        consumer.assign([TopicPartition("exposures", 0, 0)])
        try:
            _until_traced(worker)
            with ScanProducer(broker.address, "check-ins") as producer:
                for number, (venue, at) in enumerate(places):
                    visitor = f"late-{number}"
                    occurred = datetime.fromtimestamp(at / 1000 + 60, UTC).isoformat(timespec="milliseconds")
                    scan = {"event_id": visitor, "event_type": "check_in", "venue_id": venue, "visitor_id": visitor}
                    sent = time.time_ns() // 1_000_000
                    producer.send(venue.encode(), json.dumps({**scan, "occurred_at": occurred}).encode(), sent)
                    producer.flush()
                    delays.append((_published(consumer, visitor) - sent) / 1000)
        finally:
            consumer.close()
            end_process(worker, 30)
    return delays


def _until_traced(worker: Any) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and worker.poll() is None:
        time.sleep(1)
        try:
            with urlopen("http://127.0.0.1:18089/metrics") as answer:
                shown = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[:1] != "#")
        except OSError:
            continue
        if float(shown["pipeline_assigned_partitions"]) and not float(shown["pipeline_cases_due"]):
            time.sleep(2)
            return
    raise UserError("the worker did not come so far as to trace: see worker.log")


def _published(consumer: Any, visitor: str) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        record = consumer.poll(0.5)
        if record is not None and not record.error() and json.loads(record.value())["visitor_id"] == visitor:
            return int(record.timestamp()[1])
    raise UserError("an exposure that had to follow from a scan was not published in two minutes")


def _figures(facts: dict[str, int], figures: dict[str, Any], traced: Run, delays: list[float]) -> str:
    def line(name: str, seconds: list[float], exposures: int | None) -> tuple[str, ...]:
        p50, p99 = np.quantile(seconds, [0.5, 0.99])
        each = "" if exposures is None else f"{exposures / len(seconds):,.0f}"
        return name, f"{len(seconds)}", each, f"{p50:.2f}", f"{p99:.2f}", f"{max(seconds):.2f}"

    rows = [
        line("one case, infectious all 14 days", figures["fortnight"], figures["fortnight_exposures"]),
        line("one case, infectious since 2 days before its onset", figures["typical"], figures["typical_exposures"]),
        ("many cases at once", "1", f"{figures['many_exposures']:,}", f"{figures['many']:.1f}", "", ""),
        line("a later scan, from Kafka to Kafka", delays, None),
    ]
    return (
        f"{facts['visits']:,} visits at {facts['venues']:,} venues, {facts['bytes'] / 2**30:.1f} GiB in the store; "
        f"peak memory of the tracing process {traced.peak_rss / 2**20:,.0f} MiB.\n\n"
        + table(("seconds", "runs", "exposures each", "p50", "p99", "most"), rows)
    )


if __name__ == "__main__":
    run(command)
