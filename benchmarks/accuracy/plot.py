"""Two plots as SVG, without a plotting library: grey text and clear colours, readable on a light and on a dark page."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import log
from typing import Final

_GREY: Final = "#808080"
_COLOURS: Final = ("#1f9e89", "#d1495b", "#edae49", "#808080", "#5778a4")
_LEFT: Final = 60
_WIDTH: Final = 720


def error_by_missing(missing: Sequence[float], errors: Mapping[str, Sequence[float]]) -> str:
    """Mean error in %, on a logarithmic scale, of each method (a line) by the share of check-outs missing."""
    top, bottom, right = 40, 330, 480
    ticks = (5, 10, 20, 50, 100, 200)
    lowest, highest = log(5), log(300)

    def x(share: float) -> float:
        return _LEFT + 40 + (share - missing[0]) / (missing[-1] - missing[0]) * (right - _LEFT - 60)

    def y(error: float) -> float:
        return bottom - (log(error) - lowest) / (highest - lowest) * (bottom - top)

    parts = [
        _text(_LEFT, 20, "mean error of the occupancy, %, where that share of check-outs is missing", anchor="start")
    ]
    for tick in ticks:
        parts += [
            _line(_LEFT, y(tick), right, y(tick), width=0.5),
            _text(_LEFT - 8, y(tick) + 4, str(tick), anchor="end"),
        ]
    parts += [_text(x(share), bottom + 22, f"{share:.0%}") for share in missing]
    # Names stand beside their line's end, moved apart where lines meet.
    names = sorted(errors, key=lambda name: -errors[name][-1])
    beneath = 0.0
    for name in names:
        colour = _COLOURS[list(errors).index(name) % len(_COLOURS)]
        points = " ".join(f"{x(share):.1f},{y(error):.1f}" for share, error in zip(missing, errors[name], strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [_dot(x(share), y(error), colour) for share, error in zip(missing, errors[name], strict=True)]
        beneath = max(y(errors[name][-1]) + 4, beneath + 16)
        parts.append(_text(right + 6, beneath, f"{name} {errors[name][-1]:.0f}", colour=colour, anchor="start"))
    return _svg(_WIDTH, bottom + 40, parts)


def coverage_by_scenario(coverage: Mapping[str, Mapping[float, float]], aim: tuple[float, float]) -> str:
    """Share of cells in the interval, %, by scenario (a row) and share missing (a colour); the aim is a band."""
    left, right, top, row = 290, 690, 60, 24
    missing = sorted({share for one in coverage.values() for share in one})
    bottom = top + row * len(coverage)
    lowest = min(80.0, *(value for one in coverage.values() for value in one.values())) // 5 * 5

    def x(value: float) -> float:
        return left + (value - lowest) / (100 - lowest) * (right - left)

    parts = [
        _text(8, 20, "share of cells whose truth lies in the 90 % interval, %; the band is the aim", anchor="start")
    ]
    for i, share in enumerate(missing):
        parts += [
            _dot(left + 110 * i, 36, _COLOURS[i]),
            _text(left + 110 * i + 8, 40, f"{share:.0%} missing", anchor="start"),
        ]
    parts.append(
        f'<rect x="{x(aim[0]):.1f}" y="{top - 8}" width="{x(aim[1]) - x(aim[0]):.1f}" height="{bottom - top}" '
        f'fill="{_GREY}" fill-opacity="0.2"/>'
    )
    for i, (name, values) in enumerate(coverage.items()):
        y = top + row * i + 6
        parts += [_text(left - 12, y + 4, name, anchor="end"), _line(left, y, right, y, width=0.5)]
        parts += [_dot(x(values[share]), y, _COLOURS[missing.index(share)]) for share in values]
    parts += [_text(x(tick), bottom + 12, str(tick)) for tick in range(int(lowest), 101, 5)]
    return _svg(_WIDTH, bottom + 24, parts)


def _svg(width: int, height: float, parts: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" font-family="sans-serif" font-size="13">'
    return "\n".join([head, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, colour: str = _GREY, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float, *, width: float) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{_GREY}" stroke-width="{width}" '
        f'stroke-opacity="0.5"/>'
    )


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'
