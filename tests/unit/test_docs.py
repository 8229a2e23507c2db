"""What the documentation names exists: links, commands and their options, settings, metrics, files, targets of make."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipeline.cli import cli
from pipeline.settings import Settings
from pipeline.streaming import metrics

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS_IN_CAPITALS = {f"PIPELINE_{name.upper()}" for name in Settings.model_fields}
#: Not settings: where the settings file is.
OTHER_VARIABLES = {"PIPELINE_CONFIG"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[list[str]]:
    """The words of every call of `pipeline` in blocks of sh and in code within a line, up to a pipe or the like."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    inline = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`([^`\n]+)`", inline)
    for line in lines:
        if not re.match(r"(PIPELINE_\w+=\S+ )*(\.venv/bin/)?pipeline( |$)", line):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        while "=" in words[0]:
            del words[0]
        end = next((i for i, word in enumerate(words) if set(word) <= set("|&;<>()")), len(words))
        yield words[1:end]


def unknown_word(words: list[str]) -> str | None:
    """The first word that is neither a command nor an option of it; arguments may be anything."""
    command: click.Command = cli
    context = click.Context(cli)
    for word in words:
        if word.startswith("-"):
            options = {
                name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)
            }
            if word.partition("=")[0] not in options:
                return word
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None:
                return None if word == "…" else word
            command = found
            context = click.Context(found, parent=context, **found.context_settings)
    return None


def first_cells(page: Path, heading: str) -> list[str]:
    """The code in the first column of the table under a heading."""
    section = page.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


@each_page
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@each_page
def test_every_command_and_option_shown_exists(page: Path) -> None:
    for words in commands(page.read_text()):
        assert unknown_word(words) is None, f"pipeline {shlex.join(words)}: {unknown_word(words)}"


def test_a_command_or_an_option_that_is_not_there_is_found_out() -> None:
    text = "```sh\nPIPELINE_CLOCK=wall pipeline worker --drian | cat -A\npipeline brooker start\n```\n`pipeline venues lode x`"
    assert [unknown_word(words) for words in commands(text)] == ["--drian", "brooker", "lode"]


def test_the_readme_shows_every_command() -> None:
    shown = {words[0] for words in commands((ROOT / "README.md").read_text()) if words}
    assert shown >= set(cli.list_commands(click.Context(cli)))


@each_page
def test_every_variable_named_is_a_setting(page: Path) -> None:
    named = set(re.findall(r"\bPIPELINE_[A-Z][A-Z_]*[A-Z]\b", page.read_text()))
    assert named <= SETTINGS_IN_CAPITALS | OTHER_VARIABLES


def test_the_table_of_settings_is_complete() -> None:
    assert first_cells(ROOT / "docs" / "operations.md", "Settings") == list(Settings.model_fields)


def test_the_table_of_metrics_is_complete() -> None:
    defined = [value.name for value in vars(metrics).values() if isinstance(value, metrics.Meaning)]
    assert first_cells(ROOT / "docs" / "operations.md", "Metrics") == defined


@each_page
def test_every_file_named_is_there(page: Path) -> None:
    named = re.findall(r"`((?:pipeline|schemas|tests|infra|docs|benchmarks|dashboards)/[\w./-]*)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@each_page
def test_every_target_of_make_is_in_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)
    assert set(named) <= targets


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_number_and_four_headings(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.name[:3]}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Choice", "Turned down", "Consequences"]


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:3]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
