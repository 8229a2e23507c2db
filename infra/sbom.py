"""Write the software bill of materials as CycloneDX 1.6: Python packages, Kafka's jars and the pages' files.

It is checked against CycloneDX's own schema before it is written, and the same each time.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parent.parent


def bill_of_materials(python: str = sys.executable) -> dict[str, Any]:
    """What is installed for this Python, and jars and files by their locks. Raises ValueError where it would break the schema."""
    command = [python, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")]
    command += ["--output-reproducible", "--no-validate", "--short-PURLs", "--output-format", "JSON", python]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(made.stdout)
    found["components"] = [each for each in found["components"] if each["name"] != "checkin-pipeline"]
    for each in found["components"]:
        # Links to projects' pages: none is needed to know what this is, and checking their syntax takes a minute.
        each.pop("externalReferences", None)
    found["components"] += [*_jars(), *_page_files()]
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found))
    if wrong is not None:
        raise ValueError(f"this is no CycloneDX document: {wrong}")
    return found


def _locked(path: Path) -> list[tuple[str, str]]:
    lines = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    return [(name, digest) for name, digest in lines]


def _jars() -> list[dict[str, Any]]:
    found = []
    for coordinates, digest in _locked(ROOT / "infra" / "kafka" / "jars.lock"):
        group, name, version = coordinates.split(":")
        place = f"pkg:maven/{group}/{name}@{version}?type=jar"
        found.append(
            {"type": "library", "bom-ref": place, "group": group, "name": name, "version": version, "purl": place}
            | {"hashes": [{"alg": "SHA-256", "content": digest}]}
        )
    return found


def _page_files() -> list[dict[str, Any]]:
    locked = ROOT / "infra" / "web" / "vendor.lock"
    origin = locked.read_text().splitlines()[0].removeprefix("# ").partition(":")[0]
    return [
        {"type": "file", "bom-ref": f"vendor/{name}", "name": name, "description": f"of {origin}"}
        | {"hashes": [{"alg": "SHA-256", "content": digest}]}
        for name, digest in _locked(locked)
    ]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(bill_of_materials(), indent=1, ensure_ascii=False) + "\n")
