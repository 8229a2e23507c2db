"""The parent's side of the process at the door: starts it, tells it the venues' bytes, starts it again if it ends."""

import logging
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from pipeline.processes import tied

log = logging.getLogger(__name__)

_LEAVE_SECONDS: Final = 3.0


class FrontProcess:
    """One child over a listening socket, which stays ours to close. `tell` and `close` from one thread at a time."""

    def __init__(self, listening: socket.socket, parent_port: int) -> None:
        self._listening = listening
        self._parent_port = parent_port
        self._child = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        descriptor = self._listening.fileno()
        command = [sys.executable, "-m", "pipeline.api.front", str(descriptor), str(self._parent_port)]
        return subprocess.Popen(tied(command), stdin=subprocess.PIPE, pass_fds=(descriptor,))

    def tell(self, as_of: str, changed: Mapping[str, bytes] | None, everything: Mapping[str, bytes]) -> None:
        """Send what changed (None: everything). A child that has ended is replaced and told everything."""
        try:
            self._send(
                b"D" if changed is not None else b"F", as_of, (everything if changed is None else changed).items()
            )
        except OSError:
            log.warning(
                "the process that answers status requests has ended (%s): starting it again", self._child.wait()
            )
            self._child = self._start()
            self._send(b"F", as_of, everything.items())

    def _send(self, kind: bytes, as_of: str, bodies: Iterable[tuple[str, bytes]]) -> None:
        lines = (b"%b\t%b" % (venue.encode(), body) for venue, body in bodies)
        message = b"\n".join([kind + as_of.encode(), *lines])
        pipe = self._child.stdin
        assert pipe is not None
        pipe.write(len(message).to_bytes(4, "big") + message)
        pipe.flush()

    def close(self) -> None:
        """End the child."""
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()
        try:
            self._child.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
