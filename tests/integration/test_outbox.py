"""What is told of exposures and warnings where several workers write, or the store's answer is lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracing.tracer import _merged
from tests.isolated import run_isolated

_WHEN = 1_632_009_600_000


def _tracers(folder: str, count: int) -> list[Any]:
    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from pipeline.tracing.tracer import open_tracer

    settings = Settings(store=Path(folder))
    open_store(settings)
    return [open_tracer(settings) for _ in range(count)]


def _take_up(tracer: Any) -> None:
    # What a worker that starts finds still to be told.
    tracer._untold_venues = {venue: set() for venue in tracer._store.untold_venues()}


def _tell(tracer: Any, meanwhile: Callable[[], None] = lambda: None) -> list[int]:
    # The case counts of the messages; `meanwhile` happens while Kafka keeps the first of them waiting.
    counts = []
    while some := tracer.untold():
        meanwhile()
        meanwhile = lambda: None  # noqa: E731
        counts += [json.loads(message)["case_count"] for message in some.messages]
        tracer.note_told(some)
    return counts


def _tell_exposures(tracer: Any, name: str) -> list[str]:
    # One field of each exposure told; what else is to be told is told, too.
    told: list[str] = []
    while some := tracer.untold():
        if some.topic == "exposures":
            told.extend(json.loads(message)[name] for message in some.messages)
        tracer.note_told(some)
    return told


def one_after_the_other(folder: str) -> list[list[int]]:
    """In an interpreter of its own: what one tells of a warning, what another tells of its end, and what a third still has to."""
    from pipeline.store.tracing import Warn

    one, other, third = _tracers(folder, 3)
    warning = Warn("v", "who", _WHEN, _WHEN + 1, 1)
    told = []
    for tracer, version, deleted in ((one, 10, False), (other, 20, True)):
        tracer._store.write_warnings([(warning, version, deleted)])
        _take_up(tracer)
        told.append(_tell(tracer))
    _take_up(third)
    return [*told, _tell(third)]


def overtaken(folder: str) -> list[list[int]]:
    """In an interpreter of its own: what is told by one whose warning another takes back, and tells so, while Kafka is slow."""
    from pipeline.store.tracing import Warn

    slow, quick = _tracers(folder, 2)
    warning = Warn("v", "who", _WHEN, _WHEN + 1, 1)
    slow._store.write_warnings([(warning, 10, False)])
    _take_up(slow)
    told: list[list[int]] = []

    def take_back() -> None:
        quick._store.write_warnings([(warning, 20, True)])
        _take_up(quick)
        told.append(_tell(quick))

    told.append(_tell(slow, take_back))
    return told


def older_but_later(folder: str) -> list[list[int]]:
    """In an interpreter of its own: what is told of two warnings, and after it of another one with a lower version."""
    from pipeline.store.tracing import Warn

    one, heir = _tracers(folder, 2)
    some = [Warn("v", "who", _WHEN + hour, _WHEN + hour + 1, hour + 1) for hour in range(3)]
    one._store.write_warnings([(some[0], 100, False), (some[1], 100, False)])
    _take_up(one)
    told = [_tell(one)]
    one._store.write_warnings([(some[2], 90, False)])  # by one who is killed before it tells
    _take_up(heir)
    return [*told, _tell(heir)]


@pytest.mark.parametrize(
    ("scene", "told"),
    [
        pytest.param(one_after_the_other, [[1], [0], []], id="nothing is told twice"),
        # The quick one's message is the first in the topic: the slow one's last word must be the same.
        pytest.param(overtaken, [[0], [1, 0]], id="who was overtaken tells what holds now"),
        pytest.param(older_but_later, [[1, 2], [3]], id="a lower version that comes in later is told"),
    ],
)
def test_the_newest_message_about_a_warning_is_the_one_that_holds(
    tmp_path: Path, scene: Callable[[str], list[list[int]]], told: list[list[int]]
) -> None:
    assert [sorted(each) if scene is older_but_later else each for each in run_isolated(scene, str(tmp_path))] == told


def _visit(client: Any, visitor: str, version: int, deleted: int = 0) -> None:
    client.command(
        "INSERT INTO visit_rows (venue_id, visitor_id, checked_in_at, left_at, ended, party_size, version, is_deleted) "
        f"VALUES ('v', '{visitor}', fromUnixTimestamp64Milli({_WHEN}), fromUnixTimestamp64Milli({_WHEN + 3_600_000}), "
        f"'check_out', 1, {version}, {deleted})"
    )


def _report(tracer: Any) -> None:
    # A case that was at the venue, and its tracer.
    report = {"case_id": "c", "visitor_id": "ill", "status": "confirmed", "reported_at": "2021-09-20T00:00:00Z"}
    report |= {"infectious_from": "2021-09-18T00:00:00Z", "infectious_until": "2021-09-21T00:00:00Z"}
    _visit(tracer._store._client, "ill", 1)
    tracer.load("case-reports", 0, [0], [_WHEN], [b"c"], [json.dumps(report).encode()])
    tracer.own([0], everything=False)
    tracer.trace_due()


def _trace_visit(tracer: Any, visitor: str, version: int = 1, deleted: int = 0) -> None:
    # Somebody is stored beside the case, or taken back, and the tracer passes over it.
    _visit(tracer._store._client, visitor, version, deleted)
    tracer._expect("c", visitor)
    tracer.trace_due()


def _last_and_view(told: list[str], client: Any) -> list[str]:
    # The last tier told of one exposure, and what the view says.
    return [*told[-1:], *(str(row[0]) for row in client.query("SELECT tier FROM exposures").result_rows)]


def stored_by_who_was_killed(folder: str) -> list[str]:
    """In an interpreter of its own: of whom an heir tells, where one found somebody and was killed before a word was out.

    Meanwhile another, who does not know that the case is its own no more, has stored and told of somebody else.
    """
    former, killed, heir = _tracers(folder, 3)
    _report(former)
    killed.own([0], everything=False)
    killed.trace_due()
    for tracer, visitor in ((killed, "one"), (former, "other")):
        _trace_visit(tracer, visitor)
    _tell_exposures(former, "visitor_id")
    heir.own([0], everything=False)
    heir.trace_due()
    return _tell_exposures(heir, "visitor_id")


def test_what_a_killed_owner_has_stored_is_told_whatever_others_have_told_since(tmp_path: Path) -> None:
    assert "one" in run_isolated(stored_by_who_was_killed, str(tmp_path))


def found_and_taken_back(folder: str, lanes: tuple[int, int], loses: bool) -> list[str]:
    """In an interpreter of its own: the last tier told of one exposure, and what the view says at the end.

    The owner of a case finds it and waits for Kafka, and does not know that it is the owner no more, or hears so (`loses`) as
    soon as Kafka has answered. The new one, who had read the case before that, takes it back, since the visit has gone.
    """
    slow, quick = _tracers(folder, 2)
    slow._own_lane, quick._own_lane = lanes
    client = slow._store._client
    _report(slow)
    quick.own([0], everything=False)
    with quick._index.lock:
        quick._due.clear()
    read = quick._read({"c": None})
    _visit(client, "other", 1)
    slow.again()
    slow._expect("c", "other")
    slow.trace_due()
    waits = slow.untold()
    _visit(client, "other", 2, deleted=1)
    quick._pass_whole(read)
    told = _tell_exposures(quick, "tier")
    told.extend(json.loads(message)["tier"] for message in waits.messages)
    slow.note_told(waits)
    if loses:
        slow.own([], everything=False)
    told += _tell_exposures(slow, "tier")
    quick.again()  # as it does every minute
    quick.trace_due()
    told += _tell_exposures(quick, "tier")
    return _last_and_view(told, client)


@pytest.mark.parametrize(("lanes", "loses"), [((1, 2), False), ((2, 1), False), ((1, 2), True), ((2, 1), True)])
def test_an_exposure_that_one_finds_and_another_takes_back_at_once_is_told_as_it_stands(
    tmp_path: Path, lanes: tuple[int, int], loses: bool
) -> None:
    assert run_isolated(found_and_taken_back, str(tmp_path), lanes, loses) == ["withdrawn"]


def stored_later_than_told(folder: str) -> list[str]:
    """In an interpreter of its own: the last tier told of one exposure, and what the view says at the end.

    Its end was handed to the store, which did not answer, and had it only after that had been looked for. Then an heir comes.
    """
    from pipeline.errors import StoreUnavailableError
    from pipeline.store import tracing

    owner, heir = _tracers(folder, 2)
    client = owner._store._client
    _report(owner)
    _trace_visit(owner, "other")
    told = _tell_exposures(owner, "tier")
    assert told
    _visit(client, "other", 2, deleted=1)
    owner._expect("c", "other")
    insert, late = tracing._insert_exposures, list[Any]()

    def hang(writer: Any, rows: Any) -> None:
        late.append((writer, rows))
        raise StoreUnavailableError("no answer")

    tracing._insert_exposures = hang
    with pytest.raises(StoreUnavailableError):
        owner.trace_due()
    told += _tell_exposures(owner, "tier")
    tracing._insert_exposures = insert
    for each in late:
        insert(*each)
    heir.own([0], everything=False)
    heir.trace_due()
    told += _tell_exposures(heir, "tier")
    return _last_and_view(told, client)


def test_what_the_store_has_later_than_it_was_looked_for_is_told(tmp_path: Path) -> None:
    assert run_isolated(stored_later_than_told, str(tmp_path)) == ["withdrawn"]


def told_once_more(folder: str) -> list[str]:
    """In an interpreter of its own: of whom is told in all.

    An owner has found somebody, taken back what it was just telling of another, and lost the case. An heir tells the rest.
    """
    former, owner, heir = _tracers(folder, 3)
    client = former._store._client
    _report(former)
    _trace_visit(former, "other")
    owner.own([0], everything=False)
    waits = owner.untold()
    assert [json.loads(message)["visitor_id"] for message in waits.messages] == ["other"]
    _visit(client, "one", 1)
    owner.trace_due()
    _trace_visit(owner, "other", 2, deleted=1)
    owner.own([], everything=False)
    owner.note_told(waits)
    told = _tell_exposures(owner, "visitor_id")
    heir.own([0], everything=False)
    heir.trace_due()
    return told + _tell_exposures(heir, "visitor_id")


def test_what_is_told_once_more_does_not_pass_for_what_was_never_told(tmp_path: Path) -> None:
    assert {"one", "other"} <= set(run_isolated(told_once_more, str(tmp_path)))


def told_too_late(folder: str, killed: bool) -> list[str]:
    """In an interpreter of its own: the last tier told of one exposure, and what the view says at the end.

    Its end, which its finder has stored by then, is told by an heir before the finder's own word comes through. The finder looks
    at it once more, or is `killed` in that moment. The store has merged away the rows by which it could be seen.
    """
    slow, heir = _tracers(folder, 2)
    client = slow._store._client
    _report(slow)
    _trace_visit(slow, "other")
    waits = slow.untold()
    _trace_visit(slow, "other", 2, deleted=1)
    heir.own([0], everything=False)
    heir.trace_due()
    told = _tell_exposures(heir, "tier")
    assert told == ["withdrawn"]
    client.command("OPTIMIZE TABLE exposure_rows FINAL")
    told.extend(json.loads(message)["tier"] for message in waits.messages)
    if killed:
        heir.again()  # as it does every minute
        heir.trace_due()
        told += _tell_exposures(heir, "tier")
    else:
        slow.own([], everything=False)
        slow.note_told(waits)
        told += _tell_exposures(slow, "tier")
    return _last_and_view(told, client)


@pytest.mark.parametrize("killed", [False, True])
def test_a_word_that_comes_through_too_late_is_not_the_last_one(tmp_path: Path, killed: bool) -> None:
    assert run_isolated(told_too_late, str(tmp_path), killed) == ["withdrawn"]


def settled(folder: str) -> list[int]:
    """In an interpreter of its own: what another has to tell of a case and a venue, while one is telling of them and after it."""
    one, other = _tracers(folder, 2)
    client = one._store._client
    _report(one)
    _visit(client, "other", 1)
    one.again()
    one.trace_due()
    _tell_exposures(one, "tier")
    counts = []
    for telling in (False, True):
        if telling:
            _visit(client, "third", 1)
            one.again()
            one.trace_due()
            one.untold()
        other.own([0], everything=False)
        other.trace_due()
        counts.append(len(_tell_exposures(other, "tier")))
        one.own([0], everything=False)
    return counts


def test_what_another_has_told_to_the_end_is_not_told_again_and_what_it_is_telling_is(tmp_path: Path) -> None:
    assert run_isolated(settled, str(tmp_path)) == [0, 2]


def answers_lost(folder: str) -> tuple[int, int]:
    """In an interpreter of its own: how many warnings are stored, and how many told, where the store's answer to one was lost."""
    from pipeline.errors import StoreUnavailableError
    from pipeline.store.tracing import Interval, TraceStore

    [tracer] = _tracers(folder, 1)
    tracer._store.write_intervals([(Interval("c", "v", _WHEN, "who", _WHEN, _WHEN + 1), 1, False)])
    write = TraceStore.write_warnings

    def deaf(store: Any, rows: Any) -> None:
        write(store, rows)
        raise StoreUnavailableError("the answer was lost")

    TraceStore.write_warnings = deaf  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        tracer._refresh_warnings({"v"}, {})
    TraceStore.write_warnings = write  # type: ignore[method-assign]
    tracer._refresh_warnings({"v"}, {})
    return len(tracer._store.warnings(None)[0]), len(_tell(tracer))


def test_a_warning_is_told_though_the_answer_that_it_is_stored_was_lost(tmp_path: Path) -> None:
    assert run_isolated(answers_lost, str(tmp_path)) == (1, 1)


def newer_of_three(folder: str) -> list[tuple[str, bool, bool]]:
    """In an interpreter of its own: which are newer of an alert cleared since, one taken back, and one as it was."""
    from pipeline.core.pools import NONE
    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from pipeline.store.crowding import newer_alerts

    client = open_store(Settings(store=Path(folder)))
    for venue, version, cleared, deleted in (
        ("a", 10, "NULL", 0),
        ("b", 10, "NULL", 0),
        ("c", 10, "NULL", 0),
        ("a", 20, "now64(3)", 0),
        ("b", 21, "NULL", 1),
    ):
        client.command(
            "INSERT INTO alert_rows (venue_id, level, raised_at, alert_id, cleared_at, peak, capacity, version, is_deleted) "
            f"VALUES ('{venue}', 'warning', fromUnixTimestamp64Milli({_WHEN}), 'id-{venue}', "
            f"{cleared}, 9, 8, {version}, {deleted})"
        )
    found = newer_alerts(client, ["id-a", "id-b", "id-c"], 11)
    return [(venue, alert.cleared_at == NONE, taken_back) for venue, alert, taken_back in found]


def test_alerts_that_others_have_changed_since_are_found_as_they_stand(tmp_path: Path) -> None:
    assert run_isolated(newer_of_three, str(tmp_path)) == [("a", False, False), ("b", True, True)]


def test_what_is_stored_later_in_a_lane_is_told_beside_what_was_known_before() -> None:
    assert _merged({("c", 1): (5, 9)}, {("c", 1): (5, 12), ("d", 2): (0, 1)}) == {("c", 1): (5, 12), ("d", 2): (0, 1)}
