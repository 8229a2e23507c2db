"""Bytewax: a dataflow keyed by venue, whose state is a Python object in memory, and a sink of batches.

No recovery store is set, which costs time: after a crash this flow reads from the beginning.
"""

import sys
from collections.abc import Iterable
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from benchmarks.race.decoding import decode
from benchmarks.race.job import Scan, Visit, changes, fold, put
from benchmarks.race.store import FULL, Store
from benchmarks.race.tally import Tally

#: Of one visitor the visits that changed, and the starts of those that are no more; of the venue the minutes that changed.
Rows = tuple[str, list[Visit], list[int], list[tuple[int, int, int]]]


class Venue(StatefulBatchLogic[Scan, Rows, None]):
    """The scans of each visitor of one venue, and its minutes."""

    def __init__(self, resume: None) -> None:  # noqa: ARG002
        self._pairs: dict[str, list[list[int]]] = {}
        self._minutes: dict[int, tuple[int, int]] = {}

    def on_batch(self, values: list[Scan]) -> tuple[Iterable[Rows], bool]:
        """Take the scans of this venue within a batch of the source."""
        return [rows for scan in values if (rows := self._take(scan)) is not None], StatefulBatchLogic.RETAIN

    def _take(self, scan: Scan) -> Rows | None:
        scans = self._pairs.setdefault(scan.visitor, [])
        before = fold(scans)
        if not put(scans, scan.at, scan.kind, scan.persons):
            return None
        visits, gone, moves = changes(before, fold(scans))
        minutes = []
        for minute, came, went in moves:
            arrivals, departures = self._minutes.get(minute, (0, 0))
            self._minutes[minute] = arrivals + came, departures + went
            minutes.append((minute, arrivals + came, departures + went))
        return scan.visitor, visits, gone, minutes

    def snapshot(self) -> None:
        """Asked for at the end of each epoch; without a recovery store nobody would read it, and a copy of all state is dear."""


class _Writer(StatelessSinkPartition[tuple[str, Rows]]):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._store = Store(tally.folder / "clickhouse")

    def write_batch(self, items: list[tuple[str, Rows]]) -> None:
        for venue, (visitor, visits, gone, minutes) in items:
            self._store.visits(venue, visitor, visits, gone)
            for minute, arrivals, departures in minutes:
                self._store.minute(venue, minute, arrivals, departures)
        if self._store.waiting >= FULL:
            self._store.flush()

    def close(self) -> None:
        self._store.flush()
        self._tally.report()
        self._store.close()


class ClickHouse(DynamicSink[tuple[str, Rows]]):
    """One writer in each worker; here there is one."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> _Writer:
        """Open the store."""
        return _Writer(self._tally)


def flow_of(tally: Tally) -> Dataflow:
    """Read to the end of the topic, decode, pair and count by venue, write."""

    def judged(message: Any) -> tuple[str, Scan] | None:
        assert isinstance(message, KafkaSourceMessage)
        scan = decode(message.value)
        tally.take(scan is None)
        return None if scan is None else (scan.venue, scan)

    flow = Dataflow("race")
    source: KafkaSource = KafkaSource(
        [tally.address],
        [tally.topic],
        tail=False,
        # librdkafka pauses a full partition for a second by default. Larger batches meet the same venue more often.
        add_config={"fetch.queue.backoff.ms": "5"},
        batch_size=10_000,
    )
    read = op.input("read", flow, source)
    scans = op.filter_map("decode", read, judged)
    rows = op.stateful_batch("pair", scans, Venue)
    op.output("write", rows, ClickHouse(tally))
    return flow


def main() -> None:
    """Run until the topic's records are stored."""
    # One worker: a second thread would share the interpreter's lock.
    cli_main(flow_of(Tally.of_call(sys.argv[1:])), workers_per_process=1)


if __name__ == "__main__":
    main()
