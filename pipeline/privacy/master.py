"""The master key: what the secrets of the periods are wrapped with. In a file, in the environment, or in a vault.

Two scopes, so that roles can be kept apart: who can unwrap "identity" and "period" makes pseudonyms, who can unwrap "period"
alone can link them and never learns whose they are.
"""

import base64
import binascii
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.errors import UserError
from pipeline.privacy.derive import KEY_BYTES, derive
from pipeline.privacy.secret_files import read_secret_file, write_secret_file
from pipeline.settings import Settings

Scope = Literal["identity", "period"]

MASTER_FILE: Final = "master.key"
_NONCE_BYTES: Final = 12  # what AES-GCM is made for: NIST SP 800-38D, section 8.2
_MASTER: Final = "master"
_LINKING: Final = "linking"


class MasterKey(Protocol):
    """Wraps secrets and unwraps them. A secret has a scope and, within it, a name; both are bound to what is wrapped."""

    #: How destruction is made real: see `KeyRing.destroy`.
    renewable: bool

    def wrap(self, scope: Scope, name: str, secret: bytes) -> str:
        """The secret as text that is worth nothing without this key. Raises UserError."""
        ...

    def unwrap(self, scope: Scope, name: str, wrapped: str) -> bytes:
        """What was wrapped. Raises UserError if this key, scope or name did not wrap it."""
        ...

    def may_unwrap(self, scope: Scope) -> bool:
        """Whether this holder is meant to unwrap secrets of the scope at all."""
        ...

    def forget(self, scope: Scope, name: str) -> str:
        """Make copies of what was wrapped so worthless, as far as this kind of key can; says in words what was done.

        Done before, it is as good as done now. Raises UserError.
        """
        ...

    #: What to do where `is_newest` holds of everything, and so nothing would change by wrapping it again.
    how_to_renew: str

    def is_newest(self, scope: Scope, name: str, wrapped: str) -> bool:
        """Whether what was wrapped was wrapped with the key that would wrap it now. Raises UserError."""
        ...

    def begin_renewal(self) -> None:
        """From here on wrap with a new key; the old one still unwraps. Only where `renewable`."""
        ...

    def finish_renewal(self) -> None:
        """Forget the old key. Everything must have been wrapped again."""
        ...


@dataclass(frozen=True, slots=True)
class _Line:
    """One key as it stands in the file: a whole master, or what is derived from one for linking."""

    kind: str
    key: bytes

    def wrapping_key(self, scope: Scope) -> bytes | None:
        if self.kind == _MASTER:
            return derive(self.key, "wrap", scope)
        return self.key if scope == "period" else None

    def __str__(self) -> str:
        return f"{self.kind}:{base64.urlsafe_b64encode(self.key).decode()}"

    @classmethod
    def read(cls, text: str, place: str) -> Self:
        kind, _, encoded = text.partition(":")
        try:
            key = base64.b64decode(encoded, altchars=b"-_", validate=True)
        except binascii.Error:
            key = b""
        if kind not in (_MASTER, _LINKING) or len(key) != KEY_BYTES:
            raise UserError(f"{place} holds no master key; make one with: pipeline keys create")
        return cls(kind, key)


class LocalMaster:
    """A master key that this process holds: AES-256-GCM under keys derived for each scope.

    The newest of its lines wraps; all of them unwrap. From a file it is renewed by itself, from the environment by whoever
    sets it: NEW,OLD.
    """

    how_to_renew = (
        "set PIPELINE_MASTER_KEY to NEW,OLD, the new key before the one in use, run this again, and then leave OLD out; where "
        "that is done, everything is wrapped with NEW already"
    )

    def __init__(self, lines: list[_Line], file: Path | None) -> None:
        self._lines = lines
        self._file = file
        self.renewable = file is not None and lines[0].kind == _MASTER

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The key in a file that only its owner can open. Raises UserError."""
        lines = [_Line.read(line, str(path)) for line in read_secret_file(path).split()]
        if not lines:
            raise UserError(f"{path} is empty; put back its copy")
        return cls(lines, path)

    @classmethod
    def create_file(cls, path: Path) -> Self:
        """A new key in a new file. Raises UserError if there is one already."""
        if path.exists():
            raise UserError(f"{path} is there already, and periods may be wrapped with it: it is not replaced")
        master = cls([_Line(_MASTER, secrets.token_bytes(KEY_BYTES))], path)
        master._save()
        return master

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The key, or NEW,OLD, as the environment has it. Raises UserError."""
        place = "PIPELINE_MASTER_KEY"
        parts = [part.strip() for part in text.split(",")]
        return cls([_Line.read(part if ":" in part else f"{_MASTER}:{part}", place) for part in parts], None)

    def linking_text(self) -> str:
        """What the tracer's file holds: unwraps periods, never the identity. A secret: for a file alone.

        It opens every copy of the ring from the time of its master key, the periods too that are destroyed since.
        """
        key = self._lines[0].wrapping_key("period")
        assert key is not None, "every kind of line has one for periods"
        return f"{_Line(_LINKING, key)}\n"

    def wrap(self, scope: Scope, name: str, secret: bytes) -> str:
        key = self._lines[0].wrapping_key(scope)
        if key is None:
            raise self._not_ours(scope)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + AESGCM(key).encrypt(nonce, secret, f"{scope}|{name}".encode())
        return f"local:v1:{base64.urlsafe_b64encode(sealed).decode()}"

    def unwrap(self, scope: Scope, name: str, wrapped: str) -> bytes:
        if not wrapped.startswith("local:v1:"):
            raise UserError(f"the key {name} was wrapped by a vault; set PIPELINE_VAULT_URL")
        sealed = base64.urlsafe_b64decode(wrapped.removeprefix("local:v1:"))
        keys = [key for line in self._lines if (key := line.wrapping_key(scope)) is not None]
        if not keys:
            raise self._not_ours(scope)
        for key in keys:
            try:
                return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], f"{scope}|{name}".encode())
            except InvalidTag:
                continue
        raise UserError(f"this master key did not wrap the key {name}: give the one that belongs to this ring")

    def is_newest(self, scope: Scope, name: str, wrapped: str) -> bool:
        if self._lines[0].wrapping_key(scope) is None:
            raise self._not_ours(scope)
        self.unwrap(scope, name, wrapped)
        try:
            LocalMaster(self._lines[:1], None).unwrap(scope, name, wrapped)
        except UserError:
            return False
        return True

    def may_unwrap(self, scope: Scope) -> bool:
        return any(line.wrapping_key(scope) is not None for line in self._lines)

    def forget(self, scope: Scope, name: str) -> str:  # noqa: ARG002
        if self.renewable:
            return (
                "the master key was renewed: older copies of the ring, the tracer's too, are worthless once every copy of the "
                "old master key and every linking key made from it are deleted"
            )
        return (
            "the master key stays: delete every copy of the ring, the tracer's too, or renew PIPELINE_MASTER_KEY and delete "
            "its old value and the linking keys made from it"
        )

    def begin_renewal(self) -> None:
        # All old lines stay: after a crash the ring may still be wrapped with any of them.
        self._lines = [_Line(_MASTER, secrets.token_bytes(KEY_BYTES)), *self._lines]
        self._save()

    def finish_renewal(self) -> None:
        del self._lines[1:]
        self._save()

    def _save(self) -> None:
        assert self._file is not None, "only a file is written"
        write_secret_file(self._file, "".join(f"{line}\n" for line in self._lines))

    def _not_ours(self, scope: Scope) -> UserError:
        return UserError(
            f"this key is for linking alone and cannot open what belongs to the {scope}: pseudonyms are made where the "
            "master key is"
        )


def open_master(settings: Settings, *, create: bool = False) -> MasterKey:
    """The master key that the settings name: a vault before the environment before the file KEYS/master.key.

    With `create` a missing file is made. Raises UserError.
    """
    if settings.vault_url is not None:
        from pipeline.privacy.vault import VaultMaster

        return VaultMaster.from_settings(settings)
    if settings.master_key is not None:
        return LocalMaster.from_text(settings.master_key.get_secret_value())
    path = settings.keys_path / MASTER_FILE
    if create and not path.exists():
        return LocalMaster.create_file(path)
    return LocalMaster.from_file(path)
