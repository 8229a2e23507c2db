"""Nothing under /api is answered to who may not ask; pages, probes and metrics hold nothing that is guarded.

What is released to everybody is answered without a token, so often a minute in all.

Whatever is answered, a browser takes it for what it says it is, and shows an answer of the API in no page.
"""

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request

from pipeline.access.door import Budget, Door
from pipeline.access.roles import AUDITS, ERASURES, PERSONS, Identity, Role
from pipeline.addresses import names_loopback
from pipeline.api.answers import refusal
from pipeline.api.errors import RequestError
from pipeline.api.released import PUBLIC
from pipeline.errors import UserError

log = logging.getLogger(__name__)

#: Of tokens that do not hold the log is told at most so often, in seconds: whoever tries many cannot fill it.
_TELL_SECONDS: Final = 10.0

_GUARDED: Final = "/api/"
_KEY: Final = "checkins.identity"
#: No caller's name.
_ANYBODY: Final = ""
#: Of what is no page, nothing is loaded, run or framed.
_NO_PAGE: Final = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"

_TOO_MANY: Final = RequestError(
    429, "too many requests", "the API", "wait; the setting reads_per_minute", retry_after=5
)
_MISDIRECTED: Final = RequestError(
    421,
    "this name is not answered without a token",
    "Host",
    "ask 127.0.0.1 or localhost; to be asked under other names make tokens: pipeline tokens create",
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Guard:
    """The application behind a door. Whatever is wrong with a token, the answer is the same."""

    def __init__(self, app: Any, door: Door, per_minute: int) -> None:
        """`per_minute`: so many requests each holder of a token may make, and all together who ask for what is everybody's."""
        self._app = app
        self._door = door
        self._budget = Budget(per_minute)
        # Tokens refused that the log was not told of yet, and when it was told last (monotonic seconds).
        self._refused, self._told_at = 0, -_TELL_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on with who sent it."""
        send = _with(_plain, send)
        if scope["type"] != "http" or not scope["path"].startswith(_GUARDED):
            # By no address: behind the process at the door, or a proxy, all have the same.
            if scope["type"] == "http" and scope["path"].startswith(PUBLIC) and not self._budget.take(_ANYBODY):
                await refusal(_TOO_MANY)(scope, receive, send)
                return
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        authorization = headers.get("authorization")
        try:
            if authorization is None and self._door.is_open and not _is_for_loopback(headers):
                await refusal(_MISDIRECTED)(scope, receive, send)
                return
            identity = (
                self._door.identify(None)
                if authorization is None
                else await run_in_threadpool(self._door.identify, authorization)
            )
        except UserError as error:
            log.error("nobody can be let in: %s", error)
            identity = None
        if identity is None:
            if authorization is not None:
                self._note_refused()
            refused = refusal(
                RequestError(401, "who you are is not known", "Authorization", "send Bearer and a valid token")
            )
            refused.headers["WWW-Authenticate"] = "Bearer"
            await refused(scope, receive, send)
            return
        if authorization is not None and not self._budget.take(identity.who):
            await refusal(_TOO_MANY)(scope, receive, send)
            return
        if not Door.lets(identity):
            await refusal(_forbidden(identity))(scope, receive, send)
            return
        scope[_KEY] = identity
        await self._app(scope, receive, send if authorization is None else _with(_private, send))

    def _note_refused(self) -> None:
        self._refused += 1
        now = time.monotonic()
        if now - self._told_at >= _TELL_SECONDS:
            log.warning("tokens that do not hold were refused: %d since this was last said", self._refused)
            self._refused, self._told_at = 0, now


def tracer(request: Request) -> Identity:
    """Who asks about persons. Raises RequestError, before anything is looked up, if they may not."""
    return _who(request, PERSONS)


def admin(request: Request) -> Identity:
    """Who asks for an erasure. Raises RequestError, before anything is done, if they may not."""
    return _who(request, ERASURES)


def auditor(request: Request) -> Identity:
    """Who asks for the audit log. Raises RequestError, before anything is read, if they may not."""
    return _who(request, AUDITS)


def _who(request: Request, allowed: frozenset[Role]) -> Identity:
    identity = request.scope.get(_KEY)
    if not Door.lets(identity, allowed):
        raise _forbidden(identity)
    assert isinstance(identity, Identity)
    return identity


def _forbidden(identity: Identity | None) -> RequestError:
    # Who tries is worth knowing; what they asked for may name a case, which is not the log's to tell.
    log.warning("%s was refused: no role of theirs allows it", identity.who if identity else "somebody")
    return RequestError(
        403, "your role does not allow this", "Authorization", "ask whoever gives out access for the role"
    )


def _is_for_loopback(headers: Headers) -> bool:
    return names_loopback(headers.get("host", "").encode("latin-1"))


def _with(change: Callable[[MutableHeaders], None], send: Send) -> Send:
    # The same, with an answer's headers changed.
    async def kept(message: Any) -> None:
        if message["type"] == "http.response.start":
            change(MutableHeaders(scope=message))
        await send(message)

    return kept


def _plain(headers: MutableHeaders) -> None:
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Content-Security-Policy", _NO_PAGE)  # the pages have their own


def _private(headers: MutableHeaders) -> None:
    # What was answered to one caller is not a proxy's to give to others.
    headers["Cache-Control"] = headers.get("Cache-Control", "no-store").replace("public", "private")
