"""Prometheus's rules and Alertmanager's configuration, by the programs that will read them; a runbook page for each alert."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.streaming import metrics
from pipeline.streaming.alertmanager import ALERT_NAME
from tests.needed import program

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "dashboards" / "alerts" / "pipeline.rules.yml"
TESTS = ROOT / "dashboards" / "alerts" / "pipeline.test.yml"
ALERTMANAGER = ROOT / "infra" / "alertmanager" / "alertmanager.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"

GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
#: What is appended to a histogram's name.
SERIES = re.compile(r"_(bucket|count|sum)$")


def run(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_configuration_and_the_rules() -> None:
    run(program("promtool", "prometheus"), "check", "config", ROOT / "infra" / "prometheus" / "prometheus.yml")


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    run(program("promtool", "prometheus"), "test", "rules", TESTS)


def test_every_alert_has_a_test() -> None:
    assert {case["name"] for case in yaml.safe_load(TESTS.read_text())["tests"]} == set(ALERTS)


def test_alertmanager_takes_its_configuration() -> None:
    run(program("amtool", "prometheus-alertmanager"), "check-config", ALERTMANAGER)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=Watchdog", "severity=none"), "dead-mans-switch"),
        ((f"alertname={ALERT_NAME}", "severity=critical", "venue_id=v"), "venues"),
        (("alertname=PipelineStale", "severity=page", "stale=yes"), "pager"),
        (("alertname=PipelineInvalidShare", "severity=ticket"), "tickets"),
    ],
)
def test_alerts_go_to_whom_they_concern(labels: tuple[str, ...], receiver: str) -> None:
    amtool = program("amtool", "prometheus-alertmanager")
    run(amtool, "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"--verify.receivers={receiver}", *labels)


def test_every_metric_named_is_one_that_the_worker_declares() -> None:
    declared = {value.name for value in vars(metrics).values() if isinstance(value, metrics.Meaning)}
    named = set(re.findall(r"\bpipeline_\w+", "\n".join(rule["expr"] for g in GROUPS for rule in g["rules"])))
    assert {SERIES.sub("", name) for name in named} - declared == set()


def test_every_alert_has_a_runbook_that_says_what_it_means_what_to_look_at_and_what_to_do() -> None:
    pages = {page.stem: page.read_text() for page in RUNBOOKS.glob("*.md")}
    assert set(pages) == {*ALERTS, ALERT_NAME}
    for name, text in pages.items():
        assert text.startswith(f"# {name}\n")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["What it means", "What to look at", "What to do"]


def test_every_alert_names_its_runbook_and_how_urgent_it_is() -> None:
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{name}.md"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"page", "ticket", "none"}
