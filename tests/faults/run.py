"""`make faults`: hurt a running pipeline for as long as asked, plant bugs, overload it, and write down what came of it.

Prints its seeds. With the same `--seed` faults are drawn from the same weights and the feed sends the same records; how long each
fault takes decides when the next is drawn, and what it hits is the machine's.
"""

import json
import math
import random
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click

from tests.faults import report
from tests.faults.bugs import BUGS, STANDING_STILL
from tests.faults.harness import ALONE, CALM, WEIGHTS, Harness, summary
from tests.faults.overload import NATIONAL_MEAN, Overload, grown

#: A run ends and is compared after so many faults; then the next begins, with a new broker and store.
FAULTS_PER_RUN: Final = 120

#: Of so many runs one is of one worker with an embedded store of its own.
ALONE_EACH: Final = 4

#: What a bug needs at most: so many faults, so far apart.
_BUG_FAULTS, _BUG_SECONDS, _BUG_PACE = 6, 20.0, 3.0

#: Mean seconds between two that are timed: each finds the pipeline at rest.
_CALM_PACE: Final = 10.0

#: A machine so slow that fewer than this share of the faults came about has tried nothing.
_LEAST_SHARE: Final = 0.1

#: A few faults may all miss what a bug needs: so many runs, each with a seed of its own.
_BUG_TRIES: Final = 3


@click.command(epilog="Example: python -m tests.faults.run --faults 100 --minutes 10 --seed 7")
@click.option("--faults", type=click.IntRange(0), default=1_200, show_default=True, help="Faults in all.")
@click.option("--minutes", type=click.FloatRange(0), default=240.0, show_default=True, help="… or so long at most.")
@click.option("--seed", type=int, help="Default: another one each time.")
@click.option("--rate", type=click.FloatRange(1), default=150.0, show_default=True, help="Scans a second meanwhile.")
@click.option("--pace", type=click.FloatRange(0), default=2.0, show_default=True, help="Mean seconds between faults.")
@click.option("--bugs/--no-bugs", default=True, show_default=True, help="Plant bugs, each of which must be caught.")
@click.option("--bug", "chosen", multiple=True, type=click.Choice(list(BUGS)), help="Only these bugs.")
@click.option(
    "--overload", type=click.FloatRange(0), default=60.0, show_default=True, help="Minutes at ten times the load."
)
@click.option(
    "--hurry",
    type=click.FloatRange(1),
    default=120.0,
    show_default=True,
    help="How many times faster than the clock time goes then, so that what is held fills and is cleared.",
)
@click.option(
    "--kills", type=click.IntRange(0), default=40, show_default=True, help="Of workers and broker, one by one, timed."
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Leave logs, store and Kafka's data of a run that went wrong in this folder, by its seed.",
)
@click.option("--record/--no-record", default=False, help="Add to docs/reliability.json, and make docs/reliability.md.")
def command(
    faults: int,
    minutes: float,
    seed: int | None,
    rate: float,
    pace: float,
    bugs: bool,
    chosen: tuple[str, ...],
    overload: float,
    hurry: float,
    kills: int,
    keep: Path | None,
    record: bool,
) -> None:
    """Hurt a pipeline of real processes, and compare what it stored with what its log says."""
    # A folder to keep things in is a place on this machine.
    said = re.sub(r" --keep[ =]\S+", "", " ".join(["", *sys.argv[1:]]))
    found: dict[str, Any] = {"command": f"tests.faults.run{said}"}
    chance = random.Random(seed if seed is not None else time.time_ns())
    failed, place = False, None
    for run in _runs(faults, minutes, chance, rate, pace, keep):
        found.setdefault("runs", []).append(run)
        failed |= bool(run["wrong"])
        if record:
            # At once: whatever ends the next one does not take it along.
            place = report.record(found, place)
    done = sum(sum(run["faults"].values()) for run in found.get("runs", ()))
    if done < faults * _LEAST_SHARE:
        failed = True
        click.echo(f"only {done} of {faults} faults in {minutes:.0f} minutes: that shows nothing")
    if kills:
        found["calm"] = [_run(chance, rate, kills, _CALM_PACE, CALM, shared=shared) for shared in (True, False)]
        failed |= any(run["wrong"] for run in found["calm"])
    if bugs:
        found["bugs"] = {bug: _caught_in_time(bug, chance, rate) for bug in chosen or BUGS}
        failed |= not all(found["bugs"].values())
    if overload:
        found["overload"] = _overload(overload * 60, hurry)
        failed |= bool(found["overload"]["wrong"])
    if record:
        report.record(found, place)
    click.echo(json.dumps(found, indent=1))
    sys.exit(failed)


def _runs(
    faults: int, minutes: float, chance: random.Random, rate: float, pace: float, keep: Path | None
) -> Iterator[dict[str, Any]]:
    until, runs, done = time.monotonic() + minutes * 60, 0, 0
    while done < faults and time.monotonic() < until:
        shared = runs % ALONE_EACH != ALONE_EACH - 1
        some, kinds = min(FAULTS_PER_RUN, faults - done), WEIGHTS if shared else ALONE
        try:
            run = _run(chance, rate, some, pace, kinds, shared=shared, seconds=until - time.monotonic(), keep=keep)
        except KeyboardInterrupt:
            click.echo("broken off: the run that was not compared does not count")
            return
        runs += 1
        done += sum(run["faults"].values())
        click.echo(f"{done} faults, {len(run['wrong'])} things wrong {run['wrong']}")
        yield run


def _run(
    chance: random.Random,
    rate: float,
    faults: int,
    pace: float,
    kinds: Mapping[str, int],
    *,
    shared: bool,
    seconds: float = math.inf,
    keep: Path | None = None,
) -> dict[str, Any]:
    seed = chance.randrange(1 << 32)
    click.echo(f"seed {seed}")
    with TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        harness = Harness(Path(folder), seed, rate, say=click.echo, shared=shared)
        try:
            harness.run(faults, seconds, pace, kinds)
        except Exception as error:  # whatever it is, this run has not shown that nothing is wrong
            click.echo("".join(traceback.format_exception(error)))
            harness.result.wrong.append(f"{type(error).__name__}: {error}".splitlines()[0][:500])
        if keep and harness.result.wrong:
            shutil.copytree(folder, keep / str(seed))
            click.echo(f"what is left of it: {keep / str(seed)}")
    return summary(harness.result)


def _caught_in_time(bug: str, chance: random.Random, rate: float) -> str:
    return next(filter(None, (_caught(bug, chance.randrange(1 << 32), rate) for _ in range(_BUG_TRIES))), "")


def _caught(bug: str, seed: int, rate: float) -> str:
    """How a planted bug showed itself; nothing if it did not."""
    click.echo(f"seed {seed}: planting {bug!r}")
    with TemporaryDirectory(prefix="faults-") as folder:
        harness = Harness(Path(folder), seed, rate, bug=bug, say=click.echo)
        try:
            harness.run(_BUG_FAULTS if BUGS[bug] else 0, _BUG_SECONDS, _BUG_PACE, BUGS[bug])
            signs = harness.signs()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            # That it stands still, or does not stop in time, a busy machine can do, too: a sign only of bugs that are about that.
            click.echo(str(error))
            signs = [str(error).splitlines()[0]] if bug in STANDING_STILL else []
    click.echo(f"{bug}: {'caught: ' + signs[0] if signs else f'NOT CAUGHT, but {harness.result.wrong}'}")
    return signs[0][:200] if signs else ""


def _overload(seconds: float, hurry: float) -> dict[str, Any]:
    burst_seconds = min(60.0, seconds)
    with TemporaryDirectory(prefix="faults-") as folder:
        overload = Overload(Path(folder), 2, hurry, seconds + burst_seconds)
        try:
            tenfold = overload.load(10 * NATIONAL_MEAN, seconds, 600)
            burst = overload.load(20 * NATIONAL_MEAN, burst_seconds, 600)
            wrong = grown(tenfold, hurry) + overload.wrong()
        finally:
            overload.close()
    return {"hurry": hurry, "ten times": tenfold.figures(), "twenty times": burst.figures(), "wrong": wrong}


if __name__ == "__main__":
    command()
