"""Venues by the risk that they passed the infection on: cases × contact minutes × how little the air was changed.

The last factor is the well-mixed room of Wells and Riley. A susceptible person who breathes B m³/h for D hours in a room of V m³
with one infectious person who gives off E quanta/h inhales, with removal at λ per hour,

    n = E · B · D / (V · λ) · r,    r = 1 − (1 − e^(−λD)) / (λD)    [quanta]

and is infected with probability 1 − e^(−n), about n where it is small. λ adds up air changes, the virus' decay and its
deposition; r is for the time until the air of the room has filled up. (Peng et al. 2022, Environ. Sci. Technol. 56, 1125–1137;
without masks, their relative risk parameter is n / (E · B).) V is floor area × CEILING. The factor is n per hour over that of the
REFERENCE_ROOM once its air has filled up, so that E and B cancel.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Height of a room in metres. Assumption: the registry has the floor only.
CEILING: Final = 3.0
#: Per hour: the virus' decay in air, and its deposition on surfaces, as in the COVID-19 Aerosol Transmission Estimator of Jimenez
#: (University of Colorado), on which Peng et al. build. Air changes come on top.
DECAY: Final = 0.62
DEPOSITION: Final = 0.3
#: Floor area in m² and air changes per hour of the room whose factor is 1, and which a venue of unknown ventilation is taken for.
#: Assumption: a shop or a restaurant.
REFERENCE_ROOM: Final = (100.0, 3.0)
#: E in quanta per hour of an infectious person who speaks (of one who only breathes it is 0.13); the original strain: Aganovic et
#: al. 2022, Building and Environment 228, 109924.
SPEAKING_QUANTA: Final = 3.8
#: B of a standing person in m³ per hour: Buonanno, Stabile & Morawska 2020, Environment International 141, 105794.
BREATH: Final = 0.54


@dataclass(frozen=True, slots=True)
class Ranked:
    """Venues by falling risk; columns of equal length."""

    #: Position in what was given.
    row: NDArray[np.int64]
    #: cases × contact minutes × factor. Relative: it compares venues and predicts nothing.
    risk: Floats
    factor: Floats
    #: E · B / (V · λ): quanta that one susceptible person inhales in an hour from one case who speaks; NaN where unknown.
    quanta_per_hour: Floats
    #: Floor area or air changes are unknown: the factor is 1.
    assumed: NDArray[np.bool_]


def _removal(air_changes: Floats) -> Floats:
    """λ: how often an hour the air is rid of the virus, by ventilation, decay and deposition."""
    return air_changes + DECAY + DEPOSITION


def ventilation_factor(floor_area_m2: Floats, air_changes: Floats, hours: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """How much more quanta are inhaled in an hour than in the reference room, and where that is assumed to be 1.

    Unknown areas and air changes are not numbers (NaN). hours: how long a case stayed on average, above 0.
    """
    assumed = np.isnan(floor_area_m2) | np.isnan(air_changes)
    rate = _removal(air_changes)
    filled_up = 1 + np.expm1(-rate * hours) / (rate * hours)
    area, changes = REFERENCE_ROOM
    factor = filled_up * area * (changes + DECAY + DEPOSITION) / (floor_area_m2 * rate)
    return np.where(assumed, 1.0, factor), assumed


def rank_venues(
    venue_ids: Any,
    cases: NDArray[Any],
    contact_ms: NDArray[Any],
    floor_area_m2: Floats,
    air_changes: Floats,
    hours: Floats,
) -> Ranked:
    """Venues by falling risk, then by id, so that the order is one.

    cases: infectious cases who were there. contact_ms: how long others were there with them, in person ms.
    """
    factor, assumed = ventilation_factor(floor_area_m2, air_changes, hours)
    risk = cases * (contact_ms / 60_000) * factor
    row = np.lexsort((np.asarray(venue_ids), -risk))
    quanta = SPEAKING_QUANTA * BREATH / (floor_area_m2 * CEILING * _removal(air_changes))
    return Ranked(row, risk[row], factor[row], quanta[row], assumed[row])
