"""Rules of crowding in the settings: a venue's over its category's over the general ones over the defaults."""

import pytest

from pipeline.core.levels import Rule
from pipeline.errors import UserError
from pipeline.settings import Settings, load_settings

DEFAULT = (Rule(1000, 120_000, 900, 300_000), Rule(1100, 60_000, 900, 300_000))


def test_without_a_setting_a_venue_is_crowded_at_its_capacity_and_critical_a_tenth_above() -> None:
    assert Settings().crowding_of("mall", "v") == DEFAULT


def test_a_venues_rule_wins_over_its_categorys_and_leaves_the_rest_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_CROWDING__CRITICAL__RAISE_AT", "1.5")
    monkeypatch.setenv(
        "PIPELINE_CROWDING_BY_CATEGORY", '{"mall": {"warning": {"raise_at": 0.95, "raise_for": "PT10M"}}}'
    )
    monkeypatch.setenv(
        "PIPELINE_CROWDING_BY_VENUE", '{"v": {"warning": {"raise_at": 0.9}, "critical": {"clear_for": 60}}}'
    )
    settings = load_settings()
    assert settings.crowding_of("mall", "v") == (Rule(900, 600_000, 900, 300_000), Rule(1500, 60_000, 900, 60_000))
    assert settings.crowding_of("mall", "w") == (Rule(950, 600_000, 900, 300_000), Rule(1500, 60_000, 900, 300_000))
    assert settings.crowding_of("office", "w") == (DEFAULT[0], Rule(1500, 60_000, 900, 300_000))


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        (
            "PIPELINE_CROWDING_BY_CATEGORY",
            '{"mall": {"warning": {"raise_at": 0.8}}}',
            "category 'mall': clear_below must not",
        ),
        (
            "PIPELINE_CROWDING_BY_VENUE",
            '{"v": {"critical": {"clear_below": 2}}}',
            "venue 'v': clear_below must not exceed",
        ),
        ("PIPELINE_CROWDING", '{"warning": {"raise_for": "PT2H"}}', "must be between 1 second and 1 hour"),
        ("PIPELINE_CROWDING", '{"crowded": {"raise_at": 1}}', "'warning' or 'critical'"),
        ("PIPELINE_ALERTMANAGER_URL", "alerts.example:9093", "must begin with http"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=complaint) as refused:
        load_settings()
    assert "\n" not in str(refused.value)
