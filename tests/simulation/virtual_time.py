"""An event loop whose clock jumps to whatever is due next, and threads that run on it: hours of a worker's loop in a moment.

All is in the order that a seed gives. A call handed to a thread takes a while and happens at its end; of one that returns a
generator each step does so.
"""

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any


class _Selector(selectors.DefaultSelector):
    """Waits by moving the clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("nothing will ever happen again")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which no time passes but that which somebody waits for. Nothing outside of it is noticed."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Virtual seconds; those of its `clock`, too."""
        return self._clock.now


class Clock:
    """What a module under test sees as `time`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.monotonic = self.time = loop.time


class VirtualThread:
    """A pool of one thread: calls one after the other, each taking as long as `lasts` says. `kill` ends it amid a call."""

    def __init__(self, loop: VirtualLoop, lasts: Callable[[], float]) -> None:
        self._loop = loop
        self._lasts = lasts
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._busy = self._dead = False

    def submit(self, call: Callable[..., Any], /, *arguments: Any) -> "Future[Any]":
        """Have a call made after those before it."""
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: call(*arguments)))
        self._go_on()
        return future

    def shutdown(self) -> None:
        """Nothing holds it."""

    def kill(self) -> None:
        """Nothing more happens in it."""
        self._dead = True

    def _go_on(self) -> None:
        if self._busy or not self._waiting or self._dead:
            return
        future, call = self._waiting.popleft()
        if future.set_running_or_notify_cancel():
            self._busy = True
            self._later(self._begin, future, call)
        else:
            self._go_on()

    def _later(self, step: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_later(self._lasts(), lambda: None if self._dead else step(*arguments))

    def _begin(self, future: "Future[Any]", call: Callable[[], Any]) -> None:
        try:
            result = call()
        except Exception as error:
            self._end(future, error=error)
            return
        if isinstance(result, Generator):
            self._step(future, result)
        else:
            self._end(future, result)

    def _step(self, future: "Future[Any]", steps: Generator[None, None, Any]) -> None:
        try:
            next(steps)
        except StopIteration as done:
            self._end(future, done.value)
        except Exception as error:
            self._end(future, error=error)
        else:
            self._later(self._step, future, steps)

    def _end(self, future: "Future[Any]", result: Any = None, error: Exception | None = None) -> None:
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
        self._busy = False
        self._go_on()
