"""What tests of the gateway share: a ring, scans with made-up identifiers, an outbox without Kafka, a way to ask."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from pipeline.gateway.admission import Admission, Record
from pipeline.gateway.app import MOST_SCANS, Gateway
from pipeline.gateway.description import openapi
from pipeline.gateway.devices import Devices
from pipeline.gateway.known_venues import KnownVenues
from pipeline.gateway.metrics import GatewayMetrics
from pipeline.gateway.problems import ProblemError
from pipeline.gateway.quotas import Quotas
from pipeline.gateway.recent import Recent
from pipeline.privacy.master import LocalMaster
from pipeline.privacy.pseudonyms import Pseudonymiser
from pipeline.privacy.ring import DEFAULT_EDGE, DEFAULT_LENGTH, KeyRing
from pipeline.settings import Settings, load_settings
from pipeline.venue_codes import VenueCodes
from tests.asgi import Answer

#: Nobody's: ITU's and Indonesia's numbering plans have no such number.
PHONE = "+62 899-0000-1234"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def make_ring(folder: Path, now: int | None = None) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    master = LocalMaster.create_file(folder / "master.key")
    KeyRing.create(folder, master, now or now_ms(), timedelta(days=14), DEFAULT_LENGTH, DEFAULT_EDGE)
    return folder


def scan(**changes: Any) -> dict[str, Any]:
    """A good scan, as its sender would send it; a change to None leaves the field out."""
    made = {
        "event_id": "e-1",
        "event_type": "check_in",
        "venue_id": "mall-0042",
        "identifier": {"kind": "phone", "value": PHONE},
        "occurred_at": rfc3339(now_ms()),
    } | changes
    return {name: value for name, value in made.items() if value is not None}


class FakeOutbox:
    """Takes everything at once, or fails as told."""

    def __init__(self) -> None:
        self.sent: list[Record] = []
        self.pending = 0
        self.problem: ProblemError | None = None

    async def send(self, records: Sequence[Record]) -> None:
        if self.problem is not None:
            raise self.problem
        self.sent += records

    async def answers(self) -> bool:
        return self.problem is None


def check_described(method: str, path: str, answer: Answer) -> None:
    """AssertionError for an answer that the gateway's own description does not tell of."""
    document = openapi(MOST_SCANS)
    operation = document["paths"].get(path, {}).get(method.lower())
    if operation is None:
        described: dict[str, Any] = {
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        }
    else:
        described = operation["responses"][str(answer.status)]
    for name in described.get("headers", {}):
        assert name.lower() in answer.headers
    media_type = answer.headers["content-type"].partition(";")[0]
    schema = described["content"][media_type]["schema"]
    if media_type != "text/plain":
        Draft202012Validator(schema | {"components": document["components"]}).validate(answer.json)


@dataclass
class Site:
    """A gateway without a server and without Kafka."""

    gateway: Gateway
    outbox: FakeOutbox
    answers: list[Answer] = field(default_factory=list)

    def ask(
        self, path: str, body: object = None, headers: dict[str, str] | None = None, method: str = "POST"
    ) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json", "content-length": str(len(raw))} | (headers or {})
        parts = [raw[:7], raw[7:]]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        said: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        encoded = [(name.lower().encode(), value.encode()) for name, value in given.items()]
        asyncio.run(self.gateway({"method": method, "path": path, "headers": encoded}, receive, send))
        start, end = said
        answer = Answer(start["status"], {n.decode(): v.decode() for n, v in start["headers"]}, end["body"])
        self.answers.append(answer)
        check_described(method, path, answer)
        return answer

    def send(self, *scans: dict[str, Any], **headers: str) -> Answer:
        """One scan alone, or several as a batch."""
        if len(scans) == 1:
            return self.ask("/v1/scans", scans[0], headers)
        return self.ask("/v1/scans/batch", list(scans), headers)

    def metric(self, name: str) -> float:
        return self.gateway.metrics.registry.get_sample_value(name) or 0.0

    def outcome(self, name: str) -> float:
        return self.gateway.metrics.registry.get_sample_value("pipeline_gateway_scans_total", {"outcome": name}) or 0.0


def site(
    folder: Path,
    devices: Devices | None = None,
    codes: VenueCodes | None = None,
    device_quotas: Quotas | None = None,
    venue_quotas: Quotas | None = None,
    venues: KnownVenues | None = None,
    **settings: Any,
) -> Site:
    given: Settings = load_settings(**{"phone_country": "62", **settings})
    pseudonymiser = Pseudonymiser(folder, lambda: LocalMaster.from_file(folder / "master.key"))
    outbox = FakeOutbox()
    gateway = Gateway(
        Admission(given, pseudonymiser, codes, venues),
        outbox,  # type: ignore[arg-type]
        devices,
        device_quotas or Quotas(1e6, 1e6),
        venue_quotas or Quotas(1e6, 1e6),
        GatewayMetrics(),
        pseudonymiser.covered_until,
        Recent(),
    )
    return Site(gateway, outbox)
