"""The bare reader, our worker and our replay, each run once over a loaded day."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import limit
from benchmarks.day import scans_file, venues_file
from benchmarks.measure import Run, pipeline_command, run_measured
from pipeline.topics import CHECK_INS


@dataclass(frozen=True, slots=True)
class Result:
    """One run: the records it took, the seconds it says it worked for, and the process from start to end."""

    records: int
    seconds: float
    process: Run

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds


def run_limit(home: Path, address: str) -> Result:
    """Read the topic and decode it, and no more."""
    process = run_measured([sys.executable, str(limit.__file__), address, CHECK_INS], home, {})
    said = json.loads(process.stdout)
    return Result(said["scans"], said["seconds"], process)


def run_worker(home: Path, address: str, number: int) -> Result:
    """Our worker from Kafka to a store of its own, the folder `worker-<number>`."""
    settings = {
        "home": str(home),
        "store": str(home / f"worker-{number}"),
        "kafka": address,
        "clock": "events",
        "group": f"bench-{number}",
        "http_port": "0",
    }
    process = run_measured(pipeline_command("worker", "--drain"), home, settings)
    said = json.loads(process.stdout.splitlines()[-1])
    return Result(said["scans"], said["seconds"], process)


def run_replay(home: Path, number: int) -> Result:
    """Our replay from the file to a store of its own, the folder `replay-<number>`."""
    store = str(home / f"replay-{number}")
    arguments = ("replay", str(scans_file(home)), "--venues", str(venues_file(home)), "--store", store)
    process = run_measured(pipeline_command(*arguments), home, {"clock": "events"})
    said = dict(re.findall(r"^(\w[\w /]*?)\s{2,}([\d.,]+)$", process.stdout, re.MULTILINE))
    return Result(int(said["records"].replace(",", "")), float(said["seconds"].replace(",", "")), process)
