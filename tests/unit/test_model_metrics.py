"""What a worker shows of the model of presence: nothing where nothing is known, and never too many series."""

from dataclasses import replace

import pytest

from pipeline.core.presence.check import Checked
from pipeline.model_care import checked_figures
from pipeline.streaming import metrics
from pipeline.streaming.metrics import Metrics
from pipeline.streaming.ports import MOST_CATEGORIES, ModelFigures


def _shown(figures: ModelFigures | None) -> dict[str, float]:
    every = Metrics()
    every.model = figures
    lines = [line for line in every.exposition().decode().splitlines() if line.startswith("pipeline_model")]
    named = (line.rpartition(" ") for line in lines)
    return {name: float(value) for name, _, value in named if not name.endswith("_created")}


def test_before_the_first_look_there_is_no_model_to_speak_of() -> None:
    assert _shown(None) == {metrics.REFIT_FAILURES.name: 0}


def test_what_is_not_known_is_not_shown() -> None:
    assert _shown(ModelFigures()) == {metrics.REFIT_FAILURES.name: 0, metrics.MODEL_GAPS.name: 0}


def test_everything_known_is_shown_by_its_name() -> None:
    shown = _shown(ModelFigures(3600.0, 2, 0.75, 0.91, -0.02, {"mall": 0.03, "office": 0.2}, {"mall": 0.31}))
    assert shown == {
        metrics.REFIT_FAILURES.name: 0,
        metrics.MODEL_AGE.name: 3600,
        metrics.MODEL_GAPS.name: 2,
        metrics.MODEL_COVERED.name: 0.75,
        metrics.CHECK_COVERAGE.name: 0.91,
        metrics.CHECK_BIAS.name: -0.02,
        f'{metrics.MODEL_DRIFT.name}{{category="mall"}}': 0.03,
        f'{metrics.MODEL_DRIFT.name}{{category="office"}}': 0.2,
        f'{metrics.CHECK_OUT_SHARE.name}{{category="mall"}}': 0.31,
    }


def test_each_estimate_s_metric_says_what_it_is_blind_to() -> None:
    every = (
        metrics.MODEL_GAPS,
        metrics.MODEL_COVERED,
        metrics.CHECK_COVERAGE,
        metrics.CHECK_BIAS,
        metrics.MODEL_DRIFT,
        metrics.CHECK_OUT_SHARE,
    )
    assert all("blind to" in meaning.action for meaning in every)


def test_only_the_categories_with_the_most_check_outs_have_a_series_each() -> None:
    some = Checked(100, 40, 40.0, 20, 18, 200.0, 210.0, 0.05, 1.0)
    checks = {f"kind-{i:03}": replace(some, check_outs=i) for i in range(200)}
    found = checked_figures(checks)
    assert len(found.drift) == len(found.check_out_share) == MOST_CATEGORIES
    assert set(found.drift) == {f"kind-{i:03}" for i in range(200 - MOST_CATEGORIES, 200)}
    assert found.check_coverage == 0.9
    assert found.check_bias == pytest.approx(200 / 210 - 1)
