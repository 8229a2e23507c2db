"""The page's files, from memory, with a policy under which a browser loads nothing from anywhere else."""

import gzip
import mimetypes
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

#: Nothing but this origin's own files, none of them inline.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Pages by their address.
ADDRESSES: Final = {"/": "index.html", "/planning": "planning.html", "/api/docs": "docs.html"}
_COMPRESSED: Final = {".html", ".js", ".css", ".json", ".svg"}


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    suffix: str

    @cached_property
    def tag(self) -> str:
        return f'W/"{sha256(self.content).hexdigest()[:16]}"'

    @cached_property
    def compressed(self) -> bytes:
        return gzip.compress(self.content, 6, mtime=0)


class Pages:
    """Every file below `static`, by its path there."""

    def __init__(self) -> None:
        self._files = dict(_files(resources.files("pipeline.api").joinpath("static"), ""))

    def answer(self, path: str, request: Request) -> Response | None:
        """The response for a file; None if there is none. A browser asks each time, and is told if nothing changed."""
        file = self._files.get(path)
        if file is None:
            return None
        headers = {**HEADERS, "ETag": file.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        body = file.content
        if file.suffix in _COMPRESSED and "gzip" in request.headers.get("accept-encoding", ""):
            body = file.compressed
            headers["Content-Encoding"] = "gzip"
        return Response(body, media_type=file.media_type, headers=headers)


def _files(folder: Traversable, prefix: str) -> list[tuple[str, _File]]:
    found = []
    for each in folder.iterdir():
        path = f"{prefix}{each.name}"
        if each.is_dir():
            found += _files(each, f"{path}/")
        else:
            suffix = f".{each.name.rpartition('.')[2]}"
            kind = "text/javascript" if suffix == ".js" else mimetypes.guess_type(each.name)[0] or "text/plain"
            found.append((path, _File(each.read_bytes(), kind, suffix)))
    return found
