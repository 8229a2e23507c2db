"""docs/reliability.md, as far as it is figures, from docs/reliability.json."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any, Final

from benchmarks.report import ROOT, setting, table, write_between
from tests.faults.harness import MEASURED

PAGE: Final = ROOT / "docs" / "reliability.md"
COUNTS: Final = ROOT / "docs" / "reliability.json"

#: With no failure in n trials the rate is, at 95 %, below 3/n.
RULE_OF_THREE: Final = 3


def record(found: Mapping[str, Any], place: int | None = None) -> int:
    """Add what a command found to the counts, under `setting` how it was run, and write the page from all of them.

    Returns the entry's place, to be given once the same command has found more.
    """
    recorded = json.loads(COUNTS.read_text()) if COUNTS.is_file() else []
    if place is None:
        place = len(recorded)
        recorded.append({"setting": setting(f"python -m {found['command']}")})
    recorded[place] |= found
    COUNTS.write_text(json.dumps(recorded, indent=1) + "\n")
    write_between("counts", _counts(recorded), PAGE)
    return place


def _counts(recorded: Sequence[Mapping[str, Any]]) -> str:
    parts = _simulated(recorded)
    if runs := [run for each in recorded for run in each.get("runs", ())]:
        parts += _hurt(runs)
    for name, place in (("several workers on one store", 0), ("one worker with a store of its own", 1)):
        # How long it takes is asked of the newest code alone.
        if calm := [each["calm"][place] for each in recorded if each.get("calm")][-1:]:
            parts.append(_recovery(calm, f"{name}, nothing else wrong"))
            parts.append(f"{_over(calm[0])} Anything wrong in this run: **{'yes' if calm[0]['wrong'] else 'no'}**.")
    # A bug that was planted again counts as it came out last.
    if bugs := {bug: sign for each in recorded for bug, sign in each.get("bugs", {}).items()}:
        rows = [(bug, f"`{sign[:110]}`".replace("|", "/") if sign else "**not caught**") for bug, sign in bugs.items()]
        parts.append(table(("planted bug", "caught by"), rows))
    if loads := [each["overload"] for each in recorded if each.get("overload")]:
        longest = max(reversed(loads), key=lambda load: round(load["ten times"]["seconds"]))
        parts += [_overload(longest)] + [_overload(loads[-1])] * (loads[-1] is not longest)
    parts += ["Recorded by:", *(each["setting"] for each in recorded)]
    return "\n\n".join(parts)


def _hurt(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    faults, points, exits = (
        _summed(map(_faults, runs)),
        *(_summed(run[name] for run in runs) for name in ("points", "exits")),
    )
    failures = sum(1 for run in runs if run["wrong"])
    total = sum(faults.values())
    parts = [
        f"**{total:,} faults in {len(runs)} runs**, {sum(run['seconds'] for run in runs) / 60:,.0f} minutes; "
        f"{sum(run['records'] for run in runs):,} records, of which {sum(run['dead_letters'] for run in runs):,} dead letters "
        f"and {sum(run['duplicates'] for run in runs):,} duplicates; {sum(run['rows'] for run in runs):,} rows compared at rest, "
        f"{sum(run['looks'] for run in runs):,} looks meanwhile. Runs with anything wrong: **{failures}**."
    ]
    # What a run found was mended before the next.
    last = max((number for number, run in enumerate(runs, 1) if run["wrong"]), default=0)
    if since := sum(sum(run["faults"].values()) for run in runs[last:]):
        parts.append(
            f"{'Since then no' if last else 'No'} failure in {since:,} faults: at 95 % fewer than {RULE_OF_THREE / since:.2%} of "
            "such faults lose or double any."
        )
    if fields := [run["told"] for run in runs if run.get("told")]:
        told = _summed(fields)
        parts.append(
            f"In the last {len(fields)} of these also recounted from the log, and compared field by field with what was told: "
            + ", ".join(f"{count:,} in `{topic}`" for topic, count in sorted(told.items()))
            + "."
        )
    parts.append(table(("fault", "times"), [(name, f"{count:,}") for name, count in sorted(faults.items())]))
    if points:
        parts.append(
            table(("killed at", "times armed"), [(name, f"{count:,}") for name, count in sorted(points.items())])
        )
    parts.append(_recovery(runs, "amid other faults, until all that was sent before is stored"))
    if held := [run["memory_mib"] for run in runs if "memory_mib" in run]:
        parts.append(f"The most that a worker held in memory, in {len(held)} runs: {max(held):,} MiB.")
    parts.append("How workers ended: " + ", ".join(f"{name}: {count:,}" for name, count in sorted(exits.items())) + ".")
    return parts


def _faults(run: Mapping[str, Any]) -> Mapping[str, int]:
    # Before alerts were recounted, this was done to workers that keep nothing on their disk: no more than a kill.
    faults = Counter(run["faults"])
    if "told" not in run:
        faults["worker killed"] += faults.pop("local state deleted", 0)
    return faults


def _simulated(recorded: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = [
        f"**{each['histories']:,} simulated histories**, `python -m {each['command']}`; with anything wrong: **{each['wrong']}**."
        for each in recorded
        if "histories" in each
    ]
    if records := sum(each.get("records", 0) for each in recorded):
        wrong = sum(each["wrong"] for each in recorded if "records" in each)
        parts.append(
            f"**{records:,} records from the fuzzer**; read otherwise than the contract's model does: **{wrong}**."
        )
    return parts


def _summed(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    return sum((Counter(each) for each in counts), Counter[str]())


def _recovery(runs: Sequence[Mapping[str, Any]], what: str) -> str:
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, seconds in run["recovery"].items():
            found.setdefault(name, []).extend(seconds)
    rows = [
        (name, str(len(some)), *(f"{sorted(some)[ceil(len(some) * share) - 1]:.1f}" for share in (0.5, 0.9, 1)))
        for name, some in sorted(found.items())
    ]
    header = (f"seconds, {what}", "measured", "half", "90 %", "most")
    return table(header, rows) if rows else "No recovery was measured."


def _over(run: Mapping[str, Any]) -> str:
    parts = []
    for name, limit in MEASURED.items():
        some = run["recovery"].get(name, [])
        over = sum(1 for seconds in some if seconds > limit)
        parts.append(f"{name}: over {limit:.0f} s {over} of {len(some)} times")
    return f"{'; '.join(parts)}."


def _overload(load: Mapping[str, Any]) -> str:
    rows = [
        (
            name,
            f"{figures['scans_per_second']:,.0f}",
            f"{figures['seconds']:,.0f}",
            f"{figures['lag']['most']:,}",
            f"{figures['buffer_fill']['most']:.3f}",
            " → ".join(
                f"{figures['memory'][third]:,.0f}"
                for third in ("first third", "middle third", "last third")
                if third in figures["memory"]
            ),
            f"{figures['caught_up_in']:.1f}",
        )
        for name, figures in load.items()
        if name not in ("wrong", "hurry")
    ]
    header = ("load", "scans/s", "for s", "most lag", "most buffered", "MiB, by thirds", "caught up in s")
    compared = f"wrong: **{len(load['wrong'])}**" if "wrong" in load else "not done in this run"
    hurried = (
        f" The scans' time went {hurry:,.0f} times as fast as the clock."
        if (hurry := load.get("hurry", 1)) != 1
        else ""
    )
    return f"{table(header, rows)}\n\nMemory is of both workers together.{hurried} Compared with the log at the end: {compared}."
