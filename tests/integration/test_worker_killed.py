"""A worker killed at random moments, with a real Kafka and a real store, changes no row of any view."""

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.produce import ScanProducer
from pipeline.simulate.day import DayPlan
from pipeline.simulate.malformed import KINDS
from pipeline.simulate.options import SimulationOptions
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
)
from tests.reference import HOUR, MINUTE, expected_views, line_of

pytestmark = [pytest.mark.kafka, pytest.mark.long]

CHECK_INS_PER_ROUND = 3_250
STAYS = {"office": 12 * HOUR, "restaurant": 90 * MINUTE}
SETTINGS = {
    **FREQUENT_WRITES,
    "PIPELINE_CLOCK": "events",
    # The least: so that scans a little late are corrected from the store as well.
    "PIPELINE_LATE_WINDOW": "PT2H",
    "PIPELINE_MAX_STAY_BY_CATEGORY": '{"office": "PT12H", "restaurant": "PT90M"}',
}


@pytest.fixture
def world(kafka_topics: Callable[..., str], tmp_path: Path) -> Iterator[World]:
    world = World(kafka_topics(), tmp_path, **SETTINGS)
    yield world
    world.close()


def all_lines(plan: DayPlan, chance: random.Random) -> list[bytes]:
    """A simulated day in order of arrival, with more of what makes a difference to whoever forgets something."""
    lines = [line for batch in plan.batches() for line in batch.lines]
    scans = valid_scans(lines)
    few = len(scans) // 30
    added = [line_of(scan) for scan in chance.sample(scans, few)]
    for scan in chance.sample(scans, few):
        added.append(line_of(replace(scan, party_size=chance.randint(1, 50), event_id=f"again-{chance.random()}")))
    for scan in chance.sample(scans, few):
        # A check-in while one is open is a rescan, later it is a visit, and one just before the other takes its place.
        later = scan.occurred_at_ms + chance.randint(-20, 300) * MINUTE
        added.append(line_of(replace(scan, occurred_at_ms=later, event_id=f"rescan-{chance.random()}")))
    added += [spoil(chance.choice(added), chance) for spoil, _ in KINDS.values() for _ in range(5)]
    for line in added:
        lines.insert(chance.randrange(len(lines)), line)
    held_back = set(chance.sample(range(len(lines)), len(lines) // 20))
    punctual = [line for at, line in enumerate(lines) if at not in held_back]
    for at in sorted(held_back):
        punctual.insert(chance.randrange(min(at, len(punctual)), len(punctual) + 1), lines[at])
    return punctual


def test_sigkill_at_random_moments_changes_no_row(world: World, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    rounds = 20 if pytestconfig.getoption("--faults") else 4
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, {rounds} rounds")
    chance = random.Random(seed)
    plan = DayPlan(SimulationOptions(check_ins=CHECK_INS_PER_ROUND * rounds, seed=seed))
    venues = list(plan.venues())
    registry = tmp_path / "venues.ndjson"
    registry.write_text("".join(json.dumps(venue.model_dump(exclude_none=True)) + "\n" for venue in venues))
    lines = all_lines(plan, chance)
    store = tmp_path / "store"
    piece = len(lines) // (rounds * 30)
    registered_in = chance.randrange(rounds)
    sent = behind = 0

    with ScanProducer(world.kafka, "check-ins") as producer:
        for number in range(rounds):
            worker = world.start_worker(store)
            if chance.random() < 0.8:
                worker.wait_for("reading partitions")
            if number == registered_in:
                world.run("venues", "load", registry)
            end = time.monotonic() + chance.uniform(0, 2.5)
            while time.monotonic() < end:
                producer.send_scans(lines[sent : sent + piece])
                sent += piece
                time.sleep(chance.uniform(0, 0.1))
            worker.kill()
            producer.flush()
            ends, stored, committed = world.ends(), accounts(store) if store.exists() else {}, world.committed()
            behind += any(
                partition not in stored or stored[partition].next_offset < ends[partition] for partition in ends
            )
            for partition, offset in committed.items():
                assert offset <= stored[partition].next_offset, (
                    f"partition {partition} is committed before it is stored"
                )
            world.forget_the_dead()
        producer.send_scans(lines[sent:])
    assert behind, "each worker was killed with nothing to do: this shows nothing"
    world.drain(store)

    expected = expected_views(
        valid_scans(lines),
        {venue.venue_id: STAYS[venue.category] for venue in venues if venue.category in STAYS},
        {venue.venue_id: venue.capacity for venue in venues if venue.capacity is not None},
    )
    found = view_differences(store, expected)
    assert not found, found

    refused = refusals(world.kafka)
    rows, ends = accounts(store), world.ends()
    assert sum(ends.values()) == len(lines)
    for partition, row in rows.items():
        assert row.next_offset == row.consumed == ends[partition]
        assert row.consumed == row.accepted + row.dead_lettered
        assert row.accepted == row.stored + row.duplicates
        assert row.dead_lettered == sum(place[0] == partition for place in refused)
    assert rows.keys() == ends.keys()
    assert world.committed() == ends
    assert sum(row.stored for row in rows.values()) == len(expected["scans"])

    assert {(letter.partition, letter.offset): letter.reason for letter in letters(store)} == {
        place: reason_of(record) for place, record in refused.items()
    }
    sent_letters = {}
    for letter in read_topic(world.kafka, "dead-letters"):
        headers = {name: value.decode() for name, value in letter.headers()}
        assert headers["topic"] == "check-ins"
        sent_letters[int(headers["partition"]), int(headers["offset"])] = (headers["reason"], letter.value())
    assert sent_letters == {place: (reason_of(record), record.value()) for place, record in refused.items()}

    world.run("verify", "--store", store)
