"""A venue's code as something to print: its QR, and beneath it the name, so that posters are not mixed up."""

import io
import unicodedata
from typing import Final
from xml.sax.saxutils import escape

import segno

#: A seventh of a symbol may be damaged (level M, ISO/IEC 18004): posters get scratched.
_ERROR_LEVEL: Final = "m"
#: The quiet zone that ISO/IEC 18004 wants around a symbol, and the space for the text, in modules.
_QUIET: Final = 4
_TEXT_MODULES: Final = 12
_PNG_SCALE: Final = 10


def poster_svg(content: str, name: str, venue_id: str) -> str:
    """An SVG that scales to any size: the QR of `content`, the name and the venue_id beneath it."""
    symbol = segno.make_qr(content, error=_ERROR_LEVEL)
    side = symbol.symbol_size(border=_QUIET)[0]
    shown = _printable(name) or venue_id
    size = min(5.0, 1.7 * (side - 2 * _QUIET) / max(len(shown), 1))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side + _TEXT_MODULES}" width="100mm">',
            f"<title>{escape(shown)}</title>",
            f'<rect width="{side}" height="{side + _TEXT_MODULES}" fill="#fff"/>',
            symbol.svg_inline(border=_QUIET, omitsize=False, light="#fff"),
            f'<g font-family="sans-serif" text-anchor="middle" fill="#000"><text x="{side / 2}" y="{side + 3}" '
            f'font-size="{size:.2f}">{escape(shown)}</text>',
            f'<text x="{side / 2}" y="{side + 8}" font-size="2.5">{escape(venue_id)}</text></g>',
            "</svg>",
            "",
        ]
    )


def code_png(content: str) -> bytes:
    """The QR of `content` alone, for a layout of one's own: black on white, ten pixels a module."""
    image = io.BytesIO()
    segno.make_qr(content, error=_ERROR_LEVEL).save(image, kind="png", scale=_PNG_SCALE, border=_QUIET)
    return image.getvalue()


def _printable(name: str) -> str:
    """The name without what XML cannot hold and no printer shows."""
    return "".join(each for each in name if unicodedata.category(each)[0] != "C").strip()
