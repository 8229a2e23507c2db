"""One way to compile a function to machine code, typed for the checker."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")


def _cache_folder() -> Path:
    # numba keeps compiled code by the file of the called function alone: a change in a kernel that it calls from another file
    # would go unnoticed, and the old code would run on. One cache per state of all the sources cannot be stale.
    here = Path(__file__).parent
    digest = sha256()
    for source in sorted(here.rglob("*.py")):
        digest.update(source.read_bytes())
    return here / "__pycache__" / f"kernels-{digest.hexdigest()[:12]}"


if "NUMBA_CACHE_DIR" not in os.environ and os.access(Path(__file__).parent, os.W_OK):
    numba.config.CACHE_DIR = str(_cache_folder())


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` with numba: kept on disk between runs, free of the GIL, division by zero as in numpy.

    It makes no arrays. The caller holds those it is given, so that numba need not count who holds them: it counts with an atomic
    instruction at each call that passes an array on, which was a third of the time of folding a scan.
    """
    return _compiled(function, counted=False)


def array_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """A `kernel` that makes arrays for itself."""
    return _compiled(function, counted=True)


def _compiled(function: Callable[P, R], *, counted: bool) -> Callable[P, R]:
    made = numba.njit(cache=True, nogil=True, error_model="numpy", _nrt=counted)(function)
    return cast(Callable[P, R], made)


@kernel
def wide(value: int) -> int:
    """A number as a 64-bit integer: numba computes in the type of an array's element, and minus a byte is a large number."""
    return np.int64(value)  # type: ignore[return-value]


@array_kernel
def sort_first(values: NDArray[np.int64], count: int) -> None:
    """Sort the first `count` of some numbers."""
    values[:count] = np.sort(values[:count])
