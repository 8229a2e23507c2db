"""A whole bad release is not turned into dead letters: the worker stops and says so."""

from datetime import timedelta

import pytest

from pipeline.errors import UserError
from pipeline.settings import Settings
from pipeline.streaming.dead_letter_limit import DeadLetterLimit


def limit(share: float = 0.5, least: int = 100) -> DeadLetterLimit:
    return DeadLetterLimit(
        Settings(dead_letter_share=share, dead_letter_least=least, dead_letter_window=timedelta(minutes=1))
    )


def test_a_bad_release_stops_the_worker_with_one_sentence_that_says_what_and_what_to_do() -> None:
    counted = limit()
    with pytest.raises(UserError) as stopped:
        counted.note(0.0, 1_000, ["schema"] * 600 + ["not_json"] * 10)
    sentence = str(stopped.value)
    assert "610 of the last 1,000 records" in sentence
    assert "600 of them for schema" in sentence
    assert "PIPELINE_DEAD_LETTER_SHARE=1" in sentence
    assert "\n" not in sentence


def test_few_bad_records_never_stop_a_worker_however_large_their_share() -> None:
    counted = limit(least=100)
    for second in range(300):
        counted.note(second, 1, ["not_json"])


def test_many_bad_records_do_not_stop_a_worker_while_most_are_good() -> None:
    counted = limit()
    for second in range(300):
        counted.note(second, 1_000, ["schema"] * 500)


def test_what_was_good_long_ago_does_not_make_up_for_what_is_bad_now() -> None:
    counted = limit()
    counted.note(0.0, 1_000_000, [])
    counted.note(59.0, 1_000, ["schema"] * 1_000)
    with pytest.raises(UserError):
        counted.note(61.0, 10, ["schema"] * 10)


def test_a_share_of_one_takes_everything_as_dead_letters() -> None:
    counted = limit(share=1.0)
    counted.note(0.0, 1_000, ["schema"] * 1_000)
