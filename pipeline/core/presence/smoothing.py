"""A smooth density from counts by log minutes: no holes between whole minutes, and tails that go on as a lognormal's."""

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.core.presence.grid import CENTRES, MINUTES_OF_DAY, STAY_BIN, STEP, STEP_OF_MINUTE, STEPS

Floats = npt.NDArray[np.float64]

#: How heavily third differences of the log density weigh: the values that are tried.
_PENALTIES: Final = (1e5, 1e4, 1e3, 100.0, 10.0, 1.0)
#: Newton's steps, and the change of the log density at which they end; no step changes it by more than the last.
_ROUNDS: Final = 60
_PRECISION: Final = 1e-4
_LONGEST_STEP: Final = 2.0


def _spread_of_minutes(bins: int) -> Floats:
    """Share of what is counted in a bin (rows) that belongs to each bin (columns): a whole minute covers several short ones."""
    edges = np.exp(STEP * STEPS / bins * np.arange(bins + 1))
    edges[0], edges[-1] = 0.0, np.inf
    minute = np.arange(MINUTES_OF_DAY)
    covered = np.clip(np.minimum(edges[1:], minute[:, None] + 1) - np.maximum(edges[:-1], minute[:, None]), 0.0, None)
    counted_in = STEP_OF_MINUTE * bins // STEPS
    found = np.eye(bins)
    # From an hour on a bin holds its minutes.
    for b in np.unique(counted_in[:60]):
        some = covered[counted_in == b].sum(axis=0)
        found[b] = some / some.sum()
    return found


_SPREAD: Final = {bins: _spread_of_minutes(bins) for bins in (STEPS // STAY_BIN, STEPS)}


def spread_minutes(counts: Floats) -> Floats:
    """Counts of whole minutes in steps, spread over the steps that those minutes last."""
    found: Floats = counts @ _SPREAD[counts.shape[-1]]
    return found


def smooth_density(counts: Floats) -> Floats:
    """The density by bin that counts in equal bins of log minutes tell, positive everywhere, sum 1. There must be some.

    Penalised likelihood: third differences of the log density cost, so that with little evidence it is a lognormal's with the
    counts' own mean and variance (Silverman 1982; Eilers & Marx 1996). How much they cost is chosen by BIC (Schwarz 1978).
    """
    bins, total = len(counts), float(counts.sum())
    at = np.arange(bins)
    mean = float(counts @ at) / total
    log_density = -0.5 * (at - mean) ** 2 / max(float(counts @ (at - mean) ** 2) / total, 0.25)
    third = np.diff(np.eye(bins), 3, axis=0)
    best, found = np.inf, np.full(bins, 1 / bins)
    for penalty in _PENALTIES:
        rough = penalty * third.T @ third
        for _ in range(_ROUNDS):
            expected = total * _density(log_density)
            step = np.linalg.solve(np.diag(expected + 1e-6) + rough, counts - expected - rough @ log_density)
            longest = float(np.abs(step).max())
            log_density = log_density + step * min(1.0, _LONGEST_STEP / max(longest, _PRECISION))
            if longest < _PRECISION:
                break
        density = _density(log_density)
        parameters = float(np.trace(np.linalg.solve(np.diag(total * density + 1e-6) + rough, np.diag(total * density))))
        criterion = -2 * float(counts @ np.log(np.maximum(density, 1e-300))) + parameters * np.log(max(total, 2.0))
        if criterion < best:
            best, found = criterion, density
    positive = np.maximum(found, 1e-12)
    return positive / positive.sum()


def _density(log_density: npt.NDArray[np.floating]) -> Floats:
    density: Floats = np.exp(log_density - log_density.max())
    return density / density.sum()


def finer(density: Floats) -> Floats:
    """A density in 48 bins at the 144 steps, its logarithm straight from bin to bin."""
    middles = CENTRES.reshape(len(density), -1).mean(axis=1)
    fine = np.exp(np.interp(CENTRES, middles, np.log(density)))
    found: Floats = fine / fine.sum()
    return found
