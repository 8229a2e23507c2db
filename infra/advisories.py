"""Ask the advisory service of PyPI about every locked package: exit status 1 if one that we run on has a known hole.

The packages of the race's other contestants, which run in the benchmark alone, are told of, too.
Where the service cannot be reached it says so, and that nothing was checked; it never passes in silence.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
RACE = tuple(sorted((ROOT / "benchmarks" / "race").glob("*.lock")))
#: Seconds that the service has to answer about one package.
_PATIENCE = 15


def main(lock: Path = LOCK, others: Sequence[Path] = RACE) -> int:
    """Print what is known of the packages; returns the exit status."""
    status = _ask(lock)
    for other in others:
        _ask(other)
    return status


def _ask(lock: Path) -> int:
    name = lock.name
    with TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip"]
        command += [
            "--format",
            "json",
            "--output",
            str(answer),
            "--progress-spinner",
            "off",
            "--timeout",
            str(_PATIENCE),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not answer.is_file():
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
            print(
                f"{name}: NOT CHECKED for known vulnerabilities: pip-audit did not get an answer ({last})",
                file=sys.stderr,
            )
            return 0
        packages = json.loads(answer.read_text())["dependencies"]
    holes = [(each["name"], each["version"], hole) for each in packages for hole in each.get("vulns", [])]
    for package, version, hole in holes:
        print(
            f"{name}: {package} {version}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version yet'}"
        )
    skipped = [each for each in packages if "skip_reason" in each]
    if skipped:
        reason = skipped[0]["skip_reason"]
        print(
            f"{name}: NOT CHECKED for known vulnerabilities: {len(skipped)} packages, such as: {reason}",
            file=sys.stderr,
        )
    print(f"{name}: {len(packages) - len(skipped)} packages checked for known vulnerabilities: {len(holes)} found")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
