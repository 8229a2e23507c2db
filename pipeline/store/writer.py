"""One write: everything that some batches of scans changed, in the order that makes a crash anywhere harmless.

Derived rows come first, then the scans, then the progress row. A crash before the scans: they are read again, the fold starts
from the same scans as before, and computes the same rows. After the scans but before the progress row: whoever takes over
finds derived rows newer than `durable` and computes them again from the scans. So the line between "may be lost" and "stored"
is the progress row; the Kafka offset is committed after it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError
from numpy.typing import NDArray

from pipeline.core.columns import ScanColumns
from pipeline.core.decode import together
from pipeline.dead_letters import DeadLetter
from pipeline.errors import AccountingError, OwnershipLostError, StoreUnavailableError
from pipeline.store.client import INSERT_SETTINGS
from pipeline.store.damage import raise_if_damaged
from pipeline.store.tables import place_table, scan_table, strings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any


#: Pairs asked for in one query: as parameters of a server's URL they must stay under a megabyte.
_ASKED_PAIRS: Final = 4_000

#: What is known of some pairs' scans: identity and persons.
_STORED_SCANS: Final = """
SELECT venue_id, visitor_id, toInt8(event_type), toUnixTimestamp64Milli(occurred_at), -min(winner.1)
FROM scan_set
WHERE (venue_id, visitor_id) IN (
    SELECT arrayJoin(arrayZip({venues:Array(String)}, {visitors:Array(String)}))
) AND NOT
"""


@dataclass(slots=True)
class Progress:
    """Where one partition stands: `next_offset` is the first one not yet stored; the counts are since the beginning."""

    topic: str
    partition: int
    next_offset: int = 0
    consumed: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0

    @property
    def accepted(self) -> int:
        """Valid scans: stored or duplicates."""
        return self.stored + self.duplicates


@dataclass(frozen=True, slots=True)
class AncientScan:
    """A scan from before what memory holds: its identity, its persons, and where it came from."""

    topic: str
    partition: int
    venue: bytes
    visitor: bytes
    kind: int
    at: int
    party: int


@dataclass(frozen=True, slots=True)
class ReadScans:
    """Valid scans of one partition, with the offset of the record that each came from, and the code of its venue."""

    topic: str
    partition: int
    offsets: NDArray[np.int64]
    columns: ScanColumns
    venue: NDArray[np.int32]


@dataclass(slots=True)
class Write:
    """What is to be stored together. `first_version` ≤ every row's version < `end_version`; times in ms, UTC."""

    first_version: int
    end_version: int
    progress: list[Progress]
    newest: int
    watermark: int
    as_of: int
    mode: str
    #: The version of the registry whose rules all of it follows.
    rules: int
    #: The place of each venue, by its code, in the order of their ids.
    ranks: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    derived: list[tuple[str, pa.Table]] = field(default_factory=list)
    scans: list[ReadScans] = field(default_factory=list)
    ancient: list[AncientScan] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    repaired: list[tuple[str, str]] = field(default_factory=list)
    #: Pairs (venue, visitor) whose visits must be corrected from the store, because an ancient scan tells something new: known
    #: once it is stored.
    asked: list[tuple[str, str]] = field(default_factory=list)
    #: Corrections that others asked for, by pair (venue, visitor) the version of the request, made by what this holds.
    answered: Mapping[tuple[str, str], int] = field(default_factory=dict)
    #: Rows of `followed_rows`, of venues whose corrections are in the store once this is.
    followed: pa.Table | None = None


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what the driver raises into StoreUnavailableError, with its first line, or into StoreDamagedError."""
    try:
        yield
    except (ClickHouseError, OSError, RuntimeError) as error:
        raise_if_damaged(error)
        raise StoreUnavailableError(str(error).splitlines()[0][:300] if str(error) else type(error).__name__) from error


def unaccounted(progress: Iterable[Progress], *, elsewhere: bool = True) -> str:
    """A SQL condition on scan_set: scans that a record brought which is not accounted for, and will be read again.

    `elsewhere`: whether that is so of all scans of the same topics' partitions that are not in `progress`.
    """
    topics: dict[str, list[Progress]] = {}
    for row in progress:
        topics.setdefault(row.topic, []).append(row)
    beyond = 0 if elsewhere else np.iinfo(np.int64).max
    conditions = [
        f"(origin.2 = {quoted(topic)} AND origin.4 >= transform(origin.3, "
        f"{[row.partition for row in rows]}, {[row.next_offset for row in rows]}, toInt64({beyond})))"
        for topic, rows in topics.items()
    ]
    return f"({' OR '.join(conditions) or '0'})"


def quoted(value: str) -> str:
    """A string as a SQL literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def of_digests(column: str, digests: Iterable[str]) -> str:
    """A SQL condition: the SHA-256 of a column is one of these, in hex. There is one at least."""
    return f"hex(SHA256({column})) IN ({', '.join(quoted(each.upper()) for each in digests)})"


def quoted_all(values: Iterable[str]) -> str:
    """Strings as they stand in the brackets of a SQL `IN`, or of an array."""
    return ", ".join(map(quoted, values))


def of_venues(venues: Iterable[str]) -> str:
    """A SQL condition: venue_id is one of these. There is one at least."""
    return f"venue_id IN ({quoted_all(venues)})"


def quoted_pairs(pairs: Iterable[tuple[str, int]]) -> str:
    """Pairs of a name and a number, such as topics' partitions, as they stand in the brackets of a SQL `IN`."""
    return ", ".join(f"({quoted(name)}, {number})" for name, number in pairs)


class Writer:
    """Writes in the order they are given; one thread at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        # What ancient scans turned out to be, per partition: [stored, duplicates]; known only when they meet the store.
        self._found: dict[tuple[str, int], tuple[int, int]] = {}
        # Of the partitions owned, up to where everything is accounted for.
        self._accounted: list[Progress] = []
        #: On a server, where other workers write too: the partitions claimed, and the version of that claim.
        self._claim: tuple[list[tuple[str, int]], int] | None = None
        #: Told of every row of `visit_rows` once it is stored, in the thread that stores it.
        self.visits_stored: Callable[[pa.Table], None] | None = None

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows, if there are any. Raises OwnershipLostError if another worker has claimed the partitions meanwhile."""
        if rows.num_rows:
            self._hold_claim()
            with store_errors():
                self._client.insert_arrow(table, rows, settings=INSERT_SETTINGS)
            if table == "visit_rows" and self.visits_stored is not None:
                self.visits_stored(rows)

    def write(self, write: Write) -> dict[tuple[str, int], int]:
        """Store all of it. Returns what may be committed: per (topic, partition) the first offset not stored.

        Raises StoreUnavailableError; the same write may then be tried again, as often as needed. Raises OwnershipLostError if
        another worker has claimed the partitions: what it read then may lack some of this, and its rows beat ours.
        """
        self.insert("dead_letter_rows", dead_letter_table(write.dead_letters, write.first_version))
        for table, rows in write.derived:
            self.insert(table, rows)
        accounted = self._accounted
        found, write.asked = self._meet_ancient(write)
        self.insert("repair_rows", correction_table(dict.fromkeys(write.asked, write.first_version), deleted=False))
        if write.scans:
            self.insert("scan_set", _scans_of(write))
        totals = dict(self._found)
        for key, (stored, duplicates) in found.items():
            before = totals.get(key, (0, 0))
            totals[key] = (before[0] + stored, before[1] + duplicates)
        _check_accounting(write, totals)
        self.insert("progress_rows", _progress_table(write, totals))
        self.insert("repair_rows", correction_table(dict.fromkeys(write.repaired, write.first_version), deleted=True))
        self.insert("asked_rows", correction_table(write.answered, deleted=True))
        if write.followed is not None:
            self.insert("followed_rows", write.followed)
        # Whoever claims them after this reads that progress row.
        self._hold_claim()
        if self._accounted is accounted:  # else a new owner was announced meanwhile, whose progress has it all
            self._found, self._accounted = totals, write.progress
        return {(row.topic, row.partition): row.next_offset for row in write.progress}

    def claim(self, places: Sequence[tuple[str, int]], durable: Mapping[tuple[str, int], int], version: int) -> None:
        """On a server: claim partitions under a version. From now on their owner before, if it still runs, writes nothing more.

        What it had under way may still come in, so where the store stands is to be read after this. `durable`, by partition as in
        `Standing`, tells later owners what this one takes over. From now on each insert asks whether others have claimed since,
        and raises OwnershipLostError then.
        """
        self._claim = None
        self.insert("takeover_rows", _takeover_table(places, durable, version))
        self._claim = list(places), version

    def announce(
        self,
        write: Write,
        durable: Mapping[tuple[str, int], int],
        computed: Mapping[tuple[str, int], int],
        rules: Mapping[tuple[str, int], int],
    ) -> None:
        """Make a new owner known: progress as it was, under a new version; what is to be made up for stays so.

        `durable`, `computed` and `rules` are, by partition, as in `Standing`. A worker that stood still (paused, swapped
        out) may go on after another has taken over: its progress rows would lose, having the lower versions; its other rows
        only where the new owner writes the same keys.
        """
        self._found, self._accounted = {}, write.progress  # what was found is in the progress that was read
        table = _progress_table(write, {})
        places = [(row.topic, row.partition) for row in write.progress]
        as_was = {
            "durable": pa.array([durable[place] for place in places], pa.uint64()),
            "as_of": _times([computed[place] for place in places]),
            "rules": pa.array([rules[place] for place in places], pa.int64()),
        }
        for name, column in as_was.items():
            table = table.set_column(table.column_names.index(name), name, column)
        self.insert("progress_rows", table)

    def _hold_claim(self) -> None:
        if self._claim is None:
            return
        places, version = self._claim
        if places and self._newest_claim(places) > version:
            raise OwnershipLostError

    def _newest_claim(self, places: Sequence[tuple[str, int]]) -> int:
        with store_errors():
            rows = self._client.query(
                f"SELECT max(version) FROM takeover_rows WHERE (topic, partition) IN ({quoted_pairs(places)})"
            ).result_rows
        return int(rows[0][0])

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def found_of(self, topic: str, partition: int) -> tuple[int, int]:
        """How many ancient scans of a partition were stored, and how many were duplicates."""
        return self._found.get((topic, partition), (0, 0))

    def _meet_ancient(self, write: Write) -> tuple[dict[tuple[str, int], tuple[int, int]], list[tuple[str, str]]]:
        """Per partition how many ancient scans are [stored, duplicates], and the pairs of which one tells something new."""
        if not write.ancient:
            return {}, []
        pairs = sorted({(scan.venue.decode(), scan.visitor.decode()) for scan in write.ancient})
        # What an unended write stored, a crashed or a late one's, is in the store but not known: its records are read again.
        sql = f"{_STORED_SCANS} {unaccounted(self._accounted, elsewhere=False)} GROUP BY ALL"
        known: dict[tuple[bytes, bytes, int, int], int] = {}
        for i in range(0, len(pairs), _ASKED_PAIRS):
            venues, visitors = zip(*pairs[i : i + _ASKED_PAIRS], strict=True)
            with store_errors():
                rows = self._client.query(sql, {"venues": list(venues), "visitors": list(visitors)}).result_rows
            known |= {(row[0].encode(), row[1].encode(), int(row[2]), int(row[3])): int(row[4]) for row in rows}
        asked = {
            (scan.venue.decode(), scan.visitor.decode())
            for scan in write.ancient
            if scan.party > known.get((scan.venue, scan.visitor, scan.kind, scan.at), 0)
        }
        counted = set(known)
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for scan in write.ancient:
            identity = (scan.venue, scan.visitor, scan.kind, scan.at)
            stored, duplicates = found.get((scan.topic, scan.partition), (0, 0))
            if identity in counted:
                duplicates += 1
            else:
                stored += 1
                counted.add(identity)
            found[scan.topic, scan.partition] = stored, duplicates
        return found, sorted(asked)


def _check_accounting(write: Write, found: dict[tuple[str, int], tuple[int, int]]) -> None:
    for row in write.progress:
        more = found.get((row.topic, row.partition), (0, 0))
        if row.consumed != row.accepted + sum(more) + row.dead_lettered:
            raise AccountingError(
                f"{row.topic}/{row.partition} would not add up and is not stored: {row.consumed} consumed, {row.stored} stored, "
                f"{row.duplicates} duplicates, {row.dead_lettered} dead letters, and of scans from before memory {more}; "
                f"{len(write.ancient)} of them in this write, under versions from {write.first_version}"
            )


def _scans_of(write: Write) -> pa.Table:
    tables = []
    for topic in sorted({read.topic for read in write.scans}):
        reads = [read for read in write.scans if read.topic == topic]
        partitions = [np.full(len(read.offsets), read.partition, np.uint32) for read in reads]
        origin = topic, np.concatenate(partitions), np.concatenate([read.offsets for read in reads])
        venue = np.concatenate([read.venue for read in reads])
        columns = together([read.columns for read in reads])
        tables.append(scan_table(columns, venue, write.ranks, origin, write.first_version))
    return pa.concat_tables(tables)


def _takeover_table(
    places: Sequence[tuple[str, int]], durable: Mapping[tuple[str, int], int], version: int
) -> pa.Table:
    rows = place_table(places, version)
    return rows.append_column("durable", pa.array([durable[place] for place in places], pa.uint64()))


def correction_table(versions: Mapping[tuple[str, str], int], *, deleted: bool) -> pa.Table:
    """Rows of `repair_rows` and `asked_rows`: by pair, corrections to be made, or made."""
    return pa.table(
        {
            "venue_id": strings([venue for venue, _ in versions]),
            "visitor_id": strings([visitor for _, visitor in versions]),
            "version": pa.array(list(versions.values()), pa.uint64()),
            "is_deleted": pa.array(np.full(len(versions), deleted, np.uint8)),
        }
    )


def dead_letter_table(letters: Sequence[DeadLetter], version: int) -> pa.Table:
    """Rows of `dead_letter_rows`."""
    return pa.table(
        {
            "topic": strings([letter.topic for letter in letters]),
            "partition": pa.array([letter.partition for letter in letters], pa.uint32()),
            "offset": pa.array([letter.offset for letter in letters], pa.int64()),
            "reason": strings([letter.reason for letter in letters]),
            "detail": strings([letter.detail for letter in letters]),
            "sha256": strings([sha256(letter.value or b"").hexdigest() for letter in letters]),
            "received_at": pa.array([letter.received_at_ms for letter in letters], pa.int64()).cast(pa.timestamp("ms")),
            "version": pa.array(np.full(len(letters), version, np.uint64)),
        }
    )


def _times(instants: list[int]) -> pa.Array:
    return pa.array(instants, pa.int64()).cast(pa.timestamp("ms"))


def _progress_table(write: Write, found: dict[tuple[str, int], tuple[int, int]]) -> pa.Table:
    rows = write.progress
    ancient = [found.get((row.topic, row.partition), (0, 0)) for row in rows]
    stored = [row.stored + more for row, (more, _) in zip(rows, ancient, strict=True)]
    duplicates = [row.duplicates + more for row, (_, more) in zip(rows, ancient, strict=True)]
    count = len(rows)
    return pa.table(
        {
            "topic": strings([row.topic for row in rows]),
            "partition": pa.array([row.partition for row in rows], pa.uint32()),
            "next_offset": pa.array([row.next_offset for row in rows], pa.int64()),
            "consumed": pa.array([row.consumed for row in rows], pa.uint64()),
            "accepted": pa.array([s + d for s, d in zip(stored, duplicates, strict=True)], pa.uint64()),
            "stored": pa.array(stored, pa.uint64()),
            "duplicates": pa.array(duplicates, pa.uint64()),
            "dead_lettered": pa.array([row.dead_lettered for row in rows], pa.uint64()),
            "newest": _times([max(write.newest, 0)] * count),
            "watermark": _times([max(write.watermark, 0)] * count),
            "as_of": _times([max(write.as_of, 0)] * count),
            "mode": strings([write.mode] * count),
            "rules": pa.array([write.rules] * count, pa.int64()),
            "durable": pa.array(np.full(count, write.end_version, np.uint64)),
            "version": pa.array(np.full(count, write.end_version, np.uint64)),
        }
    )
