"""Models in the field, on the real ClickHouse engine: head counts, the nightly check and refit, what a worker shows."""

import json
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.commands.model import command
from pipeline.errors import UserError
from pipeline.streaming.ports import ModelFigures
from tests.integration.checkins import World
from tests.isolated import run_isolated
from tests.reference import DAY, HOUR, MINUTE, Scan, line_of

_MONDAY = 1_632_096_000_000
_KIOSKS = 4
_VENUES = [
    {"venue_id": f"kiosk-{i}", "name": "Kiosk", "category": "kiosk", "timezone": "Asia/Jakarta"} for i in range(_KIOSKS)
] + [{"venue_id": "hall", "name": "Hall", "category": "hall"}]
#: People for each one named, and how much longer they stay on the last day.
_PEOPLE, _LONGER = 1.25, 2


def a_day(start: int, longer: int, chance: random.Random) -> tuple[list[Scan], list[tuple[str, int, int]]]:
    """Twelve hours of visits of 10 to 50 minutes to the kiosks, half checked out of, and who was there: (venue, from, until)."""
    scans, true = [], []
    for i in range(2400):
        at, visitor, venue = start + chance.randrange(12 * HOUR), f"p{start}-{i}", f"kiosk-{i % _KIOSKS}"
        stay = longer * chance.randint(10 * MINUTE, 50 * MINUTE)
        scans.append(Scan(venue, visitor, "check_in", at))
        true += [(venue, at, at + stay)] * (1 + (chance.random() < _PEOPLE - 1))
        if i % 2:
            scans.append(Scan(venue, visitor, "check_out", at + stay))
    return scans, true


def live(folder: str) -> dict[str, Any]:
    """In an interpreter of its own: three days and a morning, and what is done with a model meanwhile."""
    from pipeline.engine import open_engine
    from pipeline.head_counts import calibrate_model
    from pipeline.model_care import StoreModelCare
    from pipeline.model_check import check_model
    from pipeline.presence import Presence, fit_model
    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from pipeline.store.models import model_at, save_model, use_model
    from pipeline.venues import read_head_counts
    from pipeline.verify_estimates import check_estimates

    settings = Settings(store=Path(folder, "store"))
    client = open_store(settings)
    engine = open_engine(settings, clock="events")
    engine.assign("t", [0])
    records = [json.dumps(venue).encode() for venue in _VENUES]
    engine.load_venues(records, [None] * len(records))
    offset = 0

    def play(scans: list[Scan]) -> None:
        nonlocal offset
        values = [line_of(scan) for scan in scans]
        engine.process("t", 0, range(offset, offset + len(values)), [0] * len(values), values)
        offset += len(values)
        engine.settle()

    chance = random.Random(4)
    care = StoreModelCare(settings)
    seen: dict[str, Any] = {"empty": care.figures(), "nothing to do": care.refit()}
    days = [a_day(_MONDAY + day * DAY, _LONGER if day == 2 else 1, chance) for day in range(3)]
    afternoon = _MONDAY + 2 * DAY + 13 * HOUR
    play(
        [
            *days[0][0],
            *days[1][0],
            Scan("kiosk-0", "k", "check_in", afternoon),
            Scan("hall", "h", "check_in", afternoon),
        ]
    )

    fitted = fit_model(client)
    save_model(client, fitted)
    use_model(client, fitted.version)
    rows = ["venue_id,at,persons"]
    for hour in range(1, 12):
        at = _MONDAY + DAY + hour * HOUR
        for kiosk in range(_KIOSKS):
            there = sum(v == f"kiosk-{kiosk}" and a < at <= left for v, a, left in days[1][1])
            rows.append(f"kiosk-{kiosk},{datetime.fromtimestamp(at / 1000, UTC).isoformat()},{there}")
    counts = Path(folder, "counts.csv")
    counts.write_text("\n".join(rows))
    calibrated = calibrate_model(client, fitted, read_head_counts(counts))
    seen["calibrated"] = (calibrated.model.version != fitted.version, calibrated.by_category["kiosk"])
    seen["kept"] = Presence(fit_model(client, counted=calibrated.model)).hidden_of("kiosk").mean
    save_model(client, calibrated.model)
    use_model(client, calibrated.model.version)
    engine.settle()
    now = client.query("SELECT expected FROM occupancy_now WHERE venue_id = 'kiosk-0'").result_rows
    seen["model shown"] = (now[0][0] is not None, care.figures())
    seen["same day again"] = care.refit()
    seen["verified"] = check_estimates(client)

    play([*days[2][0], Scan("hall", "h2", "check_in", _MONDAY + 3 * DAY + 12 * HOUR)])
    seen["refitted"] = care.refit()
    engine.settle()
    seen["in force"] = [
        (model.version, model.last_day) if (model := model_at(client, _at(hours))) else None for hours in (71, 73)
    ]
    seen["figures"] = care.figures()
    seen["again"] = care.refit()
    columns = "day, category, cells, coverage, drift, stay_ratio, check_out_share"
    seen["checks"] = client.query(f"SELECT {columns} FROM model_checks ORDER BY day, category").result_rows
    seen["by hand"] = check_model(client, date(2021, 9, 20))[2]["kiosk"]
    for day in (date(2021, 9, 23), date(2020, 1, 1)):
        with pytest.raises(UserError, match="closed days are 2021-09-20 to 2021-09-22"):
            check_model(client, day)
    care.stop()
    care.close()
    engine.close()
    client.close()
    return seen


def _at(hours: int) -> datetime:
    return datetime.fromtimestamp(_MONDAY / 1000, UTC) + timedelta(hours=hours)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    seen: dict[str, Any] = run_isolated(live, str(tmp_path_factory.mktemp("lived")))
    return seen


def test_an_empty_store_has_nothing_to_show_and_nothing_to_do(lived: dict[str, Any]) -> None:
    assert lived["empty"] == ModelFigures()
    assert lived["nothing to do"] is None


def test_head_counts_find_the_hidden_people(lived: dict[str, Any]) -> None:
    new_version, kiosk = lived["calibrated"]
    assert new_version
    assert kiosk.hidden.mean == pytest.approx(_PEOPLE, abs=0.05)
    assert (kiosk.counts, kiosk.venues) == (44, 4)


def test_estimates_count_the_hidden_people_and_verify_knows_it(lived: dict[str, Any]) -> None:
    assert lived["verified"].rows > 1_000
    assert not lived["verified"].differences, lived["verified"].examples


def test_a_later_fit_keeps_what_head_counts_told(lived: dict[str, Any]) -> None:
    assert lived["kept"] == pytest.approx(lived["calibrated"][1].hidden.mean, abs=0.001)


def test_a_worker_shows_where_the_model_stands(lived: dict[str, Any]) -> None:
    estimated, figures = lived["model shown"]
    assert estimated
    assert figures.age_seconds == 13 * 3600
    # Of the hall nothing is known.
    assert figures.categories_without_estimate == 1
    assert figures.covered == 0.5
    assert figures.check_coverage is None


def test_a_closed_day_is_learned_once_and_holds_from_the_next_day_on(lived: dict[str, Any]) -> None:
    assert lived["same day again"] is None
    assert lived["refitted"].startswith("2021-09-22-")
    before, after = lived["in force"]
    assert before[1] == date(2021, 9, 21)
    assert after == (lived["refitted"], date(2021, 9, 22))
    assert lived["again"] is None


def test_the_night_s_check_is_against_the_model_of_that_day_and_finds_longer_stays(lived: dict[str, Any]) -> None:
    (kiosk,) = [row for row in lived["checks"] if row[1] == "kiosk" and row[0] == date(2021, 9, 22)]
    _, _, cells, coverage, drift, ratio, share = kiosk
    assert cells > 20
    assert coverage < 0.85
    assert drift > 0.1
    assert ratio == pytest.approx(_LONGER, rel=0.15)
    assert share == pytest.approx(0.5, abs=0.01)
    figures = lived["figures"]
    assert figures.check_coverage == pytest.approx(coverage)
    assert figures.check_bias < -0.2
    assert figures.drift["kiosk"] == pytest.approx(drift)
    assert figures.check_out_share["kiosk"] == pytest.approx(share)
    assert figures.age_seconds == 12 * 3600


def test_a_day_like_the_others_passes(lived: dict[str, Any]) -> None:
    kiosk = lived["by hand"]
    assert kiosk.held / kiosk.cells > 0.85
    assert kiosk.drift < 0.1


@pytest.mark.long
@pytest.mark.kafka
def test_a_worker_renews_the_model_by_itself_and_goes_on(kafka_topics: Callable[..., str], tmp_path: Path) -> None:
    world = World(kafka_topics(2), tmp_path, PIPELINE_CLOCK="events", PIPELINE_MODEL_REFIT="nightly")
    scans = [*a_day(_MONDAY, 1, random.Random(4))[0], Scan("kiosk-0", "k", "check_in", _MONDAY + DAY + 13 * HOUR)]
    day, venues = tmp_path / "day.ndjson", tmp_path / "venues.ndjson"
    day.write_bytes(b"\n".join(map(line_of, scans)))
    venues.write_text("\n".join(map(json.dumps, _VENUES)))
    try:
        world.run("venues", "load", venues)
        world.run("produce", day)
        worker = world.start_worker(tmp_path / "store")
        worker.wait_for("the model of presence 2021-09-20-")
        worker.wait_for("is in force")
        assert worker.stop() == 0
    finally:
        world.close()
    assert "2021-09-20-" in world.run("model", "history", "--store", tmp_path / "store").stdout
    columns = "venue_id, expected IS NOT NULL AS estimated"
    shown = world.run(
        "query", f"SELECT {columns} FROM occupancy_now WHERE venue_id = 'kiosk-0'", "--store", tmp_path / "store"
    )
    assert shown.stdout.split()[-1] == "1"


@pytest.mark.parametrize("arguments", [["check"], ["calibrate", "counts.csv"]])
def test_a_store_that_is_not_there_is_said_so_and_not_made(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("counts.csv").write_text("venue_id,at,persons\nkiosk-1,2021-09-20T10:00:00Z,5\n")
    outcome = CliRunner().invoke(command, [*arguments, "--store", str(tmp_path / "none")])
    assert isinstance(outcome.exception, UserError)
    assert "there is no store" in str(outcome.exception)
    assert not (tmp_path / "none").exists()
