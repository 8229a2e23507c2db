"""Keys are rotated, renewed and destroyed while two gateways take scans: the visits stored are everybody's own, each once."""

import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.privacy.master import LocalMaster
from pipeline.privacy.ring import KeyRing
from pipeline.privacy.stays import Stays
from tests.gateway import make_ring, now_ms, rfc3339
from tests.integration.checkins import World
from tests.integration.test_gateway import Running, gateway
from tests.isolated import run_isolated
from tests.reference import DAY, HOUR, MINUTE, Scan, fold

pytestmark = [pytest.mark.kafka, pytest.mark.long]

_SENDERS = 3
_LEAST_PEOPLE = 40


def stays_of(person: int, edge: int) -> list[tuple[str, Literal["check_in", "check_out"], int]]:
    """Venue, in or out, when: a stay before the edge, one over it, one after it, and one over it that nothing ends."""
    at = edge + person * 7  # ms: no two of them at once
    return [
        ("office", "check_in", at - 3 * HOUR),
        ("office", "check_out", at - 2 * HOUR),
        ("mall", "check_in", at - 50 * MINUTE),
        ("mall", "check_in", at + 5 * MINUTE),
        ("mall", "check_out", at + 40 * MINUTE),
        ("cinema", "check_in", at - 30 * MINUTE),
        ("cinema", "check_in", at + 30 * MINUTE),
        ("kiosk", "check_in", at + 50 * MINUTE),
        ("kiosk", "check_out", at + 55 * MINUTE),
    ]


def send(gateways: list[Running], sender: int, edge: int, enough: threading.Event, sent: list[Scan]) -> None:
    """People of one sender, one after the other, their scans in any order and some of them twice, until it is enough."""
    chance = random.Random(sender)
    for person in range(100_000):
        if enough.is_set() and person >= _LEAST_PEOPLE:
            return
        number, stays = f"+62899{sender:02}{person:06}", Stays(timedelta(hours=4))
        scans: list[dict[str, Any]] = []
        for place, (venue, kind, at) in enumerate(stays_of(person, edge)):
            began = stays.began_at(venue, kind, at)
            scan = {
                "event_id": f"{sender}-{person}-{place}",
                "event_type": kind,
                "venue_id": f"{venue}-{sender}",
                "identifier": {"kind": "phone", "value": number},
                "occurred_at": rfc3339(at),
                **({} if began is None else {"stay_began_at": rfc3339(began)}),
            }
            scans += [scan] * chance.choice([1, 1, 1, 2])
            sent.append(Scan(f"{venue}-{sender}", number, kind, at))
        chance.shuffle(scans)
        while scans:
            batch, scans = scans[:4], scans[4:]
            confirm(chance.choice(gateways), batch)


def confirm(gateway: Running, batch: list[dict[str, Any]]) -> None:
    """Send them as any app would: again, until each is confirmed."""
    for _ in range(200):
        try:
            status, said = gateway.ask("POST", "/v1/scans/batch", batch)
        except (OSError, http.client.HTTPException):
            status, said = 0, b""
        if status == 200 and not json.loads(said)["refused"]:
            return
        assert status in (0, 200, 429, 503), said
        time.sleep(0.05)
    raise AssertionError(f"never confirmed: {status} {said!r}")


def visits(store: str) -> list[tuple[str, int, int, str, int]]:
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    sql = (
        "SELECT venue_id, toUnixTimestamp64Milli(checked_in_at), toUnixTimestamp64Milli(left_at), ended_by, party_size "
        "FROM visits"
    )
    client = open_store(Settings(store=Path(store)), read_only=True)
    return [tuple(row) for row in client.query(sql).result_rows]


def test_keys_rotated_under_load_lose_no_visit_and_double_none(
    tmp_path: Path, kafka_topics: Callable[..., str]
) -> None:
    address = kafka_topics(partitions=4)
    edge = (now_ms() - 6 * HOUR) // MINUTE * MINUTE
    folder = make_ring(tmp_path / "keys", edge - 20 * DAY)
    master = LocalMaster.from_file(folder / "master.key")
    KeyRing.open(folder).extend(master, now_ms())
    KeyRing.open(folder).cut(master, edge, edge - DAY)
    oldest = KeyRing.open(folder).periods[0].id
    world = World(address, tmp_path / "world", PIPELINE_KEYS=str(folder))
    homes = [tmp_path / name for name in ("one", "other")]
    for home in homes:
        home.mkdir()
    sent: list[list[Scan]] = [[] for _ in range(_SENDERS)]
    broken: list[BaseException] = []
    enough = threading.Event()
    with (
        gateway(homes[0], address, KEYS=str(folder)) as one,
        gateway(homes[1], address, KEYS=str(folder)) as other,
    ):

        def run(sender: int) -> None:
            try:
                send([one, other], sender, edge, enough, sent[sender])
            except BaseException as error:
                broken.append(error)

        senders = [threading.Thread(target=run, args=(each,)) for each in range(_SENDERS)]
        for each in senders:
            each.start()
        soon = (now_ms() + 15 * MINUTE) // MINUTE * MINUTE
        for command in (
            ["rotate"],
            ["rotate", "--at", rfc3339(soon)],
            ["rotate", "--master"],
            ["destroy", oldest, "--early"],
            ["rotate", "--master"],
        ):
            before = sum(map(len, sent))
            world.run("keys", *command)
            assert sum(map(len, sent)) > before or broken, "there was no load"
        enough.set()
        for each in senders:
            each.join()
    assert broken == []
    store = tmp_path / "store"
    world.drain(store)
    everybody = {scan for scans in sent for scan in scans}
    expected = Counter(
        (each.venue_id, each.checked_in_at, each.left_at, each.ended_by, each.party_size)
        for each in fold(everybody, {}, now_ms())
    )
    found = Counter(tuple(row) for row in run_isolated(visits, str(store)))
    assert len(everybody) > 1_000
    assert found == expected
    print(f"{len(everybody):,} scans, {found.total():,} visits", file=sys.stderr)
