"""Run a piece of a test in an interpreter of its own.

The embedded ClickHouse takes one path per process and must never be forked, while pytest runs every test in one
process: a test that opens it does so in a function that runs here.
"""

import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.no_pandas import leave_pandas_out

_ROOT = Path(__file__).resolve().parent.parent


def run_isolated(function: Callable[..., Any], *args: Any, timeout: float = 900) -> Any:
    """Call a module-level function of a test module in a fresh interpreter and return what it returns.

    Arguments and result are pickled: plain values, or classes of installed packages, never classes of the test module.
    Raises AssertionError with the child's output when it fails, subprocess.TimeoutExpired after `timeout` seconds.
    """
    with TemporaryDirectory() as folder:
        request, response = Path(folder, "request"), Path(folder, "response")
        request.write_bytes(pickle.dumps((inspect.getfile(function), function.__name__, args)))
        child = subprocess.run(
            [sys.executable, __file__, str(request), str(response)],
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert child.returncode == 0, (
            f"{function.__name__} ended with {child.returncode}\n{child.stdout}\n{child.stderr}"
        )
        return pickle.loads(response.read_bytes())


def _main(request: Path, response: Path) -> None:
    leave_pandas_out()  # as every command does
    source, name, args = pickle.loads(request.read_bytes())
    spec = spec_from_file_location(Path(source).stem, source)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    response.write_bytes(pickle.dumps(getattr(module, name)(*args)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
