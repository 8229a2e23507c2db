"""What runs in containers has no more rights than it needs. The files are read here, not built: there is no engine for that."""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.gateway.server import _check_exposure
from pipeline.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "infra" / "container"
CONTAINERFILE = (HERE / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((HERE / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def instructions(name: str) -> list[str]:
    text = re.sub(r"^#.*\n", "", CONTAINERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(f"{name} ")]


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(HERE))
    text: str = import_module("runtime_lock").runtime_lock()
    del sys.modules["runtime_lock"]
    return text


def test_the_image_runs_as_nobody_in_particular_and_installs_by_hash() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert all(re.search(r":\d+\.\d+\.\d+-slim\b", base) for base in instructions("FROM"))
    (install,) = [line for line in instructions("RUN") if "pip install" in line]
    assert {"--require-hashes", "--only-binary"} <= set(install.split())
    assert "/livez" in instructions("HEALTHCHECK")[0]
    for source in instructions("COPY"):
        assert "secrets" not in source
        assert not source.startswith(". "), "a checkout may hold anything"
    names = {pair.split("=")[0] for pair in " ".join(instructions("ENV")).split()}
    secret = {
        f"PIPELINE_{name.upper()}" for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)
    }
    assert secret
    assert not names & secret


def test_nothing_that_only_tests_need_is_installed(locked: str) -> None:
    names = set(re.findall(r"^([a-z0-9-]+)==", locked, re.MULTILINE))
    assert names >= {"faust-streaming", "aiokafka", "chdb", "uvicorn", "pyjwt", "cffi", "yarl"}
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "playwright", "pip-audit", "schemathesis"}
    for block in re.split(r"^(?=[a-z0-9])", locked, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block
        assert block in (ROOT / "requirements.lock").read_text()


@each_service
def test_a_service_cannot_write_its_root_gain_rights_or_be_root(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "userns_mode"}
    assert re.search(r":v?\d+\.\d+", service["image"]), "a version, never whatever is newest"


def test_each_audit_log_keeps_a_name_of_its_own_when_its_container_is_made_anew() -> None:
    # Both begin a log at the same path: its name is of that and the host's.
    writers = [SERVICES[name] for name in ("worker", "serve")]
    assert len({service["hostname"] for service in writers}) == len(writers)


@each_service
def test_a_service_is_given_secrets_as_files_only(service: dict[str, Any]) -> None:
    for name, value in service.get("environment", {}).items():
        assert not re.search(r"PASSWORD|TOKEN|SECRET|MASTER|_URL", name), name
        assert "${" not in value
        if name.startswith("PIPELINE_") and name != "PIPELINE_CONFIG":
            assert name.removeprefix("PIPELINE_").lower() in Settings.model_fields
    for mount in service.get("volumes", ()):
        source, *_, mode = mount.split(":")
        assert mode == "ro" or source in COMPOSE["volumes"], "nothing of the machine's own is written"
        assert "docker.sock" not in mount


def test_every_secret_is_a_file_outside_version_control() -> None:
    assert all(re.fullmatch(r"\./secrets/[\w.-]+", secret["file"]) for secret in COMPOSE["secrets"].values())
    given = [
        each if isinstance(each, str) else each["source"]
        for one in SERVICES.values()
        for each in one.get("secrets", ())
    ]
    assert set(given) == set(COMPOSE["secrets"])
    assert "infra/container/secrets" in (ROOT / ".gitignore").read_text()
    assert "infra/container/secrets" in (ROOT / ".containerignore").read_text()


def test_what_is_spoken_to_in_clear_is_reached_from_inside_only() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in ("kafka", "clickhouse", "worker", "prometheus"):
        assert SERVICES[name]["networks"] == ["inside"]
        assert "ports" not in SERVICES[name]
    assert SERVICES["serve"]["ports"] == ["127.0.0.1:8080:8080"], "it has no TLS of its own"
    assert "PIPELINE_GATEWAY_CERTIFICATE" in SERVICES["gateway"]["environment"]


def test_the_gateway_is_given_all_that_it_wants_beyond_loopback() -> None:
    given = {
        name.removeprefix("PIPELINE_").lower(): value for name, value in SERVICES["gateway"]["environment"].items()
    }
    _check_exposure(Settings(**given))
    with pytest.raises(UserError, match="PIPELINE_VENUE_CODES=required"):
        _check_exposure(Settings(**given | {"venue_codes": "optional"}))
