"""The machine in words, tables in Markdown, and their place in docs/performance.md."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click
import psutil  # type: ignore[import-untyped]

from pipeline.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"

_PACKAGES = ("faust-streaming", "aiokafka", "chdb", "numba", "numpy", "pyarrow", "confluent-kafka", "orjson")


def setting(command: str) -> str:
    """What a figure is worth nothing without: the command, the day, the machine, how busy it was, and the versions."""
    load = f", load average {os.getloadavg()[0]:.1f} when done" if hasattr(os, "getloadavg") else ""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return "\n".join(
        [
            f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, commit {_commit()}",
            "",
            f"{_processor()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB{load}; "
            f"{platform.system()} {platform.release()}; Python {platform.python_version()}, {packages}.",
        ]
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, figures to the right; readable as plain text too."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def write_between(marker: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands in the page, docs/performance.md unless told, between `<!-- marker -->` and `<!-- /marker -->`.

    Raises UserError if one of the two is missing.
    """
    start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    old = page.read_text() if page.is_file() else ""
    before, found, rest = old.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise UserError(f"{page} lacks the lines {start.strip()} and {end}: put them where the figures belong")
    page.write_text(f"{before}{start}{text}\n{end}{after}")


def run(command: Callable[..., object]) -> None:
    """Run a click command; a UserError is one sentence on stderr and exit status 1."""
    try:
        command()
    except UserError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(1)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    with suppress(OSError, subprocess.CalledProcessError):
        describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    return "unknown"
