"""Routes of the audit log, for the role auditor: what it says, and whether it is whole. Reading it is in it, too."""

import asyncio
from collections import deque
from itertools import takewhile
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.answers import from_cursor, to_cursor
from pipeline.api.asking import Asker, Register
from pipeline.api.errors import RequestError
from pipeline.api.guard import auditor
from pipeline.api.models import Problem
from pipeline.api.params import Cursor, Limit
from pipeline.api.person_models import AuditEntry, AuditPage, AuditVerdict
from pipeline.errors import UserError

_REFUSED: Final[dict[int | str, dict[str, Any]]] = {429: {"model": Problem, "description": "Too many requests"}}
_PURPOSE: Final = "audit"


def audit_routes(register: Register) -> APIRouter:
    """The routes over the register's log."""
    router = APIRouter(tags=["audit"], responses=_REFUSED)

    def allowed(request: Request) -> Asker:
        return register.admit_for(auditor(request), _PURPOSE)

    asking = Annotated[Asker, Depends(allowed)]

    @router.get("/audit", summary="Who read what about persons, the newest first", response_model=AuditPage)
    async def entries(asker: asking, limit: Limit = 100, cursor: Cursor = None) -> Response:
        """The log's entries as they stand there. Without a cursor the first one is of this request."""
        before = from_cursor(cursor, int)
        await register.note(asker, "audit", None, 0)

        def read() -> list[AuditEntry]:
            wanted = register.audit.entries()
            if before is not None:
                wanted = takewhile(lambda entry: entry["number"] < before[0], wanted)
            return [AuditEntry(**entry) for entry in reversed(deque(wanted, limit))]

        page = await _read(read)
        onward = to_cursor(page[-1].number) if page and page[-1].number > 1 else None
        return _told(AuditPage(items=page, next=onward))

    @router.get("/audit/verification", summary="Whether the log is whole", response_model=AuditVerdict)
    async def verification(asker: asking) -> Response:
        """Every entry follows from the one before. A cut tail shows by the heads in Kafka alone: `pipeline audit verify`."""
        await register.note(asker, "audit verification", None, 0)
        count, faults = await _read(register.audit.faults)
        return _told(AuditVerdict(entries=count, faults=faults))

    return router


async def _read(call: Any) -> Any:
    try:
        try:
            return await run_in_threadpool(call)
        except UserError:
            # Its last line may just be being written.
            await asyncio.sleep(0.1)
            return await run_in_threadpool(call)
    except (UserError, OSError, ValueError, TypeError) as error:
        raise RequestError(
            503, f"the audit log cannot be read: {error}", "the audit log", "see `pipeline audit verify` on its machine"
        ) from None


def _told(model: AuditPage | AuditVerdict) -> Response:
    return Response(model.model_dump_json(), 200, {"Cache-Control": "no-store"}, "application/json")
