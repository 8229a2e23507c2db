"""The nightly check: a closed day of the store against the model that was in force for it."""

from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.presence.check import Checked, check_day
from pipeline.core.presence.evidence import Visits
from pipeline.errors import UserError
from pipeline.presence import NOT_REGISTERED, Place, Presence
from pipeline.shift import unshifted_at
from pipeline.store import closed_days
from pipeline.store.model_checks import save_checks
from pipeline.store.models import StoredModel

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any


def check_model(client: Client, day: date | None = None) -> tuple[date, StoredModel, dict[str, Checked]]:
    """Hold a closed day (default: the last one) against its model; keep what is found, and return it with both.

    The model is the one in force at the day's end or, where none was, the one in force now. Raises UserError where there is no
    such day or no model, and StoreUnavailableError.
    """
    closed = closed_days.closed_days(client)
    if not closed:
        raise UserError("no day is closed yet: one is 12 hours after its end (UTC), by the store's clock")
    if day is not None and day not in closed:
        raise UserError(f"{day} is not closed, or has no visits: closed days are {closed[0]} to {closed[-1]}")
    day = day or closed[-1]
    # Without the shift of a day, which has learned from that day.
    stored = unshifted_at(client, datetime.combine(day, time.max, UTC)) or unshifted_at(
        client, closed_days.clock_of(client)
    )
    if stored is None:
        raise UserError("no model is in force: `pipeline model fit --use` makes one")
    checks = _checked(client, Presence(stored), day)
    save_checks(client, day, stored.version, checks)
    return day, stored, checks


def _checked(client: Client, presence: Presence, day: date) -> dict[str, Checked]:
    venues = closed_days.venues_of(client, [day])
    registered = closed_days.places_of(client)
    # As the visits' local times are read: by the clocks of the day's noon.
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    zones = {zone for _, zone in registered.values()}
    offsets = {zone: closed_days.utc_offset(zone, noon) if zone else 0 for zone in {None, *zones}}
    known = [(venue, *registered.get(venue, NOT_REGISTERED)) for venue in venues]
    places = presence.places([Place(venue, category, offsets[zone]) for venue, category, zone in known])
    slices = list(closed_days.read_day(client, day, closed_days.categories(client), venues))
    columns = (np.concatenate([getattr(each, name) for each in slices]) for name in Visits.__slots__)
    found = check_day(places.model, Visits(*columns), places.offset)
    # The model's last category has the venues of categories that it does not know.
    return dict(zip(presence.categories[:-1], found, strict=False))
