"""Recompute visits and occupancy in SQL from the scans alone, and compare them with what the store shows.

This shares nothing with the streaming path but the contract: it reads the view `scans` (and the registry, for
categories and capacities, and the clock), folds with arrayFold, sweeps over the changes of each venue, and compares row
by row in both directions. Floats are compared bit for bit: each is one division of two exact integers. Venues are taken
in slices by the hash of their id, so that memory stays bounded whatever the store holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from pipeline.core.levels import LEVELS
from pipeline.progress import Advance
from pipeline.settings import HARD_LIMIT, Settings

#: Differing rows that a check shows.
EXAMPLES: Final = 5
#: Scans in one slice. A slice of this size was verified within 0.9 GiB; larger ones are hardly faster.
SCANS_PER_SLICE: Final = 1_500_000

_MILLISECOND: Final = timedelta(milliseconds=1)
_MINUTE_MS: Final = 60_000
_LONGEST_WINDOW_MS: Final = 60 * _MINUTE_MS
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: of `rows`, `differences` (by key) differ; `examples` says how the first ones do.

    `skipped`: why nothing was compared, empty where something was. `persons`: of how many the examples tell at most (None: not
    known), `cases`: which cases they name.
    """

    name: str
    rows: int
    differences: int
    examples: tuple[str, ...] = ()
    skipped: str = ""
    persons: int | None = 0
    cases: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no difference was found."""
        return self.differences == 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found, one check a view and a promise, in a fixed order."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check is."""
        return all(check.ok for check in self.checks)


@dataclass(frozen=True, slots=True)
class _View:
    """A view and how it is compared. Its SQL file gives the same columns in the same order: keys, then values."""

    name: str
    key: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.key + self.values


#: Columns that hold a time; both sides show it as epoch milliseconds.
_TIMES: Final = frozenset(
    {"checked_in_at", "left_at", "minute", "hour", "window_end", "as_of", "raised_at", "cleared_at"}
)
_TIME_TO_MS: Final = "toUnixTimestamp64Milli(toDateTime64({}, 3, 'UTC'))"
_TEXTS: Final = frozenset({"venue_id", "visitor_id", "ended_by", "window", "level", "alert_id"})
_FLOATS: Final = frozenset(
    {"mean_occupancy", "minutes_over_capacity", "person_contact_minutes", "median_dwell_minutes", "ratio"}
)

_VIEWS: Final = (
    _View("visits", ("venue_id", "visitor_id", "checked_in_at"), ("left_at", "ended_by", "party_size")),
    _View("occupancy_minutes", ("venue_id", "minute"), ("arrivals", "departures", "occupancy", "peak")),
    _View(
        "occupancy_hours",
        ("venue_id", "hour"),
        ("arrivals", "departures", "mean_occupancy", "peak", "minutes_over_capacity", "person_contact_minutes"),
    ),
    _View(
        "rolling_occupancy",
        ("venue_id", "window"),
        ("window_end", "arrivals", "unique_visitors", "peak", "mean_occupancy", "median_dwell_minutes"),
    ),
    _View("occupancy_now", ("venue_id",), ("occupancy", "capacity", "ratio", "as_of")),
    _View("crowding_alerts", ("venue_id", "level", "raised_at"), ("alert_id", "cleared_at", "peak", "capacity")),
)


#: Of which rows both sides are to agree where scans were removed. What lies before what retention has closed is history, and so
#: are alerts after it until one from before is cleared. A venue that only removed scans tell of stays one that was seen.
_OPEN: Final = {
    "occupancy_now": "occupancy > 0 OR venue_id IN (SELECT venue_id FROM checkins.scans WHERE cityHash64(venue_id) % "
    "{slices:UInt64} = {slice:UInt64} UNION ALL SELECT venue_id FROM checkins.venues)",
    "occupancy_minutes": "minute >= {closed_before:Int64}",
    "occupancy_hours": "hour >= {closed_before:Int64}",
    "crowding_alerts": "raised_at >= {closed_before:Int64} + 3600000 AND raised_at > "
    "transform(concat(venue_id, '|', level), {edges:Array(String)}, {edges_until:Array(Int64)}, toInt64(0))",
}


@dataclass(slots=True)
class _Tally:
    """What the slices of one view add up to; `examples` are (key, sentence)."""

    rows: int = 0
    differences: int = 0
    examples: list[tuple[tuple[Any, ...], str]] = field(default_factory=list)


def verify(client: Client, settings: Settings, advance: Advance | None = None) -> Verdict:
    """Compare everything that the store shows with a recomputation from its scans.

    `settings` gives the stay limits and the rules of crowding in force. `advance` is called once for each slice of a view that
    is done, `steps` times in all. The store must not change meanwhile. Raises ClickHouseError where a query fails.
    """
    clock = client.query("SELECT toUnixTimestamp64Milli(toDateTime64(as_of, 3, 'UTC')) FROM checkins.clock").result_rows
    as_of = clock[0][0] if clock else 0
    slices = _slices(client)
    closed_before, removed = cuts(client)
    parameters = {
        **_limits(client, settings),
        "as_of": as_of,
        "closed_before": closed_before,
        "removed": removed,
        "window_end": as_of - as_of % _MINUTE_MS,
        "slices": slices,
    }
    tallies = {view.name: _Tally() for view in _VIEWS}
    duplicates = _Tally()
    for number in range(slices):
        parameters["slice"] = number
        _count_duplicates(client, parameters, duplicates)
        for view in _VIEWS:
            if not _skipped(view, settings):
                _compare(client, view, parameters, tallies[view.name])
            if advance is not None:
                advance(1, view.name)
    checks = [
        _check("scans are unique", duplicates, of_persons=True),
        *(
            _check(view.name, tallies[view.name], _skipped(view, settings), of_persons="visitor_id" in view.key)
            for view in _VIEWS
        ),
    ]
    return Verdict((*checks, *_accounting(client, removed)))


def cuts(client: Client) -> tuple[int, int]:
    """The instant (ms) before which minutes and hours are history, 0 = there is none; and how many scans were removed."""
    known = "SELECT count() FROM system.tables WHERE database = 'checkins' AND name = 'retention'"
    if not client.query(known).result_rows[0][0]:
        return 0, 0  # a store of before there was any retention
    row = client.query(
        "SELECT toUnixTimestamp64Milli(closed_before), scans_removed FROM checkins.retention"
    ).result_rows[0]
    return int(row[0]), int(row[1])


def steps(client: Client) -> int:
    """How many times `verify` will call `advance`."""
    return _slices(client) * len(_VIEWS)


def _slices(client: Client) -> int:
    count: int = client.query("SELECT count() FROM checkins.scans").result_rows[0][0]
    return max(1, -(-count // SCANS_PER_SLICE))


def _limits(client: Client, settings: Settings) -> dict[str, Any]:
    registered = [row[0] for row in client.query("SELECT DISTINCT category FROM checkins.venues").result_rows]
    # A venue that is not registered joins with an empty category, which `transform` leaves to its default.
    categories = sorted({"unknown", *registered} - {""})
    return {
        "categories": categories,
        "stays": [settings.stay_of(category) // _MILLISECOND for category in categories],
        "unknown_stay": settings.stay_of("unknown") // _MILLISECOND,
        "hard_limit": HARD_LIMIT // _MILLISECOND,
        **_crowding(client, settings, categories),
    }


def _crowding(client: Client, settings: Settings, categories: Sequence[str]) -> dict[str, Any]:
    """The rules of crowding: per category, and of the venues that have their own, level by level, in the order of Rule."""
    own = client.query(
        "SELECT venue_id, category FROM checkins.venues WHERE venue_id IN {venues:Array(String)} ORDER BY venue_id",
        {"venues": [*settings.crowding_by_venue, ""]},
    ).result_rows

    def rules(category: str, venue: str) -> list[int]:
        return [number for rule in settings.crowding_of(category, venue) for number in rule]

    return {
        "levels": list(LEVELS),
        "category_rules": [rules(category, "") for category in categories],
        "ruled_venues": [venue for venue, _ in own],
        "venue_rules": [rules(category, venue) for venue, category in own],
    }


def _count_duplicates(client: Client, parameters: dict[str, Any], tally: _Tally) -> None:
    totals = f"SELECT sum(copies), countIf(copies > 1) FROM ({_sql('identities')})"
    rows, differences = client.query(totals, parameters=parameters).result_rows[0]
    tally.rows += rows
    tally.differences += differences
    if differences:
        first = f"SELECT * FROM ({_sql('identities')}) WHERE copies > 1 ORDER BY venue_id, instant LIMIT {EXAMPLES}"
        for venue_id, instant, kind, copies in client.query(first, parameters=parameters).result_rows:
            tally.examples.append(((venue_id, instant), f"{venue_id} at {_time(instant)}: one {kind} {copies} ×"))


def _compare(client: Client, view: _View, parameters: dict[str, Any], tally: _Tally) -> None:
    keys = ", ".join(f"`{name}`" for name in view.key)
    parameters = parameters | _edges(client, view, parameters)
    relations = f"{_relations(view, parameters)} SELECT"
    totals = f"{relations} sum(in_recomputed), uniqExactIf(({keys}), in_store != in_recomputed) FROM compared"
    rows, differences = client.query(totals, parameters=parameters).result_rows[0]
    tally.rows += rows
    tally.differences += differences
    if differences:
        first = (
            f"{relations} {', '.join(f'`{name}`' for name in view.columns)}, in_store, in_recomputed FROM compared "
            f"WHERE in_store != in_recomputed ORDER BY {keys} LIMIT {4 * EXAMPLES}"
        )
        rows_that_differ = client.query(first, parameters=parameters).result_rows
        tally.examples += _examples(view, rows_that_differ)


def _edges(client: Client, view: _View, parameters: dict[str, Any]) -> dict[str, list[Any]]:
    """Venues and levels with an alert raised before what is open (or within the longest hold after), and until when it was."""
    none: dict[str, list[Any]] = {"edges": ["-"], "edges_until": [0]}
    if view.name != "crowding_alerts" or not parameters["closed_before"]:
        return none
    rows = client.query(
        f"{_relations(view, parameters)} SELECT concat(venue_id, '|', level), max(ifNull(cleared_at, {2**62})) "
        "FROM (SELECT * FROM all_stored UNION ALL SELECT * FROM all_recomputed) "
        "WHERE raised_at < {closed_before:Int64} + 3600000 GROUP BY ALL",
        parameters=parameters | none,
    ).result_rows
    return {"edges": ["-", *(row[0] for row in rows)], "edges_until": [0, *(row[1] for row in rows)]}


def _relations(view: _View, parameters: dict[str, Any]) -> str:
    """The WITH clause that ends in `compared`: the view's rows and the recomputed ones, each different row once."""
    still_open = _OPEN.get(view.name, "1") if parameters["closed_before"] or parameters["removed"] else "1"
    # Only visits that can touch the longest window are swept for the rolling windows.
    recent = f"WHERE left_at >= {{window_end:Int64}} - {_LONGEST_WINDOW_MS} AND checked_in_at < {{window_end:Int64}}"
    slice_of_venues = "cityHash64(r.venue_id) % {slices:UInt64} = {slice:UInt64}"
    recomputed = "folded" if view.name == "visits" else f"({_sql(view.name)})"
    relations = {
        "folded": _sql("folded"),
        "counted": f"SELECT * FROM folded {recent if view.name == 'rolling_occupancy' else ''}",
        "instants": _sql("instants"),
        "all_recomputed": f"SELECT {_columns(view, 'toInt64({})')} FROM {recomputed} AS r",
        "all_stored": f"SELECT {_columns(view, _TIME_TO_MS)} FROM checkins.{view.name} AS r WHERE {slice_of_venues}",
        "recomputed": f"SELECT * FROM all_recomputed WHERE {still_open}",
        "stored": f"SELECT * FROM all_stored WHERE {still_open}",
        "compared": _sql("compared"),
    }
    return "WITH " + ", ".join(f"{name} AS ({sql})" for name, sql in relations.items())


def _columns(view: _View, time: str) -> str:
    """The view's columns in the types that both sides are compared in; `time` is the expression for a time."""

    def comparable(name: str) -> str:
        if name in _TIMES:
            return time
        return "toString({})" if name in _TEXTS else "toFloat64({})" if name in _FLOATS else "toInt64({})"

    return ", ".join(f"{comparable(name).format(f'r.`{name}`')} AS `{name}`" for name in view.columns)


def _examples(view: _View, rows: Sequence[Sequence[Any]]) -> list[tuple[tuple[Any, ...], str]]:
    """One sentence a key from rows of (key columns, value columns, in_store, in_recomputed), ordered by key."""
    width = len(view.key)
    by_key: dict[tuple[Any, ...], list[Sequence[Any]]] = {}
    for row in rows:
        by_key.setdefault(tuple(row[:width]), []).append(row)
    sentences = []
    for key, same_key in list(by_key.items())[:EXAMPLES]:
        stored = [row for row in same_key if row[-2] > row[-1]]
        recomputed = [row for row in same_key if row[-1] > row[-2]]
        if len(stored) == len(recomputed) == 1:
            changed = [i for i in range(width, len(view.columns)) if stored[0][i] != recomputed[0][i]]
            fault = f"stored {_values(view, stored[0], changed)}; recomputed {_values(view, recomputed[0], changed)}"
        else:
            every = range(width, len(view.columns))
            fault = "; ".join(
                [f"missing from the store: {_values(view, row, every)}" for row in recomputed]
                + [f"stored {row[-2]} ×, recomputed {row[-1]} ×: {_values(view, row, every)}" for row in stored]
            )
        sentences.append((key, f"{_key(view, key)}: {fault}"))
    return sentences


def _key(view: _View, key: tuple[Any, ...]) -> str:
    words = []
    for name, value in zip(view.key, key, strict=True):
        if name in _TIMES:
            words.append(f"at {_time(value)}")
        elif name == "visitor_id":
            words.append(f"visitor #{sha256(value.encode()).hexdigest()[:8]}")
        else:
            words.append(str(value))
    return " ".join(words)


def _values(view: _View, row: Sequence[Any], columns: Sequence[int]) -> str:
    return ", ".join(
        f"{view.columns[i]} {'null' if row[i] is None else _time(row[i]) if view.columns[i] in _TIMES else row[i]}"
        for i in columns
    )


def _time(milliseconds: int) -> str:
    return (_EPOCH + milliseconds * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _check(name: str, tally: _Tally, skipped: str = "", *, of_persons: bool = False) -> Check:
    examples = tuple(text for _, text in sorted(tally.examples)[:EXAMPLES])
    return Check(name, tally.rows, tally.differences, examples, skipped, len(examples) if of_persons else 0)


def _skipped(view: _View, settings: Settings) -> str:
    """Why a view is not recomputed: SQL from the scans alone knows no model, and alerts may be judged by one."""
    by_estimate = view.name == "crowding_alerts" and settings.crowding_basis != "counted"
    return f"not recomputed: crowding_basis is {settings.crowding_basis}" if by_estimate else ""


def _accounting(client: Client, removed: int) -> list[Check]:
    """Per partition accepted = stored + duplicates, consumed = accepted + dead-lettered; the sums match the views.

    `removed`: scans that retention and erasures have taken.
    """
    partitions = client.query(
        "SELECT topic, partition, consumed, accepted, stored, duplicates, dead_lettered FROM checkins.accounting "
        "ORDER BY topic, partition"
    ).result_rows
    wrong = [
        f"{topic}/{partition}: consumed {consumed}, accepted {accepted}, stored {stored}, duplicates {duplicates}, "
        f"dead-lettered {dead_lettered}"
        for topic, partition, consumed, accepted, stored, duplicates, dead_lettered in partitions
        if accepted != stored + duplicates or consumed != accepted + dead_lettered
    ]
    scans = client.query("SELECT count() FROM checkins.scans").result_rows[0][0]
    # Refused case reports are not scans, and in no partition's account.
    dead_letters = client.query(
        "SELECT count() FROM checkins.dead_letters WHERE topic IN (SELECT topic FROM checkins.accounting)"
    ).result_rows[0][0]
    stored_sum, dead_sum = sum(row[4] for row in partitions), sum(row[6] for row in partitions)
    return [
        Check("accounting adds up", len(partitions), len(wrong), tuple(wrong[:EXAMPLES])),
        _sum_check("stored scans are there", scans, stored_sum - removed, what="scans"),
        _sum_check("dead letters are there", dead_letters, dead_sum, what="dead_letters"),
    ]


def _sum_check(name: str, rows: int, accounted: int, *, what: str) -> Check:
    if rows == accounted:
        return Check(name, rows, 0)
    return Check(name, rows, abs(rows - accounted), (f"the view {what} has {rows} rows, the accounting {accounted}",))


@cache
def _sql(name: str) -> str:
    return resources.files("pipeline.store").joinpath("sql", "verify", f"{name}.sql").read_text(encoding="utf-8")
