"""The registry as several workers see it that read its topic side by side, each from the beginning when it starts.

On the simulated store, which `tests/simulation/test_store.py` holds to the real one.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.settings import Settings
from pipeline.store.registry import LogPosition, Registry
from tests.simulation.store import Client, Store

_POSITIONS = st.builds(LogPosition, st.integers(-1, 2), st.integers(0, 4), st.integers(0, 4))


def _venue(category: str) -> bytes:
    return json.dumps({"venue_id": "v", "name": "V", "category": category}).encode()


class _Workers:
    """Workers on one store; the topic has a record at each offset."""

    def __init__(self, folder: Path) -> None:
        self.store = Store()
        self._settings = Settings(store=folder)

    def start(self) -> Registry:
        return Registry(Client(self.store), self._settings)  # type: ignore[arg-type]

    def start_anew(self) -> Registry:
        """A worker that has read what the store holds."""
        started = self.start()
        started.refresh()
        return started

    @staticmethod
    def read(worker: Registry, offset: int, value: bytes | None, timestamp_ms: int = 0) -> None:
        assert worker.load([value], [b"v"], [LogPosition(0, offset, timestamp_ms)]) == []

    @property
    def category(self) -> str | None:
        """What every reader of the store sees."""
        self.store.merge()
        return next((row["category"] for row in self.store.final("registry_rows")), None)


@pytest.fixture
def workers(tmp_path: Path) -> _Workers:
    return _Workers(tmp_path)


def test_who_reads_the_topic_from_its_beginning_takes_nothing_older_for_news(workers: _Workers) -> None:
    first, second = workers.start(), workers.start()
    workers.read(first, 3, _venue("shop"))
    workers.read(first, 7, _venue("mall"))
    workers.read(second, 3, _venue("shop"))
    assert workers.category == "mall"
    assert second.place("v") == ("mall", None)


def test_a_venue_that_was_deleted_stays_so(workers: _Workers) -> None:
    first, second = workers.start(), workers.start()
    workers.read(first, 7, None)  # it has not read what came before: a compacted topic may not have it any more
    workers.read(second, 3, _venue("shop"))
    assert workers.category is None
    workers.read(second, 8, _venue("mall"))
    assert workers.category == "mall"


def test_an_older_record_that_comes_in_late_is_set_right_by_whoever_sees_it(workers: _Workers) -> None:
    first, paused = workers.start(), workers.start()
    paused.refresh()
    workers.read(first, 7, _venue("mall"))
    # It stood still between its look and its insert, and the versions that it gives reach further.
    paused.version = 40
    paused._insert({"v": (("v", "V", "shop", *[None] * 7), LogPosition(0, 3, 0))})
    assert workers.category == "shop"
    first.refresh()
    assert workers.category == "mall"
    assert first.place("v") == workers.start_anew().place("v") == ("mall", None)


@pytest.mark.parametrize("newer_first", [True, False])
def test_of_two_records_stored_at_the_same_instant_the_newer_one_holds(workers: _Workers, *, newer_first: bool) -> None:
    first, second = workers.start(), workers.start()
    rows = [(7, "mall"), (3, "shop")]
    for offset, category in rows if newer_first else reversed(rows):
        second.version = 0
        second._insert({"v": (("v", "V", category, *[None] * 7), LogPosition(0, offset, 0))})
    first.refresh()
    assert workers.category == "mall"
    assert first.place("v") == ("mall", None)


def test_a_record_sent_again_keeps_what_stood_between_from_coming_back(workers: _Workers) -> None:
    first, second = workers.start(), workers.start()
    workers.read(first, 3, _venue("mall"))
    first.load([_venue("shop"), _venue("mall")], [b"v"] * 2, [LogPosition(0, 5, 0), LogPosition(0, 7, 0)])
    workers.read(second, 5, _venue("shop"))
    assert workers.category == "mall"


def test_a_topic_made_anew_counts_from_its_first_record(workers: _Workers) -> None:
    first = workers.start()
    workers.read(first, 7, _venue("mall"), timestamp_ms=1_000)
    workers.read(first, 0, _venue("shop"), timestamp_ms=2_000)
    assert workers.category == "shop"


def test_a_record_from_a_file_holds_until_the_next(workers: _Workers) -> None:
    first = workers.start()
    workers.read(first, 7, _venue("mall"))
    first.load([_venue("shop")], [b"v"])
    assert workers.category == "shop"
    workers.read(first, 8, _venue("mall"))
    assert workers.category == "mall"


@given(_POSITIONS, _POSITIONS, _POSITIONS)
def test_no_record_is_before_itself_by_any_way_round(one: LogPosition, two: LogPosition, three: LogPosition) -> None:
    assert not (one.is_before(two) and two.is_before(one))
    assert not (one.is_before(two) and two.is_before(three) and three.is_before(one))
