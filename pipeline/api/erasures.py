"""The route that erases a visitor: for the role admin with a purpose; in the audit log first.

The pseudonym is in the body, where no proxy logs it. The answer tells how many scans went, and so whether anybody
was known by it; of the person nothing else.
"""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.asking import Asker, Purpose, Register, read_body
from pipeline.api.errors import RequestError
from pipeline.api.guard import admin
from pipeline.api.models import Problem
from pipeline.api.person_models import Erased, ErasureRequest
from pipeline.errors import UserError
from schemas.fields import refusal_detail

if TYPE_CHECKING:
    from pipeline.erasure import Receipt

#: Takes a visitor out of the store; gives a receipt once it is in no view. Its exception is a UserError.
Erase = Callable[[str], "Future[Receipt]"]

_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ErasureRequest.model_json_schema()}},
    }
}
_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    413: {"model": Problem, "description": "The request is too long"},
    429: {"model": Problem, "description": "Too many requests about persons"},
}


def erasure_routes(register: Register, erase: Erase | None) -> APIRouter:
    """The route. `erase` is None in a process that does not write to the store."""
    router = APIRouter(tags=["erasures"], responses=_REFUSED)

    def allowed(request: Request, purpose: Purpose) -> Asker:
        return register.admit(admin(request), purpose)

    @router.post(
        "/erasures", summary="Take a visitor out of the store for good", response_model=Erased, openapi_extra=_BODY
    )
    async def erasure(request: Request, asker: Annotated[Asker, Depends(allowed)]) -> Response:
        """Answers once the visitor is in no view. The store's files are rid of it within the hour: ask again, and `off_the_disk`
        says whether they are.

        Minutes and hours are counted again as if it had never been there, and its scans are not taken any more.
        """
        try:
            asked = ErasureRequest.model_validate_json(await read_body(request, "the request"))
        except ValidationError as error:
            detail = refusal_detail(ErasureRequest, error)
            raise RequestError(422, detail, "the request", "see /api/docs for what it may be") from None
        if erase is None:
            raise RequestError(503, "this process does not write to the store", "the API", "ask the worker")
        await register.note(asker, "erases", None, 1)
        try:
            receipt = await asyncio.wrap_future(erase(asked.visitor_id))
        except UserError as error:
            raise RequestError(503, str(error), "the worker", "ask again", retry_after=5) from None
        return Response(json.dumps(asdict(receipt)), 200, {"Cache-Control": "no-store"}, "application/json")

    return router
