"""What is older than the retention: found, dropped by day, and accounted for.

Two instants decide. Before `kept_from` nothing about a person is kept: scans and visits are what a pipeline would make of the
scans from then on, had it never seen older ones. Before `closed_before`, a day later, minutes and hours are history: a visit
lasts a day at most, so every minute from then on can still be counted from the visits that are kept, and no older one can.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.core.pools import HARD_LIMIT
from pipeline.store.recovery import read_standing
from pipeline.store.repair import ask_owners
from pipeline.store.tables import strings
from pipeline.store.writer import of_digests, quoted, store_errors, unaccounted

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

_DAY: Final = 86_400_000
_RETENTION: Final = "retention"
#: Of how many days it is known how far they were counted: scans that come back later than that are counted again.
_DAYS_KNOWN: Final = 90
#: Lists of hashes stand in the query's text; the parser's own limit is a quarter of a megabyte.
QUERY: Final = {"max_query_size": 64 << 20}

#: No time is known of these rows.
_EVER: Final = "fromUnixTimestamp64Milli(toInt64(0), 'UTC')"
#: A SQL condition on published_rows: what workers note as they tell exposures, of a case that is no more. Nothing of it is left
#: to be told, so it does not matter whether the telling is under way: its last note comes later, and goes later.
_TOLD_OF_NO_CASE: Final = (
    "(startsWith(topic, 'exposures') OR startsWith(topic, 'telling/exposures/')) "
    "AND key NOT IN (SELECT case_id FROM report_set) AND key NOT IN (SELECT case_id FROM case_rows)"
)

#: Tables of persons that are partitioned by day, and the time that decides.
_BY_DAY: Final = {"scan_set": "occurred_at", "visit_rows": "checked_in_at", "exposure_rows": "checked_in_at"}


class Bounds(NamedTuple):
    """What a cut keeps; both in ms since the epoch, on a UTC day: see the module."""

    kept_from: int
    closed_before: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """Rows that should be gone, or dead letters whose hash should: how many of which table, and the oldest one's time in ms.

    0: no time is known of them.
    """

    table: str
    rows: int
    oldest: int


def bounds_of(as_of: int, retention: int) -> Bounds:
    """The bounds at an instant (ms) for a retention (ms)."""
    closed = (as_of - retention) // _DAY * _DAY
    return Bounds(max(closed - HARD_LIMIT, 0), max(closed, 0))


def bounds_in_force(client: Client) -> Bounds:
    """Those of the last cut; zeros before the first one. Raises StoreUnavailableError."""
    row = _rows(
        client,
        "SELECT toUnixTimestamp64Milli(max(kept_from)), toUnixTimestamp64Milli(max(closed_before)) FROM retention_rows",
    )[0]
    return Bounds(max(int(row[0]), 0), max(int(row[1]), 0))


def going_before(client: Client) -> int:
    """Before which instant (ms) scans are going, by a cut that has not ended; 0 without one. Raises StoreUnavailableError."""
    sql = "SELECT toUnixTimestamp64Milli(max(kept_from)) FROM retention_rows FINAL WHERE finished = 0"
    return max(int(_rows(client, sql)[0][0]), 0)


def overdue(client: Client, bounds: Bounds) -> list[Overdue]:
    """What a cut at these bounds would remove, table by table. Raises StoreUnavailableError."""
    found = []
    left = [(table, _EVER, condition) for table, condition in _repairs_of_none().items()]
    left += [("published_rows", _EVER, _TOLD_OF_NO_CASE), ("dead_letter_rows", "received_at", _hashed(bounds))]
    for table, time, condition in [*_doomed(client, bounds), *left]:
        rows, oldest = _rows(
            client, f"SELECT count(), toUnixTimestamp64Milli(min({time})) FROM {table} WHERE {condition}"
        )[0]
        if rows:
            found.append(Overdue(table, int(rows), int(oldest)))
    return found


def cut(client: Client, bounds: Bounds) -> None:
    """Remove everything about persons from before the bounds, and account for the scans among it.

    Corrections of the visits over the edge are asked for first; the venues' owners make them. May be broken off and called again.
    Raises StoreUnavailableError.
    """
    number = _begin(client, bounds)
    # Whoever makes these corrections leaves out what is going, so it may do so before that is gone.
    _ask_for_visits_over(client, bounds.kept_from)
    _count_scans(client, bounds.kept_from)
    day = _day(bounds.kept_from)
    for table in _BY_DAY:
        for (partition,) in _rows(
            client,
            "SELECT DISTINCT partition FROM system.parts WHERE database = currentDatabase() AND active "
            f"AND table = {quoted(table)} AND partition < {quoted(day)}",
        ):
            _do(client, f"ALTER TABLE {table} DROP PARTITION {quoted(str(partition))}")
    for table, _, condition in _doomed(client, bounds):
        delete(client, table, condition)
    forget_repairs(client)
    forget_told(client)
    _forget_hashes(client, bounds)
    _end(client, number, bounds)


def delete(client: Client, table: str, condition: str) -> None:
    """Delete rows for good, where there are any: from every answer now, from the disk within ten minutes or so.

    ClickHouse keeps the text of a condition on the disk: let it hold no pseudonym. Raises StoreUnavailableError.
    """
    if _rows(client, f"SELECT count() FROM {table} WHERE {condition}")[0][0]:
        _do(client, f"ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 2")


def forget_repairs(client: Client) -> None:
    """Delete the pairs of corrections that are made; those asked for and not made yet stay. Raises StoreUnavailableError."""
    for table in ("repair_rows", "asked_rows"):
        # Not what comes in meanwhile: a request that is newer than this look would go before it is seen.
        newest = int(_rows(client, f"SELECT max(version) FROM {table}")[0][0])
        made = f"version <= {newest} AND (venue_id, visitor_id) NOT IN (SELECT venue_id, visitor_id FROM {table} FINAL)"
        delete(client, table, made)


def forget_told(client: Client) -> None:
    """Delete what workers have noted of telling the exposures of cases that are no more. Raises StoreUnavailableError."""
    delete(client, "published_rows", _TOLD_OF_NO_CASE)


def _forget_hashes(client: Client, bounds: Bounds) -> None:
    # The rows stay: they say that nothing has disappeared. What is in a short record can be guessed from its hash.
    if _rows(client, f"SELECT count() FROM dead_letter_rows WHERE {_hashed(bounds)}")[0][0]:
        _do(
            client,
            f"ALTER TABLE dead_letter_rows UPDATE sha256 = '' WHERE {_hashed(bounds)} SETTINGS mutations_sync = 2",
        )


def _hashed(bounds: Bounds) -> str:
    return f"received_at < fromUnixTimestamp64Milli({bounds.kept_from}, 'UTC') AND sha256 != ''"


def _repairs_of_none() -> dict[str, str]:
    # Corrections that are made, of visitors of whom nothing else is kept at the venue. One that waits is still to be made.
    pair, made = "(venue_id, visitor_id)", {}
    for table in ("repair_rows", "asked_rows"):
        scans = f"SELECT venue_id, visitor_id FROM scan_set WHERE {pair} IN (SELECT venue_id, visitor_id FROM {table})"
        made[table] = (
            f"visitor_id != '' AND {pair} NOT IN (SELECT venue_id, visitor_id FROM {table} FINAL) AND {pair} NOT IN ({scans})"
        )
    return made


def _doomed(client: Client, bounds: Bounds) -> list[tuple[str, str, str]]:
    # (table, the time that is shown of it, condition). Case reports go last: what is left of a case is found by them.
    kept = f"fromUnixTimestamp64Milli({bounds.kept_from}, 'UTC')"
    doomed = [(table, time, f"{time} < {kept}") for table, time in _BY_DAY.items()]
    doomed += [
        (table, time, f"{time} < {kept}")
        for table, time in (("exposure_rows", "case_checked_in_at"), ("interval_rows", "checked_in_at"))
    ]
    # No policy rounds a warning's end to before the day of the check-in that it rests on: one that ends earlier rests on none
    # that is kept. Tracing takes the others back, or shortens them, once their intervals are gone.
    doomed.append(("warning_rows", "warn_until", f"warn_until < {kept}"))
    past = [
        str(row[0])
        for row in _rows(
            client,
            f"SELECT case_id FROM report_set GROUP BY case_id HAVING max(newest).1 < {bounds.kept_from} "
            f"AND case_id NOT IN (SELECT case_id FROM case_rows FINAL WHERE infectious_until > {kept})",
        )
    ]
    if past:
        some = among("{}", past)
        doomed += [
            ("exposure_rows", "checked_in_at", some.format("case_id")),
            ("interval_rows", "checked_in_at", some.format("case_id")),
            ("case_rows", "reported_at", some.format("case_id")),
            ("report_set", "fromUnixTimestamp64Milli(newest.1, 'UTC')", some.format("case_id")),
        ]
    return doomed


def among(column: str, values: Iterable[str]) -> str:
    """The condition that a column is one of some values, which it does not show: ClickHouse keeps its text on the disk."""
    return of_digests(column, [sha256(each.encode()).hexdigest() for each in values])


def _ask_for_visits_over(client: Client, kept_from: int) -> None:
    # A visit over the edge goes as a whole. It makes a difference to what stays only if it took in a check-in after the edge,
    # which then begins a visit of its own.
    kept = f"fromUnixTimestamp64Milli({kept_from}, 'UTC')"
    pairs = _rows(
        client,
        f"""
        SELECT DISTINCT venue_id, visitor_id
        FROM (
            SELECT venue_id, visitor_id, occurred_at FROM scan_set
            WHERE occurred_at >= {kept} AND occurred_at <= {kept} + INTERVAL {HARD_LIMIT // 1000} SECOND
              AND event_type = 'check_in'
        ) AS scan
        INNER JOIN (
            SELECT venue_id, visitor_id, left_at FROM visit_rows FINAL WHERE checked_in_at < {kept} AND left_at >= {kept}
        ) AS visit USING (venue_id, visitor_id)
        WHERE occurred_at <= left_at
        """,
    )
    ask_owners(client, [(str(venue), str(visitor)) for venue, visitor in pairs])


def _begin(client: Client, bounds: Bounds) -> int:
    # From here on the bounds hold. A cut that was broken off is taken up under its number.
    known = _rows(client, "SELECT number, finished FROM retention_rows FINAL ORDER BY number DESC LIMIT 1")
    number = 1 if not known else int(known[0][0]) + int(known[0][1])
    _note(client, number, bounds, finished=False)
    return number


def _end(client: Client, number: int, bounds: Bounds) -> None:
    if bounds_in_force(client) != bounds:
        return  # a later cut has taken this one up, and goes on under its number
    _note(client, number, bounds, finished=True)


def _note(client: Client, number: int, bounds: Bounds, *, finished: bool) -> None:
    # Whoever stood still in the midst of a cut may end it after a later one: bounds never go back.
    bounds = Bounds(*map(max, bounds, bounds_in_force(client)))
    times = {**bounds._asdict(), "cut_at": int(datetime.now(UTC).timestamp() * 1000)}
    row = {name: pa.array([value], pa.int64()).cast(pa.timestamp("ms")) for name, value in times.items()}
    with store_errors():
        client.insert_arrow(
            "retention_rows",
            pa.table(
                {"number": pa.array([number], pa.uint64()), **row, "finished": pa.array([int(finished)], pa.uint8())}
            ),
        )


def _count_scans(client: Client, kept_from: int) -> None:
    # Of each day and partition of the log, up to the record that is accounted for: whoever takes up a cut that was broken off,
    # and every later cut, goes on counting there, and need not know what has gone. A scan whose record is not accounted for was
    # not stored by the account either: it is read again, and counts then.
    while True:
        noted = _noted(client)
        progress = read_standing(client).progress
        rows = _rows(
            client,
            "SELECT toString(toDate(occurred_at)), origin.2, origin.3, count() FROM scan_set FINAL "
            f"WHERE occurred_at < fromUnixTimestamp64Milli({kept_from}, 'UTC') AND NOT {unaccounted(progress)} "
            f"AND NOT {_counted(noted)} AND NOT {_counted_by_erasures(client)} GROUP BY ALL",
        )
        # Another cut that has noted something meanwhile may have dropped what it had noted, too, before this look.
        if _noted(client) == noted:
            break
    until = {(row.topic, row.partition): row.next_offset for row in progress}
    since = _untils(noted)
    found = [
        (
            _Noted(
                str(day), int(partition), since.get((day, partition, topic), 0), until[topic, partition], str(topic)
            ),
            int(n),
        )
        for day, topic, partition, n in rows
    ]
    note_removed(client, _RETENTION, [(each.key, scans) for each, scans in found])
    # Of two cuts that have counted from the same record on, who came further has counted all that the other has.
    furthest: dict[tuple[str, int, int, str], int] = {}
    noted = _noted(client)
    for each in noted:
        furthest[each.beginning] = max(furthest.get(each.beginning, 0), each.until)
    begun = {each.beginning for each, _ in found}
    twice = [each for each in noted if each.beginning in begun and each.until < furthest[each.beginning]]
    note_removed(client, _RETENTION, [(each.key, 0) for each in twice])


class _Noted(NamedTuple):
    """That a cut has counted the scans of a day that records [since, until) of a partition had brought."""

    day: str
    partition: int
    since: int
    until: int
    topic: str

    @property
    def key(self) -> str:
        """As it stands in `removed_rows`."""
        return " ".join(map(str, self))

    @property
    def beginning(self) -> tuple[str, int, int, str]:
        """Where it began to count."""
        return self.day, self.partition, self.since, self.topic


def counted(client: Client) -> str:
    """A SQL condition on scan_set: scans that a cut has counted already, and that may be there still, or have come back.

    They come back where an insert stood still over a cut that had seen them. Raises StoreUnavailableError.
    """
    return _counted(_noted(client))


def _noted(client: Client) -> set[_Noted]:
    keys = [
        str(row[0]).split(" ", 4)
        for row in _rows(client, f"SELECT key FROM removed_rows FINAL WHERE reason = {quoted(_RETENTION)}")
    ]
    # Those of an earlier version have noted no offsets.
    found = {_Noted(key[0], int(key[1]), int(key[2]), int(key[3]), key[4]) for key in keys if len(key) == 5}
    days = sorted({each.day for each in found})[-_DAYS_KNOWN:]
    return {each for each in found if each.day in days}


def _untils(noted: Iterable[_Noted]) -> dict[tuple[str, int, str], int]:
    found: dict[tuple[str, int, str], int] = {}
    for each in noted:
        place = each.day, each.partition, each.topic
        found[place] = max(found.get(place, 0), each.until)
    return found


def _counted(noted: Iterable[_Noted]) -> str:
    topics: dict[str, dict[str, int]] = {}
    for (day, partition, topic), until in _untils(noted).items():
        topics.setdefault(topic, {})[f"{day} {partition}"] = until
    conditions = [
        f"(origin.2 = {quoted(topic)} AND origin.4 < transform(concat(toString(toDate(occurred_at)), ' ', toString(origin.3)), "
        f"{list(untils)}, {list(untils.values())}, toInt64(0)))"
        for topic, untils in topics.items()
    ]
    return f"({' OR '.join(conditions) or '0'})"


def _counted_by_erasures(client: Client) -> str:
    # A SQL condition on scan_set: scans that an erasure has counted already, or that came back after it had.
    receipts = {str(row[0]) for row in _rows(client, "SELECT key FROM removed_rows FINAL WHERE reason = 'erasure'")}
    erased = _rows(client, "SELECT digest, receipt FROM erased_rows FINAL") if receipts else ()
    digests = [str(digest) for digest, receipt in erased if receipt in receipts]
    return of_digests("visitor_id", digests) if digests else "0"


def note_removed(client: Client, reason: str, scans: Sequence[tuple[str, int]]) -> None:
    """Account for scans that are about to be removed: (key, how many). A key that is noted again replaces itself."""
    if not scans:
        return
    table = pa.table(
        {
            "reason": strings([reason] * len(scans)),
            "key": strings([key for key, _ in scans]),
            "scans": pa.array([count for _, count in scans], pa.uint64()),
            "noted_at": pa.array(np.full(len(scans), int(datetime.now(UTC).timestamp() * 1000))).cast(
                pa.timestamp("ms")
            ),
        }
    )
    with store_errors():
        client.insert_arrow("removed_rows", table)


def _day(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d")


def _rows(client: Client, sql: str) -> Sequence[Sequence[Any]]:
    with store_errors():
        rows: Sequence[Sequence[Any]] = client.query(sql, settings=QUERY).result_rows
    return rows


def _do(client: Client, sql: str) -> None:
    with store_errors():
        client.command(sql, settings=QUERY)
