"""Models of presence between the store and the core: fitted to closed days, put in force, applied to open visits."""

import base64
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.core.pools import I32, I64, Moves
from pipeline.core.presence.estimate import Weights, sums_at, weights_of
from pipeline.core.presence.evidence import Evidence, gather
from pipeline.core.presence.grid import EDGES
from pipeline.core.presence.model import (
    BINS,
    DAYS,
    FEWEST_CHECK_OUTS,
    ODDS_STEP,
    ONE,
    Dwell,
    Kind,
    Model,
    Source,
    bin_minutes_of,
    fit,
)
from pipeline.errors import UserError
from pipeline.store import closed_days
from pipeline.store.models import StoredModel

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: Stays assumed before there is evidence, by category. No source gives them for check-ins: they are the project's assumptions,
#: the same that its simulator starts from, and a model that rests on them says so.
ASSUMED: Final = {
    "minimarket": Dwell(12, 0.6),
    "mall": Dwell(110, 0.6),
    "office": Dwell(480, 0.2),
    "restaurant": Dwell(60, 0.5),
    "transport": Dwell(25, 0.5),
    "worship": Dwell(60, 0.3),
    "attraction": Dwell(150, 0.5),
}

#: Share of a category's stays that its arrival bins must hold.
_HELD: Final = 0.995
#: The category that a model knows nothing of: last in its list.
_NO_CATEGORY: Final = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A venue as the estimate needs it: `offset` = minutes of local time east of UTC."""

    venue: str
    category: str
    offset: int


@dataclass(frozen=True, slots=True)
class Places:
    """A model for a certain list of venues. `width`: minutes of an arrival bin, `share`: of visits with a check-out, by venue."""

    model: Model
    venues: tuple[str, ...]
    width: NDArray[np.int64]
    offset: NDArray[np.int64]
    share: NDArray[np.float64]


class Presence:
    """A stored model, ready to estimate with."""

    def __init__(self, stored: StoredModel) -> None:
        """Raises UserError where the stored model cannot be read by this version of the program."""
        self.version = stored.version
        try:
            body = json.loads(stored.body)
            #: Names by code; the last category is that of which nothing is known.
            self.categories: list[str] = body["categories"]
            self.venues: list[str] = body["venues"]
            #: For the venues above, and behind them, for each category, one that nothing is known of.
            self.model = _unpacked(body)
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"the model {stored.version} cannot be read ({error}): fit a new one, `pipeline model fit`"
            ) from None
        self._category_codes = {name: code for code, name in enumerate(self.categories)}
        self._venue_codes = {name: code for code, name in enumerate(self.venues)}
        self._weights: Weights = weights_of(self.model)

    def places(self, places: Sequence[Place]) -> Places:
        """The model for these venues; one that it does not know is like its category."""
        model, unknown = self.model, self._category_codes[_NO_CATEGORY]
        category = np.array([self._category_codes.get(place.category, unknown) for place in places], np.int64)
        average = len(self.venues) + category
        row = np.array([self._venue_codes.get(place.venue, -1) for place in places], np.int64)
        row = np.where((row >= 0) & (model.category[row] == category), row, average)
        here = replace(
            model,
            category=category.astype(np.int16),
            stretch=model.stretch[row],
            odds=model.odds[row],
            stretch_spread=model.stretch_spread[row],
            odds_spread=model.odds_spread[row],
        )
        return Places(
            here,
            tuple(place.venue for place in places),
            model.bin_minutes[category].astype(np.int64),
            np.array([place.offset for place in places], np.int64),
            1 / (1 + np.exp(-ODDS_STEP * here.odds.astype(np.float64))),
        )

    def add_sums(
        self,
        places: Places,
        log: tuple[I32, Moves],
        offset: I64,
        venue: I64,
        minute: I64,
        place: I64,
        out: I64,
    ) -> None:
        """The exact sums of some venues' minutes from their log of moves, as the core has them: see `sums_at`."""
        sums_at(places.model, self._weights, log, offset, venue, minute, place, out)


def fit_model(client: Client, days: int = DAYS, told: Callable[[date], None] = lambda _day: None) -> StoredModel:
    """Fit a model to the last closed days of the store; without any, it rests on ASSUMED stays alone.

    `told` hears of each day that is done. Raises StoreUnavailableError.
    """
    closed = closed_days.closed_days(client)[-days:]
    if closed:
        closed = [day for day in closed if day > closed[-1] - timedelta(days)]
    categories = [*closed_days.categories(client), _NO_CATEGORY]
    registered = closed_days.categories_of_venues(client)
    venues = closed_days.venues_of(client, closed)
    place = {name: code for code, name in enumerate(categories)}
    known = [place[registered.get(venue, "unknown")] for venue in venues]
    category = np.array([*known, *range(len(categories))], np.int64)
    evidence: dict[int, Evidence] = {}
    for day in closed:
        total = Evidence.none(len(categories), len(category))
        for visits in closed_days.read_day(client, day, categories, venues):
            total += gather(visits, len(categories), len(category))
        evidence[day.toordinal()] = total
        told(day)
    today = closed[-1].toordinal() + 1 if closed else 1
    kinds = [_kind(name, code, evidence.values()) for code, name in enumerate(categories)]
    model = fit(evidence, today, category, kinds)
    body = _packed(model, categories, venues)
    digest = sha256(body.encode()).hexdigest()[:12]
    return StoredModel(
        f"{closed[-1] if closed else 'assumed'}-{digest}",
        datetime.now(UTC),
        closed[0] if closed else None,
        closed[-1] if closed else None,
        body,
        json.dumps(_figures(model, categories, evidence.values())),
    )


def _kind(name: str, code: int, days: Any) -> Kind:
    assumed = ASSUMED.get(name)
    stays = sum((day.stays[code].sum(axis=0) for day in days), np.zeros(len(EDGES) - 1, np.int64))
    if stays.sum() < FEWEST_CHECK_OUTS:
        return Kind(16 if assumed is None else bin_minutes_of(assumed), assumed)
    longest = np.exp(EDGES[1 + int(np.searchsorted(np.cumsum(stays), _HELD * stays.sum()))])
    return Kind(next((width for width in (1, 2, 4, 8) if width * BINS >= longest), 16), assumed)


def _figures(model: Model, categories: Sequence[str], days: Any) -> list[dict[str, Any]]:
    figures = []
    for code, name in enumerate(categories[:-1]):
        visits = sum(int(day.visits[code].sum()) for day in days)
        check_outs = sum(int(day.stays[code].sum()) for day in days)
        curve = model.checked[code].mean(axis=0) / ONE
        median = float(np.exp(EDGES[int(np.searchsorted(-curve, -0.5))])) if curve[0] else None
        figures.append(
            {
                "category": name,
                "source": Source(int(model.source[code])).name.lower(),
                "reason": model.reasons[code],
                "visits": visits,
                "check_outs": check_outs,
                "median_stay_minutes": None if median is None else round(median, 1),
                "tilt": int(model.tilt[code]) / 1000,
                "pace": int(model.pace[code]) / 1000,
                "bin_minutes": int(model.bin_minutes[code]),
                "moves_on_to": [categories[other] for other in np.flatnonzero(model.closes[code]).tolist()],
            }
        )
    return figures


def _packed(model: Model, categories: Sequence[str], venues: Sequence[str]) -> str:
    arrays = {}
    for field in fields(model):
        value = getattr(model, field.name)
        if isinstance(value, np.ndarray):
            data = base64.b64encode(zlib.compress(np.ascontiguousarray(value).tobytes())).decode()
            arrays[field.name] = {"type": value.dtype.str, "shape": value.shape, "data": data}
    return json.dumps(
        {
            "categories": list(categories),
            "venues": list(venues),
            "reasons": model.reasons,
            "version": model.version,
            "arrays": arrays,
        }
    )


def _unpacked(body: dict[str, Any]) -> Model:
    arrays: dict[str, Any] = {
        name: np.frombuffer(zlib.decompress(base64.b64decode(array["data"])), array["type"]).reshape(array["shape"])
        for name, array in body["arrays"].items()
    }
    return Model(**arrays, reasons=tuple(body["reasons"]), version=body["version"])
