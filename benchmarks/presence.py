"""What estimates cost: the replay of a day with a model in force beside one without, and a minute's refresh of many venues."""

import re
import shutil
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import click
import numpy as np

from benchmarks.measure import Run, pipeline_command, run_measured
from benchmarks.report import run, setting, table, write_between
from pipeline.core.decode import decode_scans
from pipeline.core.pools import MINUTE
from pipeline.core.shard import Shard, VenueRules
from pipeline.engine import open_engine
from pipeline.estimates import Ground, Timeline
from pipeline.replay import TOPIC
from pipeline.settings import load_settings
from pipeline.simulate.day import DayPlan
from pipeline.simulate.options import SimulationOptions
from pipeline.store.client import open_store
from pipeline.store.models import stored_models, use_model, used_models
from pipeline.store.tables import estimate_table

_KINDS: Final = ("without a model", "with a model")
_REFRESHES: Final = 9


@click.command(epilog="Example: python -m benchmarks.presence --check-ins 200000 --repeats 1")
@click.option(
    "--check-ins", type=click.IntRange(1_000), default=1_000_000, show_default=True, help="Visits of the day."
)
@click.option("--venues", type=click.IntRange(1), default=100_000, show_default=True, help="Refreshed in a minute.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Pairs of replays.")
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md.")
def command(check_ins: int, venues: int, repeats: int, write: bool) -> None:
    """Replay a day in turns with and without a model, make its estimates anew, and time a minute's refresh.

    The model rests on assumed stays: what it costs does not depend on what it has learned.
    """
    with TemporaryDirectory(prefix="bench-") as folder:
        home = Path(folder)
        _prepare(home, check_ins)
        runs: dict[str, list[Run]] = {kind: [] for kind in _KINDS}
        for number in range(repeats):
            # The second of a pair finds the machine warmer: they take turns.
            for kind in _KINDS if number % 2 == 0 else _KINDS[::-1]:
                shutil.rmtree(home / "run", ignore_errors=True)
                shutil.copytree(home / kind, home / "run", symlinks=True)
                runs[kind].append(_replay(home, "run"))
                click.echo(f"{kind}: {_said(runs[kind][-1], 'scans/s')} scans/s", err=True)
                if kind == _KINDS[1]:
                    shutil.rmtree(home / "kept", ignore_errors=True)
                    shutil.copytree(home / "run", home / "kept", symlinks=True)
        anew = _made_anew(home)
        refresh = _refresh(home, check_ins, venues)
    options = f"--check-ins {check_ins} --venues {venues} --repeats {repeats}"
    text = f"{setting(f'python -m benchmarks.presence {options}')}\n\n{_figures(runs)}\n\n{anew}\n\n{refresh}"
    click.echo(text)
    if write:
        write_between("presence", text)


def _prepare(home: Path, check_ins: int) -> None:
    # Both stores know the venues; one has a model too.
    day = (
        "--check-ins",
        str(check_ins),
        "--out",
        str(home / "day.ndjson.zst"),
        "--venues-out",
        str(home / "venues.csv"),
    )
    run_measured(pipeline_command("simulate", *day), home, {})
    (home / "nothing.ndjson").touch()
    for kind in _KINDS:
        arguments = (str(home / "nothing.ndjson"), "--venues", str(home / "venues.csv"), "--store", str(home / kind))
        run_measured(pipeline_command("replay", *arguments), home, {})
    run_measured(pipeline_command("model", "fit", "--use", "--store", str(home / _KINDS[1])), home, {})


def _replay(home: Path, store: str, scans: str = "day.ndjson.zst") -> Run:
    return run_measured(pipeline_command("replay", str(home / scans), "--store", str(home / store)), home, {})


def _said(replay: Run, name: str) -> str:
    found = re.search(rf"^{name}\s+(\S+)$", replay.stdout, re.MULTILINE)
    return found[1] if found else "?"


def _made_anew(home: Path) -> str:
    settings = load_settings(store=home / "kept")
    client = open_store(settings)
    engine = open_engine(settings, clock="events")
    told: list[int] = []
    engine.watch_estimates(lambda rows, _day: told.append(rows))
    engine.assign(TOPIC, [0])
    version = stored_models(client)[-1].version
    seconds = []
    for _ in range(2):
        # The first time compiles, and unpacks the model.
        use_model(client, version)
        told.clear()
        began = time.perf_counter()
        engine.settle()
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    engine.assign(TOPIC, [0])
    loading = time.perf_counter() - began
    engine.close()
    client.close()
    return (
        f"A model put in force from the beginning on: {sum(told):,} rows of minutes and hours got their estimates anew in "
        f"{seconds[-1]:.1f} s, {loading:.1f} s of it to load the state again."
    )


def _refresh(home: Path, check_ins: int, venues: int) -> str:
    plan = DayPlan(SimulationOptions(check_ins=check_ins, venues=venues))
    places = {venue.venue_id: (venue.category, venue.timezone) for venue in plan.venues()}
    shard = Shard(lambda _venue: VenueRules(4 * 60 * MINUTE))
    shard.keep_moves()
    times = []
    for batch in plan.batches():
        columns, _ = decode_scans(batch.lines)
        shard.apply(columns)
        times.append(columns.occurred_at)
    # When half of the day's scans are over.
    minute = int(np.median(np.concatenate(times))) // MINUTE
    client = open_store(load_settings(store=home / "kept"))
    versions = {model.version: model for model in stored_models(client)}
    timeline = Timeline(used_models(client), versions.get)
    client.close()
    ground, seconds = Ground(lambda venue: places.get(venue, ("unknown", None))), []
    for number in range(_REFRESHES + 1):
        began = time.perf_counter()
        count = shard.venue_count
        ground.meet(shard.venue_ids, count)
        every, hourly = np.arange(count, dtype=np.int32), np.zeros(count, np.bool_)
        at = np.full(count, minute + number, np.int32)
        found = timeline.estimates(ground, shard.logged_moves(), every, at, hourly, ~hourly)
        assert found is not None
        estimate_table(found, every, shard.venue_names, 1)
        seconds.append(time.perf_counter() - began)
    log = shard.logged_moves()[1]
    rows = [
        ["venues with a scan", f"{shard.venue_count:,}"],
        ["moves in the log", f"{int(log.used[0]):,}"],
        ["… bytes each", str(log.rows.itemsize)],
        ["a minute's estimates of all venues, as rows to write: ms, median", f"{1000 * median(seconds[1:]):.0f}"],
        ["… the fastest", f"{1000 * min(seconds[1:]):.0f}"],
        ["the first time, with the model to be unpacked, ms", f"{1000 * seconds[0]:.0f}"],
    ]
    return table(["a refresh", ""], rows)


def _figures(runs: dict[str, list[Run]]) -> str:
    def rate(each: Run) -> float:
        return float(_said(each, "scans/s").replace(",", ""))

    rows = []
    for kind, each in runs.items():
        ratios = [rate(one) / rate(bare) for one, bare in zip(each, runs[_KINDS[0]], strict=True)]
        cpu = [one.cpu_seconds / bare.cpu_seconds for one, bare in zip(each, runs[_KINDS[0]], strict=True)]
        rows.append(
            [
                kind,
                f"{median(map(rate, each)):,.0f}",
                f"{median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
                f"{median(cpu):.2f}",
                f"{max(one.peak_rss for one in each) / 2**20:,.0f}",
            ]
        )
    return table(["a day through `pipeline replay`", "scans/s", "÷ without (each)", "CPU ÷ without", "peak MiB"], rows)


if __name__ == "__main__":
    run(command)
