"""From closed days to a model, and from a model to the estimates beside the counted numbers, on the real ClickHouse engine."""

import json
import random
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.commands.model import command
from pipeline.errors import UserError
from tests.isolated import run_isolated
from tests.reference import DAY, HOUR, MINUTE, Scan, line_of

_MONDAY = 1_632_096_000_000
_COLUMNS = "venue_id, occupancy, expected, low, high, check_out_share, model_version"
_VENUES = [
    {"venue_id": f"kiosk-{i}", "name": "Kiosk", "category": "kiosk", "timezone": "Asia/Jakarta"} for i in range(3)
]


def a_day(start: int, visits: int, chance: random.Random) -> list[Scan]:
    """Visits of 5 to 15 minutes to the three kiosks, four hours long; two in five check out."""
    scans = []
    for i in range(visits):
        at, visitor, venue = start + chance.randrange(4 * HOUR), f"p{start}-{i}", f"kiosk-{i % 3}"
        scans.append(Scan(venue, visitor, "check_in", at, chance.randint(1, 2), f"in{i}"))
        if i % 5 < 2:
            scans.append(Scan(venue, visitor, "check_out", at + chance.randint(5, 15) * MINUTE, 1, f"out{i}"))
    return scans


def play(folder: str, batches: list[list[bytes]], fitted: dict[str, Any] | None, choice: str) -> dict[str, Any]:
    """In an interpreter of its own: process `batches`, each after a restart, with a model fitted before or here.

    `choice`: fit one to what is there, use the given one, or withdraw it. Returns the model and what the views show.
    """
    from datetime import UTC, datetime

    from pipeline.engine import open_engine
    from pipeline.presence import fit_model
    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from pipeline.store.models import StoredModel, save_model, use_model
    from pipeline.verify_estimates import check_estimates

    settings = Settings(store=Path(folder))
    client = open_store(settings)
    if choice == "use" and fitted is not None:
        save_model(client, StoredModel(fitted["version"], datetime.now(UTC), None, None, fitted["body"], "[]"))
        use_model(client, fitted["version"])
    if choice == "none":
        use_model(client, "")
    if choice == "none from the second hour on":
        use_model(client, "", datetime.fromtimestamp((_MONDAY + 7 * DAY + HOUR) / 1000, UTC))
    engine = open_engine(settings, clock="events")
    records = [json.dumps(venue).encode() for venue in _VENUES]
    for values in batches or [[]]:
        offset = engine.assign("t", [0])[0] or 0
        engine.load_venues(records, [None] * len(records))
        engine.process("t", 0, range(offset, offset + len(values)), [0] * len(values), values)
        engine.settle()
    shown = {
        view: sorted(map(tuple, client.query(f"SELECT {columns} FROM {view}").result_rows), key=repr)
        for view, columns in (
            ("occupancy_now", _COLUMNS),
            ("rolling_occupancy", "venue_id, `window`, expected, low, high, check_out_share, model_version"),
            (
                "occupancy_minutes",
                "venue_id, toUnixTimestamp(minute), expected, low, high, check_out_share, model_version",
            ),
            ("occupancy_hours", "venue_id, toUnixTimestamp(hour), expected, low, high, check_out_share, model_version"),
        )
    }
    model = None
    if choice == "fit":
        found = fit_model(client)
        model = {"version": found.version, "body": found.body, "last": found.last_day, "figures": found.figures}
    check = check_estimates(client)
    engine.close()
    client.close()
    return {"model": model, "differing": check.examples if check else None, **shown}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    chance = random.Random(5)
    scans = [*a_day(_MONDAY, 900, chance), Scan("kiosk-0", "later", "check_in", _MONDAY + 3 * DAY)]
    lines = [line_of(scan) for scan in scans]
    played: dict[str, Any] = run_isolated(play, str(tmp_path_factory.mktemp("learned")), [lines], None, "fit")
    return played


def test_without_a_model_nothing_is_estimated(learned: dict[str, Any]) -> None:
    assert {row[2:] for row in learned["occupancy_now"]} == {(None,) * 5}
    assert {row[2:] for row in learned["rolling_occupancy"]} <= {(None,) * 5}
    assert {row[2:] for row in learned["occupancy_minutes"]} == {(None,) * 5}
    assert {row[2:] for row in learned["occupancy_hours"]} == {(None,) * 5}


def test_a_model_says_which_closed_days_it_learned_from_and_what_it_lacks(learned: dict[str, Any]) -> None:
    assert learned["model"]["last"] == date(2021, 9, 20)
    figures = {row["category"]: row for row in json.loads(learned["model"]["figures"])}
    assert (figures["kiosk"]["source"], figures["kiosk"]["check_outs"]) == ("learned", 360)
    assert 8 <= figures["kiosk"]["median_stay_minutes"] <= 12
    assert figures["unknown"]["source"] == "none"
    assert "50 needed" in figures["unknown"]["reason"]


@pytest.mark.long
def test_estimates_depend_on_the_scans_and_the_model_alone(learned: dict[str, Any], tmp_path: Path) -> None:
    today = [line_of(scan) for scan in a_day(_MONDAY + 7 * DAY, 600, random.Random(6))]
    shuffled = random.Random(7).sample(today + today[:50], len(today) + 50)
    in_order = run_isolated(play, str(tmp_path / "a"), [today], learned["model"], "use")
    cut = [shuffled[:17], shuffled[17:300], shuffled[300:]]
    otherwise = run_isolated(play, str(tmp_path / "b"), cut, learned["model"], "use")
    for view in ("occupancy_now", "rolling_occupancy", "occupancy_minutes", "occupancy_hours"):
        assert in_order[view] == otherwise[view]
    assert in_order["differing"] == otherwise["differing"] == ()
    assert all(None not in row for row in in_order["occupancy_minutes"] + in_order["occupancy_hours"])

    for _, counted, expected, low, high, share, version in in_order["occupancy_now"]:
        # Three in five never check out: after four hours of ten-minute visits nearly all who are counted have left.
        assert low <= expected <= high < counted / 2
        assert expected > 0
        assert 0.3 < share < 0.5
        assert version == learned["model"]["version"]


@pytest.mark.long
def test_withdrawing_the_model_takes_its_estimates_away(learned: dict[str, Any], tmp_path: Path) -> None:
    today = [line_of(scan) for scan in a_day(_MONDAY + 7 * DAY, 60, random.Random(6))]
    with_model = run_isolated(play, str(tmp_path), [today], learned["model"], "use")
    assert all(row[2] is not None for row in with_model["occupancy_now"])
    without = run_isolated(play, str(tmp_path), [], None, "none")
    assert {row[2:] for row in without["occupancy_now"]} == {(None,) * 5}
    assert [row[:2] for row in without["occupancy_now"]] == [row[:2] for row in with_model["occupancy_now"]]


@pytest.mark.long
def test_another_model_leaves_what_was_before_it_as_it_is(learned: dict[str, Any], tmp_path: Path) -> None:
    today = [line_of(scan) for scan in a_day(_MONDAY + 7 * DAY, 600, random.Random(6))]
    before = run_isolated(play, str(tmp_path), [today], learned["model"], "use")
    after = run_isolated(play, str(tmp_path), [], None, "none from the second hour on")
    hour = (_MONDAY + 7 * DAY + HOUR) // 1000
    for view in ("occupancy_minutes", "occupancy_hours"):
        assert [row for row in after[view] if row[1] < hour] == [row for row in before[view] if row[1] < hour]
        assert {row[2:] for row in after[view] if row[1] >= hour} == {(None,) * 5}
    assert after["differing"] == ()


@pytest.mark.parametrize("arguments", [["fit"], ["show"], ["use", "latest"], ["history"]])
def test_a_store_that_is_not_there_is_said_so_and_not_made(arguments: list[str], tmp_path: Path) -> None:
    outcome = CliRunner().invoke(command, [*arguments, "--store", str(tmp_path / "none")])
    assert isinstance(outcome.exception, UserError)
    assert "there is no store" in str(outcome.exception)
    assert not (tmp_path / "none").exists()
