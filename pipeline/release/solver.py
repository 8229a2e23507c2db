"""Linear programs over tables that add up, by the simplex method of HiGHS.

Of a table with two dimensions and its totals the equations are those of a flow in a network: with whole bounds every corner of
what is possible is whole, and the simplex method ends at a corner. So whole answers need no integer programming.
"""

from collections.abc import Sequence
from typing import Final

import highspy
import numpy as np
from numpy.typing import NDArray

#: Tables have whole numbers: what differs by less is the arithmetic of floating point.
_NEAR: Final = 1e-6


class Program:
    """Numbers x with low ≤ x ≤ high, for each row the sum of coefficient × x being 0; asked one cost after another."""

    def __init__(
        self, rows: Sequence[Sequence[tuple[int, int]]], low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> None:
        """`rows`: (place of x, coefficient) pairs of each equation; `high` may be infinite."""
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = len(low), len(rows)
        model.col_cost_ = np.zeros(len(low))
        model.col_lower_, model.col_upper_ = low.astype(np.float64), high.astype(np.float64)
        model.row_lower_ = model.row_upper_ = np.zeros(len(rows))
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        model.a_matrix_.index_ = np.array([place for row in rows for place, _ in row], np.int32)
        model.a_matrix_.value_ = np.array([factor for row in rows for _, factor in row], np.float64)
        self._highs = highspy.Highs()
        self._highs.setOptionValue("output_flag", False)
        self._highs.setOptionValue("solver", "simplex")
        self._highs.setOptionValue("threads", 1)
        self._highs.passModel(model)
        self._places = np.arange(len(low), dtype=np.int32)

    def bound(self, place: int, low: float, high: float) -> None:
        """Give one x other bounds."""
        self._highs.changeColBounds(place, low, high)

    def least(self, cost: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """An x with the least Σ cost · x; None where it has no lower end. Raises ValueError where no x is possible."""
        self._highs.changeColsCost(len(self._places), self._places, cost.astype(np.float64))
        self._highs.run()
        status = self._highs.getModelStatus()
        if status == highspy.HighsModelStatus.kOptimal:
            return np.array(self._highs.getSolution().col_value)
        if status in (highspy.HighsModelStatus.kUnbounded, highspy.HighsModelStatus.kUnboundedOrInfeasible):
            return None
        raise ValueError(f"no table is possible: {self._highs.modelStatusToString(status)}")


def whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Values at a corner as the whole numbers that they are. Raises ValueError where one is none."""
    found = np.rint(values).astype(np.int64)
    if np.any(np.abs(values - found) > _NEAR):
        raise ValueError("the solver ended between whole numbers")
    return found
