"""Pseudonyms: made from identifiers by who holds the ring, linked over a period's edge by who holds its periods alone.

Two steps (docs/decisions/021-pseudonyms-by-period.md). HMAC-SHA-256 of the canonical identifier under the identity key, cut to
128 bits; then that block enciphered with AES-256 under the period's key, which gives every period other pseudonyms. Without the
period's key nothing can be made or tested, not even by who knows the identifier; with two periods' keys and without the
identity key pseudonyms can be carried from one into the other, and never back to an identifier.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from pipeline.errors import UserError
from pipeline.file_state import FileState, file_state
from pipeline.privacy.derive import derive
from pipeline.privacy.master import MasterKey
from pipeline.privacy.ring import RING_FILE, KeyRing, Period
from schemas.gateway_scan import IdentifierKind

#: HMAC-SHA-256 cut to half its length, the least that RFC 2104, section 5, and NIST SP 800-107r1, section 5.3.3, advise; and the
#: one block that AES permutes, so that no two persons share a pseudonym that did not share the hash.
_BLOCK: Final = 16
_EVENT_ID_BYTES: Final = 12
_PSEUDONYM: Final = re.compile(r"p([0-9]{12})\.([A-Za-z0-9_-]{22})")


class NoKeyError(Exception):
    """There is no key for this instant. `lasting`: nor will there be, as its period's key is destroyed or there never was one."""

    def __init__(self, text: str, lasting: bool) -> None:
        super().__init__(text)
        self.lasting = lasting


class PeriodKeys:
    """The derived keys of one period, [starts_at, ends_at) in ms since the epoch. Safe to use from several threads."""

    def __init__(self, period: Period, secret: bytes) -> None:
        self.id = period.id
        self._event_key = derive(secret, "event id", period.id)
        # A single block is a permutation of 128 bits; it is chaining of several that ECB must not be used for. So a context
        # has no state to speak of, and making one costs ten times as much as using it.
        cipher = Cipher(AES256(derive(secret, "visitor pseudonym", period.id)), ECB())
        self._encryptor, self._decryptor = cipher.encryptor(), cipher.decryptor()
        self._lock = Lock()

    def encipher(self, block: bytes) -> str:
        """The pseudonym that stands for a block of 16 bytes in this period: 36 characters."""
        with self._lock:
            enciphered = self._encryptor.update(block)
        return f"p{self.id}.{urlsafe_b64encode(enciphered)[:22].decode()}"

    def decipher(self, encoded: str) -> bytes:
        """The block behind the second part of this period's pseudonym."""
        with self._lock:
            return self._decryptor.update(urlsafe_b64decode(encoded + "=="))

    def event_id(self, sender: str, event_id: str) -> str:
        """What stands for a sender's event id: 16 characters."""
        digest = hmac.digest(self._event_key, f"{sender}\0{event_id}".encode(), "sha256")
        return urlsafe_b64encode(digest[:_EVENT_ID_BYTES]).decode()


class _Held:
    """The periods whose keys are in memory, followed as the ring changes."""

    def __init__(self, folder: Path, open_master: Callable[[], MasterKey]) -> None:
        self._folder = folder
        self._open_master = open_master
        self._seen: FileState | None = None
        self._periods: list[tuple[Period, PeriodKeys | None]] = []

    def refresh(self) -> None:
        """Read the ring again if it has changed: new periods get their keys, destroyed ones lose them at once.

        Raises UserError; whatever could be read is in force all the same.
        """
        seen = file_state(self._folder / RING_FILE)
        if seen is not None and seen == self._seen:
            return
        ring = KeyRing.open(self._folder)
        held = {period.fingerprint: keys for period, keys in self._periods if keys is not None}
        failure: UserError | None = None
        periods: list[tuple[Period, PeriodKeys | None]] = []
        master: MasterKey | None = None
        for period in ring.periods:
            keys = held.get(period.fingerprint)
            if period.wrapped is None:
                keys = None
            elif keys is None:
                try:
                    master = master or self._open_master()
                    keys = PeriodKeys(period, ring.period_secret(master, period))
                except UserError as error:
                    failure = error
            periods.append((period, keys))
        self._take(ring, master)
        self._periods = periods
        if failure is not None:
            raise failure
        self._seen = seen

    def _take(self, ring: KeyRing, master: MasterKey | None) -> None:
        """What else is needed of the ring."""

    def at(self, ms: int) -> PeriodKeys:
        """The keys of the period in which an instant lies. Raises NoKeyError."""
        period, keys = self._period_at(ms)
        if keys is not None:
            return keys
        if period.wrapped is None:
            raise NoKeyError("the key of its period is destroyed", True)
        raise NoKeyError("the key of its period cannot be opened now", False)

    def covered_until(self, ms: int) -> int:
        """Until when there are keys without a gap from `ms` on, ms since the epoch; `ms` where there are none."""
        with suppress(NoKeyError):
            while True:
                period, keys = self._period_at(ms)
                if keys is None:
                    break
                ms = period.ends_at
        return ms

    def _period_at(self, ms: int) -> tuple[Period, PeriodKeys | None]:
        # One look at one list: `refresh` may replace it meanwhile.
        periods = self._periods
        index = bisect_right(periods, ms, key=lambda each: each[0].starts_at) - 1
        if index < 0:
            raise NoKeyError("there never was a key for its time", True)
        if ms >= periods[index][0].ends_at:
            raise NoKeyError("there is no key for its time yet", False)
        return periods[index]


class Pseudonymiser(_Held):
    """Makes pseudonyms. Holds the identity key: the one place where an identifier and its pseudonym meet.

    Safe to use from several threads.
    """

    def __init__(self, folder: Path, open_master: Callable[[], MasterKey]) -> None:
        """Read the ring and unwrap its keys. Raises UserError."""
        super().__init__(folder, open_master)
        self._identity: bytes | None = None
        self.refresh()

    def _take(self, ring: KeyRing, master: MasterKey | None) -> None:
        if self._identity is None:
            secret = ring.identity_secret(master or self._open_master())
            self._identity = derive(secret, "visitor identity", ring.ring)

    def visitor_id(self, kind: IdentifierKind, canonical: str, at: int) -> str:
        """The pseudonym of who has this canonical identifier, in the period of `at`, ms since the epoch. Raises NoKeyError."""
        assert self._identity is not None, "the constructor has read the ring"
        block = hmac.digest(self._identity, f"{kind}\0{canonical}".encode(), "sha256")[:_BLOCK]
        return self.at(at).encipher(block)

    def event_id(self, sender: str, event_id: str, at: int) -> str:
        """What stands for a sender's event id: the same for the same, and nothing that runs on from one period to the next."""
        return self.at(at).event_id(sender, event_id)


class Linker(_Held):
    """Carries pseudonyms from one period into another, for the tracer; knows no identifier and no way back to one."""

    def __init__(self, folder: Path, open_master: Callable[[], MasterKey]) -> None:
        """Read the ring and unwrap the periods' keys; a key for linking alone is enough. Raises UserError."""
        super().__init__(folder, open_master)
        self.refresh()

    def link(self, visitor_id: str, since: int, until: int) -> list[str]:
        """The person's pseudonyms in all periods that touch [since, until), ms since the epoch, in their order.

        Of a period whose key is destroyed there is none. Raises UserError if `visitor_id` is no pseudonym of a period with a key.
        """
        found = _PSEUDONYM.fullmatch(visitor_id)
        held = [(period, keys) for period, keys in self._periods if keys is not None]
        own = next((keys for _, keys in held if found and keys.id == found[1]), None)
        if found is None or own is None:
            raise UserError(
                "this pseudonym cannot be linked: it is of no period, or of one whose key is destroyed; see: pipeline keys list"
            )
        block = own.decipher(found[2])
        if own.encipher(block) != visitor_id:
            raise UserError("this is no pseudonym: its last character is wrong")
        return [keys.encipher(block) for period, keys in held if period.starts_at < until and period.ends_at > since]
