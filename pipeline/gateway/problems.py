"""What was wrong with a request or one of its scans, as RFC 9457 has it. No problem holds anything that its sender sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its name in `type`, its status, and what it is in a few words."""

    name: str
    status: int
    title: str


MALFORMED: Final = Kind("malformed", 400, "This is not the JSON that is expected")
UNAUTHORIZED: Final = Kind("unauthorized", 401, "No known device's token")
NOT_FOUND: Final = Kind("not-found", 404, "There is no such address")
WRONG_METHOD: Final = Kind("wrong-method", 405, "This address takes another method")
TOO_SLOW: Final = Kind("too-slow", 408, "The request did not come in time")
REUSED: Final = Kind("event-id-reused", 409, "The event id was another scan's")
TOO_LARGE: Final = Kind("too-large", 413, "The request is too large")
WRONG_TYPE: Final = Kind("wrong-type", 415, "The request is no plain application/json")
MISDIRECTED: Final = Kind("misdirected", 421, "This name is not answered without tokens")
INVALID: Final = Kind("invalid-scan", 422, "The scan breaks a rule")
IDENTIFIER: Final = Kind("invalid-identifier", 422, "The identifier breaks a rule")
TIME: Final = Kind("invalid-time", 422, "The scan's time cannot be taken")
CODE: Final = Kind("venue-code", 422, "The venue's code is not accepted")
REPLAYED: Final = Kind("replayed", 422, "The venue's code was used for this already")
QUOTA: Final = Kind("quota", 429, "Too many scans")
BROKEN: Final = Kind("broken", 500, "The gateway made a mistake")
BUSY: Final = Kind("busy", 503, "Too much is under way")
NO_KEY: Final = Kind("no-key", 503, "The gateway lacks a key")
KAFKA_AWAY: Final = Kind("kafka-away", 503, "Kafka has not confirmed the scans")


class ProblemError(Exception):
    """Ends a request, or refuses one scan. `retry_after` in seconds, where waiting helps."""

    def __init__(self, kind: Kind, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.retry_after = None if retry_after is None else max(1, ceil(retry_after))

    def body(self) -> dict[str, object]:
        """The problem details."""
        return {
            "type": f"urn:check-ins:problem:{self.kind.name}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
        } | ({} if self.retry_after is None else {"retry_after": self.retry_after})

    def headers(self) -> Mapping[str, str]:
        """The headers that the status wants."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.kind is UNAUTHORIZED:
            headers["www-authenticate"] = 'Bearer realm="check-ins"'
        return headers
