"""The demo's busiest venues, with and without a model of presence in force."""

from pipeline.demo import busy_line


def test_without_a_model_the_count_stands_alone() -> None:
    assert busy_line("Mall 690", "160", "5640", *[None] * 5) == "   160 of 5,640  Mall 690"
    assert busy_line("Kiosk", 7, None, *[None] * 5) == "     7           Kiosk"


def test_with_a_model_the_expected_number_and_its_range_stand_beside_it() -> None:
    said = busy_line("Mall 690", "1212", "5640", 140.4, "118", "162", 0.31, "2021-09-18-1f0c")
    assert said == (
        "Mall 690: Counted 1,212 · expected 140 (118–162) · 31% check out · model 2021-09-18-1f0c · capacity 5,640"
    )
