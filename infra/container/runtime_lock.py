"""Print what of requirements.lock a running pipeline needs, hashes and all: the lock without what only tests and linters need.

A container installs this. It is cut out of the lock by its own remarks (`# via`), so there is no second lock to fall out of step.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Who needs a package, one a line: `# via aiohttp`, or `# via` and then `#   aiohttp` each.
_VIA = re.compile(r"^    #(?: via|  ) +([\w.-]+)", re.MULTILINE)


def runtime_lock(root: Path = ROOT) -> str:
    """The blocks of the lock for the dependencies of pyproject.toml and all that these need. Raises ValueError without one."""
    wanted = {_name(each) for each in tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]}
    # Of one name there may be several blocks, for different versions of Python.
    text = (root / "requirements.lock").read_text()
    blocks = [(_name(block), block) for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE) if block]
    if missing := wanted - {name for name, _ in blocks}:
        raise ValueError(f"requirements.lock lacks {', '.join(sorted(missing))}: run make lock")
    needed_by = [(name, set(_VIA.findall(block))) for name, block in blocks]
    found: set[str] = set()
    while wanted:
        found |= wanted
        wanted = {name for name, parents in needed_by if parents & wanted} - found
    return "".join(block for name, block in blocks if name in found)


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


if __name__ == "__main__":
    sys.stdout.write(runtime_lock())
