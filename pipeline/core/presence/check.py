"""A closed day held against a model: its known check-outs hidden and predicted, its stays and check-outs beside the model's.

At each full hour, whoever checked out that day counts as there with the probability that the model gives, and is really there or
gone. That finds hours or venues whose stays the model does not know, and days unlike the learned ones. It can **not** find
that those who never check out stay longer or shorter than those who do, because it sees the latter only; nor people whom no scan
names. Only head counts do (`calibration`).
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.core.presence.calibration import Hidden
from pipeline.core.presence.estimate import estimate, sums, weights_of
from pipeline.core.presence.evidence import NONE, Visits
from pipeline.core.presence.grid import (
    BLOCK_OF_MINUTE,
    BLOCKS,
    CENTRES,
    MINUTES_OF_DAY,
    STEP_OF_MINUTE,
    STEPS,
    Integers,
)
from pipeline.core.presence.model import BINS, MOST_ODDS, MOST_STRETCH, ODDS_STEP, ONE, Model, Source

Floats = npt.NDArray[np.float64]

#: A cell, one venue at one hour, is judged from so many people expected on; rounding makes smaller intervals hold too much.
LEAST_EXPECTED: Final = 10.0
#: Cells of a category below which a coverage says nothing: none is counted.
FEWEST_CELLS: Final = 20
#: Stays of a category below which there is no drift: of 200, chance alone makes 0.1 of it once in 27 days.
FEWEST_STAYS: Final = 200
_HOUR: Final = 60
#: One person a visit, nobody hidden.
_VISITS: Final = Hidden(spread=0.0)


@dataclass(frozen=True, slots=True)
class Checked:
    """What one category's day says of the model. Sums, so that categories add up; nothing where the model has no estimate."""

    visits: int
    #: Visits with a check-out, and how many the model expects.
    check_outs: int
    expected_check_outs: float
    #: Cells judged, and those whose 90 % interval held the visitors who had checked out later; of these visitors over all the
    #: cells, the predicted and the true sum. All 0 with fewer than FEWEST_CELLS.
    cells: int
    held: int
    predicted: float
    there: float
    #: The largest distance between the shares of stays longer than any length, seen and modelled (Kolmogorov–Smirnov), 0–1;
    #: and the geometric mean of the seen stays over the modelled one. None with fewer than FEWEST_STAYS.
    drift: float | None
    stay_ratio: float | None


def check_day(model: Model, visits: Visits, offset: Integers) -> list[Checked]:
    """Hold a closed day's visits against a model that has not learned from them; by the model's categories.

    visits: those that began on one UTC day; `venue` counts in the model's venues, whose categories hold. offset: minutes of
    local time east of UTC by venue, (V,), as those of `visits.arrival`.
    """
    known = np.flatnonzero(visits.stay != NONE)
    venue, arrival = visits.venue[known].astype(np.int64), visits.arrival[known].astype(np.int64)
    stay = np.minimum(visits.stay[known], MINUTES_OF_DAY - 1).astype(np.int64)
    expected, there, held = _predicted(model, venue, (arrival - offset[venue]) % MINUTES_OF_DAY, stay, offset)
    judged = expected >= LEAST_EXPECTED
    category_of_cell = np.broadcast_to(model.category, expected.shape)
    seen, modelled = _longer(model, venue, arrival, stay)
    share = 1 / (1 + np.exp(-ODDS_STEP * model.odds.astype(np.float64)))
    all_visits = np.bincount(visits.venue, minlength=len(model.category))
    checked = np.bincount(venue, minlength=len(model.category))
    out = []
    for c in range(len(model.source)):
        here = model.category == c
        cells = judged & (category_of_cell == c)
        if cells.sum() < FEWEST_CELLS:
            cells = np.zeros_like(cells)
        count = int(checked[here].sum())
        known_stays = model.source[c] != Source.NONE and count >= FEWEST_STAYS
        out.append(
            Checked(
                int(all_visits[here].sum()),
                count,
                float(all_visits[here] @ share[here]),
                int(cells.sum()),
                int(held[cells].sum()),
                float(expected[cells].sum()),
                float(there[cells].sum()),
                float(np.abs(seen[c] - modelled[c]).max()) if known_stays else None,
                float(np.exp(_log_mean(seen[c]) - _log_mean(modelled[c]))) if known_stays else None,
            )
        )
    return out


def _predicted(
    model: Model, venue: Integers, arrival: Integers, stay: Integers, offset: Integers
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """By full hour of the UTC day and venue, (24, V): visitors expected, there, and whether the interval held them.

    arrival: minutes since the day's beginning, UTC. Expected is −1 where there is no estimate.
    """
    # Whoever is known to check out stays as those do who check out, and nothing but a check-out ends the visit: the estimate
    # of an open visit of somebody who will never check out, with those stays.
    hidden = replace(
        model,
        others=model.checked,
        others_low=model.checked,
        others_high=model.checked,
        open_others=np.full_like(model.open_others, ONE),
        odds=np.full_like(model.odds, -MOST_ODDS),
        odds_spread=np.zeros_like(model.odds_spread),
    )
    weights = weights_of(hidden)
    width = model.bin_minutes.astype(np.int64)[model.category[venue]]
    shape = (MINUTES_OF_DAY // _HOUR, len(model.category))
    expected, there, held = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.bool_)
    for hour in range(shape[0]):
        minute = (hour + 1) * _HOUR - 1
        come = np.flatnonzero((arrival <= minute) & (minute // width - arrival // width < BINS))
        slots = venue[come] * BINS + arrival[come] // width[come] % BINS
        persons = np.bincount(slots, minlength=shape[1] * BINS).reshape(-1, BINS)
        found = estimate(hidden, sums(hidden, weights, persons, persons, offset, minute), _VISITS)
        # A visit that began in minute a and lasted n whole minutes ended in minute a + n or the next, either as often.
        left = minute - arrival[come] - stay[come]
        there[hour] = np.bincount(venue[come], (left < 0) + 0.5 * (left == 0), shape[1])
        expected[hour] = found.expected
        held[hour] = (found.low <= there[hour]) & (there[hour] <= found.high)
    return expected, there, held


def _longer(model: Model, venue: Integers, arrival: Integers, stay: Integers) -> tuple[Floats, Floats]:
    """By category, the share of stays longer than each edge of the grid, seen and as the model has it, (C, 145) each."""
    categories, stretches = len(model.source), 2 * MOST_STRETCH + 1
    stretch = model.stretch[venue].astype(np.int64) + MOST_STRETCH
    group = (model.category[venue].astype(np.int64) * BLOCKS + BLOCK_OF_MINUTE[arrival]) * stretches + stretch
    counts = np.bincount(group, minlength=categories * BLOCKS * stretches).reshape(categories, BLOCKS, stretches)
    steps = np.bincount(
        model.category[venue].astype(np.int64) * STEPS + STEP_OF_MINUTE[stay], minlength=categories * STEPS
    ).reshape(categories, STEPS)
    some = np.maximum(steps.sum(axis=1, keepdims=True), 1)
    seen = np.zeros((categories, STEPS + 1))
    seen[:, :-1] = np.cumsum(steps[:, ::-1], axis=1)[:, ::-1] / some
    modelled = np.zeros_like(seen)
    for s in range(stretches):
        at = np.clip(np.arange(STEPS + 1) - (s - MOST_STRETCH), 0, STEPS)
        modelled += np.einsum("cb,cbe->ce", counts[:, :, s], model.checked[:, :, at].astype(np.float64))
    return seen, modelled / ONE / some


def _log_mean(longer: Floats) -> float:
    """Mean log minutes of stays of which these shares are longer than each edge."""
    density = longer[:-1] - longer[1:]
    return float(density @ CENTRES / max(density.sum(), 1e-9))
