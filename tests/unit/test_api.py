"""What the parts of the API promise, without a server."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from pipeline.api import feed as feeds
from pipeline.api.answers import from_cursor, to_cursor
from pipeline.api.errors import RequestError
from pipeline.api.feed import REMEMBERED, Feed
from pipeline.api.front import Statuses, _Caller
from pipeline.api.levels import LEVELS, level_codes, level_of
from pipeline.api.snapshot import Estimates, Places, Snapshot, Standing
from pipeline.api.status import StatusBook
from pipeline.api.view import CELLS, area_figures, iso, make_grid, make_view, top_rows, venue_now
from tests.isolated import run_isolated


def snapshot(people: list[float], capacity: list[float], before: Snapshot | None = None) -> Snapshot:
    """Venues v0, v1, … in two areas, spread over degrees; those of `before` if it is given."""
    count = len(people)
    ids = pa.array([f"v{number}" for number in range(count)])
    texts = pa.table(
        {
            "name": pa.array([f"Venue {number}" for number in range(count)]),
            "category": pa.array(["mall"] * count),
            "area": pa.array([None if number == 0 else f"3{number % 2}.71" for number in range(count)]),
            "timezone": pa.array(["Asia/Jakarta"] * count),
        }
    )
    places = (
        before.places
        if before
        else Places(
            (count, 1),
            ids,
            {name: row for row, name in enumerate(ids.to_pylist())},
            texts,
            np.linspace(-8, -6, count),
            np.linspace(106, 112, count),
            np.array(capacity, np.float64),
        )
    )
    nothing = np.full(count, np.nan)
    occupancy, room = np.array(people, np.float64), np.array(capacity, np.float64)
    standing = Standing("events", 1_632_047_400_000 + (60_000 if before else 0), 0, 0, 0, 0, 0, 0)
    estimates = Estimates((0, 0), places, {}, None)
    nothings = (nothing, nothing, nothing, nothing)
    return Snapshot(standing, places, estimates, occupancy, room, *nothings, level_codes(occupancy, room), None)


@pytest.mark.parametrize(
    ("persons", "capacity", "level"),
    [(5, None, "unknown"), (5, 0, "unknown"), (49, 100, "quiet"), (50, 100, "busy"), (89, 100, "busy"),
     (90, 100, "nearly_full"), (99, 100, "nearly_full"), (100, 100, "full"), (340, 100, "full")],
)  # fmt: skip
def test_a_level_begins_at_its_bound(persons: float, capacity: float | None, level: str) -> None:
    assert level_of(persons, capacity) == level
    codes = level_codes(
        np.array([persons], np.float64), np.array([np.nan if capacity is None else capacity], np.float64)
    )
    assert LEVELS[codes[0]] == level


def test_sums_of_areas_are_of_all_venues_and_ratios_of_those_with_a_capacity() -> None:
    found = {row["area"]: row for row in area_figures(snapshot([7, 30, 4, 10], [np.nan, 30, 20, np.nan]))}
    assert {name: row["people"] for name, row in found.items()} == {"": 7, "31.71": 40, "30.71": 4}
    assert found["31.71"]["ratio"] == 1.0
    assert found["31.71"]["full"] == 1
    assert found[""]["ratio"] is None


def test_the_fullest_come_first_and_the_empty_not_at_all() -> None:
    one = snapshot([0, 50, 9, 200], [10, 100, 10, 1000])
    assert top_rows(one) == {"people": [3, 1, 2], "fullness": [2, 1, 3], "expected_fullness": []}
    expected = replace(one, expected=np.array([np.nan, 20.0, 0.0, 300.0]))
    assert top_rows(expected)["expected_fullness"] == [3, 1]


def test_a_delta_makes_of_the_view_before_the_view_after() -> None:
    one = snapshot([1, 2, 3], [10, 10, 10])
    two = snapshot([1, 9, 3], [10, 10, 10], one)
    grid = make_grid(one.places)
    first, second = (make_view(each, grid, {}, {"items": []}, {"stale": False}) for each in (one, two))
    delta = second.delta(first)
    assert delta is not None
    assert "health" not in delta
    assert "alerts" not in delta
    shown = first.whole()
    for at, people, level in delta.pop("cells"):
        shown["map"]["now"][at] = [people, level]
    assert {**shown, **delta} == second.whole()


def test_the_map_stays_bounded_however_many_venues_there_are() -> None:
    many = snapshot([1.0] * 30_000, [np.nan] * 30_000)
    grid = make_grid(many.places)
    assert 0 < len(grid.fixed) <= CELLS
    assert sum(cell[2] for cell in grid.fixed) == 30_000
    assert make_view(many, grid, {}, {}, {}).people.sum() == 30_000


def test_a_place_is_as_full_as_its_venues_with_a_capacity_are_together() -> None:
    one = snapshot([90, 20, 500], [90, 110, np.nan])
    near = replace(one.places, latitude=np.full(3, -7.25), longitude=np.full(3, 112.75))
    grid = make_grid(near)
    view = make_view(replace(one, places=near), grid, {}, {}, {})
    assert (view.people.tolist(), [LEVELS[level] for level in view.level]) == ([610], ["busy"])
    unknown = make_view(replace(one, places=near, capacity=np.full(3, np.nan)), grid, {}, {}, {})
    assert [LEVELS[level] for level in unknown.level] == ["unknown"]


def test_a_cursor_comes_back_as_it_was_and_a_foreign_one_is_refused() -> None:
    assert from_cursor(to_cursor(1.5, "v-é"), float, str) == (1.5, "v-é")
    assert from_cursor(None, float) is None
    for wrong in ("x", "!!", to_cursor("a"), to_cursor(True, "v"), to_cursor(1.5)):
        with pytest.raises(RequestError):
            from_cursor(wrong, float, str)


def test_the_door_answers_with_the_bytes_that_the_application_would() -> None:
    statuses = Statuses()

    def tell(as_of: str, changed: dict[str, bytes] | None, everything: dict[str, bytes]) -> None:
        kind, bodies = ("F", everything) if changed is None else ("D", changed)
        lines = [f"{kind}{as_of}".encode(), *(b"%b\t%b" % (venue.encode(), body) for venue, body in bodies.items())]
        statuses.take(b"\n".join(lines))

    book = StatusBook(tell)  # type: ignore[arg-type]
    one = snapshot([1, 2], [10, np.nan])
    for each in (one, snapshot([1, 5], [10, np.nan], one)):
        book.update(each)
        for venue in ("v0", "v1"):
            body, tag = book.status(venue)
            response = statuses.answer(f"GET /api/v1/venues/{venue}/now HTTP/1.1\r\nHost: localhost".encode())
            assert response is not None
            head, _, content = response.partition(b"\r\n\r\n")
            assert content == body
            assert f"etag: {tag}".encode() in head
            assert b"x-content-type-options: nosniff" in head
            assert f"content-length: {len(body)}".encode() in head
            assert json.loads(content)["occupancy"] == each.occupancy[int(venue[1])]
            again = statuses.answer(f"GET /api/v1/venues/{venue}/now HTTP/1.1\r\nIf-None-Match: {tag}".encode())
            assert again is not None
            assert again.startswith(b"HTTP/1.1 304 ")
            assert statuses.answer(f"GET /api/v1/venues/{venue}/now HTTP/1.1\r\nHost: evil.example".encode()) is None


def test_a_status_says_what_every_list_says_of_the_venue() -> None:
    one = snapshot([0, 7, 30, 1_000, 3], [np.nan, 0, 90, 700, 10])
    estimated = replace(
        one,
        expected=np.array([np.nan, 6.5, 20.0, 812.3, 0.0]),
        low=np.array([np.nan, 4, 12, 700, 0]),
        high=np.array([np.nan, 9, 28, 900, 1]),
        share=np.array([np.nan, 0.29, np.nan, 1.0, 0.125]),
        model_version='2021-09-18-"é"',
    )
    for each in (one, estimated):
        book = StatusBook(lambda *_: None)
        book.update(each)
        for row in range(len(each)):
            body, _ = book.status(f"v{row}")
            said = json.loads(body)
            assert said.pop("as_of") == iso(each.standing.as_of)
            assert said == venue_now(each, row)


def test_the_door_takes_what_is_told_in_parts_at_once() -> None:
    statuses = Statuses()
    statuses.take(b"Fone\na\tA\nb\tB")
    for part in (b"Ptwo\nc\tC", b"Ptwo\nb\tB2"):
        statuses.take(part)
        assert (statuses.as_of, statuses.bodies) == (b"one", {b"a": b"A", b"b": b"B"})
    statuses.take(b"Dtwo\nd\tD")
    assert (statuses.as_of, statuses.bodies) == (b"two", {b"a": b"A", b"b": b"B2", b"c": b"C", b"d": b"D"})
    statuses.take(b"Pthree\ne\tE")
    statuses.take(b"Fthree\nf\tF")
    assert (statuses.as_of, statuses.bodies) == (b"three", {b"e": b"E", b"f": b"F"})


@pytest.mark.parametrize(
    "request_lines",
    ["GET /api/v1/venues/nobody/now HTTP/1.1", "POST /api/v1/venues/v0/now HTTP/1.1", "GET /api/v1/venues/v0/now?x HTTP/1.1",
     "GET /api/v1/venues/v0/now HTTP/1.0", "GET /api/v1/venues/v0/now HTTP/1.1\r\nContent-Length: 3",
     "GET /api/v1/venues/v0/now HTTP/1.1\r\nHost: x\r\nConnection: close", "GET / HTTP/1.1"],
)  # fmt: skip
def test_the_door_leaves_to_the_application_what_it_does_not_fully_understand(request_lines: str) -> None:
    statuses = Statuses()
    statuses.take(b"Fnow\nv0\t{")
    assert statuses.answer(request_lines.encode()) is None


def told(stream: AsyncIterator[bytes], count: int) -> list[tuple[str, str, object]]:
    """The next messages of a stream: id, event, data."""

    async def read() -> list[tuple[str, str, object]]:
        found: list[tuple[str, str, object]] = []
        async for message in stream:
            fields = dict(line.split(": ", 1) for line in message.decode().splitlines() if line)
            if "data" in fields:
                found.append((fields["id"], fields["event"], json.loads(fields["data"])))
            if len(found) == count:
                break
        return found

    return asyncio.run(asyncio.wait_for(read(), 30))


def test_a_page_that_comes_back_is_told_what_it_missed_and_a_new_one_everything() -> None:
    feed = Feed()
    feed.publish(None, lambda: "all 1")
    ((first, event, data),) = told(feed.follow(None), 1)
    assert (event, data) == ("snapshot", "all 1")
    feed.publish("change 2", lambda: "all 2")
    feed.publish("change 3", lambda: "all 3")
    assert [message[1:] for message in told(feed.follow(first), 2)] == [("delta", "change 2"), ("delta", "change 3")]
    for unknown in (None, "", "elsewhere-1", first + "0", first.replace("-1", "-x")):
        assert [message[1:] for message in told(feed.follow(unknown), 1)] == [("snapshot", "all 3")]


def test_a_page_that_was_away_too_long_is_told_everything() -> None:
    feed = Feed()
    feed.publish(None, lambda: "all 1")
    ((first, *_),) = told(feed.follow(None), 1)
    for number in range(REMEMBERED + 1):
        feed.publish(number, lambda: "all")
    assert [message[1:] for message in told(feed.follow(first), 1)] == [("snapshot", "all")]


@pytest.mark.parametrize("busy", [False, True], ids=["silent", "busy"])
def test_a_stream_ends_in_time_so_that_who_follows_it_is_judged_anew(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    monkeypatch.setattr(feeds, "STREAM_SECONDS", 0.1)
    feed = Feed()
    feed.publish(None, lambda: "all")

    async def follow() -> bytes:
        async for message in feed.follow(None):
            assert feed.readers == 1
            last = message
            if busy:
                feed.publish("change", lambda: "all")
                await asyncio.sleep(0.001)
        return last

    last = asyncio.run(asyncio.wait_for(follow(), 10))
    assert feed.readers == 0
    # It comes back as one that missed nothing.
    seen = dict(line.split(": ", 1) for line in last.decode().splitlines() if line)["id"]
    feed.publish("news", lambda: "all")
    assert {event for _, event, _ in told(feed.follow(seen), 1)} == {"delta"}


def ask_for_alerts(folder: str) -> list[object]:
    """What the API finds in a store without crowding alerts, and in one that has five, one of them cleared."""
    from pipeline.api.questions import alerts, alerts_at_a_glance
    from pipeline.api.reader import open_reader
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    settings = Settings(store=Path(folder))
    client = open_store(settings)
    reader = open_reader(settings)
    found: list[object] = [alerts(reader, active=False, venue="", before=None, limit=10)]
    client.command("DROP VIEW IF EXISTS crowding_alerts")
    client.command("""
        CREATE VIEW crowding_alerts AS
        SELECT
            concat('a', toString(number)) AS alert_id, concat('v', toString(number % 2)) AS venue_id, 'warning' AS level,
            toDateTime64(1632047400, 3, 'UTC') + 60 * intDiv(number, 2) AS raised_at,
            if(number = 4, raised_at + 120, NULL) AS cleared_at, toUInt32(100) AS peak, toUInt32(90) AS capacity
        FROM numbers(5)
    """)
    found.append([row["alert_id"] for row in alerts(reader, active=True, venue="", before=None, limit=10) or ()])
    found.append([row["alert_id"] for row in alerts(reader, active=False, venue="v0", before=None, limit=10) or ()])
    pages, before = [], None
    while page := alerts(reader, active=False, venue="", before=before, limit=2):
        pages += [(row["alert_id"], row["cleared_at"]) for row in page]
        before = page[-1]["raised_at"], page[-1]["alert_id"]
    found.append(pages)
    shown, counted = alerts_at_a_glance(reader, 1_632_047_640_000, 3)
    found.append(([row["alert_id"] for row in shown], counted))
    found.append(alerts_at_a_glance(reader, 1_632_047_640_001, 3)[1])
    return found


def test_alerts_come_newest_first_in_pages_and_a_store_without_them_is_no_error(tmp_path: Path) -> None:
    without, active, of_one_venue, pages, glance, later = run_isolated(ask_for_alerts, str(tmp_path))
    assert without is None or without == []
    assert active == ["a3", "a2", "a1", "a0"]
    assert of_one_venue == ["a4", "a2", "a0"]
    assert pages == [("a4", 1_632_047_640_000), ("a3", None), ("a2", None), ("a1", None), ("a0", None)]
    # Of four that last the newest three, then the one that has cleared.
    assert glance == (["a2", "a3", "a0", "a4"], {"raised": 4, "critical": 0, "cleared": 1})
    assert later == {"raised": 4, "critical": 0, "cleared": 0}


def readings(folder: str) -> list[tuple[list[object], list[object]]]:
    """Of a store that changes, each time: the view `occupancy_now`, and what the page reads, of a venue a row."""
    from pipeline.api.reader import open_reader
    from pipeline.api.snapshot import read_snapshot
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    client = open_store(Settings(store=Path(folder)))
    reader = open_reader(Settings(store=Path(folder)))
    before: Snapshot | None = None
    venues = "INSERT INTO registry_rows (venue_id, name, category, capacity, version) VALUES"
    estimates = "INSERT INTO estimate_rows VALUES"
    found = []
    for change in (
        "SELECT 1",
        f"{venues} ('b', 'B', 'mall', 10, 1), ('d', '', 'mall', NULL, 1)",
        "INSERT INTO now_rows VALUES ('b', 4, 1), ('a', 9, 1)",
        f"{estimates} ('b', 2.5, 1, 4, 0.3, 'm1', 1, 0), ('d', 1, 0, 2, 0.3, 'm1', 1, 0), ('x', 1, 0, 2, 0.3, 'm1', 1, 0)",
        "INSERT INTO now_rows VALUES ('b', 12, 2), ('c', 1, 2), ('d', 3, 2)",
        f"{estimates} ('b', NULL, NULL, NULL, NULL, NULL, 2, 1), ('c', 0.5, 0, 2, NULL, 'm2', 2, 0)",
        f"{venues} ('c', 'C', 'mall', 7, 2), ('b', 'B', 'mall', 20, 2)",
    ):
        client.command(change)
        seen = before = read_snapshot(reader, before)
        columns = (seen.occupancy, seen.capacity, seen.expected, seen.low, seen.high, seen.share)
        rows = zip(seen.places.ids.to_pylist(), *(column.tolist() for column in columns), strict=True)
        view = client.query(
            "SELECT venue_id, occupancy, capacity, expected, low, high, check_out_share FROM occupancy_now ORDER BY venue_id"
        ).result_rows
        found.append(([list(row) for row in view], [[None if cell != cell else cell for cell in row] for row in rows]))
    found.append(([seen.model_version], ["m2"]))
    return found


def test_the_page_reads_what_the_view_says_however_the_store_changes(tmp_path: Path) -> None:
    found = run_isolated(readings, str(tmp_path))
    assert [len(view) for view, _ in found] == [0, 2, 3, 3, 4, 4, 4, 1]
    for view, read in found:
        assert read == view


def test_at_the_door_more_connections_than_there_is_room_for_are_told_to_come_again() -> None:
    inside: set[_Caller] = set()
    first, second, third = ((_Caller(Statuses(), 0, inside, most=1), Mock()) for _ in range(3))
    for caller, transport in (first, second):
        caller.connection_made(transport)
    first[1].write.assert_not_called()
    assert second[1].write.call_args[0][0].startswith(b"HTTP/1.1 503 ")
    second[1].close.assert_called_once()
    for caller, _ in (second, first):
        caller.connection_lost(None)
    third[0].connection_made(third[1])
    third[1].close.assert_not_called()
