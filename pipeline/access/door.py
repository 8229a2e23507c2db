"""The door of the API: from a request's header to somebody with roles, and whether they may."""

import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final

from pipeline.access.bearer import BearerTokens
from pipeline.access.roles import AGGREGATES, Identity, Role
from pipeline.access.tokens import PREFIX, TokenFile
from pipeline.addresses import is_loopback
from pipeline.settings import Settings

#: Nobody in particular, on a machine's own loopback, where no access is configured.
_LOCAL: Final = Identity("loopback", frozenset({Role.VIEWER}))
#: Longer ones are nobody's.
_LONGEST: Final = 8_192


class Door:
    """Identifies callers. Without a file of tokens and a provider aggregates are open on loopback, and nothing else is."""

    def __init__(self, settings: Settings) -> None:
        """Raises UserError where the settings make no sense."""
        self._tokens = TokenFile(settings.tokens_path)
        self._bearer = BearerTokens(settings) if settings.oidc_issuer else None
        self._loopback = is_loopback(settings.http_host)
        self._tokens.is_there()

    @property
    def configured(self) -> bool:
        """Whether callers must prove who they are: also where the last token has been taken back, and nobody can."""
        return self._bearer is not None or self._tokens.is_there()

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches the machine's own loopback may read aggregates."""
        return self._loopback and not self.configured

    def identify(self, authorization: str | None) -> Identity | None:
        """Who sends this header; None for nobody. Blocks, for as long as the provider takes to publish its keys."""
        if authorization is None:
            return _LOCAL if self.is_open else None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST:
            return None
        if token.startswith(PREFIX):
            return self._tokens.identify(token, datetime.now(UTC))
        return self._bearer.identify(token) if self._bearer else None

    @staticmethod
    def lets(identity: Identity | None, allowed: frozenset[Role] = AGGREGATES) -> bool:
        """Whether somebody may."""
        return identity is not None and identity.may(allowed)


class Budget:
    """So many requests a minute for each caller: a bucket that fills evenly. For one thread at a time."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> bool:
        """Whether there is one left."""
        now = time.monotonic()
        left, since = self._left.pop(who, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - since) * self._per_minute / 60)
        self._left[who] = (left - 1, now) if left >= 1 else (left, now)
        if len(self._left) > 10_000:
            self._left.popitem(last=False)
        return left >= 1
