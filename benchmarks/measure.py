"""Child processes, timed and weighed."""

import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from pipeline.errors import UserError
from pipeline.processes import end_process, tied

#: Seconds between two looks at a process's memory.
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Run:
    """One finished process: what it printed, wall and CPU seconds from its start to its end, and its memory.

    `peak_rss` is in bytes: the kernel's own high-water mark on Linux, elsewhere the most that was seen.
    """

    stdout: str
    seconds: float
    cpu_seconds: float
    peak_rss: int


def run_measured(
    command: Sequence[str],
    folder: Path,
    settings: Mapping[str, str],
    *,
    variables: Mapping[str, str] | None = None,
    most_seconds: float | None = None,
) -> Run:
    """Run a command in `folder` with PIPELINE_<NAME> set from `settings` alone, and `variables` as they are; it ends when we do.

    Raises UserError with the end of what it said if it fails, or if it takes more than `most_seconds`. One at a time: CPU seconds
    are those of all our children.
    """
    # Where Python may not keep its compiled modules, each start would compile them again and count that.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PIPELINE_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    environment = (
        inherited | {f"PIPELINE_{name.upper()}": value for name, value in settings.items()} | (variables or {})
    )
    before, began = _children_cpu(), time.monotonic()
    out, err = folder / "stdout", folder / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = psutil.Popen(
            tied(command), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
        try:
            peak = _watch(process, began + (most_seconds or math.inf))
        finally:
            end_process(process, 10)
    seconds = time.monotonic() - began
    if most_seconds is not None and seconds > most_seconds:
        raise UserError(f"`{' '.join(command[1:])}` took more than {most_seconds:.0f} s, and was ended")
    if process.returncode:
        said = (out.read_text(errors="replace")[-4000:] + err.read_text(errors="replace")[-4000:]).rstrip()
        raise UserError(f"`{' '.join(command[1:])}` ended with status {process.returncode}:\n{said}")
    return Run(out.read_text(), seconds, _children_cpu() - before, peak)


def pipeline_command(*arguments: str) -> list[str]:
    """`pipeline …` under this very Python."""
    return [sys.executable, "-m", "pipeline", *arguments]


def _watch(process: psutil.Popen, until: float) -> int:
    peak = 0
    while process.poll() is None and time.monotonic() < until:
        with suppress(psutil.Error):
            peak = max(peak, high_water(process.pid) or process.memory_info().rss)
        with suppress(psutil.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
    return peak


def high_water(pid: int) -> int:
    """The most memory that a process has held, in bytes; 0 where the kernel does not say."""
    # The kernel's figure for a whole child (ru_maxrss) starts from the parent's memory; this one starts with the program.
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
