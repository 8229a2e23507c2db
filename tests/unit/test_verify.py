"""`pipeline verify` against a reference that looks at every tick, and against differences planted in every view."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.isolated import run_isolated

pytestmark = pytest.mark.long

MINUTE = 60_000
HOUR = 60 * MINUTE
#: Every time of the made-up world is a multiple of this, so that sampling at it misses nothing.
TICK = 20_000
START = int(datetime(2021, 9, 19, tzinfo=UTC).timestamp() * 1000)
AS_OF = START + 30 * HOUR + 7 * TICK

STAYS = {"mall": 4 * HOUR, "restaurant": 90 * MINUTE, "office": 12 * HOUR, "unknown": 4 * HOUR}
#: venue → (category, capacity); `stranger` has scans and is not registered, `empty` is registered and has none.
VENUES = {
    "mall-1": ("mall", 12),
    "mall-2": ("mall", None),
    "eatery": ("restaurant", 5),
    "works": ("office", 8),
    "empty": ("restaurant", 3),
}
SCANNED = ("mall-1", "mall-2", "eatery", "works", "stranger")

COLUMNS = {
    "visits": "venue_id String, visitor_id String, checked_in_at DateTime64(3, 'UTC'), left_at DateTime64(3, 'UTC'), "
    "ended_by String, party_size UInt8",
    "occupancy_minutes": "venue_id String, minute DateTime('UTC'), arrivals UInt32, departures UInt32, "
    "occupancy UInt32, peak UInt32",
    "occupancy_hours": "venue_id String, hour DateTime('UTC'), arrivals UInt32, departures UInt32, "
    "mean_occupancy Float64, peak UInt32, minutes_over_capacity Float64, person_contact_minutes Float64",
    "rolling_occupancy": "venue_id String, `window` String, window_end DateTime('UTC'), arrivals UInt32, "
    "unique_visitors UInt32, peak UInt32, mean_occupancy Float64, median_dwell_minutes Nullable(Float64)",
    "occupancy_now": "venue_id String, occupancy UInt32, capacity Nullable(UInt32), ratio Nullable(Float64), "
    "as_of DateTime64(3, 'UTC')",
    "crowding_alerts": "venue_id String, level String, raised_at DateTime64(3, 'UTC'), alert_id String, "
    "cleared_at Nullable(DateTime64(3, 'UTC')), peak UInt32, capacity UInt32",
    "scans": "event_id String, event_type String, venue_id String, visitor_id String, "
    "occurred_at DateTime64(3, 'UTC'), party_size UInt8, source String",
    "venues": "venue_id String, name String, category String, capacity Nullable(UInt32)",
    "clock": "mode String, as_of DateTime64(3, 'UTC')",
    "accounting": "topic String, partition UInt32, next_offset UInt64, consumed UInt64, accepted UInt64, "
    "stored UInt64, duplicates UInt64, dead_lettered UInt64",
    "dead_letters": "topic String, partition UInt32, offset UInt64, reason String",
}
KEYS = {
    "visits": 3,
    "occupancy_minutes": 2,
    "occupancy_hours": 2,
    "rolling_occupancy": 2,
    "occupancy_now": 1,
    "crowding_alerts": 3,
}
DERIVED = tuple(KEYS)
#: level → (share of the capacity that raises, in tenths, and for how long; the one that clears, and for how long); the office's
#: own rule for warnings, and of one eatery among restaurants.
CROWDING = {"warning": (10, 2 * MINUTE, 9, 5 * MINUTE), "critical": (11, MINUTE, 9, 5 * MINUTE)}
OFFICE_WARNING, EATERY_CRITICAL = (8, 10 * MINUTE, 5, 20 * MINUTE), (20, MINUTE, 9, 5 * MINUTE)


@dataclass(frozen=True)
class Scan:
    venue: str
    visitor: str
    check_out: bool
    at: int
    party: int


@dataclass(frozen=True)
class Visit:
    venue: str
    visitor: str
    start: int
    end: int
    ended_by: str
    party: int


def day_of_scans(seed: int) -> list[Scan]:
    """A day with rescans, lone check-outs, stays of every length, and the exact limits."""
    rng = random.Random(seed)
    scans: dict[tuple[Any, ...], Scan] = {}
    for venue in SCANNED:
        for person in range(40):
            at = START + rng.randrange(20 * HOUR // TICK) * TICK
            for _ in range(rng.randrange(1, 7)):
                scan = Scan(venue, f"visitor-{person}", rng.random() < 0.45, at, rng.choice((1, 1, 1, 4)))
                scans[venue, scan.visitor, scan.check_out, at] = scan
                at += rng.choice(
                    (0, 0, TICK, 90 * MINUTE, 90 * MINUTE, 4 * HOUR, 12 * HOUR, 24 * HOUR, 24 * HOUR + TICK)
                )
                at += rng.choice((0, 0, rng.randrange(3 * HOUR // TICK) * TICK))
    return [scan for scan in scans.values() if scan.at <= AS_OF]


def visits_of(scans: list[Scan]) -> list[Visit]:
    pairs: dict[tuple[str, str], list[Scan]] = defaultdict(list)
    for scan in sorted(scans, key=lambda scan: (scan.at, scan.check_out)):
        pairs[scan.venue, scan.visitor].append(scan)
    visits = []
    for (venue, visitor), in_order in pairs.items():
        limit = STAYS[VENUES.get(venue, ("unknown", None))[0]]
        opened: Scan | None = None
        for scan in in_order:
            if opened and scan.check_out and scan.at - opened.at <= 24 * HOUR:
                visits.append(Visit(venue, visitor, opened.at, scan.at, "check_out", opened.party))
                opened = None
            elif opened and (scan.check_out or scan.at >= opened.at + limit):
                visits.append(Visit(venue, visitor, opened.at, opened.at + limit, "expired", opened.party))
                opened = None
            if opened is None and not scan.check_out:
                opened = scan
        if opened:
            ended_by = "expired" if opened.at + limit <= AS_OF else "open"
            visits.append(Visit(venue, visitor, opened.at, opened.at + limit, ended_by, opened.party))
    return visits


def present(visits: list[Visit], at: int) -> int:
    return sum(visit.party for visit in visits if visit.start <= at < visit.end)


def moved(visits: list[Visit], start: int, length: int) -> tuple[int, int]:
    """Arrivals and departures (up to the clock), in persons, in [start, start + length)."""
    arrivals = sum(visit.party for visit in visits if start <= visit.start < start + length)
    return arrivals, sum(visit.party for visit in visits if start <= visit.end < start + length and visit.end <= AS_OF)


def reference(scans: list[Scan]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every derived view, by looking at every tick; times in epoch milliseconds."""
    visits = visits_of(scans)
    tables: dict[str, list[tuple[Any, ...]]] = {name: [] for name in DERIVED}
    tables["visits"] = [astuple(visit) for visit in visits]
    for venue in {*SCANNED, *VENUES}:
        here = [visit for visit in visits if visit.venue == venue]
        capacity = VENUES.get(venue, ("unknown", None))[1]
        ticks = {at: present(here, at) for at in range(START, START + 56 * HOUR, TICK)}
        for minute in range(START, START + 56 * HOUR, MINUTE):
            arrivals, departures = moved(here, minute, MINUTE)
            if arrivals or departures:
                end = minute + MINUTE
                occupancy = sum(visit.party for visit in here if visit.start < end <= visit.end)
                peak = max(ticks[at] for at in range(minute, end, TICK))
                tables["occupancy_minutes"].append((venue, minute, arrivals, departures, occupancy, peak))
        for hour in range(START, START + 56 * HOUR, HOUR):
            arrivals, departures = moved(here, hour, HOUR)
            counts = [ticks[at] for at in range(hour, hour + HOUR, TICK)]
            if arrivals or departures or (any(counts) and hour <= AS_OF):
                over = sum(TICK for count in counts if capacity is not None and count > capacity) / MINUTE
                contacts = sum(count * (count - 1) // 2 * TICK for count in counts) / MINUTE
                mean = sum(counts) * TICK / HOUR
                tables["occupancy_hours"].append((venue, hour, arrivals, departures, mean, max(counts), over, contacts))
        end = AS_OF - AS_OF % MINUTE
        for name, width in (("15m", 15 * MINUTE), ("60m", 60 * MINUTE)):
            start = end - width
            counts = [ticks[at] for at in range(start, end, TICK)]
            dwells = [visit.end - visit.start for visit in here if start <= visit.end < end]
            arrivals, _ = moved(here, start, width)
            seen = {visit.visitor for visit in here if visit.start < end and visit.end > max(start, visit.start)}
            if any(counts) or arrivals or dwells:
                dwell = median(dwells) / MINUTE if dwells else None
                mean = sum(counts) * TICK / width
                row = (venue, name, end, arrivals, len(seen), max(counts), mean, dwell)
                tables["rolling_occupancy"].append(row)
        now = present(here, AS_OF)
        tables["occupancy_now"].append((venue, now, capacity, None if capacity is None else now / capacity, AS_OF))
        if capacity is not None:
            tables["crowding_alerts"] += alerts(venue, capacity, ticks)
    return tables


def alerts(venue: str, capacity: int, ticks: dict[int, int]) -> list[tuple[Any, ...]]:
    """Crowding, a tick at a time: how long what changes the state has held."""
    rows = []
    rules = dict(CROWDING)
    rules |= (
        {"warning": OFFICE_WARNING} if venue == "works" else {"critical": EATERY_CRITICAL} if venue == "eatery" else {}
    )
    for level, (high, raise_for, low, clear_for) in rules.items():
        raised, held, seen = None, 0, []
        for at in range(START, AS_OF + 1, TICK):
            if raised is None and held == raise_for:
                raised, held = at, 0
                seen.append((raised, None))
            elif raised is not None and held == clear_for:
                seen[-1] = (raised, at)
                raised, held = None, 0
            crowded, relaxed = ticks[at] * 10 >= high * capacity, ticks[at] * 10 < low * capacity
            held = held + TICK if (relaxed if raised is not None else crowded) else 0
        for begin, end in seen:
            name = hashlib.sha256(f"{venue}|{level}|{begin}".encode()).hexdigest()[:16]
            peak = max(ticks[at] for at in range(begin, AS_OF + 1 if end is None else end, TICK))
            rows.append((venue, level, begin, name, end, peak, capacity))
    return rows


def write(client: Any, name: str, rows: list[tuple[Any, ...]]) -> None:
    """Put a table of these rows where the store has a view."""
    client.command(f"DROP VIEW IF EXISTS {name}")
    client.command(f"DROP TABLE IF EXISTS {name}")
    client.command(f"CREATE TABLE {name} ({COLUMNS[name]}) ENGINE = MergeTree ORDER BY tuple()")
    # Times are epoch milliseconds here; the client takes datetimes.
    timed = [i for i, column in enumerate(COLUMNS[name].replace("(3, ", "(3;").split(", ")) if "DateTime" in column]
    converted = [
        [
            datetime.fromtimestamp(cell / 1000, UTC) if i in timed and cell is not None else cell
            for i, cell in enumerate(row)
        ]
        for row in rows
    ]
    if converted:
        client.insert(name, converted)


def rule_of(rule: tuple[int, int, int, int]) -> dict[str, float | timedelta]:
    high, raise_for, low, clear_for = rule
    holds = {"raise_for": timedelta(milliseconds=raise_for), "clear_for": timedelta(milliseconds=clear_for)}
    return {"raise_at": high / 10, "clear_below": low / 10, **holds}


def in_seconds(rule: tuple[int, int, int, int]) -> dict[str, float]:
    return {k: v.total_seconds() if isinstance(v, timedelta) else v for k, v in rule_of(rule).items()}


def build(path: str, seed: int) -> Any:
    """A store at `path` whose tables the reference has filled; returns its client and the settings."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    settings = Settings(
        store=Path(path),
        max_stay_by_category={name: timedelta(milliseconds=stay) for name, stay in STAYS.items() if name != "unknown"},
        crowding_by_category={"office": {"warning": rule_of(OFFICE_WARNING)}},
        crowding_by_venue={"eatery": {"critical": rule_of(EATERY_CRITICAL)}},
    )
    client = open_store(settings)
    scans = day_of_scans(seed)
    for name, rows in reference(scans).items():
        write(client, name, rows)
    kinds = ("check_in", "check_out")
    stored = [(f"e-{i}", kinds[s.check_out], s.venue, s.visitor, s.at, s.party, "app") for i, s in enumerate(scans)]
    write(client, "scans", stored)
    write(client, "venues", [(venue, venue, *rest) for venue, rest in VENUES.items()])
    write(client, "clock", [("events", AS_OF)])
    half, rest = len(scans) // 2, len(scans) - len(scans) // 2
    accounts = [("check-ins", 0, 9, half + 5, half + 3, half, 3, 2), ("check-ins", 1, 9, rest, rest, rest, 0, 0)]
    write(client, "accounting", accounts + [("check-ins", partition, 0, 0, 0, 0, 0, 0) for partition in (2, 3, 4)])
    write(client, "dead_letters", [("check-ins", 0, 3, "schema"), ("check-ins", 0, 4, "not_json")])
    return client, settings


def findings(client: Any, settings: Any) -> dict[str, tuple[int, int, tuple[str, ...]]]:
    from pipeline.store.verify import verify

    return {check.name: (check.rows, check.differences, check.examples) for check in verify(client, settings).checks}


def equal_stores(path: str) -> list[dict[str, Any]]:
    """What verify finds in equal stores of several seeds, and in one that is cut into many slices."""
    import pipeline.store.verify as module

    found = []
    for seed in range(4):
        client, settings = build(path, seed)
        found.append(findings(client, settings))
    module.SCANS_PER_SLICE = 120
    found.append(findings(client, settings))
    return found


def planted(path: str) -> dict[str, Any]:
    """What verify finds when rows differ in several ways, in every derived view at once; and with wrong accounts."""
    client, settings = build(path, 1)
    found: dict[str, Any] = {"rows": {name: client.query(f"SELECT * FROM {name}").row_count for name in DERIVED}}
    for name in (*DERIVED, "scans", "accounting"):
        client.command(f"RENAME TABLE {name} TO {name}_equal")
        client.command(f"CREATE VIEW {name} AS SELECT * FROM {name}_equal")

    def plant(kind: str, select: dict[str, str]) -> None:
        for name, sql in select.items():
            client.command(f"CREATE OR REPLACE VIEW {name} AS {sql}")
        found[kind] = findings(client, settings)

    plant("values", {name: with_every_value_changed(client, name) for name in DERIVED})
    rows = {name: f"SELECT * FROM {name}_equal ORDER BY ALL LIMIT" for name in DERIVED}
    copies = {name: f"SELECT * FROM {name}_equal UNION ALL ({row} 3)" for name, row in rows.items()}
    plant("twice", copies)
    plant("missing", {name: f"{row} 2, 1000000" for name, row in rows.items()})
    elsewhere = {name: f"SELECT * REPLACE('elsewhere' AS venue_id) FROM ({row} 1)" for name, row in rows.items()}
    plant("extra", {name: f"SELECT * FROM {name}_equal UNION ALL {row}" for name, row in elsewhere.items()})
    plant("all", {name: f"{row} 0" for name, row in rows.items()})
    plant("none", {name: f"SELECT * FROM {name}_equal" for name in DERIVED})
    again = "SELECT * FROM scans_equal UNION ALL (SELECT * FROM scans_equal ORDER BY event_id LIMIT 1)"
    plant("repeated scan", {"scans": again})
    plant("lost scan", {"scans": "SELECT * FROM scans_equal ORDER BY event_id LIMIT 1, 1000000"})
    columns = ("consumed", "accepted", "stored", "duplicates", "dead_lettered")
    wrong = ", ".join(f"{name} + (partition = {number}) AS {name}" for number, name in enumerate(columns))
    plant(
        "accounts",
        {"scans": "SELECT * FROM scans_equal", "accounting": f"SELECT topic, partition, {wrong} FROM accounting_equal"},
    )
    return found


def with_every_value_changed(client: Any, name: str) -> str:
    """The rows of a view, the first value column changed in one row, the second in another, and so on."""
    columns = [(row[0], row[1]) for row in client.query(f"DESCRIBE TABLE {name}_equal").result_rows]
    whole = " AND ".join(f"isNotNull(`{column}`)" for column, _ in columns)
    changed = []
    for number, (column, type_) in enumerate(columns):
        if number < KEYS[name]:
            continue
        if "Float" in type_:
            # The next float up: the smallest difference there is.
            change = f"reinterpretAsFloat64(reinterpretAsUInt64(assumeNotNull(`{column}`)) + 1)"
        elif type_ == "String":
            change = "'other'"
        elif "DateTime64" in type_:
            change = f"addMilliseconds(`{column}`, 1)"
        else:
            change = f"`{column}` + 1"
        # Rows in which every nullable value is there come first, so that each column can be changed.
        changed.append(f"if(number = {number - KEYS[name] + 1}, {change}, `{column}`)::{type_} AS `{column}`")
    order = ", ".join(f"`{column}`" for column, _ in columns)
    numbered = f"SELECT *, row_number() OVER (ORDER BY NOT ({whole}), {order}) AS number FROM {name}_equal"
    return f"SELECT * EXCEPT number REPLACE({', '.join(changed)}) FROM ({numbered})"


def change(client: Any, table: str, assignments: str, where: str = "1") -> None:
    client.command(f"ALTER TABLE {table} UPDATE {assignments} WHERE {where} SETTINGS mutations_sync = 1")


def after_removals(path: str) -> dict[str, Any]:
    """The accounting of a store that has fewer scans than were stored, as more and more of them are said to be removed."""
    client, settings = build(path, 2)
    change(
        client, "accounting", "stored = stored + 7, accepted = accepted + 7, consumed = consumed + 7", "partition = 0"
    )
    found = {"none": findings(client, settings)}
    for removed in (7, 8):
        client.command(
            "CREATE OR REPLACE VIEW checkins.retention AS SELECT toDateTime64(0, 3, 'UTC') AS kept_from, "
            f"toDateTime64(0, 3, 'UTC') AS closed_before, {removed} AS scans_removed"
        )
        found[str(removed)] = findings(client, settings)
    # Of one venue only removed scans tell; in another there is somebody whom no scan tells of.
    for venue, persons in (("forgotten", 0), ("invented", 1)):
        at = f"toDateTime64({AS_OF / 1000}, 3, 'UTC')"
        client.command(f"INSERT INTO occupancy_now VALUES ('{venue}', {persons}, NULL, NULL, {at})")
        found[venue] = findings(client, settings)
    return found


def store_for_the_command(path: str, spoil: bool) -> None:
    client, _ = build(path, 3)
    if spoil:
        change(client, "occupancy_minutes", "peak = peak + 1", "venue_id = 'eatery'")
    client.close()


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = run_isolated(planted, str(tmp_path_factory.mktemp("planted")))
    return found


def test_equal_stores_are_found_equal_whatever_the_seed_and_the_slices(tmp_path: Path) -> None:
    found = run_isolated(equal_stores, str(tmp_path))
    for checks in found:
        assert {name: finding[1:] for name, finding in checks.items() if finding[1]} == {}
        assert all(checks[name][0] > 0 for name in DERIVED)
    assert found[-1] == found[-2]


@pytest.mark.parametrize("view", DERIVED)
def test_a_change_of_any_one_value_is_found(differences: dict[str, Any], view: str) -> None:
    values = COLUMNS[view].replace("(3, ", "(").split(", ")[KEYS[view] :]
    _, count, examples = differences["values"][view]
    assert count == len(values)
    changed = {value.split()[0].strip("`") for value in values}
    shown = {example.split(": stored ")[1].split()[0] for example in examples}
    assert len(shown) == min(len(values), 5)
    assert shown <= changed


@pytest.mark.parametrize(("kind", "rows"), [("missing", 2), ("twice", 3), ("extra", 1)])
@pytest.mark.parametrize("view", DERIVED)
def test_rows_that_are_missing_repeated_or_invented_are_found(
    differences: dict[str, Any], view: str, kind: str, rows: int
) -> None:
    _, count, examples = differences[kind][view]
    assert count == len(examples) == rows


def test_a_view_without_rows_differs_in_all_of_them(differences: dict[str, Any]) -> None:
    for view in DERIVED:
        rows, count, examples = differences["all"][view]
        assert rows == count == differences["rows"][view]
        assert len(examples) == 5


def test_what_was_mended_is_equal_again(differences: dict[str, Any]) -> None:
    assert sum(finding[1] for finding in differences["none"].values()) == 0


def test_an_example_names_the_venue_the_time_and_both_values_but_no_visitor(differences: dict[str, Any]) -> None:
    peak = next(text for text in differences["values"]["occupancy_minutes"][2] if "peak" in text)
    assert peak.startswith("eatery at 2021-09-")
    stored, recomputed = peak.split(": ", 1)[1].split("; ")
    assert int(stored.removeprefix("stored peak ")) == int(recomputed.removeprefix("recomputed peak ")) + 1
    everything = str({kind: found for kind, found in differences.items() if kind != "rows"})
    assert "visitor-" not in everything
    assert "visitor #" in everything


def test_a_repeated_scan_is_found(differences: dict[str, Any]) -> None:
    assert differences["repeated scan"]["scans are unique"][1] == 1
    assert differences["repeated scan"]["stored scans are there"][1] == 1


def test_a_lost_scan_is_found(differences: dict[str, Any]) -> None:
    assert differences["lost scan"]["scans are unique"][1] == 0
    assert differences["lost scan"]["stored scans are there"][1] == 1
    assert sum(differences["lost scan"][view][1] for view in DERIVED) > 0


def test_each_wrong_account_is_found(differences: dict[str, Any]) -> None:
    assert differences["accounts"]["accounting adds up"][:2] == (5, 5)
    assert differences["accounts"]["stored scans are there"][1] == 1
    assert differences["accounts"]["dead letters are there"][1] == 1
    assert differences["none"]["accounting adds up"][:2] == (5, 0)


def test_scans_that_are_no_longer_there_are_excused_to_the_last_one_by_what_was_removed(tmp_path: Path) -> None:
    found = run_isolated(after_removals, str(tmp_path))
    assert {removed: checks["stored scans are there"][1] for removed, checks in found.items()} == {
        "none": 7,
        "7": 0,
        "8": 1,
        "forgotten": 1,
        "invented": 1,
    }
    assert (found["forgotten"]["occupancy_now"][1], found["invented"]["occupancy_now"][1]) == (0, 1)


@pytest.mark.parametrize("spoilt", [False, True], ids=["equal", "different"])
def test_the_command_says_for_each_view_whether_it_is_equal(tmp_path: Path, spoilt: bool) -> None:
    run_isolated(store_for_the_command, str(tmp_path / "store"), spoilt)
    stays = json.dumps({name: stay // 1000 for name, stay in STAYS.items()})
    run = subprocess.run(
        [sys.executable, "-m", "pipeline", "verify", "--store", str(tmp_path / "store")],
        env={
            **os.environ,
            "PIPELINE_MAX_STAY_BY_CATEGORY": stays,
            "PIPELINE_CROWDING_BY_CATEGORY": json.dumps({"office": {"warning": in_seconds(OFFICE_WARNING)}}),
            "PIPELINE_CROWDING_BY_VENUE": json.dumps({"eatery": {"critical": in_seconds(EATERY_CRITICAL)}}),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == int(spoilt), run.stderr
    lines = {line[:22].strip(): line for line in run.stdout.splitlines() if not line.startswith(" ")}
    assert lines["visits"].endswith("rows   equal")
    assert lines["occupancy_minutes"].endswith("differ" if spoilt else "equal")
    assert ("eatery at 2021-" in run.stdout) is spoilt
    assert "Traceback" not in run.stderr
    assert not (tmp_path / ".pipeline").exists(), "counts are nobody's: nothing is noted"


def test_the_command_says_that_it_does_not_recompute_alerts_by_an_estimate(tmp_path: Path) -> None:
    run_isolated(store_for_the_command, str(tmp_path / "store"), False)
    run = subprocess.run(
        [sys.executable, "-m", "pipeline", "verify", "--store", str(tmp_path / "store")],
        env={**os.environ, "PIPELINE_CROWDING_BASIS": "high"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = {line[:22].strip(): line for line in run.stdout.splitlines() if not line.startswith(" ")}
    assert lines["crowding_alerts"].endswith("0 rows   not recomputed: crowding_basis is high")
    assert lines["scans are unique"].endswith("equal")
