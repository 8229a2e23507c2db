"""Addresses from the settings. Those that may hold a password are shown without it, and refused without a word of it."""

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from pipeline.errors import UserError

HIDDEN: Final = "***"
_LOOPBACK_NAME: Final = re.compile(rb"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


def without_password(url: str) -> str:
    """The address without its password and its query, which may hold one; errs on the side of hiding.

    A password may hold any character, so the user's part goes up to the last @, whatever a parser of URLs would say.
    """
    start = re.match(r"[A-Za-z0-9+]+://", url)
    scheme = start[0] if start else ""
    user, at, host = url.removeprefix(scheme).rpartition("@")
    name, colon, _ = user.partition(":")
    place, question, _ = host.partition("?")
    return f"{scheme}{name}{colon and f':{HIDDEN}'}{at}{place}{question and f'?{HIDDEN}'}"


def split_address(url: str, variable: str) -> SplitResult:
    """The parts of a URL. Raises UserError, which names the environment variable and repeats nothing, for one that is none."""
    try:
        parts = urlsplit(url)
        # What comes after an unescaped / ? or # of a password is no part of the place any more.
        stray = "@" not in parts.netloc and "@" in parts.path + parts.fragment
        if parts.hostname and parts.port != 0 and not stray:
            return parts
    except ValueError:
        pass
    raise UserError(
        f"{variable} is no address like https://user:password@host:port; within a password write / ? # @ : [ ] as "
        "%2F %3F %23 %40 %3A %5B %5D"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at this host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_loopback(host: bytes) -> bool:
    """Whether a request's Host header names this machine's own loopback.

    Where nobody has to say who they are, this keeps out a page from elsewhere whose name was made to lead here (DNS rebinding):
    its browser asks under that name. A request without the header is no browser's.
    """
    return not host or _LOOPBACK_NAME.fullmatch(host) is not None
