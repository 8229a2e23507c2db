"""Which devices may send: a file with the SHA-256 of each one's token.

A token has 256 random bits, so its plain hash tells nothing; who reads the file cannot send.
"""

import re
import secrets
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from pipeline.errors import UserError
from pipeline.privacy.secret_files import make_secret_folder, read_secret_file, write_secret_file

_LINE: Final = re.compile(r"([A-Za-z0-9._:-]{1,64}) ([0-9a-f]{64})")


class Devices:
    """The devices of a file, by the hash of their tokens."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises UserError."""
        self._path = path
        self._by_hash: dict[str, str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read it again: what was added may send, what was removed may not. Raises UserError, and keeps what it had."""
        self._by_hash = {digest: device for device, digest in _read(self._path)}

    def device_of(self, authorization: str) -> str | None:
        """The device whose token stands in an Authorization header; None if it is nobody's."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        return self._by_hash.get(_hash(token.strip()))


def add_device(path: Path, device: str, first: Callable[[], object] = lambda: None) -> str:
    """Put a device into the file, which is made if need be; returns its token, which is kept nowhere. Raises UserError.

    `first` is called before anything is changed, once it may be; what it raises prevents the change.
    """
    known = _read(path) if path.exists() else []
    if device in (name for name, _ in known):
        raise UserError(f"{path} has the device {device} already; remove its line first to give it another token")
    token = secrets.token_urlsafe(32)
    line = f"{device} {_hash(token)}"
    if not _LINE.fullmatch(line):
        raise UserError("a device's name has 1 to 64 of A-Za-z0-9._:-")
    first()
    make_secret_folder(path.parent)
    write_secret_file(path, "".join(f"{name} {digest}\n" for name, digest in known) + f"{line}\n")
    return token


def _read(path: Path) -> list[tuple[str, str]]:
    found = []
    for number, line in enumerate(read_secret_file(path).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise UserError(f"{path}, line {number}: must be a device's name and the SHA-256 of its token in hex")
            found.append((match[1], match[2]))
    return found


def _hash(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
