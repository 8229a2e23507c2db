"""A master key that never leaves HashiCorp Vault: its transit engine wraps and unwraps, over HTTP.

One transit key for each secret (`PREFIX-period-202109052000`, `PREFIX-identity-…`), of the type aes256-gcm96. So a policy can let
the tracer decrypt periods and not the identity, and destroying a period deletes its key: no copy of the ring can be opened
any more. What is asked for is in https://developer.hashicorp.com/vault/api-docs/secret/transit.
"""

import base64
import http.client
import json
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import quote

from pipeline.addresses import split_address
from pipeline.errors import UserError
from pipeline.privacy.derive import KEY_BYTES
from pipeline.privacy.master import Scope
from pipeline.settings import Settings

_SECONDS: Final = 10.0
_LONGEST_ANSWER: Final = 1 << 20
#: What the config of a key that is not there answers, with status 400. A 404 is another thing: there is no transit engine at
#: this path, and the key may live on elsewhere.
_NO_SUCH_KEY: Final = b"no existing key named"


class _NoSuchKeyError(UserError):
    """The vault has no key of this name."""


class VaultMaster:
    """A transit engine under a mount, with a token that may use the keys whose names begin with `prefix`."""

    renewable = False
    how_to_renew = "rotate its transit keys in the vault (vault write -f MOUNT/keys/NAME/rotate), then run this again"

    def __init__(self, url: str, token: str, mount: str, prefix: str) -> None:
        """Asks nothing yet. Raises UserError for an address that is none."""
        parts = split_address(url, "PIPELINE_VAULT_URL")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError("PIPELINE_VAULT_URL must be http[s]://host:port")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise UserError("PIPELINE_VAULT_URL must be https, except on loopback: secrets go over it")
        self._https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or 8200
        self._token = token
        self._path = f"{parts.path.rstrip('/')}/v1/{quote(mount.strip('/'))}"
        self._prefix = prefix

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """As the settings name it. Raises UserError."""
        if settings.vault_url is None or settings.vault_token is None:
            raise UserError("a vault needs a token: set PIPELINE_VAULT_TOKEN")
        return cls(
            settings.vault_url.get_secret_value(),
            settings.vault_token.get_secret_value(),
            settings.vault_mount,
            settings.vault_key_prefix,
        )

    def wrap(self, scope: Scope, name: str, secret: bytes) -> str:
        key = self._key(scope, name)
        self._ask("POST", f"keys/{key}", {"type": "aes256-gcm96"})
        body = {"plaintext": base64.b64encode(secret).decode(), "associated_data": _bound(scope, name)}
        return str(self._ask("POST", f"encrypt/{key}", body)["data"]["ciphertext"])

    def unwrap(self, scope: Scope, name: str, wrapped: str) -> bytes:
        if not wrapped.startswith("vault:"):
            raise UserError(f"the key {name} was not wrapped by a vault; unset PIPELINE_VAULT_URL")
        body = {"ciphertext": wrapped, "associated_data": _bound(scope, name)}
        return base64.b64decode(self._ask("POST", f"decrypt/{self._key(scope, name)}", body)["data"]["plaintext"])

    def is_newest(self, scope: Scope, name: str, wrapped: str) -> bool:
        # The version that a key has now is told by what it wraps: to be asked for it would need another right.
        return _version(wrapped) == _version(self.wrap(scope, name, bytes(KEY_BYTES)))

    def may_unwrap(self, scope: Scope) -> bool:  # noqa: ARG002
        return True  # only the vault's policy knows

    def forget(self, scope: Scope, name: str) -> str:
        key = self._key(scope, name)
        # It is not there where a destruction was broken off after its DELETE, of which the answer may have been lost.
        with suppress(_NoSuchKeyError):
            self._ask("POST", f"keys/{key}/config", {"deletion_allowed": True})
            self._ask("DELETE", f"keys/{key}", None)
        return (
            "its transit key was deleted in the vault: copies of the ring are worthless unless a backup of the vault from before "
            "is put back"
        )

    def begin_renewal(self) -> None:
        raise AssertionError("a vault's keys are renewed in the vault")

    def finish_renewal(self) -> None:
        raise AssertionError("a vault's keys are renewed in the vault")

    def _key(self, scope: Scope, name: str) -> str:
        return re.sub(r"[^A-Za-z0-9_.-]", "-", f"{self._prefix}-{scope}-{name}")

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        """The vault's answer, {} where it says nothing. Errors never hold what was sent."""
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=_SECONDS, context=ssl.create_default_context())
            if self._https
            else http.client.HTTPConnection(self._host, self._port, timeout=_SECONDS)
        )
        address = f"{self._host}:{self._port}"
        try:
            connection.request(
                method,
                f"{self._path}/{path}",
                None if body is None else json.dumps(body),
                {"X-Vault-Token": self._token, "X-Vault-Request": "true", "Content-Type": "application/json"},
            )
            response = connection.getresponse()
            text = response.read(_LONGEST_ANSWER)
            if response.status == HTTPStatus.NO_CONTENT:
                return {}
            if response.status == HTTPStatus.OK:
                return dict(json.loads(text or b"{}"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UserError(
                f"the vault at {address} does not answer ({type(error).__name__}): see PIPELINE_VAULT_URL"
            ) from None
        finally:
            connection.close()
        if response.status == HTTPStatus.FORBIDDEN:
            raise UserError(f"the vault at {address} forbids {method} {path}: its token needs a policy that allows it")
        if response.status == HTTPStatus.BAD_REQUEST and _NO_SUCH_KEY in text:
            raise _NoSuchKeyError(f"the vault at {address} has no key for {method} {path}")
        raise UserError(f"the vault at {address} answered {method} {path} with status {response.status}")


def _version(wrapped: str) -> str:
    """`vault:v2` of `vault:v2:…`."""
    return wrapped.rpartition(":")[0]


def _bound(scope: Scope, name: str) -> str:
    return base64.b64encode(f"{scope}|{name}".encode()).decode()
