"""Visits as the columns that tracing takes, and what it answers as the reference's rows."""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

import numpy as np

from pipeline.core.pools import ENDED_CHECK_OUT, ENDED_EXPIRED, ENDED_OPEN
from pipeline.core.tracing.exposure import Stays, exposures
from pipeline.core.tracing.policy import Policy
from pipeline.core.tracing.window import Report, infectious_window, midnights
from tests.reference_tracing import Case, Exposure, Visit

CATEGORIES = ("restaurant", "mall", "office", "minimarket", "unknown")
_ENDED = {"check_out": ENDED_CHECK_OUT, "expired": ENDED_EXPIRED, "open": ENDED_OPEN}


def stays_of(visits: Sequence[Visit], names: Sequence[Visit]) -> Stays:
    """Visits as columns; pseudonyms and venues are numbered as they come in `names`."""
    visitors = {name: code for code, name in enumerate(dict.fromkeys(visit.visitor for visit in names))}
    venues = {name: code for code, name in enumerate(dict.fromkeys(visit.venue for visit in names))}
    return Stays(
        np.array([visitors[visit.visitor] for visit in visits], np.int32),
        np.array([venues[visit.venue] for visit in visits], np.int32),
        np.array([CATEGORIES.index(visit.category) for visit in visits], np.int16),
        np.array([visit.start for visit in visits], np.int64),
        np.array([visit.left for visit in visits], np.int64),
        np.array([_ENDED[visit.ended_by] for visit in visits], np.uint8),
        np.array([visit.party for visit in visits], np.uint8),
    )


def report_of(case: Case) -> Report:
    """The same words for the pipeline."""
    return Report(case.reported_at, case.onset, case.specimen, case.infectious_from, case.infectious_until)


def exposed(case: Case, visitor: str, visits: Sequence[Visit], policy: Policy, zone: ZoneInfo) -> list[Exposure]:
    """What the pipeline says, as the reference says it."""
    midnight = midnights(zone)
    window = infectious_window(report_of(case), policy, midnight)
    own = [visit for visit in visits if visit.visitor == visitor]
    found = exposures(stays_of(own, visits), stays_of(visits, visits), window, policy, CATEGORIES, midnight)
    name = policy.tier_names
    return sorted(
        Exposure(
            own[found.case_visit[i]],
            visits[found.other_visit[i]],
            int(found.overlap_from[i]),
            int(found.overlap_until[i]),
            int(found.low_ms[i]),
            int(found.middle_ms[i]),
            int(found.high_ms[i]),
            int(found.cumulative_ms[i]),
            name[found.tier[i]],
            name[found.tier_low[i]],
            name[found.tier_high[i]],
            bool(found.exact[i]),
        )
        for i in range(len(found))
    )
