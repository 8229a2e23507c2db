"""The reference itself, held to cases worked out by hand: one for every sentence of the contract on visits and occupancy.

Times are written as in the text: `t("09:00")` is that time of Sunday 19 September 2021 in UTC, in milliseconds.
"""

from datetime import UTC, datetime
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import (
    HARD_LIMIT,
    HOUR,
    SECOND,
    Curve,
    HourRow,
    MinuteRow,
    NowRow,
    RollingRow,
    Scan,
    ScanRow,
    Visit,
    expected_views,
)
from tests.strategies import Situation, histories, situations
from tests.views import differences


def t(clock: str, day: int = 19) -> int:
    """`HH:MM`, `HH:MM:SS` or `HH:MM:SS.mmm` of a day of September 2021 UTC, in epoch milliseconds."""
    return round(datetime.fromisoformat(f"2021-09-{day:02}T{clock}").replace(tzinfo=UTC).timestamp() * 1000)


def scan_in(
    at: int, visitor: str = "p", venue: str = "v", party: int = 1, event_id: str = "e", source: str = "app"
) -> Scan:
    return Scan(venue, visitor, "check_in", at, party, event_id, source)


def scan_out(at: int, visitor: str = "p", venue: str = "v") -> Scan:
    return Scan(venue, visitor, "check_out", at)


def stay(start: str, end: str, visitor: str = "p", party: int = 1, venue: str = "v") -> list[Scan]:
    return [scan_in(t(start), visitor, venue, party), scan_out(t(end), visitor, venue)]


def visits(*scans: Scan, max_stay: int = 4 * HOUR, as_of: int | None = None) -> list[tuple[int, int, str]]:
    shown = expected_views(scans, max_stay={"v": max_stay}, as_of=as_of)["visits"]
    return sorted((visit[2], visit[3], visit[4]) for visit in shown)


def minutes(*scans: Scan, as_of: int | None = None) -> dict[int, tuple[int, int, int, int]]:
    """Minute in epoch ms → (arrivals, departures, occupancy, peak)."""
    rows = expected_views(scans, as_of=as_of)["occupancy_minutes"]
    return {row[1] * SECOND: row[2:] for row in rows}


def hours(*scans: Scan, as_of: int | None = None, capacity: int | None = None) -> dict[int, HourRow]:
    rows = expected_views(scans, capacities={} if capacity is None else {"v": capacity}, as_of=as_of)["occupancy_hours"]
    return {row[1] * SECOND: HourRow(*row) for row in rows}


def rolling(*scans: Scan, as_of: int | None = None) -> dict[str, RollingRow]:
    """Width → the row of venue v."""
    rows = [RollingRow(*row) for row in expected_views(scans, as_of=as_of)["rolling_occupancy"]]
    return {row.window: row for row in rows if row.venue_id == "v"}


NINE, TEN = t("09:00"), t("10:00")


class TestIdentity:
    def test_an_identity_is_venue_visitor_type_and_millisecond(self) -> None:
        scans = [
            scan_in(NINE),
            scan_in(NINE, venue="w"),
            scan_in(NINE, visitor="q"),
            scan_out(NINE),
            scan_in(NINE + 1),
            scan_in(NINE, event_id="other", source="gate"),
        ]
        assert len(expected_views(scans)["scans"]) == 5

    def test_the_larger_party_then_the_smaller_event_id_then_the_smaller_source_wins_in_any_order(self) -> None:
        same = [
            scan_in(NINE, party=1, event_id="a", source="a"),
            scan_in(NINE, party=3, event_id="c", source="a"),
            scan_in(NINE, party=3, event_id="b", source="z"),
            scan_in(NINE, party=3, event_id="b", source="k"),
        ]
        winner = ScanRow("b", "check_in", "v", "p", NINE, 3, "k")
        assert all(expected_views(order)["scans"] == {winner} for order in permutations(same))

    def test_the_winner_s_party_is_the_visit_s_party(self) -> None:
        scans = [scan_in(NINE, party=2), scan_in(NINE, party=5), scan_out(TEN)]
        assert expected_views(scans)["visits"] == {Visit("v", "p", NINE, TEN, "check_out", 5)}


class TestVisits:
    def test_a_check_in_and_a_check_out_make_a_visit(self) -> None:
        assert visits(*stay("09:00", "09:45")) == [(NINE, t("09:45"), "check_out")]

    def test_pairing_is_within_one_venue_and_one_visitor(self) -> None:
        scans = [scan_in(NINE), scan_out(TEN, visitor="q"), scan_out(TEN, venue="w")]
        assert visits(*scans) == [(NINE, t("13:00"), "open")]

    def test_a_rescan_changes_nothing_not_even_the_party(self) -> None:
        scans = [scan_in(NINE, party=2), scan_in(t("09:30"), party=7), scan_out(TEN)]
        assert expected_views(scans)["visits"] == {Visit("v", "p", NINE, TEN, "check_out", 2)}

    def test_a_check_in_a_millisecond_before_the_limit_is_a_rescan(self) -> None:
        assert visits(scan_in(NINE), scan_in(t("13:00") - 1)) == [(NINE, t("13:00"), "open")]

    def test_a_check_in_at_the_limit_expires_the_open_visit_and_opens_another(self) -> None:
        assert visits(scan_in(NINE), scan_in(t("13:00"))) == [
            (NINE, t("13:00"), "expired"),
            (t("13:00"), t("17:00"), "open"),
        ]

    def test_a_check_in_long_after_the_limit_still_ends_the_visit_at_its_limit(self) -> None:
        assert visits(scan_in(NINE), scan_in(t("20:00")))[0] == (NINE, t("13:00"), "expired")

    def test_a_rescan_does_not_extend_the_limit(self) -> None:
        assert visits(scan_in(NINE), scan_in(t("12:00")), scan_in(t("13:30"))) == [
            (NINE, t("13:00"), "expired"),
            (t("13:30"), t("17:30"), "open"),
        ]

    def test_the_limit_is_the_venue_s(self) -> None:
        assert visits(scan_in(NINE), max_stay=HOUR, as_of=NINE) == [(NINE, TEN, "open")]
        assert expected_views([scan_in(NINE)])["visits"] == {Visit("v", "p", NINE, t("13:00"), "open", 1)}

    def test_a_late_check_out_beats_the_expiry(self) -> None:
        assert visits(scan_in(NINE), scan_out(t("15:00"))) == [(NINE, t("15:00"), "check_out")]

    def test_a_late_check_out_does_not_beat_the_expiry_once_a_newer_visit_began(self) -> None:
        assert visits(scan_in(NINE), scan_in(t("14:00")), scan_out(t("15:00"))) == [
            (NINE, t("13:00"), "expired"),
            (t("14:00"), t("15:00"), "check_out"),
        ]

    def test_a_check_out_exactly_at_the_hard_limit_is_real(self) -> None:
        assert visits(scan_in(NINE), scan_out(t("09:00", 20))) == [(NINE, t("09:00", 20), "check_out")]

    def test_a_check_out_beyond_the_hard_limit_is_unmatched_and_the_visit_expired(self) -> None:
        assert visits(scan_in(NINE), scan_out(t("09:00", 20) + 1)) == [(NINE, t("13:00"), "expired")]

    def test_after_a_check_out_beyond_the_hard_limit_nothing_is_open(self) -> None:
        scans = [scan_in(NINE), scan_out(NINE + HARD_LIMIT + 1), scan_out(NINE + HARD_LIMIT + 2)]
        assert visits(*scans) == [(NINE, t("13:00"), "expired")]

    def test_with_a_limit_of_the_hard_limit_both_boundaries_hold(self) -> None:
        end = NINE + HARD_LIMIT
        assert visits(scan_in(NINE), scan_out(end), max_stay=HARD_LIMIT) == [(NINE, end, "check_out")]
        assert visits(scan_in(NINE), scan_in(end), scan_out(end), max_stay=HARD_LIMIT) == [
            (NINE, end, "expired"),
            (end, end, "check_out"),
        ]

    def test_a_check_out_without_a_visit_is_unmatched(self) -> None:
        assert visits(scan_out(NINE)) == []
        assert visits(*stay("09:00", "10:00"), scan_out(t("11:00"))) == [(NINE, TEN, "check_out")]

    def test_an_unmatched_check_out_before_the_check_in_closes_nothing(self) -> None:
        assert visits(scan_out(NINE), scan_in(TEN)) == [(TEN, t("14:00"), "open")]

    def test_in_one_millisecond_the_check_in_comes_first_and_a_zero_length_visit_is_kept(self) -> None:
        assert visits(scan_out(NINE), scan_in(NINE)) == [(NINE, NINE, "check_out")]

    def test_a_check_out_and_check_in_in_one_millisecond_while_open_are_a_rescan_and_an_end(self) -> None:
        assert visits(scan_in(NINE), scan_out(TEN), scan_in(TEN)) == [(NINE, TEN, "check_out")]

    def test_one_visitor_may_come_again(self) -> None:
        assert visits(*stay("09:00", "10:00"), *stay("10:00:00.001", "11:00")) == [
            (NINE, TEN, "check_out"),
            (TEN + 1, t("11:00"), "check_out"),
        ]

    @pytest.mark.parametrize(("shift", "ended_by"), [(-1, "open"), (0, "expired"), (1, "expired")])
    def test_what_is_open_at_the_end_is_expired_from_its_limit_on(self, shift: int, ended_by: str) -> None:
        assert visits(scan_in(NINE), as_of=t("13:00") + shift) == [(NINE, t("13:00"), ended_by)]

    def test_without_a_clock_as_of_is_the_latest_scan_of_any_venue(self) -> None:
        assert visits(scan_in(NINE), scan_out(t("13:00"), visitor="q", venue="w")) == [(NINE, t("13:00"), "expired")]

    def test_no_scans_no_rows(self) -> None:
        assert set(map(len, expected_views([]).values())) == {0}


class TestMinutes:
    def test_arrivals_and_departures_are_persons_and_only_such_minutes_have_rows(self) -> None:
        assert minutes(*stay("09:00:30", "09:02:10", party=3)) == {
            t("09:00"): (3, 0, 3, 3),
            t("09:02"): (0, 3, 0, 3),
        }

    def test_a_minute_holds_its_first_instant_and_not_its_last(self) -> None:
        assert minutes(*stay("09:00:59.999", "09:01"), *stay("09:01", "09:01:59.999", "q")) == {
            t("09:00"): (1, 0, 1, 1),
            t("09:01"): (1, 2, 0, 1),
        }

    def test_one_who_leaves_exactly_at_the_end_of_a_minute_has_not_left_before_it(self) -> None:
        assert minutes(*stay("09:00", "09:01"))[t("09:00")] == (1, 0, 1, 1)

    def test_one_who_leaves_a_millisecond_before_the_end_of_a_minute_is_not_in_its_occupancy(self) -> None:
        assert minutes(*stay("09:00", "09:00:59.999")) == {t("09:00"): (1, 1, 0, 1)}

    def test_who_comes_when_another_leaves_does_not_add_to_the_peak(self) -> None:
        assert minutes(*stay("09:00", "09:10:30"), *stay("09:10:30", "09:20", "q"))[t("09:10")] == (1, 1, 1, 1)

    def test_who_comes_a_millisecond_before_another_leaves_adds_to_the_peak(self) -> None:
        assert minutes(*stay("09:00", "09:10:30"), *stay("09:10:29.999", "09:20", "q"))[t("09:10")] == (1, 1, 1, 2)

    def test_those_already_present_count_in_peak_and_occupancy(self) -> None:
        assert minutes(*stay("08:00", "10:00", party=4), *stay("09:00", "09:30", "q"))[t("09:00")] == (1, 0, 5, 5)

    def test_one_who_left_at_the_first_instant_of_a_minute_is_not_in_its_peak(self) -> None:
        assert minutes(*stay("08:00", "09:00", party=4), *stay("09:00:20", "10:00", "q"))[t("09:00")] == (1, 4, 1, 1)

    def test_a_zero_length_visit_arrives_and_leaves_and_is_never_present(self) -> None:
        assert minutes(*stay("09:00", "09:00", party=9)) == {t("09:00"): (9, 9, 0, 0)}

    def test_a_departure_at_as_of_counts_and_a_later_one_has_no_row(self) -> None:
        arrived = {NINE: (1, 0, 1, 1)}
        assert minutes(scan_in(NINE), as_of=t("13:00") - 1) == arrived
        assert minutes(scan_in(NINE), as_of=t("13:00")) == arrived | {t("13:00"): (0, 1, 0, 0)}

    def test_in_the_partial_minute_of_as_of_later_departures_do_not_count_but_shape_occupancy(self) -> None:
        # Two visits expire in 13:00, at :10 and :40; the clock stands at :20.
        scans = [scan_in(t("09:00:10")), scan_in(t("09:00:40"), "q")]
        assert minutes(*scans, as_of=t("13:00:20"))[t("13:00")] == (0, 1, 0, 2)

    def test_a_visit_across_midnight_goes_on_in_the_next_day(self) -> None:
        scans = [
            scan_in(t("23:50")),
            scan_out(t("00:10:30", 20)),
            scan_in(t("00:00", 20), "q"),
            scan_out(t("00:05", 20), "q"),
        ]
        assert minutes(*scans) == {
            t("23:50"): (1, 0, 1, 1),
            t("00:00", 20): (1, 0, 2, 2),
            t("00:05", 20): (0, 1, 1, 1),
            t("00:10", 20): (0, 1, 0, 1),
        }
        assert {hour: row.mean_occupancy for hour, row in hours(*scans).items()} == {
            t("23:00"): 10 / 60,
            t("00:00", 20): 15.5 / 60,
        }

    def test_venues_are_counted_apart(self) -> None:
        rows = expected_views([*stay("09:00", "10:00"), *stay("09:00", "10:00", venue="w")])["occupancy_minutes"]
        assert {row for row in rows if row[1] * SECOND == NINE} == {
            MinuteRow("v", NINE // SECOND, 1, 0, 1, 1),
            MinuteRow("w", NINE // SECOND, 1, 0, 1, 1),
        }


class TestHours:
    def test_the_mean_is_weighted_by_time(self) -> None:
        row = hours(*stay("09:00", "09:30", party=2), *stay("09:15", "09:30", "q"))[NINE]
        assert (row.arrivals, row.departures, row.peak) == (3, 3, 3)
        assert row.mean_occupancy == (2 * 30 + 1 * 15) / 60

    def test_the_mean_is_exact_to_the_millisecond(self) -> None:
        assert hours(*stay("09:00", "09:00:00.001"))[NINE].mean_occupancy == 1 / HOUR

    def test_a_visit_over_several_hours_has_a_row_in_each(self) -> None:
        shown = hours(*stay("09:30", "12:15"))
        assert {hour: (r.arrivals, r.departures, r.mean_occupancy) for hour, r in shown.items()} == {
            t("09:00"): (1, 0, 0.5),
            t("10:00"): (0, 0, 1.0),
            t("11:00"): (0, 0, 1.0),
            t("12:00"): (0, 1, 0.25),
        }

    def test_one_who_leaves_on_the_hour_departs_in_the_next_hour_without_having_been_present(self) -> None:
        row = hours(*stay("09:30", "10:00"))[TEN]
        assert (row.arrivals, row.departures, row.mean_occupancy, row.peak) == (0, 1, 0.0, 0)

    def test_hours_after_as_of_have_no_row_but_its_own_counts_visits_as_they_stand(self) -> None:
        shown = hours(scan_in(t("09:30")), as_of=t("10:20"))
        assert sorted(shown) == [t("09:00"), t("10:00")]
        assert shown[TEN].mean_occupancy == 1.0

    def test_an_hour_that_as_of_just_reached_has_a_row(self) -> None:
        assert TEN in hours(scan_in(t("09:30")), as_of=TEN)
        assert TEN not in hours(scan_in(t("09:30")), as_of=TEN - 1)

    def test_a_visit_that_ends_on_the_hour_of_as_of_departs_there(self) -> None:
        assert hours(scan_in(NINE), as_of=t("13:00"))[t("13:00")].departures == 1
        assert t("13:00") not in hours(scan_in(NINE), as_of=t("13:00") - 1)

    def test_a_zero_length_visit_has_a_row_with_nobody_present(self) -> None:
        row = hours(*stay("09:10", "09:10", party=9))[NINE]
        assert (row.arrivals, row.departures, row.mean_occupancy, row.peak, row.person_contact_minutes) == (
            9,
            9,
            0,
            0,
            0,
        )

    def test_minutes_over_capacity_count_more_than_the_capacity_and_not_equal(self) -> None:
        scans = [*stay("09:00", "09:50", party=2), *stay("09:10", "09:12:30", "q")]
        assert hours(*scans, capacity=2)[NINE].minutes_over_capacity == 2.5
        assert hours(*scans, capacity=3)[NINE].minutes_over_capacity == 0
        assert hours(*scans)[NINE].minutes_over_capacity == 0

    def test_person_contact_minutes_are_pairs_of_persons_times_minutes(self) -> None:
        # 3 persons, so 3 pairs, for ten minutes; then 5, so 10 pairs, for one; then 2, so 1 pair, for half of one.
        scans = [*stay("09:00", "09:11", party=3), *stay("09:10", "09:11:30", "q", party=2)]
        assert hours(*scans)[NINE].person_contact_minutes == 3 * 10 + 10 * 1 + 1 * 0.5

    def test_a_party_is_in_contact_with_itself_and_one_person_is_not(self) -> None:
        assert hours(*stay("09:00", "09:10", party=2))[NINE].person_contact_minutes == 10
        assert hours(*stay("09:00", "09:10"))[NINE].person_contact_minutes == 0


class TestRolling:
    def test_the_window_ends_at_the_last_full_minute(self) -> None:
        scans = stay("09:00", "09:10:59.999")
        assert rolling(*scans)["15m"].window_end == t("09:10") // SECOND
        assert rolling(*scans, as_of=t("09:11"))["60m"].window_end == t("09:11") // SECOND

    def test_what_happens_in_the_partial_minute_of_as_of_is_not_in_the_window_yet(self) -> None:
        assert rolling(scan_in(t("09:10:30")), as_of=t("09:10:59.999")) == {}
        assert rolling(scan_in(t("09:10:30")), as_of=t("09:11"))["15m"].arrivals == 1

    def test_both_widths_show_their_own_stretch(self) -> None:
        scans = [*stay("09:00", "09:40", party=2), *stay("09:50", "09:55", "q")]
        assert rolling(*scans, as_of=TEN) == {
            "15m": RollingRow("v", "15m", TEN // SECOND, 1, 1, 1, 5 / 15, 5.0),
            "60m": RollingRow("v", "60m", TEN // SECOND, 3, 2, 2, (2 * 40 + 5) / 60, 22.5),
        }

    def test_the_window_is_half_open_for_arrivals(self) -> None:
        def arrivals(at: str) -> int:
            row = rolling(scan_in(t(at)), as_of=TEN).get("15m")
            return row.arrivals if row else -1

        assert [arrivals(at) for at in ("09:44:59.999", "09:45", "09:59:59.999", "10:00")] == [0, 1, 1, -1]

    def test_one_who_leaves_as_the_window_begins_is_a_departure_but_was_not_present(self) -> None:
        assert rolling(*stay("09:00", "09:45"), as_of=TEN)["15m"] == RollingRow(
            "v", "15m", TEN // SECOND, 0, 0, 0, 0.0, 45.0
        )

    def test_one_who_left_before_the_window_leaves_no_row(self) -> None:
        assert set(rolling(*stay("09:00", "09:44:59.999"), as_of=TEN)) == {"60m"}
        assert rolling(*stay("08:00", "08:59:59.999"), as_of=TEN) == {}

    def test_one_who_leaves_as_the_window_ends_is_present_and_no_departure(self) -> None:
        row = rolling(*stay("09:00", "10:00"), as_of=TEN)["15m"]
        assert (row.unique_visitors, row.mean_occupancy, row.median_dwell_minutes) == (1, 1.0, None)

    def test_someone_present_throughout_makes_a_row_without_any_change(self) -> None:
        assert rolling(scan_in(t("08:00"), party=3), as_of=TEN)["15m"] == RollingRow(
            "v", "15m", TEN // SECOND, 0, 1, 3, 3.0, None
        )

    def test_visitors_are_counted_once_and_as_ids_not_persons(self) -> None:
        scans = [*stay("09:46", "09:48", party=5), *stay("09:50", "09:52"), *stay("09:50", "09:52", "q")]
        assert rolling(*scans, as_of=TEN)["15m"].unique_visitors == 2

    def test_a_zero_length_visit_arrives_and_dwells_zero_but_is_no_visitor_present(self) -> None:
        assert rolling(*stay("09:50", "09:50", party=4), as_of=TEN)["15m"] == RollingRow(
            "v", "15m", TEN // SECOND, 4, 0, 0, 0.0, 0.0
        )

    def test_the_median_is_over_visits_and_the_mean_of_the_middle_two(self) -> None:
        three = [*stay("09:46", "09:50", "a", party=50), *stay("09:46", "09:47", "b"), *stay("09:46", "09:56", "c")]
        assert rolling(*three, as_of=TEN)["15m"].median_dwell_minutes == 4.0
        assert rolling(*three, *stay("09:30", "09:50", "d"), as_of=TEN)["15m"].median_dwell_minutes == 7.0

    def test_the_median_is_not_rounded(self) -> None:
        scans = [*stay("09:46", "09:46:00.001", "a"), *stay("09:46", "09:46:00.002", "b")]
        assert rolling(*scans, as_of=TEN)["15m"].median_dwell_minutes == 0.0015 / 60

    def test_an_expiry_within_the_window_is_a_departure(self) -> None:
        assert rolling(scan_in(NINE), as_of=t("13:01"))["15m"].median_dwell_minutes == 240.0
        assert rolling(scan_in(NINE), as_of=t("13:00:59.999"))["15m"].median_dwell_minutes is None


class TestNow:
    def now(self, *scans: Scan, as_of: int, capacities: dict[str, int] | None = None) -> set[tuple[object, ...]]:
        return expected_views(scans, capacities=capacities, as_of=as_of)["occupancy_now"]

    def test_persons_present_at_as_of_half_open(self) -> None:
        scans = stay("09:00", "10:00", party=3)
        assert self.now(*scans, as_of=TEN - 1) == {NowRow("v", 3, None, None, TEN - 1)}
        assert self.now(*scans, as_of=TEN) == set()
        assert self.now(*scans, scan_in(TEN, "q"), as_of=TEN) == {NowRow("v", 1, None, None, TEN)}

    def test_an_open_visit_is_present_until_its_limit(self) -> None:
        assert self.now(scan_in(NINE), as_of=t("13:00") - 1) == {NowRow("v", 1, None, None, t("13:00") - 1)}
        assert self.now(scan_in(NINE), as_of=t("13:00")) == set()

    def test_the_ratio_is_to_the_capacity(self) -> None:
        scans = [scan_in(NINE, party=3), scan_in(NINE, "q", "w")]
        assert self.now(*scans, as_of=TEN, capacities={"v": 2}) == {
            NowRow("v", 3, 2, 1.5, TEN),
            NowRow("w", 1, None, None, TEN),
        }


@given(situations(max_size=12))
def test_the_curve_agrees_with_counting_at_every_instant(situation: Situation) -> None:
    shown = expected_views(situation.scans, situation.registry.max_stay, as_of=situation.as_of)["visits"]
    there = [Visit(*visit) for visit in shown if visit[0] == "v"]
    curve = Curve(there)
    instants = {at + shift for v in there for at in (v.checked_in_at, v.left_at) for shift in (-1, 0, 1)}
    for instant in instants:
        present = sum(v.party_size for v in there if v.checked_in_at <= instant < v.left_at)
        assert curve.at(instant) == present
        assert curve.peak(instant, instant + 1) == present


@given(situations(max_size=12))
def test_person_time_is_the_sum_of_the_stays(situation: Situation) -> None:
    views = expected_views(situation.scans, situation.registry.max_stay, as_of=situation.as_of)
    there = [Visit(*visit) for visit in views["visits"] if visit[0] == "v"]
    start, end = t("00:00", 1), t("00:00", 30)
    assert curve_time(there, start, end) == sum(v.party_size * (v.left_at - v.checked_in_at) for v in there)


def curve_time(there: list[Visit], start: int, end: int) -> int:
    """Person-milliseconds, summed hour by hour."""
    curve = Curve(there)
    return sum(curve.person_ms(hour, hour + HOUR) for hour in range(start, end, HOUR))


class TestDifferences:
    def test_equal_views_have_none(self) -> None:
        assert differences(expected_views(stay("09:00", "10:00")), expected_views(stay("09:00", "10:00"))) == ""

    def test_a_wrong_missing_or_extra_row_is_named_with_its_view(self) -> None:
        expected = expected_views(stay("09:00", "10:00"))
        actual = expected | {"occupancy_minutes": {MinuteRow("v", NINE // SECOND, 1, 0, 1, 2)}, "scans": set()}
        found = differences(actual, expected)
        assert "scans: 2 rows missing (-), 0 rows unexpected (+)" in found
        assert "occupancy_minutes: 2 rows missing (-), 1 rows unexpected (+)" in found
        assert f"+ {MinuteRow('v', NINE // SECOND, 1, 0, 1, 2)}" in found
        assert "visits" not in found


@given(st.data())
def test_a_history_brings_every_scan_and_each_venue_in_one_partition(data: st.DataObject) -> None:
    situation = data.draw(situations(max_size=12))
    history = data.draw(histories(situation.scans))
    arrived = [(scan, batch.partition) for batch in history.batches for scan in batch.scans]
    assert {scan for scan, _ in arrived} == set(situation.scans)
    assert len({(scan.venue_id, partition) for scan, partition in arrived}) == len({s.venue_id for s, _ in arrived})
    assert {partition for _, partition in arrived} <= set(range(history.partitions))
