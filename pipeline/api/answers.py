"""What all answers have in common: entity tags, caching, cursors, instants."""

import base64
import binascii
import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.errors import RequestError
from pipeline.api.models import Problem
from pipeline.one_line import one_line


def answer(request: Request, model: BaseModel, max_age: int) -> Response:
    """The model as JSON; 304 without a body where the client has just that already. `max_age` in seconds."""
    body = model.model_dump_json().encode()
    return answer_bytes(request, body, sha256(body).hexdigest(), max_age)


def answer_bytes(request: Request, body: bytes, digest: str, max_age: int) -> Response:
    """The same for JSON that is made already; `digest` is another for other bytes."""
    tag = f'W/"{digest[:16]}"'
    headers = {"ETag": tag, "Cache-Control": f"public, max-age={max_age}"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def refusal(error: RequestError) -> Response:
    """The response to a request that failed. It may repeat an address, so it is made harmless to a terminal that shows it."""
    headers = {"Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    what, where, way_out = map(one_line, (error.what, error.where, error.way_out))
    body = Problem(what=what, where=where, way_out=way_out).model_dump_json()
    return Response(body, error.status, headers, "application/json")


def to_cursor(*place: Any) -> str:
    """A place in an ordered list, to go on behind it."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def from_cursor(cursor: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """The place that `to_cursor` wrote; None for the beginning. Raises RequestError for anything else."""
    if cursor is None:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(place, list) and len(place) == len(kinds) and all(map(_is_a, place, kinds)):
            return tuple(place)
    except (binascii.Error, ValueError):
        pass
    raise RequestError(422, "this cursor is none of ours", "cursor", "take `next` of the page before, or leave it out")


def _is_a(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return kind in (int, float) and abs(value) < 2**53
    return isinstance(value, kind)


def seconds(moment: datetime, name: str) -> int:
    """An instant of a request as seconds since the epoch. Raises RequestError without a time zone or out of range."""
    if moment.tzinfo is None:
        raise RequestError(422, f"{name} has no time zone", name, "end it with Z or an offset such as +07:00")
    if not 1971 <= moment.year <= 2104:
        raise RequestError(422, f"{name} is not within 1971 to 2104", name, "give a time that scans can have")
    return int(moment.timestamp())


def instant(seconds_since_epoch: int) -> datetime:
    """Seconds since the epoch as an instant in UTC."""
    return datetime.fromtimestamp(seconds_since_epoch, UTC)
