"""A day unlike the learned ones: the model in force, shifted by what today's check-outs tell so far."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from pipeline.core.pools import MINUTE
from pipeline.core.presence.evidence import NONE, Visits
from pipeline.core.presence.grid import MINUTES_OF_DAY
from pipeline.core.presence.model import Source
from pipeline.core.presence.shift import StaysSoFar, shifted, shifts_of, stays_so_far
from pipeline.errors import UserError
from pipeline.presence import Presence, as_stored
from pipeline.store.closed_days import clock_of, places_of, presence_sql, utc_offset
from pipeline.store.models import StoredModel, stored_model, used_models
from pipeline.store.tables import integers
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: Of a category's figures: the factor of its stays, of a model that was shifted for one day.
DAY_FACTOR: Final = "day_factor"


@dataclass(frozen=True, slots=True)
class Shifted:
    """The model `base` as it holds for the rest of the day: from the full hour `since` until `until` (exclusive), UTC.

    by_category: factor of the stays, and the spread of its log.
    """

    base: StoredModel
    model: StoredModel
    since: datetime
    until: datetime
    by_category: dict[str, tuple[float, float]]


def shift_model(client: Client) -> Shifted:
    """The unshifted model in force at the store's clock, shifted. Raises UserError without one, and StoreUnavailableError."""
    now = clock_of(client)
    base = unshifted_at(client, now)
    if base is None:
        raise UserError("no model is in force: `pipeline model fit --use` makes one")
    presence = Presence(base)
    shifts = shifts_of(presence.model, _so_far(client, presence, now))
    by_category = {
        name: (float(np.exp(shifts.category[code] / 100)), float(shifts.category_spread[code] / 1000))
        for code, name in enumerate(presence.categories[:-1])
        if presence.model.source[code] == Source.LEARNED
    }
    figures = json.loads(base.figures)
    for row in figures:
        row[DAY_FACTOR] = round(by_category.get(row["category"], (1.0, 0.0))[0], 2)
    days = (base.first_day, base.last_day)
    model = as_stored(shifted(presence.model, shifts), presence.categories, presence.venues, days, figures)
    since = now.replace(minute=0, second=0, microsecond=0)
    return Shifted(base, model, since, since.replace(hour=0) + timedelta(1), by_category)


def unshifted_at(client: Client, at: datetime) -> StoredModel | None:
    """The model that holds for an event time, without the shift of a day. Raises StoreUnavailableError."""
    for use in reversed(used_models(client)):
        if use.minute * 60 > at.timestamp():
            continue
        model = stored_model(client, use.version) if use.version else None
        if model is None or not is_shifted(model):
            return model
    return None


def is_shifted(model: StoredModel) -> bool:
    """Whether a model holds for the rest of one day only."""
    return any(DAY_FACTOR in row for row in json.loads(model.figures))


def _so_far(client: Client, presence: Presence, now: datetime) -> StaysSoFar:
    venues = len(presence.model.category)
    zones = sorted({zone for _, zone in places_of(client).values() if zone})
    offsets = [utc_offset(zone, now) for zone in zones]
    minute = int(now.timestamp()) // 60
    nobody = np.zeros(0, np.int64)
    total = stays_so_far(Visits(*[nobody] * 6), 0, venues)
    for offset in sorted({0, *offsets}):
        local = (minute + offset) % MINUTES_OF_DAY
        parameters = {
            "midnight": (minute - local) * MINUTE,
            "now": int(now.timestamp() * 1000),
            "zones": ["", *zones],
            "offsets": [0, *offsets],
            "offset": offset,
        }
        with store_errors():
            table = client.query_arrow(presence_sql("today"), parameters, use_strings=True)
        if table.num_rows:
            total += stays_so_far(_visits(table, presence), local, venues)
    return total


def _visits(table: pa.Table, presence: Presence) -> Visits:
    """Of the venues that the model knows; a new one tells nothing of how it differs from itself."""
    codes = presence.codes_of(table["venue_id"].to_pylist())
    known = codes != NONE
    none = np.full(int(known.sum()), NONE, np.int64)
    return Visits(
        codes[known],
        presence.model.category[codes[known]].astype(np.int64),
        integers(table, "arrival_minute")[known],
        integers(table, "dwell")[known],
        none,
        none,
    )
