"""Case reports that a set of scans of `tests.strategies` may have: new ones, updates, withdrawals."""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from tests.reference import DAY, HOUR
from tests.strategies import SUNDAY, VISITORS

CASES = ("c1", "c2", "c:3")
POLICIES = ("who", "us-cdc", "ecdc", "id-kmk-4641", "cwa", "nhs", "nz", "crowdnotifier", "clea")


def _instant(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat()


@st.composite
def reports(draw: st.DrawFn) -> bytes:
    """One report; some are refused (an onset after the report, a policy that nobody knows, no JSON)."""
    if draw(st.integers(0, 20)) == 0:
        return draw(st.sampled_from([b"{", b"{}", b"\xff"]))
    reported_at = SUNDAY + draw(st.sampled_from([0, HOUR, DAY, 2 * DAY]))
    record: dict[str, Any] = {
        "case_id": draw(st.sampled_from(CASES)),
        "visitor_id": draw(st.sampled_from(VISITORS)),
        "status": draw(st.sampled_from(["suspected", "confirmed", "confirmed", "withdrawn"])),
        "reported_at": _instant(reported_at),
        "policy": draw(st.sampled_from([*POLICIES, *POLICIES, "none-such"])),
    }
    for name in ("onset_date", "specimen_date"):
        if draw(st.booleans()):
            record[name] = _day(SUNDAY + draw(st.sampled_from([-10, -3, -1, 0, 0, 2])) * DAY)
    if draw(st.booleans()):
        record["infectious_from"] = _instant(SUNDAY + draw(st.sampled_from([-11 * DAY, -DAY, 10 * HOUR])))
    if draw(st.integers(0, 3)) == 0:
        record["infectious_until"] = _instant(SUNDAY + draw(st.sampled_from([-11 * DAY, 11 * HOUR, 2 * DAY])))
    if draw(st.booleans()):
        del record["policy"]
    return json.dumps(record).encode()


def report_sets() -> st.SearchStrategy[list[bytes]]:
    """One to six reports about few cases, in the order in which they come."""
    return st.lists(reports(), min_size=1, max_size=6)
