"""Several workers on one server's store: who stood still and goes on writing changes nothing for good."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.isolated import run_isolated
from tests.reference import MINUTE, Scan, line_of

_SUNDAY = 1_632_009_600_000
_LINES = [line_of(Scan("v", "p", "check_in", _SUNDAY + minute * MINUTE)) for minute in (5, 0, 30)]


def _workers(folder: str, count: int) -> tuple[Any, list[Any]]:
    # Engines that believe to be workers of a server; what they share is an embedded store.
    from pipeline import engine as engines
    from pipeline.settings import Settings
    from pipeline.store.client import connect_further, open_store

    engines._STRANGERS_SECONDS = 0.0
    store = Settings(store=Path(folder), max_stay_by_category={"mall": timedelta(minutes=7)})

    views = open_store(store)
    served = store.model_copy(update={"clickhouse_url": "http://nowhere"})
    return views, [
        engines.Engine(connect_further(store), connect_further(store), served, "events") for _ in range(count)
    ]


def _read(engine: Any, partition: int, offset: int, lines: list[bytes]) -> Any:
    engine.process("check-ins", partition, range(offset, offset + len(lines)), [0] * len(lines), lines)
    return engine.take(idle=True)


def rows_that_come_late(folder: str, sent: bool) -> tuple[str, bool, str]:
    """In an interpreter of its own: what becomes of the late write, whether the owner looks again, and what differs at the end.

    `sent`: the worker stood still after its last look at who owns the partitions.
    """
    from pipeline.errors import OwnershipLostError
    from tests.reference import expected_views
    from tests.views import differences, read_views

    views, (paused, owner) = _workers(folder, 2)
    paused.assign("check-ins", [0])
    late = _read(paused, 0, 0, _LINES[:1])
    owner.assign("check-ins", [0])
    # It reads all at once: the visit that begins at the fifth minute never is one.
    owner.write(_read(owner, 0, 0, _LINES[:2]))
    if sent:
        paused._writer._claim = None
    try:
        paused.write(late)
        outcome = "taken"
    except OwnershipLostError:
        outcome = "refused"
    owner.write(_read(owner, 0, 2, _LINES[2:]))
    owner.notice_others()
    looks_again = owner.settle_due
    owner.settle()
    scans = [Scan("v", "p", "check_in", _SUNDAY + minute * MINUTE) for minute in (5, 0, 30)]
    return outcome, looks_again, differences(read_views(views), expected_views(scans))


def test_a_worker_that_stood_still_writes_nothing_after_its_partitions_went(tmp_path: Path) -> None:
    assert run_isolated(rows_that_come_late, str(tmp_path), False) == ("refused", False, "")


def test_what_such_a_worker_had_sent_already_is_found_and_undone(tmp_path: Path) -> None:
    assert run_isolated(rows_that_come_late, str(tmp_path), True) == ("taken", True, "")


def claimed_amid_a_write(folder: str) -> tuple[str, int]:
    """In an interpreter of its own: what a worker says of a write whose account comes in after another has claimed its partition,
    and where the next owner reads on.
    """
    from pipeline.errors import OwnershipLostError

    _, (owner, other, heir) = _workers(folder, 3)
    owner.assign("check-ins", [0])
    write = _read(owner, 0, 0, _LINES)
    client = owner._writer._client
    insert = client.insert_arrow

    def late(table: str, *arguments: Any, **options: Any) -> Any:
        if table == "progress_rows":
            other.assign("check-ins", [0])
        return insert(table, *arguments, **options)

    client.insert_arrow = late
    try:
        outcome = str(owner.write(write))
    except OwnershipLostError:
        outcome = "refused"
    return outcome, heir.assign("check-ins", [0])[0]


def test_what_another_has_claimed_before_it_was_accounted_for_is_not_said_to_be_stored(tmp_path: Path) -> None:
    assert run_isolated(claimed_amid_a_write, str(tmp_path)) == ("refused", 0)


def cut_after_half_a_takeover(folder: str) -> tuple[int, list[int]]:
    """In an interpreter of its own: how many questions a takeover asks, and after which, unanswered, there was a write."""
    from pipeline.errors import StoreUnavailableError

    _, (owner, heir) = _workers(folder, 2)
    owner.assign("check-ins", [0])
    owner.write(_read(owner, 0, 0, _LINES))
    heir._clock = "wall"
    client, left = heir._client, [0]
    for name in ("query", "query_arrow", "insert_arrow"):
        for each in (client, heir._writer._client):
            real = getattr(each, name)

            def ask(*arguments: Any, real: Any = real, **options: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    raise OSError("no answer")
                return real(*arguments, **options)

            setattr(each, name, ask)
    cut = []
    for number in range(1, 1_000):
        left[0] = number
        try:
            heir.assign("check-ins", [0])
        except StoreUnavailableError:
            if heir.take(idle=True) is not None:
                cut.append(number)
            heir.revoke("check-ins", [0])
            continue
        return number - 1, cut
    raise AssertionError("a takeover asks for ever")


def test_nothing_is_cut_after_half_a_takeover(tmp_path: Path) -> None:
    """Its clock would be stored without the rows up to there, and nobody would compute them again."""
    questions, cut = run_isolated(cut_after_half_a_takeover, str(tmp_path))
    assert questions > 10
    assert cut == []


def rules_that_come_back(folder: str) -> str:
    """In an interpreter of its own: what differs when a venue's record is replaced, put back before that was acted on, and
    replaced again: a worker that starts reads the registry from its beginning, and may give others the older record once more.
    """
    from tests.reference import expected_views
    from tests.views import differences, read_views

    views, (owner,) = _workers(folder, 1)
    owner.assign("check-ins", [0])
    before, after = (
        f'{{"venue_id": "v", "name": "V", "category": "{category}", "capacity": 3}}'.encode()
        for category in ("shop", "mall")
    )
    owner.load_venues([before], [b"v"])
    owner.write(_read(owner, 0, 0, _LINES))
    owner.settle()
    owner.load_venues([after], [b"v"])
    owner.load_venues([before], [b"v"])
    owner.settle()
    owner.load_venues([after], [b"v"])
    owner.settle()
    scans = [Scan("v", "p", "check_in", _SUNDAY + minute * MINUTE) for minute in (5, 0, 30)]
    return differences(read_views(views), expected_views(scans, {"v": 7 * MINUTE}, {"v": 3}))


def test_rules_that_came_back_before_they_were_acted_on_are_followed_when_they_come_again(tmp_path: Path) -> None:
    assert run_isolated(rules_that_come_back, str(tmp_path)) == ""


def rules_of_one_version(folder: str) -> str:
    """In an interpreter of its own: what differs when an owner goes that had heard of one of two records of the same version."""
    import pyarrow as pa

    from tests.reference import expected_views
    from tests.views import differences, read_views

    views, (owner, heir) = _workers(folder, 2)
    owner.assign("check-ins", [0])
    owner.write(_read(owner, 0, 0, _LINES))
    owner.load_venues([b'{"venue_id": "w", "name": "W", "category": "shop"}'], [b"w"])
    owner.settle()
    owner.write(_read(owner, 0, 3, [line_of(Scan("w", "p", "check_in", _SUNDAY))]))
    # Another worker read at the same instant, and gave a record of its own the same version.
    row = {"venue_id": "v", "name": "V", "category": "mall", "capacity": 3, "version": owner._registry.version}
    owner._client.insert_arrow("registry_rows", pa.Table.from_pylist([{**row, "is_deleted": 0}]))
    heir.assign("check-ins", [0])
    heir.settle()
    scans = [Scan("v", "p", "check_in", _SUNDAY + minute * MINUTE) for minute in (5, 0, 30)]
    scans.append(Scan("w", "p", "check_in", _SUNDAY))
    return differences(read_views(views), expected_views(scans, {"v": 7 * MINUTE}, {"v": 3}))


def test_an_heir_acts_on_a_record_that_has_the_version_of_another(tmp_path: Path) -> None:
    assert run_isolated(rules_of_one_version, str(tmp_path)) == ""


def claims_at_once(folder: str) -> list[str]:
    """In an interpreter of its own: what two workers are told that claimed a partition at the same moment."""
    from pipeline.errors import OwnershipLostError
    from pipeline.store import recovery

    _, (one, other) = _workers(folder, 2)
    read = recovery.read_standing
    recovery.claimed_epoch = lambda _: 0  # type: ignore[assignment]
    recovery.read_standing = lambda client: replace(read(client), epoch=0)  # type: ignore[assignment]
    for engine in (one, other):
        with suppress(OwnershipLostError):
            engine.assign("check-ins", [0])
    told = []
    for engine in (one, other):
        # Who has heard of it while taking over has nothing to write.
        if (write := _read(engine, 0, 0, _LINES[:1])) is None:
            told.append("lost")
            continue
        try:
            engine.write(write)
            told.append("yours")
        except OwnershipLostError:
            told.append("lost")
    return sorted(told)


def test_of_two_workers_that_claim_a_partition_at_once_one_has_it(tmp_path: Path) -> None:
    assert run_isolated(claims_at_once, str(tmp_path)) == ["lost", "yours"]


def claims_late(folder: str) -> tuple[list[Any], list[Any]]:
    """In an interpreter of its own: the account and the clock before and after a worker claims that stood still before it could,
    while another took over, and wrote.
    """
    from pipeline import engine as engines

    views, (late, owner) = _workers(folder, 2)
    asked = "SELECT consumed, stored, toUnixTimestamp64Milli(as_of), toUnixTimestamp64Milli(watermark) FROM progress_rows FINAL"
    claim, seen = late._writer.claim, []

    def stand_still(*given: Any) -> None:
        engines.secrets.randbits = lambda _: 0  # type: ignore[assignment]
        owner.assign("check-ins", [0])
        owner.write(_read(owner, 0, 0, _LINES))
        seen.append([list(row) for row in views.query(asked).result_rows])
        claim(*given)

    late._writer.claim = stand_still
    # It began the same epoch, and its claim is the newer one.
    engines.secrets.randbits = lambda bits: (1 << bits) - 1
    late.assign("check-ins", [0])
    return seen[0], [list(row) for row in views.query(asked).result_rows]


def test_a_claim_that_comes_late_puts_no_account_and_no_clock_back(tmp_path: Path) -> None:
    before, after = run_isolated(claims_late, str(tmp_path))
    assert before == after
    assert before[0][:2] == [3, 3]


def left_behind_after_long_apart(folder: str) -> int:
    """In an interpreter of its own: how many pairs are folded again when partitions of two workers come together."""
    from pipeline.store import recovery

    _, (one, other, heir) = _workers(folder, 3)
    one.assign("check-ins", [0])
    one.write(_read(one, 0, 0, [line_of(Scan("a", "p", "check_in", _SUNDAY))]))
    other.assign("check-ins", [1])
    for minute in range(20):
        scan = Scan("b", f"p{minute}", "check_in", _SUNDAY + minute * MINUTE)
        other.write(_read(other, 1, minute, [line_of(scan)]))
    find, found = recovery.find_unfinished, []
    recovery.find_unfinished = lambda *given: found.append(find(*given)) or found[-1]  # type: ignore[func-returns-value]
    heir.assign("check-ins", [0, 1])
    return len(found[0].pairs)


def test_one_partition_that_stood_still_has_nothing_of_another_computed_again(tmp_path: Path) -> None:
    assert run_isolated(left_behind_after_long_apart, str(tmp_path)) == 0


def _killed_before_its_scans(worker: Any, write: Any) -> Any:
    # What it has sent last, its scans, is still under way.
    insert, held = worker._writer.insert, []

    def insert_until_killed(table: str, rows: Any) -> None:
        if table == "scan_set":
            held.append(rows)
            raise KeyboardInterrupt
        insert(table, rows)

    worker._writer.insert = insert_until_killed
    with suppress(KeyboardInterrupt):
        worker.write(write)
    return held[0]


def scans_that_come_late(folder: str, steps: tuple[str, ...]) -> str:
    """In an interpreter of its own: what differs when a killed worker's last scans reach the store while its heir loads.

    `steps`: those of the heir's recovery that they come just before, each with a partition of its own.
    """
    from pipeline.store import recovery
    from tests.reference import expected_views
    from tests.views import differences, read_views

    views, workers = _workers(folder, 2 * len(steps))
    scans = [Scan(f"v-{step}", "p", "check_in", _SUNDAY) for step in steps]
    for partition, (name, scan) in enumerate(zip(steps, scans, strict=True)):
        killed, heir = workers[2 * partition : 2 * partition + 2]
        killed.assign("check-ins", [partition])
        late = [_killed_before_its_scans(killed, _read(killed, partition, 0, [line_of(scan)]))]
        step = getattr(recovery, name)

        def interrupted(
            *given: Any, killed: Any = killed, late: list[Any] = late, step: Any = step, **named: Any
        ) -> Any:
            while late:
                killed._client.insert_arrow("scan_set", late.pop())
            return step(*given, **named)

        setattr(recovery, name, interrupted)
        heir.assign("check-ins", [partition])
        setattr(recovery, name, step)
        heir.write(_read(heir, partition, 0, [line_of(scan)]))
        heir.settle()
    return differences(read_views(views), expected_views(scans))


def test_scans_that_a_killed_worker_had_sent_may_come_in_at_any_step_of_a_recovery(tmp_path: Path) -> None:
    steps = ("read_standing", "find_unfinished", "load_shard", "load_windows")
    assert run_isolated(scans_that_come_late, str(tmp_path), steps) == ""


def ancient_scans_that_come_late(folder: str) -> tuple[dict[str, int], str]:
    """In an interpreter of its own: the heir's accounting, and what differs, when such scans come after it has loaded."""
    from tests.reference import expected_views
    from tests.views import differences, read_views

    views, (killed, heir) = _workers(folder, 2)
    scans = [Scan("v", "p", "check_in", _SUNDAY + days * 1440 * MINUTE) for days in (9, 0)]
    killed.assign("check-ins", [0])
    killed.write(_read(killed, 0, 0, [line_of(scans[0])]))
    late = _killed_before_its_scans(killed, _read(killed, 0, 1, [line_of(scans[1])]))
    heir.assign("check-ins", [0])
    killed._client.insert_arrow("scan_set", late)
    heir.write(_read(heir, 0, 1, [line_of(scans[1])]))
    heir.settle()
    return heir.counters(), differences(read_views(views), expected_views(scans))


def test_ancient_scans_that_a_killed_worker_had_sent_are_no_duplicates_of_themselves(tmp_path: Path) -> None:
    counters, different = run_isolated(ancient_scans_that_come_late, str(tmp_path))
    assert (counters["stored"], counters["duplicates"], different) == (2, 0, "")


def corrected_before_it_is_read_again(folder: str) -> dict[str, int]:
    """In an interpreter of its own: the accounting of a scan that a crash left, whose venue gets other rules first."""
    _, (killed, heir) = _workers(folder, 2)
    killed.assign("check-ins", [0])
    late = _killed_before_its_scans(killed, _read(killed, 0, 0, _LINES[:1]))
    killed._client.insert_arrow("scan_set", late)
    heir.assign("check-ins", [0])
    heir.load_venues([b'{"venue_id": "v", "name": "V", "category": "mall", "capacity": 3}'], [b"v"])
    heir.settle()
    heir.write(_read(heir, 0, 0, _LINES[:1]))
    return heir.counters()


def test_a_scan_that_a_crash_left_stays_to_be_accounted_for_when_its_venue_changes(tmp_path: Path) -> None:
    counters = run_isolated(corrected_before_it_is_read_again, str(tmp_path))
    assert (counters["stored"], counters["duplicates"]) == (1, 0)


def clocks_apart(folder: str) -> tuple[str, str]:
    """In an interpreter of its own: what differs where two workers' clocks stand apart: one's visit ends before the other's scan.

    First, once it has noticed the other; then, a day later, once a third worker has taken both partitions over instead.
    """
    from tests.reference import expected_views
    from tests.views import differences, read_views

    views, workers = _workers(folder, 3)
    mall = {"category": "mall", "capacity": 1}
    registry = [json.dumps({"venue_id": f"v{day}", "name": "V", **mall}).encode() for day in (0, 1)]
    offsets, scans, found = [0, 0], [], []
    for worker in workers:
        worker.load_venues(registry, [b"v0", b"v1"])
    for day in (0, 1):
        for partition, (venue, minute) in enumerate((("v", 1), ("w", 20))):
            worker = workers[partition]
            if day == 0:
                worker.assign("check-ins", [partition])
            scans.append(Scan(f"{venue}{day}", "p", "check_in", _SUNDAY + (day * 1440 + minute) * MINUTE))
            worker.write(_read(worker, partition, offsets[partition], [line_of(scans[-1])]))
            worker.settle()
            offsets[partition] += 1
        if day == 0:
            workers[0].notice_others()
        else:
            workers[2].assign("check-ins", [0, 1])
        workers[2 * day].settle()
        stays, capacities = {"v0": 7 * MINUTE, "v1": 7 * MINUTE}, {"v0": 1, "v1": 1}
        found.append(differences(read_views(views), expected_views(scans, stays, capacities)))
    return found[0], found[1]


def test_what_happens_by_itself_between_the_clocks_of_two_workers_is_not_left_out(tmp_path: Path) -> None:
    assert run_isolated(clocks_apart, str(tmp_path)) == ("", "")


def rules_whose_answer_is_lost(folder: str) -> str:
    """In an interpreter of its own: what differs after an owner's registry was read anew and the store went away in between."""
    from pipeline.errors import StoreUnavailableError
    from tests.reference import expected_views
    from tests.views import differences, read_views

    views, (owner, other, heir) = _workers(folder, 3)
    scans = [Scan("v", "p", "check_in", _SUNDAY + minute * MINUTE) for minute in (0, 30, 60)]
    lines = [line_of(scan) for scan in scans]
    record = json.dumps({"venue_id": "v", "name": "v", "category": "mall"}).encode()
    owner.assign("check-ins", [0])
    owner.write(_read(owner, 0, 0, lines[:2]))
    other.load_venues([record], [b"v"])
    registry = owner._registry
    ask, asked = registry.refresh, 0

    def refresh() -> Any:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise StoreUnavailableError("the answer is lost")
        return ask()

    registry.refresh = refresh
    with suppress(StoreUnavailableError):
        owner.load_venues([record], [b"v"])
    owner.load_venues([record], [b"v"])
    owner.settle()
    owner.write(_read(owner, 0, 2, lines[2:]))
    heir.assign("check-ins", [0])
    return differences(read_views(views), expected_views(scans, {"v": 7 * MINUTE}))


def test_rules_are_followed_although_the_store_went_away_while_they_were_read(tmp_path: Path) -> None:
    assert run_isolated(rules_whose_answer_is_lost, str(tmp_path)) == ""


def alerts_told_by_two(folder: str) -> tuple[list[list[tuple[bool, bool]]], list[int]]:
    """In an interpreter of its own: what an heir tells of an alert that the former owner may be telling at any moment still.

    Each time (open, whatever was told before), and after each time how many partitions are noted as told.
    """
    from pipeline import alert_telling

    alert_telling._DOUBTED_SECONDS = (0.0, 0.0)
    views, (former, heir) = _workers(folder, 2)
    record = json.dumps({"venue_id": "v", "name": "V", "category": "mall", "capacity": 1}).encode()
    lines = [
        line_of(Scan(venue, "p", kind, _SUNDAY + minute * MINUTE))
        for venue, kind, minute in (
            ("v", "check_in", 0),
            ("w", "check_in", 3),
            ("v", "check_out", 4),
            ("w", "check_in", 20),
        )
    ]
    for worker in (former, heir):
        worker.load_venues([record], [b"v"])
    former.assign("check-ins", [0])
    former.write(_read(former, 0, 0, lines[:2]))
    told, noted, mark = [former.hand_alerts(0)[0]], [], 0
    heir.assign("check-ins", [0])
    for step in range(4):
        if step == 1:
            heir.write(_read(heir, 0, 2, lines[2:]))
        notices, mark = heir.hand_alerts(mark)
        told.append(notices)
        noted.append(views.query("SELECT count() FROM told_rows FINAL").result_rows[0][0])
    return [[(notice.open, notice.again) for notice in some] for some in told], noted


def test_what_a_former_owner_may_still_tell_is_told_again_as_it_stands_before_it_is_noted_as_told(
    tmp_path: Path,
) -> None:
    told, noted = run_isolated(alerts_told_by_two, str(tmp_path))
    assert told == [[(True, False)], [(True, False)], [(False, True)], [], []]
    assert noted == [0, 0, 1, 1]


def a_mark_of_before_the_takeover(folder: str) -> list[tuple[str, bool]]:
    """In an interpreter of its own: what the third owner of two partitions tells, where the second had told of one, took over the
    other from one that had not told yet, and was killed before it did: venue, and whether that counts as told.
    """
    from pipeline import alert_telling

    alert_telling._DOUBTED_SECONDS = ()
    _, (killed, owner, heir) = _workers(folder, 3)
    registry = [
        json.dumps({"venue_id": f"v{i}", "name": "V", "category": "mall", "capacity": 1}).encode() for i in (0, 1)
    ]
    scans = [
        [Scan(f"{venue}{i}", "p", "check_in", _SUNDAY + minute * MINUTE) for venue, minute in (("v", 0), ("w", 3))]
        for i in (0, 1)
    ]
    for worker in (killed, owner, heir):
        worker.load_venues(registry, [b"v0", b"v1"])
    for partition, worker in ((1, killed), (0, owner)):
        worker.assign("check-ins", [partition])
        worker.write(_read(worker, partition, 0, [line_of(scan) for scan in scans[partition]]))
    _, mark = owner.hand_alerts(0)
    owner.assign("check-ins", [1])
    owner.hand_alerts(mark)
    heir.assign("check-ins", [0, 1])
    return sorted((notice.venue, notice.told) for notice in heir.hand_alerts(0)[0])


def test_that_one_partition_was_told_of_says_nothing_of_another_that_was_taken_over(tmp_path: Path) -> None:
    assert ("v1", False) in run_isolated(a_mark_of_before_the_takeover, str(tmp_path))
