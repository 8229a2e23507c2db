"""How people mixed at one venue, window by window: the answer to `pipeline trace --mixing`. Aggregates only."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.case_reports import CaseJudge
from pipeline.core.tracing.contact import ContactWindows, contact_windows
from pipeline.core.tracing.exposure import HIGH, LOW, MIDDLE, ends_of
from pipeline.core.tracing.window import day_of
from pipeline.errors import UserError
from pipeline.store.tracing import TraceStore
from pipeline.tracing.found import Coded

_MINUTE: Final = 60_000


def venue_mixing(
    store: TraceStore, judge: CaseJudge, venue: str, day: date | None, width: int, every: int
) -> tuple[pa.Table, int]:
    """How people mixed at a venue, and how many visitors were counted for it.

    Windows of `width` minutes that begin every `every` minutes of a day of the setting `timezone`; None = the clock's.
    Those with anyone present, in order. `person_contact_minutes` counts as `occupancy_hours` does, with the whole automatic stay;
    `pairs` overlapped for at least the minimum of the policy in force, taking visits without a check-out for as long as it does;
    `pairs_low` and `pairs_high` if those lasted no time, or until the automatic end. `mixing_rate` is `pairs` over all pairs
    that `persons` could form; null for a single person. Times in UTC.

    Raises UserError for a venue without visits on that day; StoreUnavailableError.
    """
    policy = judge.default_policy
    if day is None:
        day = day_of(store.clock(), judge.midnight)
    since, end = judge.midnight(day), judge.midnight(day + timedelta(days=1))
    starts = np.arange(since, end, every * _MINUTE)
    visits = store.visits_at([(venue, since, int(starts[-1]) + width * _MINUTE)])
    if not visits.num_rows:
        raise UserError(
            f"venue {venue} has no visit on {day}: see its days with `pipeline query` in view occupancy_hours"
        )
    categories, _ = store.categories(0)
    coded = Coded(visits, categories)
    stays = coded.stays()
    ends = ends_of(stays, policy, coded.categories)

    def bound(which: int) -> ContactWindows:
        return contact_windows(replace(stays, left=ends[which]), starts, width * _MINUTE, policy.minimum_ms)

    high = bound(HIGH)

    def pairs(found: ContactWindows) -> Any:
        # A window in which only stays of unknown length began has nobody in it at the low bound.
        counted = np.zeros(len(high.start), np.int64)
        counted[np.searchsorted(high.start, found.start)] = found.pairs
        return counted

    middle = pairs(bound(MIDDLE))
    possible = high.possible_pairs
    rate = np.divide(middle, possible, out=np.zeros(len(middle)), where=possible > 0)
    table = pa.table(
        {
            "window_start": pa.array(high.start).cast(pa.timestamp("ms")),
            "window_end": pa.array(high.start + width * _MINUTE).cast(pa.timestamp("ms")),
            "persons": pa.array(high.persons),
            "person_contact_minutes": pa.array(high.contact_ms / _MINUTE),
            "pairs": pa.array(middle),
            "pairs_low": pa.array(pairs(bound(LOW))),
            "pairs_high": pa.array(high.pairs),
            "mixing_rate": pa.array(rate, mask=possible == 0),
        }
    )
    return table, pc.count_distinct(visits["visitor_id"]).as_py()
