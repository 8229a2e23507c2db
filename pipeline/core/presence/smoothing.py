"""A smooth density from counts by log minutes: no holes between whole minutes, and tails that go on as a lognormal's."""

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.core.presence.grid import CENTRES, MINUTES_OF_DAY, STEP, STEP_OF_MINUTE, STEPS

Floats = npt.NDArray[np.float64]

#: How heavily a third difference of the log density weighs: the values that are weighed against each other.
_PENALTIES: Final = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
_ROUNDS: Final = 60


def _spread_minutes(bins: int) -> Floats:
    """Share of what is counted in a bin (rows) that belongs to each bin (columns): a whole minute covers several short ones."""
    width = STEP * STEPS / bins
    edges = np.exp(width * np.arange(bins + 1))
    edges[0], edges[-1] = 0.0, np.inf
    minute = np.arange(MINUTES_OF_DAY)
    covered = np.clip(np.minimum(edges[1:], minute[:, None] + 1) - np.maximum(edges[:-1], minute[:, None]), 0.0, None)
    found = np.eye(bins)
    counted_in = STEP_OF_MINUTE * bins // STEPS
    for b in np.unique(counted_in[:60]):
        some = covered[counted_in == b].sum(axis=0)
        found[b] = some / some.sum()
    return found


_SPREAD: Final = {bins: _spread_minutes(bins) for bins in (48, STEPS)}


def spread_minutes(counts: Floats) -> Floats:
    """Counts of whole minutes in steps, spread over the steps that those minutes last."""
    found: Floats = counts @ _SPREAD[counts.shape[-1]]
    return found


def smooth_density(counts: Floats) -> Floats:
    """The density by bin that counts in equal bins of log minutes tell, positive everywhere, sum 1.

    Penalised likelihood (Silverman 1982; Eilers & Marx 1996): third differences of the log density cost, so that with little
    evidence it is a lognormal's with the counts' own mean and variance. How much they cost is chosen by BIC.
    """
    bins = len(counts)
    seen = counts
    total = float(seen.sum())
    third = np.diff(np.eye(bins), 3, axis=0)
    best, found = np.inf, np.full(bins, 1 / bins)
    at = np.arange(bins)
    mean = float(seen @ at) / total
    variance = max(float(seen @ (at - mean) ** 2) / total, 0.25)
    log_density = -0.5 * (at - mean) ** 2 / variance
    for penalty in reversed(_PENALTIES):
        rough = penalty * third.T @ third
        for _ in range(_ROUNDS):
            density = np.exp(log_density - log_density.max())
            density /= density.sum()
            expected = total * density
            gradient = seen - expected - rough @ log_density
            hessian = np.diag(expected + 1e-6) + rough
            step = np.linalg.solve(hessian, gradient)
            step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
            log_density = log_density + step
            if float(np.abs(step).max()) < 1e-4:
                break
        freedom = float(np.trace(np.linalg.solve(hessian, np.diag(expected))))
        density = np.exp(log_density - log_density.max())
        density /= density.sum()
        score = -2 * float(seen @ np.log(np.maximum(density, 1e-300))) + freedom * np.log(max(total, 2.0))
        if score < best:
            best, found = score, density
    return np.maximum(found, 1e-12) / np.maximum(found, 1e-12).sum()


def finer(density: Floats) -> Floats:
    """A density in 48 bins at the 144 steps, its logarithm straight from bin to bin."""
    middles = CENTRES.reshape(len(density), -1).mean(axis=1)
    fine = np.exp(np.interp(CENTRES, middles, np.log(density)))
    found: Floats = fine / fine.sum()
    return found
