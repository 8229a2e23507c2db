"""What tests of the API share: the whole application behind its door without a server, over a store that is made up."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa

from pipeline.access.door import Door
from pipeline.api.app import build_app
from pipeline.api.asking import Register
from pipeline.api.audits import audit_routes
from pipeline.api.erasures import Erase, erasure_routes
from pipeline.api.guard import Guard
from pipeline.api.live import Live
from pipeline.api.persons import person_routes
from pipeline.api.status import StatusBook
from pipeline.settings import Settings
from tests.asgi import Answer

Rows = list[dict[str, Any]]


@dataclass
class FakeReader:
    """Answers every question with what `answers` says of it, and remembers the questions."""

    answers: Callable[[str, Mapping[str, Any]], Rows]
    asked: list[str] = field(default_factory=list)

    async def ask(self, question: Callable[[Any], Any]) -> Any:
        return question(self)

    def raw_query(self, sql: str, parameters: Mapping[str, Any], fmt: str) -> bytes:
        assert fmt == "ArrowStream"
        self.asked.append(sql)
        rows = self.answers(sql, parameters)
        table = pa.Table.from_pylist(rows) if rows else pa.table({})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()


@dataclass
class Api:
    """The application; `sent` is what went to case-reports."""

    app: Callable[..., Awaitable[None]]
    sent: list[tuple[bytes, bytes]]

    def ask(
        self, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None, query: bytes = b""
    ) -> Answer:
        """One request, its path encoded and decoded again as on the way through a server."""
        raw_path = quote(path, errors="surrogatepass")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET" if body is None else "POST",
            "scheme": "http",
            "path": unquote(raw_path),
            "raw_path": raw_path.encode(),
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        asyncio.run(self._run(scope, receive, send))
        content = b"".join(message.get("body", b"") for message in said[1:])
        return Answer(said[0]["status"], {n.decode(): v.decode() for n, v in said[0]["headers"]}, content)

    async def _run(self, *call: Any) -> None:
        await self.app(*call)


def make_api(settings: Settings, reader: FakeReader, erase: Erase | None = None) -> Api:
    sent: list[tuple[bytes, bytes]] = []
    register = Register(settings)
    persons = person_routes(settings, reader, lambda key, record: sent.append((key, record)), register)  # type: ignore[arg-type]
    persons.include_router(erasure_routes(register, erase))
    persons.include_router(audit_routes(register))
    live = Live(settings, dict, lambda _snapshot: None)
    app = build_app(live, reader, StatusBook(lambda *_: None), bytes, {}, persons)  # type: ignore[arg-type]
    return Api(Guard(app, Door(settings), settings.reads_per_minute), sent)
