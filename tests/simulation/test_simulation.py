"""Whatever happens to simulated workers, log and store: nothing is lost, nothing is there twice, and no promise is broken."""

from itertools import product

import pytest

from tests.reference import DAY, HOUR
from tests.simulation.bugs import BUGS, plant
from tests.simulation.run import failures, told
from tests.simulation.world import LONG_STAY, STAY, Action, Fault, World, failure, simulated

#: So many histories with the bug in it, at most, until it is caught.
PATIENCE = 1_000
#: Those that are caught soon.
QUICK = ("commit before insert", "skip after rebalance", "lost late scan", "rules unheard of")


def test_no_history_breaks_a_promise() -> None:
    found = next(failures(range(200)), None)
    assert found is None, told(*found)


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_can_be_planted(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Most are tried only by `make faults`; what they replace is renamed by anybody.
    plant(bug, monkeypatch)


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    if bug not in QUICK and not pytestconfig.getoption("--faults"):
        pytest.skip("runs only with --faults")
    plant(bug, monkeypatch)
    assert any(map(failure, range(PATIENCE)))


#: One worker has read scans of nights that retention is about to drop, and stored none of them.
OLD_SCANS_READ = (
    Action("join"),
    Action("overnight", 0, None, ("b", "p")),
    Action("overnight", 0, None, ("a", "q")),
    Action("tick", 0, None, (3 * DAY,)),
    Action("poll", 0, None, (100,)),
)


def played(actions: list[Action], partitions: int = 2, stay: int = STAY) -> World:
    """A history that was found to break a promise, played again."""
    world = World(partitions=partitions, stay=stay)
    with simulated(world, 0):
        world.play(actions)
    return world


def test_a_partition_that_is_behind_gets_all_its_minutes_from_its_next_owner() -> None:
    played(
        [
            Action("join"),
            Action("join"),
            Action("scan", 0, None, ("c", "q", "check_in", 10_800_000, 2, "e")),
            Action("settle", 1),
            Action("poll", 0, None, (100,)),
        ]
    )


def test_a_clock_without_any_scan_survives_a_rebalance() -> None:
    played(
        [
            Action("join"),
            Action("settle"),
            Action("rebalance", 0, None, (16, (None,))),
            Action("scan", 0, None, ("c", "q", "check_in", 10_800_000, 2, "f")),
            Action("poll", 0, None, (1,)),
            Action("write", 0, None, (False,)),
        ]
    )


def test_rules_that_the_owner_had_not_heard_of_hold_after_it_went() -> None:
    played(
        [
            *[Action("join")] * 3,
            Action("venue", 0, None, ("d", 1, True, False)),
            Action("venues", 0),
            Action("scan", 0, None, ("d", "q", "check_in", 10_000, 1, "f")),
            *(Action("poll", who, None, (3,)) for who in range(3)),
        ],
        partitions=3,
    )


def test_scans_that_come_late_and_twice_inherited_have_their_visits() -> None:
    # The worker of partition 1 stands still before its scans go out; its heir takes their visits back, writes, and goes.
    actions = [
        *[Action("join")] * 2,
        Action("scan", 0, None, ("b", "s", "check_in", 10_000, 2, "e")),
        *(Action("poll", who, None, (100,)) for who in range(2)),
        *(Action("write", who, Fault("stop", step, after=False), (True,)) for who in range(2) for step in [14]),
        *[Action("rebalance", 0, None, (order, (None,))) for order in (1, 2)],
        *(Action("resume", who) for who in range(2)),
    ]
    for step in range(1, 20):
        played([each._replace(fault=Fault("stop", step, after=False)) if each.fault else each for each in actions])


def test_windows_that_an_heir_shows_again_count_every_minute() -> None:
    # The heir of a broken write has rows shown again that say when a minute begins, not that anybody came.
    played(
        [
            Action("join"),
            Action("scan", 0, None, ("a", "q", "check_out", 1, 1, "e")),
            Action("scan", 0, None, ("c", "q", "check_in", 3_000_000, 2, "e")),
            Action("poll", 1, None, (100,)),
            Action("write", 2, Fault("crash", 9, after=True), (True,)),
            Action("join"),
            Action("scan", 0, None, ("a", "q", "check_in", 10_800_001, 1, "e")),
            Action("poll", 0, None, (100,)),
        ]
    )


def test_rows_that_come_in_after_their_heir_has_gone_too_are_undone() -> None:
    # An alert that was sent, and came in when the heir that would have looked for it had lost the partition again.
    def scan(venue: str, visitor: str, event_type: str, age: int, party: int, event_id: str) -> Action:
        return Action("scan", 0, None, (venue, visitor, event_type, age, party, event_id))

    played(
        [
            Action("join"),
            scan("c", "q", "check_out", 10_000, 2, "f"),
            scan("a", "q", "check_in", 600_001, 2, "e"),
            Action("poll", 1, None, (1,)),
            Action("join", 2),
            Action("again", 0, None, (6, 1)),
            scan("c", "p", "check_in", 0, 1, "e"),
            scan("c", "q", "check_in", -3_600_000, 2, "e"),
            scan("a", "p", "check_in", 10_000, 2, "f"),
            scan("c", "q", "check_in", 176_400_000, 2, "e"),
            Action("again", 0, None, (5, 3)),
            scan("a", "p", "check_in", 601_000, 1, "f"),
            Action("poll", 2, None, (100,)),
            Action("venue", 0, None, ("a", 4, True, False)),
            Action("venues", 2, Fault("error", 5, after=True)),
            Action("write", 0, Fault("stop", 14, after=False), (False,)),
            Action("rebalance", 0, None, (564, (None,))),
            scan("a", "p", "check_out", 600_000, 1, "f"),
            Action("poll", 1, None, (100,)),
        ],
        partitions=1,
    )


def test_a_visit_over_the_edge_of_retention_is_corrected_by_whoever_owns_its_venue() -> None:
    # The owner has answered such a request before, in a later epoch than that of the worker who asks now.
    played(
        [
            *[Action("join")] * 2,
            Action("rebalance", 0, None, (382, (None,))),
            Action("scan", 0, None, ("c", "p", "check_out", 10_800_000, 1, "e")),
            Action("overnight", 0, None, ("b", "p")),
            Action("poll", 3, None, (100,)),
            Action("tick", 0, None, (3 * DAY,)),
            Action("retain", 1),
        ]
    )


def test_a_visit_over_the_edge_is_corrected_even_before_its_scans_have_gone() -> None:
    # Whoever cuts stands still between asking and dropping, and an heir answers meanwhile.
    for step in range(1, 25):
        played(
            [
                Action("join"),
                Action("overnight", 0, None, ("f", "s")),
                Action("tick", 0, None, (3 * DAY,)),
                Action("poll", 3, None, (100,)),
                Action("write", 3, None, (True,)),
                Action("retain", 3, Fault("stop", step, after=False)),
                Action("join"),
            ]
        )


def test_hours_in_which_people_only_stay_are_there_when_they_are_counted_again() -> None:
    # The partition's clock stood for two days; its heir counts from there on, where nobody moves until the visit ends.
    played(
        [
            Action("join"),
            Action("scan", 0, None, ("c", "p", "check_in", 0, 2, "e")),
            Action("tick", 0, None, (2 * HOUR,)),
            Action("join"),
            *(Action("poll", who, None, (100,)) for who in range(2)),
            *(Action("write", who, None, (True,)) for who in range(2)),
            Action("tick", 0, None, (2 * DAY,)),
            Action("scan", 0, None, ("d", "p", "check_out", 11_000, 1, "f")),
            *(Action("poll", who, None, (1,)) for who in range(2)),
        ],
        stay=LONG_STAY,
    )


def test_nobody_is_there_before_the_visit_that_an_heir_has_carried_into_memory() -> None:
    # The owner of one partition has been away since before the visit; the other's clock went on.
    played(
        [
            *[Action("join")] * 2,
            Action("write", 0, None, (True,)),
            Action("kill", 0),
            Action("tick", 0, None, (DAY,)),
            Action("overnight", 0, None, ("d", "p")),
            Action("tick", 0, None, (DAY,)),
            Action("poll", 0, None, (100,)),
            Action("write", 0, None, (True,)),
            Action("scan", 0, None, ("d", "p", "check_out", 11_000, 1, "f")),
            Action("poll", 0, None, (1,)),
        ],
        stay=LONG_STAY,
    )


def test_scans_of_a_day_that_a_broken_cut_has_dropped_are_counted_beside_those() -> None:
    for step in range(20, 40):
        played(
            [
                Action("join"),
                Action("overnight", 0, None, ("b", "p")),
                Action("poll", 0, None, (100,)),
                Action("write", 0, None, (True,)),
                Action("overnight", 0, None, ("f", "p")),
                Action("tick", 0, None, (3 * DAY,)),
                Action("write", 0, None, (True,)),
                Action("retain", 0, Fault("error", step, after=False)),
            ],
            partitions=2,
        )


def test_an_heir_of_a_cut_goes_on_counting_whatever_of_the_day_has_gone() -> None:
    # Whoever cuts is killed, before or after a day goes; meanwhile others, who were behind, store more scans of that day.
    for step, after in product(range(10, 30), (False, True)):
        played(
            [
                Action("join"),
                Action("join"),
                Action("rebalance", 0, None, (397, (None,))),
                Action("kill"),
                Action("overnight", 0, None, ("c", "p")),
                Action("overnight", 0, None, ("b", "p")),
                Action("tick", 0, None, (3 * DAY,)),
                Action("poll", 3, None, (100,)),
                Action("write", 3, None, (True,)),
                Action("retain", 0, Fault("crash", step, after)),
            ],
            partitions=3,
        )


def test_a_visit_that_comes_in_late_from_a_former_owner_is_counted_though_a_correction_finds_it_there() -> None:
    # Its owner stood still before storing the visit of a scan that is hours late, and had stored nothing of it in minutes.
    played(
        [
            *[Action("join")] * 3,
            Action("scan", 0, None, ("b", "p", "check_in", 3 * HOUR, 2, "e")),
            Action("scan", 0, None, ("a", "q", "check_in", 0, 2, "f")),
            *(Action("poll", who, None, (100,)) for who in (2, 3)),
            Action("write", 0, Fault("stop", 23, after=True), (False,)),
            Action("write", 2, Fault("stop", 6, after=False), (False,)),
            Action("write", 3, Fault("crash", 2, after=False), (False,)),
            Action("rebalance", 0, None, (290, (None,))),
            Action("poll", 2, None, (100,)),
            Action("resume", 1, Fault("stop", 13, after=True)),
            Action("settle", 2),
        ],
        partitions=3,
        stay=LONG_STAY,
    )


def test_scans_that_an_insert_brings_back_after_a_cut_are_not_counted_again() -> None:
    # A worker stands still before its insert; its heir stores the same scans, a cut drops them, and then the insert comes in.
    for step, who in product(range(10, 18), (0, 1)):
        played(
            [
                *OLD_SCANS_READ,
                Action("write", 0, Fault("stop", step, after=False), (True,)),
                Action("join"),
                Action("rebalance", 0, None, (who, (None,))),
                *(Action("poll", each, None, (100,)) for each in range(3)),
                *(Action("write", each, None, (True,)) for each in range(3)),
                *(Action("retain", each) for each in range(3)),
                Action("resume", 0),
                Action("tick", 0, None, (DAY,)),
            ]
        )


def test_what_two_cuts_at_once_have_counted_counts_once() -> None:
    # The one stands still between its look and its note; the other counts the same scans and a few more.
    for step, after in product(range(15, 24), (False, True)):
        played(
            [
                *OLD_SCANS_READ,
                Action("write", 0, None, (True,)),
                Action("retain", 0, Fault("stop", step, after)),
                Action("join"),
                Action("scan", 0, None, ("a", "r", "check_in", 0, 1, "e")),
                Action("scan", 0, None, ("b", "r", "check_in", 0, 1, "f")),
                Action("poll", 1, None, (100,)),
                Action("write", 1, None, (True,)),
                Action("retain", 1),
                Action("resume", 0),
            ]
        )
