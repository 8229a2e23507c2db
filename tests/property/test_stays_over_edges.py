"""Changing pseudonyms loses no visit and doubles none: held against the reference, with one pseudonym for ever."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from random import Random
from threading import Event, Thread

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.privacy.master import LocalMaster
from pipeline.privacy.pseudonyms import Linker, Pseudonymiser
from pipeline.privacy.ring import OVERLAP, KeyRing
from pipeline.privacy.stays import Stays
from schemas.fields import parse_instant
from tests.reference import DAY, HOUR, MINUTE, Scan, fold

EDGE = parse_instant("2021-09-12T20:00:00Z")
LONGEST = timedelta(hours=6)
#: By venue: up to the longest that the sender knows of.
MAX_STAY = {"office": 6 * HOUR, "mall": 4 * HOUR, "kiosk": HOUR}

#: A person, a venue, in or out, and minutes after 30 h before the edge.
SCANS = st.lists(
    st.tuples(
        st.sampled_from(["+62811111111", "+62822222222"]),
        st.sampled_from(sorted(MAX_STAY)),
        st.sampled_from(["check_in", "check_out"]),
        st.integers(0, 90 * 60) | st.integers(26 * 60, 36 * 60),
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    folder.chmod(0o700)
    master = LocalMaster.create_file(folder / "master.key")
    KeyRing.create(folder, master, EDGE, timedelta(days=14), timedelta(days=14), EDGE)
    return folder


@pytest.fixture(scope="module")
def pseudonymiser(folder: Path) -> Pseudonymiser:
    return Pseudonymiser(folder, lambda: LocalMaster.from_file(folder / "master.key"))


def visits(scans: list[Scan]) -> Counter[tuple[object, ...]]:
    """Of all scans, without whose they are; the clock is past every automatic end."""
    found = fold(set(scans), MAX_STAY, EDGE + 30 * DAY)
    return Counter((each.venue_id, each.checked_in_at, each.left_at, each.ended_by) for each in found)


@given(scans=SCANS)
def test_stays_over_an_edge_are_the_visits_that_one_pseudonym_for_ever_would_have_given(
    scans: list[tuple[str, str, str, int]], pseudonymiser: Pseudonymiser
) -> None:
    stays = Stays(LONGEST)
    chains: dict[tuple[str, str], tuple[int, int]] = {}
    for_ever, by_period = [], []
    for person, venue, event_type, minute in sorted(set(scans), key=lambda each: (each[3], each[2])):
        at = EDGE - 30 * HOUR + minute * MINUTE
        first, last = chains.pop((person, venue), (at, at))
        if event_type == "check_in":
            chain = (first if timedelta(milliseconds=at - last) < LONGEST else at, at)
            assume(chain[1] - chain[0] <= DAY)  # who scans in again and again for longer is not promised to
            chains[person, venue] = chain
        began = stays.began_at((person, venue), event_type, at)  # type: ignore[arg-type]
        assert began is None or timedelta(0) <= timedelta(milliseconds=at - began) <= OVERLAP
        for_ever.append(Scan(venue, person, event_type, at))
        visitor = pseudonymiser.visitor_id("phone", person, at if began is None else began)
        by_period.append(Scan(venue, visitor, event_type, at))
    assert visits(by_period) == visits(for_ever)


def test_without_the_beginning_of_the_stay_a_visit_over_the_edge_is_still_one_and_ends_by_itself(
    pseudonymiser: Pseudonymiser,
) -> None:
    times = [("check_in", EDGE - HOUR), ("check_out", EDGE + HOUR)]
    scans = [Scan("mall", pseudonymiser.visitor_id("phone", "+62811111111", at), kind, at) for kind, at in times]
    assert visits(scans) == Counter({("mall", EDGE - HOUR, EDGE + 3 * HOUR, "expired"): 1})


def test_the_linked_pseudonyms_of_an_edge_are_the_persons_own(folder: Path, pseudonymiser: Pseudonymiser) -> None:
    linker = Linker(folder, lambda: LocalMaster.from_file(folder / "master.key"))
    people = [f"+62812{number:07}" for number in range(200)]
    before = {each: pseudonymiser.visitor_id("phone", each, EDGE - DAY) for each in people}
    after = {each: pseudonymiser.visitor_id("phone", each, EDGE + DAY) for each in people}
    for each in people:
        assert linker.link(after[each], EDGE - DAY, EDGE + DAY) == [before[each], after[each]]


def test_a_key_rotated_under_load_changes_no_pseudonym_that_was_given_before(tmp_path: Path) -> None:
    """Threads make pseudonyms while periods are cut, keys drawn and the master key renewed: one each, whenever asked."""
    tmp_path.chmod(0o700)
    master = LocalMaster.create_file(tmp_path / "master.key")
    ring = KeyRing.create(tmp_path, master, EDGE, timedelta(days=14), timedelta(days=14), EDGE)
    made = Pseudonymiser(tmp_path, lambda: LocalMaster.from_file(tmp_path / "master.key"))
    people = [f"+62812{number:07}" for number in range(20)]
    instants = [EDGE - HOUR, EDGE, EDGE + HOUR]
    expected = {(each, at): made.visitor_id("phone", each, at) for each in people for at in instants}
    stop, wrong, asked = Event(), [], Counter[str]()

    def ask(seed: int) -> None:
        random = Random(seed)
        while not stop.is_set():
            person, at = random.choice(people), random.choice(instants)
            if made.visitor_id("phone", person, at) != expected[person, at]:
                wrong.append((person, at))
            asked[str(seed)] += 1

    threads = [Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 8):
            ring.cut(master, EDGE + number * DAY, EDGE)
            ring.renew(master)
            made.refresh()
            ring.extend(master, EDGE + number * 14 * DAY)
            made.refresh()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert sum(asked.values()) > 100
    assert len({made.visitor_id("phone", people[0], EDGE + number * DAY) for number in range(8)}) == 8
