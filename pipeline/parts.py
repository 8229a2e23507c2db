"""The processes that a command starts, watches and ends: whatever happens to it, none of them stays behind."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Final, Self

import psutil  # type: ignore[import-untyped]

from pipeline.errors import UserError
from pipeline.processes import end_process, tied

#: Seconds that a part has to end by itself after SIGTERM.
_PATIENCE: Final = 30.0
_LOG_LINES: Final = 15
_LOG_BYTES: Final = 8_192


@dataclass(frozen=True, slots=True)
class Part:
    """One process; `log` is where it says what goes wrong."""

    name: str
    process: Any  # psutil.Process
    log: Path


class Parts:
    """Parts in the order of their start. At the end of the block they are ended in the opposite order.

    A signal during that (an impatient Ctrl-C) kills what is left at once.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def watch(self, part: Part) -> None:
        """Take over a process that is running already."""
        self._parts.append(part)

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], output: IO[Any] | None, log: IO[Any]
    ) -> Part:
        """Start a process that ends when we do, out of reach of the terminal's Ctrl-C. `output` None: our own stdout."""
        process = psutil.Popen(
            tied(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            start_new_session=True,
        )
        part = Part(name, process, Path(log.name))
        self._parts.append(part)
        return part

    def wait(self, part: Part, seconds: float) -> int | None:
        """Wait up to `seconds` for a part that is meant to end: its exit status, None while it runs.

        Raises PartFailedError when another part has ended.
        """
        try:
            status: int = part.process.wait(seconds)
        except psutil.TimeoutExpired:
            self._check(except_for=part)
            return None
        self._parts.remove(part)
        return status

    def check(self) -> None:
        """Raises PartFailedError when a part has ended that should run."""
        self._check(except_for=None)

    def _check(self, except_for: Part | None) -> None:
        for part in self._parts:
            if part is except_for:
                continue
            if not part.process.is_running() or part.process.status() == psutil.STATUS_ZOMBIE:
                raise PartFailedError(part)

    def stop(self, part: Part) -> None:
        """End one part that is no longer needed."""
        end_process(part.process, _PATIENCE)
        self._parts.remove(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while self._parts:
                self.stop(self._parts[-1])
        finally:
            for part in self._parts:
                end_process(part.process, 0)


class PartFailedError(UserError):
    """A part ended when it should not have; `last_lines` of its log say why."""

    def __init__(self, part: Part) -> None:
        super().__init__(f"the {part.name} has ended unexpectedly; its log is {part.log}")
        self.last_lines = last_lines(part.log)


def last_lines(log: Path) -> str:
    """The end of a log, as much as one wants to see in a terminal."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_LOG_LINES:])


@contextmanager
def end_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, by an exception: SystemExit with 128 + the signal's number."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    assert threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
