"""The certificate that a server of ours shows: read at the start, and again when its files have changed."""

import ssl
from pathlib import Path

from pipeline.errors import UserError
from pipeline.file_state import FileState, file_state


class Certificate:
    """TLS from version 1.2 on. `context` is for the server; after `renew` its next connections get what the files hold then."""

    def __init__(self, chain: Path, key: Path) -> None:
        """`chain` and `key` are PEM. Raises UserError if they are not there, or do not belong together."""
        self._files = chain, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._states()
        self._read()

    def renew(self) -> None:
        """Read the files again if they changed. Raises UserError, once a change; what was read before stays in use then."""
        states = self._states()
        if states != self._seen:
            self._seen = states
            # Into another context first: one that is read in part would show a chain without its key.
            Certificate(*self._files)
            self._read()

    def _states(self) -> list[FileState | None]:
        return [file_state(path) for path in self._files]

    def _read(self) -> None:
        chain, key = self._files
        try:
            # Without a password callback OpenSSL would ask on the terminal, and a server would wait there.
            self.context.load_cert_chain(chain, key, password=_no_password)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"the certificate {chain} with the key {key} cannot be used: {reason}; both must be PEM, the key without a "
                "password, and belong together"
            ) from None


def certificate_of(chain: Path | None, key: Path | None) -> Certificate | None:
    """What two settings name, if they name anything. Raises UserError."""
    return None if chain is None or key is None else Certificate(chain, key)


def _no_password() -> str:
    raise ValueError("the key wants a password")
