"""What contact tracing reads from the store and writes to it; what it means is in `pipeline/tracing.py`.

Exposures and warnings are versioned snapshots that double as outboxes of their topics. A case's exposures carry a number that
rises, and who stored them; `published_rows` says of each of these up to which number Kafka has theirs. A warning's row says
itself if Kafka has it. So a crash between storing and publishing loses no message, and storing never waits for Kafka.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.core.pools import HARD_LIMIT
from pipeline.dead_letters import DeadLetter
from pipeline.store.erasure import noted
from pipeline.store.tables import strings
from pipeline.store.writer import Writer, dead_letter_table, of_venues, quoted, quoted_all, quoted_pairs, store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

_DAY: Final = 86_400_000
#: Lists of ids stand in the query's text; the parser's own limit is a quarter of a megabyte.
_QUERY: Final = {"max_query_size": 64 << 20}
#: Packing what is read at once takes a fifth of a reading's time.
_ARROW: Final = _QUERY | {"output_format_arrow_compression_method": "none"}

#: A version of a case's exposures is a running number and, in so many bits, its lane: who stores them, 0 for a lone worker.
LANE_BITS: Final = 20
#: In SQL. Smaller versions are of before there were lanes, by a lone worker.
_LANE: Final = f"if(version < {1 << LANE_BITS}, 0, bitAnd(version, {(1 << LANE_BITS) - 1}))"

#: For so long, in ms, others look after what a worker began to tell and did not come to the end of. One that stands still for
#: longer, tells what was true before that, and is killed in that moment, has the last word.
DOUBT_MS: Final = 600_000
#: The store's clock, in ms.
_NOW: Final = "toUnixTimestamp64Milli(now64(3))"

#: Exposures of one insert; the embedded engine holds them about three times.
_INSERTED_ROWS: Final = 500_000

#: A stretch of one venue's time, [since, until] in ms: (venue, since, until).
Stretch = tuple[str, int, int]

#: Columns that say which pair of visits an exposure is of, after its case: in the order in which rows are found, and stored.
PAIR: Final = ("venue_id", "checked_in_at", "visitor_id", "case_checked_in_at", "policy")
#: The rest of what is stored of it.
FINDINGS: Final = (
    "policy_version",
    "overlap_from",
    "overlap_until",
    "middle_ms",
    "low_ms",
    "high_ms",
    "cumulative_ms",
    "tier",
    "tier_low",
    "tier_high",
    "tier_basis",
    "party_size",
)
#: Exposures as they are given; times in ms.
EXPOSURES: Final = pa.schema(
    [("case_id", pa.string())]
    + [(name, pa.int64() if name.endswith("_at") else pa.string()) for name in PAIR]
    + [
        (name, pa.int64() if name.endswith("_ms") or name.startswith("overlap") else pa.string())
        for name in FINDINGS[:-1]
    ]
    + [("party_size", pa.uint8())]
)
_TIMES: Final = frozenset(
    {"checked_in_at", "case_checked_in_at", "overlap_from", "overlap_until", "infectious_from", "infectious_until"}
    | {"reported_at", "warn_from", "warn_until"}
)

#: Visits as they are given; times in ms, `ended` as pools.ENDED_*.
VISITS: Final = pa.schema(
    [
        ("venue_id", pa.string()),
        ("visitor_id", pa.string()),
        ("start", pa.int64()),
        ("left", pa.int64()),
        ("ended", pa.uint8()),
        ("party", pa.uint8()),
    ]
)
_VISIT_COLUMNS: Final = (
    "venue_id, visitor_id, toUnixTimestamp64Milli(checked_in_at) AS start, "
    "toUnixTimestamp64Milli(left_at) AS left, toInt8(ended) AS ended, party_size AS party"
)


def next_version(newest: int, lane: int) -> int:
    """The version in a lane that comes after another, whatever lane that is of."""
    return ((newest >> LANE_BITS) + 1) << LANE_BITS | lane


class StoredReport(NamedTuple):
    """The newest report of a case, and the one that it was last traced by ("" if never), both as canonical JSON."""

    case_id: str
    report: str
    traced: str


class TracedCase(NamedTuple):
    """A row of `case_rows`; times in ms."""

    case_id: str
    visitor_id: str
    infectious_from: int
    infectious_until: int
    policy: str
    policy_version: str
    status: str
    reported_at: int
    report: str


class Interval(NamedTuple):
    """When a case was at a venue in the eyes of its policy; times in ms."""

    case_id: str
    venue_id: str
    checked_in_at: int
    policy: str
    warn_from: int
    warn_until: int


class Untold(NamedTuple):
    """What a topic is to be told about a key (a case, a venue): JSON, in order; and what is told by it.

    That is everything of a lane of a case with a version in (after, upto], or some warnings: (id, version).
    """

    topic: str
    key: str
    messages: list[bytes]
    lane: int = 0
    after: int = 0
    upto: int = 0
    warnings: tuple[tuple[str, int], ...] = ()


class Warn(NamedTuple):
    """A warning about a venue; times in ms."""

    venue_id: str
    policy: str
    warn_from: int
    warn_until: int
    case_count: int


def _at(ms: int) -> str:
    return f"fromUnixTimestamp64Milli({max(ms, 0)}, 'UTC')"


class TraceStore:
    """Tracing's own way to the store; for one thread. Every method raises StoreUnavailableError."""

    def __init__(self, client: Client, second: Client | None = None) -> None:
        """With a second connection, exposures are stored while the next ones are computed."""
        self._client = client
        self._writer = Writer(client)
        self._second = second
        self._behind = ThreadPoolExecutor(1, "exposures")

    def close(self) -> None:
        """Give the connections back."""
        self._behind.shutdown()
        self._client.close()
        if self._second is not None:
            self._second.close()

    def _rows(self, sql: str) -> Sequence[Sequence[Any]]:
        with store_errors():
            rows: Sequence[Sequence[Any]] = self._client.query(sql, settings=_QUERY).result_rows
        return rows

    def _arrow(self, sql: str) -> pa.Table:
        with store_errors():
            return self._client.query_arrow(sql, settings=_ARROW, use_strings=True)

    # --- reports -----------------------------------------------------------------------------------------------------

    def next_offsets(self, partitions: Collection[int]) -> dict[int, int | None]:
        """The next offset to read of partitions of case-reports; None = from the earliest."""
        rows = self._rows("SELECT partition, next_offset FROM report_offset_rows FINAL")
        known = {int(row[0]): int(row[1]) for row in rows}
        return {partition: known.get(partition) for partition in partitions}

    def add_reports(self, reports: Sequence[tuple[str, int, str]], partition: int) -> None:
        """Store reports (case, reported_at in ms, canonical JSON) that came in a partition of case-reports."""
        newest = pa.StructArray.from_arrays(
            [pa.array([row[1] for row in reports], pa.int64()), strings([row[2] for row in reports])], names=["1", "2"]
        )
        self._writer.insert(
            "report_set",
            pa.table(
                {
                    "case_id": strings([row[0] for row in reports]),
                    "newest": newest,
                    "partition": pa.array(np.full(len(reports), partition, np.uint32)),
                }
            ),
        )

    def add_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Store refused reports; the same again change nothing."""
        self._writer.insert("dead_letter_rows", dead_letter_table(letters, 1))

    def note_offset(self, partition: int, next_offset: int) -> None:
        """Everything of a partition before `next_offset` is stored."""
        self._writer.insert(
            "report_offset_rows",
            pa.table({"partition": pa.array([partition], pa.uint32()), "next_offset": pa.array([next_offset])}),
        )

    def reports(self, partitions: Collection[int] | None) -> list[StoredReport]:
        """The newest report of each case of some partitions, None = of all."""
        if partitions is not None and not partitions:
            return []
        owned = "1" if partitions is None else f"partition IN ({', '.join(map(str, partitions))})"
        return [
            StoredReport(*map(str, row))
            for row in self._rows(
                "SELECT case_id, known.newest.2, traced.report FROM (SELECT * FROM report_set FINAL) AS known "
                "LEFT JOIN (SELECT case_id, report FROM case_rows FINAL) AS traced USING (case_id) "
                f"WHERE {owned} ORDER BY case_id"
            )
        ]

    def reports_of(self, cases: Collection[str]) -> dict[str, str]:
        """The newest report of some cases, as canonical JSON."""
        rows = self._rows(f"SELECT case_id, newest.2 FROM report_set FINAL WHERE case_id IN ({quoted_all(cases)})")
        return {str(row[0]): str(row[1]) for row in rows}

    def clock(self) -> int:
        """The pipeline's clock in ms; 0 before the first scan."""
        return int(self._rows("SELECT toUnixTimestamp64Milli(toDateTime64(as_of, 3, 'UTC')) FROM clock")[0][0])

    # --- visits ------------------------------------------------------------------------------------------------------

    def visits_of(self, spans: Mapping[str, tuple[int, int]]) -> pa.Table:
        """Visits that began in [since, until) of their visitor's span, and more of the same visitors, in the visitors' order.

        As `VISITS`.
        """
        visitors = list(spans)
        conditions = [f"visitor_id IN ({quoted_all(visitors)})"]
        earliest, latest = min(span[0] for span in spans.values()), max(span[1] for span in spans.values())
        conditions += [f"checked_in_at >= {_at(earliest)}", f"checked_in_at < {_at(latest)}"]
        # The newest version is picked here and not by FINAL, which would read more than the index on visitors leaves.
        return self._arrow(
            f"""
            SELECT venue_id, visitor_id, toUnixTimestamp64Milli(checked_in_at) AS start,
                   toUnixTimestamp64Milli(newest.1) AS left, toInt8(newest.2) AS ended, newest.3 AS party
            FROM
            (
                SELECT venue_id, visitor_id, checked_in_at,
                       argMax((left_at, ended, party_size, is_deleted), version) AS newest
                FROM visit_rows WHERE {" AND ".join(conditions)}
                GROUP BY venue_id, visitor_id, checked_in_at
            )
            WHERE newest.4 = 0
            ORDER BY visitor_id, venue_id, start
            """
        ).cast(VISITS)

    def visits_at(self, stretches: Sequence[Stretch], visitors: Collection[str] | None = None) -> pa.Table:
        """Visits that touch any of the stretches (and some more of the same venues and days); of some visitors, None = of all.

        As `VISITS`. One part of the query a day, because days are partitions: with one for all days each venue would be read
        over all of them.
        """
        days: dict[int, dict[str, tuple[int, int, int]]] = {}
        for venue, since, until in stretches:
            first = max(since - HARD_LIMIT, 0)
            for day in range(first // _DAY, until // _DAY + 1):
                low, high = max(first, day * _DAY), min(until, (day + 1) * _DAY - 1)
                before = days.setdefault(day, {}).get(venue)
                if before is not None:
                    low, high, left = min(low, before[0]), max(high, before[1]), min(since, before[2])
                else:
                    left = since
                days[day][venue] = low, high, left
        whose = "" if visitors is None else f" AND visitor_id IN ({quoted_all(visitors)})"
        parts = []
        for day, venues in sorted(days.items()):
            names = quoted_all(venues)
            lows, highs, lefts = (
                f"transform(venue_id, [{names}], [{', '.join(str(row[i]) for row in venues.values())}], toInt64(0))"
                for i in range(3)
            )
            parts.append(
                f"SELECT {_VISIT_COLUMNS} FROM visit_rows FINAL "
                f"WHERE toDate(checked_in_at) = toDate({day}) AND venue_id IN ({names}){whose} "
                f"AND start >= {lows} AND start <= {highs} AND left >= {lefts}"
            )
        return self._arrow(" UNION ALL ".join(parts)).cast(VISITS) if parts else VISITS.empty_table()

    def erased(self) -> frozenset[bytes]:
        """The digests of the visitors that were erased."""
        return frozenset(noted(self._client))

    def kept_from(self) -> int:
        """The instant (ms) before which retention has dropped all visits, and exposures by them; 0 if it never has."""
        return int(self._rows("SELECT toUnixTimestamp64Milli(max(kept_from)) FROM retention_rows")[0][0])

    def categories(self, newer_than: int) -> tuple[dict[str, str], int]:
        """The categories of venues whose record is of a later version ("" = deleted), and the newest version."""
        rows = self._rows(
            "SELECT venue_id, if(is_deleted, '', category), version FROM registry_rows "
            f"WHERE version > {newer_than} ORDER BY version"
        )
        return {str(row[0]): str(row[1]) for row in rows}, max((int(row[2]) for row in rows), default=newer_than)

    # --- what follows from a case ------------------------------------------------------------------------------------

    def passes(self, cases: Collection[str]) -> dict[str, int]:
        """The number of the last pass over each of some cases; those never traced are missing."""
        names = quoted_all(cases)
        rows = self._rows(
            f"SELECT case_id, max(version) FROM (SELECT case_id, version FROM exposure_rows WHERE case_id IN ({names}) "
            f"UNION ALL SELECT case_id, version FROM case_rows WHERE case_id IN ({names}) "
            f"UNION ALL SELECT case_id, version FROM interval_rows WHERE case_id IN ({names}) "
            # Retention may have dropped the rows of the last pass.
            f"UNION ALL SELECT key, version FROM published_rows WHERE startsWith(topic, 'exposures') AND key IN ({names})) "
            "GROUP BY case_id"
        )
        return {str(row[0]): int(row[1]) for row in rows}

    def exposures(self, cases: Collection[str], visitors: Collection[str] | None = None) -> pa.Table:
        """Stored exposures, as `EXPOSURES`."""
        whose = "" if visitors is None else f" AND visitor_id IN ({quoted_all(visitors)})"
        columns = ", ".join(
            f"toUnixTimestamp64Milli({name}) AS {name}" if name in _TIMES else f"toString({name}) AS {name}"
            if name in _WORDS else name
            for name in ("case_id", *PAIR, *FINDINGS)
        )  # fmt: skip
        return self._arrow(
            f"SELECT {columns} FROM (SELECT * FROM exposure_rows FINAL WHERE case_id IN ({quoted_all(cases)}){whose})"
        ).cast(EXPOSURES)

    @contextmanager
    def writing_exposures(self) -> Iterator[Callable[[pa.Table], None]]:
        """Gives a function that stores rows of `exposure_rows`, times in ms; at the end all of them are stored.

        It may return before they are, but not before those of the call before: a pass is half storing, and memory is bounded.
        """
        writer = Writer(self._second) if self._second is not None else self._writer
        under_way: Future[None] | None = None

        def write(rows: pa.Table) -> None:
            nonlocal under_way
            if not rows.num_rows:
                return
            if under_way is not None:
                under_way.result()
            under_way = self._behind.submit(_insert_exposures, writer, rows)
            if self._second is None:
                under_way.result()

        try:
            yield write
        finally:
            if under_way is not None:
                wait([under_way])
        if under_way is not None:
            under_way.result()

    def intervals(
        self, *, cases: Collection[str] | None = None, venues: Collection[str] | None = None
    ) -> list[Interval]:
        """Stored intervals of some cases, or at some venues; None = all."""
        conditions = [
            f"{name} IN ({quoted_all(values)})"
            for name, values in (("case_id", cases), ("venue_id", venues))
            if values is not None
        ]
        rows = self._rows(
            "SELECT case_id, venue_id, toUnixTimestamp64Milli(checked_in_at), toString(policy), "
            "toUnixTimestamp64Milli(warn_from), toUnixTimestamp64Milli(warn_until) FROM interval_rows FINAL"
            + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
        )
        return [Interval(*row) for row in rows]

    def write_intervals(self, rows: Sequence[tuple[Interval, int, bool]]) -> None:
        """Store intervals: (interval, version, deleted)."""
        columns = _columns(Interval, [row[0] for row in rows])
        self._writer.insert("interval_rows", _with_times(pa.table(columns | _versions(rows))))

    def write_cases(self, rows: Sequence[tuple[TracedCase, int]]) -> None:
        """Store what cases were traced as: (case, version). Last of all that is written of them."""
        columns = _columns(TracedCase, [row[0] for row in rows])
        columns["version"] = pa.array([row[1] for row in rows], pa.uint64())
        self._writer.insert("case_rows", _with_times(pa.table(columns)))

    def warnings(self, venues: Collection[str] | None) -> tuple[list[Warn], dict[str, int]]:
        """Stored warnings about some venues (None = all), and the newest version of each venue."""
        where = "" if venues is None else f" WHERE {of_venues(venues)}"
        rows = self._rows(
            "SELECT venue_id, toString(policy), toUnixTimestamp64Milli(warn_from), toUnixTimestamp64Milli(warn_until), "
            f"case_count FROM warning_rows FINAL{where}"
        )
        versions = self._rows(f"SELECT venue_id, max(version) FROM warning_rows{where} GROUP BY venue_id")
        return [Warn(*row) for row in rows], {str(row[0]): int(row[1]) for row in versions}

    def write_warnings(self, rows: Sequence[tuple[Warn, int, bool]]) -> None:
        """Store warnings, which are to be told: (warning, version, deleted)."""
        columns = _columns(Warn, [row[0] for row in rows])
        columns["case_count"] = columns["case_count"].cast(pa.uint32())
        columns["told"] = pa.array(np.zeros(len(rows), np.uint8))
        self._writer.insert("warning_rows", _with_times(pa.table(columns | _versions(rows))))

    # --- questions -------------------------------------------------------------------------------------------------

    def table(self, sql: str, *, case: str | None = None, policy: str = "") -> pa.Table:
        """Ask in SQL: {case} and {policy} stand for literals, {case_or_all} for a condition that holds without a case."""
        words = {"case": quoted(case or ""), "policy": quoted(policy)}
        words["case_or_all"] = "1" if case is None else f"case_id = {quoted(case)}"
        return self._arrow(sql.format(**words))

    def onward(self, cases: Collection[str]) -> dict[str, int]:
        """Persons whom each of some cases exposed, in any tier but `below`."""
        rows = self._rows(
            "SELECT case_id, sum(persons) FROM (SELECT case_id, visitor_id, max(party_size) AS persons FROM exposure_rows FINAL "
            f"WHERE tier != 'below' AND case_id IN ({quoted_all(cases)}) GROUP BY ALL) GROUP BY case_id"
        )
        return {str(row[0]): int(row[1]) for row in rows}

    # --- the outbox --------------------------------------------------------------------------------------------------

    def untold_cases(
        self, cases: Collection[str] | None = None, again: Collection[str] = ()
    ) -> dict[tuple[str, int], tuple[int, int]]:
        """Lanes of cases (None: of all) with exposures that Kafka does not have yet: (case, lane) → (told up to, newest version).

        Each lane by itself: versions of one are stored in their order, those of two in any, so what one has told says nothing of
        what another stored meanwhile. Of cases in `again`, all that there is.
        """
        made, done = (
            ("", "") if cases is None else (f"WHERE {name} IN ({quoted_all(cases)}) " for name in ("case_id", "key"))
        )
        told = {
            (str(key), int(str(topic).partition("/")[2] or 0)): int(version)
            for key, topic, version in self._rows(
                f"SELECT key, topic, max(version) FROM (SELECT * FROM published_rows {done}) "
                "WHERE startsWith(topic, 'exposures') GROUP BY key, topic"
            )
        }
        rows = self._rows(
            f"SELECT case_id, {_LANE} AS lane, max(version) FROM exposure_rows {made}GROUP BY case_id, lane ORDER BY case_id"
        )
        lanes = {(str(case), int(lane)): int(newest) for case, lane, newest in rows}
        told = {each: version for each, version in told.items() if each[0] not in again}
        return {each: (told.get(each, 0), newest) for each, newest in lanes.items() if newest > told.get(each, 0)}

    def untold_venues(self, again: Collection[str] = ()) -> dict[str, set[str]]:
        """Venues with warnings that Kafka does not have yet; and those in `again`, with the ids of all their warnings."""
        rows = self._rows(
            "SELECT DISTINCT venue_id FROM (SELECT venue_id, argMax(told, (version, told)) AS told FROM warning_rows "
            "GROUP BY venue_id, policy, warn_from, warn_until) WHERE told = 0 ORDER BY venue_id"
        )
        found: dict[str, set[str]] = {str(row[0]): set() for row in rows}
        if again:
            for venue, warning in self._rows(
                f"SELECT DISTINCT venue_id, warning_id FROM warning_rows WHERE {of_venues(again)}"
            ):
                found.setdefault(str(venue), set()).add(str(warning))
        return found

    def untold_exposures(self, case: str, lane: int, after: int, until: int) -> Untold:
        """What is to be told of a lane of a case's exposures, of the versions in (after, until].

        What is no more is told with the tier `withdrawn` and no minutes. What has a later version is left out.
        """
        where = f"case_id = {quoted(case)}"
        messages = self._json(
            f"{_EXPOSURE} FROM exposure_rows WHERE {where} AND version > {after} AND version <= {until} AND {_LANE} = {lane} "
            f"AND (exposure_id, version) IN (SELECT exposure_id, max(version) FROM exposure_rows WHERE {where} "
            "GROUP BY exposure_id) ORDER BY version"
        )
        return Untold("exposures", case, messages, lane, after, until)

    def untold_warnings(self, venue: str, again: Collection[str] = ()) -> Untold:
        """What is to be told of a venue's warnings: what holds now of those not told yet, and of some to be told `again` (ids).

        What is no more is told with no cases.
        """
        where = f"venue_id = {quoted(venue)}"
        once_more = f" OR id IN ({quoted_all(again)})" if again else ""
        rows = self._rows(
            "SELECT id, newest FROM (SELECT warning_id AS id, max(version) AS newest, argMax(told, (version, told)) AS last "
            f"FROM warning_rows WHERE {where} GROUP BY id) WHERE last = 0{once_more}"
        )
        some = tuple((str(row[0]), int(row[1])) for row in rows)
        if not some:
            return Untold("venue-warnings", venue, [])
        sql = f"{_WARNING} FROM warning_rows WHERE {where} AND (warning_id, version) IN ({quoted_pairs(some)})"
        return Untold("venue-warnings", venue, self._json(f"SELECT DISTINCT * FROM ({sql})"), warnings=some)

    def note_telling(self, told: Untold, teller: int) -> None:
        """From now on Kafka may have this, told by that lane: what is true by now may not be the last that Kafka hears of it."""
        self._note_published(_telling(told, teller), told.key, f"bitShiftLeft({_NOW}, 1) + 1")

    def note_settled(self, told: Untold, teller: int) -> None:
        """What that lane told of this key is what holds, and nothing more of it is on its way."""
        self._note_published(_telling(told, teller), told.key, f"bitShiftLeft({_NOW}, 1) + 2")

    def doubtful(self, topic: str, teller: int) -> set[str]:
        """Keys of which others than that lane began to tell and did not come to the end: they are at it, or were killed."""
        since = f"bitShiftLeft({_NOW} - {DOUBT_MS}, 1)"
        rows = self._rows(
            "SELECT DISTINCT key FROM (SELECT topic, key, max(version) AS last FROM published_rows "
            f"WHERE startsWith(topic, {quoted(f'telling/{topic}/')}) AND topic != {quoted(f'telling/{topic}/{teller}')} "
            f"GROUP BY topic, key) WHERE bitAnd(last, 1) = 1 AND last > {since}"
        )
        return {str(row[0]) for row in rows}

    def _note_published(self, topic: str, key: str, version: str) -> None:
        # `version` is SQL.
        values = f"({quoted(topic)}, {quoted(key)}, {version})"
        with store_errors():
            self._client.command(f"INSERT INTO published_rows (topic, key, version) VALUES {values}")

    def note_told(self, told: Untold) -> None:
        """Kafka has this."""
        if not told.warnings:
            topic = f"{told.topic}/{told.lane}" if told.lane else told.topic
            self._note_published(topic, told.key, str(told.upto))
            return
        with store_errors():
            self._client.command(
                "INSERT INTO warning_rows (venue_id, policy, warn_from, warn_until, case_count, version, is_deleted, told) "
                "SELECT DISTINCT venue_id, policy, warn_from, warn_until, case_count, version, is_deleted, 1 FROM warning_rows "
                f"WHERE venue_id = {quoted(told.key)} AND (warning_id, version) IN ({quoted_pairs(told.warnings)})"
            )

    def overtaken(self, told: Untold) -> set[str]:
        """Of warnings just told, the ids of those that another worker has changed meanwhile, and may have told before us."""
        rows = self._rows(
            f"SELECT warning_id AS id, max(version) FROM warning_rows WHERE venue_id = {quoted(told.key)} GROUP BY id"
        )
        newest = {str(row[0]): int(row[1]) for row in rows}
        return {each for each, version in told.warnings if newest.get(each, 0) > version}

    def overtaken_exposures(self, told: Untold) -> dict[int, tuple[int, int]]:
        """Of exposures just told, the lanes of those that were changed since, which another worker may have told before us.

        Each with the versions (after, upto] in which they were. The messages say what was told: its rows may be merged away.
        """
        newer = self._rows(
            f"SELECT exposure_id, max(version) AS newest, {_LANE.replace('version', 'newest')} AS lane FROM exposure_rows "
            f"WHERE case_id = {quoted(told.key)} GROUP BY exposure_id "
            f"HAVING newest > {told.after} AND NOT (lane = {told.lane} AND newest <= {told.upto})"
        )
        ids = {json.loads(message)["exposure_id"] for message in told.messages} if newer else set()
        found: dict[int, tuple[int, int]] = {}
        for each, newest, lane in newer:
            if each in ids:
                after, upto = found.get(int(lane), (newest - 1, newest))
                found[int(lane)] = min(after, newest - 1), max(upto, newest)
        return found

    def _json(self, sql: str) -> list[bytes]:
        with store_errors():
            body: bytes = self._client.raw_query(
                sql,
                fmt="JSONEachRow",
                settings={"date_time_output_format": "iso", "output_format_json_quote_64bit_integers": 0},
            )
        return body.splitlines()


def _telling(told: Untold, teller: int) -> str:
    return f"telling/{told.topic}/{teller}"


def _insert_exposures(writer: Writer, rows: pa.Table) -> None:
    for first in range(0, rows.num_rows, _INSERTED_ROWS):
        writer.insert("exposure_rows", _with_times(rows.slice(first, _INSERTED_ROWS)))


_WORDS: Final = frozenset({"policy", "policy_version", "tier", "tier_low", "tier_high", "tier_basis"})

#: A message of the topic exposures, and one of venue-warnings.
_EXPOSURE: Final = (
    "SELECT exposure_id, case_id, visitor_id, venue_id, overlap_from, overlap_until, "
    "if(is_deleted, 0, middle_ms / 60000) AS minutes, if(is_deleted, 0, low_ms / 60000) AS minutes_low, "
    "if(is_deleted, 0, high_ms / 60000) AS minutes_high, if(is_deleted, 0, cumulative_ms / 60000) AS cumulative_minutes, "
    "if(is_deleted, 'withdrawn', toString(tier)) AS tier, policy, policy_version"
)
_WARNING: Final = (
    "SELECT warning_id, venue_id, warn_from, warn_until, if(is_deleted, 0, case_count) AS case_count, policy"
)


def _columns(row_type: Any, rows: Sequence[tuple[Any, ...]]) -> dict[str, pa.Array]:
    kinds = {str: pa.string(), int: pa.int64()}
    return {
        name: pa.array([row[i] for row in rows], kinds[row_type.__annotations__[name]])
        for i, name in enumerate(row_type._fields)
    }


def _versions(rows: Sequence[tuple[Any, int, bool]]) -> dict[str, pa.Array]:
    return {
        "version": pa.array([row[1] for row in rows], pa.uint64()),
        "is_deleted": pa.array([int(row[2]) for row in rows], pa.uint8()),
    }


def _with_times(table: pa.Table) -> pa.Table:
    for i, name in enumerate(table.column_names):
        if name in _TIMES:
            table = table.set_column(i, name, table[name].cast(pa.int64()).cast(pa.timestamp("ms")))
    return table
