"""Who was really there, minute by minute: the model that holds for each minute, applied to a shard's log of moves.

A row's estimate is a function of the visits at its venue, of the registry and of the uses of models; never of when it is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.core.occupancy import HourRows, MinuteRows
from pipeline.core.pools import I32, I64, Moves
from pipeline.core.presence.estimate import Hidden, estimate
from pipeline.core.presence.grid import MINUTES_OF_DAY
from pipeline.presence import Place, Places, Presence
from pipeline.store.closed_days import utc_offset
from pipeline.store.models import ModelUse, StoredModel
from pipeline.store.tables import Estimates

Flags = NDArray[np.bool_]

#: An hour's estimate is the mean over the ends of these of its minutes, whatever the clock says: as good as all sixty, because
#: who is there changes little in five minutes.
MINUTES_OF_HOUR: Final = np.arange(4, 60, 5)

#: Models kept ready: what is asked for lies within a day or two.
_MODELS_KEPT: Final = 3


class Ground:
    """The venues that estimates are made for, by their code in a shard."""

    def __init__(self, place_of: Callable[[str], tuple[str, str | None]]) -> None:
        """`place_of` gives a venue's category and time zone; it is asked once for each venue."""
        self._place_of = place_of
        self._places: list[Place] = []
        self._zones: dict[str | None, int] = {}
        self._zone: list[int] = []
        self._here: dict[str, Places] = {}
        self._offsets: dict[int, I64] = {}

    def meet(self, ids: Callable[[I32], list[bytes]], count: int) -> None:
        """Make the first `count` venues known; `ids` gives the ids of codes."""
        known = len(self._places)
        if known < count:
            for venue in ids(np.arange(known, count, dtype=np.int32)):
                name = venue.decode()
                category, zone = self._place_of(name)
                self._places.append(Place(name, category, 0))
                self._zone.append(self._zones.setdefault(zone, len(self._zones)))
            self._offsets.clear()

    def here(self, presence: Presence) -> Places:
        """A model for these venues."""
        known = self._here.get(presence.version)
        if known is None:
            if len(self._here) == _MODELS_KEPT:
                self._here.pop(next(iter(self._here)))
            known = presence.places(self._places)
        elif len(known.venues) < len(self._places):
            known = _joined(known, presence.places(self._places[len(known.venues) :]))
        self._here[presence.version] = known
        return known

    def offsets(self, day: int) -> I64:
        """By venue, minutes that local time is ahead of UTC at noon UTC of a day since the epoch: as models learn it."""
        found = self._offsets.get(day)
        if found is None:
            noon = datetime.fromtimestamp((2 * day + 1) * 43_200, UTC)
            zones = np.array([0 if zone is None else utc_offset(zone, noon) for zone in self._zones], np.int64)
            found = zones[np.array(self._zone, np.int64)]
            if len(self._offsets) == _MODELS_KEPT:
                self._offsets.pop(next(iter(self._offsets)))
            self._offsets[day] = found
        return found


def _joined(first: Places, more: Places) -> Places:
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(first.model, name), getattr(more.model, name)])
        for name in ("category", "stretch", "odds", "stretch_spread", "odds_spread")
    }
    return Places(
        replace(first.model, **arrays),
        first.venues + more.venues,
        *(np.concatenate([getattr(first, name), getattr(more, name)]) for name in ("width", "offset", "share")),
    )


class Timeline:
    """Which model holds when, in event time: of those said to hold for a minute, the one said last."""

    def __init__(self, uses: Sequence[ModelUse], read: Callable[[str], StoredModel | None]) -> None:
        """`read` gives a stored model, when it is first needed."""
        self._uses = uses
        self._read = read
        self._from = np.array(sorted({use.minute for use in uses}), np.int64)
        self._versions = [
            max((use for use in uses if use.minute <= since), key=lambda use: use.number).version
            for since in self._from
        ]
        self._ready: dict[str, Presence | None] = {}

    @property
    def number(self) -> int:
        """That of the last use; 0 without any."""
        return max((use.number for use in self._uses), default=0)

    @property
    def active(self) -> bool:
        """Whether a model holds for any minute."""
        return any(self._versions)

    def changed_since(self, number: int) -> int:
        """The first minute (since the epoch) for which anything was said after the use of that number."""
        return min(use.minute for use in self._uses if use.number > number)

    def _presence(self, version: str) -> Presence | None:
        if version not in self._ready:
            if len(self._ready) == _MODELS_KEPT:
                self._ready.pop(next(iter(self._ready)))
            stored = self._read(version)
            self._ready[version] = None if stored is None else Presence(stored)
        return self._ready[version]

    def of_rows(
        self, ground: Ground, log: tuple[I32, Moves], minutes: MinuteRows, hours: HourRows
    ) -> tuple[Estimates | None, Estimates | None]:
        """The estimates of rows of minutes and of hours; those of deleted rows are of no model."""
        count, hour_count = int(minutes.used[0]), int(hours.used[0])
        found = self.estimates(
            ground,
            log,
            np.concatenate([minutes.venue[:count], hours.venue[:hour_count]]),
            np.concatenate([minutes.minute[:count], hours.hour[:hour_count] * 60]),
            np.arange(count + hour_count) >= count,
            np.concatenate([minutes.deleted[:count], hours.deleted[:hour_count]]) == 0,
        )
        if found is None:
            return None, None
        return found.of(slice(count)), found.of(slice(count, None))

    def estimates(
        self,
        ground: Ground,
        log: tuple[I32, Moves],
        venue: I32,
        minute: I32,
        hourly: Flags,
        wanted: Flags,
    ) -> Estimates | None:
        """The estimates at the ends of minutes since the epoch, or, where `hourly`, of the hours that begin with them.

        log: the moves of the venues of `ground`. What is not `wanted` is of no model. None where none has an estimate.
        """
        if not self.active:
            return None
        uses = np.searchsorted(self._from, minute, "right") - 1
        groups = np.where(wanted, (uses << 32) | (minute // MINUTES_OF_DAY), -1)
        found = Estimates.none(len(venue))
        for group in np.unique(groups[(uses >= 0) & wanted]).tolist():
            version = self._versions[group >> 32]
            presence = self._presence(version) if version else None
            if presence is not None:
                rows = np.flatnonzero(groups == group)
                offsets = ground.offsets(group & 0xFFFFFFFF)
                _estimate(
                    presence,
                    ground.here(presence),
                    log,
                    offsets,
                    (rows, venue[rows], minute[rows], hourly[rows]),
                    found,
                )
        return found if len(found.versions) > 1 else None


def _estimate(
    presence: Presence,
    here: Places,
    log: tuple[I32, Moves],
    offsets: I64,
    asked: tuple[I64, I32, I32, Flags],
    found: Estimates,
) -> None:
    rows, venue, minute, hourly = asked
    hours = np.flatnonzero(hourly)
    each = np.flatnonzero(~hourly)
    inside = (minute[hours, None] + MINUTES_OF_HOUR).ravel()
    places = np.concatenate([each, np.repeat(hours, len(MINUTES_OF_HOUR))])
    when = np.concatenate([minute[each], inside]).astype(np.int64)
    order = np.argsort((venue[places].astype(np.int64) << 32) | when, kind="stable")
    summed = np.zeros((len(rows), 6), np.int64)
    places = places[order]
    presence.add_sums(here, log, offsets, venue[places], when[order], places, summed)
    for some, minutes in ((each, 1), (hours, len(MINUTES_OF_HOUR))):
        estimated = estimate(here.model, summed[some], Hidden(), venue[some], minutes)
        known = np.flatnonzero(estimated.expected >= 0)
        found.put(
            presence.version,
            rows[some[known]],
            estimated.expected[known],
            estimated.low[known],
            estimated.high[known],
            here.share[venue[some[known]]],
        )
