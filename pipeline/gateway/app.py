"""The gateway's routes. An answer comes once Kafka has the scans; what is wrong comes as problem details (RFC 9457)."""

import asyncio
import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.gateway import problems
from pipeline.gateway.admission import Admission, Record
from pipeline.gateway.devices import Devices
from pipeline.gateway.metrics import GatewayMetrics
from pipeline.gateway.outbox import Outbox
from pipeline.gateway.problems import ProblemError
from pipeline.gateway.quotas import Quotas
from pipeline.gateway.recent import Recent
from schemas.gateway_scan import GatewayScan, gateway_refusal

log = logging.getLogger(__name__)

#: Bytes of one scan and of a batch, and scans in one.
LARGEST_SCAN: Final = 8 << 10
LARGEST_BATCH: Final = 1 << 20
MOST_SCANS: Final = 1_000
#: How long a request's body may take to come, in seconds, and requests under way at once.
_BODY_SECONDS: Final = 10.0
_MOST_REQUESTS: Final = 2_000
#: Who sends where no device has to say who it is.
_ANYBODY: Final = "loopback"
_ONE: Final = TypeAdapter(GatewayScan)
_MANY: Final = TypeAdapter(list[GatewayScan])
_JSON: Final = {"Cache-Control": "no-store"}

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Gateway:
    """What the routes work with; its owner starts, refreshes and closes the parts."""

    admission: Admission
    outbox: Outbox
    devices: Devices | None
    device_quotas: Quotas
    venue_quotas: Quotas
    metrics: GatewayMetrics
    keys_until: Callable[[int], int]
    recent: Recent
    under_way: int = 0

    def application(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/scans", self._answered(self._scan), methods=["POST"]),
                Route("/v1/scans/batch", self._answered(self._batch), methods=["POST"]),
                Route("/livez", self._live, methods=["GET"]),
                Route("/readyz", self._ready, methods=["GET"]),
                Route("/metrics", self._metrics, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _no_route},
        )

    async def _scan(self, request: Request) -> Response:
        device = self._device(request)
        body = await _body(request, LARGEST_SCAN)
        self._check_quota(device)
        self.device_quotas.take(device, 1, time.monotonic())
        now = time.time_ns() // 1_000_000
        scan = _parsed(body)
        record, is_new = self._judged(scan, device, now)
        if is_new:
            await self._sent([record])
        else:
            self.metrics.scans("duplicate")
        answer = {"status": "accepted" if is_new else "duplicate", "event_id": record.event_id}
        return Response(to_json(answer), 200, _JSON, "application/json")

    async def _batch(self, request: Request) -> Response:
        device = self._device(request)
        body = await _body(request, LARGEST_BATCH)
        self._check_quota(device)
        scans = _parsed_batch(body)
        self.device_quotas.take(device, len(scans), time.monotonic())
        now = time.time_ns() // 1_000_000
        records: list[Record] = []
        refused: list[dict[str, object]] = []
        duplicates, wait = 0, 0
        for index, scan in enumerate(scans):
            try:
                if isinstance(scan, ProblemError):
                    raise scan
                record, is_new = self._judged(scan, device, now)
            except ProblemError as problem:
                refused.append({"index": index} | problem.body())
                wait = max(wait, problem.retry_after or 0)
                self.metrics.scans(problem.kind.name)
                continue
            if is_new:
                records.append(record)
            else:
                duplicates += 1
        await self._sent(records)
        self.metrics.scans("duplicate", duplicates)
        answer = {"accepted": len(records), "duplicates": duplicates, "refused": refused}
        headers = _JSON | ({"Retry-After": str(wait)} if wait else {})
        return Response(to_json(answer), 207 if refused else 200, headers, "application/json")

    def _device(self, request: Request) -> str:
        if self.devices is None:
            return _ANYBODY
        device = self.devices.device_of(request.headers.get("authorization", ""))
        if device is None:
            raise ProblemError(problems.UNAUTHORIZED, "send the device's token: Authorization: Bearer TOKEN")
        return device

    def _check_quota(self, device: str) -> None:
        # Without tokens all senders are one device: then only venues have quotas.
        if self.devices is not None and (wait := self.device_quotas.wait(device, time.monotonic())):
            raise ProblemError(problems.QUOTA, "the device has sent more than its quota", wait)

    def _judged(self, scan: GatewayScan, device: str, now: int) -> tuple[Record, bool]:
        """The record, and whether it is to be sent: not if Kafka has it already. Raises ProblemError."""
        record = self.admission.admit(scan, device, now)
        known = self.recent.known(record)
        if known == "same":
            return record, False
        if known == "other":
            raise ProblemError(problems.REUSED, "event_id: each scan needs one of its own")
        venue, clock = record.key.decode(), time.monotonic()
        if wait := self.venue_quotas.wait(venue, clock):
            raise ProblemError(problems.QUOTA, "more scans were sent of this venue than its quota", wait)
        if self.recent.replayed(record, scan.event_type, now):
            raise ProblemError(problems.REPLAYED, "venue_code: was used for another scan; scan the display again")
        self.venue_quotas.take(venue, 1, clock)
        return record, True

    async def _sent(self, records: list[Record]) -> None:
        if not records:
            return
        try:
            await self.outbox.send(records)
        except ProblemError as problem:
            self.metrics.scans(problem.kind.name, len(records))
            raise
        for record in records:
            self.recent.confirm(record)
        self.metrics.scans("accepted", len(records))

    def _answered(self, handler: Handler) -> Handler:
        """The handler with its problems as answers, counted; what goes wrong with us is told without any value."""

        async def answered(request: Request) -> Response:
            began = time.monotonic()
            self.under_way += 1
            try:
                if self.under_way > _MOST_REQUESTS:
                    raise ProblemError(problems.BUSY, "more requests are under way than are taken; send it again", 1)
                response = await handler(request)
            except ProblemError as problem:
                response = _problem(problem)
            except ClientDisconnect:
                response = Response(status_code=400)
            except Exception as error:
                # Neither the error's text nor its traceback's values: both may hold what was sent.
                place = traceback.extract_tb(error.__traceback__)[-1]
                log.error("a request failed: %s at %s:%s", type(error).__name__, place.filename, place.lineno)
                response = _problem(
                    ProblemError(problems.BROKEN, "send it again; if it fails again, tell who runs the gateway")
                )
            finally:
                self.under_way -= 1
            self.metrics.request(response.status_code, time.monotonic() - began)
            return response

        return answered

    async def _live(self, _request: Request) -> Response:
        return Response(b'{"ok":true}\n', 200, _JSON, "application/json")

    async def _ready(self, _request: Request) -> Response:
        now = time.time_ns() // 1_000_000
        facts = {"kafka": await self.outbox.answers(), "keys": self.keys_until(now) > now}
        return Response(to_json(facts), 200 if all(facts.values()) else 503, _JSON, "application/json")

    async def _metrics(self, _request: Request) -> Response:
        now = time.time_ns() // 1_000_000
        self.metrics.pending.set(self.outbox.pending)
        self.metrics.key_seconds_left.set((self.keys_until(now) - now) / 1000)
        return Response(self.metrics.exposition(), 200, _JSON, "text/plain; version=0.0.4")


async def _body(request: Request, largest: int) -> bytes:
    """The body, if it is JSON as it is and no larger. Raises ProblemError, before the rest of a larger one has come."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if (
        kind.strip().lower() != "application/json"
        or charset not in ("", "utf-8")
        or "content-encoding" in request.headers
    ):
        raise ProblemError(problems.WRONG_TYPE, "send Content-Type: application/json, in UTF-8, not compressed")
    too_large = ProblemError(problems.TOO_LARGE, f"a body may have {largest:,} bytes here; send smaller batches")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > largest:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > largest:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise ProblemError(problems.TOO_SLOW, f"the body must come within {_BODY_SECONDS:.0f} seconds") from None
    return b"".join(parts)


def _parsed(body: bytes) -> GatewayScan:
    try:
        return _ONE.validate_json(body)
    except ValidationError as error:
        raise _refused(error) from None


def _parsed_batch(body: bytes) -> list[GatewayScan | ProblemError]:
    """Each scan, or why it is none. Raises ProblemError where there is no list."""
    try:
        scans: list[Any] = _MANY.validate_json(body)
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise _refused(error) from None
        scans = from_json(body)
        if not isinstance(scans, list):
            raise ProblemError(problems.MALFORMED, "a batch is a JSON array of scans") from None
        if len(scans) <= MOST_SCANS:
            scans = [_parsed_again(each) for each in scans]
    if len(scans) > MOST_SCANS:
        raise ProblemError(problems.TOO_LARGE, f"a batch may have {MOST_SCANS:,} scans; send smaller ones")
    return scans


def _parsed_again(value: object) -> GatewayScan | ProblemError:
    # From its own bytes again: what a model takes from JSON is stricter than what it takes from Python objects.
    try:
        return _ONE.validate_json(json.dumps(value))
    except ValidationError as error:
        return _refused(error)


def _refused(error: ValidationError) -> ProblemError:
    if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
        return ProblemError(problems.MALFORMED, "the body is no JSON")
    return ProblemError(problems.INVALID, gateway_refusal(error))


def _problem(problem: ProblemError) -> Response:
    return Response(to_json(problem.body()), problem.kind.status, problem.headers(), "application/problem+json")


async def _no_route(_request: Request, error: Exception) -> Response:
    """No address, or another method; what was asked for may be anybody's number, so it is not repeated."""
    if isinstance(error, HTTPException) and error.status_code == problems.WRONG_METHOD.status:
        return _problem(ProblemError(problems.WRONG_METHOD, "scans are sent with POST"))
    return _problem(ProblemError(problems.NOT_FOUND, "scans go to /v1/scans and /v1/scans/batch"))
