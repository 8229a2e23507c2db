"""Installing compiles what a worker calls, also when it takes over from one that died: no partition waits for a compiler."""

import gc
from pathlib import Path

import pytest

from tests.integration.test_several_owners import rows_that_come_late, scans_that_come_late
from tests.isolated import run_isolated


def _loaded() -> set[str]:
    # Every kernel and the types that it was compiled for.
    from numba.core.dispatcher import Dispatcher

    kernels = [each for each in gc.get_objects() if isinstance(each, Dispatcher)]
    return {
        f"{kernel.py_func.__module__}.{kernel.py_func.__qualname__}{types}"
        for kernel in kernels
        for types in kernel.signatures
        if kernel.py_func.__module__.startswith("pipeline.")
    }


def installed() -> set[str]:
    """In an interpreter of its own: what is compiled when the pipeline is installed."""
    from pipeline import warm

    warm.main()
    return _loaded()


def called_by_takeovers(folder: str) -> set[str]:
    """In an interpreter of its own: what several workers call that take over from one another, scans of all ages amid it."""
    rows_that_come_late(str(Path(folder, "rows")), True)
    return _loaded()


def called_amid_recoveries(folder: str) -> set[str]:
    """In an interpreter of its own: the same where scans come in during the recovery."""
    scans_that_come_late(folder, ("find_unfinished", "load_shard"))
    return _loaded()


@pytest.mark.long
def test_what_takeovers_call_is_compiled_when_the_pipeline_is_installed(tmp_path: Path) -> None:
    compiled = run_isolated(installed)
    assert run_isolated(called_by_takeovers, str(tmp_path / "a")) - compiled == set()
    assert run_isolated(called_amid_recoveries, str(tmp_path / "b")) - compiled == set()
