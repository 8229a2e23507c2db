"""A table of counts with two dimensions and its totals: which numbers there are, and how they add up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """A place in the table; None stands for all areas, or all categories."""

    area: str | None
    category: str | None


@dataclass(frozen=True, slots=True)
class Layout:
    """The cells of a table, totals among them, and its equations.

    `sums`: for each total the places of the cells that make it up. A pair of area and category without a venue is no cell:
    everybody knows that it is 0, so it could hide nothing.
    """

    cells: tuple[Cell, ...]
    sums: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def rows(self) -> list[list[tuple[int, int]]]:
        """The equations as Σ coefficient × value = 0."""
        return [[(total, -1), *((part, 1) for part in parts)] for total, parts in self.sums]


def layout_of(pairs: Iterable[tuple[str, str]]) -> Layout:
    """The table over pairs (area, category), with totals by area, by category, and of all."""
    inner = [Cell(area, category) for area, category in sorted(set(pairs))]
    areas = [Cell(area, None) for area in sorted({cell.area or "" for cell in inner})]
    categories = [Cell(None, category) for category in sorted({cell.category or "" for cell in inner})]
    cells = (*inner, *areas, *categories, Cell(None, None))
    return Layout(cells, sums_of(cells))


def sums_of(cells: Sequence[Cell]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """How the totals among some cells add up: total → its parts, by their places."""
    place = {cell: number for number, cell in enumerate(cells)}
    by_area: dict[str | None, list[int]] = {}
    by_category: dict[str | None, list[int]] = {}
    for cell, number in place.items():
        if cell.area is not None and cell.category is not None:
            by_area.setdefault(cell.area, []).append(number)
            by_category.setdefault(cell.category, []).append(number)
    grand = place[Cell(None, None)]
    return (
        *((place[Cell(area, None)], tuple(parts)) for area, parts in by_area.items()),
        *((place[Cell(None, category)], tuple(parts)) for category, parts in by_category.items()),
        (grand, tuple(place[Cell(area, None)] for area in by_area)),
        (grand, tuple(place[Cell(None, category)] for category in by_category)),
    )
