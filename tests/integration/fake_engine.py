"""An engine that only remembers what it was given, in an SQLite file; run as a script it is a worker with that engine.

What it stores and up to where are written in one transaction, as the real store does it in effect.
"""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.dead_letters import DeadLetter
from pipeline.errors import StoreUnavailableError
from pipeline.overview import NOTHING_SEEN, Overview
from pipeline.store.registry import LogPosition

Partition = tuple[str, int]


@dataclass
class Write:
    runs: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    venues: list[tuple[bytes, bytes | None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.runs or self.venues)


class FakeEngine:
    """Every value is a good scan, but those that begin with `bad`."""

    def __init__(self, path: Path, outage: Path | None = None, write_seconds: float = 0.0) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False, timeout=30)
        self._database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
            "CREATE TABLE IF NOT EXISTS runs (topic, partition, first, last, scans, pid);"
            "CREATE TABLE IF NOT EXISTS venues (key PRIMARY KEY, value);"
            "CREATE TABLE IF NOT EXISTS positions (topic, partition, next, PRIMARY KEY (topic, partition));"
            "CREATE TABLE IF NOT EXISTS log (what);"
        )
        self._outage = outage
        self._write_seconds = write_seconds
        self._owned: set[Partition] = set()
        self._waiting = Write()
        self._refused = False
        self._counters = {"consumed": 0, "accepted": 0, "stored": 0, "duplicates": 0, "dead_lettered": 0}
        self.settle_due = False
        self.turns_in = None
        self.event_delays = np.zeros(0)

    def assign(self, topic: str, partitions: Collection[int]) -> Mapping[int, int | None]:
        self._answer()
        self._owned |= {(topic, partition) for partition in partitions}
        found = dict(self._database.execute("SELECT partition, next FROM positions WHERE topic = ?", (topic,)))
        self._note(f"assign {sorted(partitions)} venues={len(self._waiting.venues)}")
        return {partition: found.get(partition) for partition in partitions}

    def overview(self) -> Overview:
        return NOTHING_SEEN

    def retain(self, *, lead: bool) -> bool:
        self._note(f"retain lead={lead}")
        return False

    def undercounted(self) -> int:
        return 0

    def notice_others(self) -> bool:
        return False

    def overtaken_alerts(self, _ids: object, _mark: int) -> list[object]:
        return []

    def hand_alerts(self, told: int) -> tuple[list[object], int]:
        return [], told

    def revoke(self, topic: str, partitions: Collection[int]) -> None:
        self._owned -= {(topic, partition) for partition in partitions}
        self._waiting.runs = [run for run in self._waiting.runs if run[:2] in self._owned]

    def process(
        self,
        topic: str,
        partition: int,
        offsets: NDArray[np.int64],
        timestamps_ms: NDArray[np.int64],
        values: Sequence[bytes | None],
    ) -> list[DeadLetter]:
        assert (topic, partition) in self._owned
        if not self._counters["consumed"]:
            known = self._database.execute("SELECT count(*) FROM venues").fetchone()[0]
            self._note(f"first scans venues={known + len(self._waiting.venues)}")
        self._waiting.runs.append((topic, partition, int(offsets[0]), int(offsets[-1]), len(values)))
        refused = [
            DeadLetter(topic, partition, offset, "not_json", "it is bad", None, value, timestamp)
            for offset, timestamp, value in zip(offsets.tolist(), timestamps_ms.tolist(), values, strict=True)
            if value is not None and value.startswith(b"bad")
        ]
        self._counters["consumed"] += len(values)
        self._counters["accepted"] += len(values) - len(refused)
        self._counters["dead_lettered"] += len(refused)
        if any(value == b"bug" for value in values):
            raise ZeroDivisionError("a bug in the engine")
        return refused

    def load_venues(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None], positions: Sequence[LogPosition]
    ) -> list[DeadLetter]:
        assert len(positions) == len(values)
        self._waiting.venues += [(key or b"", value) for key, value in zip(keys, values, strict=True)]
        return []

    def take(self, *, idle: bool) -> Write | None:  # noqa: ARG002 (it has no clock)
        # Of each outage, the first `take` learns; the others are left to `write`.
        out, self._refused = not self._refused, bool(self._outage and self._outage.exists())
        if out and self._waiting:
            self._answer()
        write, self._waiting = self._waiting, Write()
        return write or None

    def write(self, write: Write) -> Mapping[Partition, int]:
        time.sleep(self._write_seconds)
        self._answer()
        stored: dict[Partition, int] = {}
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO venues VALUES (?, ?)", write.venues)
            for topic, partition, first, last, scans in write.runs:
                self._database.execute(
                    "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)", (topic, partition, first, last, scans, os.getpid())
                )
                self._database.execute(
                    "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (topic, partition, last + 1)
                )
                stored[topic, partition] = last + 1
                self._counters["stored"] += scans
        return stored

    def settle(self) -> None:
        self._answer()
        self._note("settle")

    def counters(self) -> Mapping[str, int]:
        return dict(self._counters)

    def close(self) -> None:
        self._note("close")
        self._database.close()

    def _answer(self) -> None:
        if self._outage and self._outage.exists():
            raise StoreUnavailableError("the fake store is out")

    def _note(self, what: str) -> None:
        with self._database:
            self._database.execute("INSERT INTO log VALUES (?)", (what,))


def main() -> None:
    from pipeline.settings import Settings
    from pipeline.streaming import batch_transport, worker
    from pipeline.streaming.logs import set_up_logging
    from pipeline.streaming.service import run_worker

    options = json.loads(sys.argv[1])
    batch_transport.BATCH_RECORDS = options.get("batch_records", batch_transport.BATCH_RECORDS)
    worker.LAST_WRITE_SECONDS = options.get("last_write_seconds", worker.LAST_WRITE_SECONDS)
    set_up_logging()
    engine = FakeEngine(
        Path(options["database"]),
        Path(options["outage"]) if "outage" in options else None,
        options.get("write_seconds", 0),
    )
    sys.exit(run_worker(Settings(**options["settings"]), engine, drain=options.get("drain", False)))


if __name__ == "__main__":
    main()
