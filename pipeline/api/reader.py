"""Questions to the store from a few threads with connections of their own: read-only, bounded in number and in time."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pyarrow as pa

from pipeline.api.errors import RequestError
from pipeline.errors import StoreUnavailableError, UserError
from pipeline.query import make_read_only
from pipeline.settings import Settings
from pipeline.store.client import open_store
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

T = TypeVar("T")

#: Questions asked at once, and those that may wait for a thread: more are sent away, so that a rush cannot pile up.
THREADS: Final = 2
WAITING: Final = 32
#: A question is broken off after so long, in seconds, and may use so many of the engine's threads: the worker comes first.
QUESTION_SECONDS: Final = 10
ENGINE_THREADS: Final = 1

_TOO_LONG: Final = "Code: 159"


def open_reader(settings: Settings) -> Client:
    """A connection for one thread that can only read. Raises UserError where there is no store yet."""
    client = open_store(settings, read_only=True)
    client.set_client_setting("max_execution_time", str(QUESTION_SECONDS))
    client.set_client_setting("max_threads", str(ENGINE_THREADS))
    make_read_only(client)
    return client


def ask_arrow(client: Client, sql: str, parameters: dict[str, Any] | None = None) -> pa.Table:
    """The answer to one SELECT, as an Arrow table. Raises StoreUnavailableError."""
    with store_errors():
        raw = client.raw_query(sql, parameters=parameters, fmt="ArrowStream")
        return pa.ipc.open_stream(raw).read_all()


def ask_rows(client: Client, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The answer to one short SELECT, a dict a row. Raises StoreUnavailableError."""
    rows: list[dict[str, Any]] = ask_arrow(client, sql, parameters).to_pylist()
    return rows


class Reader:
    """The threads that ask. Close it before the store's owner ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(THREADS, "api-read")
        self._own = threading.local()
        self._clients: list[Client] = []
        self._outstanding = 0

    async def ask(self, question: Callable[[Client], T]) -> T:
        """Ask from one of the threads. Raises RequestError where the store does not answer, or not in time."""
        return await self._run(lambda: question(self._client()))

    async def compute(self, work: Callable[[], T]) -> T:
        """Do what takes more than a millisecond away from the event loop, which answers everybody."""
        return await self._run(work)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._outstanding >= THREADS + WAITING:
            raise RequestError(503, "too many questions at once", "the API", "ask again in a moment", retry_after=1)
        self._outstanding += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except StoreUnavailableError as error:
            if _TOO_LONG in str(error):
                raise RequestError(
                    503, f"the answer took more than {QUESTION_SECONDS} s", "the store", "ask for fewer days or venues"
                ) from None
            raise RequestError(
                503, f"the store does not answer: {error}", "the store", "ask again; see /readyz", retry_after=2
            ) from None
        except UserError as error:
            raise RequestError(503, str(error), "the store", "ask again once a worker has run", retry_after=5) from None
        finally:
            self._outstanding -= 1

    def _client(self) -> Client:
        client: Client | None = getattr(self._own, "client", None)
        if client is None:
            with store_errors():
                client = self._own.client = open_reader(self._settings)
            self._clients.append(client)
        return client

    def close(self) -> None:
        """Let questions under way end, and give the connections back."""
        self._threads.shutdown(cancel_futures=True)
        for client in self._clients:
            client.close()
