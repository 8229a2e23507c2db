"""A simulated day as the benchmarks use it: as a file, in Kafka, and its venues; made once for all that read it."""

from datetime import timedelta
from pathlib import Path

import click

from benchmarks.measure import Run, pipeline_command, run_measured
from pipeline.errors import UserError
from pipeline.produce import ScanProducer
from pipeline.progress import progress_bar
from pipeline.simulate import facts
from pipeline.simulate.day import DayPlan
from pipeline.simulate.files import open_lines, write_venues
from pipeline.simulate.options import SimulationOptions
from pipeline.topic_admin import ensure_topics
from pipeline.topics import CHECK_INS, Topic, declared_topics


def load_day(home: Path, address: str, options: SimulationOptions, partitions: int, topic: str = CHECK_INS) -> int:
    """Make the day, once, as a file and in Kafka, with its venues; and the compiled code. Returns how many records.

    A day in another `topic` is nothing that our worker reads: its venues are not loaded.
    """
    # Retention counts from the records' own timestamps, which are of the simulated day: none may be set.
    topics = declared_topics(partitions, retention=None)
    ensure_topics(address, topics if topic == CHECK_INS else [Topic(topic, partitions)])
    plan = DayPlan(options)
    write_venues(venues_file(home, topic), plan.venues())
    with (
        ScanProducer(address, topic) as producer,
        open_lines(scans_file(home, topic)) as file,
        progress_bar("making the day", plan.line_count) as advance,
    ):
        for batch in plan.batches():
            file.write(b"\n".join([*batch.lines, b""]))
            for key, line, arrival in zip(batch.keys, batch.lines, batch.arrival_ms.tolist(), strict=True):
                producer.send(key, line, arrival)
            advance(len(batch.lines))
        producer.flush()
        if producer.confirmed != plan.line_count:
            raise UserError(f"Kafka took {producer.confirmed:,} of {plan.line_count:,} records")
    if topic == CHECK_INS:
        run_measured(pipeline_command("venues", "load", str(venues_file(home))), home, {"kafka": address})
    # Compiling belongs to the first start on a machine, not to a figure.
    small = home / "small.ndjson"
    with open_lines(small) as file:
        for batch in DayPlan(SimulationOptions(check_ins=1_000)).batches():
            file.write(b"\n".join([*batch.lines, b""]))
    run_measured(pipeline_command("replay", str(small), "--store", str(home / f"small-{topic}")), home, {})
    return plan.line_count


def replay_day(home: Path, check_ins: int, days_before: int = 0) -> tuple[Path, Run]:
    """Make a day and replay it into the folder `store`, after so many before it at the same venues. Returns its file of scans,
    and its replay's process.
    """
    scans, venues = home / "day.ndjson.zst", home / "venues.csv"
    for before in range(days_before, -1, -1):
        # Another registry would have all of the days before counted again.
        registry = home / "other-venues.csv" if venues.exists() else venues
        day = ("--date", str(facts.BUSY_SUNDAY - timedelta(days=before)), "--seed", str(before + 1))
        files = ("--out", str(scans), "--venues-out", str(registry))
        run_measured(pipeline_command("simulate", "--check-ins", str(check_ins), *day, *files), home, {})
        click.echo("a day is made; replaying it", err=True)
        arguments = ("replay", str(scans), "--venues", str(venues), "--store", str(home / "store"))
        replayed = run_measured(pipeline_command(*arguments), home, {"clock": "events"})
    return scans, replayed


def scans_file(home: Path, topic: str = CHECK_INS) -> Path:
    """The day's lines in order of arrival."""
    return home / f"{topic}.ndjson.zst"


def venues_file(home: Path, topic: str = CHECK_INS) -> Path:
    """The day's venue registry."""
    return home / f"{topic}-venues.csv"
