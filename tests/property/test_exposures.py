"""Exposures are those of the pairwise reference, for every shipped policy and for others that no file has."""

import random
import tomllib
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.tracing.policy import parse_policy
from tests import reference_tracing as reference
from tests.reference_tracing import DAY, MINUTE, Case, Visit
from tests.tracing import CATEGORIES, exposed

DOCUMENTS: dict[str, dict[str, Any]] = {
    file.name.removesuffix(".toml"): tomllib.loads(file.read_text("utf-8"))
    for file in files("pipeline.policies").iterdir()
    if file.name.endswith(".toml")
}
#: Without summer time, with it, and with a midnight that is skipped (Santiago, 5 September 2021; Berlin, 28 March).
ZONES = ("UTC", "Asia/Jakarta", "Europe/Berlin", "America/Santiago")
DAYS = (date(2021, 9, 5), date(2021, 3, 28), date(2021, 9, 19))


def a_world(rng: random.Random, day: date) -> tuple[Case, list[Visit]]:
    """A case and visits around it whose edges often coincide: with each other, with slots, with midnights, with the window."""
    around = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
    step = rng.choice([MINUTE * 5, MINUTE * 5, MINUTE * 30, 7_919])
    venues = [(f"v{i}", rng.choice(CATEGORIES)) for i in range(rng.randint(1, 3))]
    reach = rng.choice([DAY // 4, DAY, 3 * DAY])
    # Some worlds are of two people who stay long: only part of an overlap fits into 24 hours.
    long_stays = rng.random() < 0.3
    visitors = [0, 1] if long_stays else [0, 0, 1, 2, 3]
    minutes = [240, 600, 900, 1300] if long_stays else [0, 5, 10, 14, 15, 16, 20, 45, 60, 240, 900]
    visits = set()
    for _ in range(rng.randint(2, 24)):
        venue, category = rng.choice(venues)
        start = around + rng.randrange(-reach, reach) // step * step
        stay = rng.choice(minutes) * MINUTE + rng.choice([0, 0, 0, 1, -1, 30_000])
        stay = max(stay, 0)
        ended_by = rng.choice(["check_out", "check_out", "expired", "open"])
        visits.add(Visit(f"p{rng.choice(visitors)}", venue, category, start, start + stay, ended_by, rng.randint(1, 3)))
    edges = [edge for visit in visits for edge in (visit.start, visit.left)]
    onset = rng.choice([None, day + timedelta(days=rng.randint(-4, 4))])
    specimen = rng.choice([None, day + timedelta(days=rng.randint(-4, 4))])
    start, until = rng.choice([None, rng.choice(edges)]), None
    if rng.random() < 0.3:
        until = rng.choice(edges)
    return Case(around + 6 * DAY, onset, specimen, start, until), rng.sample(sorted(visits), len(visits))


def another_policy(rng: random.Random) -> dict[str, Any]:
    """A policy of fields that the shipped ones do not put together."""
    document = {**rng.choice(list(DOCUMENTS.values()))}
    exposure = {
        "boundary": rng.choice(["half_open", "closed", "strict_check_in", "closed_check_in"]),
        "cumulative": rng.choice(["rolling_24h", "calendar_day", "infectious_period"]),
        "minimum_stay_minutes": rng.choice([0, 15]),
        "aerosol_minutes": rng.choice([0, 20]),
        "aerosol_up_to_stay_minutes": rng.choice([0, 30]),
        "rounding": rng.choice(["none", "outward_15", "nearest_10"]),
    }
    document["exposure"] = exposure
    document["automatic_expiry"] = {
        **document["automatic_expiry"],
        "treatment": rng.choice(["expected", "full", "drop"]),
    }
    document["tiers"] = [{"name": "some", "more_than_minutes": 0}, {"name": "much", "at_least_minutes": 15}]
    document["weights"] = {"otherwise": 0.25, "onset": {"0": 1.5, "-1": 0}, "specimen": {"1": 0.125}}
    return document


@pytest.mark.parametrize("policy_id", [*sorted(DOCUMENTS), "another"])
@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_exposures_are_those_of_every_pair_compared(policy_id: str, seed: int) -> None:
    rng = random.Random(seed)
    document = another_policy(rng) if policy_id == "another" else DOCUMENTS[policy_id]
    zone = ZoneInfo(rng.choice(ZONES))
    case, visits = a_world(rng, rng.choice(DAYS))
    window = reference.infectious_window(case, document, zone)
    if window[0] >= window[1]:
        return
    expected = reference.exposures(case, "p0", visits, document, zone)
    assert exposed(case, "p0", visits, parse_policy(document, policy_id), zone) == expected


@pytest.mark.parametrize("policy_id", sorted(DOCUMENTS))
def test_the_random_worlds_have_exposures_of_every_tier(policy_id: str) -> None:
    document = DOCUMENTS[policy_id]
    tiers = set()
    for seed in range(120):
        rng = random.Random(seed)
        case, visits = a_world(rng, DAYS[2])
        window = reference.infectious_window(case, document, ZoneInfo("UTC"))
        if window[0] < window[1]:
            tiers |= {row.tier for row in reference.exposures(case, "p0", visits, document, ZoneInfo("UTC"))}
    names = {tier["name"] for tier in document["tiers"]}
    assert tiers >= names
    if document["tiers"][0] != {"name": document["tiers"][0]["name"], "at_least_minutes": 0}:
        assert "below" in tiers
