"""Head counts beside what a model expects at the same venues and minutes: the model calibrated by them."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.core.pools import MINUTE
from pipeline.core.presence.calibration import (
    FEWEST_COUNTS,
    FEWEST_VENUES,
    LEAST_EXPECTED,
    Calibration,
    HeadCounts,
    Hidden,
    calibrate,
)
from pipeline.core.presence.estimate import NINETY, SQUARES, estimate
from pipeline.core.presence.model import ONE, calibrated
from pipeline.errors import UserError
from pipeline.presence import CALIBRATION_FIGURES, NOT_REGISTERED, Place, Presence, as_stored
from pipeline.store.closed_days import clock_of, places_of, utc_offset
from pipeline.store.models import StoredModel
from pipeline.store.open_visits import NO_VISITS, open_in_bins, read_open_visits
from schemas.head_count import HeadCount

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: Counts of so many ms are compared at once (a day): it bounds the visits that are held.
_SPAN: Final = 24 * 60 * MINUTE
_NAMED: Final = Hidden(spread=0.0)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibrated model, what the counts say by category, and how many counts could not be used, by why."""

    model: StoredModel
    by_category: dict[str, Calibration]
    left_out: dict[str, int]


def calibrate_model(client: Client, base: StoredModel, counts: Sequence[HeadCount]) -> Calibrated:
    """The model `base` with the hidden people that head counts tell; a category with too few counts keeps what it had.

    A count belongs to the end of the last full minute before it. Raises UserError where no category has enough counts, and
    StoreUnavailableError.
    """
    presence = Presence(base)
    as_of = int(clock_of(client).timestamp() * 1000)
    known = [count for count in counts if count.at <= as_of]
    head, no_estimate = _compared(client, presence, known)
    found = dict(zip(presence.categories[:-1], calibrate(head, len(presence.categories)), strict=False))
    few = int(np.count_nonzero(head.expected < LEAST_EXPECTED))
    left_out = {
        "later than the store's clock": len(counts) - len(known),
        "at venues without an estimate": no_estimate,
        f"where fewer than {LEAST_EXPECTED:g} people are expected": few,
    }
    if all(one.hidden is None for one in found.values()):
        said = ", ".join(f"{name} {one.counts} at {one.venues} venues" for name, one in found.items() if one.counts)
        unused = ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
        raise UserError(
            f"the head counts are too few, no category has {FEWEST_COUNTS} at {FEWEST_VENUES} venues: usable are {said or 'none'}"
            f"{f'; left out: {unused}' if unused else ''}; count more, or at busier times"
        )
    told = {name: one.hidden for name, one in found.items()}
    factors = [told.get(name) or presence.hidden_of(name) for name in presence.categories]
    figures = json.loads(base.figures)
    for row in figures:
        one = found[row["category"]]
        if one.hidden is not None:
            row |= dict(zip(CALIBRATION_FIGURES, (round(one.hidden.mean, 3), one.counts, one.venues), strict=True))
    days = (base.first_day, base.last_day)
    model = as_stored(calibrated(presence.model, factors), presence.categories, presence.venues, days, figures)
    return Calibrated(model, found, {why: count for why, count in left_out.items() if count})


def _compared(client: Client, presence: Presence, counts: Sequence[HeadCount]) -> tuple[HeadCounts, int]:
    """The counts beside the model's expectation, and how many are at venues that it has no estimate of."""
    registered = places_of(client)
    codes = {venue: code for code, venue in enumerate(sorted({count.venue_id for count in counts}))}
    rows: list[tuple[float, ...]] = []
    for some in _grouped(counts, _SPAN).values():
        times = [count.at for count in some]
        visits = read_open_visits(client, sorted({count.venue_id for count in some}), min(times), max(times))
        for minute, here in _grouped(some, MINUTE).items():
            at = datetime.fromtimestamp(minute * 60, UTC)
            places = presence.places([_place(count.venue_id, registered, at) for count in here])
            open_by_bin = [
                open_in_bins(visits.get(count.venue_id, NO_VISITS), minute - 1, int(width))
                for count, width in zip(here, places.width, strict=True)
            ]
            persons, squares = (np.stack(column) for column in zip(*open_by_bin, strict=True))
            summed = presence.sums(places, persons, squares, minute - 1)
            said = estimate(places.model, summed, _NAMED)
            rows += [
                (
                    places.model.category[i],
                    codes[count.venue_id],
                    count.persons,
                    said.expected[i],
                    (said.high[i] - said.expected[i]) / NINETY,
                    summed[i, SQUARES] / ONE,
                )
                for i, count in enumerate(here)
                if said.expected[i] >= 0
            ]
    table = np.array(rows, np.float64).reshape(-1, 6)
    category, venue = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    return HeadCounts(category, venue, *table[:, 2:].T), len(counts) - len(rows)


def _grouped(counts: Sequence[HeadCount], span: int) -> dict[int, list[HeadCount]]:
    groups: dict[int, list[HeadCount]] = defaultdict(list)
    for count in counts:
        groups[count.at // span].append(count)
    return groups


def _place(venue: str, registered: dict[str, tuple[str, str | None]], at: datetime) -> Place:
    category, zone = registered.get(venue, NOT_REGISTERED)
    return Place(venue, category, utc_offset(zone, at) if zone else 0)
