"""What a command does not load."""

import sys

from tests.isolated import run_isolated


def _loaded() -> tuple[list[str], bool]:
    """In an interpreter of its own: what pyarrow makes of a list, and whether pandas came with it."""
    from pipeline.no_pandas import leave_pandas_out
    from pipeline.store.tables import strings

    leave_pandas_out()
    return strings(["a", "b"]).to_pylist(), "pandas" in sys.modules


def test_a_command_starts_without_pandas() -> None:
    assert run_isolated(_loaded) == (["a", "b"], False)
