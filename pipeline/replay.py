"""Files of scans through the engine, without a broker."""

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final, TypeVar

import numpy as np

from pipeline.ahead import ahead
from pipeline.core.decode import Decoded, decode_scans
from pipeline.core.values import Values
from pipeline.engine import Engine
from pipeline.errors import StoreUnavailableError, UserError
from pipeline.files import read_records
from pipeline.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Where a replay's records are said to come from, in `dead_letters` and `accounting`: partition 0, offset = running number.
TOPIC: Final = "replay"

#: Records of one write. The larger, the less often the rows of one venue and hour are written anew.
_WRITE_RECORDS: Final = 250_000
#: Pauses between tries while a server is away: doubled from the first to the last, in seconds.
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 15.0
#: With less than this free, in bytes, a disk is called full: ClickHouse needs room to merge.
_DISK_FULL: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did. records = stored + duplicates + dead letters (by reason) + unread, those after `until`.

    Seconds include reading, storing and settling. `interrupted`: not all was read.
    """

    records: int
    stored: int
    duplicates: int
    dead_letters: Mapping[str, int]
    seconds: float
    interrupted: bool

    @property
    def unread(self) -> int:
        """Valid scans that lie after the replay's `until`."""
        return self.records - self.stored - self.duplicates - sum(self.dead_letters.values())


class Replay:
    """Drives an engine over files and venues, as the one who owns `TOPIC`.

    `patient`: a store that is away is tried again until it answers, or until `stopped` is set. Otherwise, and then,
    methods raise StoreUnavailableError.
    """

    def __init__(self, engine: Engine, *, patient: bool = False, stopped: Event | None = None) -> None:
        """Loads the state from the store."""
        self._engine = engine
        self._patient = patient
        self._stopped = stopped or Event()
        # Records are numbered on: a file replayed again is a duplicate of itself, whatever was replayed in between.
        self._offset = self._stored(lambda: engine.assign(TOPIC, [0]))[0] or 0

    def load_venues(self, records: Sequence[bytes]) -> None:
        """Register venues (valid records, in order), and correct what is stored where their rules changed."""
        refused = self._stored(lambda: self._engine.load_venues(records, [None] * len(records)))
        assert not refused, f"the registry refused what was valid: {refused[0].detail}"
        self._stored(self._engine.settle)

    def read_files(
        self, paths: Iterable[Path], progress: Callable[[int, int], None] = lambda _bytes, _records: None
    ) -> Replayed:
        """Process files of scans in order; the store is settled at the end. Stops early once `stopped` is set.

        `progress` is told of every number of bytes read, and of the records so far. Raises UserError where a file
        cannot be read on; what stands before that place is stored.
        """
        began = time.monotonic()
        first, before = self._offset, self._engine.counters()
        dead_letters: Counter[str] = Counter()
        damage, interrupted = None, False
        with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:
            writing: Future[object] | None = None
            taken = first
            try:
                for size, values, decoded in ahead(_read(paths)):
                    progress(size, self._offset - first)
                    if self._stopped.is_set():
                        interrupted = True
                        break
                    dead_letters.update(self._process(values, decoded))
                    if self._offset - taken >= _WRITE_RECORDS:
                        writing = self._next_write(pool, writing)
                        taken = self._offset
            except UserError as error:
                damage = error
            if writing is not None:
                writing.result()
        self._stored(self._engine.settle)
        if damage is not None:
            raise UserError(f"{damage}; the {self._offset - first:,} records before are stored") from None
        after = self._engine.counters()
        return Replayed(
            self._offset - first,
            after["stored"] - before["stored"],
            after["duplicates"] - before["duplicates"],
            dead_letters,
            time.monotonic() - began,
            interrupted,
        )

    def _process(self, values: Values, decoded: Decoded) -> Iterator[str]:
        offsets = np.arange(self._offset, self._offset + len(values))
        now = np.full(len(values), time.time_ns() // 1_000_000)
        letters = self._engine.process(TOPIC, 0, offsets, now, values, decoded)
        self._offset += len(values)
        return (letter.reason for letter in letters)

    def _next_write(self, pool: ThreadPoolExecutor, writing: "Future[object] | None") -> "Future[object] | None":
        # What was read meanwhile is cut first, so that its write follows at once: folding and writing overlap.
        write = self._engine.take(idle=False)
        if writing is not None:
            writing.result()
        return pool.submit(self._stored, lambda: self._engine.write(write)) if write is not None else None

    def _stored(self, call: Callable[[], T]) -> T:
        pause, away_since = _FIRST_PAUSE, None
        while True:
            try:
                result = call()
            except StoreUnavailableError as error:
                if not self._patient or self._stopped.is_set():
                    raise
                if away_since is None:
                    away_since = time.monotonic()
                    log.warning("the store is away (%s): trying again; nothing is lost", error)
                self._stopped.wait(pause)
                pause = min(pause * 2, _LAST_PAUSE)
            else:
                if away_since is not None:
                    log.warning("the store is back after %.1f s", time.monotonic() - away_since)
                return result


def _read(paths: Iterable[Path]) -> Iterator[tuple[int, Values, Decoded]]:
    """Records, decoded, and how many bytes of the files were read for them."""
    sizes: list[int] = []
    for path in paths:
        for values in read_records(path, sizes.append):
            yield sum(sizes), values, decode_scans(values)
            sizes.clear()


@contextmanager
def store_failures(settings: Settings) -> Iterator[None]:
    """Turn StoreUnavailableError into a UserError that says what is wrong, and that trying again is harmless."""
    try:
        yield
    except StoreUnavailableError as error:
        again = "what was written before stays; running the same command again changes nothing twice"
        if settings.clickhouse_url is not None:
            raise UserError(f"the ClickHouse server does not answer ({error}); {again}") from None
        free = shutil.disk_usage(settings.store_path).free
        if free < _DISK_FULL:
            raise UserError(
                f"the disk of {settings.store_path} is full ({free >> 20} MiB free): make room; {again}"
            ) from None
        raise UserError(f"the store {settings.store_path} cannot be written ({error}); {again}") from None
