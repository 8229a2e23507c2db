"""One spelling for each raw identifier, so that a person has one pseudonym however the identifier was typed.

Too strict would give one person two pseudonyms, too lax two persons one. So nothing is guessed: what could be read in two
ways is refused.
"""

import re
import unicodedata
from typing import Final, get_args

from schemas.gateway_scan import IdentifierKind

#: What a raw identifier can be.
KINDS: Final[tuple[IdentifierKind, ...]] = get_args(IdentifierKind)

#: The longest raw identifier that is looked at, in characters: an e-mail address has at most 254 (RFC 5321, 4.5.3.1).
LONGEST: Final = 254

_COUNTRY: Final = re.compile(r"[1-9][0-9]{0,2}")
#: E.164, section 6: at most 15 digits with the country's prefix. The shortest in use have 7.
_E164: Final = re.compile(r"[1-9][0-9]{6,14}")
_OPTIONAL_TRUNK: Final = re.compile(r"\(\s*0\s*\)")
_NATIONAL_ID: Final = re.compile(r"[0-9A-Z]{6,32}")
_DEVICE: Final = re.compile(r"[0-9a-z]{8,64}")
_LOCAL_PART: Final = re.compile(r"[^\s@\x00-\x1f\x7f\"(),:;<>\[\]\\]{1,64}")
#: Spaces, every kind of hyphen and dash, dots, slashes and brackets: people write them where they like.
_SEPARATORS: Final = re.compile(r"[\s\-‐-―−_.·/()\[\]:]+")


class CanonicalError(ValueError):
    """Why an identifier has no canonical spelling: a rule in words, which never holds the identifier."""


def canonical(kind: IdentifierKind, raw: str, country: str = "") -> str:
    """The canonical spelling of a raw identifier.

    Unicode is brought to NFKC, any script's digits to 0-9, and what is invisible is left out. Then by kind:

    - phone: E.164 with "+". A number that begins with one 0 is national, and gets `country` (its prefix without "+", such as
      "62"); one that begins with 00 is international. Without "+" or 0 it could be either, and is refused.
    - national_id: digits and capital letters without separators.
    - email: lower case, the domain in its ASCII form (IDNA). Dots and +tags stay: what they mean is up to the provider.
    - device: digits and small letters without separators.

    Raises CanonicalError if it is no such identifier, or could be read in two ways.
    """
    if len(raw) > LONGEST:
        raise CanonicalError(f"must have at most {LONGEST} characters")
    text = _plain(raw)
    if kind == "phone":
        return _phone(text, country)
    if kind == "national_id":
        return _matched(_NATIONAL_ID, _SEPARATORS.sub("", text).upper(), "6 to 32 digits and letters")
    if kind == "device":
        return _matched(_DEVICE, _SEPARATORS.sub("", text).lower(), "8 to 64 digits and letters")
    return _email(text)


def check_country(prefix: str) -> str:
    """The prefix of a country as it is if it is one, or empty. Raises ValueError."""
    if prefix and not _COUNTRY.fullmatch(prefix):
        raise ValueError("must be a country's telephone prefix without +, such as 62")
    return prefix


def _plain(raw: str) -> str:
    if raw.isascii() and raw.isprintable():
        return raw.strip()
    characters = []
    for character in unicodedata.normalize("NFKC", raw):
        digit = unicodedata.decimal(character, None)
        if digit is not None:
            characters.append(str(digit))
        elif unicodedata.category(character) not in ("Cf", "Cc"):
            characters.append(character)
    # What was left out may have kept two characters from composing.
    return unicodedata.normalize("NFKC", "".join(characters)).strip()


def _matched(pattern: re.Pattern[str], text: str, rule: str) -> str:
    if not pattern.fullmatch(text):
        raise CanonicalError(f"must be {rule}, with or without separators")
    return text


def _phone(text: str, country: str) -> str:
    international = text.startswith(("+", "00"))
    digits = _SEPARATORS.sub("", _OPTIONAL_TRUNK.sub("", text) if international else text)
    if digits.startswith("+"):
        digits = digits[1:]
    elif digits.startswith("00"):
        digits = digits[2:]
    elif digits.startswith("0") and country:
        digits = country + digits[1:]
    else:
        raise CanonicalError(
            "must begin with + and the country's prefix" + (", or with the national 0" if country else "")
        )
    if not _E164.fullmatch(digits):
        raise CanonicalError("must have 7 to 15 digits with the country's prefix (E.164)")
    return f"+{digits}"


def _email(text: str) -> str:
    local, at, domain = text.rpartition("@")
    if not at or not _LOCAL_PART.fullmatch(local):
        raise CanonicalError("must be an e-mail address, name@domain")
    try:
        ascii_domain = domain.lower().rstrip(".").encode("idna").decode("ascii")
    except UnicodeError:
        ascii_domain = ""
    if "." not in ascii_domain or not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", ascii_domain):
        raise CanonicalError("must be an e-mail address, name@domain")
    return f"{local.lower()}@{ascii_domain}"
