"""Crowding alerts against the reference where venues are crowded most of the time; the rows come through `Reader`."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.pools import HOUR, MINUTE, NONE
from pipeline.core.shard import horizon_of
from tests.columns import columns_of
from tests.property.test_shard import Reader, expected, latest, new_shard
from tests.reference import SECOND, Scan
from tests.strategies import SUNDAY, Registry, Situation, histories
from tests.strategies import VENUES as STRATEGY_VENUES
from tests.views import differences

VENUES = STRATEGY_VENUES[:2]


@st.composite
def crowds(draw: st.DrawFn) -> Situation:
    """Two small venues; visits of seconds to hours that begin within two hours or a day later, on half minutes or beside."""
    visits = draw(
        st.lists(
            st.tuples(
                st.sampled_from(VENUES),
                st.integers(0, 240).map(lambda half: half * 30 * SECOND),
                st.sampled_from([0, 0, 1, -1, 24 * HOUR, 26 * HOUR]),
                st.sampled_from([30 * SECOND, MINUTE, 2 * MINUTE, 5 * MINUTE, 6 * MINUTE, HOUR, None]),
                st.integers(1, 3),
            ),
            min_size=1,
            max_size=24,
        )
    )
    scans = []
    for number, (venue, begin, shift, stay, party) in enumerate(visits):
        start = SUNDAY + HOUR + begin + shift
        scans.append(Scan(venue, f"p{number}", "check_in", start, party))
        if stay is not None:
            scans.append(Scan(venue, f"p{number}", "check_out", start + stay))
    limit = draw(st.sampled_from([2 * MINUTE, 20 * MINUTE, 4 * HOUR]))
    registry = Registry({"v": limit}, {"v": draw(st.integers(1, 5)), VENUES[1]: 2})
    as_of = draw(st.none() | st.integers(0, 180).map(lambda m: max(s.occurred_at_ms for s in scans) + m * MINUTE))
    return Situation(registry, tuple(scans), as_of)


@settings(max_examples=150)
@given(st.data())
def test_alerts_are_those_of_the_set_of_scans_whatever_its_order_repetitions_and_cuts(data: st.DataObject) -> None:
    situation = data.draw(crowds())
    shard, reader = new_shard(situation), Reader(situation)
    seen: list[Scan] = []
    clock = 0
    for batch in data.draw(histories(situation.scans)).batches:
        shard.apply(columns_of(batch.scans))
        seen += batch.scans
        if data.draw(st.booleans()):
            clock = max(clock, data.draw(st.sampled_from(sorted({s.occurred_at_ms for s in seen}))))
            shard.advance(clock)
            reader.take(shard, clock)
    as_of = situation.as_of if situation.as_of is not None else latest(situation.scans)
    # Time alone raises and clears: in steps that end between the turns, on them, and long after.
    steps = data.draw(st.lists(st.sampled_from([1, 30 * SECOND, 7 * MINUTE, HOUR]), max_size=4))
    for clock in [*(min(as_of, clock + sum(steps[:i])) for i in range(1, len(steps))), as_of]:
        shard.advance(clock)
        reader.take(shard, clock)
    found = differences(reader.views(shard, as_of), expected(situation))
    assert not found, found


@settings(max_examples=80)
@given(st.data())
def test_alerts_go_on_over_what_memory_forgets(data: st.DataObject) -> None:
    situation = data.draw(crowds())
    arrivals = sorted(situation.scans, key=lambda scan: scan.occurred_at_ms)
    shard, reader = new_shard(situation), Reader(situation)
    start = 0
    while start < len(arrivals):
        end = data.draw(st.integers(start + 1, len(arrivals)))
        shard.apply(columns_of(list(data.draw(st.permutations(arrivals[start:end])))))
        clock = arrivals[end - 1].occurred_at_ms
        shard.advance(clock)
        reader.take(shard, clock)
        horizon = horizon_of(clock, data.draw(st.sampled_from([0, 2 * HOUR, 20 * HOUR])))
        if horizon > shard.horizon:
            reader.book.collect(shard, horizon)
            shard.collect(horizon)
        start = end
        while start < len(arrivals) and arrivals[start].occurred_at_ms < shard.horizon:
            start += 1
        if start > end:
            return
    as_of = situation.as_of if situation.as_of is not None else latest(situation.scans)
    shard.advance(as_of)
    reader.take(shard, as_of)
    found = differences(reader.views(shard, as_of), expected(situation))
    assert not found, found


def test_the_end_of_a_hold_is_known_before_it_comes() -> None:
    came, left = SUNDAY + HOUR, SUNDAY + HOUR + 20 * MINUTE
    scans = Scan("v", "p", "check_in", came, 2), Scan("v", "p", "check_out", left)
    situation = Situation(Registry({"v": 4 * HOUR}, {"v": 2}), scans, None)
    shard, reader = new_shard(situation), Reader(situation)

    def at(clock: int) -> tuple[int, int]:
        shard.advance(clock)
        reader.take(shard, clock)
        return reader.book.next_turn, len(reader.book.open_alerts)

    shard.apply(columns_of(list(scans)))
    assert at(came + SECOND) == (came + 2 * MINUTE, 0)
    assert at(came + 2 * MINUTE) == (NONE, 1)
    assert at(left + SECOND) == (left + 5 * MINUTE, 1)
    assert at(left + 5 * MINUTE) == (NONE, 0)
