"""The commands as a user runs them, on a real Kafka and real stores."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from pipeline.broker import start_broker
from pipeline.produce import ScanProducer
from pipeline.simulate.malformed import KINDS
from schemas.dead_letter import Reason
from tests.integration.checkins import (
    FREQUENT_WRITES,
    World,
    accounts,
    letters,
    read_topic,
    reason_of,
    refusals,
    valid_scans,
    view_differences,
    views_as_csv,
)
from tests.reference import DAY, HOUR, MINUTE, ROWS, Scan, expected_views, line_of
from tests.waiting import wait_until

pytestmark = pytest.mark.kafka

EVENTS = {**FREQUENT_WRITES, "PIPELINE_CLOCK": "events"}
OFFICE = '{"office": "PT12H"}'


class Journey(World):
    """A simulated day with a malformed line of every kind, drained twice and replayed."""

    def __init__(self, kafka: str, folder: Path) -> None:
        super().__init__(kafka, folder, **EVENTS, PIPELINE_MAX_STAY_BY_CATEGORY=OFFICE)
        self.registry_last, self.registry_first, self.replayed = (
            folder / name for name in ("last", "first", "replayed")
        )
        day, registry = folder / "day.ndjson", folder / "venues.csv"
        self.run("simulate", "--check-ins", 2_000, "--out", day, "--venues-out", registry)
        lines, chance = day.read_bytes().splitlines(), Random(1)
        whole = lines[0]
        for spoil, _ in KINDS.values():
            lines.insert(chance.randrange(len(lines)), spoil(whole, chance))
        day.write_bytes(b"\n".join([*lines, b""]))
        self.lines = lines

        self.run("topics")
        self.run("produce", day)
        self.drain(self.registry_last)
        self.run("venues", "load", registry)
        self.drain(self.registry_last)
        self.group += "-again"
        self.drain(self.registry_first)
        self.run("replay", day, "--venues", registry, "--store", self.replayed)


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    folder = tmp_path_factory.mktemp("journey")
    with start_broker(folder, 0, tied_to_us=True) as broker:
        yield Journey(broker.address, folder)


@pytest.fixture
def make_world(kafka_topics: Callable[..., str], tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(**settings: str) -> World:
        worlds.append(World(kafka_topics(), tmp_path, **settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def scans_of(visitors: range) -> list[bytes]:
    """A visit of an hour by each visitor, minutes apart."""
    start = 19_000 * DAY
    return [
        line_of(Scan(f"venue-{visitor % 50}", f"visitor-{visitor}", kind, start + visitor * 1_000 + stay))
        for visitor in visitors
        for kind, stay in (("check_in", 0), ("check_out", HOUR))
    ]


def test_what_a_worker_stores_is_byte_for_byte_what_a_replay_stores(journey: Journey) -> None:
    streamed, replayed = views_as_csv(journey.registry_first), views_as_csv(journey.replayed)
    assert streamed.keys() >= ROWS.keys()
    for view, rows in replayed.items():
        assert streamed[view] == rows, f"{view} differs"
    done = journey.run(
        "query", "SELECT * FROM visits ORDER BY ALL", "--format", "csv", "--store", journey.registry_first
    )
    assert done.stdout.encode() == replayed["visits"]
    assert len(done.stdout.splitlines()) > 1_000


def test_a_registry_loaded_after_the_scans_gives_the_same_views_as_one_before(journey: Journey) -> None:
    after, before = views_as_csv(journey.registry_last), views_as_csv(journey.registry_first)
    for view, rows in before.items():
        assert after[view] == rows, f"{view} differs"


def test_a_malformed_line_of_every_kind_is_a_dead_letter_and_stops_nothing(journey: Journey) -> None:
    refused = refusals(journey.kafka)
    assert len(refused) >= len(KINDS)
    shown = {(letter.partition, letter.offset): letter for letter in letters(journey.registry_first)}
    assert {place: letter.reason for place, letter in shown.items()} == {
        place: reason_of(record) for place, record in refused.items()
    }
    assert {letter.reason for letter in shown.values()} == {"not_json", "not_utf8", "too_large", "schema"}
    replayed = letters(journey.replayed)
    assert sorted((each.reason, each.detail, each.sha256) for each in replayed) == sorted(
        (each.reason, each.detail, each.sha256) for each in shown.values()
    )
    sent = {}
    for letter in read_topic(journey.kafka, "dead-letters"):
        headers = {name: value.decode() for name, value in letter.headers()}
        sent[int(headers["partition"]), int(headers["offset"])] = (headers["reason"], headers["detail"], letter.value())
    assert sent == {place: (shown[place].reason, shown[place].detail, each.value()) for place, each in refused.items()}
    rows = accounts(journey.registry_first)
    assert sum(row.consumed for row in rows.values()) == len(journey.lines)
    assert {partition: row.next_offset for partition, row in rows.items()} == journey.ends()


def test_the_topic_tells_of_every_alert_as_it_stands_in_the_end(journey: Journey) -> None:
    last = {
        record["alert_id"]: record
        for each in read_topic(journey.kafka, "crowding-alerts")
        for record in [json.loads(each.value())]
    }
    told = {
        (record["alert_id"], record["venue_id"], record["level"], record["raised_at"], record["cleared_at"])
        for record in last.values()
        if record["cleared_at"] != record["raised_at"]
    }
    written = "concat(replaceOne(toString({0}), ' ', 'T'), 'Z') AS {0}_written"
    times = ", ".join(written.format(column) for column in ("raised_at", "cleared_at"))
    query = f"SELECT alert_id, venue_id, level, {times} FROM crowding_alerts"
    shown = journey.run("query", query, "--format", "json", "--store", journey.registry_first).stdout
    assert told == {tuple(row.values()) for row in map(json.loads, shown.splitlines())}
    assert told


def test_with_the_wall_clock_a_record_is_judged_by_its_own_timestamp(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    world = make_world(PIPELINE_RETENTION="P10D")
    sent_at = int(time.time() * 1000) - 2 * DAY
    verdicts: list[tuple[int, Reason | None]] = [
        (sent_at, None),
        (sent_at - 10 * DAY, None),
        (sent_at - 10 * DAY - 1, "too_old"),
        (sent_at + 5 * MINUTE, None),
        (sent_at + 5 * MINUTE + 1, "from_the_future"),
        # In the past by now, but not when it was sent.
        (sent_at + DAY, "from_the_future"),
    ]
    with ScanProducer(world.kafka, "check-ins") as producer:
        for at, _ in verdicts:
            producer.send(b"v", line_of(Scan("v", "p", "check_in", at)), sent_at)
    world.drain(tmp_path / "store")
    found = {letter.offset: letter.reason for letter in letters(tmp_path / "store")}
    assert found == {offset: reason for offset, (_, reason) in enumerate(verdicts) if reason is not None}
    [row] = [row for row in accounts(tmp_path / "store").values() if row.consumed]
    assert (row.consumed, row.accepted, row.stored, row.dead_lettered) == (6, 3, 3, 3)


def test_a_second_worker_on_an_embedded_store_is_told_so_in_one_sentence(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    world, store = make_world(), tmp_path / "store"
    first = world.start_worker(store)
    first.wait_for("reading partitions")
    refused = world.run("worker", "--store", store, status=1)
    [sentence] = refused.stderr.splitlines()
    assert f"{store} is in use by process {first.process.pid}" in sentence
    assert first.stop() == 0, first.log


@pytest.mark.long
def test_sigterm_in_the_midst_of_work_ends_well_and_loses_nothing(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    world, store, lines = make_world(**EVENTS), tmp_path / "store", scans_of(range(6_000))
    worker = world.start_worker(store)
    worker.wait_for("reading partitions")
    with ScanProducer(world.kafka, "check-ins") as producer:
        producer.send_scans(lines[:2_000])
        producer.flush()
        wait_until(lambda: sum(world.committed().values()) > 0)
        producer.send_scans(lines[2_000:])
        producer.flush()
        assert worker.stop() == 0, worker.log
    stored = {partition: row.next_offset for partition, row in accounts(store).items()}
    committed = world.committed()
    assert committed == {partition: stored[partition] for partition in committed}
    world.drain(store)
    assert world.committed() == world.ends()
    found = view_differences(store, expected_views(valid_scans(lines)))
    assert not found, found


@pytest.mark.long
def test_a_worker_outlives_a_restart_of_kafka(tmp_path: Path) -> None:
    lines, store, home = scans_of(range(2_000)), tmp_path / "store", tmp_path / "broker"
    with start_broker(home, 0, tied_to_us=True) as broker:
        world = World(broker.address, tmp_path / "world", **EVENTS)
        try:
            world.run("topics")
            worker = world.start_worker(store)
            worker.wait_for("reading partitions")
            with ScanProducer(world.kafka, "check-ins") as producer:
                producer.send_scans(lines[:2_000])
            wait_until(lambda: world.committed() == world.ends())
            broker.stop()
            with start_broker(home, broker.port, tied_to_us=True):
                with ScanProducer(world.kafka, "check-ins") as producer:
                    producer.send_scans(lines[2_000:])
                wait_until(lambda: world.committed() == world.ends())
                assert worker.stop() == 0, worker.log
                assert "Traceback" not in worker.log
                world.drain(store)
        finally:
            world.close()
    found = view_differences(store, expected_views(valid_scans(lines)))
    assert not found, found


SLOW_PIPELINE = """
import time
from pipeline.cli import main
from pipeline.engine import Engine
process = Engine.process
def slowly(*arguments):
    time.sleep(0.3)
    return process(*arguments)
Engine.process = slowly
main()
"""


def test_a_drain_waits_for_what_is_read_and_not_yet_processed(
    make_world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, store, lines = make_world(**EVENTS), tmp_path / "store", scans_of(range(6_000))
    with ScanProducer(world.kafka, "check-ins") as producer:
        producer.send_scans(lines)
    command = World._command

    def slow_command(self: World, *arguments: object) -> list[str]:
        python, _, _, *rest = command(self, *arguments)
        return [python, "-c", SLOW_PIPELINE, *rest]

    monkeypatch.setattr(World, "_command", slow_command)
    assert world.drain(store)["scans"] == len(lines)
    assert {partition: row.next_offset for partition, row in accounts(store).items()} == world.ends()
