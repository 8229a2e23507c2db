"""Write pipeline/api/static/vendor and vendor.lock anew: others' files for the pages, each with its package's licence.

To move to another version: change PACKAGES, run this file (it needs npm), look at the pages, run the tests.
"""

import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

#: Package → the files taken from it, as path in the package → name here.
PACKAGES = {
    "uplot@1.6.32": {
        "dist/uPlot.esm.js": "uplot.js",
        "dist/uPlot.min.css": "uplot.css",
        "LICENSE": "uplot.LICENSE",
    },
    "echarts@6.1.0": {
        "dist/echarts.esm.min.js": "echarts.js",
        "LICENSE": "echarts.LICENSE",
        "NOTICE": "echarts.NOTICE",
    },
    "world-atlas@2.0.2": {"LICENSE": "world-atlas.LICENSE"},
}
#: Natural Earth's countries at 1:10 million, public domain, which world-atlas packs as TopoJSON.
ATLAS, COUNTRIES = "world-atlas@2.0.2", "countries-10m.json"
INDONESIA = "360"
#: What of the world the outline shows, in degrees: west, south, east, north.
FRAME = (84.0, -22.0, 154.0, 18.0)
#: Corners nearer than this to the line without them are left out, in degrees: of Indonesia, which one zooms into, few.
TOLERANCES = {True: 0.002, False: 0.02}
#: Rings smaller than a square so wide are left out, and numbers are written in units of UNIT, in degrees.
SMALLEST, UNIT = 0.03, 0.001

FOLDER = Path(__file__).resolve().parents[2] / "pipeline" / "api" / "static" / "vendor"

Point = tuple[float, float]


def main() -> None:
    """Fetch the packages, take the files, cut the outline, and note every digest."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    with TemporaryDirectory() as folder:
        for package, files in PACKAGES.items():
            archive = subprocess.run(
                ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
            ).stdout.strip()
            with tarfile.open(Path(folder, archive)) as opened:
                for path, name in files.items():
                    FOLDER.joinpath(name).write_bytes(_read(opened, path))
                if package == ATLAS:
                    outline = cut(json.loads(_read(opened, COUNTRIES)))
                    FOLDER.joinpath("outline.json").write_text(json.dumps(outline, separators=(",", ":")) + "\n")
    lines = [f"{name} {digest}\n" for name, digest in digests()]
    header = f"# {', '.join(PACKAGES)}: file SHA-256. Written by vendor.py.\n"
    Path(__file__).with_name("vendor.lock").write_text(header + "".join(lines))


def digests() -> Iterator[tuple[str, str]]:
    """Every file that is there, and its SHA-256."""
    for path in sorted(FOLDER.iterdir()):
        yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def _read(opened: tarfile.TarFile, path: str) -> bytes:
    member = opened.extractfile(f"package/{path}")
    assert member is not None
    return member.read()


def cut(atlas: dict[str, Any]) -> dict[str, Any]:
    """Rings within FRAME, as flat lists of longitude and latitude in units of UNIT: Indonesia's, and the others'."""
    arcs = [_decoded(arc, atlas["transform"]) for arc in atlas["arcs"]]
    rings: dict[bool, list[list[int]]] = {True: [], False: []}
    for country in atlas["objects"]["countries"]["geometries"]:
        polygons = country["arcs"] if country["type"] == "MultiPolygon" else [country["arcs"]]
        for polygon in polygons:
            ours = country.get("id") == INDONESIA
            ring = _clipped(_ring(polygon[0], arcs), TOLERANCES[ours])
            if ring:
                rings[ours].append(ring)
    return {
        "source": "Natural Earth 1:10m (public domain), by way of the npm package world-atlas (ISC); cut and simplified",
        "frame": FRAME,
        "unit": UNIT,
        "land": rings[True],
        "others": rings[False],
    }


def _decoded(arc: list[list[int]], transform: dict[str, list[float]]) -> list[Point]:
    (scale_x, scale_y), (shift_x, shift_y) = transform["scale"], transform["translate"]
    x = y = 0
    points = []
    for dx, dy in arc:
        x, y = x + dx, y + dy
        points.append((x * scale_x + shift_x, y * scale_y + shift_y))
    return points


def _ring(indexes: list[int], arcs: list[list[Point]]) -> list[Point]:
    points: list[Point] = []
    for index in indexes:
        arc = arcs[index] if index >= 0 else arcs[~index][::-1]
        points += arc[1:] if points else arc
    return points


def _clipped(ring: list[Point], tolerance: float) -> list[int]:
    west, south, east, north = FRAME
    if max(x for x, _ in ring) - min(x for x, _ in ring) > 180:
        return []  # across the date line, where this plain cutting would draw it around the whole world
    if all(x < west for x, _ in ring) or all(x > east for x, _ in ring):
        return []
    if all(y < south for _, y in ring) or all(y > north for _, y in ring):
        return []
    for axis, bound, sign in ((0, west, 1), (0, east, -1), (1, south, 1), (1, north, -1)):
        ring = _half(ring, axis, bound, sign)
    if len(ring) < 3:
        return []
    area = sum(ax * by - bx * ay for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2
    if abs(area) < SMALLEST**2:
        return []
    half = len(ring) // 2
    simple = _simplified(ring[: half + 1], tolerance)[:-1] + _simplified(ring[half:], tolerance)
    return [round(value / UNIT) for point in simple for value in point]


def _half(ring: list[Point], axis: int, bound: float, sign: int) -> list[Point]:
    """The part of a ring on one side of a line (Sutherland and Hodgman)."""
    kept: list[Point] = []
    for at, point in enumerate(ring):
        before = ring[at - 1]
        inside, was = sign * (point[axis] - bound) >= 0, sign * (before[axis] - bound) >= 0
        if inside != was:
            share = (bound - before[axis]) / (point[axis] - before[axis])
            kept.append(tuple(b + share * (p - b) for b, p in zip(before, point, strict=True)))  # type: ignore[arg-type]
        if inside:
            kept.append(point)
    return kept


def _simplified(line: list[Point], tolerance: float) -> list[Point]:
    """A line without the corners that may be left out (Ramer, Douglas and Peucker)."""
    keep = {0, len(line) - 1}
    parts = [(0, len(line) - 1)]
    while parts:
        first, last = parts.pop()
        (ax, ay), (bx, by) = line[first], line[last]
        length = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5
        worst, at = tolerance, 0
        for i in range(first + 1, last):
            x, y = line[i]
            across = abs((bx - ax) * (ay - y) - (ax - x) * (by - ay))
            away = across / length if length else ((x - ax) ** 2 + (y - ay) ** 2) ** 0.5
            if away > worst:
                worst, at = away, i
        if at:
            keep.add(at)
            parts += [(first, at), (at, last)]
    return [line[i] for i in sorted(keep)]


if __name__ == "__main__":
    main()
