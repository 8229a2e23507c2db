"""The crowding alerts of the venues in memory, kept in step with their occupancy.

Only venues with a capacity are looked at whose minutes that changed reach a threshold, or that have an alert, or that the clock
has brought to an instant at which something may happen by itself. Where estimates are judged, those of every venue with a
capacity are asked for, for each minute that is new or may have changed, and venues that reach a threshold are looked at too.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from pipeline.core.crowding import Alert, Estimated, Levels, Looks
from pipeline.core.levels import LEVELS
from pipeline.core.pools import I32, I64, MINUTE, NEVER, NONE
from pipeline.core.shard import BEGINNING, Changes, Shard

#: An alert is young for so long: its curve is then read from where it was raised.
_YOUNG_MINUTES: Final = 120

#: Estimates asked for at once.
_ASKED: Final = 500_000

#: The estimates of venues by their codes in the shard, at the ends of minutes since the epoch; None where no model is in use.
EstimatesOf = Callable[[I32, I32], Estimated | None]


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert of a venue (by its code in the shard) that is new or differs, or, `deleted`, that there never was."""

    venue: int
    alert: Alert
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class AlertHistory:
    """What the store says of one venue's alerts, to take the place of what the book holds.

    `stored`: as its rows are. `true`: as its visits make them up to `Shard.changes_from`; `before`: of those in force then that
    were raised before `Shard.cells_from`, the most persons from raised_at until there, by level.
    """

    stored: list[Alert]
    true: list[Alert]
    before: dict[int, int]


class AlertBook:
    """What was raised at each venue and is not yet out of reach of a late scan."""

    def __init__(self, levels: Callable[[bytes], Levels], estimates: EstimatesOf | None = None) -> None:
        """`levels` gives the rules of a venue by its id; `estimates` what is judged where it is not the count."""
        self._levels_of = levels
        self._estimates = estimates
        # So many venues had their estimates of the minute of the clock looked at.
        self._watched = 0
        self._levels: list[Levels] = []
        # Of each venue what `Levels` says, by its code.
        self._bounds: I64 = np.zeros((0, len(LEVELS), 4), np.int64)
        self._look_back: I64 = np.zeros(0, np.int64)
        self._lowest: I32 = np.zeros(0, np.int32)
        self._least: I64 = np.zeros(0, np.int64)
        self._as_of = BEGINNING
        self._alerts: dict[int, list[Alert]] = {}
        # Of alerts raised before the cells in memory: the most persons until there, by (venue, level).
        self._before: dict[tuple[int, int], int] = {}
        self._due: dict[int, int] = {}
        # Of venues with a hold under way, when it is over and raises or clears an alert.
        self._turns: dict[int, int] = {}
        self._since: dict[int, int] = {}
        self._true: dict[int, list[Alert]] = {}

    @property
    def open_alerts(self) -> list[Alert]:
        """The alerts in force."""
        return [alert for alerts in self._alerts.values() for alert in alerts if alert.cleared_at == NONE]

    @property
    def next_turn(self) -> int:
        """When (ms) the first alert is raised or cleared if everybody stays where they are; NONE if none is."""
        return min(self._turns.values(), default=NONE)

    def levels(self, shard: Shard, venue: int) -> Levels:
        """The rules of a venue, by its code."""
        self._meet(shard)
        return self._levels[venue]

    def _meet(self, shard: Shard) -> None:
        known = len(self._levels)
        if shard.venue_count > known:
            fresh = [
                self._levels_of(venue) for venue in shard.venue_ids(np.arange(known, shard.venue_count, dtype=np.int32))
            ]
            self._levels += fresh
            lowest = np.array([levels.lowest for levels in fresh], np.int32)
            self._lowest = np.concatenate([self._lowest, lowest])
            self._least = np.concatenate([self._least, [levels.least for levels in fresh]])
            self._bounds = np.concatenate([self._bounds, [levels.bounds for levels in fresh]])
            self._look_back = np.concatenate([self._look_back, [levels.look_back for levels in fresh]])

    def follows(self, shard: Shard, venue: int, levels: Levels) -> bool:
        """Whether these are the rules by which a venue's alerts are made."""
        return self.levels(shard, venue) == levels

    def set_rules(self, shard: Shard, venue: int, levels: Levels) -> None:
        """Change the rules of a venue; its history is then to be corrected (`correct`)."""
        self._meet(shard)
        self._levels[venue] = levels
        self._lowest[venue] = levels.lowest
        self._least[venue] = levels.least
        self._bounds[venue] = levels.bounds
        self._look_back[venue] = levels.look_back

    def start(self, shard: Shard, as_of: int) -> None:
        """Begin with a shard that was just loaded, and computed up to `as_of` (ms) without rows."""
        self._meet(shard)
        self._as_of = as_of
        self._due = dict.fromkeys(shard.reaching(as_of // MINUTE, self._lowest).tolist(), as_of)

    def load(self, alerts: Iterable[tuple[int, Alert]]) -> None:
        """Take alerts as stored: all of a venue that were not cleared before `Shard.changes_from`."""
        for venue, alert in alerts:
            self._alerts.setdefault(venue, []).append(alert)
            self._due[venue] = self._as_of

    def look_again(self, venue: int, since: int) -> None:
        """Compute a venue's alerts again, those decided after `since` (ms); the others are right."""
        self._since[venue] = min(since, self._since.get(venue, since))

    def correct(self, venue: int, history: AlertHistory) -> None:
        """Replace what is known of a venue up to what memory holds; differences from the rows stored come with `advance`."""
        self._alerts[venue] = history.stored
        self._true[venue] = history.true
        for key in [key for key in self._before if key[0] == venue]:
            del self._before[key]
        self._before |= {(venue, level): peak for level, peak in history.before.items()}

    def advance(self, shard: Shard, changes: Changes, as_of: int) -> list[AlertChange]:
        """The alerts that changed. `shard` was advanced to `as_of` (ms); `changes` are all that this gave."""
        self._meet(shard)
        minutes = changes.minutes
        since: dict[int, int] = {}
        if count := int(minutes.used[0]):
            venue, minute = minutes.venue[:count], minutes.minute[:count]
            reached = np.zeros(len(self._lowest), np.bool_)
            reached[venue[minutes.peak[:count] >= self._lowest[venue]]] = True
            reached[list(self._alerts)] = True
            first = np.full(len(self._lowest), self._as_of // MINUTE + 1)
            np.minimum.at(first, venue, minute)
            since = {
                code: min(int(first[code]) * MINUTE, self._as_of) for code in np.unique(venue[reached[venue]]).tolist()
            }
        if self._estimates is not None:
            for code, start in self._by_estimate(shard, self._estimates, changes.moved, as_of).items():
                since[code] = min(start, since.get(code, self._as_of))
        for code, due in self._due.items():
            if due <= as_of:
                since.setdefault(code, self._as_of)
        for code, start in self._since.items():
            since[code] = min(start, since.get(code, self._as_of))
        since |= dict.fromkeys(self._true, shard.changes_from)
        self._since.clear()
        codes = np.array(sorted(since), np.int32)
        begin = np.maximum([since[code] for code in codes.tolist()], shard.changes_from).astype(np.int64)
        look = self._look_by_count if self._estimates is None else self._look_by_estimate
        changed = []
        for code, at, (found, due, turn) in zip(
            codes.tolist(), begin.tolist(), look(shard, codes, begin, as_of), strict=True
        ):
            _set(self._due, code, due)
            _set(self._turns, code, turn)
            changed += self._note(shard, code, at, found)
        self._as_of = as_of
        return changed

    def _by_estimate(self, shard: Shard, estimates: EstimatesOf, marks: I32, as_of: int) -> dict[int, int]:
        # Venues to look at, and since when (ms). What moves in a minute is judged from the next one on; a venue that is new here
        # may have been judged crowded before.
        now, before = as_of // MINUTE, self._as_of // MINUTE
        moved = np.full(len(self._levels), NEVER, np.int64)
        moved[: len(marks)] = marks
        first = np.minimum(moved, before) + 1
        if self._as_of == BEGINNING:
            first = np.where(moved == NEVER, now, moved) + 1
        else:
            first[self._watched :] = np.minimum(first[self._watched :], before)
        first = np.maximum(first, shard.changes_from // MINUTE)
        first[self._lowest == NEVER] = now + 1
        self._watched = len(first)
        crowded = np.zeros(len(first), np.bool_)
        for codes, minutes in _asked(first, now):
            if not len(codes):
                continue
            estimated = estimates(codes, (minutes - 1).astype(np.int32))
            if estimated is None:
                return {}
            measured = self._levels[int(codes[0])].measure(estimated)
            crowded[codes[measured >= self._least[codes]]] = True
        if now > before:
            # Where there is no estimate from now on, the count is judged.
            crowded[shard.reaching(before, self._lowest)] = True
        changed = moved < NEVER
        held = np.array(sorted(self._alerts), np.int64)
        crowded[held[changed[held]]] = True
        return {
            code: min(int(moved[code]) * MINUTE, self._as_of) if changed[code] else self._as_of
            for code in np.flatnonzero(crowded).tolist()
        }

    def _base(self, venue: int) -> list[Alert]:
        # What is known of a venue's alerts, and right up to where it is looked at again.
        return self._true[venue] if venue in self._true else self._alerts.get(venue, [])

    def _look_by_count(self, shard: Shard, codes: I32, since: I64, as_of: int) -> list[tuple[list[Alert], int, int]]:
        # Of each venue the alerts in force after `since`, when to look again, and when a hold is over.
        in_force = np.full((len(codes), len(LEVELS), 2), NONE, np.int64)
        for i, (code, begin) in enumerate(zip(codes.tolist(), since.tolist(), strict=True)):
            for alert in _held(self._base(code), begin):
                before = self._before[code, alert.level] if alert.raised_at < shard.cells_from else 0
                in_force[i, alert.level] = alert.raised_at, before
        looks = Looks(codes, since, self._bounds[codes], self._look_back[codes], self._lowest[codes], in_force)
        rows, due = shard.crowded(looks, as_of)
        found: list[list[Alert]] = [[] for _ in codes]
        for i, level, raised_at, cleared_at, peak in rows.tolist():
            capacity = self._levels[codes[i]].capacity
            found[i].append(Alert(level, raised_at, cleared_at, peak, capacity))
        return list(zip(found, *due.T.tolist(), strict=True))

    def _look_by_estimate(
        self, shard: Shard, codes: I32, since: I64, as_of: int
    ) -> Iterator[tuple[list[Alert], int, int]]:
        for code, begin in zip(codes.tolist(), since.tolist(), strict=True):
            yield self._look(shard, code, begin, as_of)

    def _look(self, shard: Shard, venue: int, since: int, as_of: int) -> tuple[list[Alert], int, int]:
        assert self._estimates is not None
        levels = self._levels[venue]
        held = _held(self._base(venue), since)
        start = (since - levels.look_back) // MINUTE
        # One curve from where a young alert was raised costs less than asking for its peak until here.
        young = [alert.raised_at for alert in held if shard.cells_from <= alert.raised_at < start * MINUTE]
        start = min([start, *(at // MINUTE for at in young if at // MINUTE >= start - _YOUNG_MINUTES)])
        in_force = {alert.level: (alert.raised_at, self._most(shard, venue, alert, start)) for alert in held}
        at, persons = shard.curve(venue, start, as_of)
        at, persons, judged = levels.refined(at, persons, as_of, partial(self._ask, self._estimates, venue))
        found, turn = levels.alerts(at, persons, as_of, since, in_force, judged)
        due = turn
        lasts = any(alert.cleared_at == NONE for alert in found)
        if lasts and judged is not None:
            due = _earlier(due, (as_of // MINUTE + 1) * MINUTE)
        return found, _earlier(due, shard.next_look(venue, as_of, 0 if lasts else levels.lowest)), turn

    def _note(self, shard: Shard, venue: int, since: int, found: list[Alert]) -> list[AlertChange]:
        old = self._alerts.get(venue, [])
        new = [alert for alert in self._base(venue) if alert.cleared_at != NONE and alert.cleared_at <= since] + found
        self._true.pop(venue, None)
        if not old and not new:
            return []
        self._alerts[venue] = [a for a in new if a.cleared_at == NONE or a.cleared_at > shard.changes_from]
        if not self._alerts[venue]:
            del self._alerts[venue]
        names = {(alert.level, alert.raised_at) for alert in new}
        unchanged = set(old)
        return [AlertChange(venue, a, deleted=True) for a in old if (a.level, a.raised_at) not in names] + [
            AlertChange(venue, alert) for alert in new if alert not in unchanged
        ]

    @staticmethod
    def _ask(estimates: EstimatesOf, venue: int, minutes: I64) -> Estimated | None:
        return estimates(np.full(len(minutes), venue, np.int32), minutes.astype(np.int32))

    def _most(self, shard: Shard, venue: int, alert: Alert, until: int) -> int:
        # The most persons from when an alert was raised until the start of the minute `until`, 0 if it was raised later.
        most = 0
        first = alert.raised_at // MINUTE
        if first >= until:
            return 0
        if alert.raised_at < shard.cells_from:
            most = self._before[venue, alert.level]
            first = shard.cells_from // MINUTE
        else:
            end = (first + 1) * MINUTE - 1
            at, persons = shard.curve(venue, first, end)
            from_then_on = np.append(at[1:], end + 1) > alert.raised_at
            most = int(persons[from_then_on].max(initial=0))
            first += 1
        return max(most, shard.most_present(venue, first, until))

    def collect(self, shard: Shard, horizon: int) -> None:
        """Let go of what no scan since `horizon` (ms) can change. To be called before `Shard.collect(horizon)`."""
        changes_from, cells_from = shard.reach_of(horizon)
        alerts, before = {}, {}
        for venue, held in self._alerts.items():
            kept = [alert for alert in held if alert.cleared_at == NONE or alert.cleared_at > changes_from]
            for alert in kept:
                if alert.raised_at < cells_from:
                    before[venue, alert.level] = self._most(shard, venue, alert, cells_from // MINUTE)
            if kept:
                alerts[venue] = kept
        self._alerts, self._before = alerts, before


def _held(alerts: list[Alert], since: int) -> list[Alert]:
    # Those in force at an instant.
    return [each for each in alerts if each.raised_at <= since and (each.cleared_at == NONE or each.cleared_at > since)]


def _asked(first: I64, last: int) -> Iterator[tuple[I32, I64]]:
    # Each venue with each minute from `first` up to `last`, a piece at a time.
    counts = np.maximum(last + 1 - first, 0)
    until = np.cumsum(counts)
    begin = 0
    while begin < len(counts) and until[-1] > (until[begin] - counts[begin]):
        end = max(int(np.searchsorted(until, until[begin] - counts[begin] + _ASKED, "right")), begin + 1)
        part = counts[begin:end]
        codes = np.repeat(np.arange(begin, end, dtype=np.int32), part)
        inside = np.arange(len(codes)) - np.repeat(np.cumsum(part) - part, part)
        yield codes, first[codes] + inside
        begin = end


def _set(times: dict[int, int], venue: int, at: int) -> None:
    if at == NONE:
        times.pop(venue, None)
    else:
        times[venue] = at


def _earlier(one: int, other: int) -> int:
    return other if one == NONE else one if other == NONE else min(one, other)
