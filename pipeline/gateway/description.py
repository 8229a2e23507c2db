"""The gateway's routes as an OpenAPI 3.1 document: what whoever builds an app or a gate may rely on."""

from functools import cache
from typing import Any, Final

from pydantic_core import to_json

from pipeline.gateway import problems
from pipeline.gateway.problems import Kind
from schemas.gateway_scan import GatewayScan

_SCHEMAS: Final = "#/components/schemas/"

#: What may be wrong with any request, with one that brings scans, and with a scan by itself.
_ANY: Final = (problems.WRONG_METHOD, problems.BROKEN)
_BODY: Final = (
    problems.MALFORMED,
    problems.UNAUTHORIZED,
    problems.TOO_SLOW,
    problems.TOO_LARGE,
    problems.WRONG_TYPE,
    problems.MISDIRECTED,
    problems.QUOTA,
    problems.BUSY,
    problems.KAFKA_AWAY,
)
_SCAN: Final = (
    problems.REUSED,
    problems.INVALID,
    problems.IDENTIFIER,
    problems.TIME,
    problems.CODE,
    problems.REPLAYED,
    problems.QUOTA,
    problems.NO_KEY,
)
#: Statuses after which the same request may be taken later, after the seconds in Retry-After.
_LATER: Final = (problems.QUOTA.status, problems.BUSY.status)

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Problem details (RFC 9457). Nothing that was sent is in them.",
    "properties": {
        "type": {"type": "string", "pattern": "^urn:check-ins:problem:[a-z-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What is wrong, where, and what to do."},
        "retry_after": {"type": "integer", "minimum": 1, "description": "Seconds after which it may be taken."},
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
}
_TAKEN: Final = {
    "type": "object",
    "properties": {
        "status": {"enum": ["accepted", "duplicate"], "description": "duplicate: Kafka had this scan already."},
        "event_id": {"type": "string", "description": "What the event id goes on as: a keyed hash."},
    },
    "required": ["status", "event_id"],
    "additionalProperties": False,
    "examples": [{"status": "accepted", "event_id": "k7Qd0mB3fWcY1xJrT9uLZA"}],
}
_BATCH_TAKEN: Final = {
    "type": "object",
    "properties": {
        "accepted": {"type": "integer", "minimum": 0},
        "duplicates": {"type": "integer", "minimum": 0, "description": "Scans that Kafka had already."},
        "refused": {
            "type": "array",
            "items": {
                **_PROBLEM,
                "description": "What is wrong with the scan at this place of the batch, from 0 on.",
                "properties": {"index": {"type": "integer", "minimum": 0}, **_PROBLEM["properties"]},
                "required": ["index", *_PROBLEM["required"]],
            },
        },
    },
    "required": ["accepted", "duplicates", "refused"],
    "additionalProperties": False,
    "examples": [{"accepted": 998, "duplicates": 2, "refused": []}],
}


def _refusals(*kinds: Kind) -> dict[str, Any]:
    by_status: dict[int, list[Kind]] = {}
    for kind in sorted({*_ANY, *kinds}, key=lambda kind: (kind.status, kind.name)):
        by_status.setdefault(kind.status, []).append(kind)
    return {
        str(status): {
            "description": ". ".join(f"{kind.title} (`{kind.name}`)" for kind in some) + ".",
            "content": {"application/problem+json": {"schema": {"$ref": _SCHEMAS + "Problem"}}},
            **(
                {"headers": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}}}
                if status in _LATER
                else {}
            ),
        }
        for status, some in by_status.items()
    }


def _answer(description: str, schema: dict[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _scans(summary: str, schema: dict[str, Any], answers: dict[str, Any], *kinds: Kind) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "security": [{"device": []}, {}],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": answers | _refusals(*_BODY, *kinds),
        }
    }


def _told(summary: str, answers: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": answers | _refusals()}}


def openapi(largest_batch: int) -> dict[str, Any]:
    """The document; `largest_batch` is how many scans one may have."""
    definitions = GatewayScan.model_json_schema(ref_template=_SCHEMAS + "{model}")
    inner = definitions.pop("$defs")
    flag = {"type": "boolean"}
    ready = {
        "type": "object",
        "properties": {"kafka": flag, "keys": flag},
        "required": ["kafka", "keys"],
        "additionalProperties": False,
    }
    batch = {"type": "array", "items": {"$ref": _SCHEMAS + "GatewayScan"}, "maxItems": largest_batch}
    some = {"$ref": _SCHEMAS + "BatchTaken"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The check-in gateway",
            "version": "1.0.0",
            "description": "Scans with raw identifiers come in, pseudonymised scans go out to Kafka. An answer comes once "
            "Kafka has them; whatever was not answered may be sent again: the same scan is one scan.",
        },
        "paths": {
            "/v1/scans": _scans(
                "Send a scan",
                {"$ref": _SCHEMAS + "GatewayScan"},
                {"200": _answer("Kafka has the scan.", {"$ref": _SCHEMAS + "Taken"})},
                *_SCAN,
            ),
            "/v1/scans/batch": _scans(
                f"Send up to {largest_batch:,} scans",
                batch,
                {
                    "200": _answer("Kafka has them all.", some),
                    "207": _answer("Kafka has the others; `refused` tells why not these.", some),
                },
            ),
            "/livez": _told("Whether it runs", {"200": _answer("It does.", {"type": "object"})}),
            "/readyz": _told(
                "Whether it can take scans",
                {"200": _answer("It can.", ready), "503": _answer("What is false is missing.", ready)},
            ),
            "/metrics": _told("For Prometheus", {"200": _answer("Its text format.", {"type": "string"}, "text/plain")}),
            "/v1/openapi.json": _told("This document", {"200": _answer("OpenAPI 3.1.", {"type": "object"})}),
        },
        "components": {
            "securitySchemes": {
                "device": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token that `pipeline gateway add-device` printed. On loopback none may be asked for.",
                }
            },
            "schemas": {
                **inner,
                "GatewayScan": definitions,
                "Taken": _TAKEN,
                "BatchTaken": _BATCH_TAKEN,
                "Problem": _PROBLEM,
            },
        },
    }


@cache
def openapi_bytes(largest_batch: int) -> bytes:
    """The document as JSON."""
    return to_json(openapi(largest_batch), indent=1)
