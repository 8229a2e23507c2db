"""JSON Web Tokens of an identity provider (OpenID Connect), verified by PyJWT against the provider's published keys."""

import json
from pathlib import Path
from typing import Any, Final

import jwt

from pipeline.access.roles import Identity, Role
from pipeline.addresses import without_password
from pipeline.errors import UserError
from pipeline.settings import Settings

#: Asymmetric signatures only. With HS256 in this list whoever knows the public key could sign; `none` is never in it.
ALGORITHMS: Final = ("RS256", "ES256")
#: Clocks may differ by so many seconds.
LEEWAY: Final = 30
#: Published keys are kept for so long, in seconds; an unknown key id asks for them anew.
_KEYS_SECONDS: Final = 300
_TIMEOUT: Final = 5


class BearerTokens:
    """Verifies tokens as the settings `oidc_*` say."""

    def __init__(self, settings: Settings) -> None:
        """Raises UserError where a file of keys cannot be read."""
        assert settings.oidc_issuer is not None
        self._issuer, self._audience = settings.oidc_issuer, settings.oidc_audience
        self._claim = settings.oidc_role_claim
        place = settings.oidc_keys or self._issuer.rstrip("/") + "/.well-known/jwks.json"
        self._file: jwt.PyJWKSet | None = None
        if place.startswith("https://"):
            self._client = jwt.PyJWKClient(place, lifespan=_KEYS_SECONDS, timeout=_TIMEOUT)
            return
        try:
            self._file = jwt.PyJWKSet.from_dict(json.loads(Path(place).read_text()))
        except (OSError, ValueError, jwt.PyJWTError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"setting oidc_keys: {without_password(place)} holds no keys ({reason}); give a JWKS file or https:// address"
            ) from None

    def identify(self, token: str) -> Identity | None:
        """Whose token it is, with the roles of its claim that are ours; None if it does not hold. Why not is told to nobody."""
        try:
            key = self._key(token)
            # The key says which algorithm it is for, never the token.
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[name for name in ALGORITHMS if name == key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            return None
        given = claims.get(self._claim, ())
        names = given.split() if isinstance(given, str) else given if isinstance(given, list) else ()
        return Identity(f"oidc:{claims['sub']}", frozenset(Role(name) for name in names if name in set(Role)))

    def _key(self, token: str) -> jwt.PyJWK:
        if self._file is None:
            return self._client.get_signing_key_from_jwt(token)
        return self._file[jwt.get_unverified_header(token)["kid"]]
