"""Counts with noise that hides whether any one visitor was there at all: differential privacy, by OpenDP.

The unit is a visitor's whole UTC day. A visitor counts in `CELLS` cells at most, once in each, so a day with and without the
visitor differ by `CELLS` in all over the arrivals, and by as much over the occupancy. Discrete Laplace noise of scale
`CELLS` / (ε/2) on each number makes each of the two ε/2-private (Ghosh, Roughgarden, Sundararajan 2012, "Universally
utility-maximizing privacy mechanisms", SIAM J. Comput. 41), the two together ε-private. OpenDP draws the noise exactly, without
floating point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Cells (area × category × hour) of a UTC day that one visitor counts in at most.
CELLS: Final = 4
#: A day's budget may not be larger.
MOST_EPSILON: Final = 1.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """Counts with noise, in the order of what was counted; `epsilon` by OpenDP's account, the noise's `scale` in visitors."""

    counts: list[int]
    epsilon: float
    scale: float


def draw(counts: Sequence[int], epsilon: float) -> Drawn:
    """Add noise to counts of visitors that one visitor changes by `CELLS` in all, and no more.

    `epsilon` must lie in (0, `MOST_EPSILON`]. Each call spends it anew: whoever calls keeps what was drawn and never draws again.
    """
    if not 0 < epsilon <= MOST_EPSILON:
        raise ValueError(f"epsilon must be above 0 and at most {MOST_EPSILON}")
    import opendp.prelude as dp  # takes a second to load

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=dp.i64), size=len(counts)), dp.l1_distance(T=dp.i64)
    scale = dp.binary_search_param(
        lambda found: dp.m.make_laplace(*space, scale=found), d_in=CELLS, d_out=epsilon, T=float
    )
    measurement = dp.m.make_laplace(*space, scale=scale)
    spent = float(measurement.map(CELLS))  # type: ignore[no-untyped-call]
    return Drawn(list(measurement(list(counts))), spent, float(scale))
