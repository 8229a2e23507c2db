"""The HTTP server: a process at the door for the status of venues, and for all else a thread with an event loop of its own.

So metrics and probes answer even if the worker's loop hangs.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Final

import uvicorn

from pipeline.access.door import Door
from pipeline.addresses import is_loopback
from pipeline.api.app import Exposition, Probe, build_app
from pipeline.api.asking import Register
from pipeline.api.audits import audit_routes
from pipeline.api.erasures import Erase, erasure_routes
from pipeline.api.front_process import FrontProcess
from pipeline.api.guard import Guard
from pipeline.api.live import Facts, Live
from pipeline.api.persons import kafka_sender, person_routes
from pipeline.api.reader import Reader
from pipeline.api.status import StatusBook
from pipeline.bounded_http import BoundedHttp
from pipeline.certificate import Certificate
from pipeline.listening import bound_socket
from pipeline.settings import Settings
from pipeline.store.releases import rivals_seconds

log = logging.getLogger(__name__)

#: Connections at once, and how long answers under way may take when the server ends, in seconds.
CONNECTIONS: Final = 2_000
LEAVE_SECONDS: Final = 2
#: Connections that wait to be taken.
_BACKLOG: Final = 2_048


@contextmanager
def serve_http(
    settings: Settings,
    exposition: Exposition,
    probes: Mapping[str, Probe],
    facts: Facts = dict,
    erase: Erase | None = None,
) -> Iterator[int]:
    """Serve while the block runs; gives the port in use (setting 0 takes a free one). Raises UserError if it is taken.

    `probes` are by address; without one for /livez or /readyz these say whether we answer, and whether the store does. `facts`
    are about the worker in this process, which can `erase`. The store is read from its first answer on: it need not be there yet.
    """
    door, certificate = Door(settings), _certificate(settings)
    outside = bound_socket(settings.http_host, settings.http_port, "PIPELINE_HTTP", " (by another worker?)")
    inside = bound_socket("127.0.0.1", 0, "PIPELINE_HTTP")
    for listening in (outside, inside):
        listening.listen(_BACKLOG)
    front = FrontProcess(outside, inside.getsockname()[1], certificate)
    # The process at the door knows nobody: where access is configured, it hands everything on to us.
    book = StatusBook(front.tell if door.is_open else lambda *_: None)
    live, reader = Live(settings, facts, book.update), Reader(settings)
    register = Register(settings)
    persons = person_routes(settings, reader, kafka_sender(settings), register)
    persons.include_router(erasure_routes(register, erase))
    persons.include_router(audit_routes(register))
    answered: dict[str, Probe] = {"/livez": lambda: (True, {}), "/readyz": live.ready, **probes}
    # Twice as long as their maker waits: clocks differ.
    app = build_app(live, reader, book, exposition, answered, persons, 2 * rivals_seconds(settings))
    server = uvicorn.Server(
        uvicorn.Config(
            _announced(
                Guard(app, door, settings.reads_per_minute),
                live,
            ),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            http=BoundedHttp,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=LEAVE_SECONDS,
        )
    )
    thread = Thread(target=server.run, args=([inside],), name="http", daemon=True)
    live.start()
    thread.start()
    try:
        yield outside.getsockname()[1]
    finally:
        server.should_exit = True
        live.close()
        thread.join(LEAVE_SECONDS * 2)
        front.close()
        reader.close()
        inside.close()
        outside.close()


def _certificate(settings: Settings) -> tuple[Path, ...]:
    """The files that TLS is spoken with; none for plain HTTP. Raises UserError if they are of no use."""
    chain, key = settings.http_certificate, settings.http_certificate_key
    if chain is not None and key is not None:
        Certificate(chain, key)
        return chain, key
    if not is_loopback(settings.http_host):
        log.warning(
            "tokens and answers travel in clear to %s: set PIPELINE_HTTP_CERTIFICATE and PIPELINE_HTTP_CERTIFICATE_KEY, or put "
            "a proxy that speaks TLS in front",
            settings.http_host,
        )
    return ()


def _announced(app: Any, live: Live) -> Any:
    """The application, which tells the feed on its first request which loop it runs on."""

    async def announced(scope: Any, receive: Any, send: Any) -> None:
        live.feed.serve_on(asyncio.get_running_loop())
        await app(scope, receive, send)

    return announced
