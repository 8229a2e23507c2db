"""Faust as documented: an agent, and tables with their changelog topics.

`take` would batch the writes to the store, but within it tables cannot be changed (the current event is another task's); so
rows gather in a buffer. They are acknowledged before they are written: a crash loses them, and counts twice what its tables had
and the offsets had not.
"""

import asyncio
import sys

import faust

from benchmarks.race.decoding import decode
from benchmarks.race.job import changes, fold, put
from benchmarks.race.store import FULL, Store
from benchmarks.race.tally import Tally


async def run(tally: Tally) -> None:
    """Run until the topic's records are stored and committed."""
    app = faust.App(
        f"race-{tally.folder.name}",
        broker=f"kafka://{tally.address}",
        # The fastest of the stores; tables are kept by their changelogs all the same.
        store="memory://",
        datadir=str(tally.folder / "faust"),
        topic_partitions=4,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=5_000,
        stream_buffer_maxsize=16_384,
        # Changelogs are many small records: let them gather.
        producer_linger=0.05,
        producer_max_batch_size=1 << 20,
    )
    source = app.topic(tally.topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    pairs = app.Table("pairs", key_type=str, value_type=list)
    minutes = app.Table("minutes", key_type=str, value_type=list)
    store = Store(tally.folder / "clickhouse")
    done = asyncio.Event()

    @app.agent(source)
    async def pair(stream: faust.StreamT[bytes]) -> None:
        async for value in stream:
            scan = decode(value)
            tally.take(scan is None)
            if scan is not None:
                # An id has no `|`.
                key = f"{scan.venue}|{scan.visitor}"
                scans = pairs.get(key) or []
                before = fold(scans)
                if put(scans, scan.at, scan.kind, scan.persons):
                    pairs[key] = scans
                    visits, gone, moves = changes(before, fold(scans))
                    store.visits(scan.venue, scan.visitor, visits, gone)
                    for minute, came, went in moves:
                        arrivals, departures = minutes.get(f"{scan.venue}|{minute}") or (0, 0)
                        minutes[f"{scan.venue}|{minute}"] = [arrivals + came, departures + went]
                        store.minute(scan.venue, minute, arrivals + came, departures + went)
            if store.waiting >= FULL:
                store.flush()
            if tally.done:
                done.set()

    @app.timer(interval=1.0)
    async def write() -> None:
        store.flush()

    await app.start()
    await done.wait()
    # The last event is acknowledged when the agent asks for the next.
    await asyncio.sleep(0)
    store.flush()
    await app.producer.flush()
    await app.commit({tally.topic})
    tally.report()
    await app.stop()
    store.close()


if __name__ == "__main__":
    asyncio.run(run(Tally.of_call(sys.argv[1:])))
