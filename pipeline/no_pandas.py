"""Starts without pandas.

pyarrow looks for it at the first list that it is given, and finds what chdb brings along: a third of every start, 0.4 s and more,
for something that nothing here uses. It takes a failed import for a machine without pandas.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 (the finder's interface)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is left out of this process", name=fullname)
        return None


def leave_pandas_out() -> None:
    """Have this process do without pandas from now on."""
    sys.meta_path.insert(0, _NoPandas())
