"""Corrections further back than memory reaches: visits folded again from all of a pair's scans, history counted again.

Rare by design (one scan in a thousand is later than the late window), so it is written for clarity: it reads the store, uses
the very same kernels as the live path, and gives rows to write.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core import fold
from pipeline.core.columns import Text
from pipeline.core.fold import Visits
from pipeline.core.moves import REACH
from pipeline.core.occupancy import HourRows, MinuteRows
from pipeline.core.pools import ENDED_CHECK_OUT, HARD_LIMIT, HOUR, MINUTE, NONE, make_room, new_scans
from pipeline.core.shard import KEPT_BACK, Shard, VenueRules
from pipeline.store.estimated_rows import closings
from pipeline.store.tables import strings
from pipeline.store.writer import Progress, correction_table, of_venues, quoted, quoted_all, store_errors, unaccounted

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

_PAIRS_PER_QUERY = 2000
_VENUES_PER_QUERY = 500

#: (start, left, ended, party), times in ms.
Visit = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class PairHistory:
    """All of one pair: its scans (at, kind, party, fresh) in order, its visits as stored, and as they should be.

    `fresh`: 1 where the record that brought the scan is not accounted for yet, and will be read again; else 0.
    """

    venue: str
    visitor: str
    scans: list[tuple[int, int, int, int]]
    stored: list[Visit]
    true: list[Visit]

    @property
    def gone(self) -> list[Visit]:
        """Stored visits that differ from every true one."""
        true = set(self.true)
        return [visit for visit in self.stored if visit not in true]

    @property
    def come(self) -> list[Visit]:
        """True visits that are not stored as they are."""
        stored = set(self.stored)
        return [visit for visit in self.true if visit not in stored]

    @property
    def moves(self) -> list[tuple[int, int, int]]:
        """What makes the log of the stored visits' moves that of the true ones: (start, closed, persons), as in `Correction`."""
        was, is_now = _logged(self.stored), _logged(self.true)
        gone = [(start, closed, -persons) for start, closed, persons in was - is_now]
        return sorted([*gone, *(is_now - was)])


def _logged(visits: list[Visit]) -> set[tuple[int, int, int]]:
    following = [visit[0] for visit in visits[1:]] + [NONE] * bool(visits)
    return {
        (start, left if ended == ENDED_CHECK_OUT else after, party)
        for (start, left, ended, party), after in zip(visits, following, strict=True)
    }


def pairs_of_venues(client: Client, venues: Iterable[str]) -> set[tuple[str, str]]:
    """Every pair that ever scanned at one of these venues, or has a visit there."""
    found: set[tuple[str, str]] = set()
    for among in _among(venues):
        with store_errors():
            rows = client.query(
                f"SELECT DISTINCT venue_id, visitor_id FROM scan_set WHERE {among} "
                f"UNION DISTINCT SELECT venue_id, visitor_id FROM visit_rows WHERE {among}"
            ).result_rows
        found |= {(str(venue), str(visitor)) for venue, visitor in rows}
    return found


def extents(client: Client, venues: Iterable[str]) -> dict[str, tuple[int, int]]:
    """When the first visit at each of these venues begins and the last one ends, in ms; without those that have none."""
    found: dict[str, tuple[int, int]] = {}
    for among in _among(venues):
        with store_errors():
            rows = client.query(
                "SELECT venue_id, toUnixTimestamp64Milli(min(checked_in_at)), toUnixTimestamp64Milli(max(left_at)) "
                f"FROM visit_rows FINAL WHERE {among} GROUP BY venue_id"
            ).result_rows
        found |= {str(venue): (int(first), int(last)) for venue, first, last in rows}
    return found


def _among(venues: Iterable[str]) -> Iterator[str]:
    # SQL conditions to be one of so many of the venues; one question for all of them could be too long for the store.
    wanted = sorted(set(venues))
    for i in range(0, len(wanted), _VENUES_PER_QUERY):
        yield of_venues(wanted[i : i + _VENUES_PER_QUERY])


def shown_minutes(client: Client, venues: Iterable[str], since: int) -> dict[str, set[int]]:
    """The minutes (since the epoch) of which some venues have rows, from `since` (ms) on; for an hour's row, its first minute."""
    found: dict[str, set[int]] = {}
    for among in _among(venues):
        for table, column in (("minute_rows", "minute"), ("hour_rows", "hour")):
            with store_errors():
                rows = client.query(
                    f"SELECT venue_id, groupArray(intDiv(toUnixTimestamp({column}), 60)) FROM {table} FINAL WHERE "
                    f"{among} AND {column} >= toDateTime({max(since, 0) // HOUR * 3600}, 'UTC') "
                    "GROUP BY venue_id"
                ).result_rows
            for venue, minutes in rows:
                found.setdefault(str(venue), set()).update(minutes)
    return found


def deletions(minutes: Mapping[str, set[int]], version: int) -> dict[str, pa.Table]:
    """Rows that delete the minutes (since the epoch) of some venues, and the hours that they lie in, by table."""
    keys = [(venue, minute) for venue, found in minutes.items() for minute in sorted(found)]
    tables = {}
    for table, column, width, figures in (
        ("minute_rows", "minute", 1, ("arrivals", "departures", "occupancy", "peak")),
        ("hour_rows", "hour", 60, ("arrivals", "departures", "peak", "area_ms", "over_ms", "contact_ms")),
    ):
        times = sorted({(venue, minute // width * width * 60) for venue, minute in keys})
        rows = {
            "venue_id": strings([venue for venue, _ in times]),
            column: pa.array([seconds for _, seconds in times], pa.uint32()),
            **{name: pa.array(np.zeros(len(times), np.uint32)) for name in figures},
            "version": pa.array(np.full(len(times), version, np.uint64)),
            "is_deleted": pa.array(np.ones(len(times), np.uint8)),
        }
        tables[table] = pa.table(rows)
    return tables


def visit_rows(rows: list[tuple[str, str, Visit, int]], version: int) -> pa.Table:
    """Rows of `visit_rows`: (venue, visitor, visit, deleted)."""
    return pa.table(
        {
            "venue_id": strings([row[0] for row in rows]),
            "visitor_id": strings([row[1] for row in rows]),
            "checked_in_at": pa.array([row[2][0] for row in rows], pa.int64()).cast(pa.timestamp("ms")),
            "left_at": pa.array([row[2][1] for row in rows], pa.int64()).cast(pa.timestamp("ms")),
            "ended": pa.array([row[2][2] for row in rows], pa.int8()),
            "party_size": pa.array([row[2][3] for row in rows], pa.uint8()),
            "version": pa.array(range(version, version + len(rows)), pa.uint64()),
            "is_deleted": pa.array([row[3] for row in rows], pa.uint8()),
        }
    )


def read_histories(
    client: Client,
    pairs: Iterable[tuple[str, str]],
    limits: dict[str, int],
    progress: Iterable[Progress],
    since: int = 0,
) -> list[PairHistory]:
    """The histories of some pairs. `limits` is the max stay (ms) of every venue among them, `progress` that of all partitions.

    Scans before `since` (ms) do not count: they are going.
    """
    fresh = unaccounted(progress)
    wanted = sorted(set(pairs))
    histories = []
    for i in range(0, len(wanted), _PAIRS_PER_QUERY):
        part = wanted[i : i + _PAIRS_PER_QUERY]
        condition = ", ".join(f"({quoted(venue)}, {quoted(visitor)})" for venue, visitor in part)
        scans: dict[tuple[str, str], list[tuple[int, int, int, int]]] = {}
        stored: dict[tuple[str, str], list[Visit]] = {}
        with store_errors():
            for venue, visitor, *scan in client.query(
                "SELECT venue_id, visitor_id, toUnixTimestamp64Milli(occurred_at) AS at, toInt8(event_type) AS kind, "
                f"-winner.1, {fresh} FROM ({_scans_of_pairs(condition)}) ORDER BY at, kind"
            ).result_rows:
                scans.setdefault((venue, visitor), []).append((scan[0], scan[1], scan[2], int(scan[3])))
            for venue, visitor, *visit in client.query(
                "SELECT venue_id, visitor_id, toUnixTimestamp64Milli(checked_in_at) AS at, toUnixTimestamp64Milli(left_at), "
                f"toInt8(ended), party_size FROM visit_rows FINAL WHERE (venue_id, visitor_id) IN ({condition}) ORDER BY at"
            ).result_rows:
                stored.setdefault((venue, visitor), []).append((visit[0], visit[1], visit[2], visit[3]))
        for pair in part:
            chain = [scan for scan in scans.get(pair, []) if scan[0] >= since]
            histories.append(PairHistory(*pair, chain, stored.get(pair, []), fold_all(chain, limits[pair[0]])))
    return histories


def _scans_of_pairs(pairs: str) -> str:
    # What FINAL shows of some pairs. FINAL would merge every scan of each block in which one of them lies, that is, most days
    # as a whole: of 1,000 pairs in two weeks of 136,000 scans each it took 2.0 s of a core, this 0.2 s.
    return (
        "SELECT venue_id, visitor_id, occurred_at, event_type, min(winner) AS winner, min(origin) AS origin "
        f"FROM scan_set WHERE (venue_id, visitor_id) IN ({pairs}) "
        "GROUP BY venue_id, visitor_id, occurred_at, event_type"
    )


def fold_all(scans: list[tuple[int, int, int, int]], limit: int) -> list[Visit]:
    """Fold one pair's sorted scans (at, kind, party, fresh)."""
    if not scans:
        return []
    chain = new_scans()
    make_room(chain, len(scans))
    rows = chain.rows[: len(scans)]
    rows["at"], rows["kind"], rows["party"], rows["fresh"] = zip(*scans, strict=True)
    rows["next"] = np.arange(1, len(scans) + 1)
    rows["next"][-1] = NONE
    visits: Visits = fold.new_visits(len(scans))
    count = fold.fold_chain(chain, 0, limit, visits)
    return [
        (int(visits.start[i]), int(visits.left[i]), int(visits.ended[i]), int(visits.party[i])) for i in range(count)
    ]


@dataclass(slots=True)
class Span:
    """A stretch of one venue's time whose rows may have changed: [start, end) in ms."""

    start: int
    end: int

    def include(self, start: int, end: int) -> None:
        """Stretch it."""
        self.start, self.end = min(self.start, start), max(self.end, end)


def include(spans: dict[str, Span], venue: str, start: int, end: int) -> None:
    """Stretch the span of a venue, or begin one."""
    if venue in spans:
        spans[venue].include(start, end)
    else:
        spans[venue] = Span(start, end)


def recount(
    client: Client, spans: Mapping[str, Span], before: int, rules: Callable[[bytes], VenueRules], as_of: int
) -> Iterator[tuple[Shard, MinuteRows, HourRows]]:
    """Count venues' minutes and hours in their spans again, up to `before` (ms, on an hour), from their stored visits.

    Yields, venue by venue, the rows to write, and a shard that knows their venue and holds the moves for their estimates.
    """
    whole = {
        venue: Span(span.start // HOUR * HOUR, min(-(-span.end // HOUR) * HOUR, before))
        for venue, span in spans.items()
    }
    wanted = sorted(venue for venue, span in whole.items() if span.start < span.end)
    for i in range(0, len(wanted), _VENUES_PER_QUERY):
        part = {venue: whole[venue] for venue in wanted[i : i + _VENUES_PER_QUERY]}
        earliest = max(min(span.start for span in part.values()) - HARD_LIMIT, 0)
        given, among = _given(part)
        visits = _read(
            client,
            "SELECT venue_id, start, left, persons, closed FROM ("
            + closings(
                f"{among} AND checked_in_at < fromUnixTimestamp64Milli(toInt64(span_end), 'UTC') "
                "AND (left_at >= fromUnixTimestamp64Milli(toInt64(span_start), 'UTC') "
                f"OR checked_in_at >= fromUnixTimestamp64Milli(toInt64(span_start) - {REACH * MINUTE}, 'UTC')) "
                f"AND checked_in_at >= fromUnixTimestamp64Milli({earliest}, 'UTC')",
                given,
            )
            + ")",
        )
        minutes, hours = (
            _read(
                client,
                f"{given} SELECT venue_id, intDiv(toUnixTimestamp({time}), {seconds}) FROM {table} FINAL WHERE {among} "
                f"AND {time} >= toDateTime(intDiv(span_start, 1000), 'UTC') "
                f"AND {time} < toDateTime(intDiv(span_end, 1000), 'UTC')",
            )
            for table, time, seconds in (("minute_rows", "minute", 60), ("hour_rows", "hour", 3600))
        )
        for venue, span in part.items():
            shown = {row[0] for row in minutes.get(venue, ())}, {row[0] for row in hours.get(venue, ())}
            yield _recount_venue(venue, span, visits.get(venue, []), *shown, rules, as_of)


def _given(spans: Mapping[str, Span]) -> tuple[str, str]:
    # A WITH clause that gives each venue's own span as span_start and span_end, and the condition to be one of the venues.
    names = quoted_all(spans)
    starts = ", ".join(str(span.start) for span in spans.values())
    ends = ", ".join(str(span.end) for span in spans.values())
    given = (
        f"WITH transform(venue_id, [{names}], [{starts}], toUInt64(0)) AS span_start, "
        f"transform(venue_id, [{names}], [{ends}], toUInt64(0)) AS span_end"
    )
    return given, of_venues(spans)


def _read(client: Client, sql: str) -> dict[str, list[tuple[int, ...]]]:
    with store_errors():
        rows = client.query(sql).result_rows
    found: dict[str, list[tuple[int, ...]]] = {}
    for venue, *row in rows:
        found.setdefault(str(venue), []).append(tuple(row))
    return found


def _recount_venue(
    venue: str,
    span: Span,
    visits: list[tuple[int, ...]],
    shown_minutes: set[int],
    shown_hours: set[int],
    rules: Callable[[bytes], VenueRules],
    as_of: int,
) -> tuple[Shard, MinuteRows, HourRows]:
    shard = Shard(rules)
    shard.start_at(span.start + KEPT_BACK)
    shard.keep_moves()
    name = np.frombuffer(venue.encode(), np.uint8)
    columns = np.array(visits, np.int64).reshape(-1, 4)
    began = columns[:, 0] < span.start

    def here(count: int) -> Text:
        return Text(np.zeros(count, np.int64), np.full(count, len(name), np.int32))

    for part, carried in ((columns[began & (columns[:, 1] >= span.start)], True), (columns[~began], False)):
        text = here(len(part))
        start, left, party = (np.ascontiguousarray(part[:, i]) for i in range(3))
        if carried:
            shard.carry_in(name, text, left, party)
        else:
            shard.count_visits(name, text, start, left, party)
    start, persons, closed = (np.ascontiguousarray(columns[:, i]) for i in (0, 2, 3))
    shard.load_moves(name, here(len(columns)), start, closed, persons)
    shard.know_venues(name, here(1))
    # From the beginning of the span: whoever was there before may be all that its first hours have to show.
    shard.rewrite(venue.encode(), np.zeros(0, np.int64), span.start)
    shard.advance(as_of)
    changes = shard.take_changes()
    minutes, hours = changes.minutes, changes.hours
    return (
        shard,
        _within(minutes, minutes.minute, span.start // MINUTE, span.end // MINUTE, shown_minutes),
        _within(hours, hours.hour, span.start // HOUR, span.end // HOUR, shown_hours),
    )


Rows = TypeVar("Rows", MinuteRows, HourRows)


def _within(rows: Rows, time: NDArray[np.int32], start: int, end: int, shown: set[int]) -> Rows:
    # The rows in [start, end), and the deletion of those that were shown and are no more.
    count = int(rows.used[0])
    kept = [i for i in range(count) if start <= time[i] < end and (not rows.deleted[i] or int(time[i]) in shown)]
    gone = np.array(sorted(shown - {int(value) for value in time[:count]}), np.int32)
    columns = []
    for name, column in zip(rows._fields[:-1], rows[:-1], strict=True):
        added = gone if column is time else np.full(len(gone), name == "deleted")
        columns.append(np.concatenate([column[kept], added]).astype(column.dtype))
    columns.append(np.array([len(kept) + len(gone)], np.int64))
    return type(rows)(*columns)


def ask_owners(client: Client, pairs: Collection[tuple[str, str]]) -> None:
    """Ask whoever owns the venues for corrections. Raises StoreUnavailableError."""
    if not pairs:
        return
    with store_errors():
        newest = int(client.query("SELECT max(version) FROM asked_rows").result_rows[0][0])
        # Two that ask at the same time have different versions by the clock, and a clock that was put back does not count.
        version = max(newest + 1, time.time_ns())
        client.insert_arrow("asked_rows", correction_table(dict.fromkeys(pairs, version), deleted=False))


def asked(client: Client, scope: str) -> dict[tuple[str, str], int]:
    """Corrections that others ask for in a scope of venues, each with its request's version. Raises StoreUnavailableError."""
    with store_errors():
        rows = client.query(f"SELECT venue_id, visitor_id, version FROM asked_rows FINAL WHERE {scope}").result_rows
    return {(str(venue), str(visitor)): int(version) for venue, visitor, version in rows}


def ask(client: Client, pairs: list[tuple[str, str]], version: int) -> None:
    """Ask for corrections of our own venues, which outlive a crash. Raises StoreUnavailableError."""
    with store_errors():
        client.insert_arrow("repair_rows", correction_table(dict.fromkeys(pairs, version), deleted=False))
