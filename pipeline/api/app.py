"""The application: its routes and pages."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from pipeline import __version__
from pipeline.api.answers import answer, refusal
from pipeline.api.errors import RequestError
from pipeline.api.live import Live
from pipeline.api.models import Health, Problem
from pipeline.api.pages import ADDRESSES, Pages
from pipeline.api.planning import planning_routes
from pipeline.api.reader import Reader
from pipeline.api.released import Bodies, public_routes, released_routes
from pipeline.api.status import StatusBook
from pipeline.api.venues import venue_routes

#: Answers a probe: whether it is well, and the facts behind it.
Probe = Callable[[], tuple[bool, Mapping[str, object]]]
#: The text that Prometheus scrapes.
Exposition = Callable[[], bytes]

#: Pages that follow the feed at once.
MOST_READERS: Final = 500

_DESCRIPTION: Final = """
How full venues are, were, and are going to be: aggregates, for every role. What is about one visitor is under /cases: for the
role tracer, with the header X-Purpose, and every request is in the audit log.

All instants are RFC 3339 in UTC. Lists come in pages: pass `next` as `cursor`. Every answer has an `ETag`; a request with
`If-None-Match` costs a line. What was refused says what, where, and the way out.
"""
_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Problem, "description": "Who asks is not known"},
    403: {"model": Problem, "description": "The role does not allow it"},
    404: {"model": Problem, "description": "There is no such thing"},
    421: {
        "model": Problem,
        "description": "Without a token only this machine's loopback is answered, under its own names",
    },
    422: {"model": Problem, "description": "The request makes no sense"},
    429: {"model": Problem, "description": "Too many requests"},
    503: {"model": Problem, "description": "Not now: the store is away or busy"},
}


def build_app(
    live: Live,
    reader: Reader,
    book: StatusBook,
    exposition: Exposition,
    probes: Mapping[str, Probe],
    persons: APIRouter | None = None,
    settled: float = 0.0,
) -> FastAPI:
    """The routes and pages over what its owner starts and closes; `persons`: the routes about persons, behind a guard.

    Releases are told once they have been there for `settled` seconds.
    """
    app = FastAPI(
        title="The check-in pipeline",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # its address would be made of what the request says that the host is
    )
    api = APIRouter(prefix="/api/v1", responses=_REFUSED)
    api.include_router(venue_routes(live, reader, book))
    api.include_router(planning_routes(live, reader))
    released = Bodies(reader, settled)
    api.include_router(released_routes(released))
    api.include_router(_own_routes(live))
    if persons is not None:
        api.include_router(persons)
    app.include_router(api)
    app.include_router(public_routes(released), responses={code: _REFUSED[code] for code in (404, 422, 429, 503)})
    _add_pages(app)
    _add_operations(app, exposition, probes)
    app.add_exception_handler(RequestError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _refuse_plainly)
    return app


def _own_routes(live: Live) -> APIRouter:
    router = APIRouter()

    @router.get("/health", tags=["health"], summary="How the pipeline does", response_model=Health)
    async def health(request: Request) -> Response:
        """Lag, delay, dead letters, the store, and how old the data is. Answers 200 also when something is wrong."""
        return answer(request, Health(**live.health), 1)

    @router.get(
        "/live",
        tags=["health"],
        summary="Everything that the live page shows, as it changes",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def follow(request: Request) -> Response:
        """Server-sent events: `snapshot` first, then `delta` at most once a second.

        Ends after five minutes: reconnect with Last-Event-ID.
        """
        if live.feed.readers >= MOST_READERS:
            raise RequestError(
                503, "too many pages follow the feed", "the API", "close some, or ask /api/v1/venues", retry_after=10
            )
        return StreamingResponse(
            live.feed.follow(request.headers.get("last-event-id")),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return router


def _add_pages(app: FastAPI) -> None:
    pages = Pages()

    @app.api_route("/static/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def static(request: Request, path: str) -> Response:
        found = pages.answer(path, request)
        if found is None:
            raise RequestError(404, "there is no such file", request.url.path, "the pages are / and /planning")
        return found

    for address, file in ADDRESSES.items():

        def page(request: Request, file: str = file) -> Response:
            found = pages.answer(file, request)
            assert found is not None
            return found

        app.add_route(address, page, methods=["GET"], include_in_schema=False)


def _add_operations(app: FastAPI, exposition: Exposition, probes: Mapping[str, Probe]) -> None:
    async def metrics(_request: Request) -> Response:
        text = await run_in_threadpool(exposition)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    app.add_route("/metrics", metrics, methods=["GET"], include_in_schema=False)
    for address, probe in probes.items():

        async def ask(_request: Request, probe: Probe = probe) -> Response:
            well, facts = probe()
            return JSONResponse({"ok": well, **facts}, 200 if well else 503, {"Cache-Control": "no-store"})

        app.add_route(address, ask, methods=["GET"], include_in_schema=False)


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return refusal(error)


async def _refuse_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "request"
    return refusal(RequestError(422, f"{where}: {first['msg']}", where, "see /api/docs for what it may be"))


async def _refuse_plainly(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = refusal(
        RequestError(
            error.status_code,
            HTTPStatus(error.status_code).phrase.lower(),
            request.url.path,
            "the pages are / and /planning; the API is described at /api/docs",
        )
    )
    refused.headers.update(error.headers or {})
    return refused
