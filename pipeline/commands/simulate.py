"""`pipeline simulate`: make a believable day of check-ins."""

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import click

from pipeline.interrupts import stop_on_interrupt
from pipeline.progress import progress_bar
from pipeline.settings import load_settings
from pipeline.simulate import facts
from pipeline.simulate.day import TRUTH_SCHEMA, DayPlan
from pipeline.simulate.files import SCAN_SUFFIXES, open_lines, open_table, write_truth, write_venues
from pipeline.simulate.options import SimulationOptions
from pipeline.simulate.send import send_day
from pipeline.simulate.text import ARROW_SCHEMA

#: Scans of one row group of a Parquet file.
_PARQUET_ROWS = 250_000


class _Speed(click.ParamType):
    name = "N|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if value == "max":
            return None
        try:
            speed = float(value)
        except ValueError:
            speed = 0.0
        if not 0 < speed <= 1e6:
            self.fail(f"{value!r} is neither max nor a number above 0 and up to 1,000,000", param, ctx)
        return speed


def _file(*suffixes: str) -> Any:
    def check(_ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
        if path is not None and not path.name.endswith(suffixes):
            raise click.BadParameter(f"{path.name} must end with {' or '.join(suffixes)}", param=param)
        return path

    return {"type": click.Path(dir_okay=False, path_type=Path), "callback": check}


@click.command(epilog="Example: pipeline simulate --check-ins 1000000 --out sunday.ndjson.zst --venues-out venues.csv")
@click.option("--out", **_file(*SCAN_SUFFIXES), help="The scans: .ndjson, .ndjson.gz, .ndjson.zst or .parquet.")
@click.option("--to-kafka", is_flag=True, help="Send the scans to the topic check-ins instead.")
@click.option(
    "--speed",
    type=_Speed(),
    metavar="N|max",
    default="max",
    show_default=True,
    help="With --to-kafka: real time times N.",
)
@click.option("--venues-out", **_file(".csv", ".ndjson"), help="The venue registry: .csv or .ndjson.")
@click.option("--truth", **_file(".parquet"), help="Who really was where, and how many: .parquet.")
@click.option(
    "--check-ins",
    type=click.IntRange(1_000, facts.MOST_CHECK_INS),
    default=100_000,
    show_default=True,
    help="Visits; check-outs, rescans and duplicates come on top.",
)
@click.option("--venues", type=click.IntRange(1, 999_999), help="How many venues. Default: one for 143 check-ins.")
@click.option(
    "--city",
    is_flag=False,
    flag_value=facts.ONE_CITY,
    metavar="[CODE]",
    help=f"One city, by its administrative code ({facts.ONE_CITY} if left out), not the nation.",
)
@click.option(
    "--date",
    "day",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    show_default=f"{facts.BUSY_SUNDAY}; with --to-kafka yesterday",
    help="The local day of every venue.",
)
@click.option(
    "--missing",
    type=click.FloatRange(0, 1),
    default=facts.MISSING_CHECK_OUTS,
    show_default=True,
    help="Share of visits without a check-out.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed and options, same bytes.")
def command(
    out: Path | None,
    to_kafka: bool,
    speed: float | None,
    venues_out: Path | None,
    truth: Path | None,
    check_ins: int,
    venues: int | None,
    city: str | None,
    day: datetime | None,
    missing: float,
    seed: int,
) -> None:
    """Make a believable Sunday of QR check-ins, in order of arrival: to a file, or to Kafka.

    People move from venue to venue through the day in three time zones; scans come late, twice, or not at all, phones'
    clocks are wrong, one scan stands for a family or hides a group, and one line in 1,001 is no scan. Some scans arrive
    today from up to ten days before.

    A Parquet file cannot hold the lines that are no scan: it has the valid scans only. --truth tells what really
    happened, with the true times and persons. In Kafka a record's timestamp is its arrival; a broker deletes records whose
    timestamps are older than the retention.
    """
    if out and to_kafka:
        raise click.UsageError("Choose one of --out and --to-kafka.")
    if not (out or to_kafka or venues_out or truth):
        raise click.UsageError("Say what to make: --out FILE, --to-kafka, --venues-out FILE or --truth FILE.")
    if speed is not None and not to_kafka:
        raise click.UsageError("--speed needs --to-kafka: a file is written as fast as it can be.")
    options = SimulationOptions(
        check_ins=check_ins,
        seed=seed,
        date=_date(day, to_kafka),
        missing=missing,
        venues=venues,
        city=city,
        batch_lines=_PARQUET_ROWS if out and out.suffix == ".parquet" else 20_000,
    )
    started = monotonic()
    try:
        with progress_bar("Planning the day", None):
            plan = DayPlan(options)
            if venues_out:
                write_venues(venues_out, plan.venues())
            if truth:
                write_truth(truth, TRUTH_SCHEMA, plan.truth())
    except KeyboardInterrupt:
        click.echo("pipeline: interrupted while planning the day: no scan was made", err=True)
        sys.exit(130)
    made = f"{check_ins:,} visits by {plan.visitor_count:,} people to {options.venue_count:,} venues on {options.date}"
    if not (out or to_kafka):
        click.echo(f"{made}; no scans were asked for")
        return
    total = len(plan.scans.order) if out and out.suffix == ".parquet" else plan.line_count
    done = 0
    with stop_on_interrupt() as stopped:
        with progress_bar("Simulating", total) as advance:
            for lines in _to_file(plan, out, stopped) if out else _to_kafka(plan, speed, stopped):
                done += lines
                advance(lines)
        target = out or "Kafka"
        if done < total:
            click.echo(f"pipeline: interrupted: {target} has the first {done:,} of {total:,} records, whole", err=True)
            sys.exit(130)
    seconds = monotonic() - started
    click.echo(f"{done:,} records to {target}: {made}; {seconds:.1f} s, {done / seconds:,.0f} records/s")


def _date(day: datetime | None, to_kafka: bool) -> date:
    """The day to make: of a topic the last whole one, because a broker deletes what is stamped with a day long ago."""
    today = datetime.now(UTC).date()
    if day is None:
        return today - timedelta(days=1) if to_kafka else facts.BUSY_SUNDAY
    retention = load_settings().retention
    if to_kafka and today - day.date() > retention:
        click.echo(
            f"pipeline: records of {day.date()} are older than the retention ({retention.days} days): the broker will delete "
            "them soon, by their timestamps; leave out --date to send yesterday",
            err=True,
        )
    return day.date()


def _to_file(plan: DayPlan, path: Path, stopped: Event) -> Iterator[int]:
    if path.suffix == ".parquet":
        with open_table(path, ARROW_SCHEMA) as writer:
            for table in plan.tables():
                if stopped.is_set():
                    return
                writer.write_table(table)
                yield table.num_rows
        return
    with open_lines(path) as file:
        for batch in plan.batches():
            if stopped.is_set():
                return
            file.write(b"\n".join([*batch.lines, b""]))
            yield len(batch.lines)


def _to_kafka(plan: DayPlan, speed: float | None, stopped: Event) -> Iterator[int]:
    from pipeline.produce import ScanProducer  # the client takes a moment to load, and files need none
    from pipeline.topics import CHECK_INS

    with ScanProducer(load_settings().kafka_access, CHECK_INS) as producer:
        yield from send_day(plan.batches(), producer, speed, stopped)
        producer.flush()
