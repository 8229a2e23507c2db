"""Sets of scans, and ways for them to arrive, in which everything that can go wrong happens often.

A set is drawn as a list of steps, most of which refer to an earlier one: a rescan, a scan exactly at the limit of a
visit and a millisecond to either side, the other event in the same millisecond, the same identity with another party.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hypothesis import strategies as st

from tests.reference import DAY, DEFAULT_MAX_STAY, HARD_LIMIT, HOUR, MINUTE, SECOND, Scan

#: A Sunday. Scans fall from ten days before it to two days after it, less than the default retention apart.
SUNDAY = int(datetime(2021, 9, 19, tzinfo=UTC).timestamp()) * SECOND
DAYS_BACK = 10
END = SUNDAY + 2 * DAY

VENUES = ("v", "mall:1.A", "V" * 64)
VISITORS = ("p", "Q-7", "p" * 64)

_LONE_SHIFTS = st.sampled_from([0, 0, 0, 1, -1, SECOND, 7 * MINUTE + 123, MINUTE - 1, MINUTE])
_NEAR = st.sampled_from([0, 0, 1, -1])


@dataclass(frozen=True)
class Registry:
    """The venues that differ from the defaults: `max_stay` in milliseconds, `capacities` in persons."""

    max_stay: dict[str, int]
    capacities: dict[str, int]


@dataclass(frozen=True)
class Batch:
    """Scans of one partition, taken together; `restarted`: all memory was lost just before."""

    partition: int
    scans: tuple[Scan, ...]
    restarted: bool = False


@dataclass(frozen=True)
class History:
    """One way for a set of scans to arrive: every scan at least once, each venue always in the same partition."""

    partitions: int
    batches: tuple[Batch, ...]


@dataclass(frozen=True)
class _Fresh:
    scan: Scan


@dataclass(frozen=True)
class _Echo:
    """A scan told by an earlier one: `of` counts back from the newest, `after` is a duration or "limit"."""

    of: int
    after: int | str
    shift: int
    event_type: str | None
    party_size: int
    event_id: str
    source: str


def registries() -> st.SearchStrategy[Registry]:
    """Limits at both ends of what the settings allow and at the default, and capacities that are reached."""
    limits = st.sampled_from([MINUTE, 45 * MINUTE, DEFAULT_MAX_STAY, HARD_LIMIT])
    return st.builds(
        Registry,
        max_stay=st.dictionaries(st.sampled_from(VENUES), limits),
        capacities=st.dictionaries(st.sampled_from(VENUES), st.integers(1, 4)),
    )


def _instants() -> st.SearchStrategy[int]:
    days = st.sampled_from([0, 0, 0, 0, -1, -2, -DAYS_BACK])
    quarters = st.sampled_from([0, 1, 2, 3, 4, 40, 41, 44, 56, 92, 95])
    return st.builds(
        lambda day, quarter, shift: SUNDAY + day * DAY + quarter * 15 * MINUTE + shift, days, quarters, _LONE_SHIFTS
    )


_parties = st.sampled_from([1, 1, 1, 2, 3, 50])
_event_ids = st.sampled_from(["e", "e", "E", "e1", "01:9.z"])
_sources = st.sampled_from(["app", "app", "gate", "Gate"])
_event_types = st.sampled_from(["check_in", "check_out"])


def _fresh() -> st.SearchStrategy[_Fresh]:
    scans = st.builds(
        Scan,
        venue_id=st.sampled_from(VENUES),
        visitor_id=st.sampled_from(VISITORS),
        event_type=st.sampled_from(["check_in", "check_in", "check_out"]),
        occurred_at_ms=_instants(),
        party_size=_parties,
        event_id=_event_ids,
        source=_sources,
    )
    return st.builds(_Fresh, scans)


def _echoes() -> st.SearchStrategy[_Echo]:
    durations = st.sampled_from([0, 1, MINUTE, 15 * MINUTE, HOUR])
    boundaries = st.sampled_from(["limit", "limit", HARD_LIMIT, HARD_LIMIT])
    of, details = st.integers(0, 3), {"party_size": _parties, "event_id": _event_ids, "source": _sources}
    duplicate = st.builds(_Echo, of=of, after=st.just(0), shift=st.just(0), event_type=st.none(), **details)
    nearby = st.builds(_Echo, of=of, after=durations, shift=_LONE_SHIFTS, event_type=_event_types, **details)
    boundary = st.builds(_Echo, of=of, after=boundaries, shift=_NEAR, event_type=_event_types, **details)
    return st.one_of(duplicate, nearby, nearby, boundary, boundary)


def scan_sets(registry: Registry, max_size: int = 40) -> st.SearchStrategy[list[Scan]]:
    """Valid scans of few venues and visitors, at least one; `registry` tells where the visits' limits are."""
    step = st.one_of(_fresh(), _echoes(), _echoes())
    # Lists are short unless a minimum is asked for, and a failure found in a long one shrinks into the short ones.
    sizes = [st.lists(step, min_size=max(1, least), max_size=max_size) for least in (1, max_size // 5, max_size // 2)]
    return st.one_of(sizes).map(lambda steps: _follow(steps, registry))


def _follow(steps: Sequence[_Fresh | _Echo], registry: Registry) -> list[Scan]:
    scans = [Scan(VENUES[0], VISITORS[0], "check_in", SUNDAY)]
    for step in steps:
        if isinstance(step, _Fresh):
            scans.append(step.scan)
            continue
        earlier = scans[-1 - step.of % len(scans)]
        limit = registry.max_stay.get(earlier.venue_id, DEFAULT_MAX_STAY)
        after = step.shift + (limit if step.after == "limit" else int(step.after))
        forward = earlier.occurred_at_ms + after
        scans.append(
            replace(
                earlier,
                event_type=step.event_type or earlier.event_type,
                occurred_at_ms=forward if forward < END else earlier.occurred_at_ms - after,
                party_size=step.party_size,
                event_id=step.event_id,
                source=step.source,
            )
        )
    return scans[1:]


def clocks(scans: Sequence[Scan], registry: Registry) -> st.SearchStrategy[int]:
    """`as_of` for a set that has arrived: never before its latest scan, often exactly where a visit expires."""
    latest = max(scan.occurred_at_ms for scan in scans)
    ends = {s.occurred_at_ms + registry.max_stay.get(s.venue_id, DEFAULT_MAX_STAY) for s in scans}
    edges = [latest, latest // MINUTE * MINUTE + MINUTE, *sorted(end for end in ends if end > latest)]
    return st.builds(lambda edge, shift: max(latest, edge + shift), st.sampled_from(edges), _NEAR | st.just(7 * SECOND))


@st.composite
def histories(draw: st.DrawFn, scans: Sequence[Scan]) -> History:
    """A way for `scans` to arrive: shuffled or in order with some very late, repeated, cut, restarted, partitioned.

    After a restart some scans before it come again, as they do from the last committed offset, and are cut differently.
    """
    in_time = sorted(scans, key=lambda scan: scan.occurred_at_ms)
    if draw(st.booleans()):
        arrivals = draw(st.permutations(in_time))
    else:
        late = draw(st.sets(st.integers(0, len(in_time) - 1), max_size=4))
        arrivals = [s for i, s in enumerate(in_time) if i not in late] + [in_time[i] for i in late]
    for again in draw(st.lists(st.sampled_from(in_time), max_size=5)):
        arrivals.insert(draw(st.integers(0, len(arrivals))), again)

    partitions = draw(st.integers(1, 4))
    partition_of = {venue: draw(st.integers(0, partitions - 1)) for venue in sorted({s.venue_id for s in scans})}
    starts = sorted({0, *draw(st.sets(st.integers(0, len(arrivals) - 1), max_size=12))})
    batches = []
    for start, end in zip(starts, [*starts[1:], len(arrivals)], strict=True):
        restarted = start > 0 and draw(st.booleans())
        rewound = max(0, start - draw(st.integers(0, 5))) if restarted else start
        for partition in range(partitions):
            part = tuple(scan for scan in arrivals[rewound:end] if partition_of[scan.venue_id] == partition)
            if part:
                batches.append(Batch(partition, part, restarted))
                restarted = False
    return History(partitions, tuple(batches))


@dataclass(frozen=True)
class Situation:
    """Everything that decides what the views show; `as_of` None is the `events` clock."""

    registry: Registry
    scans: tuple[Scan, ...]
    as_of: int | None


@st.composite
def situations(draw: st.DrawFn, max_size: int = 40) -> Situation:
    """A registry, a set of scans and a clock that belong together."""
    registry = draw(registries())
    scans = draw(scan_sets(registry, max_size=max_size))
    as_of = draw(st.none() | clocks(scans, registry))
    return Situation(registry, tuple(scans), as_of)
