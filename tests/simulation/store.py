"""A store that is a dictionary: it answers the SQL that the engine asks, and no other.

It stands where clickhouse-connect's client does, so that the real engine, writer and recovery run on it unchanged. What it knows
of ClickHouse is what they rely on: a replacing table keeps, of each key, the row with the highest version, of equal versions
the one inserted last, and FINAL hides what is deleted; `scan_set` keeps the least winner and the least origin; without FINAL any
row may be seen that no merge has taken yet. `test_store.py` holds it to the real engine, statement by statement.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import groupby, pairwise
from types import CodeType
from typing import Any, Final

import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from tests.reference import (
    AlertRow,
    HourRow,
    MinuteRow,
    NowRow,
    RollingRow,
    ScanRow,
    Views,
    Visit,
)

Row = dict[str, Any]

#: Of each table, what identifies a row. Tables whose rows are only ever asked for, and never written here, have a key, too.
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "scan_set": ("venue_id", "visitor_id", "occurred_at", "event_type"),
    "visit_rows": ("venue_id", "visitor_id", "checked_in_at"),
    "minute_rows": ("venue_id", "minute"),
    "hour_rows": ("venue_id", "hour"),
    "rolling_rows": ("venue_id", "width"),
    "now_rows": ("venue_id",),
    "alert_rows": ("venue_id", "level", "raised_at"),
    "venue_rows": ("venue_id",),
    "registry_rows": ("venue_id",),
    "dead_letter_rows": ("topic", "partition", "offset"),
    "progress_rows": ("topic", "partition"),
    "repair_rows": ("venue_id", "visitor_id"),
    "asked_rows": ("venue_id", "visitor_id"),
    "followed_rows": ("venue_id",),
    "stay_rows": ("topic", "partition"),
    "told_rows": ("topic", "partition"),
    "takeover_rows": ("topic", "partition", "version"),
    "model_applied_rows": ("topic", "partition"),
    "model_use_rows": ("version",),
    "estimate_rows": ("venue_id",),
    "erased_rows": ("digest",),
    "retention_rows": ("number",),
    "removed_rows": ("reason", "key"),
    # Tracing has nothing to do here; retention looks into its tables all the same.
    "exposure_rows": ("case_id",),
    "interval_rows": ("case_id",),
    "warning_rows": ("venue_id",),
}
_ENUMS: Final = {"level": {"warning": 0, "critical": 1}}
#: Whole seconds in what is inserted; all times are kept in milliseconds.
_SECONDS: Final = {"minute", "hour", "window_end"}
#: What orders the rows of one key, where that is not `version`.
_ORDER: Final = {"retention_rows": "finished", "erased_rows": "finished", "removed_rows": "noted_at"}
#: The time by whose day tables are partitioned that lose days.
_BY_DAY: Final = {"scan_set": "occurred_at", "visit_rows": "checked_in_at"}


class _Table:
    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[Row] = []
        self._key, self._order = _KEYS[name], _ORDER.get(name, "version")
        self.holding: dict[tuple[Any, ...], Row] = {}

    def insert(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows.append(row)
            key = tuple(row[column] for column in self._key)
            held = self.holding.get(key)
            if held is None:
                self.holding[key] = row
            elif self.name == "scan_set":
                winner, origin = min(held["winner"], row["winner"]), min(held["origin"], row["origin"])
                self.holding[key] = {**held, **_parts("winner", winner), **_parts("origin", origin)}
            elif row[self._order] >= held[self._order]:
                self.holding[key] = row

    def delete(self, doomed: Callable[[Row], bool]) -> None:
        """Rows go for good, whether or not a newer one of their key has replaced them."""
        left = [row for row in self.rows if not doomed(row)]
        self.rows, self.holding = [], {}
        self.insert(left)

    def final(self) -> list[Row]:
        return [row for row in self.holding.values() if not row.get("is_deleted")]

    def merge(self) -> None:
        """What merges come to: rows that are replaced are gone. Those that say that something is deleted stay."""
        self.rows = list(self.holding.values())


def _parts(name: str, values: tuple[Any, ...]) -> Row:
    return {name: values, **{f"{name}_{i}": value for i, value in enumerate(values, 1)}}


def _column(name: str, column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_struct(column.type):
        return [tuple(value.values()) for value in column.to_pylist()]
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("ms")).cast(pa.int64()).to_pylist()
    values = column.to_pylist()
    if name in _SECONDS:
        return [1000 * value for value in values]
    return [_ENUMS[name][value] for value in values] if name in _ENUMS else values


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query answers."""

    result_rows: list[tuple[Any, ...]]


class Store:
    """Tables, and the statements on them."""

    def __init__(self) -> None:
        self._tables = {name: _Table(name) for name in _KEYS}

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows, all or none."""
        columns = {name: _column(name, rows[name]) for name in rows.column_names}
        found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        if table == "scan_set":
            found = [{**row, **_parts("winner", row["winner"]), **_parts("origin", row["origin"])} for row in found]
        self._tables[table].insert(found)

    def merge(self) -> None:
        """Merge every table."""
        for table in self._tables.values():
            table.merge()

    def final(self, table: str) -> list[Row]:
        """The rows of a table as FINAL shows them; times in ms."""
        return self._tables[table].final()

    def keys(self, table: str) -> Collection[tuple[Any, ...]]:
        """What identifies the rows of a table, deleted ones too."""
        return self._tables[table].holding.keys()

    # --- statements --------------------------------------------------------------------------------------------------

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The names and rows that a query answers."""
        text = _plain(sql)
        if parameters:
            text = text.replace(
                "( SELECT arrayJoin(arrayZip({venues:Array(String)}, {visitors:Array(String)})) )",
                str(tuple(zip(parameters["venues"], parameters["visitors"], strict=True))),
            )
        for mark, shape, answer in _SHAPES:
            if mark in text and (match := re.fullmatch(shape, text)):
                return answer(self, *match.groups())
        if " UNION DISTINCT " in text:
            names, rows = [], set()
            for part in text.split(" UNION DISTINCT "):
                names, some = self.query(part)
                rows |= set(some)
            return names, sorted(rows)
        return self._select(text)

    def command(self, sql: str) -> None:
        """Drop a day of a table, or delete rows."""
        text = _plain(sql)
        if match := re.fullmatch(r"ALTER TABLE (\w+) DROP PARTITION '([\d-]+)'", text):
            table, day = match.groups()
            self._tables[table].delete(lambda row: _day(row[_BY_DAY[table]]) == day)
            return
        if match := re.fullmatch(r"ALTER TABLE dead_letter_rows UPDATE sha256 = '' WHERE (.*) SETTINGS .*", text):
            for row in filter(self._condition(match[1]), self._tables["dead_letter_rows"].rows):
                row["sha256"] = ""
            return
        match = re.fullmatch(r"ALTER TABLE (\w+) DELETE WHERE (.*) SETTINGS mutations_sync = 2", text)
        assert match, f"the store of the simulation does not know this statement: {text}"
        self._tables[match[1]].delete(self._condition(match[2]))

    def _select(self, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        spans: dict[str, str] = {}
        if match := re.fullmatch(
            r"WITH (transform\(.*\)) AS span_start, (transform\(.*\)) AS span_end (SELECT .*)", text
        ):
            spans, text = {"span_start": match[1], "span_end": match[2]}, match[3]
        match = re.fullmatch(
            r"SELECT (DISTINCT )?(.+?) FROM (\w+)( FINAL)?(?: WHERE (.+?))?"
            r"(?: GROUP BY ([\w, ]+?))?(?: ORDER BY ([\w, ]+?)( DESC)?)?(?: LIMIT (\d+))?",
            text,
        )
        assert match, f"the store of the simulation does not know this query: {text}"
        distinct, columns, table, final, where, group, order, descending, limit = match.groups()
        assert table in self._tables, f"the store of the simulation has no such table: {text}"
        for name, meaning in spans.items():
            where = where.replace(name, meaning)
        wanted = self._condition(where or "1")
        rows = [row for row in (self._tables[table].final() if final else self._tables[table].rows) if wanted(row)]
        terms = [_term(column) for column in _split(columns)]
        names = [name for _, name in terms]
        if group or any(_AGGREGATE.search(term) for term, _ in terms):
            found = self._grouped(rows, [term for term, _ in terms], group)
        else:
            codes = [_compiled(term) for term, _ in terms]
            found = [tuple(eval(code, _FUNCTIONS, row) for code in codes) for row in rows]
            if order:
                by = [re.sub(r"^ ", "", each) for each in order.split(",")]
                keys = [
                    [found[i][names.index(each)] if each in names else row[each] for each in by]
                    for i, row in enumerate(rows)
                ]
                places = sorted(range(len(rows)), key=keys.__getitem__, reverse=bool(descending))
                found, order = [found[place] for place in places], None
        if distinct:
            found = list(dict.fromkeys(found))
        if order:
            found.sort(key=lambda row: [row[names.index(each.strip())] for each in order.split(",")])
        return names, found[: int(limit)] if limit else found

    def _grouped(self, rows: list[Row], terms: list[str], group: str | None) -> list[tuple[Any, ...]]:
        plain = [term for term in terms if not _AGGREGATE.search(term)]
        keys = plain if group in (None, "ALL") else [each.strip() for each in str(group).split(",")]
        groups: dict[tuple[Any, ...], list[Row]] = {} if group else {(): []}
        for row in rows:
            groups.setdefault(tuple(eval(_compiled(key), _FUNCTIONS, row) for key in keys), []).append(row)
        return [
            tuple(
                _aggregated(term, some) if _AGGREGATE.search(term) else eval(_compiled(term), _FUNCTIONS, some[0])
                for term in terms
            )
            for some in groups.values()
        ]

    def _condition(self, text: str) -> Callable[[Row], bool]:
        known: dict[str, Any] = {}
        while (at := text.find("(SELECT ")) >= 0:
            end = _closing(text, at)
            name = f"_asked{len(known)}"
            rows = self.query(text[at + 1 : end])[1]
            known[name] = {row[0] if len(row) == 1 else row for row in rows}
            text = f"{text[:at]}{name}{text[end + 1 :]}"
        code, around = _compiled(text), {**_FUNCTIONS, **known}
        return lambda row: bool(eval(code, around, row))

    # --- queries of a shape of their own -------------------------------------------------------------------------------

    def _scans_to_load(
        self, fresh: str, scans: str, visits: str, horizon: str
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        until: dict[tuple[str, str], int] = {}
        wanted = self._condition(visits)
        for row in filter(wanted, self.final("visit_rows")):
            pair = row["venue_id"], row["visitor_id"]
            until[pair] = max(until.get(pair, 0), row["left_at"] + (row["ended"] == 0))
        wanted, is_fresh, limit = self._condition(scans), self._condition(fresh), int(horizon)
        found = []
        for row in filter(wanted, self.final("scan_set")):
            pair = row["venue_id"], row["visitor_id"]
            if row["occurred_at"] >= min(until.get(pair, 0), limit):
                found.append((*pair, row["event_type"], row["occurred_at"], -row["winner_1"], int(is_fresh(row))))
        return ["venue_id", "visitor_id", "kind", "at", "party", "fresh"], found

    def _scans_by_key(self, columns: str, condition: str, order: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        return self.query(f"{columns} FROM scan_set FINAL WHERE {condition} {order}")

    def _days(self, table: str, before: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        if table not in _BY_DAY:
            return ["partition"], []
        days = {_day(row[_BY_DAY[table]]) for row in self._tables[table].rows}
        return ["partition"], [(day,) for day in sorted(days) if day < before]

    def _visits_over(self, kept_from: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        kept = int(kept_from)
        over: dict[tuple[str, str], int] = {}
        for row in self.final("visit_rows"):
            if row["checked_in_at"] < kept <= row["left_at"]:
                pair = row["venue_id"], row["visitor_id"]
                over[pair] = max(over.get(pair, 0), row["left_at"])
        found = {
            pair
            for row in self._tables["scan_set"].rows
            for pair in [(row["venue_id"], row["visitor_id"])]
            if row["event_type"] == 0 and kept <= row["occurred_at"] <= over.get(pair, 0)
        }
        return ["venue_id", "visitor_id"], sorted(found)

    def _no_cases(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        return ["case_id"], []

    def _nothing_told(self, columns: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        count = len(_split(columns))
        return [""] * count, [(0,) * count]

    def _closings(self, given: str, condition: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        for name in ("span_start", "span_end"):
            if match := re.search(rf"(transform\([^[]*\[[^]]*\], \[[^]]*\], toUInt64\(0\)\)) AS {name}", given):
                condition = condition.replace(name, match[1])
        rows = sorted(
            filter(self._condition(condition), self.final("visit_rows")),
            key=lambda row: (row["venue_id"], row["visitor_id"], row["checked_in_at"]),
        )
        found = []
        for _, some in groupby(rows, key=lambda row: (row["venue_id"], row["visitor_id"])):
            for row, after in pairwise([*some, None]):
                assert row is not None
                closed = row["left_at"] if row["ended"] == 0 else after["checked_in_at"] if after else -1
                found.append((row["venue_id"], row["checked_in_at"], row["left_at"], row["party_size"], closed))
        return ["venue_id", "start", "left", "persons", "closed"], found

    def _changed_alerts(self, columns: str, condition: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        newest: dict[tuple[Any, ...], Row] = {}
        for row in sorted(
            filter(self._condition(condition), self._tables["alert_rows"].rows), key=lambda row: row["version"]
        ):
            newest[row["venue_id"], row["level"], row["raised_at"]] = row
        terms = [_compiled(_term(column)[0]) for column in _split(columns)]
        rows = sorted(newest.values(), key=lambda row: (row["venue_id"], row["raised_at"]))
        return [""] * len(terms), [tuple(eval(term, _FUNCTIONS, row) for term in terms) for row in rows]

    # --- views -------------------------------------------------------------------------------------------------------

    def views(self) -> Views:
        """The rows of the views that the reference knows, as `tests.views.read_views` reads them."""
        as_of = max((row["as_of"] for row in self.final("progress_rows")), default=0)
        registered = {row["venue_id"]: row["capacity"] for row in self.final("registry_rows")}
        level = ("warning", "critical")
        return {
            "scans": {
                ScanRow(
                    row["winner_2"],
                    ("check_in", "check_out")[row["event_type"]],
                    row["venue_id"],
                    row["visitor_id"],
                    row["occurred_at"],
                    -row["winner_1"],
                    row["winner_3"],
                )
                for row in self.final("scan_set")
            },
            "visits": {
                Visit(
                    row["venue_id"],
                    row["visitor_id"],
                    row["checked_in_at"],
                    row["left_at"],
                    ("check_out", "expired", "expired" if row["left_at"] <= as_of else "open")[row["ended"]],
                    row["party_size"],
                )
                for row in self.final("visit_rows")
            },
            "occupancy_minutes": {
                MinuteRow(row["venue_id"], row["minute"] // 1000, *(row[name] for name in MinuteRow._fields[2:]))
                for row in self.final("minute_rows")
            },
            "occupancy_hours": {
                HourRow(
                    row["venue_id"],
                    row["hour"] // 1000,
                    row["arrivals"],
                    row["departures"],
                    row["area_ms"] / 3_600_000,
                    row["peak"],
                    row["over_ms"] / 60_000,
                    row["contact_ms"] / 60_000,
                )
                for row in self.final("hour_rows")
            },
            "rolling_occupancy": {
                RollingRow(
                    row["venue_id"],
                    f"{row['width']}m",
                    row["window_end"] // 1000,
                    row["arrivals"],
                    row["unique_visitors"],
                    row["peak"],
                    row["area_ms"] / (row["width"] * 60_000),
                    None if row["dwell_sum_ms"] is None else row["dwell_sum_ms"] / 120_000,
                )
                for row in self.final("rolling_rows")
            },
            "occupancy_now": {
                NowRow(row["venue_id"], row["occupancy"], capacity, capacity and row["occupancy"] / capacity, as_of)
                for row in self.final("now_rows")
                if row["occupancy"]
                for capacity in [registered.get(row["venue_id"])]
            },
            "crowding_alerts": {
                AlertRow(
                    row["alert_id"],
                    row["venue_id"],
                    level[row["level"]],
                    row["raised_at"],
                    row["cleared_at"],
                    row["peak"],
                    row["capacity"],
                )
                for row in self.final("alert_rows")
            },
        }


#: What the queries of a shape contain, the shape, and who answers them.
_SHAPES: Final[Sequence[tuple[str, str, Callable[..., tuple[list[str], list[tuple[Any, ...]]]]]]] = [
    (
        " AS fresh ",
        r"SELECT venue_id, visitor_id, kind, at, party, fresh FROM \( SELECT venue_id, visitor_id, toInt8\(event_type\) AS kind, "
        r"toUnixTimestamp64Milli\(occurred_at\) AS at, -tupleElement\(winner, 1\) AS party, \((.*)\) AS fresh FROM scan_set "
        r"FINAL WHERE (.*) \) AS scan LEFT JOIN \( SELECT venue_id, visitor_id, max\(toUnixTimestamp64Milli\(left_at\) \+ "
        r"\(ended = 'check_out'\)\) AS until FROM visit_rows FINAL WHERE (.*) GROUP BY venue_id, visitor_id \) AS visit "
        r"USING \(venue_id, visitor_id\) WHERE at >= least\(until, (\d+)\)",
        Store._scans_to_load,
    ),
    (
        "leadInFrame",
        r"SELECT venue_id, start, left, persons, closed FROM \( SELECT venue_id, start, left, persons, multiIf\(ended = "
        r"'check_out', left, next = 0, -1, next\) AS closed FROM \( (WITH .*? )?SELECT venue_id, ended, toInt64\(party_size\) AS "
        r"persons, toUnixTimestamp64Milli\(checked_in_at\) AS start, toUnixTimestamp64Milli\(left_at\) AS left, "
        r"leadInFrame\(start\) OVER \(.*?\) AS next FROM visit_rows FINAL WHERE (.*) \) \)",
        Store._closings,
    ),
    (
        "min(winner) AS winner",
        r"(SELECT .*) FROM \(SELECT venue_id, visitor_id, occurred_at, event_type, min\(winner\) AS winner, min\(origin\) AS "
        r"origin FROM scan_set WHERE (.*) GROUP BY venue_id, visitor_id, occurred_at, event_type\) (ORDER BY .*)",
        Store._scans_by_key,
    ),
    (
        "system.parts",
        r"SELECT DISTINCT partition FROM system\.parts WHERE database = currentDatabase\(\) AND active AND table = '(\w+)' AND "
        r"partition < '([\d-]+)'",
        Store._days,
    ),
    (
        "INNER JOIN",
        r"SELECT DISTINCT venue_id, visitor_id FROM \( SELECT venue_id, visitor_id, occurred_at FROM scan_set WHERE occurred_at "
        r">= fromUnixTimestamp64Milli\((\d+), 'UTC'\) .*",
        Store._visits_over,
    ),
    ("FROM published_rows", r"SELECT (count\(\).*) FROM published_rows .*", Store._nothing_told),
    ("FROM report_set", r".*", Store._no_cases),
    (
        " LIMIT 1 BY ",
        r"SELECT (.*) FROM \(SELECT \* FROM alert_rows WHERE (.*) ORDER BY version DESC LIMIT 1 BY venue_id, level, raised_at\) "
        r"ORDER BY venue_id, raised_at",
        Store._changed_alerts,
    ),
]


# --- SQL terms as Python's ------------------------------------------------------------------------------------------------


def _among(*values: Any) -> Any:
    # What stands in the brackets of IN: values, or the one set that a query there has answered.
    return values[0] if len(values) == 1 and isinstance(values[0], set) else values


_FUNCTIONS: Final[dict[str, Any]] = {
    "toUnixTimestamp64Milli": lambda at: at,
    "toUnixTimestamp": lambda at: at // 1000,
    "fromUnixTimestamp64Milli": lambda at, _zone: at,
    "toDateTime": lambda at, _zone: at * 1000,
    "toString": str,
    "concat": lambda *parts: "".join(parts),
    "toDate": lambda at: _day(at),
    "toInt8": int,
    "toInt64": int,
    "toUInt64": int,
    "intDiv": lambda value, by: value // by,
    "ifNull": lambda value, other: other if value is None else value,
    "transform": lambda value, keys, values, other: dict(zip(keys, values, strict=True)).get(value, other),
    "_among": _among,
}

_AGGREGATE: Final = re.compile(r"\b(min|max|count|groupArray)\(")


@cache
def _compiled(term: str) -> CodeType:
    # Literals are put aside first: an id may look like a word of SQL.
    literals = re.findall(r"'(?:[^'\\]|\\.)*'", term)
    text = re.sub(r"'(?:[^'\\]|\\.)*'", "\0", term)
    text = re.sub(r"\b(winner|origin)\.(\d)", r"\1_\2", text)
    text = re.sub(r"INTERVAL (\d+) SECOND", r"\1 * 1000", text)
    text = re.sub(r"(?<![<>!])=", "==", text)
    text = re.sub(r"\bIN (_asked\d+)", r"IN (\1)", text)
    text = re.sub(r"\bIN \(", "in _among(", text)
    for word, meaning in (("AND", "and"), ("OR", "or"), ("NOT", "not"), ("IS NULL", "is None")):
        text = re.sub(rf"\b{word}\b", meaning, text)
    for literal in literals:
        text = text.replace("\0", literal, 1)
    return compile(text, "<sql>", "eval")


@cache
def _term(column: str) -> tuple[str, str]:
    # A column and its name.
    match = re.fullmatch(r"(.*) AS (\w+)", column)
    return (match[1], match[2]) if match else (column, column)


@cache
def _split(columns: str) -> tuple[str, ...]:
    found, depth, begin = [], 0, 0
    for i, letter in enumerate(columns):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            found.append(columns[begin:i].strip())
            begin = i + 1
    return (*found, columns[begin:].strip())


def _closing(text: str, at: int) -> int:
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    raise AssertionError(f"unbalanced: {text}")


def _aggregated(term: str, rows: list[Row]) -> Any:
    match = _AGGREGATE.search(term)
    assert match
    end = _closing(term, match.end() - 1)
    inner = term[match.end() : end]
    values = [eval(_compiled(inner), _FUNCTIONS, row) for row in rows] if inner else rows
    result = {
        "min": lambda: min(values, default=0),
        "max": lambda: max(values, default=0),
        "count": lambda: len(values),
    }
    value = values if match[1] == "groupArray" else result[match[1]]()
    return eval(_compiled(f"{term[: match.start()]}_value{term[end + 1 :]}"), _FUNCTIONS, {"_value": value})


def _day(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d")


@cache
def _plain(sql: str) -> str:
    return " ".join(sql.split())


# --- the client -----------------------------------------------------------------------------------------------------------


class StoreDownError(ClickHouseError):
    """What the driver raises when the store does not answer."""


class Client:
    """What the pipeline sees of a `Store`. `gate` is entered around every statement: it may raise before or after it."""

    def __init__(
        self, store: Store, gate: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()
    ) -> None:
        self._store = store
        self._gate = gate

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> Answer:
        """Rows."""
        del settings
        with self._gate("query"):
            return Answer(self._store.query(sql, parameters)[1])

    def query_arrow(self, sql: str) -> pa.Table:
        """Columns."""
        with self._gate("query"):
            names, rows = self._store.query(sql)
            kind = None if rows else pa.int64()
            return pa.table({name: pa.array([row[i] for row in rows], kind) for i, name in enumerate(names)})

    def command(self, sql: str, settings: Mapping[str, Any] | None = None) -> None:
        """Change a table."""
        del settings
        with self._gate("command"):
            self._store.command(sql)

    def insert_arrow(self, table: str, rows: pa.Table, settings: Mapping[str, Any] | None = None) -> None:
        """Insert rows, all or none."""
        del settings
        with self._gate(table):
            self._store.insert(table, rows)

    def close(self) -> None:
        """Nothing to give back."""
