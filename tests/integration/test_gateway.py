"""The gateway over a real Kafka: what it confirmed is there, once, under pseudonyms, however it ends."""

import asyncio
import http.client
import json
import re
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Message

from pipeline.broker import RunningBroker, find_broker, free_port, start_broker
from pipeline.gateway import outbox as outboxes
from pipeline.gateway.admission import Record
from pipeline.gateway.devices import add_device
from pipeline.gateway.outbox import Outbox
from pipeline.gateway.problems import ProblemError
from pipeline.gateway.producer import EdgeProducer
from pipeline.kafka_identity import authority_file, make_identity
from pipeline.privacy.master import LocalMaster
from pipeline.privacy.pseudonyms import Pseudonymiser
from pipeline.processes import end_process, tied
from pipeline.settings import load_settings
from pipeline.topic_admin import ensure_topics
from pipeline.topics import Topic
from schemas.gateway_scan import GatewayScan
from tests.gateway import make_ring, now_ms, rfc3339, scan
from tests.integration.checkins import read_topic
from tests.waiting import wait_until

pytestmark = pytest.mark.kafka

#: By kind, somebody's identifier as it is typed, and what of it would tell in whatever spelling.
PLANTED = {
    "phone": ("+62 (0)899-0000-4321", ["89900004321", "899-0000-4321", "899 0000 4321"]),
    "national_id": ("3171 0199 0490-0077", ["3171019904900077", "3171 0199 0490-0077", "0199 0490"]),
    "email": ("Budi.Rahasia@Example.COM", ["budi.rahasia", "rahasia@"]),
    "device": ("0F8FAD5B-D9CB-469F-A165-70867728950E", ["0f8fad5bd9cb469f", "d9cb-469f"]),
}


def records(address: str) -> list[Message]:
    return read_topic(address, "check-ins")


@dataclass
class Running:
    port: int
    process: psutil.Popen
    log: Path
    #: Whose certificates are believed; None for plain HTTP.
    trusted: Callable[[], ssl.SSLContext] | None = None

    def is_ready(self) -> bool:
        assert self.process.is_running(), self.log.read_text()
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            if self.trusted is None
            else http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=self.trusted())
        )
        try:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, raw, {"Content-Type": "application/json"} | headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def gateway(
    home: Path, address: str, trusted: Callable[[], ssl.SSLContext] | None = None, **settings: str
) -> Iterator[Running]:
    port = free_port()
    given = {"HOME": home, "KAFKA": address, "GATEWAY_PORT": port, "PHONE_COUNTRY": "62", **settings}
    log = home / "gateway.log"
    with log.open("ab") as out:
        process = psutil.Popen(
            tied([sys.executable, "-m", "pipeline", "gateway"]),
            env={"PATH": "", **{f"PIPELINE_{name}": str(value) for name, value in given.items()}},
            stdout=out,
            stderr=out,
            cwd=Path(__file__).resolve().parents[2],
        )
    try:
        running = Running(port, process, log, trusted)
        wait_until(running.is_ready)
        yield running
    finally:
        end_process(process, 15)


def test_a_renewed_certificate_is_shown_without_a_restart_and_scans_go_on(
    tmp_path: Path, kafka_topics: Callable[..., str]
) -> None:
    address = kafka_topics(partitions=1)
    make_ring(tmp_path / "keys")
    for authority in ("before", "after"):
        make_identity(tmp_path / authority, [])
    chain = tmp_path / "gateway.pem"
    chain.write_bytes((tmp_path / "before" / "broker.pem").read_bytes())

    def trusted(authority: str) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(authority_file(tmp_path / authority)))

    settings = {"GATEWAY_CERTIFICATE": str(chain), "GATEWAY_CERTIFICATE_KEY": str(chain)}
    with gateway(tmp_path, address, lambda: trusted("before"), **settings) as running:
        assert running.ask("POST", "/v1/scans", scan())[0] == 200
        chain.write_text("broken")
        wait_until(lambda: "going on with what was read before" in running.log.read_text())
        assert running.ask("POST", "/v1/scans", scan(event_id="e-2"))[0] == 200
        chain.write_bytes((tmp_path / "after" / "broker.pem").read_bytes())
        running.trusted = lambda: trusted("after")
        wait_until(running.is_ready)
        assert running.ask("POST", "/v1/scans", scan(event_id="e-3"))[0] == 200
    assert len(records(address)) == 3


def test_no_identifier_is_anywhere_but_in_the_request(tmp_path: Path, kafka_topics: Callable[..., str]) -> None:
    address = kafka_topics(partitions=4)
    make_ring(tmp_path / "keys")
    tokens = [add_device(tmp_path / "devices", "gate-7")]
    said: list[bytes] = []
    with gateway(tmp_path, address, GATEWAY_DEVICES=str(tmp_path / "devices")) as running:
        known = {"Authorization": f"Bearer {tokens[0]}"}
        for kind, (typed, forms) in PLANTED.items():
            who = {"kind": kind, "value": typed}
            plain = re.sub(r"[^A-Za-z0-9._:-]", "", typed)
            attempts: list[Any] = [
                scan(identifier=who, event_id=f"{kind}-1"),
                scan(identifier=who, event_id=plain),  # taken, and its event id does not go on as it is
                *(scan(identifier=who, event_id=form[:60].replace(" ", "").replace("@", ".")) for form in forms),
                scan(identifier=who, venue_id=plain),
                scan(identifier=who, venue_code=plain, venue_id=None),
                scan(identifier=who, source=plain),
                scan(identifier=who, event_type=typed),
                scan(identifier=who, occurred_at=typed),
                scan(identifier=who, note=typed),
                scan(identifier={"kind": typed, "value": typed}),
                scan(identifier=typed),
                scan() | {typed: typed},
            ]
            for number, attempt in enumerate(attempts):
                path = f"/v1/scans?who={plain}&n={number}" if number % 2 else "/v1/scans"
                said.append(running.ask("POST", path, attempt, **known)[1])
            said.append(running.ask("POST", "/v1/scans/batch", attempts, **known)[1])
            said.append(running.ask("POST", "/v1/scans", json.dumps(attempts[0]).encode()[:-9], **known)[1])
            said.append(running.ask("GET", f"/v1/visitors/{plain}", **known)[1])
            said.append(running.ask("POST", "/v1/scans", attempts[0], Authorization=f"Bearer {plain}")[1])
            said.append(
                running.ask("POST", "/v1/scans", attempts[0], **known, **{"X-Visitor": plain, "Referer": plain})[1]
            )
        said.append(running.ask("GET", "/metrics")[1])
    in_kafka = records(address)
    assert len(in_kafka) > len(PLANTED)
    kept = b"\n".join(b"%b %b %r" % (each.key(), each.value(), str(each.headers()).encode()) for each in in_kafka)
    on_disk = b"\n".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    places = {"Kafka": kept, "answers and metrics": b"\n".join(said), "the log and the folder": on_disk}
    told = [form for _, forms in PLANTED.values() for form in forms] + tokens
    found = [(name, form) for name, text in places.items() for form in told if form.lower().encode() in text.lower()]
    assert found == []
    assert {"email-1", "phone-1"} & {json.loads(each.value())["event_id"] for each in in_kafka} == set()


def test_what_was_confirmed_is_in_kafka_when_the_gateway_is_told_to_end_under_load(
    tmp_path: Path, kafka_topics: Callable[..., str]
) -> None:
    address = kafka_topics(partitions=4)
    folder = make_ring(tmp_path / "keys")
    confirmed: set[tuple[str, str]] = set()
    with gateway(tmp_path, address) as running:

        def send(sender: int) -> None:
            for number in range(10_000):
                who = {"kind": "phone", "value": f"+62899{sender:03}{number:05}"}
                batch = [scan(event_id=f"{sender}-{number}-{n}", venue_id=f"v-{n}", identifier=who) for n in range(20)]
                try:
                    status, said = running.ask("POST", "/v1/scans/batch", batch)
                except (OSError, http.client.HTTPException):
                    return
                if status == 200 and json.loads(said)["accepted"] == 20:
                    confirmed.update((each["venue_id"], who["value"]) for each in batch)

        senders = [threading.Thread(target=send, args=(each,)) for each in range(4)]
        for each in senders:
            each.start()
        wait_until(lambda: len(confirmed) >= 1_000)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        for each in senders:
            each.join()
    made = Pseudonymiser(folder, lambda: LocalMaster.from_file(folder / "master.key"))
    stored = {(record.key().decode(), json.loads(record.value())["visitor_id"]) for record in records(address)}
    missing = {
        (venue, who) for venue, who in confirmed if (venue, made.visitor_id("phone", who, now_ms())) not in stored
    }
    assert len(confirmed) >= 1_000
    assert missing == set()


@pytest.mark.long
def test_a_flood_of_half_requests_stops_nobody_and_is_let_go(tmp_path: Path, kafka_topics: Callable[..., str]) -> None:
    """Silent, slow, endless and senseless connections, while scans go on being confirmed."""
    address = kafka_topics(partitions=2)
    make_ring(tmp_path / "keys")
    head = b"POST /v1/scans HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with gateway(tmp_path, address) as running, ExitStack() as flood:
        before = running.process.memory_info().rss

        def connect(said: bytes) -> socket.socket:
            connection = flood.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=20))
            with suppress(OSError):  # it may be closed before all is said
                connection.sendall(said)
            return connection

        connections = [
            connect(said)
            for said in (
                b"",
                head,
                head + b"Content-Length: 900\r\n\r\n{",
                head + b"Transfer-Encoding: chunked\r\n\r\n",
            )
            for _ in range(150)
        ]
        connections += [connect(head + b"X-A: " + b"a" * (4 << 20)) for _ in range(20)]
        connections += [connect(b"\0\xff" * 2_000) for _ in range(50)]
        for number in range(50):
            assert running.ask("POST", "/v1/scans", scan(event_id=f"e-{number}"))[0] == 200
        assert running.process.memory_info().rss - before < 100 << 20
        deadline = time.monotonic() + 30
        for connection in connections:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            with suppress(ConnectionError):
                while connection.recv(65_536):
                    pass
        assert running.ask("POST", "/v1/scans", scan(event_id="after"))[0] == 200
    assert len(records(address)) == 51


def test_the_producer_library_sends_what_the_gateway_would(tmp_path: Path, kafka_topics: Callable[..., str]) -> None:
    address = kafka_topics(partitions=2)
    make_ring(tmp_path / "keys")
    settings = load_settings(home=tmp_path, kafka=address, phone_country="62")
    now = now_ms()
    check_in = scan(event_id="in", occurred_at=rfc3339(now - 60_000))
    check_out = scan(event_id="out", event_type="check_out", occurred_at=rfc3339(now))
    with EdgeProducer(settings, "loopback") as producer:
        ids = [
            producer.send(GatewayScan.model_validate(each | {"occurred_at": at}))
            for each, at in ((check_in, now - 60_000), (check_out, now))
        ]
        with pytest.raises(ProblemError):
            producer.send(GatewayScan.model_validate(check_in | {"occurred_at": now - 30 * 86_400_000}))
    by_library = sorted(record.value() for record in records(address))
    assert {json.loads(each)["event_id"] for each in by_library} == set(ids)
    with gateway(tmp_path, address) as running:
        for each in (check_in, check_out):
            assert running.ask("POST", "/v1/scans", each)[0] == 200
    assert sorted({record.value() for record in records(address)}) == by_library


def test_a_venue_that_joins_the_registrys_file_is_taken_by_gateways_that_run_and_others_by_none(
    tmp_path: Path, kafka_topics: Callable[..., str]
) -> None:
    address = kafka_topics(partitions=1)
    make_ring(tmp_path / "keys")
    venues = tmp_path / "venues.csv"
    venues.write_text("venue_id,name,category\nmall-0042,Taman Anggrek,mall\n")
    somebodys = scan(event_id="e-2", venue_id="6281234567890")
    settings = load_settings(home=tmp_path, kafka=address, phone_country="62", gateway_venues=venues)
    with EdgeProducer(settings, "gate-7") as producer, pytest.raises(ProblemError, match="no venue"):
        producer.send(GatewayScan.model_validate(somebodys | {"occurred_at": now_ms()}))
    with gateway(tmp_path, address, GATEWAY_VENUES=str(venues)) as running:
        assert running.ask("POST", "/v1/scans", somebodys)[0] == 422
        new = scan(venue_id="kiosk-7")
        assert running.ask("POST", "/v1/scans", new)[0] == 422
        with venues.open("a") as file:
            file.write("kiosk-7,Kiosk 7,minimarket\n")
        wait_until(lambda: running.ask("POST", "/v1/scans", new)[0] == 200)
    assert [each.key() for each in records(address)] == [b"kiosk-7"]


@pytest.mark.long
def test_while_kafka_is_away_senders_are_told_and_afterwards_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """The broker hangs and goes on; with `make faults` it is killed and started again, which takes Kafka half a minute."""
    killed = pytestconfig.getoption("--faults")
    monkeypatch.setattr(outboxes, "CONFIRM_SECONDS", 1.0)

    def record(number: int) -> Record:
        return Record(b"mall", b'{"n":%d}' % number, str(number), "p", None)

    async def run(broker: RunningBroker) -> None:
        outbox = Outbox(broker.address, "check-ins", 3, lambda: None)
        await outbox.start()
        await outbox.send([record(0)])
        assert await outbox.answers()
        if killed:
            broker.process.kill()
            broker.process.wait()
        else:
            broker.process.suspend()
        for number in (1, 2, 3):
            with pytest.raises(ProblemError) as told:
                await outbox.send([record(number)])
            assert (told.value.kind.status, told.value.retry_after) == (503, 5)
        assert outbox.pending == 3
        with pytest.raises(ProblemError) as full:
            await outbox.send([record(4)])
        assert full.value.kind.name == "busy"
        assert not await outbox.answers()
        if killed:
            await asyncio.to_thread(start_broker, tmp_path, broker.port, tied_to_us=True)
        else:
            broker.process.resume()
        await asyncio.to_thread(wait_until, lambda: outbox.pending == 0)
        await outbox.send([record(5)])
        found = [json.loads(each.value())["n"] for each in await asyncio.to_thread(records, broker.address)]
        # Those that nobody could tell of: once each, or never.
        assert {0, 5} <= set(found) <= {0, 1, 2, 3, 5}
        assert len(found) == len(set(found))
        await outbox.close()

    started = start_broker(tmp_path, 0, tied_to_us=True)
    try:
        ensure_topics(started.address, [Topic("check-ins", 2)])
        asyncio.run(run(started))
    finally:
        (find_broker(tmp_path) or started).stop()
