"""Serving without a worker: over a ClickHouse server, or an embedded store while nobody else has it."""

import signal
from collections.abc import Callable
from contextlib import closing
from threading import Event

import prometheus_client

from pipeline.api.server import serve_http
from pipeline.audit_heads import TELL_SECONDS, HeadTeller
from pipeline.settings import Settings
from pipeline.store.client import open_store


def serve_until_interrupt(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises UserError if there is no store, it has another owner, or the port is taken."""
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())

    # Held until the end, so that what is wrong with the store is said now, and an embedded one keeps its owner.
    with (
        closing(open_store(settings, read_only=True)),
        serve_http(settings, prometheus_client.generate_latest, {}) as port,
    ):
        say(f"serving {settings.http_address(port)}/ until Ctrl-C")
        heads = HeadTeller(settings)
        while not stopped.wait(TELL_SECONDS):
            heads.tell()
