"""Which numbers of a table are hidden, and to what the others are rounded, so that no small one can be worked out.

Controlled rounding: every number goes to a neighbouring multiple of `base`, so that the rounded table adds up as the true one
does (Cox 1987, "A constructive procedure for unbiased controlled rounding", JASA 82). Then suppression on the rounded table, by
linear programs (Fischetti and Salazar-González 2000, "Models and algorithms for optimizing cell suppression in tabular data with
linear constraints", JASA 95): a small cell is safe when two tables agree with ours in everything that is shown, and the cell is 0
in one of them and at least `below` in the other. Whatever differs between such a table and ours is hidden too.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.release.solver import Program, whole
from pipeline.release.table import Layout

#: What a hidden number costs to move: next to nothing, but enough that none is moved in vain.
_HIDDEN_COST: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Hidden:
    """A table as it may be shown: `values` are multiples of the base that add up; where `hidden` holds they are not shown.

    `small`: those hidden because they are small themselves. Arrays in the order of the layout's cells.
    """

    values: NDArray[np.int64]
    small: NDArray[np.bool_]
    hidden: NDArray[np.bool_]


def protect(layout: Layout, counts: NDArray[np.int64], small: NDArray[np.bool_], below: int, base: int) -> Hidden:
    """Round a table and hide its small cells, and as few others as are found to be needed.

    `counts`: persons, adding up as the layout says; `small`: the cells to be hidden, all with under `below` persons among them.
    Others may be small, too: of few visitors who came with many. Afterwards each whole number from 0 to `below` is possible for
    each small cell, given everything that is shown. Raises ValueError where the counts do not add up, or `below` is no multiple
    of `base`.
    """
    for total, parts in layout.sums:
        if counts[total] != counts[list(parts)].sum():
            raise ValueError(f"{layout.cells[total]} is not the sum of its parts")
    if below % base:
        raise ValueError("the threshold must be a multiple of the base")
    units = rounded(layout, counts, base)
    return Hidden(units * base, small, _hide(layout, units, small, below // base))


def rounded(layout: Layout, counts: NDArray[np.int64], base: int) -> NDArray[np.int64]:
    """Controlled rounding: numbers of whole bases, each next to its count, that add up, and are nearest to the counts in all."""
    floor, rest = np.divmod(counts, base)
    # The counts themselves, over the base, are one point of the program, so it has a corner, which is whole.
    program = Program(layout.rows, floor.astype(np.float64), (floor + (rest > 0)).astype(np.float64))
    found = program.least((base - 2 * rest).astype(np.float64))
    assert found is not None, "every number is bounded"
    return whole(found)


def _hide(layout: Layout, units: NDArray[np.int64], small: NDArray[np.bool_], enough: int) -> NDArray[np.bool_]:
    count = len(units)
    # The difference to another table, as what is added (the first half) and what is taken away; no number becomes negative.
    rows = [[*row, *((place + count, -factor) for place, factor in row)] for row in layout.rows]
    program = Program(rows, np.zeros(2 * count), np.concatenate([np.full(count, np.inf), units.astype(np.float64)]))
    hidden = small.copy()
    least, most = units.copy(), units.copy()
    for cell in np.flatnonzero(small).tolist():
        for up in (True, False):
            if most[cell] >= enough if up else least[cell] == 0:
                continue
            cost = np.where(hidden, _HIDDEN_COST, units + 1.0)
            added, taken = (enough - units[cell], 0) if up else (0, units[cell])
            program.bound(cell, added, added)
            program.bound(cell + count, taken, taken)
            found = program.least(np.concatenate([cost, cost]))
            program.bound(cell, 0, np.inf)
            program.bound(cell + count, 0, units[cell])
            assert found is not None, "no cost is negative"
            change = whole(found[:count] - found[count:])
            hidden |= change != 0
            # The other table is possible from here on, and says something of every cell that it changes.
            least, most = np.minimum(least, units + change), np.maximum(most, units + change)
    return hidden
