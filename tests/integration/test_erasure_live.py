"""A visitor is erased beside the worker that reads its scans, and nothing of it comes back."""

import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from pipeline.access.roles import Role
from pipeline.access.tokens import TokenFile
from pipeline.audit import AuditLog
from pipeline.settings import Settings
from pipeline.store.erasure import _HURRIED, _OF_PERSONS
from tests.faults.world import World as ServedWorld
from tests.integration.checkins import Worker, World, accounts, view_differences
from tests.integration.test_erasure import CASES, GONE, MONDAY, SCANS
from tests.over_http import asked_by
from tests.reference import DAY, HOUR, Scan, expected_views, line_of
from tests.views import differences, read_views
from tests.waiting import wait_until

pytestmark = pytest.mark.kafka

LATER = [
    Scan("cafe", GONE, "check_in", MONDAY + 2 * DAY + 16 * HOUR),
    Scan("cafe", "other", "check_in", MONDAY + 2 * DAY + 17 * HOUR),
]


class Site:
    """A worker's HTTP side, for who holds a token."""

    def __init__(self, worker: Worker, settings: Settings) -> None:
        worker.wait_for("reading partitions")
        match = re.search(r"probes at (http://\S+)", worker.log)
        assert match, worker.log
        self._url = match[1]
        tokens = TokenFile(settings.tokens_path)
        self._held = {role: tokens.create(role, (role,), 1) for role in (Role.ADMIN, Role.TRACER)}

    def ask(self, role: Role, path: str, body: Any = None) -> tuple[int, Any]:
        """One request, for the purpose of a legal request."""
        return asked_by(self._held[role], "legal-request", f"{self._url}/api/v1{path}", body)

    def consumed(self) -> float:
        """Scans read so far."""
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=20) as answer:
            found = re.search(r"^pipeline_scans_consumed_total (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def cases(self) -> list[str]:
        """The cases that tracers see."""
        return sorted(case["case_id"] for case in self.ask(Role.TRACER, "/cases")[1]["items"])


def send(kafka: str, topic: str, records: list[tuple[str, bytes]]) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for key, value in records:
        producer.produce(topic, value, key.encode())
    assert producer.flush(60) == 0


def test_an_erased_visitor_is_in_no_view_while_the_worker_goes_on(
    kafka_topics: Callable[..., str], tmp_path: Path
) -> None:
    kafka, store = kafka_topics(), tmp_path / "store"
    world = World(kafka, tmp_path, PIPELINE_CLOCK="events", PIPELINE_PURPOSES='["legal-request"]')
    settings = Settings(home=tmp_path / "home")
    try:
        worker = world.start_worker(store)
        site = Site(worker, settings)
        send(kafka, "check-ins", [(scan.venue_id, line_of(scan)) for scan in SCANS])
        send(kafka, "case-reports", [(case["case_id"], json.dumps(case).encode()) for case in CASES])
        wait_until(lambda: site.consumed() == len(SCANS))
        wait_until(lambda: site.cases() == ["c-gone", "c-stays"])

        assert site.ask(Role.TRACER, "/erasures", {"visitor_id": GONE})[0] == 403
        status, told = site.ask(Role.ADMIN, "/erasures", {"visitor_id": GONE})
        assert status == 200, (told, worker.log)
        # ClickHouse keeps replaced parts for some minutes, and the receipt does not hide it.
        proof = {"digest": sha256(GONE.encode()).hexdigest(), "scans": 8, "off_the_disk": False}
        assert told == {"receipt": told["receipt"], **proof}
        assert site.cases() == ["c-stays"]
        # Again, as after an answer that was lost: the receipt stays the same.
        assert site.ask(Role.ADMIN, "/erasures", {"visitor_id": GONE}) == (200, told)

        send(kafka, "check-ins", [(scan.venue_id, line_of(scan)) for scan in LATER])
        wait_until(lambda: site.consumed() == len(SCANS) + len(LATER))
        assert worker.stop() == 0, worker.log
        # What was erased is not taken a second time either.
        assert sum(account.stored for account in accounts(store).values()) == len(SCANS) + 1
        others = [scan for scan in [*SCANS, *LATER] if scan.visitor_id != GONE]
        as_of = max(scan.occurred_at_ms for scan in [*SCANS, *LATER])
        assert view_differences(store, expected_views(others, {}, {}, as_of)) == ""
        world.run("verify", "--store", store)
        noted = [(each["who"], each["action"]) for each in AuditLog(settings.audit_path).entries()]
        assert noted.count(("token:admin", "api erases")) == 2
    finally:
        world.close()


def left_of(client: Any) -> dict[str, int]:
    """Rows that hold the erased pseudonym or the visitor's case, by table and column, where there are any."""
    columns = client.query(
        "SELECT table, name FROM system.columns WHERE database = 'checkins' AND table IN "
        "(SELECT name FROM system.tables WHERE database = 'checkins' AND engine LIKE '%MergeTree')"
    ).result_rows
    found = {
        f"{table}.{name}": client.query(
            f"SELECT count() FROM {table} WHERE multiSearchAny(toString({name}), ['{GONE}', 'c-gone'])"
        ).result_rows[0][0]
        for table, name in columns
    }
    return {place: count for place, count in found.items() if count}


@contextmanager
def scanning_on(kafka: str, scans: Iterator[Scan]) -> Iterator[list[Scan]]:
    """Within the block somebody goes on scanning, five times a second; gives what was sent."""
    sent: list[Scan] = []
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(0.2):
            sent.append(next(scans))
            send(kafka, "check-ins", [(sent[-1].venue_id, line_of(sent[-1]))])

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


@pytest.mark.long
def test_an_erased_visitor_who_goes_on_scanning_is_in_no_view_while_the_workers_of_a_server_go_on(
    tmp_path: Path,
) -> None:
    world = ServedWorld(tmp_path, 2, {"PIPELINE_CLOCK": "events", "PIPELINE_PURPOSES": '["legal-request"]'})
    try:
        workers = [world.start_worker() for _ in range(2)]
        for worker in workers:
            wait_until(lambda worker=worker: "reading partitions" in worker.log)  # type: ignore[misc]
        client = world.client()
        client.database = "checkins"
        hurried = ", ".join(f"{name} = {seconds}" for name, seconds in _HURRIED.items())
        for table in _OF_PERSONS:
            client.command(f"ALTER TABLE {table} MODIFY SETTING {hurried}")
        send(world.kafka, "check-ins", [(scan.venue_id, line_of(scan)) for scan in SCANS])
        send(world.kafka, "case-reports", [(case["case_id"], json.dumps(case).encode()) for case in CASES])

        def rows(sql: str) -> list[Any]:
            return [row[0] for row in client.query(sql).result_rows]

        def erased() -> dict[str, Any]:
            receipt: dict[str, Any] = json.loads(world.run("erase", GONE, "--purpose", "legal-request").splitlines()[0])
            return receipt

        wait_until(lambda: rows("SELECT count() FROM scans") == [len(SCANS)])
        wait_until(lambda: rows("SELECT case_id FROM cases ORDER BY case_id") == ["c-gone", "c-stays"])
        assert GONE in rows("SELECT DISTINCT visitor_id FROM visits")
        told = "SELECT count() FROM published_rows WHERE key = 'c-gone' AND startsWith(topic, '{}')"
        wait_until(lambda: rows(told.format("telling/exposures/"))[0] and rows(told.format("exposures"))[0])

        restless = (
            Scan(("cafe", "museum", "bar")[i % 3], GONE, "check_in", MONDAY + 2 * DAY + 16 * HOUR + i) for i in count()
        )
        with scanning_on(world.kafka, restless) as sent:
            receipt = erased()
        assert 8 < receipt["scans"] < 8 + len(sent)
        assert left_of(client) == {}
        # Again, as after an answer that was lost: the receipt stays the same, and says when the disk is rid of the visitor.
        wait_until(lambda: erased() == receipt | {"off_the_disk": True})

        send(world.kafka, "check-ins", [(scan.venue_id, line_of(scan)) for scan in LATER])
        wait_until(lambda: rows("SELECT sum(consumed) FROM accounting") == [len(SCANS) + len(sent) + len(LATER)])
        assert [worker.stop() for worker in workers] == [0, 0], [worker.log for worker in workers]
        # What was erased is not taken a second time either.
        assert rows("SELECT sum(stored) FROM accounting") == [len(SCANS) - 8 + receipt["scans"] + 1]
        others = [scan for scan in [*SCANS, *LATER] if scan.visitor_id != GONE]
        as_of = max(scan.occurred_at_ms for scan in [*SCANS, *LATER])
        assert sent[-1].occurred_at_ms < as_of
        assert differences(read_views(client), expected_views(others, {}, {}, as_of)) == ""
        assert rows("SELECT case_id FROM cases") == ["c-stays"]
        world.run("verify")
    finally:
        world.close()
