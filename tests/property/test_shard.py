"""The core against the reference: whatever the order, the repetitions and the cuts, the rows are those of the set."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alert_book import AlertBook, EstimatesOf
from pipeline.core.crowding import Alert, Levels, alert_id
from pipeline.core.fold import ANCIENT, DUPLICATE, ENDED_CHECK_OUT, ENDED_EXPIRED, STORED
from pipeline.core.levels import LEVELS, Rule
from pipeline.core.names import texts
from pipeline.core.pools import HOUR, MINUTE, NONE
from pipeline.core.presence.estimate import sums_at, weights_of
from pipeline.core.presence.model import Dwell, Kind, Model, fit
from pipeline.core.shard import Shard, VenueRules, horizon_of
from tests.columns import columns_of
from tests.presence import venue_model
from tests.reference import DEFAULT_MAX_STAY, Scan, Views, expected_views, stays
from tests.strategies import VENUES, Situation, histories, situations
from tests.views import differences

CHECKED = ("visits", "occupancy_minutes", "occupancy_hours", "rolling_occupancy", "occupancy_now", "crowding_alerts")

#: The rules that the settings default to.
RULES = (Rule(1000, 2 * MINUTE, 900, 5 * MINUTE), Rule(1100, MINUTE, 900, 5 * MINUTE))

#: A model of the strategies' venues, whose stays and arrival bins differ: the widest reach 17 hours back.
MODEL = fit(
    {},
    1,
    np.arange(len(VENUES)),
    [Kind(1, Dwell(12, 0.6)), Kind(4, Dwell(60, 0.5)), Kind(16, Dwell(480, 0.2))],
)
WEIGHTS = weights_of(MODEL)
OFFSET = 420
#: Of an hour, the ends of these minutes.
INSIDE = (4, 31, 59)


def estimated(shard: Shard, asked: list[tuple[int, int]]) -> list[list[int]]:
    """The sums at the ends of minutes since the epoch, of (venue code, minute) in order."""
    here = np.array([VENUES.index(venue.decode()) for venue in shard.venue_ids()], np.int64)
    arrays = {
        name: getattr(MODEL, name)[here] for name in ("category", "stretch", "odds", "stretch_spread", "odds_spread")
    }
    model: Model = replace(MODEL, **arrays)
    out = np.zeros((len(asked), 6), np.int64)
    venue, minute = np.array(asked, np.int64).reshape(-1, 2).T
    offset = np.full(len(here), OFFSET)
    sums_at(model, WEIGHTS, shard.logged_moves(), offset, venue, minute, np.arange(len(asked)), out)
    return out.tolist()  # type: ignore[no-any-return]


class Reader:
    """What a reader of the rows that one shard gave would see."""

    def __init__(self, situation: Situation, basis: str = "counted", estimates: EstimatesOf | None = None) -> None:
        self.situation, self.basis = situation, basis
        self.visits: dict[tuple[str, str, int], tuple[int, int, int]] = {}
        self.minutes: dict[tuple[str, int], tuple[int, ...]] = {}
        self.hours: dict[tuple[str, int], tuple[float, ...]] = {}
        self.now: dict[str, int] = {}
        self.alerts: dict[tuple[str, int, int], Alert] = {}
        self.book = AlertBook(self._levels, estimates)
        #: (venue, minute since the epoch) → the sums when its row, or that of its hour, was written last.
        self.sums: dict[tuple[str, int], list[int]] = {}

    def _levels(self, venue: bytes) -> Levels:
        return Levels(RULES, self.situation.registry.capacities.get(venue.decode(), NONE), self.basis)

    def take(self, shard: Shard, as_of: int) -> None:
        """`shard` was just advanced to `as_of`."""
        changes = shard.take_changes()
        venues = _texts(changes.venue_names)
        visitors = _texts(changes.visitor_names)
        for venue, visitor, start, left, ended, party, deleted in _rows(changes.visits):
            key = (venues[venue], visitors[visitor], start)
            if deleted:
                self.visits.pop(key, None)
            else:
                self.visits[key] = (left, ended, party)
        for venue, minute, *figures, deleted in _rows(changes.minutes):
            _put(self.minutes, (venues[venue], minute * 60), tuple(figures), deleted)
        for venue, hour, arrivals, departures, peak, over, area, contact, deleted in _rows(changes.hours):
            row = (arrivals, departures, area / HOUR, peak, over / MINUTE, contact / MINUTE)
            _put(self.hours, (venues[venue], hour * 3600), row, deleted)
        asked = {(row[0], row[1]) for row in _rows(changes.minutes)}
        asked |= {(row[0], row[1] * 60 + inside) for row in _rows(changes.hours) for inside in INSIDE}
        for (venue, minute), found in zip(sorted(asked), estimated(shard, sorted(asked)), strict=True):
            self.sums[venues[venue], minute] = found
        for venue, occupancy in _rows(changes.now):
            self.now[venues[venue]] = occupancy
        for change in self.book.advance(shard, changes, as_of):
            key = venues[change.venue], change.alert.level, change.alert.raised_at
            if change.deleted:
                del self.alerts[key]
            else:
                assert self.alerts.get(key) != change.alert
                self.alerts[key] = change.alert

    def views(self, shard: Shard, as_of: int) -> Views:
        capacities = self.situation.registry.capacities
        ended = {ENDED_CHECK_OUT: "check_out", ENDED_EXPIRED: "expired"}
        rolling = set()
        for width in (15, 60):
            rows = shard.rolling(as_of, width)
            venues = shard.venue_ids(rows.venue)
            for i, venue in enumerate(venues):
                dwell = None if rows.dwell_sum[i] == NONE else int(rows.dwell_sum[i]) / 120_000
                end = as_of // MINUTE * 60
                mean = int(rows.area[i]) / (width * MINUTE)
                counts = int(rows.arrivals[i]), int(rows.visitors[i]), int(rows.peak[i])
                rolling.add((venue.decode(), f"{width}m", end, *counts, mean, dwell))
        return {
            "scans": set(),
            "visits": {
                (venue, visitor, start, left, ended.get(how, "expired" if left <= as_of else "open"), party)
                for (venue, visitor, start), (left, how, party) in self.visits.items()
            },
            "occupancy_minutes": {(*key, *row) for key, row in self.minutes.items()},
            "occupancy_hours": {(*key, *row) for key, row in self.hours.items()},
            "rolling_occupancy": rolling,
            "occupancy_now": {
                (
                    venue,
                    persons,
                    capacities.get(venue),
                    persons / capacities[venue] if venue in capacities else None,
                    as_of,
                )
                for venue, persons in self.now.items()
                if persons
            },
            "crowding_alerts": {
                (alert_id(venue, level, at), venue, LEVELS[level], at, None if end == NONE else end, peak, capacity)
                for venue, (level, at, end, peak, capacity) in ((key[0], alert) for key, alert in self.alerts.items())
            },
        }


def _put(rows: dict, key: tuple, row: tuple, deleted: int) -> None:  # type: ignore[type-arg]
    if deleted:
        rows.pop(key, None)
    else:
        rows[key] = row


def _texts(names) -> list[str]:  # type: ignore[no-untyped-def]
    import numpy as np

    offsets, data = texts(names, np.arange(int(names.used[0]), dtype=np.int32))
    return [data[offsets[i] : offsets[i + 1]].tobytes().decode() for i in range(len(offsets) - 1)]


def _rows(rows) -> Iterator[tuple[int, ...]]:  # type: ignore[no-untyped-def]
    count = int(rows.used[0])
    return zip(*(column[:count].tolist() for column in rows[:-1]), strict=True)


def new_shard(situation: Situation) -> Shard:
    registry = situation.registry

    def rules(venue: bytes) -> VenueRules:
        name = venue.decode()
        return VenueRules(registry.max_stay.get(name, DEFAULT_MAX_STAY), registry.capacities.get(name, NONE))

    shard = Shard(rules)
    shard.keep_moves()
    return shard


def expected(situation: Situation) -> Views:
    registry = situation.registry
    views = expected_views(situation.scans, registry.max_stay, registry.capacities, situation.as_of)
    return views | {"scans": set()}


def assert_sums_are_right(reader: Reader, shard: Shard, as_of: int) -> None:
    """Of every row shown, and of every venue at the clock, the sums are those over the visits one by one."""
    situation = reader.situation
    there = stays(situation.scans, situation.registry.max_stay)
    models = {venue: venue_model(MODEL, i, "", OFFSET) for i, venue in enumerate(VENUES)}
    now = [(code, as_of // MINUTE - 1) for code in range(shard.venue_count)]
    names = [venue.decode() for venue in shard.venue_ids()]
    found = {(names[code], minute): sums for (code, minute), sums in zip(now, estimated(shard, now), strict=True)}
    shown = {(venue, at // 60) for venue, at in reader.minutes}
    shown |= {(venue, at // 60 + inside) for venue, at in reader.hours for inside in INSIDE}
    found |= {key: reader.sums[key] for key in shown}
    for (venue, minute), sums in found.items():
        assert sums == models[venue].sums(there.get(venue, []), minute), (venue, minute)


def latest(scans: tuple[Scan, ...]) -> int:
    return max(scan.occurred_at_ms for scan in scans)


@settings(max_examples=150)
@given(st.data())
def test_order_repetition_and_cuts_change_no_row(data: st.DataObject) -> None:
    situation = data.draw(situations())
    history = data.draw(histories(situation.scans))
    shard, reader = new_shard(situation), Reader(situation)
    seen: list[Scan] = []
    counts = [0, 0, 0]
    clock = 0
    for batch in history.batches:
        for outcome in shard.apply(columns_of(batch.scans)).tolist():
            counts[outcome] += 1
        seen += batch.scans
        if data.draw(st.booleans()):
            clock = max(clock, data.draw(st.sampled_from(sorted({s.occurred_at_ms for s in seen}))))
            shard.advance(clock)
            if data.draw(st.booleans()):
                reader.take(shard, clock)
    as_of = situation.as_of if situation.as_of is not None else latest(situation.scans)
    shard.advance(as_of)
    reader.take(shard, as_of)

    found = differences(reader.views(shard, as_of), expected(situation))
    assert not found, found
    assert_sums_are_right(reader, shard, as_of)
    identities = {(s.venue_id, s.visitor_id, s.event_type, s.occurred_at_ms) for s in situation.scans}
    assert counts[STORED] == len(identities)
    assert counts[DUPLICATE] == len(seen) - len(identities)


@settings(max_examples=150)
@given(st.data())
def test_forgetting_what_is_too_old_changes_no_row_of_what_comes_after(data: st.DataObject) -> None:
    situation = data.draw(situations(max_size=60))
    window = data.draw(st.sampled_from([2 * HOUR, 6 * HOUR, 30 * HOUR]))
    arrivals = sorted(situation.scans, key=lambda scan: scan.occurred_at_ms)
    shard, reader = new_shard(situation), Reader(situation)
    start = 0
    taken: list[Scan] = []
    while start < len(arrivals):
        end = data.draw(st.integers(start + 1, len(arrivals)))
        batch = list(data.draw(st.permutations(arrivals[start:end])))
        again = [s for s in taken if s.occurred_at_ms >= shard.horizon]
        if again:
            batch += data.draw(st.lists(st.sampled_from(again), max_size=2))
        assert ANCIENT not in shard.apply(columns_of(batch))
        taken += arrivals[start:end]
        clock = arrivals[end - 1].occurred_at_ms
        shard.advance(clock)
        reader.take(shard, clock)
        reader.book.collect(shard, horizon_of(clock, window))
        shard.collect(horizon_of(clock, window))
        start = end
    as_of = situation.as_of if situation.as_of is not None else latest(situation.scans)
    shard.advance(as_of)
    reader.take(shard, as_of)

    found = differences(reader.views(shard, as_of), expected(situation))
    assert not found, found
    assert_sums_are_right(reader, shard, as_of)
