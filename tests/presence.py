"""Seeded visits and a plain recomputation, for the tests of presence."""

from math import log

import numpy as np

from pipeline.core.presence.evidence import Visits
from pipeline.core.presence.model import Dwell, Kind, Model
from tests.reference import VenueModel

#: Two categories: restaurants and offices, say.
KINDS = (Kind(8), Kind(16))
DWELL = (Dwell(60, 0.5), Dwell(300, 0.3))


def visits(seed: int, count: int, venues: int, *, check_outs: float = 0.4) -> Visits:
    """A day of independent visits, half followed by a check-in elsewhere; venue v is of category v % 2."""
    random = np.random.default_rng(seed)
    venue = random.integers(0, venues, count)
    category = venue % 2
    medians, sigmas = np.array([(dwell.median, dwell.sigma) for dwell in DWELL]).T
    stay = np.exp(np.log(medians[category]) + sigmas[category] * random.normal(0, 1, count))
    following = stay + np.exp(random.normal(log(20), 0.6, count))
    followed = random.random(count) < 0.5
    return Visits(
        venue,
        category,
        random.integers(420, 1200, count),
        np.where(random.random(count) < check_outs, stay, -1).astype(np.int64),
        np.where(followed, following, -1).astype(np.int64),
        np.where(followed, random.integers(0, 2, count), -1),
    )


def part(of: Visits, where: np.ndarray) -> Visits:  # type: ignore[type-arg]
    """Some of the visits, in the order of the index."""
    return Visits(*(getattr(of, name)[where] for name in Visits.__slots__))


def weight(model: Model, venue: int, block: int, age: float) -> float:
    """The probability of `estimate`'s docstring in floating point, at the edges of the grid."""
    category = model.category[venue]
    step = round(log(max(age, 1.0)) / 0.05) - int(model.stretch[venue])
    at = min(max(step, 0), 144)
    share = 1 / (1 + np.exp(-model.odds[venue] / 8))
    seen, others, still = (
        float(curve[category, block, at]) / 65_535 for curve in (model.checked, model.others, model.open_others)
    )
    return float((share * seen + (1 - share) * others) / (share * seen + (1 - share) * still))


def venue_model(model: Model, venue: int, version: str, offset: int) -> VenueModel:
    """What a model says of a venue, as the reference takes it."""
    category = int(model.category[venue])
    return VenueModel(
        version,
        *(
            getattr(model, name)[category].tolist()
            for name in ("checked", "others", "others_low", "others_high", "open_others")
        ),
        odds=int(model.odds[venue]),
        odds_spread=int(model.odds_spread[venue]),
        stretch=int(model.stretch[venue]),
        stretch_spread=int(model.stretch_spread[venue]),
        bin_minutes=int(model.bin_minutes[category]),
        offset=offset,
    )
