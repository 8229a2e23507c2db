"""Signed venue codes: what stands in a venue's QR, so that nobody can make one for a place that is not theirs.

A code is a JSON Web Token (RFC 7519) in the compact form, signed with ES256: `sub` the venue, `iat` and `exp` whole seconds since
the epoch, and on a display that changes, `jti`. Printed codes live long and can be photographed: they prove which venue, not
that somebody is there. Codes of a display live for minutes, and serve each person once.
"""

import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm

from pipeline.errors import UserError
from pipeline.privacy.secret_files import make_secret_folder, read_secret_file, write_secret_file
from schemas.fields import LATEST

#: In the header of each code, so that a token made for something else is none (RFC 8725, section 3.11).
CODE_TYPE: Final = "venue-code+jwt"
_ALGORITHM: Final = "ES256"
#: A code that lives no longer than this counts as a display's.
FRESH: Final = timedelta(minutes=5)
#: How far the clocks of a display, a phone and the gateway may differ, in ms.
_LEEWAY_MS: Final = 30_000
#: Codes whose signature was found good; a nation has some 60,000 venues.
_MOST_REMEMBERED: Final = 200_000
_VENUE: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SIGNING_FILE: Final = "venue-signing.pem"
#: The public keys, by which gateways judge codes: a JSON Web Key Set.
PUBLIC_FILE: Final = "venue-keys.json"

Mode = Literal["optional", "required", "fresh"]


class CodeError(ValueError):
    """Why a code is not accepted, in words that hold nothing of it."""


@dataclass(frozen=True, slots=True)
class VenueCode:
    """A good code: its venue, and, of a display, its own id; from `refused_from` on (ms since the epoch) it is none."""

    venue_id: str
    jti: str | None
    valid_from: int
    refused_from: int


class VenueCodes:
    """Judges codes by a set of public keys."""

    def __init__(self, path: Path, mode: Mode) -> None:
        """Read the key set. Raises UserError."""
        self._path = path
        self._mode = mode
        self._set: Mapping[str, Mapping[str, str]] = {}
        self._keys: Mapping[str, Any] = {}
        self._good: dict[str, VenueCode] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the key set again: codes of keys that are gone are refused from now on. Raises UserError."""
        found = _read_set(self._path)
        if found != self._set:
            algorithm = ECAlgorithm(ECAlgorithm.SHA256)
            self._keys = {kid: algorithm.from_jwk(json.dumps(key)) for kid, key in found.items()}
            self._set, self._good = found, {}

    def verify(self, code: str, occurred_at: int, received_at: int) -> VenueCode:
        """The code, if it was good at `occurred_at`; of a display also at `received_at` (ms since the epoch)."""
        found = self._good.get(code)
        if found is None:
            found = self._verify_signature(code)
            if len(self._good) >= _MOST_REMEMBERED:
                del self._good[next(iter(self._good))]
            self._good[code] = found
        # Scans may be sent late, so a printed code is judged by the scan's time; a display's would be worth nothing then.
        instants = (occurred_at,) if found.jti is None else (occurred_at, received_at)
        if any(instant >= found.refused_from for instant in instants):
            raise CodeError("has expired; scan the venue's present code")
        if any(instant < found.valid_from for instant in instants):
            raise CodeError("is not valid yet; set the clock")
        if self._mode == "fresh" and found.jti is None:
            raise CodeError("is a printed one; scan the code on the venue's display")
        return found

    def _verify_signature(self, code: str) -> VenueCode:
        try:
            header = jwt.get_unverified_header(code)
            if header.keys() != {"alg", "kid", "typ"} or (header["alg"], header["typ"]) != (_ALGORITHM, CODE_TYPE):
                raise CodeError("is no venue's code")
            key = self._keys.get(str(header["kid"]))
            if key is None:
                raise CodeError("is signed with a key that is not known here")
            # The clock is not asked here: what is judged is when the scan was made.
            claims = jwt.decode(
                code,
                key,
                algorithms=[_ALGORITHM],
                options={
                    "require": ["sub", "iat", "exp"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "verify_aud": False,
                },
            )
        except jwt.InvalidSignatureError:
            raise CodeError("is forged: its signature is wrong") from None
        except (jwt.PyJWTError, ValueError) as error:
            if isinstance(error, CodeError):
                raise
            raise CodeError("is no venue's code") from None
        return _judged(claims)


def _judged(claims: Mapping[str, Any]) -> VenueCode:
    venue, iat, exp, jti = (claims.get(name) for name in ("sub", "iat", "exp", "jti"))
    if (
        not isinstance(venue, str)
        or not _VENUE.fullmatch(venue)
        or type(iat) is not int
        or type(exp) is not int
        or not 0 < iat < exp < LATEST // 1000
    ):
        raise CodeError("is no venue's code")
    short = exp - iat <= FRESH.total_seconds()
    if short != isinstance(jti, str) or (jti is not None and not isinstance(jti, str)):
        raise CodeError("is no venue's code")
    return VenueCode(venue, jti, iat * 1000 - _LEEWAY_MS, exp * 1000 + (_LEEWAY_MS if short else 0))


class CodeSigner:
    """Signs codes with the private key in a folder."""

    def __init__(self, folder: Path) -> None:
        """Read the private key. Raises UserError."""
        path = folder / _SIGNING_FILE
        if not path.exists():
            raise UserError(f"there is no {path}; make it with: pipeline venues signing-key")
        try:
            key = load_pem_private_key(read_secret_file(path).encode(), None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise UserError(f"{path} is damaged: it holds no P-256 key; put back its copy")
        self._key = key

    def code(self, venue_id: str, now: int, valid_for: timedelta) -> str:
        """A code for a venue, from `now` (ms since the epoch) on; one that lives at most FRESH is a display's."""
        if not _VENUE.fullmatch(venue_id):
            raise UserError("a venue_id has 1 to 64 of A-Za-z0-9._:-")
        issued = now // 1000
        claims = {"sub": venue_id, "iat": issued, "exp": issued + int(valid_for.total_seconds())}
        if valid_for <= FRESH:
            claims["jti"] = secrets.token_urlsafe(9)
        return jwt.encode(claims, self._key, _ALGORITHM, headers={"kid": _kid(self._key), "typ": CODE_TYPE})


def create_signing_key(folder: Path) -> str:
    """A new private key in the folder, and its public half in the set beside it; returns the key's id.

    A key that was there is replaced; its public half stays in the set, so that its codes go on.
    """
    make_secret_folder(folder)
    key = generate_private_key(SECP256R1())
    known = _read_set(folder / PUBLIC_FILE) if (folder / PUBLIC_FILE).exists() else {}
    kid = _kid(key)
    _write_set(folder / PUBLIC_FILE, known | {kid: _public(key)})
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    write_secret_file(folder / _SIGNING_FILE, pem)
    return kid


def retire_key(folder: Path, kid: str) -> None:
    """Take a public key out of the set: its codes are refused from then on. Raises UserError for an unknown one."""
    known = _read_set(folder / PUBLIC_FILE)
    if kid not in known:
        raise UserError(f"{folder / PUBLIC_FILE} has no key {kid}; it has {', '.join(known) or 'none'}")
    _write_set(folder / PUBLIC_FILE, {name: key for name, key in known.items() if name != kid})


def _public(key: EllipticCurvePrivateKey) -> dict[str, str]:
    jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {name: str(jwk[name]) for name in ("kty", "crv", "x", "y")}


def _kid(key: EllipticCurvePrivateKey) -> str:
    """The first characters of the key's thumbprint (RFC 7638)."""
    members = json.dumps(dict(sorted(_public(key).items())), separators=(",", ":"))
    return urlsafe_b64encode(sha256(members.encode()).digest())[:12].decode()


def _read_set(path: Path) -> dict[str, dict[str, str]]:
    try:
        if path.stat().st_mode & 0o022:
            raise UserError(f"{path} can be changed by others, who could add a key of theirs: chmod 644 {path}")
        keys = json.loads(path.read_text())["keys"]
        found = {str(key["kid"]): {name: str(key[name]) for name in ("kty", "crv", "x", "y")} for key in keys}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: it is no JSON Web Key Set; put back its copy") from None
    if any((key["kty"], key["crv"]) != ("EC", "P-256") for key in found.values()):
        raise UserError(f"{path} has a key that is not for ES256 (P-256)")
    return found


def _write_set(path: Path, keys: Mapping[str, Mapping[str, str]]) -> None:
    entries = [{"kid": kid, "use": "sig", "alg": _ALGORITHM} | dict(key) for kid, key in keys.items()]
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps({"keys": entries}, indent=2) + "\n")
    new.chmod(0o644)  # whatever the umask: others may read it, and must not change it
    new.replace(path)
