"""Quix Streams: a StreamingDataFrame with state of each venue (RocksDB and a changelog topic), and a batching sink."""

import sys
from typing import Any

from quixstreams import Application, State
from quixstreams.sinks import BatchingSink, SinkBatch

from benchmarks.race.decoding import decode
from benchmarks.race.job import Scan, changes, fold, put
from benchmarks.race.store import Store
from benchmarks.race.tally import Tally


class ClickHouse(BatchingSink):
    """Written at each checkpoint, before the offsets are committed: at least once, and a row twice does no harm."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def write(self, batch: SinkBatch) -> None:
        """Write what a partition gave since the last checkpoint, of each key the newest."""
        for item in batch:
            venue, visitor, visits, gone, minutes = item.value
            self._store.visits(venue, visitor, visits, gone)
            for minute, arrivals, departures in minutes:
                self._store.minute(venue, minute, arrivals, departures)
        self._store.flush()


def pair(scan: Scan, state: State) -> list[Any] | None:
    """Put the scan to its pair's. State is by the record's key, the venue; an id has no `|`, so the keys cannot meet."""
    scans = state.get(scan.visitor, [])
    before = fold(scans)
    if not put(scans, scan.at, scan.kind, scan.persons):
        return None
    state.set(scan.visitor, scans)
    visits, gone, moves = changes(before, fold(scans))
    minutes = []
    for minute, came, went in moves:
        arrivals, departures = state.get(f"|{minute}", (0, 0))
        state.set(f"|{minute}", (arrivals + came, departures + went))
        minutes.append((minute, arrivals + came, departures + went))
    return [scan.venue, scan.visitor, visits, gone, minutes]


def main() -> None:
    """Run until the topic's records are stored and committed."""
    tally = Tally.of_call(sys.argv[1:])
    app = Application(
        broker_address=tally.address,
        consumer_group=f"race-{tally.folder.name}",
        auto_offset_reset="earliest",
        state_dir=tally.folder / "state",
        loglevel="WARNING",
        # librdkafka pauses a full partition for a second by default.
        consumer_extra_config={"fetch.queue.backoff.ms": 5},
        # More than the checkpoint of every five seconds, which is the default, costs more than it is worth in a catch-up.
        commit_interval=5.0,
    )

    def judged(value: bytes) -> Scan | None:
        scan = decode(value)
        tally.take(scan is None)
        if tally.done:
            # The loop ends after this record, with a last checkpoint.
            app.stop()
        return scan

    # Values are decoded in the flow: a record that cannot be read must be counted, not skipped by a deserializer.
    topic = app.topic(tally.topic, key_deserializer="bytes", value_deserializer="bytes")
    scans = app.dataframe(topic).apply(judged).filter(lambda scan: scan is not None)
    paired = scans.apply(pair, stateful=True).filter(lambda rows: rows is not None)
    store = Store(tally.folder / "clickhouse")
    paired.sink(ClickHouse(store))
    app.run()
    tally.report()
    store.close()


if __name__ == "__main__":
    main()
