"""What the pages for assessors name as evidence is there, and they leave out nothing that they promise to cover."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASVS, DUTIES = ROOT / "docs" / "asvs.md", ROOT / "docs" / "duties.md"
SECURITY = ROOT / "docs" / "security.md"
#: How many requirements of levels 1 and 2 a section of ASVS 5.0.0 has; they are numbered from 1.
#: https://github.com/OWASP/ASVS/tree/v5.0.0/5.0/en
SECTIONS = (
    "1.1:2 1.2:9 1.3:11 1.4:3 1.5:2 2.1:3 2.2:3 2.3:4 2.4:1 3.2:2 3.3:4 3.4:6 3.5:5 3.7:2 4.1:3 4.2:1 4.3:2 4.4:4 5.1:1 5.2:3 "
    "5.3:2 5.4:3 6.1:3 6.2:12 6.3:4 6.4:4 6.5:5 6.6:3 6.8:4 7.1:3 7.2:4 7.3:2 7.4:5 7.5:2 7.6:2 8.1:2 8.2:3 8.3:1 8.4:1 9.1:3 "
    "9.2:4 10.1:2 10.2:2 10.3:4 10.4:11 10.5:5 10.6:2 10.7:3 11.1:2 11.2:3 11.3:3 11.4:4 11.5:1 11.6:1 12.1:3 12.2:2 12.3:4 "
    "13.1:1 13.2:5 13.3:2 13.4:5 14.1:2 14.2:4 14.3:3 15.1:3 15.2:3 15.3:7 16.1:1 16.2:5 16.3:4 16.4:3 16.5:3 17.1:1 17.2:4 "
    "17.3:2"
)
REQUIREMENTS = [
    (*map(int, section.split(".")), number)
    for section, count in (each.split(":") for each in SECTIONS.split())
    for number in range(1, int(count) + 1)
]
STATUSES = {"met", "partly", "not met", "does not apply"}


@cache
def text_of(path: str) -> str:
    return (ROOT / path).read_text()


def is_there(path: str, name: str) -> bool:
    """Whether a file has a test (`::name`) or anything else (`:name`) of that name."""
    if not (ROOT / path).is_file():
        return False
    kind = rf"^(?:async )?def {re.escape(name[1:])}\(" if name.startswith(":") else rf"\b{re.escape(name)}\b"
    return re.search(kind, text_of(path), re.MULTILINE) is not None


def evidence(page: str) -> list[tuple[str, str]]:
    return re.findall(r"`([\w./-]+/[\w.-]+):(:?[\w.-]+)`", page)


def rows(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| requirement")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def covered(page: str) -> list[tuple[int, ...]]:
    """Every requirement of a row's first cell, or of "All of …", ranges written out."""
    cells = [row[0] for row in rows(page)] + re.findall(r"^All of ([\d.–, ]+):", page, re.MULTILINE)
    found: list[tuple[int, ...]] = []
    for part in ", ".join(cells).split(", "):
        first, _, last = part.partition("–")
        low, high = (tuple(map(int, each.split("."))) for each in (first, last or first))
        found += [each for each in REQUIREMENTS if low <= each <= high]
    return found


@pytest.mark.parametrize("page", [ASVS, DUTIES], ids=lambda page: page.stem)
def test_every_piece_of_evidence_is_there(page: Path) -> None:
    named = evidence(page.read_text())
    assert len(named) > 10
    assert [f"{path}:{name}" for path, name in named if not is_there(path, name)] == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("pipeline/audit.py", "AuditLogs"),
        ("pipeline/audits.py", "AuditLog"),
        ("tests/unit/test_audit.py", ":test_what_cannot"),
    ],
)
def test_evidence_that_is_not_there_is_found_out(path: str, name: str) -> None:
    assert not is_there(path, name)
    assert evidence(f"`{path}:{name}`") == [(path, name)]


def test_every_requirement_of_level_2_is_judged_once() -> None:
    assert len(REQUIREMENTS) == 253
    assert sorted(covered(ASVS.read_text())) == REQUIREMENTS


def test_every_requirement_has_a_status_and_what_is_met_has_a_reason() -> None:
    for row in rows(ASVS.read_text()):
        assert len(row) == 4, row
        assert row[2] in STATUSES, row
        assert row[3], row


def test_every_threat_names_its_test() -> None:
    table = SECURITY.read_text().split("## Threats\n", 1)[1].split("\n## ", 1)[0]
    threats = [row for row in rows(table) if row[0] != "threat"]
    assert len(threats) > 20
    for row in threats:
        assert all((ROOT / name).is_file() for name in re.findall(r"`([^`]+)`", row[2])), row
        assert "`" in row[2], row
