"""/metrics, /livez and /readyz of a worker, on loopback, in a thread of their own: they answer even if the loop hangs."""

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from pipeline.errors import UserError
from pipeline.streaming.metrics import Metrics

#: Answers a probe: whether it is well, and the facts behind it.
Probe = Callable[[], tuple[bool, Mapping[str, object]]]


@contextmanager
def serve_http(port: int, metrics: Metrics, live: Probe, ready: Probe) -> Iterator[int]:
    """Serve while the block runs; gives the port in use (`port` 0 takes a free one). Raises UserError if taken."""
    probes = {"/livez": live, "/readyz": ready}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics.exposition())
            elif path in probes:
                well, facts = probes[path]()
                self._answer(200 if well else 503, "application/json", json.dumps({"ok": well, **facts}).encode())
            else:
                self._answer(404, "application/json", b'{"error": "try /metrics, /livez or /readyz"}')

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: ARG002 (a scrape is no news)
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

    try:
        server = Server(("127.0.0.1", port), Handler)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise UserError(
            f"port {port} on 127.0.0.1 is taken (by another worker?); set PIPELINE_HTTP_PORT to another, or to 0"
        ) from None
    Thread(target=server.serve_forever, name="http", daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
