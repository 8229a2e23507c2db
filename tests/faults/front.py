"""A small HTTP front for the embedded ClickHouse engine, so that several workers can share one, as they share a server.

A fixture, no product: it speaks as much of ClickHouse's HTTP interface as clickhouse-connect uses. What is said to the path
/-/mode makes it a bad store. Run as `python -m tests.faults.front FOLDER PORT [CONFIG]`.
"""

import json
import random
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import LifoQueue
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlsplit

from clickhouse_connect.driver._backend.chdb_backend import ChdbBackend
from clickhouse_connect.driver._backend.models import CommandExecution, QueryRuntime
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from tests.clickhouse_rights import place_with_rights

#: What the front can be made to do with a request; `share` of the requests, until another mode is set:
#: refuse: an error at once. lost: done, but the answer is an error. full: inserts fail for want of disk space.
#: slow: an answer after some seconds. cut: done, but the answer ends too soon. hang: no answer while the mode lasts.
MODES: Final = ("well", "refuse", "lost", "full", "slow", "cut", "hang")
SLOW_SECONDS: Final = 2.0

#: Queries at a time; each has a connection of its own.
_CONNECTIONS: Final = 8

#: What takes longer, in seconds, is noted in the log.
_LONG_SECONDS: Final = 2.0

_INSERT = re.compile(rb"\s*INSERT\s+INTO\s+(\S+)\s*(?:\(([^)]*)\))?\s*FORMAT\s+(\w+)\s*(?:\n|$)", re.IGNORECASE)
#: Settings that are passed on to the engine. The others of each request are the transport's, or the engine's defaults, or cannot
#: be taken back from a connection that is used by all in turn.
_SETTING = re.compile(
    r"(max_query_size|max_partitions_per_insert_block|optimize_on_insert|date_time_output_format|output_format_(arrow|json)_.*)$"
)


@dataclass(slots=True)
class Mode:
    """How the front behaves now."""

    name: str = "well"
    share: float = 1.0
    #: For so long, in seconds.
    lasts: float = float("inf")
    begun: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether the store is well again."""
        return time.monotonic() > self.begun + self.lasts

    def strikes(self, name: str, chance: random.Random) -> bool:
        """Whether this request is to suffer the mode."""
        return self.name == name and not self.over and chance.random() < self.share


class Front(ThreadingHTTPServer):
    """The engine in a folder, behind HTTP on loopback."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, port: int, config: Path | None = None) -> None:
        # With a configuration its limits hold, which whoever asks may not be allowed to change.
        limits = {"max_memory_usage": str(1 << 30), "max_threads": "2"} if config is None else {}
        place = str(folder) if config is None else place_with_rights(folder, config)
        self.mode = Mode()
        self.chance = random.Random(port)
        self._free: LifoQueue[ChdbBackend] = LifoQueue()
        for _ in range(_CONNECTIONS):
            backend = ChdbBackend(connection_string=place)
            for name, value in limits.items():
                backend.set_client_setting(name, value)
            self._free.put(backend)
        super().__init__(("127.0.0.1", port), _Request)

    @contextmanager
    def connection(self) -> Iterator[ChdbBackend]:
        """A connection of one's own."""
        backend = self._free.get()
        try:
            yield backend
        except ClickHouseError:
            # The engine would give what a failed query had answered as the beginning of its next answer.
            backend.execute_command("SELECT 1 FORMAT Null", {}, None, None, QueryRuntime(), None)
            raise
        finally:
            self._free.put(backend)


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave together: apart, each answer would wait 40 ms for an acknowledgement.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    server: Front

    def do_GET(self) -> None:
        """Answer a query without a body."""
        self._answer()

    def do_POST(self) -> None:
        """Answer a query, or take an insert."""
        self._answer()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        address = urlsplit(self.path)
        parameters = dict(parse_qsl(address.query, keep_blank_values=True))
        body = self._body()
        if self.headers.get_content_type() == "multipart/form-data":
            # A query whose parameters are too long for an address.
            parameters |= _fields(self.headers["Content-Type"], body)
            body = b""
        if address.path == "/-/mode":
            self.server.mode = Mode(**json.loads(body))
            return self._send(200, b"")
        if address.path == "/ping":
            return self._send(200, b"Ok.\n")
        mode, chance = self.server.mode, self.server.chance
        text = parameters.get("query", "").encode()
        insert = _INSERT.match(text) or (None if text else _INSERT.match(body))
        if mode.strikes("hang", chance):
            while self.server.mode is mode and not mode.over:
                time.sleep(0.1)
        if mode.strikes("slow", chance):
            time.sleep(SLOW_SECONDS * chance.random())
        if mode.strikes("refuse", chance):
            return self._fail(210, "Code: 210. DB::NetException: Connection refused (NETWORK_ERROR)")
        if insert and mode.strikes("full", chance):
            return self._fail(
                243, "Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space (NOT_ENOUGH_SPACE)"
            )
        begun = time.monotonic()
        try:
            with self.server.connection() as backend:
                waited = time.monotonic() - begun
                done = _execute(backend, text, body, insert, parameters, self.headers.get("Content-Encoding"))
        except DatabaseError as error:
            return self._fail(error.code or 1002, str(error))
        except ClickHouseError as error:
            return self._fail(1002, f"Code: 1002. DB::Exception: {error}")
        if (took := time.monotonic() - begun) > _LONG_SECONDS:
            asked = " ".join((text or body)[:300].decode(errors="replace").split())
            print(
                f"{time.strftime('%H:%M:%S')} {took:.1f} s, of which {waited:.1f} s for a connection: {asked}",
                flush=True,
            )
        if mode.strikes("lost", chance):
            return self._fail(210, "Code: 210. DB::NetException: Connection reset by peer (NETWORK_ERROR)")
        headers = {"X-ClickHouse-Format": done.result_format} if done.result_format else {}
        self._send(200, done.body, headers, cut=mode.strikes("cut", chance))
        return None

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _fail(self, code: int, message: str) -> None:
        self._send(500, message.encode(), {"X-ClickHouse-Exception-Code": str(code)})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + 64 * cut))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()
        if cut:
            self.close_connection = True


def _fields(content_type: str, body: bytes) -> dict[str, str]:
    form = BytesParser().parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parts = cast(list[Message], form.get_payload())
    return {
        str(part.get_param("name", header="content-disposition")): cast(bytes, part.get_payload(decode=True)).decode()
        for part in parts
    }


def _execute(
    backend: ChdbBackend,
    text: bytes,
    body: bytes,
    insert: "re.Match[bytes] | None",
    parameters: Mapping[str, str],
    encoding: str | None,
) -> CommandExecution:
    settings = {name: value for name, value in parameters.items() if _SETTING.match(name)}
    # A server asks for no right to the database that a request begins in; USE, by which the engine goes there, needs one.
    database = parameters.get("database")
    runtime = QueryRuntime(database=None if database == "default" else database, settings=settings)
    if insert:
        table, columns, form = (part.decode() if part else "" for part in insert.groups())
        names = [name.strip(" `") for name in columns.split(",")] if columns else None
        data = body if text else body[insert.end() :]
        backend.execute_raw_insert(table, names, data, form, encoding, runtime, None)
        return CommandExecution(body=b"")
    bound = {name: value for name, value in parameters.items() if name.startswith("param_")}
    sql = b"\n".join(part for part in (text, body) if part).decode()
    return backend.execute_command(sql, bound, None, None, runtime, None)


def main() -> None:
    """Serve until killed."""
    front = Front(Path(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:4]))
    threading.stack_size(1 << 20)
    front.serve_forever()


if __name__ == "__main__":
    main()
