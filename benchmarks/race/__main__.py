"""The race: one day, once in Kafka, and everybody over it in turns; each result compared with what is right."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import click

from benchmarks.day import load_day, scans_file
from benchmarks.measure import pipeline_command, run_measured
from benchmarks.ours import Result, run_limit, run_replay, run_worker
from benchmarks.race.chart import Bar, bars
from benchmarks.race.checker import Reference, Rows, Score, complaint, reference_of, score
from benchmarks.race.contestants import PEERS, Peer, result_topics
from benchmarks.race.prepare import prepare
from benchmarks.race.result_topics import minute_row, read_newest, visit_row
from benchmarks.report import ROOT, run, setting, table, write_between
from pipeline.broker import start_broker
from pipeline.errors import UserError
from pipeline.simulate.options import SimulationOptions
from pipeline.topic_admin import ensure_topics
from pipeline.topics import CHECK_INS, Topic

PLOT: Final = ROOT / "docs" / "plots" / "race.svg"
SHORT: Final = "check-ins-short"
LIMIT: Final = "limit: librdkafka + orjson"
WORKER: Final = "ours: worker, Kafka to stored"
REPLAY: Final = "ours: replay, file to stored"
_PARTITIONS: Final = 4


class Day(NamedTuple):
    """A loaded day."""

    topic: str
    records: int
    reference: Reference


class Finish(NamedTuple):
    """One run, how right its result was (None for the bare reader, which has none), and what is wrong with it, if anything."""

    result: Result
    score: Score | None = None
    complaint: str = ""


def _judged(result: Result, day: Day, refused: int, rows: Rows) -> Finish:
    found = score(rows, day.reference.rows)
    return Finish(result, found, complaint(result.records, day.records, refused, day.reference, found))


@click.command(epilog="Example: python -m benchmarks.race --check-ins 50000 --repeats 1 --only bytewax --only quix")
@click.option("--check-ins", type=click.IntRange(10_000), default=500_000, show_default=True, help="Visits of the day.")
@click.option(
    "--short",
    type=click.IntRange(1_000),
    default=20_000,
    show_default=True,
    help="Visits of another day, for peers that would take too long over the whole one.",
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Rounds of all.")
@click.option("--most-seconds", type=click.IntRange(10), default=300, show_default=True, help="For one run of a peer.")
@click.option(
    "--only", multiple=True, type=click.Choice([peer.name for peer in PEERS]), help="Of the peers only these."
)
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md, and the plot.")
def command(check_ins: int, short: int, repeats: int, most_seconds: int, only: tuple[str, ...], write: bool) -> None:
    """Run everybody `repeats` times, in turns. Fails if anybody, ours included, has not the right result."""
    began = time.monotonic()
    if write and only:
        raise UserError("--write is for the whole table: leave out --only")
    chosen = [peer for peer in PEERS if not only or peer.name in only]
    ready = {peer: prepare(peer) for peer in chosen}
    left_out = {peer: why for peer, (_, why) in ready.items() if why}
    finishes: dict[str, list[Finish]] = {}
    wrong: list[str] = []
    with _broker() as (home, address):
        days = {False: _load(home, address, check_ins, CHECK_INS)}
        if any(peer.slow for peer in chosen):
            days[True] = _load(home, address, short, SHORT)
        for number in range(repeats):

            def note(name: str, finish: Finish, number: int = number) -> None:
                finishes.setdefault(name, []).append(finish)
                if finish.complaint:
                    wrong.append(f"{name} {finish.complaint}")
                click.echo(f"{number + 1}/{repeats} {name}: {finish.result.rate:,.0f}/s {finish.score or ''}", err=True)

            note(LIMIT, Finish(run_limit(home, address)))
            note(WORKER, _ours(home, run_worker(home, address, number), f"worker-{number}", days[False]))
            note(REPLAY, _ours(home, run_replay(home, number), f"replay-{number}", days[False]))
            for peer in (each for each in chosen if each not in left_out):
                folder = home / f"{peer.name}-{number}"
                try:
                    note(peer.title, _peer(home, address, peer, folder, days[peer.slow], most_seconds))
                except UserError as error:
                    # One that breaks down must not cost the others their figures; one that is wrong fails the race below.
                    left_out[peer] = f"it failed here: {str(error).splitlines()[-1][:300]}"
                    finishes.pop(peer.title, None)
    options = f"--check-ins {check_ins} --short {short} --repeats {repeats}"
    minutes = (time.monotonic() - began) / 60
    text = "\n\n".join(
        [
            setting(f"python -m benchmarks.race {options}"),
            f"{days[False].records:,} records a run; medians, of the peak memory the most. All of it took {minutes:.0f} minutes.",
            _figures(finishes, days[False].records),
            _claims([peer for peer in chosen if peer not in left_out], {peer: ready[peer][0] for peer in chosen}),
            *(f"Left out: {peer.title}, since {why}." for peer, why in left_out.items()),
        ]
    )
    click.echo(text)
    if wrong:
        raise UserError("; ".join(wrong))
    if write:
        write_between("race", text)
        PLOT.write_text(bars([_bar(name, runs) for name, runs in finishes.items()]), encoding="utf-8")


@contextmanager
def _broker() -> Iterator[tuple[Path, str]]:
    with TemporaryDirectory(prefix="race-") as folder, start_broker(Path(folder), 0, tied_to_us=True) as broker:
        yield Path(folder), broker.address


def _load(home: Path, address: str, check_ins: int, topic: str) -> Day:
    records = load_day(home, address, SimulationOptions(check_ins=check_ins), _PARTITIONS, topic)
    return Day(topic, records, reference_of(scans_file(home, topic)))


def _ours(home: Path, result: Result, store: str, day: Day) -> Finish:
    folder = home / store
    # Beyond the race's job: hours, rolling windows, what is now, alerts.
    run_measured(pipeline_command("verify", "--store", str(folder)), home, {})
    # Our own accounting of what is refused is part of what `verify` compares.
    return _judged(result, day, day.reference.refused, _stored(home, folder, "ours", day))


def _peer(home: Path, address: str, peer: Peer, folder: Path, day: Day, most_seconds: int) -> Finish:
    folder.mkdir()
    if not peer.layout:
        ensure_topics(address, [Topic(name, _PARTITIONS) for name in result_topics(folder)])
    command = peer.command(address, day.topic, day.records, folder, scans_file(home, day.topic))
    process = run_measured(command, home, {}, variables={"PYTHONPATH": str(ROOT)}, most_seconds=most_seconds)
    said = json.loads(process.stdout.splitlines()[-1])
    result = Result(said["scans"], said["seconds"], process)
    if peer.layout:
        return _judged(result, day, said["refused"], _stored(home, folder, peer.layout, day))
    visits, minutes = (read_newest(address, topic) for topic in result_topics(folder))
    rows = Rows.of(
        (visit_row(*each) for each in visits.items()),
        (minute_row(*each) for each in minutes.items()),
        day.reference.as_of,
    )
    return _judged(result, day, said["refused"], rows)


def _stored(home: Path, folder: Path, layout: str, day: Day) -> Rows:
    """The rows in a contestant's store, which stays: for some time after files were removed, ext4 makes new ones very slowly."""
    dump = [sys.executable, "-m", "benchmarks.race.results", str(folder / "clickhouse"), layout, str(folder)]
    run_measured(dump, home, {}, variables={"PYTHONPATH": str(ROOT)})
    return Rows.read(folder, day.reference.as_of)


def _figures(finishes: dict[str, list[Finish]], whole: int) -> str:
    rows = []
    for name, runs in finishes.items():
        rates = [each.result.rate for each in runs]
        ratios = [each.result.rate / bare.result.rate for each, bare in zip(runs, finishes[LIMIT], strict=True)]
        slower = [ours.result.rate / each.result.rate for each, ours in zip(runs, finishes[WORKER], strict=True)]
        scores = [each.score for each in runs if each.score]
        records = runs[0].result.records
        rows.append(
            [
                name if records == whole else f"{name} ({records:,} records)",
                f"{median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
                f"{median(ratios):.2f}",
                f"{median(slower):.1f}",
                f"{median(each.result.seconds for each in runs):.1f}",
                f"{_cpu(runs):.1f}",
                f"{_memory(runs):,.0f}",
                f"{min(each.visits for each in scores):.2%}" if scores else "",
                f"{min(each.minutes for each in scores):.2%}" if scores else "",
            ]
        )
    header = ["", "scans/s (min–max)", "÷ limit", "ours ÷ it", "s", "CPU s per M scans", "peak MiB"]
    return table([*header, "visits right", "minutes right"], rows)


def _claims(peers: list[Peer], versions: dict[Peer, str]) -> str:
    rows = [
        [
            "ours",
            "",
            "ClickHouse",
            "ClickHouse, 30 hours of it in memory",
            "on from the last write; nothing lost or twice",
        ]
    ]
    rows += [[peer.title, versions[peer], peer.writes_to, peer.state, peer.crash] for peer in peers]
    return table(["", "version", "writes to", "state", "after a crash (not tried here)"], rows)


def _cpu(runs: list[Finish]) -> float:
    return median(each.result.process.cpu_seconds / each.result.records * 1e6 for each in runs)


def _memory(runs: list[Finish]) -> float:
    return max(each.result.process.peak_rss for each in runs) / 2**20


def _bar(name: str, runs: list[Finish]) -> Bar:
    rate = median(each.result.rate for each in runs)
    return Bar(name, name.startswith("ours"), rate, _cpu(runs), _memory(runs))


if __name__ == "__main__":
    run(command)
