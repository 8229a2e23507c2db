"""Programs that some tests need and Python packages do not bring."""

import os
import shutil

import pytest


def program(name: str, debian_package: str) -> str:
    """The path of a program; without it the test is skipped, or fails where everything must run (CI)."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} is not installed: it comes with Debian's package {debian_package}"
        if os.environ.get("PIPELINE_TESTS_NEED_ALL") == "1":
            pytest.fail(f"{missing}, and PIPELINE_TESTS_NEED_ALL=1 wants every test to run")
        pytest.skip(missing)
    return path
