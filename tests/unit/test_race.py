"""The race's referee sees what is wrong, and what the peers in Python share does the job."""

import random
import re
from pathlib import Path

import pytest

from benchmarks.race.chart import Bar, bars
from benchmarks.race.checker import Reference, Rows, Score, complaint, reference_of, score
from benchmarks.race.contestants import PEERS
from benchmarks.race.job import MAX_STAY, MINUTE, changes, fold, put
from benchmarks.race.result_topics import minute_row, visit_row
from benchmarks.report import ROOT
from tests.faults.recount import Scan, winners
from tests.faults.recount import fold as recounted

HOUR = 60 * MINUTE
AS_OF = 10 * HOUR
VISITS = [
    ("v-1", "p-1", HOUR, 2 * HOUR, "check_out", 2),
    ("v-1", "p-2", HOUR, 5 * HOUR, "open", 1),
    ("v-2", "p-1", 9 * HOUR, 13 * HOUR, "open", 3),
]
MINUTES = [("v-1", 60, 3, 0), ("v-1", 120, 0, 2), ("v-1", 300, 0, 1), ("v-2", 540, 3, 0), ("v-2", 780, 0, 3)]


def test_only_the_right_rows_are_right() -> None:
    right = Rows.of(VISITS, MINUTES, AS_OF)
    assert score(Rows.of(reversed(VISITS), reversed(MINUTES), AS_OF), right).visits == 1.0
    wrong_end = [("v-1", "p-1", HOUR, 2 * HOUR + 1, "check_out", 2), *VISITS[1:]]
    assert score(Rows.of(wrong_end, MINUTES, AS_OF), right).visits == pytest.approx(2 / 4)
    assert score(Rows.of(VISITS[:2], MINUTES, AS_OF), right).visits == pytest.approx(2 / 3)
    one_more = [("v-3", "p-1", HOUR, 2 * HOUR, "check_out", 2), *VISITS]
    assert score(Rows.of(one_more, MINUTES, AS_OF), right).visits == pytest.approx(3 / 4)
    # One arrival too many is wrong there, and in who is present in every later minute of the venue.
    miscounted = [("v-1", 60, 4, 0), *MINUTES[1:]]
    assert score(Rows.of(VISITS, miscounted, AS_OF), right).minutes == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    ("taken", "refused", "found"),
    [(9, 1, Score(1, 1)), (10, 2, Score(1, 1)), (10, 1, Score(0.999999, 1)), (10, 1, Score(1, 0.999999))],
)
def test_whoever_misses_anything_fails(taken: int, refused: int, found: Score) -> None:
    reference = Reference(Rows(set(), set()), AS_OF, refused=1)
    assert complaint(10, 10, 1, reference, Score(1, 1)) == ""
    assert complaint(taken, 10, refused, reference, found)


def test_an_end_by_itself_is_judged_by_the_clock_and_the_future_is_left_out() -> None:
    rows = Rows.of(VISITS, MINUTES, AS_OF)
    assert {row[4] for row in rows.visits if row[1] == "p-2"} == {"expired"}
    assert {row[4] for row in rows.visits if row[0] == "v-2"} == {"open"}
    assert rows.minutes == {("v-1", 60, 3, 0, 3), ("v-1", 120, 0, 2, 1), ("v-1", 300, 0, 1, 0), ("v-2", 540, 3, 0, 3)}


def test_the_reference_judges_pairs_and_counts_lines(tmp_path: Path) -> None:
    line = '{{"event_id":"e","event_type":"{}","venue_id":"v","visitor_id":"p","occurred_at":"2021-09-19T{}:00Z"}}'
    lines = [
        line.format("check_out", "10:30"),
        line.format("check_in", "10:00"),
        "no scan",
        line.format("check_in", "11:00"),
    ]
    file = tmp_path / "day.ndjson"
    file.write_text("\n".join([*lines, lines[0], ""]))
    reference = reference_of(file)
    assert reference.refused == 1
    assert [row[4] for row in sorted(reference.rows.visits)] == ["check_out", "open"]
    # The minute in which the clock stands, that of the last check-in, is left out.
    assert sorted(row[2:] for row in reference.rows.minutes) == [(0, 1, 0), (1, 0, 1)]


def scans_of_one_pair(rng: random.Random) -> list[tuple[int, int, int]]:
    """Some scans near each other and some a day apart, with duplicates of another party among them."""
    instants = [rng.choice([0, MAX_STAY, 24 * HOUR, rng.randrange(26 * HOUR)]) for _ in range(rng.randrange(1, 7))]
    return [(at, rng.randrange(2), rng.randrange(1, 4)) for at in instants for _ in range(rng.choice([1, 1, 2]))]


@pytest.mark.parametrize("seed", range(200))
def test_the_peers_get_the_recount_s_visits_and_minutes_in_any_order(seed: int) -> None:
    rng = random.Random(seed)
    scans = scans_of_one_pair(rng)
    held: list[list[int]] = []
    written: dict[int, tuple[int, str, int]] = {}
    minutes: dict[int, list[int]] = {}
    for at, kind, persons in scans:
        before = fold(held)
        put(held, at, kind, persons)
        visits, gone, moves = changes(before, fold(held))
        written.update({start: (left, ended, party) for start, left, ended, party in visits})
        for start in gone:
            del written[start]
        for minute, came, went in moves:
            counts = minutes.setdefault(minute, [0, 0])
            counts[0] += came
            counts[1] += went
    kinds = ("check_in", "check_out")
    plain = winners(Scan("v", "p", kinds[kind], at, persons, "e", "app") for at, kind, persons in scans)
    expected = recounted(plain, {}, MAX_STAY, as_of=0)
    assert written == {visit.start: (visit.left, visit.ended, visit.party) for visit in expected}
    assert {minute: counts for minute, counts in minutes.items() if any(counts)} == counted(expected)


def counted(visits: list) -> dict[int, list[int]]:
    """Persons that came and left, by minute."""
    counts: dict[int, list[int]] = {}
    for visit in visits:
        counts.setdefault(visit.start // MINUTE, [0, 0])[0] += visit.party
        counts.setdefault(visit.left // MINUTE, [0, 0])[1] += visit.party
    return counts


def test_rows_in_topics_are_read_back() -> None:
    assert visit_row("v-1|p-1|60000", "120000|check_out|2") == ("v-1", "p-1", 60_000, 120_000, "check_out", 2)
    assert minute_row("v-1|1", "2|0") == ("v-1", 1, 2, 0)


def test_the_longest_bar_is_the_largest_figure() -> None:
    picture = bars([Bar("ours", True, 200.0, 1.0, 10.0), Bar("<another>", False, 100.0, 2.0, 20.0)])
    lengths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', picture)]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=0.1)
    assert lengths[3] == pytest.approx(2 * lengths[2], abs=0.1)
    assert "&lt;another&gt;" in picture


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_is_there_with_packages_of_its_own_that_are_all_hashed(peer) -> None:
    if not peer.layout:
        return
    assert (ROOT / (peer.module.replace(".", "/") + ".py")).is_file()
    if peer.layout == "peer":
        text = peer.lock.read_text()
        assert "://" not in text
        assert all("--hash=sha256:" in package for package in re.split(r"\n(?=[\w-]+(?:\[\w+\])?==)", text)[1:])
