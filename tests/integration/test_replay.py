"""`pipeline replay`: files in, and the views show what the reference shows, however the scans are brought."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline import replay as replay_module
from pipeline.core.decode import Decoded
from pipeline.errors import StoreUnavailableError, UserError
from pipeline.replay import Replay, store_failures
from pipeline.settings import Settings
from schemas.fields import format_instant
from schemas.scan import Scan as ScanModel
from tests.isolated import run_isolated
from tests.reference import Scan, Views, expected_views
from tests.views import differences
from tests.waiting import PATIENCE

MINUTE = 60_000
#: So that the registry decides how long visits last.
MAX_STAY_OF_MALLS = 45


@dataclass(frozen=True)
class Day:
    """A simulated day: its files, and what they say."""

    folder: Path
    lines: list[bytes]
    scans: list[Scan]
    max_stay: dict[str, int]
    capacities: dict[str, int]

    @property
    def scan_file(self) -> Path:
        return self.folder / "day.ndjson"

    @property
    def venue_file(self) -> Path:
        return self.folder / "venues.ndjson"

    def expected(self, until: int | None = None) -> Views:
        scans = [scan for scan in self.scans if until is None or scan.occurred_at_ms <= until]
        return expected_views(scans, self.max_stay, self.capacities, until)


def pipeline(
    *arguments: str | Path, home: Path, stay_of_malls: int = MAX_STAY_OF_MALLS
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        env=environment(home, stay_of_malls),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def environment(home: Path, stay_of_malls: int = MAX_STAY_OF_MALLS) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.upper().startswith("PIPELINE_")}
    stays = json.dumps({"mall": f"PT{stay_of_malls}M"})
    return {**plain, "PIPELINE_HOME": str(home), "PIPELINE_MAX_STAY_BY_CATEGORY": stays}


def done(*arguments: str | Path, home: Path, stay_of_malls: int = MAX_STAY_OF_MALLS) -> str:
    run = pipeline(*arguments, home=home, stay_of_malls=stay_of_malls)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def read_store(store: str) -> Views:
    """In an interpreter of its own: the rows of every view."""
    from pipeline.store.client import open_store
    from tests.views import read_views

    return {
        view: {tuple(row) for row in rows}
        for view, rows in read_views(open_store(Settings(store=Path(store)), read_only=True)).items()
    }


def assert_shows(home: Path, expected: Views) -> None:
    found = differences(run_isolated(read_store, str(home / "store")), expected)
    assert not found, found


def summary(stdout: str) -> dict[str, str]:
    return {line[:14].strip(): line[14:].strip() for line in stdout.splitlines()}


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    folder = tmp_path_factory.mktemp("day")
    simulate = ("simulate", "--check-ins", "2000", "--venues", "40", "--out")
    done(*simulate, "day.ndjson", "--venues-out", "venues.ndjson", home=folder)
    done(*simulate, "day.parquet", home=folder)
    lines = (folder / "day.ndjson").read_bytes().splitlines()
    venues = [json.loads(line) for line in (folder / "venues.ndjson").read_bytes().splitlines()]
    return Day(
        folder,
        lines,
        list(valid(lines)),
        {venue["venue_id"]: MAX_STAY_OF_MALLS * MINUTE for venue in venues if venue["category"] == "mall"},
        {venue["venue_id"]: venue["capacity"] for venue in venues if "capacity" in venue},
    )


def valid(lines: list[bytes]) -> Iterator[Scan]:
    for line in lines:
        try:
            scan = ScanModel.model_validate_json(line)
        except ValidationError:
            continue
        if len(line) <= 65_536:
            yield Scan(
                scan.venue_id,
                scan.visitor_id,
                scan.event_type,
                scan.occurred_at,
                scan.party_size,
                scan.event_id,
                scan.source,
            )


def test_a_replay_shows_what_the_reference_shows(day: Day, tmp_path: Path) -> None:
    expected = day.expected()
    told = summary(done("replay", day.scan_file, "--venues", day.venue_file, home=tmp_path))
    assert_shows(tmp_path, expected)
    assert int(told["records"].replace(",", "")) == len(day.lines)
    assert int(told["scans stored"].replace(",", "")) == len(expected["scans"])
    assert int(told["duplicates"].replace(",", "")) == len(day.scans) - len(expected["scans"])
    refused = sum(int(part.split()[0].replace(",", "")) for part in told["dead letters"].split(","))
    assert refused == len(day.lines) - len(day.scans)
    assert told["as_of"] == format_instant(max(scan.occurred_at_ms for scan in day.scans))
    done("verify", home=tmp_path)
    counted = done("query", "SELECT count() FROM dead_letters WHERE topic = 'replay'", "--format", "csv", home=tmp_path)
    assert int(counted.split()[1]) == refused > 0


def shuffled_and_doubled(day: Day, folder: Path) -> list[Path]:
    lines = day.lines * 2
    random.Random(7).shuffle(lines)
    (folder / "all.ndjson.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    return [folder / "all.ndjson.gz"]


def newer_half_first(day: Day, folder: Path) -> list[Path]:
    half = len(day.lines) // 2
    newer, older = folder / "newer.ndjson.zst", folder / "older.parquet"
    newer.write_bytes(pa.compress(b"\n".join(day.lines[half:]), "zstd", asbytes=True))
    pq.write_table(pq.read_table(day.folder / "day.parquet").slice(0, len(list(valid(day.lines[:half])))), older)
    return [newer, older]


@pytest.mark.parametrize("brought", [shuffled_and_doubled, newer_half_first])
def test_neither_format_nor_order_nor_repetition_changes_a_row(day: Day, tmp_path: Path, brought: Any) -> None:
    done("replay", *brought(day, tmp_path), "--venues", day.venue_file, home=tmp_path)
    assert_shows(tmp_path, day.expected())


@pytest.mark.long
def test_until_stops_the_clock_and_a_later_replay_goes_on(day: Day, tmp_path: Path) -> None:
    instants = sorted(scan.occurred_at_ms for scan in day.scans)
    noon = instants[len(instants) // 2] + 1
    replay = ["replay", day.scan_file, "--venues", day.venue_file]
    told = summary(done(*replay, "--until", format_instant(noon), home=tmp_path))
    assert told["as_of"] == format_instant(noon)
    assert int(told["after --until"].replace(",", "")) == sum(instant > noon for instant in instants)
    assert_shows(tmp_path, day.expected(noon))

    back = pipeline(*replay, "--until", format_instant(noon - 1), home=tmp_path)
    assert back.returncode == 1
    assert back.stderr.startswith(f"pipeline: --until {format_instant(noon - 1)} is before {format_instant(noon)}")
    assert back.stderr.count("\n") == 1

    done(*replay, home=tmp_path)
    assert summary(done(*replay, home=tmp_path))["scans stored"] == "0"
    assert_shows(tmp_path, day.expected())


@pytest.mark.long
def test_venues_loaded_afterwards_correct_what_is_stored(day: Day, tmp_path: Path) -> None:
    done("replay", day.scan_file, home=tmp_path)
    loaded = done("venues", "load", day.venue_file, "--store", tmp_path / "store", home=tmp_path)
    assert loaded == f"40 venues into the store {tmp_path / 'store'}\n"
    assert_shows(tmp_path, day.expected())


def test_refused_venues_are_told_and_the_rest_is_done(day: Day, tmp_path: Path) -> None:
    venues = tmp_path / "some.ndjson"
    venues.write_bytes(b'{"venue_id": "a"}\n' + day.venue_file.read_bytes())
    run = pipeline("replay", day.scan_file, "--venues", venues, home=tmp_path)
    assert run.returncode == 1
    first, last = run.stderr.splitlines()
    assert first == f"pipeline: {venues}, line 1: name: is missing"
    assert last == f"pipeline: rows of {venues} were refused, as listed above; everything else is stored"
    assert_shows(tmp_path, day.expected())


@pytest.mark.parametrize("what", ["missing", "a folder", "damaged", "no venues"])
def test_nothing_is_opened_for_a_file_that_cannot_be_read(day: Day, tmp_path: Path, what: str) -> None:
    bad = tmp_path / "bad.ndjson.gz"
    if what == "a folder":
        bad.mkdir()
    elif what == "damaged":
        bad.write_bytes(gzip.compress(b"\n".join(day.lines))[:-500])
    venues = ["--venues", tmp_path / "none.csv"] if what == "no venues" else []
    run = pipeline("replay", day.scan_file, *([] if venues else [bad]), *venues, home=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith(f"pipeline: {venues[1] if venues else bad} ")
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_ctrl_c_says_what_is_stored_and_the_same_command_goes_on(day: Day, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "replay", day.scan_file, "--venues", day.venue_file],
        env=environment(tmp_path),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "store" / "pipeline.lock").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.startswith("pipeline: interrupted: these records are stored; the same command again goes on")
    done("replay", day.scan_file, "--venues", day.venue_file, home=tmp_path)
    assert_shows(tmp_path, day.expected())


class Engine:
    """Only remembers; `trouble` are errors to raise before the store answers again."""

    def __init__(self, *trouble: Exception) -> None:
        self.trouble = list(trouble)
        self.processed: list[bytes] = []
        self.settled = -1

    def assign(self, _topic: str, _partitions: list[int]) -> dict[int, int | None]:
        return {0: None}

    def process(
        self,
        _topic: str,
        _partition: int,
        offsets: NDArray[np.int64],
        _times: NDArray[np.int64],
        values: Sequence[bytes],
        decoded: Decoded,
    ) -> list[Any]:
        assert len(decoded[1]) == len(values)
        assert offsets.tolist() == [*range(len(self.processed), len(self.processed) + len(values))]
        self.processed += values
        return []

    def settle(self) -> None:
        if self.trouble:
            raise self.trouble.pop()
        self.settled = len(self.processed)

    def counters(self) -> dict[str, int]:
        return {"stored": len(self.processed), "duplicates": 0}


def files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.ndjson" for number in range(count)]
    for path in paths:
        path.write_bytes(b"{}\n{}\n")
    return paths


def test_what_was_read_before_an_interrupt_is_stored(tmp_path: Path) -> None:
    engine, stopped = Engine(), Event()
    replay = Replay(engine, stopped=stopped)  # type: ignore[arg-type]

    def interrupt_in_the_second_file(_bytes: int, records: int) -> None:
        if records:
            stopped.set()

    replayed = replay.read_files(files(tmp_path, 3), interrupt_in_the_second_file)
    assert replayed.interrupted
    assert replayed.records == engine.settled == 2


def test_an_interrupt_after_the_last_record_is_none(tmp_path: Path) -> None:
    engine, stopped = Engine(), Event()
    replay = Replay(engine, stopped=stopped)  # type: ignore[arg-type]
    engine.settle = stopped.set  # type: ignore[method-assign]
    assert not replay.read_files(files(tmp_path, 2)).interrupted


def test_what_stands_before_damage_is_stored(tmp_path: Path) -> None:
    engine = Engine()
    paths = files(tmp_path, 2)
    paths[1].unlink()
    with pytest.raises(UserError, match=r"1\.ndjson cannot be read: .*; the 2 records before are stored"):
        Replay(engine).read_files(paths)  # type: ignore[arg-type]
    assert engine.settled == 2


def test_a_server_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "_FIRST_PAUSE", 0.001)
    engine = Engine(StoreUnavailableError("gone"), StoreUnavailableError("still gone"))
    assert Replay(engine, patient=True).read_files(files(tmp_path, 1)).records == 2  # type: ignore[arg-type]
    assert engine.settled == 2


def test_nobody_waits_for_a_store_after_ctrl_c(tmp_path: Path) -> None:
    engine, stopped = Engine(*[StoreUnavailableError("gone")] * 9), Event()
    stopped.set()
    with pytest.raises(StoreUnavailableError):
        Replay(engine, patient=True, stopped=stopped).read_files(files(tmp_path, 1))  # type: ignore[arg-type]
    assert len(engine.trouble) == 8


@pytest.mark.parametrize(
    ("free", "url", "said"),
    [
        (1 << 20, None, r"the disk of .* is full \(1 MiB free\): make room"),
        (1 << 40, None, r"the store .* cannot be written \(broken\)"),
        (1 << 20, "http://127.0.0.1:1", r"the ClickHouse server does not answer \(broken\)"),
    ],
)
def test_a_store_that_fails_is_one_sentence_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, url: Any, said: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free))
    with pytest.raises(UserError, match=said), store_failures(Settings(store=tmp_path, clickhouse_url=url)):
        raise StoreUnavailableError("broken")


@pytest.mark.long
def test_a_changed_max_stay_holds_for_what_is_stored_already(day: Day, tmp_path: Path) -> None:
    done("replay", day.scan_file, "--venues", day.venue_file, home=tmp_path)
    (tmp_path / "nothing.ndjson").touch()
    shorter = dict.fromkeys(day.max_stay, 20 * MINUTE)
    done("replay", "nothing.ndjson", home=tmp_path, stay_of_malls=20)
    assert_shows(tmp_path, expected_views(day.scans, shorter, day.capacities))
