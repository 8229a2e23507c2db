"""`pipeline config`: every setting with its source, nothing secret; and the exit statuses of the command line."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline import cli
from pipeline.commands.config import EXAMPLES, command
from pipeline.settings import Settings, load_settings

#: Passwords with every character that ends some part of a URL.
PASSWORDS = ["s3cret", "s3cret@x", "s3c/ret", "s3c#ret", "s3c?ret=1", "s3c:ret", "s3c://ret", "s3c,ret", "s3c ret"]


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("PIPELINE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def config(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_setting_is_shown_with_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pipeline.toml").write_text(
        'group = "gates"\npartitions = 8\nmax_stay_by_category = { mall = "PT2H" }\nhome = "data"\n'
    )
    monkeypatch.setenv("PIPELINE_PARTITIONS", "12")
    monkeypatch.setenv("PIPELINE_MAX_STAY_BY_CATEGORY__office", "PT10H")
    monkeypatch.setenv("pipeline_http_port", "0")
    shown = json.loads(config("--format", "json"))
    assert list(shown) == list(Settings.model_fields)
    told = {name: (entry["value"], entry["source"]) for name, entry in shown.items() if entry["source"] != "default"}
    assert told == {
        "home": ("data", "file"),
        "group": ("gates", "file"),
        "partitions": (12, "environment"),
        "http_port": (0, "environment"),
        "max_stay_by_category": ({"mall": "PT2H", "office": "PT10H"}, "file and environment"),
    }


def test_keys_and_tokens_are_hidden_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIPELINE_MASTER_KEY", "PIPELINE_VAULT_TOKEN"):
        monkeypatch.setenv(name, "s3cret-s3cret-s3cret")
    for shown in (config(), config("--format", "json"), config("--descriptions")):
        assert "s3cret" not in shown


def test_what_is_shown_is_a_settings_file_with_the_same_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_GROUP", 'ga"tes\\é')
    monkeypatch.setenv("PIPELINE_MAX_STAY_BY_CATEGORY", '{"night.club": "PT23H"}')
    monkeypatch.setenv("PIPELINE_DURABLE_WRITES", "yes")
    effective = load_settings()
    shown = config("--descriptions")
    for name in ("PIPELINE_GROUP", "PIPELINE_MAX_STAY_BY_CATEGORY", "PIPELINE_DURABLE_WRITES"):
        monkeypatch.delenv(name)
    Path("pipeline.toml").write_text(shown)
    assert load_settings() == effective
    assert all(field.description in shown for field in Settings.model_fields.values() if field.description)


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("form", ["toml", "json"])
def test_no_password_is_shown(password: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PIPELINE_CLICKHOUSE_URL", f"https://reader:{password}@ch.example:8443/checkins?token={password}"
    )
    monkeypatch.setenv("PIPELINE_KAFKA", f"k1.example:9092,user:{password}@k2.example:9092")
    shown = json.loads(config("--format", "json")) if form == "json" else tomllib.loads(config())
    values = {name: shown[name]["value"] if form == "json" else shown[name] for name in ("clickhouse_url", "kafka")}
    assert "s3c" not in str(values)
    assert "ret" not in str(values)
    assert values["clickhouse_url"].startswith("https://reader:***@")
    assert values["kafka"].endswith("@k2.example:9092")


def test_an_address_without_a_password_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_CLICKHOUSE_URL", "http://127.0.0.1:8123/checkins")
    monkeypatch.setenv("PIPELINE_KAFKA", "k1.example:9092,[::1]:9092")
    shown = tomllib.loads(config())
    assert shown["clickhouse_url"] == "http://127.0.0.1:8123/checkins"
    assert shown["kafka"] == "k1.example:9092,[::1]:9092"


def test_the_example_names_every_setting_and_each_of_its_lines_is_taken_as_it_stands() -> None:
    example = config("--example")
    assert tomllib.loads(example) == {}
    assert {
        name for name, field in Settings.model_fields.items() if field.get_default(call_default_factory=True) is None
    } <= set(EXAMPLES)
    lines = [line.removeprefix("# ") for line in example.splitlines()]
    settings = [line for line in lines if line.split(" = ")[0] in Settings.model_fields]
    assert [line.split(" = ")[0] for line in settings] == list(Settings.model_fields)
    Path("pipeline.toml").write_text("\n".join(settings))
    loaded, defaults = load_settings(), Settings.model_construct()
    for name in Settings.model_fields:
        assert (getattr(loaded, name) == getattr(defaults, name)) == (name not in EXAMPLES), name


def test_a_variable_that_names_no_setting_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_MAXSTAY", "PT1H")
    monkeypatch.setenv("PIPELINE_MAX_STAY_BY_CATEGORY__mall", "PT1H")
    result = CliRunner().invoke(command)
    assert result.exit_code == 0
    assert result.stderr == "pipeline: PIPELINE_MAXSTAY in the environment is the name of no setting\n"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["config"], 0),
        (["config", "--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["confgi"], 2),
        (["confgi", "--help"], 2),
        (["config", "--nope"], 2),
        (["config", "--example", "--format", "json"], 2),
    ],
)
def test_exit_statuses(arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert (left.value.code or 0) == status


def test_a_status_given_by_a_command_is_the_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    from click import Context, command, pass_context

    @command()
    @pass_context
    def failing(context: Context) -> None:
        context.exit(1)

    monkeypatch.setattr(cli, "cli", failing)
    monkeypatch.setattr(sys, "argv", ["pipeline"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1


def test_a_wrong_setting_is_one_sentence_and_status_1() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pipeline", "config"],
        env={**os.environ, "PIPELINE_PARTITIONS": "many"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("pipeline: setting partitions: ")
    assert run.stderr.count("\n") == 1
