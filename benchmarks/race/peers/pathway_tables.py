"""Pathway: no state by hand, but tables that follow from tables; the engine keeps them right as scans come, in whatever order."""

import os
import sys
from collections.abc import Callable
from typing import Any

import pathway as pw

from benchmarks.race.decoding import decode
from benchmarks.race.job import MINUTE, Visit, fold
from benchmarks.race.store import FULL, Store
from benchmarks.race.tally import Tally

_PairScan = tuple[int, int, int]


@pw.udf(deterministic=True)
def visits_of(scans: tuple[_PairScan, ...]) -> list[Visit]:
    """The visits of a pair, whose scans are sorted with the larger of two parties first, hence the sign."""
    return fold((at, kind, -persons) for at, kind, persons in scans)


class _Rows(pw.io.python.ConnectorObserver):
    """Within one time of the engine an update is a row taken away and a row added, in either order: the added one holds."""

    def __init__(self, store: Store, ended: Callable[[type["_Rows"], int], None]) -> None:
        self.store = store
        self._ended = ended
        self._rows: dict[Any, tuple[bool, dict[str, Any]]] = {}

    def on_change(self, key: pw.Pointer, row: dict[str, Any], time: int, is_addition: bool) -> None:  # noqa: ARG002
        if is_addition or key not in self._rows:
            self._rows[key] = is_addition, row

    def on_time_end(self, time: int) -> None:
        for is_addition, row in self._rows.values():
            self.note(row, is_addition)
        self._rows.clear()
        if self.store.waiting >= FULL:
            self.store.flush()
        self._ended(type(self), time)

    def note(self, row: dict[str, Any], is_addition: bool) -> None:
        """Give the row to the store."""
        raise NotImplementedError


class _Read(pw.io.python.ConnectorObserver):
    """Notes at which time of the engine the topic's last record was taken: a Kafka source never ends by itself."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._last: int | None = None
        self._waiting = {_Visits, _Minutes}

    def on_change(self, key: pw.Pointer, row: dict[str, Any], time: int, is_addition: bool) -> None:  # noqa: ARG002
        if is_addition and row["records"] == self._expected:
            self._last = time

    def ended(self, kind: type["_Rows"], time: int) -> bool:
        """Whether this was the last of what had to be written."""
        if self._last is not None and time >= self._last:
            self._waiting.discard(kind)
        return not self._waiting


class _Visits(_Rows):
    def note(self, row: dict[str, Any], is_addition: bool) -> None:
        visits = [(row["start"], row["left"], row["ended"], row["persons"])] if is_addition else []
        self.store.visits(row["venue"], row["visitor"], visits, [] if is_addition else [row["start"]])


class _Minutes(_Rows):
    def note(self, row: dict[str, Any], is_addition: bool) -> None:
        counts = (row["arrivals"], row["departures"]) if is_addition else (0, 0)
        self.store.minute(row["venue"], row["minute"], *counts)


def build(tally: Tally, store: Store) -> None:
    """Describe the tables: scans, visits, minutes."""

    @pw.udf(deterministic=True)
    def judged(value: bytes) -> tuple[str, str, int, int, int] | None:
        scan = decode(value)
        tally.take(scan is None)
        return None if scan is None else tuple(scan)

    messages = pw.io.kafka.read(
        {
            "bootstrap.servers": tally.address,
            "group.id": f"race-{tally.folder.name}",
            "auto.offset.reset": "earliest",
            # librdkafka pauses a full partition for a second by default.
            "fetch.queue.backoff.ms": "5",
        },
        topic=tally.topic,
        format="raw",
        autogenerate_key=True,
        # Results are right as of every second; a longer time would be faster, and none (mode="static") one batch of all.
        autocommit_duration_ms=1_000,
    )
    scan = pw.unwrap(pw.this.scan)
    scans = (
        messages.select(scan=judged(pw.this.data))
        .filter(pw.this.scan.is_not_none())
        .select(venue=scan[0], visitor=scan[1], at=scan[2], kind=scan[3], persons=scan[4])
    )
    pairs = scans.groupby(pw.this.venue, pw.this.visitor).reduce(
        pw.this.venue,
        pw.this.visitor,
        scans=pw.reducers.sorted_tuple(pw.make_tuple(pw.this.at, pw.this.kind, -pw.this.persons)),
    )
    visit = pw.this.visit
    visits = (
        pairs.select(pw.this.venue, pw.this.visitor, visit=visits_of(pw.this.scans))
        .flatten(pw.this.visit)
        .select(pw.this.venue, pw.this.visitor, start=visit[0], left=visit[1], ended=visit[2], persons=visit[3])
        .with_id_from(pw.this.venue, pw.this.visitor, pw.this.start)
    )
    came = visits.select(pw.this.venue, minute=pw.this.start // MINUTE, arrivals=pw.this.persons, departures=0)
    went = visits.select(pw.this.venue, minute=pw.this.left // MINUTE, arrivals=0, departures=pw.this.persons)
    minutes = (
        came.concat_reindex(went)
        .groupby(pw.this.venue, pw.this.minute)
        .reduce(
            pw.this.venue,
            pw.this.minute,
            arrivals=pw.reducers.sum(pw.this.arrivals),
            departures=pw.reducers.sum(pw.this.departures),
        )
    )
    read = _Read(tally.expected)

    def ended(kind: type[_Rows], time: int) -> None:
        if read.ended(kind, time):
            store.flush()
            tally.report()
            store.close()
            # There is no other way to end a run over Kafka.
            os._exit(0)

    pw.io.python.write(messages.reduce(records=pw.reducers.count()), read)
    pw.io.python.write(visits, _Visits(store, ended))
    pw.io.python.write(minutes, _Minutes(store, ended))


def main() -> None:
    """Run until the topic's records are stored."""
    tally = Tally.of_call(sys.argv[1:])
    build(tally, Store(tally.folder / "clickhouse"))
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main()
