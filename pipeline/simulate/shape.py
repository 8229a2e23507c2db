"""When people come: the day's hourly shape, shared out among the categories."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import facts

Floats = NDArray[np.float64]

_MINUTES: Final = 1440


def entry_shares(category_shares: Floats) -> Floats:
    """Share of all check-ins by category (rows) and local hour (24 columns).

    Rows add up to `category_shares`, columns to the national hourly shape, and within that each category keeps the
    hours it likes (iterative proportional fitting).
    """
    hours = np.array(facts.HOURLY_SHARES)
    hours /= hours.sum()
    # A trace of eagerness at every hour: a day of malls only could not have the nation's nights otherwise.
    table = np.array([[int(digit) for digit in category.eagerness] for category in facts.CATEGORIES]) + 1e-4
    for _ in range(200):
        table *= hours / table.sum(axis=0)
        table *= (category_shares / table.sum(axis=1))[:, None]
    return table


def minute_density(hourly: Floats) -> Floats:
    """Hourly shares as 1,440 shares by minute: each hour keeps its total and rises or falls towards its neighbours."""
    hourly = hourly / hourly.sum()
    rise = (np.append(hourly[1:], hourly[0]) - np.append(hourly[-1], hourly[:-1])) / 2
    slope = np.divide(rise, hourly, out=np.zeros(24), where=hourly > 0).clip(-1.9, 1.9)
    within = (np.arange(60) + 0.5) / 60 - 0.5
    density: Floats = hourly[:, None] * (1 + slope[:, None] * within) / 60
    return density.ravel()


def sample_times(rng: np.random.Generator, density: Floats, count: int) -> NDArray[np.int32]:
    """Random times of the local day, in ms after midnight, from shares by minute."""
    cumulative = np.append(0.0, density.cumsum())
    minutes = np.interp(rng.random(count) * cumulative[-1], cumulative, np.arange(_MINUTES + 1))
    times: NDArray[np.int32] = (minutes * 60_000).astype(np.int32)
    return times


def peak_share(density: Floats, category: facts.Category) -> float:
    """The most that are inside at once, as a share of the day's visits, if stays last as the category's do."""
    stay = np.random.default_rng(0).lognormal(np.log(category.dwell_median), category.dwell_sigma, 4_000)
    still_there = (stay[:, None] > np.arange(0, _MINUTES, 10)).mean(axis=0)
    ten_minutes = density.reshape(-1, 10).sum(axis=1)
    return float(np.convolve(ten_minutes, still_there).max())
