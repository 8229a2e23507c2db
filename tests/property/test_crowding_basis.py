"""Crowding judged by estimates: the alerts are those of the set of scans, whatever its order, repetitions, cuts and restarts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alert_book import AlertBook
from pipeline.core.crowding import Estimated, Levels
from pipeline.core.levels import BASES, LEVELS
from pipeline.core.pools import HOUR, I32, MINUTE, NONE
from pipeline.core.presence.estimate import estimate, sums_at
from pipeline.core.shard import horizon_of
from tests.columns import columns_of
from tests.presence import venue_model
from tests.property.test_crowding import crowds
from tests.property.test_shard import MODEL, OFFSET, RULES, WEIGHTS, Reader, latest, new_shard
from tests.reference import SECOND, AlertRow, Scan, fold, judged_alerts, stays, winning_scans
from tests.strategies import SUNDAY, VENUES, Situation, histories

#: In minutes of this hour of the day (since the epoch, from SUNDAY on) no model holds.
WITHOUT = range((SUNDAY + 2 * HOUR) // MINUTE, (SUNDAY + 2 * HOUR) // MINUTE + 23)


class Watch(Reader):
    """A reader whose alerts go by the estimates of a model that does not hold for all minutes."""

    def __init__(self, situation: Situation, basis: str) -> None:
        super().__init__(situation, basis, self.asked)
        self.shard = new_shard(situation)

    def asked(self, venue: I32, minute: I32) -> Estimated:
        here = np.array([VENUES.index(name.decode()) for name in self.shard.venue_ids()], np.int64)
        names = ("category", "stretch", "odds", "stretch_spread", "odds_spread")
        model = replace(MODEL, **{name: getattr(MODEL, name)[here] for name in names})
        order = np.lexsort((minute, venue))
        summed = np.zeros((len(venue), 6), np.int64)
        offset = np.full(len(here), OFFSET)
        sums_at(model, WEIGHTS, self.shard.logged_moves(), offset, venue[order], minute[order], order, summed)
        found = estimate(model, summed, venue=venue.astype(np.int64))
        known = ~np.isin(minute, WITHOUT)
        return np.where(known, np.rint(10 * found.expected), NONE).astype(np.int64), found.high

    def advance(self, clock: int) -> None:
        self.shard.advance(clock)
        self.take(self.shard, clock)

    def restart(self, seen: list[Scan], clock: int) -> None:
        """All memory is lost, and loaded again from the scans and the alerts told."""
        horizon = self.shard.horizon
        self.shard = new_shard(self.situation)
        self.shard.start_at(horizon)
        self.shard.apply(columns_of(seen))
        self.shard.advance(clock, emit=False)
        self.shard.take_changes()
        self.book = AlertBook(self._levels, self.asked)
        self.book.start(self.shard, clock)
        codes = {name.decode(): code for code, name in enumerate(self.shard.venue_ids())}
        self.book.load((codes[venue], alert) for (venue, *_), alert in self.alerts.items())

    def shown(self) -> set[AlertRow]:
        return {AlertRow(*row) for row in self.views(self.shard, 0)["crowding_alerts"]}


def expected(situation: Situation, basis: str, as_of: int) -> set[AlertRow]:
    registry, found = situation.registry, set()
    there = stays(situation.scans, registry.max_stay)
    for venue, capacity in registry.capacities.items():
        visits = [v for v in fold(winning_scans(situation.scans), registry.max_stay, as_of) if v.venue_id == venue]
        model = venue_model(MODEL, VENUES.index(venue), "", OFFSET)

        def at(minute: int, venue: str = venue, model: object = model) -> tuple[float, float, float] | None:
            return None if minute in WITHOUT else model.estimate(there[venue], [minute])  # type: ignore[attr-defined, no-any-return]

        for level in LEVELS:
            if visits:
                found |= set(judged_alerts(venue, visits, capacity, level, as_of, basis, at))
    return found


@pytest.mark.long
@pytest.mark.parametrize("basis", BASES[1:])
@settings(max_examples=40)
@given(data=st.data())
def test_alerts_by_estimates_are_those_of_the_set_of_scans(basis: str, data: st.DataObject) -> None:
    situation = data.draw(crowds())
    watch = Watch(situation, basis)
    seen: list[Scan] = []
    clock = min((scan.occurred_at_ms for scan in situation.scans), default=0)
    for batch in data.draw(histories(situation.scans)).batches:
        watch.shard.apply(columns_of(batch.scans))
        seen += batch.scans
        if data.draw(st.booleans()):
            clock = max(clock, data.draw(st.sampled_from(sorted({s.occurred_at_ms for s in seen}))))
            watch.advance(clock)
            if data.draw(st.booleans()):
                watch.restart(seen, clock)
    as_of = situation.as_of if situation.as_of is not None else latest(situation.scans)
    # Time alone raises and clears: in steps that end between the turns, on them, and long after.
    steps = data.draw(st.lists(st.sampled_from([1, 30 * SECOND, 7 * MINUTE, HOUR]), max_size=4))
    for clock in [*(min(as_of, clock + sum(steps[:i])) for i in range(1, len(steps))), as_of]:
        watch.advance(clock)
    assert watch.shown() == expected(situation, basis, as_of)


@pytest.mark.long
@pytest.mark.parametrize("basis", BASES[1:])
@settings(max_examples=25)
@given(data=st.data())
def test_alerts_by_estimates_go_on_over_what_memory_forgets(basis: str, data: st.DataObject) -> None:
    situation = data.draw(crowds())
    arrivals = sorted(situation.scans, key=lambda scan: scan.occurred_at_ms)
    watch = Watch(situation, basis)
    start = 0
    while start < len(arrivals):
        end = data.draw(st.integers(start + 1, len(arrivals)))
        watch.shard.apply(columns_of(list(data.draw(st.permutations(arrivals[start:end])))))
        clock = arrivals[end - 1].occurred_at_ms
        watch.advance(clock)
        horizon = horizon_of(clock, data.draw(st.sampled_from([0, 2 * HOUR, 20 * HOUR])))
        if horizon > watch.shard.horizon:
            watch.book.collect(watch.shard, horizon)
            watch.shard.collect(horizon)
        start = end
        while start < len(arrivals) and arrivals[start].occurred_at_ms < watch.shard.horizon:
            start += 1
        if start > end:
            return
    as_of = situation.as_of if situation.as_of is not None else latest(situation.scans)
    watch.advance(as_of)
    assert watch.shown() == expected(situation, basis, as_of)


def test_where_a_minute_has_no_estimate_the_count_is_judged() -> None:
    levels = Levels(RULES, 2, "high")
    at, persons = np.array([0, 90 * SECOND]), np.array([0, 3])

    def ask(minutes: np.ndarray) -> Estimated:  # type: ignore[type-arg]
        return np.where(minutes % 2 == 0, NONE, 0), np.zeros(len(minutes), np.int64)

    cut, present, judged = levels.refined(at, persons, 4 * MINUTE, ask)
    assert judged is not None
    assert cut.tolist() == [0, MINUTE, 90 * SECOND, 2 * MINUTE, 3 * MINUTE, 4 * MINUTE]
    assert present.tolist() == [0, 0, 3, 3, 3, 3]
    # Minutes 1 and 3 follow minutes without an estimate: three persons are counted, of two that may be there.
    assert judged.tolist() == [[-1, -1, 1, -1, 1, -1]] * 2
    assert levels.refined(at, persons, 4 * MINUTE, lambda _: None)[2] is None
