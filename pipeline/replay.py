"""Files of scans through the engine, without a broker."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine import Engine
from pipeline.files import read_records
from pipeline.store.writer import Write

#: Where a replay's records are said to come from, in `dead_letters` and `accounting`: partition 0, offset = running number.
TOPIC = "replay"

_WRITE_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did. Seconds include reading, storing and settling."""

    records: int
    seconds: float
    counters: dict[str, int]


def replay_files(engine: Engine, paths: Iterable[Path], progress: Callable[[int], None] = lambda _: None) -> Replayed:
    """Process files in order; `progress` is told of every number of records. The store is settled at the end.

    Reading, folding and writing overlap: the write of what came before runs beside the next.
    """
    began = time.monotonic()
    # Records are numbered anew: a file replayed again is a duplicate of itself, whatever was replayed in between.
    offset = engine.assign(TOPIC, [0])[0] or 0
    first = offset
    with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:
        writing: Future[object] | None = None
        for path in paths:
            for values in read_records(path):
                now = time.time_ns() // 1_000_000
                engine.process(TOPIC, 0, range(offset, offset + len(values)), [now] * len(values), values)
                offset += len(values)
                progress(len(values))
                if engine.pending_scans >= _WRITE_ROWS:
                    writing = _next_write(engine, pool, writing)
        if writing is not None:
            writing.result()
    engine.settle()
    return Replayed(offset - first, time.monotonic() - began, engine.counters())


def _next_write(engine: Engine, pool: ThreadPoolExecutor, writing: "Future[object] | None") -> "Future[object] | None":
    write: Write | None = engine.take(idle=False)
    if writing is not None:
        writing.result()
    return pool.submit(engine.write, write) if write is not None else None
