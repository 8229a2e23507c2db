"""Whether a contestant's visits and minutes are those that the scans mean.

The reference shares no code with any contestant, ours included: it is the plain recount of the tests of faults.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq

from benchmarks.race.job import MAX_STAY, MINUTE
from pipeline.files import read_records
from tests.faults.recount import Record, Scan, fold, judge, winners

#: (venue, visitor, start, left, ended, persons), and (venue, minute, arrivals, departures, occupancy at its end).
VisitRow = tuple[str, str, int, int, str, int]
MinuteRow = tuple[str, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Rows:
    """Visits and minutes as of the clock: a visit whose end by itself has come is expired.

    Minutes are those before the one in which the clock stands, since the contestants do not all know the clock.
    """

    visits: set[VisitRow]
    minutes: set[MinuteRow]

    @classmethod
    def of(cls, visits: Iterable[VisitRow], minutes: Iterable[tuple[Any, ...]], as_of: int) -> Self:
        """From a contestant's rows; where minutes lack the occupancy, it follows from the arrivals and departures."""
        settled = {
            (*key, left, "expired" if ended == "open" and left <= as_of else ended, persons)
            for *key, left, ended, persons in visits
        }
        past = [row for row in minutes if row[1] < as_of // MINUTE and (row[2] or row[3])]
        complete = past if past and len(past[0]) > 4 else _with_occupancy(past)
        return cls(settled, set(complete))  # type: ignore[arg-type]

    @classmethod
    def read(cls, folder: Path, as_of: int) -> Self:
        """From visits.parquet and minutes.parquet."""
        visits, minutes = (_rows(folder / f"{name}.parquet") for name in ("visits", "minutes"))
        return cls.of(visits, minutes, as_of)


@dataclass(frozen=True, slots=True)
class Reference:
    """What is right, and how many records are to be refused."""

    rows: Rows
    as_of: int
    refused: int


def reference_of(file: Path) -> Reference:
    """Judge, pair and count the lines of a file, plainly."""
    judged = [judge(Record(0, 0, 0, line), None) for lines in read_records(file, lambda _bytes: None) for line in lines]
    scans = winners(each for each in judged if isinstance(each, Scan))
    as_of = max(scan.at for scan in scans)
    visits: list[VisitRow] = [tuple(visit) for visit in fold(scans, {}, MAX_STAY, as_of)]  # type: ignore[misc]
    counts: dict[tuple[str, int], list[int]] = {}
    for venue, _, start, left, _, persons in visits:
        counts.setdefault((venue, start // MINUTE), [0, 0])[0] += persons
        counts.setdefault((venue, left // MINUTE), [0, 0])[1] += persons
    minutes = [(venue, minute, came, went) for (venue, minute), (came, went) in counts.items()]
    refused = sum(isinstance(each, str) for each in judged)
    return Reference(Rows.of(visits, minutes, as_of), as_of, refused)


@dataclass(frozen=True, slots=True)
class Score:
    """Shares from 0 to 1 of the rows of either side that both have; 1 only if they are the same."""

    visits: float
    minutes: float


def score(found: Rows, right: Rows) -> Score:
    """Compare."""
    return Score(_agreement(found.visits, right.visits), _agreement(found.minutes, right.minutes))


def complaint(taken: int, records: int, refused: int, reference: Reference, found: Score) -> str:
    """What is wrong with a run, in words; empty if nothing is: everybody claims to take every record and to be exact."""
    if taken != records:
        return f"took {taken:,} of {records:,} records"
    if refused != reference.refused:
        return f"refused {refused:,} records, where {reference.refused:,} are no scans"
    if found != Score(1.0, 1.0):
        shares = f"{found.visits:.4%} of the visits, {found.minutes:.4%} of the minutes"
        return f"has other rows than the scans mean; right are {shares}"
    return ""


def _agreement(found: set[Any], right: set[Any]) -> float:
    return len(found & right) / len(found | right) if found or right else 1.0


def _with_occupancy(minutes: Iterable[tuple[Any, ...]]) -> Iterator[MinuteRow]:
    for venue, rows in groupby(sorted(minutes), itemgetter(0)):
        present = 0
        for _, minute, arrivals, departures in rows:
            present += arrivals - departures
            yield venue, minute, arrivals, departures, present


def _rows(file: Path) -> Iterator[Any]:
    table = pq.read_table(file)
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
