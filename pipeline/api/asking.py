"""Who may ask about persons: with a role and a stated purpose, so many times a minute, and in the audit log first."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from pipeline.access.door import Budget
from pipeline.access.roles import Identity
from pipeline.api.errors import RequestError
from pipeline.audit import AuditLog
from pipeline.errors import UserError
from pipeline.settings import Settings

#: Longer bodies are not read.
MOST_BYTES: Final = 65_536

Purpose = Annotated[
    str, Header(alias="X-Purpose", min_length=1, max_length=64, description="Why: one of the setting purposes.")
]


@dataclass(frozen=True, slots=True)
class Asker:
    """Somebody whose role allows it, as the audit log names them, and why they ask."""

    who: str
    purpose: str


async def read_body(request: Request, what: str) -> bytes:
    """A request's body. Raises RequestError for a longer one than anything that is asked about persons has."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise RequestError(413, f"{what} is longer than {MOST_BYTES} bytes", what, "send one at a time")
    return body


class Register:
    """The one audit log and the one budget for all that is asked about persons."""

    def __init__(self, settings: Settings) -> None:
        self._purposes = settings.purposes
        self._budget = Budget(settings.person_reads_per_minute)
        #: The log.
        self.audit = AuditLog(settings.audit_path)

    def admit(self, identity: Identity, purpose: str) -> Asker:
        """Let somebody ask whose role allows it. Raises RequestError for a purpose that is not known, or too many requests."""
        if purpose not in self._purposes:
            raise RequestError(422, "this purpose is not known", "X-Purpose", f"one of {', '.join(self._purposes)}")
        return self.admit_for(identity, purpose)

    def admit_for(self, identity: Identity, purpose: str) -> Asker:
        """As `admit`, for a purpose that the request itself has. Raises RequestError for too many requests."""
        if not self._budget.take(identity.who):
            raise RequestError(429, "too many requests about persons", "the API", "wait", retry_after=60)
        return Asker(identity.who, purpose)

    async def note(self, asker: Asker, action: str, case: str | None, persons: int, what: str = "") -> None:
        """Put a request into the log. Raises RequestError where that cannot be done: then nothing is to be answered."""
        try:
            await run_in_threadpool(
                lambda: self.audit.append(
                    asker.who, f"api {action}", purpose=asker.purpose, case=case, persons=persons, what=what
                )
            )
        except UserError:
            raise RequestError(
                503,
                "the audit log cannot be written",
                "the audit log",
                "tell whoever runs this; nothing is read meanwhile",
            ) from None
