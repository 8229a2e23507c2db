"""What is built on is locked, named and allowed, and nothing of it runs as root where we say how it runs."""

import json
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from infra import advisories, licences, sbom

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()


def test_every_locked_package_has_hashes_and_no_host() -> None:
    blocks = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE).strip())
    assert len(blocks) > 100
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+==\S+", block), block
        assert "--hash=sha256:" in block, block
    assert "://" not in LOCK
    assert "--index-url" not in LOCK


def test_nothing_is_installed_or_built_but_what_is_locked() -> None:
    installs = [line for line in (ROOT / "Makefile").read_text().splitlines() if " pip install " in line]
    assert installs
    for line in installs:
        locked = "--require-hashes --only-binary :all:" in line
        ours = "--no-deps --no-build-isolation --editable ." in line
        assert locked or ours, line
    backend = re.search(r"^requires = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert backend is not None
    names = [re.split(r"[>=<]", each, maxsplit=1)[0] for each in json.loads(backend[1])]
    for name in names:
        assert f"\n{name}==" in LOCK, name


def test_every_licence_is_allowed_or_was_looked_at() -> None:
    assert licences.refused() == []
    installed = {package.name for package in distributions()}
    assert set(licences.LOOKED_AT) <= installed


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"License-Expression": "MPL-2.0 AND (Apache-2.0 OR MIT)"}, True),
        ({"License-Expression": "AGPL-3.0-only"}, False),
        ({"License-Expression": "MIT AND GPL-3.0-or-later"}, False),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, True),
        ({"Classifier": "License :: OSI Approved :: GNU Affero General Public License v3"}, False),
        ({"License": "proprietary"}, False),
        ({}, False),
    ],
)
def test_a_licence_that_may_not_be_passed_on_is_found(
    headers: dict[str, str], allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "strange-1.0.dist-info"
    folder.mkdir()
    lines = [
        "Metadata-Version: 2.4",
        "Name: strange",
        "Version: 1.0",
        *(f"{key}: {text}" for key, text in headers.items()),
    ]
    (folder / "METADATA").write_text("\n".join(lines) + "\n\n")
    monkeypatch.setattr(licences, "distributions", lambda: distributions(path=[str(tmp_path)]))
    assert (licences.refused() == []) == allowed


def test_the_bill_of_materials_is_valid_and_names_packages_and_jars_with_their_digests() -> None:
    found: dict[str, Any] = sbom.bill_of_materials()
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    names = {each["name"].lower() for each in found["components"]}
    assert {"opendp", "highspy", "chdb", "faust-streaming", "kafka_2.13", "echarts.js"} <= names
    jars = [each for each in found["components"] if each.get("purl", "").startswith("pkg:maven/")]
    locked = (ROOT / "infra" / "kafka" / "jars.lock").read_text()
    assert len(jars) == len(re.findall(r"^[^#\s]+ [0-9a-f]{64}$", locked, re.MULTILINE))
    assert all(each["hashes"][0]["content"] in locked for each in jars)
    assert str(ROOT) not in json.dumps(found)


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (None, 0, "NOT CHECKED for known vulnerabilities"),
        ([], 0, "1 packages checked for known vulnerabilities: 0 found"),
        ([], 0, "NOT CHECKED for known vulnerabilities: 1 packages, such as: Dependency not found on PyPI"),
        ([{"id": "PYSEC-1", "fix_versions": ["2.0"]}], 1, "some 1.0: PYSEC-1, mended in 2.0"),
    ],
)
def test_known_holes_fail_and_no_answer_is_said(
    answer: list[Any] | None, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        if answer is not None:
            packages: list[dict[str, Any]] = [
                {"name": "some", "version": "1.0", "vulns": answer},
                {"name": "other", "skip_reason": "Dependency not found on PyPI"},
            ]
            Path(command[command.index("--output") + 1]).write_text(json.dumps({"dependencies": packages}))
        return subprocess.CompletedProcess(command, 1, "", "ConnectionError: no route")

    monkeypatch.setattr(subprocess, "run", run)
    assert advisories.main() == status
    assert said in "".join(capfd.readouterr())


def test_ci_checks_the_supply_chain() -> None:
    assert "make supply" in (ROOT / ".ci" / "run").read_text()
    target = (ROOT / "Makefile").read_text().split("\nsupply:", 1)[1].split("\n\n", 1)[0]
    for name in ("sbom", "licences", "advisories"):
        assert f"infra/{name}.py" in target
