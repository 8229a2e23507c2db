"""What somebody who has nothing but a released table can work out about its hidden numbers: the check on `suppression`.

It starts from the rows as they are published, with no word about which cells are small, and shares no rule with what hid them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.release.solver import Program
from pipeline.release.table import Cell, sums_of


@dataclass(frozen=True, slots=True)
class Deduced:
    """A hidden number lies in [`least`, `most`] persons, for sure; `most` is infinite where nothing bounds it."""

    cell: Cell
    least: float
    most: float

    def tells(self, below: int) -> bool:
        """Whether it says of a number that it is small, or what it is to within `below`."""
        return self.most < below or self.most - self.least < below

    def leaves_open(self, below: int) -> bool:
        """Whether the number may be nothing, and may be `below` or more: what is promised of those hidden for being small."""
        return self.least == 0 and self.most >= below


def deduce(rows: Sequence[tuple[Cell, int | None]], base: int) -> list[Deduced]:
    """The range of each hidden number (None) given every shown one, in the order of the rows.

    As everybody knows, rounded numbers are multiples of `base` and add up; a true one is less than `base` from its rounded one.
    Two linear programs a number. Raises ValueError where the shown numbers contradict each other.
    """
    cells = [cell for cell, _ in rows]
    low = np.array([float(value or 0) for _, value in rows])
    high = np.array([np.inf if value is None else float(value) for _, value in rows])
    equations = [[(total, -1), *((part, 1) for part in parts)] for total, parts in sums_of(cells)]
    program = Program(equations, low, high)
    found = []
    for place, (cell, value) in enumerate(rows):
        if value is not None:
            continue
        wanted = np.zeros(len(rows))
        wanted[place] = 1
        bottom = program.least(wanted)
        assert bottom is not None, "counts are not negative"
        top = program.least(-wanted)
        most = np.inf if top is None else float(np.rint(top[place])) + base - 1
        found.append(Deduced(cell, max(float(np.rint(bottom[place])) - (base - 1), 0.0), most))
    return found
