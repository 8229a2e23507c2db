"""An independent verifier: reads the topics and the views, and says where the pipeline breaks its promise.

Imports nothing of the pipeline (tests/faults/test_verifier.py holds that): only what any consumer of the topics and any reader of
the views could use. `Watch` looks again and again while faults happen, `verify` once everything is at rest.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Final, NamedTuple

import clickhouse_connect
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from kafka.admin import KafkaAdminClient

from tests.faults import recount
from tests.faults.recount import Case, Crowding, Record, Row, Scan, Visit

#: Differences shown of each kind.
SHOWN: Final = 3

#: What each view shows, as `recount` counts it.
_COLUMNS: Final = {
    "visits": "venue_id, visitor_id, toUnixTimestamp64Milli(checked_in_at), toUnixTimestamp64Milli(left_at), ended_by, "
    "party_size",
    "occupancy_minutes": "venue_id, toUnixTimestamp(minute), arrivals, departures, occupancy, peak",
    "occupancy_hours": "venue_id, toUnixTimestamp(hour), arrivals, departures, mean_occupancy, peak, minutes_over_capacity, "
    "person_contact_minutes",
    "rolling_occupancy": "venue_id, `window`, toUnixTimestamp(window_end), arrivals, unique_visitors, peak, mean_occupancy, "
    "median_dwell_minutes",
    "occupancy_now": "venue_id, occupancy, capacity, ratio",
}

_ALERT: Final = (
    "alert_id, venue_id, level, toUnixTimestamp64Milli(raised_at), toUnixTimestamp64Milli(cleared_at), peak, capacity"
)
_EXPOSURE: Final = (
    "case_id, visitor_id, venue_id, toUnixTimestamp64Milli(overlap_from), toUnixTimestamp64Milli(overlap_until)"
)
_WARNING: Final = "venue_id, toUnixTimestamp64Milli(warn_from), toUnixTimestamp64Milli(warn_until), case_count"

#: No venue holds so many: a count that has fallen below zero shows itself as more.
_IMPOSSIBLE: Final = 1 << 30


class Output(NamedTuple):
    """What is told in a topic, and the view that shows the same."""

    view: str
    id: str
    fields: tuple[str, ...]
    #: Those of the fields that are instants.
    times: tuple[str, ...]


_OUTPUTS: Final = {
    "crowding-alerts": Output(
        "crowding_alerts",
        "alert_id",
        ("venue_id", "level", "raised_at", "cleared_at", "peak", "capacity"),
        ("raised_at", "cleared_at"),
    ),
    "exposures": Output(
        "exposures",
        "exposure_id",
        (
            *("case_id", "visitor_id", "venue_id", "overlap_from", "overlap_until", "minutes", "minutes_low"),
            *("minutes_high", "cumulative_minutes", "tier", "policy", "policy_version"),
        ),
        ("overlap_from", "overlap_until"),
    ),
    "venue-warnings": Output(
        "venue_warnings",
        "warning_id",
        ("venue_id", "warn_from", "warn_until", "case_count", "policy"),
        ("warn_from", "warn_until"),
    ),
}


@dataclass(frozen=True, slots=True)
class Promise:
    """What is to be held: the settings that results depend on. Times in ms; `retention` None on the clock `events`."""

    kafka: str
    store: str
    group: str
    max_stay: int
    max_stay_by_category: Mapping[str, int] = field(default_factory=dict)
    retention: int | None = 14 * recount.DAY
    crowding: Mapping[str, Crowding] = field(default_factory=dict)
    #: No raw identifier may be anywhere but in what was sent: strings that hold or begin one.
    secrets: tuple[str, ...] = ()


class TopicRecord(NamedTuple):
    """One record of a topic; `timestamp` in ms."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def read_topic(kafka: str, topic: str) -> list[TopicRecord]:
    """Every record of a topic, in order of partition and offset."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "verifier", "enable.partition.eof": True})
    records = []
    try:
        for partition in sorted(consumer.list_topics(topic, 60).topics[topic].partitions):
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
            ended = False
            while not ended:
                for message in consumer.consume(10_000, 1.0):
                    error = message.error()
                    if error is None:
                        where = message.partition(), message.offset(), message.timestamp()[1]
                        records.append(TopicRecord(*where, message.key(), message.value(), message.headers() or []))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended = True
                    elif not error.retriable():
                        raise KafkaException(error)
    finally:
        consumer.close()
    return records


def committed(kafka: str, group: str) -> dict[int, int]:
    """What a group has committed of check-ins, by partition."""
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    try:
        found = admin.list_group_offsets({group: None})[group]
        return {tp.partition: at.offset for tp, at in found.items() if tp.topic == "check-ins" and at.offset >= 0}
    finally:
        admin.close()


class Watch:
    """What may never go back, looked at while faults happen. `look` returns what is wrong; call it as often as you like."""

    def __init__(self, promise: Promise) -> None:
        self._promise = promise
        self._client: Any = None
        self._stored: dict[int, tuple[int, ...]] = {}
        self._as_of: Any = None
        self._watermarks: dict[object, float] = {}
        #: How often it saw anything.
        self.looks = 0

    def look(self, committed_before: Mapping[int, int], metrics: Mapping[object, Mapping[str, float]]) -> list[str]:
        """`committed_before`: offsets committed, asked for before this call; `metrics`: of each living worker.

        Raises what the store's client raises where the store does not answer.
        """
        client = self._client = self._client or clickhouse_connect.get_client(
            dsn=self._promise.store, send_receive_timeout=20
        )
        wrong = []
        rows = client.query(
            "SELECT partition, next_offset, consumed, accepted, stored, duplicates, dead_lettered FROM checkins.accounting "
            "WHERE topic = 'check-ins'"
        ).result_rows
        now = {row[0]: tuple(row[1:]) for row in rows}
        for partition, row in self._stored.items():
            if partition not in now or now[partition][0] < row[0] or now[partition][1] < row[1]:
                wrong.append(f"the accounting of partition {partition} went back from {row} to {now.get(partition)}")
        for partition, (_, consumed, accepted, stored, duplicates, dead) in now.items():
            if consumed != accepted + dead or accepted != stored + duplicates:
                wrong.append(f"the accounting of partition {partition} does not add up: {now[partition]}")
        for partition, offset in committed_before.items():
            if offset > now.get(partition, (0,))[0]:
                wrong.append(
                    f"partition {partition} is committed up to {offset}, stored up to {now.get(partition, (0,))[0]}"
                )
        self._stored = now
        [(as_of, fewest, most)] = client.query(
            "SELECT (SELECT max(as_of) FROM checkins.occupancy_now), "
            "(SELECT min(occupancy) FROM checkins.occupancy_minutes), (SELECT max(occupancy) FROM checkins.occupancy_minutes)"
        ).result_rows
        if self._as_of is not None and as_of is not None and as_of < self._as_of:
            wrong.append(f"as_of went back from {self._as_of} to {as_of}")
        self._as_of = as_of or self._as_of
        if fewest is not None and (fewest < 0 or most > _IMPOSSIBLE):
            wrong.append(f"occupancy is {fewest} to {most}")
        for worker, figures in metrics.items():
            mark = figures.get("pipeline_watermark_timestamp_seconds")
            if mark is None:
                continue  # it did not answer, or has read nothing yet
            if mark < self._watermarks.get(worker, 0.0):
                wrong.append(f"the watermark of worker {worker} went back by {self._watermarks[worker] - mark:.3f} s")
            self._watermarks[worker] = max(mark, self._watermarks.get(worker, 0.0))
        self.looks += 1
        return wrong


@dataclass(slots=True)
class Verdict:
    """What was found at rest."""

    wrong: list[str]
    records: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    rows: int = 0
    #: Alerts, exposures and warnings that stand, by their topics.
    told: dict[str, int] = field(default_factory=dict)


def verify(promise: Promise, texts: Iterable[str] = (), *, rebuilt: bool = False) -> Verdict:
    """Compare everything, with nothing running. `texts`: logs and metrics, which may hold no raw identifier either.

    `rebuilt`: the store was deleted meanwhile, and with it the memory of what was told and holds no more.
    """
    comparison = _Comparison(promise, rebuilt=rebuilt)
    comparison.everything(texts)
    return comparison.verdict


def verify_running(promise: Promise) -> list[str]:
    """Compare, with workers that have read everything and go on running, what the clock does not change any more."""
    comparison = _Comparison(promise)
    comparison.what_is_past()
    return comparison.verdict.wrong


class _Comparison:
    def __init__(self, promise: Promise, *, rebuilt: bool = False) -> None:
        self._promise = promise
        self._rebuilt = rebuilt
        self._client = clickhouse_connect.get_client(dsn=promise.store)
        self._topic = cache(partial(read_topic, promise.kafka))
        self.verdict = Verdict([])
        self._records = [
            Record(each.partition, each.offset, each.timestamp, each.value) for each in self._topic("check-ins")
        ]
        self.verdict.records = len(self._records)
        self._judged = [recount.judge(record, promise.retention) for record in self._records]
        self._scans = recount.winners(each for each in self._judged if isinstance(each, Scan))

    def everything(self, texts: Iterable[str]) -> None:
        """See `verify`."""
        self._compare_accounting()
        self._compare_scans()
        self._compare_views()
        self._compare_dead_letters()
        self._compare_outputs()
        self._look_for_secrets(texts)

    def what_is_past(self) -> None:
        """See `verify_running`."""
        self._compare_accounting()
        self._compare_scans()
        self._compare_dead_letters()
        self._compare_what_is_past()

    # --- what is compared

    def _compare_accounting(self) -> None:
        seen: set[tuple[str, str, str, int]] = set()
        counts: dict[int, Counter[str]] = defaultdict(Counter)
        for record, judged in zip(self._records, self._judged, strict=True):
            count = counts[record.partition]
            count["next_offset"] = record.offset + 1
            count["consumed"] += 1
            if isinstance(judged, str):
                count["dead_lettered"] += 1
                continue
            count["accepted"] += 1
            count["duplicates" if judged.identity in seen else "stored"] += 1
            seen.add(judged.identity)
        names = ("next_offset", "consumed", "accepted", "stored", "duplicates", "dead_lettered")
        true = {(partition, *(count[name] for name in names)) for partition, count in counts.items()}
        rows = self._query(
            f"SELECT partition, {', '.join(names)} FROM checkins.accounting WHERE topic = 'check-ins' AND consumed > 0"
        )
        self._compare("accounting", rows, true)
        total = sum((Counter(count) for count in counts.values()), Counter[str]())
        self.verdict.stored, self.verdict.duplicates = total["stored"], total["duplicates"]
        self.verdict.dead_letters = total["dead_lettered"]
        done = committed(self._promise.kafka, self._promise.group)
        for partition, offset in done.items():
            if offset > counts[partition]["next_offset"]:
                self._say(
                    "committed",
                    f"partition {partition} at {offset}, its log ends at {counts[partition]['next_offset']}",
                )

    def _compare_scans(self) -> None:
        rows = self._query(
            "SELECT venue_id, visitor_id, toString(event_type), toUnixTimestamp64Milli(occurred_at), party_size, event_id, "
            "source FROM checkins.scans"
        )
        self._compare("scans", rows, set(map(tuple, self._scans)))

    def _compare_views(self) -> None:
        as_of = self._as_of()
        visits, capacities = self._visits(as_of)
        for view, true in recount.views(visits, capacities, as_of).items():
            some = " WHERE occupancy > 0" if view == "occupancy_now" else ""
            self._compare(view, self._query(f"SELECT {_COLUMNS[view]} FROM checkins.{view}{some}"), true)
        self._compare(
            "crowding_alerts",
            self._query(f"SELECT {_ALERT} FROM checkins.crowding_alerts"),
            recount.alerts(visits, capacities, self._promise.crowding, as_of),
        )
        self._compare_traced(visits)

    def _compare_traced(self, visits: list[Visit]) -> None:
        cases = self._cases()
        self._compare(
            "exposures",
            self._query(f"SELECT {_EXPOSURE} FROM checkins.exposures"),
            recount.exposures(visits, cases),
        )
        self._compare(
            "venue_warnings",
            self._query(f"SELECT {_WARNING} FROM checkins.venue_warnings"),
            recount.warnings(visits, cases),
        )

    def _cases(self) -> list[Case]:
        # The harness reports each once, infectious from instant to instant, and withdraws none.
        reports = [json.loads(record.value) for record in self._topic("case-reports") if record.value is not None]
        return [
            Case(
                report["case_id"],
                report["visitor_id"],
                recount.instant(report["infectious_from"]),
                recount.instant(report["infectious_until"]),
            )
            for report in reports
        ]

    def _as_of(self) -> int:
        [(as_of,)] = self._query("SELECT toUnixTimestamp64Milli(max(as_of)) FROM checkins.occupancy_now")
        return int(as_of)

    def _visits(self, as_of: int) -> tuple[list[Visit], dict[str, int]]:
        """The visits as of an instant, and the capacities of the venues that have one."""
        venues = self._registry()
        stays = {
            venue: self._promise.max_stay_by_category[record["category"]]
            for venue, record in venues.items()
            if record["category"] in self._promise.max_stay_by_category
        }
        capacities = {
            venue: record["capacity"] for venue, record in venues.items() if record.get("capacity") is not None
        }
        return recount.fold(self._scans, stays, self._promise.max_stay, as_of), capacities

    def _compare_what_is_past(self) -> None:
        """What no clock changes any more: whole minutes and hours, alerts that were cleared, visits but for whether they last."""
        before = self._as_of()
        visits, capacities = self._visits(before)
        shown = recount.views(visits, capacities, before)
        rows = self._query(f"SELECT {_COLUMNS['visits']} FROM checkins.visits")
        self._compare("visits", [_past(row, before) for row in rows], {_past(row, before) for row in shown["visits"]})
        for view, name, width in (("occupancy_minutes", "minute", 60), ("occupancy_hours", "hour", 3600)):
            last = before // 1000 - width
            rows = self._query(f"SELECT {_COLUMNS[view]} FROM checkins.{view} WHERE toUnixTimestamp({name}) <= {last}")
            self._compare(view, rows, {row for row in shown[view] if row[1] <= last})
        rows = self._query(
            f"SELECT {_ALERT} FROM checkins.crowding_alerts WHERE toUnixTimestamp64Milli(cleared_at) <= {before}"
        )
        true = recount.alerts(visits, capacities, self._promise.crowding, before)
        self._compare("crowding_alerts", rows, {row for row in true if row[4] is not None})
        self._compare_traced(visits)

    def _registry(self) -> dict[str, dict[str, Any]]:
        newest: dict[str, dict[str, Any]] = {}
        for record in self._topic("venues"):
            if record.value is None:
                newest.pop((record.key or b"").decode(), None)
            else:
                venue = json.loads(record.value)
                newest[venue["venue_id"]] = venue
        return newest

    def _compare_dead_letters(self) -> None:
        true = {
            ("check-ins", record.partition, record.offset, judged, recount.digest(record.value))
            for record, judged in zip(self._records, self._judged, strict=True)
            if isinstance(judged, str)
        }
        rows = self._query(
            "SELECT topic, partition, offset, reason, sha256 FROM checkins.dead_letters WHERE topic = 'check-ins'"
        )
        self._compare("dead_letters", rows, true)
        sent = set()
        for letter in self._topic("dead-letters"):
            told = {name: value.decode() for name, value in letter.headers}
            if told["topic"] == "check-ins":
                sent.add(
                    (
                        told["topic"],
                        int(told["partition"]),
                        int(told["offset"]),
                        told["reason"],
                        recount.digest(letter.value),
                    )
                )
        self._differ("topic dead-letters", sent, true)

    def _compare_outputs(self) -> None:
        for topic, (view, name, fields, times) in _OUTPUTS.items():
            newest: dict[str, dict[str, Any]] = {}
            told: dict[str, list[str]] = {}
            for record in self._topic(topic):
                if record.value is not None:
                    message = json.loads(record.value)
                    newest[message[name]] = message
                    state = "taken back" if _is_taken_back(message) else "stands"
                    told.setdefault(message[name], []).append(f"{record.timestamp} {state}")
            standing = {
                (each, *_shown({field: message[field] for field in fields}, times))
                for each, message in newest.items()
                if not _is_taken_back(message)
            }
            columns = [f"toUnixTimestamp64Milli({each})" if each in times else each for each in fields]
            rows = self._query(f"SELECT {name}, {', '.join(columns)} FROM checkins.{view}")
            stored = [(row[0], *_shown(dict(zip(fields, row[1:], strict=True)))) for row in rows]
            if self._rebuilt:
                ids = {row[0] for row in stored}
                standing = {row for row in standing if row[0] in ids}
            self.verdict.told[topic] = len(standing)
            for each, count in Counter(row[0] for row in rows).items():
                if count > 1:
                    self._say(view, f"{name} {each} is stored {count} times")
            self._differ(f"topic {topic}", standing, set(stored))
            for each in sorted({row[0] for row in standing ^ set(stored)})[:2]:
                self._say(f"topic {topic}", f"{each} was told so: {', '.join(told.get(each, ['never']))}")

    def _look_for_secrets(self, texts: Iterable[str]) -> None:
        places: list[tuple[str, str]] = [("a log or metric", text) for text in texts]
        for view in (*_COLUMNS, "scans", "dead_letters", "crowding_alerts", "cases", "exposures", "venue_warnings"):
            places.append((f"view {view}", str(self._query(f"SELECT * FROM checkins.{view}"))))
        for topic in _OUTPUTS:
            for record in self._topic(topic):
                places.append((f"topic {topic}", f"{record.key!r} {record.value!r} {record.headers!r}"))
        for letter in self._topic("dead-letters"):
            places.append(("a header of topic dead-letters", repr(letter.headers)))
        for place, text in places:
            for secret in self._promise.secrets:
                if secret in text:
                    self._say("raw identifier", f"{secret}… is in {place}")

    # --- how

    def _query(self, sql: str) -> list[Row]:
        return [tuple(row) for row in self._client.query(sql).result_rows]

    def _compare(self, view: str, rows: list[Row], true: set[Row]) -> None:
        self.verdict.rows += len(rows)
        twice = [row for row, times in Counter(rows).items() if times > 1]
        if twice:
            self._say(view, f"{len(twice)} rows are there more than once, such as {twice[0]}")
        self._differ(view, set(rows), true)

    def _differ(self, what: str, found: set[Any], true: set[Any]) -> None:
        for word, some in (("lacks", true - found), ("has too much", found - true)):
            if some:
                examples = "; ".join(map(str, sorted(some, key=str)[:SHOWN]))
                self._say(what, f"{word} {len(some)}: {examples}")

    def _say(self, what: str, text: str) -> None:
        self.verdict.wrong.append(f"{what}: {text}")


def _past(visit: Row, as_of: int) -> Row:
    # One that had not ended then may have by now.
    return visit if visit[3] <= as_of else (*visit[:4], None, visit[5])


def _shown(fields: dict[str, Any], times: Iterable[str] = ()) -> Row:
    """What a message must share with the view. The peak of a crowding that lasts rises without being told each time."""
    if "peak" in fields and fields["cleared_at"] is None:
        fields["peak"] = None
    for each in times:
        fields[each] = None if fields[each] is None else recount.instant(fields[each])
    return tuple(round(value, 6) if isinstance(value, float) else value for value in fields.values())


def _is_taken_back(message: Mapping[str, Any]) -> bool:
    if "raised_at" in message:
        return bool(message["cleared_at"] == message["raised_at"])
    return message.get("tier") == "withdrawn" or message.get("case_count") == 0
