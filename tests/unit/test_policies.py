"""Every shipped policy on cases worked out by hand from its source, and what a policy file must be.

The case has its onset on Sunday 19 September 2021, in UTC, so that day is 0; times are of that day unless a day is given.
"""

import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pipeline.core.tracing.policy import Policy, parse_policy
from pipeline.core.tracing.window import Report, infection_window, infectious_window, midnights
from pipeline.errors import UserError
from pipeline.policies import load_policies
from pipeline.settings import load_settings
from pipeline.simulate.facts import CATEGORIES
from tests.reference_tracing import MINUTE, Case, Exposure, Visit
from tests.tracing import exposed

POLICIES = load_policies(None)
ONSET = date(2021, 9, 19)
UTC_ZONE = ZoneInfo("UTC")
IDS = ("clea", "crowdnotifier", "cwa", "ecdc", "id-kmk-4641", "nhs", "nz", "us-cdc", "who")


def policy_of(policy_id: str) -> Policy:
    return POLICIES.of(policy_id, at("00:00"))


def at(time: str, day: int = 0) -> int:
    """ms of hh:mm[:ss[.fff]] on the day relative to onset."""
    return int(datetime.fromisoformat(f"2021-09-{19 + day:02}T{time}+00:00").timestamp() * 1000)


def stay(who: str, start: str, end: str, *, day: int = 0, venue: str = "v", category: str = "restaurant") -> Visit:
    return Visit(who, venue, category, at(start, day), at(end, day), "check_out")


def found(policy_id: str, *visits: Visit, case: Case | None = None) -> list[Exposure]:
    """Whom `case` exposed, whose pseudonym is "case"."""
    report = case or Case(at("12:00", 5), ONSET)
    return exposed(report, "case", visits, policy_of(policy_id), UTC_ZONE)


def tiers(policy_id: str, *visits: Visit, case: Case | None = None) -> list[str]:
    return [row.tier for row in found(policy_id, *visits, case=case)]


def test_nine_policies_are_shipped_each_with_its_source_and_what_is_read_into_it() -> None:
    assert POLICIES.ids == IDS
    for policy in POLICIES:
        assert policy.version == "1"
        assert len(policy.source) > 100
        assert "ours" in policy.reading


# WHO: at least 15 minutes, from 2 days before to 13 after.


@pytest.mark.parametrize("policy_id", ["who", "us-cdc", "id-kmk-4641"])
def test_exactly_15_minutes_are_enough_and_a_millisecond_less_is_not(policy_id: str) -> None:
    case = stay("case", "12:00", "13:00")
    assert tiers(policy_id, case, stay("p", "12:45", "14:00")) == ["exposed"]
    assert tiers(policy_id, case, stay("p", "12:45:00.001", "14:00")) == ["below"]


def test_ecdc_asks_for_more_than_15_minutes_for_a_high_risk() -> None:
    case = stay("case", "12:00", "13:00")
    assert tiers("ecdc", case, stay("p", "12:45", "14:00")) == ["low"]
    assert tiers("ecdc", case, stay("p", "12:44:59.999", "14:00")) == ["high"]


@pytest.mark.parametrize("policy_id", ["who", "us-cdc", "ecdc", "id-kmk-4641", "nhs", "cwa"])
def test_visits_that_touch_and_visits_without_length_do_not_meet_half_open(policy_id: str) -> None:
    # The Corona-Warn-App's interval is 12:00 to 13:30, and that of the NHS app ends at the quarter after the check-out.
    end = {"cwa": "13:30", "nhs": "13:15"}.get(policy_id, "13:00")
    case = stay("case", "12:00", "13:00")
    assert found(policy_id, case, stay("p", end, "14:00")) == []
    assert found(policy_id, case, stay("p", "11:00", "12:00")) == []
    assert found(policy_id, case, stay("p", "12:30", "12:30")) == []
    assert len(found(policy_id, case, stay("p", "11:00", "12:00:00.001"))) == 1


def test_us_cdc_adds_up_over_24_hours_and_venues_and_not_longer() -> None:
    visits = [
        stay("case", "10:00", "11:00", venue="a"),
        stay("case", "09:00", "11:00", day=1, venue="b"),
        stay("p", "10:52", "11:30", venue="a"),
    ]
    # 8 minutes from 10:52 on Sunday; 7 more that are over within 24 hours of it, or reach a minute beyond.
    within = found("us-cdc", *visits, stay("p", "10:00", "10:07", day=1, venue="b"))
    assert [row.cumulative for row in within] == [15 * MINUTE] * 2
    assert {row.tier for row in within} == {"exposed"}
    beyond = found("us-cdc", *visits, stay("p", "10:46", "10:53", day=1, venue="b"))
    assert [row.cumulative for row in beyond] == [14 * MINUTE] * 2
    assert {row.tier for row in beyond} == {"below"}


def test_overlaps_at_two_venues_at_once_both_count() -> None:
    rows = found(
        "us-cdc",
        stay("case", "10:00", "10:08", venue="a"),
        stay("case", "10:00", "10:08", venue="b"),
        stay("p", "10:00", "10:08", venue="a"),
        stay("p", "10:00", "10:08", venue="b"),
    )
    assert [row.cumulative for row in rows] == [16 * MINUTE] * 2


def days_of(policy_id: str, report: Report, zone: str = "UTC") -> tuple[str, str]:
    window = infectious_window(report, policy_of(policy_id), midnights(ZoneInfo(zone)))
    return tuple(datetime.fromtimestamp(ms / 1000, UTC).isoformat()[:16] for ms in (window.start, window.until))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("policy_id", "onset", "specimen"),
    [
        ("who", ("2021-09-17", "2021-10-03"), ("2021-09-17", "2021-09-30")),
        ("us-cdc", ("2021-09-17", "2021-09-30"), ("2021-09-17", "2021-09-30")),
        ("ecdc", ("2021-09-17", "2021-10-04"), ("2021-09-17", "2021-10-04")),
        ("id-kmk-4641", ("2021-09-17", "2021-10-04"), ("2021-09-17", "2021-10-04")),
        ("cwa", ("2021-09-15", "2021-09-24"), ("2021-09-12", "2021-09-20")),
        ("nhs", ("2021-09-17", "2021-09-30"), ("2021-09-17", "2021-09-30")),
        ("nz", ("2021-09-17", "2021-09-30"), ("2021-09-17", "2021-09-30")),
        ("crowdnotifier", ("2021-09-17", "2021-09-30"), ("2021-09-17", "2021-09-30")),
        ("clea", ("2021-09-17", "2021-09-30"), ("2021-09-17", "2021-09-30")),
    ],
)
def test_the_infectious_window_is_whole_days_around_onset_or_specimen(
    policy_id: str, onset: tuple[str, str], specimen: tuple[str, str]
) -> None:
    reported_at = at("12:00", 3)
    assert days_of(policy_id, Report(reported_at, ONSET)) == tuple(f"{day}T00:00" for day in onset)
    assert days_of(policy_id, Report(reported_at, specimen_date=ONSET)) == tuple(f"{day}T00:00" for day in specimen)


def test_days_are_those_of_the_time_zone_and_onset_wins_over_specimen() -> None:
    report = Report(at("12:00", 3), ONSET, date(2021, 9, 20))
    assert days_of("us-cdc", report, "Asia/Jakarta") == ("2021-09-16T17:00", "2021-09-29T17:00")


def test_a_report_without_days_counts_its_own_day_as_the_specimen_s() -> None:
    # 20:00 UTC on the 19th is the 20th in Jakarta.
    assert days_of("who", Report(at("20:00")), "Asia/Jakarta") == ("2021-09-17T17:00", "2021-09-30T17:00")


def test_given_instants_win_over_days_each_for_itself() -> None:
    report = Report(at("12:00", 3), ONSET, infectious_until=at("08:30", 1))
    assert days_of("who", report) == ("2021-09-17T00:00", "2021-09-20T08:30")
    assert days_of("who", Report(at("12:00", 3), ONSET, infectious_from=at("08:30"))) == (
        "2021-09-19T08:30",
        "2021-10-03T00:00",
    )


def test_a_skipped_midnight_begins_when_the_clocks_do() -> None:
    # On 5 September 2021 the clocks of Santiago went from 00:00 (UTC−4) to 01:00 (UTC−3).
    assert (
        midnights(ZoneInfo("America/Santiago"))(date(2021, 9, 5))
        == int(datetime(2021, 9, 5, 4, tzinfo=UTC).timestamp()) * 1000
    )


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (Report(at("12:00"), onset_date=date(2021, 9, 20)), "onset_date: is after the day of the report"),
        (Report(at("12:00"), specimen_date=date(2021, 9, 20)), "specimen_date: is after the day of the report"),
        (
            Report(at("12:00"), ONSET, infectious_from=at("10:00"), infectious_until=at("10:00")),
            "infectious_from: the infectious window ends before it begins",
        ),
        (
            Report(at("12:00"), ONSET, infectious_until=at("00:00", -2)),
            "infectious_until: the infectious window ends before it begins",
        ),
    ],
)
def test_a_report_of_the_future_or_backwards_is_refused(report: Report, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        infectious_window(report, policy_of("who"), midnights(UTC))


def test_a_stay_counts_only_as_far_as_it_is_in_the_infectious_window() -> None:
    case = Visit("case", "v", "office", at("23:00", -3), at("01:00", -2), "check_out")
    p = Visit("p", "v", "office", at("22:00", -3), at("02:00", -2), "check_out")
    (row,) = found("who", case, p)
    assert (row.overlap_from, row.overlap_until) == (at("00:00", -2), at("01:00", -2))


def test_the_look_back_reaches_as_many_days_before_onset_and_includes_it() -> None:
    window = infection_window(Report(at("12:00", 3), ONSET), policy_of("who"), midnights(UTC))
    assert (window.start, window.until) == (at("00:00", -14), at("00:00", 1))
    nhs = infection_window(Report(at("12:00", 3), specimen_date=ONSET), policy_of("nhs"), midnights(UTC))
    assert nhs.until - nhs.start == 22 * 24 * 60 * MINUTE


# Corona-Warn-App.


@pytest.mark.parametrize(
    ("start", "end", "interval"),
    [
        # 9:59 is dropped; 10 minutes and as long a tail are 20.
        ("12:00", "12:09:59.999", None),
        ("12:00", "12:10", ("12:00", "12:20")),
        # 25 + 25 minutes; 40 + 30.
        ("12:00", "12:25", ("12:00", "12:50")),
        ("12:00", "12:40", ("12:00", "13:10")),
        # 12:07 to 12:33 and 26 more end at 12:59: 52 minutes are 5 intervals. The last is filled by 9 minutes, the first by 3.
        ("12:07", "12:33", ("12:10", "13:00")),
        # 12:04 to 12:16:30 and 12.5 more end at 12:29: 25 minutes are halves, rounded up to 3 intervals.
        ("12:04", "12:16:30", ("12:00", "12:30")),
        # 12:05 to 12:20 and 15 more end at 12:35: both ends are filled by 5 minutes, so it begins with the start's.
        ("12:05", "12:20", ("12:00", "12:30")),
    ],
)
def test_cwa_derives_intervals_of_ten_minutes(start: str, end: str, interval: tuple[str, str] | None) -> None:
    rows = found("cwa", stay("case", start, end), stay("p", "10:00", "16:00"))
    assert [(row.overlap_from, row.overlap_until) for row in rows] == (
        [(at(interval[0]), at(interval[1]))] if interval else []
    )


@pytest.mark.parametrize(
    ("day", "minutes", "tier"),
    [
        # On the day of onset a minute counts 1.6: 6.25 minutes make 10.
        (0, "12:06:15", "high"),
        (0, "12:06:14.999", "low"),
        # Three days after it counts 1.
        (3, "12:10", "high"),
        (3, "12:09:59", "low"),
        # Four days before 0.8: 12.5 minutes.
        (-4, "12:12:30", "high"),
        (-4, "12:12:29", "low"),
    ],
)
def test_cwa_weighs_minutes_by_the_day_s_transmission_risk(day: int, minutes: str, tier: str) -> None:
    rows = found("cwa", stay("case", "12:00", "13:00", day=day), stay("p", "12:00", minutes, day=day))
    assert [row.tier for row in rows] == [tier]


def test_cwa_adds_up_within_a_day_and_not_across_midnight() -> None:
    case = [stay("case", "20:00", "21:00", venue="a", day=3), stay("case", "22:00", "23:00", venue="b", day=3)]
    p = [stay("p", "20:00", "20:05", venue="a", day=3), stay("p", "22:00", "22:05", venue="b", day=3)]
    assert tiers("cwa", *case, *p) == ["high"] * 2
    late = [Visit("case", "v", "mall", at("23:00", 1), at("01:00", 2), "check_out")]
    # 5 minutes × 1.6 and 5 × 1.2 are 8 and 6: neither day reaches 10.
    rows = found("cwa", *late, Visit("p", "v", "mall", at("23:55", 1), at("00:05", 2), "check_out"))
    assert [(row.cumulative, row.tier) for row in rows] == [(5 * MINUTE, "low")]


def test_cwa_without_onset_counts_back_from_the_specimen() -> None:
    case = Case(at("12:00", 1), specimen=ONSET)
    # Three days before it counts 1.4: 8 minutes are 11.2; seven days before 0.6: 16 are 9.6.
    near = [stay("case", "12:00", "13:00", day=-3), stay("p", "12:00", "12:08", day=-3)]
    far = [stay("case", "12:00", "13:00", day=-7), stay("p", "12:00", "12:16", day=-7)]
    assert tiers("cwa", *near, case=case) == ["high"]
    assert tiers("cwa", *far, case=case) == ["low"]


# NHS COVID-19.


@pytest.mark.parametrize(
    ("start", "end", "window"),
    [
        ("14:59", "15:14", ("14:45", "15:15")),
        ("15:00", "15:15", ("15:00", "15:30")),
        ("15:14:59.999", "15:15:00.001", ("15:00", "15:30")),
        ("23:50", "23:59", ("23:45", "24:00")),
    ],
)
def test_nhs_rounds_outward_to_quarter_hours_and_15_15_becomes_15_30(
    start: str, end: str, window: tuple[str, str]
) -> None:
    end_of_window = at("00:00", 1) if window[1] == "24:00" else at(window[1])
    p = Visit("p", "v", "restaurant", at("10:00"), at("02:00", 1), "check_out")
    (row,) = found("nhs", stay("case", start, end), p)
    assert (row.overlap_from, row.overlap_until) == (at(window[0]), end_of_window)
    assert row.tier == "alert"


# NZ COVID Tracer.


def test_nz_asks_for_a_check_in_strictly_within_the_case_s_visit() -> None:
    case = stay("case", "12:00", "13:00")
    assert tiers("nz", case, stay("p", "12:00:00.001", "12:00:00.001")) == ["alert"]
    assert tiers("nz", case, stay("p", "12:59:59.999", "15:00")) == ["alert"]
    assert tiers("nz", case, stay("p", "12:00", "13:00")) == []
    assert tiers("nz", case, stay("p", "13:00", "14:00")) == []
    assert tiers("nz", case, stay("p", "11:00", "14:00")) == []


# CrowdNotifier.


def test_crowdnotifier_adds_half_an_hour_and_takes_ends_that_touch() -> None:
    case = stay("case", "12:00", "13:00")
    assert tiers("crowdnotifier", case, stay("p", "13:30", "14:00")) == ["notified"]
    assert tiers("crowdnotifier", case, stay("p", "13:30:00.001", "14:00")) == []
    assert tiers("crowdnotifier", case, stay("p", "11:00", "12:00")) == ["notified"]
    assert tiers("crowdnotifier", case, stay("p", "12:30", "12:30")) == ["notified"]
    assert tiers("crowdnotifier", stay("case", "12:00", "12:00"), stay("p", "11:00", "12:00")) == ["notified"]


# Cléa.


@pytest.mark.parametrize(
    ("category", "first", "last"),
    [("restaurant", "10:30", "14:00"), ("minimarket", "11:30", "13:00"), ("office", "08:00", "16:30")],
)
def test_clea_covers_the_check_in_s_half_hour_and_n_on_each_side_end_included(
    category: str, first: str, last: str
) -> None:
    # Both scan; when anybody left does not matter.
    case = stay("case", "12:10", "12:11", category=category)
    for check_in in (first, last):
        assert tiers("clea", case, stay("p", check_in, "18:00", category=category)) == ["at-risk"]
    before = Visit("p", "v", category, at(first) - 1, at("18:00"), "check_out")
    after = Visit("p", "v", category, at(last) + 1, at("18:00"), "check_out")
    assert tiers("clea", case, before, after) == []


def test_clea_takes_scans_of_the_infectious_window_only() -> None:
    case = Visit("case", "v", "office", at("23:50", -3), at("01:00", -2), "check_out")
    assert tiers("clea", case, Visit("p", "v", "office", at("00:10", -2), at("00:20", -2), "check_out")) == []


# Visits without a check-out.


def test_a_missing_check_out_gives_three_bounds_and_the_tiers_that_follow() -> None:
    case = Visit("case", "v", "restaurant", at("12:00"), at("16:00"), "expired")
    p = Visit("p", "v", "restaurant", at("12:50"), at("16:50"), "open")
    (row,) = found("who", case, p)
    # At most 12:50 to 16:00; a restaurant's expected hour ends at 13:00 for the case; at least nothing.
    assert (row.low, row.middle, row.high) == (0, 10 * MINUTE, 190 * MINUTE)
    assert (row.overlap_from, row.overlap_until) == (at("12:50"), at("16:00"))
    assert (row.tier_low, row.tier, row.tier_high, row.exact) == ("below", "below", "exposed", False)


def test_an_expected_stay_ends_with_the_automatic_end() -> None:
    case = stay("case", "10:00", "20:00", category="office")
    (row,) = found("who", case, Visit("p", "v", "office", at("12:00"), at("16:00"), "expired"))
    assert (row.low, row.middle, row.high) == (0, 240 * MINUTE, 240 * MINUTE)


def test_only_real_check_outs_are_exact() -> None:
    case = stay("case", "10:00", "20:00")
    rows = found(
        "who",
        case,
        stay("p", "11:00", "12:00"),
        stay("q", "11:00", "12:00"),
        Visit("q", "v", "restaurant", at("13:00"), at("17:00"), "expired"),
    )
    assert [(row.other_visit.visitor, row.exact) for row in rows] == [("p", True), ("q", False), ("q", False)]


@pytest.mark.parametrize(("treatment", "minutes"), [("full", [240]), ("drop", [])])
def test_a_policy_may_take_the_whole_automatic_stay_or_leave_such_visits_out(
    treatment: str, minutes: list[int]
) -> None:
    document = shipped("who")
    document["automatic_expiry"]["treatment"] = treatment
    visits = [stay("case", "10:00", "20:00"), Visit("p", "v", "restaurant", at("12:00"), at("16:00"), "expired")]
    rows = exposed(Case(at("12:00", 5), ONSET), "case", visits, parse_policy(document, "x"), UTC_ZONE)
    assert [row.middle / MINUTE for row in rows] == minutes


def test_the_expected_stays_are_those_that_the_simulator_assumes() -> None:
    assumed = {category.name: category.dwell_median for category in CATEGORIES}
    for policy in POLICIES:
        assert policy.automatic_expiry.expected_minutes == {"default": 60, **assumed}


# The documentation.


def row_of(policy: Policy) -> str:
    """The policy's row of the table in the documentation."""
    rule, days = policy.exposure, policy.infectious
    interval = {
        "none": "",
        "outward_15": "outward to quarter hours",
        "nearest_10": "nearest 10-minute intervals",
        "slots_30": f"half hour ± {policy.exposure.slots['default'] if policy.exposure.slots else ''}",
    }[rule.rounding]
    parts = [
        f"stays from {rule.minimum_stay_minutes} min" if rule.minimum_stay_minutes else "",
        f"+ {rule.aerosol_minutes} min" if rule.aerosol_minutes else "",
        f"+ stay, at most {rule.aerosol_up_to_stay_minutes} min" if rule.aerosol_up_to_stay_minutes else "",
        interval,
    ]
    tiers = [
        f"{tier.name} ≥ {tier.at_least_minutes}"
        if tier.at_least_minutes is not None
        else f"{tier.name} > {tier.more_than_minutes}"
        for tier in policy.tiers
    ]
    cells = [
        f"`{policy.id}`",
        f"−{days.days_before_onset} … +{days.days_after_onset}",
        f"−{days.days_before_specimen} … +{days.days_after_specimen}",
        str(policy.look_back.days),
        f"`{rule.boundary}`",
        ", ".join(part for part in parts if part) or "the stay",
        rule.cumulative.replace("_", " "),
        ", ".join(tiers) + (" (weighted)" if policy.weights else ""),
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("policy_id", IDS)
def test_the_documentation_shows_the_policy_as_it_is(policy_id: str) -> None:
    page = (Path(__file__).parents[2] / "docs/epidemiology/tracing.md").read_text("utf-8")
    assert row_of(policy_of(policy_id)) in page.splitlines()


# Files.


def shipped(policy_id: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parents[2] / "pipeline/policies" / f"{policy_id}.toml").read_text("utf-8"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("extra", 1, "extra: is not a field of a policy"),
        ("exposure.radius", 1, "exposure.radius: is not a field of a policy"),
        ("title", None, "title: Field required"),
        ("infectious.days_before_onset", None, "infectious.days_before_onset: Field required"),
        ("id", "a b", "id: String should match pattern '^[A-Za-z0-9._:-]{1,64}$'"),
        ("version", 1, "version: Input should be a valid string"),
        ("effective_from", "2021-01-01", "effective_from: must be a date such as 2021-05-11"),
        ("effective_from", datetime(2021, 1, 1), "effective_from: must be a date such as 2021-05-11"),
        ("infectious.days_after_onset", -1, "infectious.days_after_onset: Input should be greater than or equal to 0"),
        ("infectious.days_after_onset", 1.5, "infectious.days_after_onset: Input should be a valid integer"),
        ("infectious.statuses", ["sick"], "infectious.statuses.0: Input should be 'suspected' or 'confirmed'"),
        ("look_back.days", 0, "look_back.days: Input should be greater than or equal to 1"),
        (
            "exposure.boundary",
            "open",
            "exposure.boundary: Input should be 'half_open', 'closed', 'strict_check_in' or 'closed_check_in'",
        ),
        ("exposure.minimum_stay_minutes", "15", "exposure.minimum_stay_minutes: Input should be a valid integer"),
        ("exposure.rounding", "slots_30", "exposure: slots and rounding slots_30 need each other"),
        ("exposure.slots", {"default": 3}, "exposure: slots and rounding slots_30 need each other"),
        (
            "weights",
            {"otherwise": 1, "onset": {"today": 1}, "specimen": {}},
            "weights: onset must name days as whole numbers",
        ),
        (
            "weights",
            {"otherwise": 0.0001, "onset": {}, "specimen": {}},
            "weights: weights have at most three decimals",
        ),
        ("tiers", [], "tiers: List should have at least 1 item after validation, not 0"),
        ("tiers", [{"name": "a"}], "tiers.0: needs either at_least_minutes or more_than_minutes"),
        (
            "tiers",
            [{"name": "below", "at_least_minutes": 1}],
            "tiers.0: no tier can be called below or withdrawn",
        ),
        (
            "tiers",
            [{"name": "a", "more_than_minutes": 1}, {"name": "b", "at_least_minutes": 1}],
            "tiers must come with rising thresholds",
        ),
        (
            "tiers",
            [{"name": "a", "at_least_minutes": 1}, {"name": "a", "at_least_minutes": 2}],
            "two tiers have one name",
        ),
        ("clusters", {"mall": 3}, "clusters needs a default, for the categories that it does not name"),
        (
            "automatic_expiry.expected_minutes",
            {"mall": 3},
            "automatic_expiry: expected_minutes needs a default, for the categories that it does not name",
        ),
    ],
)
def test_a_file_that_is_no_policy_is_refused_in_one_sentence_with_the_field(
    path: str, value: Any, message: str
) -> None:
    document = shipped("who")
    *sections, name = path.split(".")
    section = document
    for part in sections:
        section = section[part]
    if value is None:
        del section[name]
    else:
        section[name] = value
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        parse_policy(document, "mine.toml")
    assert str(refused.value) == f"mine.toml: {message}"


def with_version(policy_id: str, version: str, effective_from: str) -> str:
    text = (Path(__file__).parents[2] / "pipeline/policies" / f"{policy_id}.toml").read_text("utf-8")
    lines = text.splitlines()
    lines[1:3] = [f'version = "{version}"', f"effective_from = {effective_from}"]
    return "\n".join(lines)


def test_the_version_in_effect_is_the_newest_that_has_begun(tmp_path: Path) -> None:
    (tmp_path / "who-2.toml").write_text(with_version("who", "2", "2021-09-20"))
    policies = load_policies(tmp_path)
    assert policies.of("who", at("23:59:59.999")).version == "1"
    assert policies.of("who", at("00:00", 1)).version == "2"
    # Of the time before the first version nothing else is known.
    assert policies.of("who", 0).version == "1"
    assert policies.ids == IDS


def test_a_policy_of_one_s_own_stands_beside_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(with_version("who", "1", "2021-01-01").replace('id = "who"', 'id = "mine"'))
    (tmp_path / "notes.txt").write_text("no policy")
    assert load_policies(tmp_path).of("mine", at("00:00")).id == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (with_version("who", "1", "2022-01-01"), "policy who has a version 1 already, in who.toml; give yours another"),
        (
            with_version("who", "2", "2020-12-16"),
            "policy who has a version in effect from 2020-12-16 already, in who.toml; give yours another",
        ),
        ("id =", "is not TOML"),
        ("id = 1", "id: Input should be a valid string"),
    ],
)
def test_what_a_folder_holds_is_refused_by_file_and_reason(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UserError) as refused:
        load_policies(tmp_path)
    assert str(tmp_path / "bad.toml") in str(refused.value)
    assert message in str(refused.value)


def test_an_unknown_policy_and_a_folder_that_is_none_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no policy whom: known are clea, crowdnotifier, cwa,"):
        POLICIES.of("whom", 0)
    with pytest.raises(UserError, match="is not a folder"):
        load_policies(tmp_path / "nowhere")


# Settings, and nothing to work on.


def test_a_time_zone_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UserError, match=r"setting timezone: .*must be an IANA time zone such as Asia/Jakarta"):
        load_settings(timezone="Mars/Olympus")


@pytest.mark.parametrize("policy_id", IDS)
def test_a_case_without_visits_and_a_venue_without_others_expose_nobody(policy_id: str) -> None:
    assert found(policy_id) == []
    assert found(policy_id, stay("case", "12:00", "13:00")) == []
    assert found(policy_id, stay("p", "12:00", "13:00")) == []
    assert found(policy_id, stay("case", "12:00", "13:00"), stay("p", "12:00", "13:00", venue="w")) == []
