"""Static tokens for small set-ups: a file of hashes, readable by its owner only.

A token is 256 random bits, so its plain SHA-256 gives nothing to guess from: slow hashes protect words that people choose, and
would only make each request slow. The file is read anew when it changes.
"""

import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from fcntl import LOCK_EX, flock
from hashlib import sha256
from pathlib import Path
from typing import Final

from pipeline.access.roles import Identity, Role
from pipeline.errors import UserError
from pipeline.file_state import FileState, state_of
from pipeline.privacy.secret_files import make_secret_folder, write_secret_file

#: What a token begins with, so that one in a log or a repository is recognised.
PREFIX: Final = "checkins_"


@dataclass(frozen=True, slots=True)
class StaticToken:
    """One line of the file; times are RFC 3339 in UTC."""

    name: str
    roles: tuple[str, ...]
    sha256: str
    created_at: str
    expires_at: str


class TokenFile:
    """The tokens of one file, which need not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: FileState | None = None
        self._tokens: list[StaticToken] = []

    def tokens(self) -> list[StaticToken]:
        """All of them. Raises UserError where the file can be read by others than its owner, or makes no sense."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._seen, self._tokens = None, []
            return []
        if status.st_uid not in (os.getuid(), 0):
            raise UserError(f"{self._path} belongs to another user, who could add tokens to it: chown it")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UserError(f"{self._path} can be read by others: chmod 600 it")
        state = state_of(status)
        if state != self._seen:
            try:
                rows = json.loads(self._path.read_text())
                self._tokens = [StaticToken(**{**row, "roles": tuple(row["roles"])}) for row in rows]
            except (ValueError, TypeError, KeyError):
                raise UserError(f"{self._path} holds no tokens: remove it, and make new ones") from None
            self._seen = state
        return self._tokens

    def is_there(self) -> bool:
        """Whether there is such a file, be it without a token: taking the last one back opens nothing. Raises UserError."""
        self.tokens()
        return self._seen is not None

    def create(self, name: str, roles: tuple[Role, ...], days: int, first: Callable[[], object] = lambda: None) -> str:
        """Add a token; returns it, for the only time. Raises UserError if the name is taken.

        `first` is called once that is known, before anything is changed; what it raises prevents the change.
        """
        token = PREFIX + secrets.token_urlsafe(32)
        now = datetime.now(UTC)
        with self._changing() as tokens:
            if any(each.name == name for each in tokens):
                raise UserError(f"there is a token {name} already: revoke it, or choose another name")
            first()
            expires = now + timedelta(days)
            digest = sha256(token.encode()).hexdigest()
            tokens.append(StaticToken(name, tuple(map(str, roles)), digest, _text(now), _text(expires)))
        return token

    def revoke(self, name: str, first: Callable[[], object] = lambda: None) -> int:
        """Remove a token; returns how many are left. Raises UserError if there is none of that name. `first` as in `create`."""
        with self._changing() as tokens:
            kept = [each for each in tokens if each.name != name]
            if len(kept) == len(tokens):
                raise UserError(f"there is no token {name}: see `pipeline tokens list`")
            first()
            tokens[:] = kept
        return len(kept)

    def identify(self, token: str, now: datetime) -> Identity | None:
        """Whose token it is; None if it is nobody's or has expired. Takes as long for each."""
        digest = sha256(token.encode()).hexdigest()
        found = None
        for each in self.tokens():
            if hmac.compare_digest(each.sha256, digest) and datetime.fromisoformat(each.expires_at) > now:
                found = each
        return Identity(f"token:{found.name}", frozenset(map(Role, found.roles))) if found else None

    @contextmanager
    def _changing(self) -> Iterator[list[StaticToken]]:
        make_secret_folder(self._path.parent)
        lock = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            flock(lock, LOCK_EX)
            tokens = list(self.tokens())
            yield tokens
            write_secret_file(self._path, json.dumps([asdict(each) for each in tokens], indent=1))
        finally:
            os.close(lock)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
