"""A day unlike the learned ones, on the real ClickHouse engine: the model shifted by the stays so far, for that day alone."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_model_field import a_day
from tests.isolated import run_isolated
from tests.reference import DAY, HOUR, Scan, line_of

_MONDAY = 1_632_096_000_000
_VENUES = [
    {"venue_id": f"kiosk-{i}", "name": "Kiosk", "category": "kiosk", "timezone": "Asia/Jakarta"} for i in range(4)
]
#: How much longer they stay on the second day, and when it is looked at.
_LONGER, _NOON = 2, _MONDAY + DAY + 12 * HOUR + HOUR // 2


def live(folder: str) -> dict[str, Any]:
    """In an interpreter of its own: two days, the second with longer stays, shifted after its noon, twice."""
    from pipeline.engine import open_engine
    from pipeline.presence import fit_model
    from pipeline.settings import Settings
    from pipeline.shift import shift_model, unshifted_at
    from pipeline.store.client import open_store
    from pipeline.store.models import model_at, save_model, use_model

    settings = Settings(store=Path(folder))
    client = open_store(settings)
    engine = open_engine(settings, clock="events")
    engine.assign("t", [0])
    records = [json.dumps(venue).encode() for venue in _VENUES]
    engine.load_venues(records, [None] * len(records))
    chance = random.Random(4)
    scans = [*a_day(_MONDAY, 1, chance)[0], *a_day(_MONDAY + DAY, _LONGER, chance)[0]]
    lines = [line_of(scan) for scan in scans if scan.occurred_at_ms <= _NOON]
    lines.append(line_of(Scan("kiosk-0", "last", "check_in", _NOON)))
    engine.process("t", 0, range(len(lines)), [0] * len(lines), lines)
    engine.settle()
    fitted = fit_model(client)
    save_model(client, fitted)
    use_model(client, fitted.version)
    engine.settle()

    def expected() -> float:
        engine.settle()
        return float(client.query("SELECT sum(expected) FROM occupancy_now").result_rows[0][0])

    seen: dict[str, Any] = {"fitted": fitted.version, "before": expected()}
    for _ in range(2):
        found = shift_model(client)
        save_model(client, found.model)
        use_model(client, found.model.version, found.since)
        use_model(client, found.base.version, found.until)
        seen.setdefault("found", []).append((found.base.version, found.model.version, found.by_category["kiosk"]))
    seen["after"] = expected()
    at = datetime.fromtimestamp(_NOON / 1000, UTC)
    times = {"an hour before": -1, "now": 0, "at the end of the day": 11, "the day after": 12}
    seen["in force"] = {
        name: model.version for name, hours in times.items() if (model := model_at(client, at + timedelta(hours=hours)))
    }
    unshifted = unshifted_at(client, at)
    seen["unshifted"] = unshifted and unshifted.version
    engine.close()
    client.close()
    return seen


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    seen: dict[str, Any] = run_isolated(live, str(tmp_path_factory.mktemp("lived")))
    return seen


def test_longer_stays_are_found_while_the_day_goes_on(lived: dict[str, Any]) -> None:
    base, _, (factor, spread) = lived["found"][0]
    assert base == lived["fitted"]
    assert factor == pytest.approx(_LONGER, rel=0.25)
    assert 0 < spread < 0.2
    assert lived["after"] > 1.2 * lived["before"]


def test_a_shift_begins_with_the_unshifted_model_and_so_repeats_itself(lived: dict[str, Any]) -> None:
    first, second = lived["found"]
    assert first == second
    assert lived["unshifted"] == lived["fitted"]


def test_it_holds_from_the_hour_until_the_end_of_the_day(lived: dict[str, Any]) -> None:
    shifted = lived["found"][0][1]
    assert lived["in force"] == {
        "an hour before": lived["fitted"],
        "now": shifted,
        "at the end of the day": shifted,
        "the day after": lived["fitted"],
    }
