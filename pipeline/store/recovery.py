"""State back from the store: after a start, a crash or a rebalance.

Three steps. What a write that did not end has left behind (rows not older than `durable`), and what was still to be corrected,
is found. The visits of the pairs concerned are folded again from their scans. Then memory is loaded, from the scans and visits
of the late window and the day before it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from pipeline.ahead import ahead
from pipeline.core.columns import ScanColumns
from pipeline.core.pools import HARD_LIMIT, U8
from pipeline.core.shard import Shard
from pipeline.store.estimated_rows import load_moves
from pipeline.store.tables import integers, scan_columns, texts_of
from pipeline.store.venue_ranges import ranges_of
from pipeline.store.writer import Progress, of_digests, quoted_pairs, store_errors, unaccounted

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any


#: A partition: (topic, number).
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the store stands.

    Per (topic, partition), of its venues' rows: `durable`, from which version on they belong to a write that did not end;
    `computed`, up to which clock (ms) they are there, 0 where none are; `rules`, the version of the registry that they follow, −1
    where that was not noted. `as_of` is the newest clock of all.
    """

    progress: list[Progress]
    epoch: int
    durable: dict[Place, int]
    computed: dict[Place, int]
    rules: dict[Place, int]
    newest: int
    watermark: int

    @property
    def as_of(self) -> int:
        """The clock (ms)."""
        return max(self.computed.values(), default=0)


@dataclass(slots=True)
class Unfinished:
    """What must be computed again: pairs (their visits), rows by (venue, minute), and whole corrections asked for."""

    pairs: set[tuple[str, str]] = field(default_factory=set)
    minutes: dict[str, set[int]] = field(default_factory=dict)
    repairs: set[tuple[str, str]] = field(default_factory=set)


def durable_of(standing: Standing, owned: Sequence[Place], *, everything: bool) -> dict[Place, int]:
    """Per partition owned, the version from which rows of its venues may be of a write that did not end.

    An embedded store has one writer at a time, so the newest write speaks for all (`everything`); a server's workers write side
    by side, so each partition has its own.
    """
    if everything:
        return dict.fromkeys(owned, max(standing.durable.values(), default=0))
    return {key: standing.durable.get(key, 0) for key in owned}


def computed_of(standing: Standing, owned: Sequence[Place], *, everything: bool) -> dict[Place, int]:
    """Per partition owned, the clock (ms) up to which the rows of its venues are computed; as in `durable_of`."""
    if everything:
        return dict.fromkeys(owned, standing.as_of)
    return {key: standing.computed.get(key, 0) for key in owned}


def rules_of(standing: Standing, owned: Sequence[Place], *, everything: bool) -> dict[Place, int]:
    """Per partition owned, the version of the registry that the rows of its venues follow; as in `durable_of`."""
    if everything:
        return dict.fromkeys(owned, max(standing.rules.values(), default=0))
    return {key: standing.rules.get(key, 0) for key in owned}


def left_behind(
    durable: Mapping[Place, int], before: Mapping[Place, Sequence[tuple[int, int]]], *, everything: bool
) -> str:
    """A SQL condition on venue_id and version: rows of the partitions that may be of a write that did not end.

    `before`: per partition, the versions of such writes at earlier takeovers, half-open.
    """
    if everything:
        return f"version >= {max(durable.values(), default=0)}"
    places: dict[str, list[Place]] = {}
    for key, version in durable.items():
        spans = [f"version >= {first} AND version < {end}" for first, end in before.get(key, ()) if first < version]
        places.setdefault(" OR ".join([f"version >= {version}", *spans]), []).append(key)
    parts = [f"(({versions}) AND {scope_of(some, everything=False)})" for versions, some in places.items()]
    return f"({' OR '.join(parts) or '0'})"


def takeovers(client: Client, owned: Sequence[Place]) -> dict[Place, list[tuple[int, int]]]:
    """Per partition owned, the versions [first, end) of writes that did not end at the last takeovers.

    Rows of them may still come in: of a worker that stood still after its last look at who owns the partition.
    """
    found: dict[Place, list[tuple[int, int]]] = {}
    if not owned:
        return found
    with store_errors():
        rows = client.query(
            f"SELECT topic, partition, durable, version FROM takeover_rows WHERE (topic, partition) IN ({quoted_pairs(owned)}) "
            "ORDER BY version DESC"
        ).result_rows
    for topic, partition, first, end in rows:
        spans = found.setdefault((topic, partition), [])
        if spans and end >= spans[-1][0]:
            spans[-1] = min(int(first), spans[-1][0]), spans[-1][1]
        elif len(spans) < _TAKEOVERS:
            spans.append((int(first), int(end)))
    return found


#: The derived rows that outlive a recovery that does not find them, and their keys. (A recovery writes all of now_rows.)
_KEYS: Final = {
    "visit_rows": "venue_id, visitor_id, toUnixTimestamp64Milli(checked_in_at)",
    "minute_rows": "venue_id, toUnixTimestamp(minute)",
    "hour_rows": "venue_id, toUnixTimestamp(hour)",
    "rolling_rows": "venue_id, width",
    "alert_rows": "venue_id, toInt8(level), toUnixTimestamp64Milli(raised_at)",
}

#: Rows that came late are looked for as far back as so many takeovers.
_TAKEOVERS: Final = 30

#: Scans of one query: some 200 MiB of the store's memory, and twice 60 MiB of ours.
_SCANS: Final = 500_000

#: Versions are epoch << 40 | running number: a new owner's rows beat any row of an earlier one.
EPOCH_SHIFT = 40


def estimated_venues(client: Client, scope: str) -> list[bytes]:
    """The venues that have an estimate, in a scope of venues. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(f"SELECT venue_id FROM estimate_rows FINAL WHERE {scope}").result_rows
    return [str(row[0]).encode() for row in rows]


def read_standing(client: Client) -> Standing:
    """What the progress rows say, of all partitions."""
    with store_errors():
        rows = client.query(
            "SELECT topic, partition, next_offset, consumed, stored, duplicates, dead_lettered, durable, version, "
            "toUnixTimestamp64Milli(newest), toUnixTimestamp64Milli(watermark), toUnixTimestamp64Milli(as_of), rules "
            "FROM progress_rows FINAL ORDER BY topic, partition"
        ).result_rows
    progress = [Progress(*row[:7]) for row in rows]
    return Standing(
        progress,
        max((int(row[8]) >> EPOCH_SHIFT for row in rows), default=0),
        {(row[0], row[1]): int(row[7]) for row in rows},
        {(row[0], row[1]): int(row[11]) for row in rows},
        {(row[0], row[1]): int(row[12]) for row in rows},
        max((int(row[9]) for row in rows), default=0),
        max((int(row[10]) for row in rows), default=0),
    )


def claimed_epoch(client: Client) -> int:
    """The newest epoch in which partitions were claimed on a server; one that was claimed need not have written yet."""
    with store_errors():
        rows = client.query("SELECT max(version) FROM takeover_rows").result_rows
    return int(rows[0][0]) >> EPOCH_SHIFT


def scope_of(owned: Sequence[Place], *, everything: bool) -> str:
    """A SQL condition on venue_id: the venues of some partitions, or all (an embedded store has one owner)."""
    if everything:
        return "1"
    return f"venue_id IN (SELECT venue_id FROM venue_rows FINAL WHERE (topic, partition) IN ({quoted_pairs(owned)}))"


def find_unfinished(client: Client, scope: str, left: str) -> Unfinished:
    """What a crash has left (`left_behind`), and the corrections asked for in the venues of `scope`."""
    found = Unfinished()
    with store_errors():
        for venue, visitor in client.query(
            f"SELECT DISTINCT venue_id, visitor_id FROM visit_rows WHERE {left}"
        ).result_rows:
            found.pairs.add((venue, visitor))
        for table, column, seconds in (("minute_rows", "minute", 60), ("hour_rows", "hour", 60)):
            for venue, minute in client.query(
                f"SELECT DISTINCT venue_id, intDiv(toUnixTimestamp({column}), {seconds}) FROM {table} WHERE {left}"
            ).result_rows:
                found.minutes.setdefault(venue, set()).add(int(minute))
        for venue, visitor in client.query(
            f"SELECT venue_id, visitor_id FROM repair_rows FINAL WHERE {scope}"
        ).result_rows:
            found.repairs.add((venue, visitor))
    return found


def rows_left_behind(client: Client, left: str, before: int) -> set[tuple[object, ...]]:
    """The rows that former owners have `left_behind`, of a version under `before`: their table, key and version."""
    found: set[tuple[object, ...]] = set()
    with store_errors():
        for table, key in _KEYS.items():
            sql = f"SELECT {key}, version FROM {table} WHERE version < {before} AND {left}"
            found |= {(table, *row) for row in client.query(sql).result_rows}
    return found


def unaccounted_scans(client: Client, scope: str, progress: list[Progress]) -> set[tuple[str, str, int, int]]:
    """Unaccounted scans of a scope of venues: (venue, visitor, kind, ms); `progress` is that of all partitions."""
    some = f"{unaccounted(progress)} AND {scope}"
    with store_errors():
        # Of rows of one scan the first record holds: unaccounted as a whole, it is so in some row too, and those rows are few.
        rows = client.query(
            "SELECT venue_id, visitor_id, toInt8(event_type), toUnixTimestamp64Milli(occurred_at) FROM scan_set FINAL "
            f"WHERE {some} AND (venue_id, visitor_id) IN (SELECT venue_id, visitor_id FROM scan_set WHERE {some})"
        ).result_rows
    return {(str(row[0]), str(row[1]), int(row[2]), int(row[3])) for row in rows}


def _arrow(client: Client, sql: str) -> pa.Table:
    with store_errors():
        return client.query_arrow(sql)


def load_shard(
    client: Client,
    shard: Shard,
    scope: str,
    progress: list[Progress],
    *,
    moves: bool = False,
    without: Collection[str] = (),
) -> None:
    """Fill a shard, whose horizon is set, with the venues of `scope`; `progress` is that of all partitions.

    `moves`: the log of moves too, which it then keeps. `without`: visitors (SHA-256, in hex) who are being erased, and whose
    visits are gone already. Raises StoreUnavailableError.
    """
    but = f" AND NOT {of_digests('visitor_id', sorted(without))}" if without else ""
    horizon, cells_from = max(shard.horizon, 0), max(shard.cells_from, 0)
    since = f"fromUnixTimestamp64Milli({cells_from}, 'UTC')"
    venues = _arrow(client, f"SELECT DISTINCT venue_id FROM venue_rows WHERE {scope} ORDER BY venue_id")
    if venues.num_rows:
        buffer, (venue,) = texts_of(venues["venue_id"])
        shard.know_venues(buffer, venue)
    fresh = unaccounted(progress)
    scans = (
        _columns_of(_scans_of(client, f"{of_venues} AND {scope}{but}", since, horizon, fresh))
        for of_venues in ranges_of(client, "scan_set", f"occurred_at >= {since} AND {scope}", _SCANS)
    )
    # The store's work and ours take about as long.
    for columns, is_fresh in ahead(scans):
        shard.load(columns, is_fresh)
    carried = _arrow(
        client,
        f"""
        SELECT venue_id, toUnixTimestamp64Milli(left_at) AS left, party_size AS party
        FROM visit_rows FINAL WHERE {_carried(since)} AND {scope}
        """,
    )
    if carried.num_rows:
        buffer, (venue,) = texts_of(carried["venue_id"])
        shard.carry_in(buffer, venue, integers(carried, "left"), integers(carried, "party"))
    if moves:
        shard.keep_moves()
        load_moves(client, shard, scope)


def _columns_of(scans: pa.Table) -> tuple[ScanColumns, U8]:
    return scan_columns(scans), integers(scans, "fresh").astype("uint8")


def _scans_of(client: Client, venues: str, since: str, horizon: int, fresh: str) -> pa.Table:
    # A pair's scans up to the end of a visit that began before `since` belong to that visit, which nothing in memory can change.
    # Few pairs have one: to ask each pair for its first visit since then takes twice as long, and so does the engine's sorting.
    return _arrow(
        client,
        f"""
        SELECT venue_id, visitor_id, kind, at, party, fresh
        FROM
        (
            SELECT venue_id, visitor_id, toInt8(event_type) AS kind, toUnixTimestamp64Milli(occurred_at) AS at,
                   -tupleElement(winner, 1) AS party, ({fresh}) AS fresh
            FROM scan_set FINAL WHERE occurred_at >= {since} AND {venues}
        ) AS scan
        LEFT JOIN
        (
            SELECT venue_id, visitor_id, max(toUnixTimestamp64Milli(left_at) + (ended = 'check_out')) AS until
            FROM visit_rows FINAL WHERE {_carried(since)} AND {venues}
            GROUP BY venue_id, visitor_id
        ) AS visit USING (venue_id, visitor_id)
        WHERE at >= least(until, {horizon})
        """,
    )


def _carried(since: str) -> str:
    """A SQL condition on visits: those that began before `since` and end after."""
    lasts = f"INTERVAL {HARD_LIMIT // 1000} SECOND"
    return f"checked_in_at < {since} AND checked_in_at >= {since} - {lasts} AND left_at >= {since}"


def load_windows(client: Client, scope: str) -> list[tuple[int, list[bytes]]]:
    """The venues that have a rolling window in the store, by width."""
    with store_errors():
        rows = client.query(f"SELECT width, venue_id FROM rolling_rows FINAL WHERE {scope}").result_rows
    shown: dict[int, list[bytes]] = {}
    for width, venue in rows:
        shown.setdefault(int(width), []).append(str(venue).encode())
    return list(shown.items())


def venues_within(client: Client, scope: str) -> list[str]:
    """Venues that had scans, in a scope of venues. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(f"SELECT DISTINCT venue_id FROM venue_rows WHERE {scope} ORDER BY venue_id").result_rows
    return [str(row[0]) for row in rows]


def venues_elsewhere(client: Client, scope: str) -> set[bytes]:
    """Venues that the store knows and that are not in `scope`."""
    if scope == "1":
        return set()
    with store_errors():
        rows = client.query(f"SELECT DISTINCT venue_id FROM venue_rows WHERE NOT ({scope})").result_rows
    return {str(row[0]).encode() for row in rows}
