import gzip
import json
import signal
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from threading import Event
from time import monotonic
from types import ModuleType, TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline.commands.simulate import command
from pipeline.core.judge import Refusal, judge_scan
from pipeline.errors import UserError
from pipeline.simulate import facts
from pipeline.simulate.day import ArrivalBatch, DayPlan, simulate_day, truth, venues
from pipeline.simulate.malformed import KINDS
from pipeline.simulate.options import DAY, HOUR, MINUTE, SECOND, SimulationOptions
from pipeline.simulate.send import send_day
from schemas.scan import Scan
from schemas.venue import Venue

OPTIONS = SimulationOptions(check_ins=20_000, seed=7)


@dataclass(frozen=True)
class Record:
    line: bytes
    key: bytes | None
    arrival: int
    malformed: bool


def records(options: SimulationOptions) -> list[Record]:
    return [
        Record(*record)
        for batch in simulate_day(options)
        for record in zip(batch.lines, batch.keys, batch.arrival_ms.tolist(), batch.malformed.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class Day:
    """A day as an outsider sees it: its lines judged, its truth and its registry, all times in ms since the epoch."""

    records: list[Record]
    scans: list[tuple[Record, Scan]]
    truth: dict[str, list[object]]
    venues: dict[str, Venue]

    def column(self, name: str) -> np.ndarray:
        return np.array(self.truth[name])

    def by_category(self, name: str) -> np.ndarray:
        """Which true visits are at venues of a category."""
        return np.array([self.venues[str(venue)].category == name for venue in self.truth["venue_id"]])


def judged(record: Record) -> Scan:
    verdict = judge_scan(record.line)
    assert isinstance(verdict, Scan), record.line
    return verdict


def true_visits(options: SimulationOptions) -> dict[str, list[object]]:
    table = pa.concat_tables(truth(options))
    for name in ("entered_at", "left_at"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].cast(pa.int64()))
    return table.to_pydict()


def make_day(options: SimulationOptions) -> Day:
    lines = records(options)
    return Day(
        records=lines,
        scans=[(record, judged(record)) for record in lines if not record.malformed],
        truth=true_visits(options),
        venues={venue.venue_id: venue for venue in venues(options)},
    )


@pytest.fixture(scope="module")
def day() -> Day:
    return make_day(OPTIONS)


def identity(scan: Scan) -> tuple[str, str, str, int]:
    return scan.venue_id, scan.visitor_id, scan.event_type, scan.occurred_at


def of_one_visit(day: Day) -> Iterator[tuple[Record, Scan, int]]:
    """The first arrival of each scan that can only tell one thing, and the true time of that."""
    pairs = list(zip(day.truth["venue_id"], day.truth["visitor_id"], strict=True))
    often = Counter(pairs)
    times: dict[object, int] = {}
    for pair, entered, left in zip(pairs, day.truth["entered_at"], day.truth["left_at"], strict=True):
        if often[pair] == 1:
            times[*pair, "check_in"], times[*pair, "check_out"] = int(str(entered)), int(str(left))
    first: dict[object, tuple[Record, Scan]] = {}
    for record, scan in day.scans:
        first.setdefault(identity(scan), (record, scan))
    told = Counter(identity(scan)[:3] for _, scan in first.values())
    for record, scan in first.values():
        key = identity(scan)[:3]
        if key in times and told[key] == 1:
            yield record, scan, times[key]


def test_the_same_seed_gives_the_same_bytes_whatever_the_batches() -> None:
    small = replace(OPTIONS, check_ins=3_000)
    assert records(small) == records(replace(small, batch_lines=97))
    assert [record.line for record in records(small)] != [record.line for record in records(replace(small, seed=8))]


def test_lines_come_in_order_of_arrival_within_the_local_day(day: Day) -> None:
    arrivals = [record.arrival for record in day.records]
    assert arrivals == sorted(arrivals)
    for record, scan in day.scans:
        zone = day.venues[scan.venue_id].timezone
        hours = next(hours for hours, name in facts.TIME_ZONES.items() if name == zone)
        assert 0 <= record.arrival - OPTIONS.midnight + hours * HOUR < DAY


def test_every_line_is_a_scan_or_counted_as_malformed_and_refused(day: Day) -> None:
    for record in day.records:
        assert record.malformed == isinstance(judge_scan(record.line), Refusal), record.line
        assert b"\n" not in record.line
    share = sum(record.malformed for record in day.records) / len(day.records)
    assert share == pytest.approx(facts.MALFORMED, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_malformed_line_is_refused(day: Day, kind: str) -> None:
    spoil, _ = KINDS[kind]
    for number, (record, _) in enumerate(day.scans[:3_000:10]):
        line = spoil(record.line, Random(number))
        assert isinstance(judge_scan(line), Refusal), line
        assert b"\n" not in line


def test_a_valid_record_has_its_venue_as_key(day: Day) -> None:
    assert all(record.key == scan.venue_id.encode() for record, scan in day.scans)
    assert all(scan.venue_id in day.venues for _, scan in day.scans)


def test_check_outs_are_missing_as_asked() -> None:
    for missing in (0.0, 0.4, 1.0):
        scanned = true_visits(replace(OPTIONS, check_ins=5_000, missing=missing))["check_out_scanned"]
        assert np.mean(scanned) == pytest.approx(1 - missing, abs=0.03)


def test_check_outs_miss_seven_in_ten_by_default(day: Day) -> None:
    assert 1 - day.column("check_out_scanned").mean() == pytest.approx(0.70, abs=0.02)


def test_three_in_a_hundred_records_are_sent_again_within_a_minute(day: Day) -> None:
    first: dict[bytes, int] = {}
    waits = []
    for record, _ in day.scans:
        if record.line in first:
            waits.append(record.arrival - first[record.line])
        first.setdefault(record.line, record.arrival)
    assert len(waits) / len(first) == pytest.approx(facts.RETRIES, abs=0.005)
    assert min(waits) > 0
    assert max(waits) <= facts.RETRY_SECONDS * SECOND


def test_one_in_a_hundred_scans_comes_from_a_second_app_too(day: Day) -> None:
    apps: dict[object, set[tuple[str, str]]] = {}
    for _, scan in day.scans:
        apps.setdefault(identity(scan), set()).add((scan.event_id, scan.source))
    twice = [both for both in apps.values() if len(both) > 1]
    assert len(twice) / len(apps) == pytest.approx(facts.SECOND_APPS, abs=0.003)
    assert all(len({source for _, source in both}) == 2 for both in twice)


def test_event_ids_differ_between_scans(day: Day) -> None:
    lines = {record.line for record, _ in day.scans}
    assert len({scan.event_id for _, scan in day.scans}) == len(lines)


def test_two_in_a_hundred_visitors_scan_in_again_while_there(day: Day) -> None:
    stays: dict[tuple[object, object], list[tuple[int, int]]] = {}
    for row in zip(*(day.truth[name] for name in ("venue_id", "visitor_id", "entered_at", "left_at")), strict=True):
        stays.setdefault(row[:2], []).append((int(str(row[2])), int(str(row[3]))))
    rescans = 0
    for key in {identity(scan) for _, scan in day.scans if scan.event_type == "check_in"}:
        venue, visitor, _, occurred = key
        inside = [occurred - entered for entered, left in stays[venue, visitor] if entered < occurred < left]
        rescans += any(0 < after <= facts.RESCAN_MINUTES * MINUTE for after in inside)
    # Phones whose clock is ahead look like rescans: half of 1 %, less those off by more than the stay.
    assert rescans / OPTIONS.check_ins == pytest.approx(facts.RESCANS + 0.002, abs=0.004)


def test_scans_arrive_late_as_often_as_they_should(day: Day) -> None:
    late = np.array([record.arrival - time for record, _, time in of_one_visit(day)])
    assert late.min() >= 0
    assert (late < 5 * SECOND).mean() == pytest.approx(0.95, abs=0.01)
    assert ((late >= 5 * SECOND) & (late < 5 * MINUTE)).mean() == pytest.approx(0.04, abs=0.008)
    assert ((late >= 5 * MINUTE) & (late < 6 * HOUR)).mean() == pytest.approx(0.009, abs=0.004)
    earlier = late > 6 * HOUR
    assert earlier.mean() == pytest.approx(0.001, abs=0.0008)
    assert 2 * DAY < late.max() <= 10 * DAY


def test_one_clock_in_a_hundred_is_off_by_more_than_five_minutes(day: Day) -> None:
    errors = np.array([scan.occurred_at - time for _, scan, time in of_one_visit(day)])
    wrong = errors[errors != 0]
    assert len(wrong) / len(errors) == pytest.approx(facts.WRONG_CLOCKS, abs=0.004)
    assert np.abs(wrong).min() > 300 * SECOND
    assert wrong.min() < 0 < wrong.max()


def test_people_come_by_the_hours_of_the_national_sunday(day: Day) -> None:
    zone = {name: hours for hours, name in facts.TIME_ZONES.items()}
    offsets = np.array([zone[str(day.venues[str(venue)].timezone)] for venue in day.truth["venue_id"]]) * HOUR
    minutes = (day.column("entered_at") + offsets) % DAY // MINUTE
    shares = np.bincount(minutes // 60, minlength=24) / len(minutes) * 100
    assert np.abs(shares - facts.HOURLY_SHARES).max() < 1.0
    # Smooth within the hour: in the steepest, 07:00, the second half has more than the first.
    assert ((minutes >= 450) & (minutes < 480)).sum() > 1.1 * ((minutes >= 420) & (minutes < 450)).sum()


def test_one_scan_stands_for_a_family_and_hides_a_group(day: Day) -> None:
    persons, party = day.column("persons"), day.column("party_size")
    for category in facts.CATEGORIES:
        here = day.by_category(category.name)
        hidden = facts.HIDDEN_GROUPS if category.name in facts.HIDDEN_GROUP_CATEGORIES else 0.0
        assert (party[here] > 1).mean() == pytest.approx(category.families, abs=0.04)
        assert (persons[here] != party[here]).mean() == pytest.approx(hidden, abs=0.03)
    assert set(party) == {1, 2, 3, 4, 5, 6}
    assert set(persons[persons != party]) <= {2, 3, 4, 5, 6}
    assert (party[persons != party] == 1).all()


def test_stays_last_as_long_as_their_category(day: Day) -> None:
    minutes = (day.column("left_at") - day.column("entered_at")) / MINUTE
    assert minutes.min() > 0
    for category in facts.CATEGORIES:
        here = minutes[day.by_category(category.name)]
        assert np.median(here) == pytest.approx(category.dwell_median, rel=0.12)
        assert np.log(here).std() == pytest.approx(category.dwell_sigma, rel=0.25)


def test_check_ins_are_mixed_among_categories(day: Day) -> None:
    for category in facts.CATEGORIES:
        assert day.by_category(category.name).mean() == pytest.approx(category.share, abs=0.06)


def test_venues_differ_in_size_as_the_lognormal_says() -> None:
    plan = DayPlan(replace(OPTIONS, check_ins=143_000))
    logs = np.log(plan.registry.visits[plan.registry.visits > 0])
    assert plan.registry.visits.sum() == 143_000
    assert np.exp(np.median(logs)) == pytest.approx(facts.VENUE_MEDIAN, rel=0.2)
    assert logs.std() == pytest.approx(facts.VENUE_SIGMA, rel=0.15)


def test_a_person_makes_several_visits_one_after_the_other(day: Day) -> None:
    trips: dict[object, list[tuple[int, int, str]]] = {}
    for venue, visitor, entered, left in zip(
        *(day.truth[name] for name in ("venue_id", "visitor_id", "entered_at", "left_at")), strict=True
    ):
        trips.setdefault(visitor, []).append((int(str(entered)), int(str(left)), str(venue)))
    assert OPTIONS.check_ins / len(trips) == pytest.approx(facts.CHECK_INS_PER_PERSON, rel=0.1)
    meals = 0
    for trip in trips.values():
        trip.sort()
        for (_, left, venue), (entered, until, inner) in pairwise(trip):
            if entered < left:
                assert day.venues[venue].category == "mall"
                assert f"in Mall {int(venue[4:])}," in day.venues[inner].name
                assert until <= left
                meals += 1
            assert day.venues[venue].area == day.venues[inner].area
    assert meals > 0


def test_the_truth_and_the_scans_tell_one_story(day: Day) -> None:
    told = {(scan.venue_id, scan.visitor_id, scan.event_type): scan.party_size for _, scan in day.scans}
    known = set()
    for venue, visitor, party, came, went in zip(
        *(day.truth[name] for name in ("venue_id", "visitor_id", "party_size", "check_in_scanned")),
        day.truth["check_out_scanned"],
        strict=True,
    ):
        known |= {(venue, visitor, "check_in")} if came else set()
        known |= {(venue, visitor, "check_out")} if went else set()
        assert party in range(1, 7)
    assert known == set(told)
    for _, scan, time in of_one_visit(day):
        assert abs(scan.occurred_at - time) <= facts.WRONG_CLOCK_SECONDS[1] * SECOND


def test_times_come_in_utc_and_in_local_time(day: Day) -> None:
    local = [scan for record, scan in day.scans if b'Z"' not in record.line]
    assert len(local) / len(day.scans) == pytest.approx(facts.LOCAL_TIMES, abs=0.03)
    zones = {json.loads(record.line)["occurred_at"][-6:] for record, _ in day.scans if b'Z"' not in record.line}
    assert zones == {"+07:00", "+08:00", "+09:00"}


def test_a_city_is_one_area_in_one_time_zone() -> None:
    city = replace(OPTIONS, check_ins=1_000, city="91.71")
    assert {(venue.area, venue.timezone) for venue in venues(city)} == {("91.71", "Asia/Jayapura")}
    assert sum(not record.malformed for record in records(city)) > 1_000


def test_people_come_in_bursts_where_trains_and_services_bring_them() -> None:
    plan = DayPlan(replace(OPTIONS, check_ins=143_000))
    names = np.array([category.name for category in facts.CATEGORIES])[plan.registry.category]

    def dispersion(category: str) -> float:
        """Variance over mean of the arrivals by minute at its largest venue, 10:00–18:00: 1 if each comes alone."""
        venue = np.argmax(np.where(names == category, plan.registry.visits, -1))
        local = plan.visits.entered[plan.visits.venue == venue] + plan.registry.utc_offset[venue]
        minutes = np.bincount(local[(local >= 10 * HOUR) & (local < 18 * HOUR)] // MINUTE - 600, minlength=480)
        return float(minutes.var() / minutes.mean())

    assert dispersion("minimarket") < 1.5
    assert dispersion("transport") > 3


def test_a_few_venues_hold_more_than_they_should() -> None:
    plan = DayPlan(replace(OPTIONS, check_ins=143_000))
    visits, over, known = plan.visits, 0, 0
    persons = visits.persons.astype(int)
    for index, venue in enumerate(plan.venues()):
        if venue.capacity is None:
            continue
        here = (visits.venue == index) & (visits.days_before == 0)
        arrivals = zip(visits.entered[here].tolist(), persons[here].tolist(), strict=True)
        departures = zip(visits.left[here].tolist(), (-persons[here]).tolist(), strict=True)
        changes = sorted([*arrivals, *departures])
        peak = max(np.cumsum([change for _, change in changes]), default=0)
        known += 1
        over += peak > venue.capacity
    assert 0.002 < over / known < 0.08


def test_as_many_venues_as_asked_for() -> None:
    assert len(list(venues(replace(OPTIONS, venues=321)))) == 321


@pytest.mark.parametrize(
    "wrong", [{"check_ins": 0}, {"missing": 1.1}, {"venues": 20_001}, {"city": "00.00"}, {"seed": -1}]
)
def test_options_that_make_no_sense_are_explained(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        replace(OPTIONS, **wrong)  # type: ignore[arg-type]


def test_the_text_is_never_in_memory_at_once() -> None:
    plan = DayPlan(replace(OPTIONS, check_ins=60_000, batch_lines=1_000))
    list(DayPlan(replace(OPTIONS, check_ins=1_000)).batches())  # fills the tables of digits
    tracemalloc.start()
    try:
        text = sum(sum(map(len, batch.lines)) for batch in plan.batches())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < text / 5


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_every_format_of_file_has_the_same_scans(tmp_path: Path) -> None:
    names = ["day.ndjson", "day.ndjson.gz", "day.ndjson.zst", "day.parquet"]
    for name in names:
        assert run("--check-ins", 2_000, "--out", tmp_path / name)[0] == 0
    plain, gz, zst, parquet = (tmp_path / name for name in names)
    lines = plain.read_bytes()
    assert gzip.decompress(gz.read_bytes()) == lines
    with pa.CompressedInputStream(str(zst), "zstd") as file:
        assert file.read() == lines
    assert lines == b"".join(record.line + b"\n" for record in records(SimulationOptions(check_ins=2_000)))
    valid = [scan for line in lines.splitlines() if isinstance(scan := judge_scan(line), Scan)]
    table = pq.read_table(parquet)
    table = table.set_column(4, "occurred_at", table["occurred_at"].cast(pa.int64()))
    assert table.to_pylist() == [scan.model_dump() for scan in valid]


def test_the_registry_and_the_truth_are_written_for_others_to_read(tmp_path: Path) -> None:
    as_csv, as_lines, as_truth = tmp_path / "venues.csv", tmp_path / "venues.ndjson", tmp_path / "truth.parquet"
    code, _ = run("--check-ins", 1_000, "--venues-out", as_csv, "--truth", as_truth)
    assert code == 0
    assert run("--check-ins", 1_000, "--venues-out", as_lines)[0] == 0
    expected = list(venues(SimulationOptions(check_ins=1_000)))
    assert [Venue.model_validate_json(line) for line in as_lines.read_text().splitlines()] == expected
    header, *rows = as_csv.read_text().splitlines()
    assert header.split(",") == list(Venue.model_fields)
    assert len(rows) == len(expected)
    assert pq.read_table(as_truth).num_rows == 1_000
    assert {path.name for path in tmp_path.iterdir()} == {as_csv.name, as_lines.name, as_truth.name}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--out", "day.txt"],
        ["--out", "day.ndjson", "--to-kafka"],
        ["--out", "day.ndjson", "--speed", "10"],
        ["--to-kafka", "--speed", "fast"],
        ["--out", "day.ndjson", "--check-ins", "999"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert run(*arguments)[0] == 2


def test_a_folder_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        run("--check-ins", 1_000, "--out", tmp_path / "none" / "day.ndjson")


@pytest.mark.parametrize("name", ["day.ndjson", "day.ndjson.gz"])
def test_an_interrupt_leaves_whole_lines_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = [record.line for record in records(SimulationOptions(check_ins=30_000))]
    batches = DayPlan.batches

    def interrupted(plan: DayPlan) -> Iterator[ArrivalBatch]:
        for number, batch in enumerate(batches(plan)):
            if number == 1:
                signal.raise_signal(signal.SIGINT)
            yield batch

    monkeypatch.setattr(DayPlan, "batches", interrupted)
    code, output = run("--check-ins", 30_000, "--out", tmp_path / name)
    assert code == 130
    assert "interrupted" in output
    written = (tmp_path / name).read_bytes()
    lines = (gzip.decompress(written) if name.endswith(".gz") else written).split(b"\n")
    assert lines.pop() == b""
    assert f"the first {len(lines):,} of" in output
    assert 0 < len(lines) < len(expected)
    assert lines == expected[: len(lines)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class FakeProducer:
    sent: list[tuple[bytes | None, bytes, int | None]] = []  # noqa: RUF012

    def __init__(self, address: str = "", topic: str = "") -> None:
        self.target = (address, topic)

    def __enter__(self) -> "FakeProducer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def send(self, key: bytes | None, value: bytes, timestamp_ms: int | None = None) -> None:
        self.sent.append((key, value, timestamp_ms))

    def flush(self) -> None:
        self.sent.append((None, repr(self.target).encode(), None))


def test_kafka_gets_every_record_with_its_key_and_its_time_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pipeline.produce")
    module.ScanProducer = FakeProducer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.produce", module)
    monkeypatch.setattr(FakeProducer, "sent", [])
    monkeypatch.setenv("PIPELINE_KAFKA", "broker.example:9092")
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    status, said = run("--check-ins", 1_000, "--to-kafka")
    assert status == 0
    assert str(yesterday) in said
    *sent, last = FakeProducer.sent
    options = SimulationOptions(check_ins=1_000, date=yesterday)
    assert sent == [(record.key, record.line, record.arrival) for record in records(options)]
    assert last[1].startswith(b"(KafkaAccess(address='broker.example:9092'")
    assert last[1].endswith(b", 'check-ins')")


def test_a_day_that_the_broker_would_delete_at_once_is_sent_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pipeline.produce")
    module.ScanProducer = FakeProducer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.produce", module)
    monkeypatch.setenv("PIPELINE_KAFKA", "broker.example:9092")
    status, said = run("--check-ins", 1_000, "--to-kafka", "--date", "2021-09-19")
    assert status == 0
    assert "records of 2021-09-19 are older than the retention (14 days)" in said


@pytest.mark.parametrize(("speed", "seconds"), [(1.0, 0.2), (10.0, 0.02)])
def test_records_are_sent_no_sooner_than_the_speed_allows(speed: float, seconds: float) -> None:
    batch = ArrivalBatch([b"1", b"2", b"3"], [None] * 3, np.array([5_000, 5_100, 5_200]), np.zeros(3, np.bool_))
    producer, started = FakeProducer(), monotonic()
    producer.sent = []
    assert sum(send_day([batch], producer, speed, Event())) == 3
    assert monotonic() - started >= seconds
    assert [value for _, value, _ in producer.sent] == [b"1", b"2", b"3"]


def test_sending_ends_when_it_is_stopped() -> None:
    batch = ArrivalBatch([b"1", b"2"], [None] * 2, np.array([0, DAY]), np.zeros(2, np.bool_))
    stopped = Event()
    producer = FakeProducer()
    producer.sent = []
    for _ in send_day([batch], producer, 1.0, stopped):
        stopped.set()
    assert [value for _, value, _ in producer.sent] == [b"1"]
