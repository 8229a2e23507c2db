"""The gateway's routes. An answer comes once Kafka has the scans; what is wrong comes as problem details (RFC 9457)."""

import asyncio
import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import FailFast, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from pipeline.addresses import names_loopback
from pipeline.gateway import problems
from pipeline.gateway.admission import Admission, Record
from pipeline.gateway.description import openapi_bytes
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
BODY_SECONDS: Final = 10.0
_MOST_REQUESTS: Final = 2_000
#: Who sends where no device has to say who it is.
_ANYBODY: Final = "loopback"
_ONE: Final = TypeAdapter(GatewayScan)
#: Up to the first scan that is wrong: to gather all the mistakes that a body has room for takes a second.
_MANY: Final = TypeAdapter(Annotated[list[GatewayScan], FailFast()])

#: What the server gives and takes (ASGI 3.0).
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class _GoneError(Exception):
    """Whoever sent the request has gone."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler may look at: headers in lower case, and the body as it comes."""

    headers: Mapping[bytes, bytes]
    receive: Receive

    def header(self, name: bytes) -> str:
        """A header's value, empty without one."""
        return self.headers.get(name, b"").decode("latin-1")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; `headers` beside its type and length."""

    body: bytes
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Gateway:
    """The ASGI application, over parts that its owner starts, refreshes and closes.

    Six routes, without a framework's layers between them and the server: those cost more than all that is done with a scan.
    """

    admission: Admission
    outbox: Outbox
    devices: Devices | None
    device_quotas: Quotas
    venue_quotas: Quotas
    metrics: GatewayMetrics
    keys_until: Callable[[int], int]
    recent: Recent
    under_way: int = 0
    #: Requests whose bodies are still coming, the oldest first, and until when they may.
    reading: "dict[asyncio.Task[Any], float]" = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = time.monotonic()
        self.under_way += 1
        try:
            response = await self._answer(scope, receive)
        except _GoneError:
            return
        finally:
            self.under_way -= 1
        self.metrics.request(response.status, time.monotonic() - began)
        headers = {
            "content-type": response.media_type,
            "content-length": str(len(response.body)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            **response.headers,
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": encoded})
        await send({"type": "http.response.body", "body": response.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        """The handler's answer, or what is wrong; what is wrong with us is told without any value."""
        try:
            method, handler = self._route(str(scope["path"]))
            if scope["method"] != method:
                raise ProblemError(problems.WRONG_METHOD, f"this address takes {method}")
            if self.under_way > _MOST_REQUESTS and method == "POST":
                raise ProblemError(problems.BUSY, "more requests are under way than are taken; send it again", 1)
            return await handler(Request(dict(scope["headers"]), receive))
        except ProblemError as problem:
            return _problem(problem)
        except _GoneError:
            raise
        except Exception as error:
            # Neither the error's text nor its traceback's values: both may hold what was sent.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("a request failed: %s at %s:%s", type(error).__name__, place.filename, place.lineno)
            return _problem(
                ProblemError(problems.BROKEN, "send it again; if it fails again, tell who runs the gateway")
            )

    def _route(self, path: str) -> tuple[str, Handler]:
        match path:
            case "/v1/scans":
                return "POST", self._scan
            case "/v1/scans/batch":
                return "POST", self._batch
            case "/v1/openapi.json":
                return "GET", self._description
            case "/livez":
                return "GET", self._live
            case "/readyz":
                return "GET", self._ready
            case "/metrics":
                return "GET", self._metrics
        # What was asked for may be anybody's number, so it is not repeated.
        raise ProblemError(problems.NOT_FOUND, "scans go to /v1/scans and /v1/scans/batch")

    async def _scan(self, request: Request) -> Response:
        device = self._device(request)
        self._check_quota(device)
        body = await self._body(request, LARGEST_SCAN)
        self.device_quotas.take(device, 1, time.monotonic())
        try:
            record, is_new = self._judged(_parsed(body), device, time.time_ns() // 1_000_000)
        except ProblemError as problem:
            self.metrics.scans(problem.kind.name)
            raise
        if is_new:
            await self._sent([record])
        else:
            self.metrics.scans("duplicate")
        answer = {"status": "accepted" if is_new else "duplicate", "event_id": record.event_id}
        return Response(to_json(answer))

    async def _batch(self, request: Request) -> Response:
        device = self._device(request)
        self._check_quota(device)
        body = await self._body(request, LARGEST_BATCH)
        # Before it is parsed, what so many bytes are at least: who sends what is no batch pays for the reading.
        at_least = 1 + len(body) // LARGEST_SCAN
        self.device_quotas.take(device, at_least, time.monotonic())
        scans = _parsed_batch(body)
        self.device_quotas.take(device, max(0, len(scans) - at_least), time.monotonic())
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
        headers = {"retry-after": str(wait)} if wait else {}
        return Response(to_json(answer), 207 if refused else 200, headers=headers)

    def _device(self, request: Request) -> str:
        if self.devices is None:
            if not names_loopback(request.headers.get(b"host", b"")):
                raise ProblemError(
                    problems.MISDIRECTED,
                    "send to 127.0.0.1 or localhost; to be reached under other names, give devices tokens",
                )
            return _ANYBODY
        device = self.devices.device_of(request.header(b"authorization"))
        if device is None:
            raise ProblemError(problems.UNAUTHORIZED, "send the device's token: Authorization: Bearer TOKEN")
        return device

    async def _body(self, request: Request, largest: int) -> bytes:
        """The body, if it is no larger. Raises ProblemError, before the rest of a larger one has come."""
        _check_type(request)
        length = request.header(b"content-length")
        if length.isdecimal() and int(length) > largest:
            raise _too_large(largest)
        task = asyncio.current_task()
        assert task is not None, "a server runs each request in a task"
        self.reading[task] = time.monotonic() + BODY_SECONDS
        parts: list[bytes] = []
        size, more = 0, True
        try:
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                part, more = message.get("body", b""), message.get("more_body", False)
                size += len(part)
                if size > largest:
                    raise _too_large(largest)
                parts.append(part)
        except asyncio.CancelledError:
            if task in self.reading:
                raise
            task.uncancel()
            raise ProblemError(problems.TOO_SLOW, f"the body must come within {BODY_SECONDS:.0f} seconds") from None
        finally:
            self.reading.pop(task, None)
        return b"".join(parts)

    def give_up_on_slow_bodies(self) -> None:
        """End the requests whose bodies take too long. To be called every second: a timer for each costs a fifth of a scan."""
        now = time.monotonic()
        while self.reading:
            task = next(iter(self.reading))
            if self.reading[task] > now:
                return
            del self.reading[task]
            task.cancel()

    def _check_quota(self, device: str) -> None:
        # Without tokens all senders are one device: then only venues have quotas.
        if self.devices is not None and (wait := self.device_quotas.wait(device, time.monotonic())):
            raise ProblemError(problems.QUOTA, "the device has sent more than its quota", wait)

    def _judged(self, scan: GatewayScan, device: str, now: int) -> tuple[Record, bool]:
        """The record, and whether it is to be sent: not if Kafka has it already. Raises ProblemError."""
        record = self.admission.admit(scan, device, now)
        if self.recent.has(record):
            return record, False
        venue, clock = record.key.decode(), time.monotonic()
        if wait := self.venue_quotas.wait(venue, clock):
            raise ProblemError(problems.QUOTA, "more scans were sent of this venue than its quota", wait)
        self.recent.use_code(record, scan.event_type, now)
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
            self.recent.remember(record)
        self.metrics.scans("accepted", len(records))

    async def _description(self, _request: Request) -> Response:
        return Response(openapi_bytes(MOST_SCANS))

    async def _live(self, _request: Request) -> Response:
        return Response(b'{"ok":true}\n')

    async def _ready(self, _request: Request) -> Response:
        now = time.time_ns() // 1_000_000
        facts = {"kafka": await self.outbox.answers(), "keys": self.keys_until(now) > now}
        return Response(to_json(facts), 200 if all(facts.values()) else 503)

    async def _metrics(self, _request: Request) -> Response:
        now = time.time_ns() // 1_000_000
        self.metrics.pending.set(self.outbox.pending)
        self.metrics.key_seconds_left.set((self.keys_until(now) - now) / 1000)
        return Response(self.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _check_type(request: Request) -> None:
    """Raises ProblemError for a body that is not JSON as it is."""
    if request.headers.get(b"content-type") != b"application/json":
        kind, _, parameters = request.header(b"content-type").lower().partition(";")
        charset = parameters.strip().removeprefix("charset=").strip('"')
        if kind.strip() != "application/json" or charset not in ("", "utf-8"):
            raise _wrong_type()
    if b"content-encoding" in request.headers:
        raise _wrong_type()


def _wrong_type() -> ProblemError:
    return ProblemError(problems.WRONG_TYPE, "send Content-Type: application/json, in UTF-8, not compressed")


def _too_large(largest: int) -> ProblemError:
    return ProblemError(problems.TOO_LARGE, f"a body may have {largest:,} bytes here; send smaller batches")


def _parsed(body: bytes) -> GatewayScan:
    try:
        return _ONE.validate_json(body)
    except ValidationError as error:
        raise _refused(error) from None


def _parsed_batch(body: bytes) -> list[GatewayScan | ProblemError]:
    """Each scan, or why it is none. Raises ProblemError where there is no list."""
    try:
        scans: list[Any] = _MANY.validate_json(body)
    except ValidationError:
        # What is wrong is not asked of the error: to say it of a body full of mistakes takes seconds.
        try:
            scans = from_json(body)
        except ValueError:
            raise _no_json() from None
        if not isinstance(scans, list):
            raise ProblemError(problems.MALFORMED, "a batch is a JSON array of scans") from None
        if len(scans) <= MOST_SCANS:
            scans = [_parsed_again(each) for each in scans]
    if len(scans) > MOST_SCANS:
        raise ProblemError(problems.TOO_LARGE, f"a batch may have {MOST_SCANS:,} scans; send smaller ones")
    return scans


def _parsed_again(value: object) -> GatewayScan | ProblemError:
    # From its own bytes again: what a model takes from JSON is stricter than what it takes from Python objects.
    text = json.dumps(value)
    if len(text) > LARGEST_SCAN:
        return ProblemError(problems.TOO_LARGE, f"a scan may have {LARGEST_SCAN:,} bytes")
    try:
        return _ONE.validate_json(text)
    except ValidationError as error:
        return _refused(error)


def _refused(error: ValidationError) -> ProblemError:
    if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
        return _no_json()
    return ProblemError(problems.INVALID, gateway_refusal(error))


def _no_json() -> ProblemError:
    return ProblemError(problems.MALFORMED, "the body is no JSON")


def _problem(problem: ProblemError) -> Response:
    return Response(to_json(problem.body()), problem.kind.status, "application/problem+json", problem.headers())
