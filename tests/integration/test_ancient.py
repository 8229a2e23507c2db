"""Scans from before what memory holds: the store is asked what they change, and nothing is done for those that change nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.isolated import run_isolated
from tests.reference import DAY, HOUR, Scan, line_of

_MONDAY = 1_632_096_000_000
_EARLY = [Scan("museum", f"p{i}", "check_in", _MONDAY + 9 * HOUR + i, 2, f"e{i}") for i in range(3)]
_LATER = [Scan("museum", f"q{i}", "check_in", _MONDAY + 2 * DAY + i) for i in range(50)]


def feed(folder: str, rounds: list[list[bytes]]) -> list[tuple[Any, ...]]:
    """In an interpreter of its own: per round the corrections asked for, then [stored, duplicates] and the visits' persons."""
    from pipeline.engine import open_engine
    from pipeline.settings import Settings

    engine = open_engine(Settings(store=Path(folder)), clock="events")
    seen: list[tuple[Any, ...]] = []
    for values in rounds:
        # As after a restart: memory reaches back no further than the late window.
        offset = engine.assign("t", [0])[0] or 0
        engine.process("t", 0, range(offset, offset + len(values)), [0] * len(values), values)
        write = engine.take(idle=False)
        assert write is not None
        engine.write(write)
        asked = write.asked
        engine.settle()
        counters = engine.counters()
        persons = engine._client.query("SELECT sum(party_size) FROM visits WHERE visitor_id LIKE 'p%'").result_rows[0][
            0
        ]
        seen.append((asked, counters["stored"], counters["duplicates"], persons))
    engine.close()
    return seen


def test_only_a_scan_that_tells_something_new_asks_for_a_correction(tmp_path: Path) -> None:
    early, later = [line_of(scan) for scan in _EARLY], [line_of(scan) for scan in _LATER]
    larger = line_of(replace(_EARLY[0], party_size=5, event_id="again"))
    smaller = line_of(replace(_EARLY[1], party_size=1, event_id="fewer"))
    unseen = line_of(replace(_EARLY[2], visitor_id="p9"))
    seen = run_isolated(feed, str(tmp_path), [early, later, early, [smaller], [larger], [unseen]])
    assert seen == [
        ([], 3, 0, 6),
        ([], 53, 0, 6),
        ([], 53, 3, 6),
        ([], 53, 4, 6),
        ([("museum", "p0")], 53, 5, 9),
        ([("museum", "p9")], 54, 5, 11),
    ]
