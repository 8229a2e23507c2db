"""A TCP proxy on loopback that stands between the workers and Kafka, and can be told to misbehave."""

import asyncio
import random
import threading
from contextlib import suppress
from typing import Final

from pipeline.broker import HOST

_CHUNK: Final = 1 << 16


class Proxy:
    """Forwards every connection to `target` in a thread of its own. Thread-safe."""

    def __init__(self, port: int, target: int) -> None:
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._pause = 0.0
        self._through = asyncio.Event()
        self._through.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, HOST, port), self._loop
        ).result()

    def cut(self) -> None:
        """Close every connection; new ones are taken."""
        self._loop.call_soon_threadsafe(self._abort)

    def slow(self, seconds: float) -> None:
        """Hold each piece of data back for up to so long; 0 = not any more."""
        self._pause = seconds

    def hole(self, on: bool) -> None:
        """Take connections and data, and pass nothing on, until told otherwise: what was held goes through then."""
        self._loop.call_soon_threadsafe(self._through.clear if on else self._through.set)

    def close(self) -> None:
        """End all of it."""

        async def end() -> None:
            self._server.close()
            self._through.set()
            while self._open:
                self._abort()
                await asyncio.sleep(0.05)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, back}
        self._open |= both
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        self._open -= both

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                await self._through.wait()
                if self._pause:
                    await asyncio.sleep(random.random() * self._pause)
                sink.write(data)
                await sink.drain()
        with suppress(OSError, RuntimeError):
            sink.close()
