"""A fuzzer of the decoder: scans grown from a grammar and broken at random, against the judge, which is the contract.

Example: python -m tests.hostile.fuzz --seconds 600
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import click
import numpy as np

from pipeline.core.columns import EVENT_TYPES, Rejection, ScanColumns, Text
from pipeline.core.decode import decode_scans
from pipeline.core.judge import Refusal, judge_scan
from tests.faults import report
from tests.hostile.corpus import BYTES, SCAN, TIMES, VALUES, corpus, written

#: Records in a batch.
_BATCH: Final = 250
#: A record may take this long (CPU seconds) to be read, alone; the largest takes a few milliseconds.
PATIENCE: Final = 1.0

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
    """The records that the decoder reads otherwise than the judge: accepted, refused, or with another value or reason."""
    columns, rejections = decode_scans(values)
    found: dict[int, object] = dict(zip(columns.record.tolist(), _rows(columns), strict=True))
    found |= {rejection.record: rejection for rejection in rejections}
    wanted = [_judged(i, value) for i, value in enumerate(values)]
    return (
        [i for i, each in enumerate(wanted) if found.get(i) != each]
        if len(found) == len(values)
        else [*range(len(values))]
    )


def _judged(record: int, value: bytes) -> object:
    verdict = judge_scan(value)
    if isinstance(verdict, Refusal):
        return Rejection(record, verdict.reason, verdict.detail)
    ids = (verdict.event_id, verdict.venue_id, verdict.visitor_id, verdict.source)
    return (*ids, verdict.event_type, verdict.occurred_at, verdict.party_size)


def _rows(columns: ScanColumns) -> Iterator[object]:
    def texts(column: Text) -> list[str]:
        ends = column.start + column.length
        return [columns.buffer[a:b].tobytes().decode() for a, b in zip(column.start, ends, strict=True)]

    ids = (texts(each) for each in (columns.event_id, columns.venue_id, columns.visitor_id, columns.source))
    kinds = [EVENT_TYPES[code] for code in columns.event_type]
    return zip(*ids, kinds, columns.occurred_at.tolist(), columns.party_size.tolist(), strict=True)


@dataclass
class Fuzzer:
    """Grows and breaks records. What leads to a verdict that was not seen before is kept, and broken again."""

    seed: int
    verdicts: Counter[str] = field(default_factory=Counter)
    wrong: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._pool = [value for _, value in corpus() if len(value) < 3000]
        self._seen: set[str] = set()

    def run(self, seconds: float) -> int:
        """Fuzz for so long; returns the records. Those read wrongly are in `wrong`."""
        until, count = time.monotonic() + seconds, 0
        while time.monotonic() < until and len(self.wrong) < 20:
            values = [self._record() for _ in range(_BATCH)]
            began = time.process_time()
            different = differences(values)
            if time.process_time() - began > PATIENCE:
                self.wrong += [value for value in values if _seconds(value) > PATIENCE]
            self.wrong += [values[i] for i in different]
            self._learn(values)
            count += len(values)
        return count

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


def _seconds(value: bytes) -> float:
    began = time.process_time()
    decode_scans([value])
    return time.process_time() - began


@click.command(epilog="Example: python -m tests.hostile.fuzz --seconds 600")
@click.option("--seconds", type=click.FloatRange(0), default=600.0, show_default=True, help="For so long.")
@click.option("--seed", type=int, help="Default: another one each time.")
@click.option("--record/--no-record", default=False, help="Add to docs/reliability.json, and make docs/reliability.md.")
def command(seconds: float, seed: int | None, record: bool) -> None:
    """Fuzz the decoder; exit 1 if it reads any record otherwise than the contract's model does."""
    fuzzer = Fuzzer(random.randrange(1 << 32) if seed is None else seed)
    click.echo(f"seed {fuzzer.seed}")
    count = fuzzer.run(seconds)
    for value in fuzzer.wrong:
        click.echo(f"read wrongly: {value[:2000]!r}")
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
