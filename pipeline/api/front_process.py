"""The parent's side of the process at the door: starts it, tells it the venues' bytes, starts it again if it ends."""

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Final

from pipeline.processes import tied

log = logging.getLogger(__name__)

#: Venues told at once: a few milliseconds in which the child answers nobody.
_PART: Final = 2_000
#: How long the child has to end, and the pause before another is started, in seconds.
_LEAVE_SECONDS: Final = 3.0
_AGAIN_SECONDS: Final = 0.5


class FrontProcess:
    """One child over a listening socket, which stays ours to close; a child that ends is replaced."""

    def __init__(self, listening: socket.socket, parent_port: int, certificate: Sequence[Path] = ()) -> None:
        """`certificate` are the files that TLS is spoken with: the chain and its key."""
        self._listening = listening
        self._certificate = certificate
        self._parent_port = parent_port
        self._told: tuple[str, Mapping[str, bytes]] | None = None
        self._closing = False
        self._lock = Lock()
        self._child = self._start()
        self._watcher = Thread(target=self._watch, name="front", daemon=True)
        self._watcher.start()

    def tell(self, as_of: str, changed: Mapping[str, bytes] | None, everything: Mapping[str, bytes]) -> None:
        """Send the venues' bytes: what changed (None: everything)."""
        with self._lock, suppress(OSError):  # whoever takes the place of a child that has ended is told everything
            self._told = as_of, everything
            self._send(
                b"D" if changed is not None else b"F", as_of, (everything if changed is None else changed).items()
            )

    def close(self) -> None:
        """End the child."""
        self._closing = True
        with self._lock, suppress(OSError):
            assert self._child.stdin is not None
            self._child.stdin.close()
        self._watcher.join(_LEAVE_SECONDS)
        if self._watcher.is_alive():
            self._child.kill()
            self._watcher.join()

    def _start(self) -> "subprocess.Popen[bytes]":
        descriptor = self._listening.fileno()
        options = [str(self._parent_port), *map(str, self._certificate)]
        command = [sys.executable, "-m", "pipeline.api.front", str(descriptor), *options]
        return subprocess.Popen(tied(command), stdin=subprocess.PIPE, pass_fds=(descriptor,))

    def _watch(self) -> None:
        while True:
            status = self._child.wait()
            time.sleep(0 if self._closing else _AGAIN_SECONDS)
            with self._lock, suppress(OSError):
                if self._closing:
                    return
                log.warning("the process that answers status requests has ended (%s): starting it again", status)
                self._child = self._start()
                if self._told is not None:
                    as_of, everything = self._told
                    self._send(b"F", as_of, everything.items())

    def _send(self, kind: bytes, as_of: str, bodies: Iterable[tuple[str, bytes]]) -> None:
        lines = [b"%b\t%b" % (venue.encode(), body) for venue, body in bodies]
        pipe = self._child.stdin
        assert pipe is not None
        last = max(0, len(lines) - 1) // _PART * _PART
        for start in range(0, last + 1, _PART):
            head = (kind if start == last else b"P") + as_of.encode()
            message = b"\n".join([head, *lines[start : start + _PART]])
            pipe.write(len(message).to_bytes(4, "big") + message)
        pipe.flush()
