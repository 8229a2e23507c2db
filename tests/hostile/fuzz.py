"""A fuzzer of the decoder: scans grown from a grammar and broken at random, against the judge and the contract's recount.

The decoder asks the judge itself about what is not ordinary; the recount shares no code with either.

Example: python -m tests.hostile.fuzz --seconds 600
"""

import ast
import faulthandler
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import click
import numpy as np

from pipeline.core.columns import EVENT_TYPES, Rejection, ScanColumns, Text
from pipeline.core.decode import decode_scans, judge_times
from pipeline.core.judge import Refusal, judge_scan
from tests.faults import recount, report
from tests.faults.recount import Record
from tests.hostile.corpus import BYTES, SCAN, TIMES, VALUES, corpus, written

#: Records in a batch.
_BATCH: Final = 250
#: A record may take this long (CPU seconds) to be read, alone; the largest takes a few milliseconds.
PATIENCE: Final = 1.0

_RETENTION: Final = 14 * recount.DAY
#: How far records' timestamps lie after what occurred: at either end of what is in time, and just outside.
_EDGES: Final = (_RETENTION, _RETENTION + 1, -recount.FUTURE, -recount.FUTURE - 1)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_TOKENS: Final = tuple(
    token.encode()
    for token in (
        *'{}[],:"\\',
        "\\u00",
        "\\ud8",
        "null",
        "true",
        '"x":',
        '"party_size":',
        "1e",
        "-",
        ".",
        "+",
        "0",
        "Z",
        "T",
        "\n",
    )
)


def differences(values: Sequence[bytes]) -> list[int]:
    """The records that the decoder reads otherwise than the judge, or than the recount.

    Otherwise is: accepted, refused, or with another value or reason (of the judge also another detail).
    """
    columns, rejections = decode_scans(values)
    if len(columns) + len(rejections) != len(values):
        return [*range(len(values))]
    found = dict(zip(columns.record.tolist(), _rows(columns), strict=True))
    found |= {rejection.record: rejection for rejection in rejections}
    timestamps = np.zeros(len(values), np.int64)
    timestamps[columns.record] = columns.occurred_at + np.resize(_EDGES, len(columns))
    untimely = {rejection.record: rejection for rejection in judge_times(columns, timestamps, _RETENTION)[1]}

    def differs(i: int, record: Record) -> bool:
        verdict = found.get(i)
        if verdict != _judged(i, values[i]) or _said(verdict) != recount.judge(record, None):
            return True
        in_time = untimely.get(i, verdict)
        return isinstance(verdict, recount.Scan) and _said(in_time) != recount.judge(record, _RETENTION)

    records = (Record(0, i, at, value) for i, (at, value) in enumerate(zip(timestamps.tolist(), values, strict=True)))
    return [i for i, record in enumerate(records) if differs(i, record)]


def _said(verdict: recount.Scan | Rejection | None) -> recount.Scan | str | None:
    return verdict.reason if isinstance(verdict, Rejection) else verdict


def _judged(record: int, value: bytes) -> recount.Scan | Rejection:
    verdict = judge_scan(value)
    if isinstance(verdict, Refusal):
        return Rejection(record, verdict.reason, verdict.detail)
    when = (verdict.event_type, verdict.occurred_at, verdict.party_size)
    return recount.Scan(verdict.venue_id, verdict.visitor_id, *when, verdict.event_id, verdict.source)


def _rows(columns: ScanColumns) -> Iterator[recount.Scan]:
    def texts(column: Text) -> list[str]:
        ends = column.start + column.length
        return [columns.buffer[a:b].tobytes().decode() for a, b in zip(column.start, ends, strict=True)]

    venues, visitors, events, sources = (
        texts(each) for each in (columns.venue_id, columns.visitor_id, columns.event_id, columns.source)
    )
    kinds = [EVENT_TYPES[code] for code in columns.event_type]
    when = (kinds, columns.occurred_at.tolist(), columns.party_size.tolist())
    return map(recount.Scan, venues, visitors, *when, events, sources)


class DiedError(Exception):
    """The decoder hung or crashed; says on what."""


@dataclass
class Fuzzer:
    """Grows and breaks records. What leads to a verdict that was not seen before is kept, and broken again.

    What is about to be decoded is in a file of `folder`. After `patience` seconds over it the process ends, saying where it was.
    """

    seed: int
    folder: Path
    patience: float = 300.0
    verdicts: Counter[str] = field(default_factory=Counter)
    wrong: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._pool = [value for _, value in corpus() if len(value) < 3000]
        self._seen: set[str] = set()

    def run(self, seconds: float, enough: int = 20) -> int:
        """Fuzz for so long, or until so many are read wrongly, which are in `wrong`; returns the records."""
        _compile()
        until, count = time.monotonic() + seconds, 0
        while time.monotonic() < until and len(self.wrong) < enough:
            values = [self._record() for _ in range(_BATCH)]
            began = time.process_time()
            with self._traced("batch", values):
                different = differences(values)
            if time.process_time() - began > PATIENCE:
                self.wrong += [value for value in values if _seconds(value) > PATIENCE]
            self.wrong += [values[i] for i in different]
            self._learn(values)
            count += len(values)
        return count

    def decode_one_by_one(self) -> None:
        """Decode the records of the batch that was under way; the one that does not come back is in the file `record`."""
        _compile()
        for line in self.file("batch").read_text().splitlines():
            value = ast.literal_eval(line)
            with self._traced("record", [value]):
                differences([value])

    def file(self, name: str) -> Path:
        """Where a batch or a record is written before it is decoded: a bytes literal a line."""
        return self.folder / f"fuzz-{self.seed}.{name}"

    @contextmanager
    def _traced(self, name: str, values: list[bytes]) -> Iterator[None]:
        self.file(name).write_text("\n".join(map(repr, values)))
        faulthandler.dump_traceback_later(self.patience, exit=True)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.file(name).unlink()

    def _learn(self, values: list[bytes]) -> None:
        for value in self._chance.sample(values, 25):
            verdict = judge_scan(value)
            reason = verdict.reason if isinstance(verdict, Refusal) else "a scan"
            self.verdicts[reason] += 1
            sign = f"{reason} {verdict.detail if isinstance(verdict, Refusal) else len(value) // 16}"
            if sign not in self._seen and len(value) < 3000:
                self._seen.add(sign)
                self._pool.append(value)

    def _record(self) -> bytes:
        chance = self._chance
        kind = chance.random()
        value = self._grown() if kind < 0.5 else chance.choice(self._pool)
        for _ in range(chance.choice([0, 0, 1, 1, 2, 5]) if kind < 0.5 else chance.choice([1, 1, 2, 8])):
            value = self._broken(value)
        return value

    def _grown(self) -> bytes:
        chance = self._chance
        if chance.random() < 0.3:
            text = chance.choice([f'"{self._time()}"', f'"{chance.choice(TIMES)}"'])
            return written("occurred_at", text)
        fields = dict(SCAN)
        fields["occurred_at"] = self._time()
        for name in chance.sample(sorted(fields), chance.randrange(3)):
            fields.pop(name)
        pairs = [(json.dumps(name), json.dumps(value)) for name, value in fields.items()]
        for _ in range(chance.choice([0, 0, 1, 2])):
            name = json.dumps(chance.choice([*SCAN, "x", "y"]))
            pairs.append((name, chance.choice(VALUES) if chance.random() < 0.5 else str(chance.randrange(-3, 60))))
        chance.shuffle(pairs)
        space = chance.choice(["", " ", "\t", "\r\n  "])
        body = f"{space},{space}".join(f"{name}{space}:{space}{value}" for name, value in pairs)
        return f"{space}{{{space}{body}{space}}}{space}".encode("utf-8", "surrogatepass")

    def _time(self) -> str:
        chance = self._chance
        at = np.datetime64(
            chance.choice([86_400, 4_291_747_200, chance.randrange(4_300_000_000)]) + chance.randrange(-2, 3), "s"
        )
        digits = chance.randrange(12)
        fraction = f".{chance.randrange(10**digits):0{digits}d}" if digits else ""
        offset = f"{chance.choice('+-')}{chance.randrange(26):02d}:{chance.randrange(62):02d}"
        return f"{at}{fraction}{chance.choice(['Z', 'z', '', offset, offset])}"

    def _broken(self, value: bytes) -> bytes:
        chance = self._chance
        at = chance.randrange(len(value) + 1)
        end = min(len(value), at + chance.choice([0, 1, 1, 2, 9, 50]))
        other = chance.choice(self._pool)
        piece = chance.choice(
            [
                b"",
                value[at:end] * 2,
                chance.choice(_TOKENS),
                chance.choice(BYTES),
                bytes([chance.randrange(256)]),
                other[chance.randrange(len(other) + 1) :][: chance.choice([4, 40, 400])],
                value[at : at + 1].swapcase(),
            ]
        )
        return value[:at] + piece + value[end:]


def _compile() -> None:
    # The kernels are compiled by the first record, which may take longer than any batch.
    decode_scans([written("party_size", "1")])


def _seconds(value: bytes) -> float:
    began = time.process_time()
    decode_scans([value])
    return time.process_time() - began


def run_apart(fuzzer: Fuzzer, seconds: float) -> tuple[Fuzzer, int]:
    """Run the fuzzer in a process of its own; returns it as it is then, and how many records it has read.

    A decoder that hangs or crashes takes that process with it: DiedError names the file with the record.
    """
    batch, record = fuzzer.file("batch"), fuzzer.file("record")
    for left_over in (batch, record):
        left_over.unlink(missing_ok=True)
    try:
        return _apart(_run, fuzzer, seconds)
    except Exception as error:
        if not batch.exists():
            raise
        with suppress(Exception):
            _apart(fuzzer.decode_one_by_one)
        what = f"this record: {record}" if record.exists() else f"this batch, but on no record of it alone: {batch}"
        raise DiedError(f"the decoder hangs or crashes on {what}") from error


def _apart(task: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
    # Not forked: whoever calls may have threads.
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=faulthandler.enable) as processes:
        return processes.submit(task, *arguments, **named).result()


def _run(fuzzer: Fuzzer, seconds: float) -> tuple[Fuzzer, int]:
    count = fuzzer.run(seconds)
    return fuzzer, count


@click.command(epilog="Example: python -m tests.hostile.fuzz --seconds 600")
@click.option("--seconds", type=click.FloatRange(0), default=600.0, show_default=True, help="For so long.")
@click.option("--seed", type=int, help="Default: another one each time.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=tempfile.gettempdir(),
    help="Holds what is being decoded. Default: the system's for temporary files.",
)
@click.option(
    "--patience", type=click.FloatRange(1), default=Fuzzer.patience, show_default=True, help="Seconds for a batch."
)
@click.option("--record/--no-record", default=False, help="Add to docs/reliability.json, and make docs/reliability.md.")
def command(seconds: float, seed: int | None, folder: Path, patience: float, record: bool) -> None:
    """Fuzz the decoder; exit 1 if it reads any record otherwise than the contract's model or recount, hangs or crashes."""
    fuzzer = Fuzzer(random.randrange(1 << 32) if seed is None else seed, folder, patience)
    click.echo(f"seed {fuzzer.seed}")
    fuzzer, count = run_apart(fuzzer, seconds)
    for value in fuzzer.wrong:
        click.echo(f"read wrongly: {value[:2000]!r}; the recount: {recount.judge(Record(0, 0, 0, value), None)}")
    found = {
        "command": f"tests.hostile.fuzz --seconds {seconds:g} --seed {fuzzer.seed}",
        "records": count,
        "sampled": fuzzer.verdicts,
        "wrong": len(fuzzer.wrong),
    }
    click.echo(json.dumps(found))
    if record:
        report.record(found)
    sys.exit(bool(fuzzer.wrong))


if __name__ == "__main__":
    command()
