"""The gateway takes what is right, refuses the rest in words that hold nothing of it, and lets no identifier through."""

import asyncio
import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from jsonschema import Draft202012Validator

from pipeline.core.decode import SKEW_MS as WORKERS_SKEW_MS
from pipeline.core.judge import judge_scan
from pipeline.errors import UserError
from pipeline.gateway import app, problems
from pipeline.gateway.admission import SKEW_MS, Admission
from pipeline.gateway.app import LARGEST_BATCH, LARGEST_SCAN, MOST_SCANS
from pipeline.gateway.devices import Devices, add_device
from pipeline.gateway.known_venues import KnownVenues
from pipeline.gateway.metrics import MEANINGS, GatewayMetrics
from pipeline.gateway.problems import BUSY, KAFKA_AWAY, ProblemError
from pipeline.gateway.quotas import Quotas
from pipeline.gateway.server import serve_gateway
from pipeline.privacy.master import LocalMaster
from pipeline.privacy.ring import KeyRing
from pipeline.settings import load_settings
from schemas.export import HERE
from schemas.gateway_scan import GatewayScan
from schemas.scan import Scan
from tests.gateway import PHONE, Site, make_ring, now_ms, rfc3339, scan, site

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ring(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def here(ring: Path) -> Site:
    return site(ring)


def sent(where: Site) -> list[Scan]:
    """What went to Kafka, as the worker judges it."""
    scans = [judge_scan(record.value) for record in where.outbox.sent]
    assert all(isinstance(each, Scan) for each in scans), scans
    return scans  # type: ignore[return-value]


def test_a_scan_goes_out_with_a_pseudonym_under_its_venues_key(here: Site) -> None:
    at = now_ms()
    answer = here.send(scan(occurred_at=rfc3339(at), party_size=3, source="gate"))
    assert (answer.status, answer.json["status"]) == (200, "accepted")
    (out,) = sent(here)
    assert here.outbox.sent[0].key == b"mall-0042"
    assert (out.venue_id, out.event_type, out.occurred_at, out.party_size, out.source) == (
        "mall-0042",
        "check_in",
        at,
        3,
        "gate",
    )
    assert re.fullmatch(r"p\d{12}\.[A-Za-z0-9_-]{22}", out.visitor_id)
    assert out.event_id == answer.json["event_id"] != "e-1"


def test_the_same_person_has_the_same_pseudonym_however_the_number_is_typed(here: Site) -> None:
    for number, typed in enumerate([PHONE, "0899 0000 1234", "0062(0)89900001234"]):
        assert here.send(scan(event_id=f"e-{number}", identifier={"kind": "phone", "value": typed})).status == 200
    assert len({each.visitor_id for each in sent(here)}) == 1


def test_a_scan_sent_again_is_one_scan_and_its_event_id_serves_no_other(here: Site) -> None:
    first = scan()
    assert [here.send(first).json["status"] for _ in range(3)] == ["accepted", "duplicate", "duplicate"]
    assert len(here.outbox.sent) == 1
    other = here.send(first | {"party_size": 2})
    assert (other.status, other.json["type"]) == (409, "urn:check-ins:problem:event-id-reused")
    batch = here.send(first, first | {"event_id": "e-2"}, first | {"party_size": 2})
    assert (batch.status, batch.json["accepted"], batch.json["duplicates"]) == (207, 1, 1)
    assert [each["index"] for each in batch.json["refused"]] == [2]


def test_a_scan_that_kafka_did_not_confirm_is_sent_again_when_it_comes_again(here: Site) -> None:
    first = scan()
    here.outbox.problem = ProblemError(KAFKA_AWAY, "it is not known", 5)
    answer = here.send(first)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert here.ask("/readyz", method="GET").status == 503
    here.outbox.problem = None
    assert here.send(first).json["status"] == "accepted"
    assert len(here.outbox.sent) == 1
    assert here.ask("/readyz", method="GET").status == 200


def test_back_pressure_is_503_with_a_time_to_wait(here: Site) -> None:
    here.outbox.problem = ProblemError(BUSY, "too much", 1)
    for answer in (here.send(scan()), here.send(scan(), scan(event_id="e-2"))):
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
    assert here.outcome("busy") == 3


def test_a_bad_scan_in_a_batch_is_told_by_its_place_and_the_others_go_on(here: Site) -> None:
    batch = [scan(event_id=f"e-{number}") for number in range(4)]
    batch[1]["party_size"] = 0
    batch[2] = 7  # type: ignore[assignment]
    answer = here.ask("/v1/scans/batch", batch)
    assert (answer.status, answer.json["accepted"]) == (207, 2)
    assert [(each["index"], each["status"], each["detail"]) for each in answer.json["refused"]] == [
        (1, 422, "party_size: must be an integer from 1 to 50"),
        (2, 422, "must be a JSON object"),
    ]
    assert here.send(batch[1]).status == 422
    assert here.outcome("accepted") == 2
    assert here.outcome("invalid-scan") == 3


SECRET = "3171019904900077"


@pytest.mark.parametrize(
    "bad",
    [
        {"event_id": f"{SECRET} x"},
        {"event_id": 3171019904900077},
        {"event_type": SECRET},
        {"venue_id": f"{SECRET}/"},
        {"venue_id": None},
        {"venue_code": SECRET},
        {"venue_id": None, "venue_code": SECRET},
        {"venue_id": SECRET, "identifier": {"kind": "national_id", "value": SECRET}},
        {"venue_id": "3171-0199-0490-0077", "identifier": {"kind": "national_id", "value": "3171.0199.0490.0077"}},
        {"venue_id": "mall-08990000" + "1234"},
        {"identifier": SECRET},
        {"identifier": {"kind": "passport", "value": SECRET}},
        {"identifier": {"kind": "phone", "value": SECRET}},
        {"identifier": {"kind": "national_id", "value": SECRET * 3}},
        {"identifier": {"kind": "national_id", "value": SECRET, SECRET: SECRET}},
        {"identifier": {"kind": "email", "value": SECRET}},
        {"identifier": None},
        {"occurred_at": SECRET},
        {"occurred_at": 3171019904900},
        {"stay_began_at": SECRET},
        {"party_size": 3171019904900077},
        {"source": SECRET},
        {"phone": SECRET},
        {SECRET: "phone"},
    ],
)
def test_what_breaks_a_rule_is_refused_without_being_repeated(
    here: Site, caplog: pytest.LogCaptureFixture, bad: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    for answer in (here.send(scan(**bad)), here.send(scan(event_id="good"), scan(**bad))):
        assert answer.status in (207, 422)
        assert answer.body.count(b'"detail":') == 1
        assert not re.search(rb"317101|904900", answer.body)
    assert [record.event_id for record in here.outbox.sent] == [here.outbox.sent[0].event_id]
    assert "317101" not in caplog.text
    assert b"317101" not in here.gateway.metrics.exposition()


VENUES = "venue_id,name,category\nmall-0042,Taman Anggrek,mall\n"


def test_a_gateway_that_knows_its_venues_takes_nobodys_number_for_one(ring: Path, tmp_path: Path) -> None:
    (tmp_path / "venues.csv").write_text(VENUES)
    where = site(ring, venues=KnownVenues(tmp_path / "venues.csv"))
    assert where.send(scan()).status == 200
    # Another person's number, and another identifier of the person who is scanned.
    for somebodys in ("6281234567890", SECRET, "budi.rahasia"):
        answer = where.send(scan(event_id="e-2", venue_id=somebodys))
        assert (answer.status, answer.json["detail"]) == (422, "venue_id: is no venue that is known here")
        assert somebodys.encode() not in answer.body
    assert [each.venue_id for each in sent(where)] == ["mall-0042"]


def test_a_changed_file_of_venues_is_taken_up_and_a_damaged_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "venues.csv"
    path.write_text(VENUES)
    venues = KnownVenues(path)
    path.write_text(VENUES + "kiosk-7,Kiosk 7,minimarket\n")
    venues.refresh()
    assert "kiosk-7" in venues
    for text, why in ((VENUES + "a b,A,mall\n", "line 3: venue_id"), ("venue_id,name,category\n", "holds no venue")):
        path.write_text(text)
        with pytest.raises(UserError, match=why):
            venues.refresh()
        with pytest.raises(UserError, match=why):
            KnownVenues(path)
        assert "kiosk-7" in venues
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        venues.refresh()


@pytest.mark.parametrize("body", [b"", b"{", b"[1", b"\xff", b'{"a": NaN}', b"[" * 5000, b'"x"'])
def test_what_is_no_json_of_a_scan_is_refused(here: Site, body: bytes) -> None:
    assert here.ask("/v1/scans", body).status in (400, 422)
    assert here.ask("/v1/scans/batch", body).status == 400


def test_bodies_and_batches_have_limits_with_and_without_a_length(here: Site) -> None:
    for path, largest in (("/v1/scans", LARGEST_SCAN), ("/v1/scans/batch", LARGEST_BATCH)):
        body = b" " * (largest + 1)
        for headers in ({}, {"content-length": ""}, {"content-length": str(10**30)}):
            assert here.ask(path, body, headers).status == 413
    many = [scan(event_id=f"e-{number}") for number in range(MOST_SCANS + 1)]
    assert here.ask("/v1/scans/batch", many).status == 413
    assert here.ask("/v1/scans/batch", [*many[:-1]]).json["accepted"] == MOST_SCANS
    assert here.ask("/v1/scans/batch", []).json == {"accepted": 0, "duplicates": 0, "refused": []}


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-encoding": "gzip"},
        {"content-type": ""},
    ],
)
def test_only_plain_json_is_taken(here: Site, headers: dict[str, str]) -> None:
    assert here.send(scan(), **headers).status == 415
    assert here.send(scan(), **{"content-type": "application/json;charset=UTF-8"}).status == 200


def test_without_tokens_a_page_from_elsewhere_sends_nothing_by_a_name_that_leads_here(here: Site) -> None:
    assert here.send(scan(), host="check-ins.example").status == 421
    assert here.outbox.sent == []
    assert here.send(scan(), host="127.0.0.1:8090").status == 200


def test_a_body_that_does_not_come_ends_its_request(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.05)
    said: list[dict[str, Any]] = []

    async def run() -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.sleep(60)
            raise AssertionError("nobody waited so long")

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        headers = [(b"content-type", b"application/json"), (b"content-length", b"50")]
        scope = {"method": "POST", "path": "/v1/scans", "headers": headers}
        request = asyncio.create_task(here.gateway(scope, receive, send))
        while not request.done():
            await asyncio.sleep(0.02)
            here.gateway.give_up_on_slow_bodies()
        await request

    asyncio.run(run())
    assert said[0]["status"] == 408
    assert here.gateway.under_way == len(here.gateway.reading) == 0


@pytest.mark.parametrize(("path", "method", "status"), [("/v1/scans", "GET", 405), ("/3171019904900077", "POST", 404)])
def test_other_addresses_and_methods_are_refused_without_being_repeated(
    here: Site, path: str, method: str, status: int
) -> None:
    answer = here.ask(path, scan(), method=method)
    assert answer.status == status
    assert b"3171" not in answer.body


def test_times_are_judged_as_the_worker_would_with_words_for_the_sender(here: Site) -> None:
    assert SKEW_MS == WORKERS_SKEW_MS
    now = now_ms()
    late = scan(occurred_at=rfc3339(now - 15 * DAY))
    early = scan(occurred_at=rfc3339(now + 10 * MINUTE))
    reversed_ = scan(occurred_at=rfc3339(now), stay_began_at=rfc3339(now + 1))
    long = scan(occurred_at=rfc3339(now), stay_began_at=rfc3339(now - 2 * DAY - 1))
    for bad in (late, early, reversed_, long):
        answer = here.send(bad)
        assert (answer.status, answer.json["type"]) == (422, "urn:check-ins:problem:invalid-time")
    assert here.send(scan(occurred_at=rfc3339(now - 13 * DAY))).status == 200


def test_a_check_out_goes_under_the_pseudonym_of_its_check_in(tmp_path: Path) -> None:
    folder = make_ring(tmp_path / "keys")
    ring, now = KeyRing.open(folder), now_ms()
    edge = next(each.starts_at for each in ring.periods if each.starts_at <= now < each.ends_at)
    if edge < now - 12 * DAY:  # a young period, so that both sides of its edge can still be sent
        edge = ring.cut(LocalMaster.from_file(folder / "master.key"), (now // MINUTE + 11) * MINUTE, now).starts_at
    where = site(folder, retention="P30D")
    for number, (kind, at, began) in enumerate(
        [("check_in", edge - HOUR, None), ("check_out", edge + 1, edge - HOUR), ("check_in", edge + 1, None)]
    ):
        body = scan(
            event_id=f"e-{number}",
            event_type=kind,
            occurred_at=rfc3339(at),
            stay_began_at=None if began is None else rfc3339(began),
        )
        record = Admission.admit(where.gateway.admission, _parsed(body), "gate", max(now, at))
        where.outbox.sent.append(record)
    first, second, third = sent(where)
    assert first.visitor_id == second.visitor_id != third.visitor_id


def test_a_key_that_will_come_is_worth_waiting_for_and_a_destroyed_one_is_not(tmp_path: Path) -> None:
    folder, now = make_ring(tmp_path / "keys"), now_ms()
    where = site(folder)
    end = KeyRing.open(folder).periods[-1].ends_at
    with pytest.raises(ProblemError) as lacking:
        where.gateway.admission.admit(_parsed(scan(occurred_at=rfc3339(end))), "gate", end)
    assert (lacking.value.kind.status, lacking.value.retry_after) == (503, 60)

    past = KeyRing.open(folder).periods[0]
    KeyRing.open(folder).destroy(
        LocalMaster.from_file(folder / "master.key"), past.id, now, load_settings().retention, early=True
    )
    late = scan(occurred_at=rfc3339(past.ends_at - 1))
    refused = site(folder, retention="P60D").send(late)
    assert (refused.status, refused.json["detail"]) == (422, "occurred_at: the key of its period is destroyed")


def _parsed(body: dict[str, Any]) -> Any:
    from schemas.gateway_scan import GatewayScan

    return GatewayScan.model_validate_json(json.dumps(body))


def test_devices_are_known_by_their_tokens_alone(ring: Path, tmp_path: Path) -> None:
    path = tmp_path / "devices"
    token = add_device(path, "gate-7")
    add_device(path, "gate-8")
    assert token not in path.read_text()
    devices = Devices(path)
    where = site(ring, devices)
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {token}"},
        {"authorization": "Bearer"},
    ):
        refused = where.send(scan(), **headers)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer realm="check-ins"')
    assert where.send(scan(), authorization=f"Bearer {token}").status == 200
    with pytest.raises(UserError, match="already"):
        add_device(path, "gate-7")
    with pytest.raises(UserError, match="name has"):
        add_device(path, "gate 9")
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "gate-8" in line))
    devices.refresh()
    assert where.send(scan(), authorization=f"Bearer {token}").status == 401


def test_event_ids_of_two_devices_are_not_mixed_up(ring: Path, tmp_path: Path) -> None:
    tokens = [add_device(tmp_path / "devices", name) for name in ("gate-7", "gate-8")]
    where = site(ring, Devices(tmp_path / "devices"))
    one = scan()
    answers = [where.send(one, authorization=f"Bearer {token}") for token in tokens]
    assert [each.json["status"] for each in answers] == ["accepted", "accepted"]
    assert len({each.json["event_id"] for each in answers}) == 2


def test_a_device_over_its_quota_is_told_when_to_come_again(ring: Path, tmp_path: Path) -> None:
    tokens = [add_device(tmp_path / "devices", name) for name in ("gate-7", "gate-8")]
    where = site(ring, Devices(tmp_path / "devices"), device_quotas=Quotas(0.1, 2))
    first, second = ({"authorization": f"Bearer {token}"} for token in tokens)
    assert [where.send(scan(event_id=f"e-{n}"), **first).status for n in range(3)] == [200, 200, 429]
    assert 1 <= int(where.answers[-1].headers["retry-after"]) <= 10
    assert where.send(scan(), **second).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"[{", 400), (b"{}", 400), (b"[" + b"1," * MOST_SCANS + b"1]", 413), (b"[]", 200)],
    ids=["broken", "no list", "too many", "empty"],
)
def test_what_is_no_batch_costs_its_device_quota_too(ring: Path, tmp_path: Path, body: bytes, status: int) -> None:
    token = add_device(tmp_path / "devices", "gate-7")
    where = site(ring, Devices(tmp_path / "devices"), device_quotas=Quotas(0.1, 3))
    headers = {"authorization": f"Bearer {token}"}
    assert [where.ask("/v1/scans/batch", body, headers).status for _ in range(4)] == [status] * 3 + [429]
    assert 1 <= int(where.answers[-1].headers["retry-after"]) <= 10


def test_a_batch_costs_as_many_scans_as_it_has_and_no_fewer_than_its_size_has_room_for(
    ring: Path, tmp_path: Path
) -> None:
    headers = {"authorization": f"Bearer {add_device(tmp_path / 'devices', 'gate-7')}"}
    for body, cost in (
        (json.dumps([scan(event_id=f"e-{n}") for n in range(100)]).encode(), 100),
        (b"[" + b" " * 10 * LARGEST_SCAN, 11),
    ):
        quotas = Quotas(1e-6, 200)
        site(ring, Devices(tmp_path / "devices"), device_quotas=quotas).ask("/v1/scans/batch", body, headers)
        now = time.monotonic()
        quotas.take("gate-7", 200 - cost - 1, now)
        assert quotas.wait("gate-7", now) == 0
        quotas.take("gate-7", 1, now)
        assert quotas.wait("gate-7", now) > 0


def test_a_batch_full_of_mistakes_does_not_keep_the_others_waiting(here: Site) -> None:
    body = b"[" + b"{}," * 349_000 + b"{}]"
    began = time.process_time()
    assert here.ask("/v1/scans/batch", body).status == 413
    assert time.process_time() - began < 1


def test_a_scan_that_is_too_large_by_itself_is_too_large_in_a_batch(here: Site) -> None:
    answer = here.send(scan(), {str(number): 1 for number in range(LARGEST_SCAN // 8)})
    assert (answer.status, answer.json["accepted"], answer.json["refused"][0]["status"]) == (207, 1, 413)
    assert answer.json["refused"][0]["detail"] == "a scan may have 8,192 bytes"


def test_a_venue_over_its_quota_refuses_its_own_scans_alone(ring: Path) -> None:
    where = site(ring, venue_quotas=Quotas(0.1, 2))
    batch = [scan(event_id=f"e-{n}", venue_id="mall-1" if n < 4 else "mall-2") for n in range(6)]
    answer = where.send(*batch)
    assert (answer.status, answer.json["accepted"]) == (207, 4)
    assert [(each["index"], each["status"]) for each in answer.json["refused"]] == [(2, 429), (3, 429)]
    assert int(answer.headers["retry-after"]) == max(each["retry_after"] for each in answer.json["refused"])
    assert where.send(scan(event_id="e-9", venue_id="mall-1")).status == 429


def test_a_quota_holds_in_the_long_run_and_lets_any_batch_through() -> None:
    quotas, sent_, now = Quotas(10, 50), 0, 0.0
    for _ in range(100):
        now += quotas.wait("gate", now)
        assert quotas.wait("gate", now) < 1e-9
        quotas.take("gate", 70, now)
        sent_ += 70
    assert sent_ / now < 10.3


def test_a_mistake_of_ours_says_nothing_of_what_was_sent(
    here: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError(f"cannot do {PHONE} {SECRET}")

    monkeypatch.setattr(Admission, "admit", broken)
    answer = here.send(scan())
    assert answer.status == 500
    assert "ValueError at" in caplog.text
    for text in (answer.body.decode(), caplog.text):
        assert "899" not in text
        assert "3171" not in text


def test_a_raw_identifier_does_not_show_in_a_repr() -> None:
    assert "0000" not in repr(_parsed(scan()).identifier)


def test_every_metric_has_its_meaning_and_a_row_in_the_docs() -> None:
    metrics = GatewayMetrics()
    metrics.scans("accepted")
    metrics.request(200, 0.1)
    shown = set(re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)$", metrics.exposition().decode(), re.MULTILINE))
    assert {name for name in shown if not name.endswith("_created")} == set(MEANINGS)
    page = (Path(__file__).resolve().parents[2] / "docs" / "privacy.md").read_text()
    assert set(re.findall(r"^\| `(pipeline_gateway_\w+)` \|", page, re.MULTILINE)) == set(MEANINGS)


def test_the_exported_schema_takes_what_the_gateway_takes() -> None:
    schema = json.loads((HERE / "json" / "gateway_scan.schema.json").read_text())
    validator = Draft202012Validator(schema)
    for example in schema["examples"]:
        validator.validate(example)
        _parsed(example)
    assert not validator.is_valid(scan(phone="x"))
    assert validator.is_valid(scan())


def test_its_description_is_an_openapi_document_with_the_scans_of_the_schema(here: Site) -> None:
    document = here.ask("/v1/openapi.json", method="GET").json
    operations = [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]
    assert {each.path for each in operations} >= {"/v1/scans", "/v1/scans/batch", "/readyz"}
    assert document["components"]["schemas"]["GatewayScan"]["required"] == GatewayScan.model_json_schema()["required"]
    codes = {each.name for each in vars(problems).values() if isinstance(each, problems.Kind)} - {"not-found"}
    told = json.dumps(document["paths"]["/v1/scans"]["post"]["responses"])
    assert {code for code in codes if f"`{code}`" not in told} == set()


@pytest.mark.parametrize("given", [{}, {"gateway_devices": "devices"}])
def test_only_devices_with_tokens_over_tls_may_come_from_elsewhere(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"PIPELINE_GATEWAY_(DEVICES|CERTIFICATE)"):
        serve_gateway(load_settings(gateway_host="0.0.0.0", **given), print)


def test_from_elsewhere_venues_come_by_signed_code_or_from_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {
        "gateway_host": "0.0.0.0",
        "gateway_devices": "devices",
        "gateway_certificate": "chain.pem",
    }
    given |= {"gateway_certificate_key": "key.pem", "keys": "keys"}
    keys = {"venue_code_keys": "venue-keys.json"}
    # With keys alone a forger leaves the code out.
    for open_to_any in ({}, keys):
        with pytest.raises(
            UserError, match=r"any venue_id .* PIPELINE_VENUE_CODES=required .* PIPELINE_GATEWAY_VENUES"
        ):
            serve_gateway(load_settings(**given, **open_to_any), print)
    for closed in ({"venue_codes": "required", **keys}, {"venue_codes": "fresh", **keys}, {"gateway_venues": "v.csv"}):
        with pytest.raises(UserError, match=r"there is no .*ring\.json"):  # nothing before that was refused
            serve_gateway(load_settings(**given, **closed), print)
