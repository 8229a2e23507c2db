"""The race as a picture: bars of scans a second, of CPU seconds and of memory. SVG, without a plotting library."""

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

_GREY: Final = "#808080"
_OURS: Final = "#1f9e89"
_PEER: Final = "#5778a4"
_NAMES: Final = 250
_PANEL: Final = 230
_ROW: Final = 26
_TOP: Final = 44


class Bar(NamedTuple):
    """One contestant's three figures."""

    name: str
    ours: bool
    rate: float
    cpu: float
    memory: float


def bars(rows: Sequence[Bar]) -> str:
    """Three panels side by side, each with its own scale from 0 to its largest value."""
    panels = (
        ("scans/s: more is better", [row.rate for row in rows], "{:,.0f}"),
        ("CPU s per million scans: less is better", [row.cpu for row in rows], "{:,.1f}"),
        ("peak memory, MiB: less is better", [row.memory for row in rows], "{:,.0f}"),
    )
    height = _TOP + _ROW * len(rows) + 8
    width = _NAMES + (_PANEL + 40) * len(panels)
    parts = [_text(_NAMES - 10, _y(i) + 14, row.name, anchor="end") for i, row in enumerate(rows)]
    for number, (title, values, form) in enumerate(panels):
        left = _NAMES + (_PANEL + 40) * number
        parts.append(_text(left, 24, title, anchor="start"))
        for i, (row, value) in enumerate(zip(rows, values, strict=True)):
            # The label of the longest bar needs room too.
            length = value / max(values) * (_PANEL - 50)
            colour = _OURS if row.ours else _PEER
            parts.append(
                f'<rect x="{left}" y="{_y(i)}" width="{max(length, 1):.1f}" height="{_ROW - 8}" fill="{colour}"/>'
            )
            parts.append(_text(left + length + 6, _y(i) + 14, form.format(value), anchor="start"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">'
    return "\n".join([head, *parts, "</svg>", ""])


def _y(row: int) -> int:
    return _TOP + _ROW * row


def _text(x: float, y: float, text: str, *, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{_GREY}" text-anchor="{anchor}">{escape(text)}</text>'
