"""What tells whether a file has changed since it was read: keys, tokens, certificates and registries are read anew then."""

import os
from pathlib import Path

#: Last change in ns, size in bytes, inode.
FileState = tuple[int, int, int]


def file_state(path: Path) -> FileState | None:
    """How the file is now; None if it cannot be looked at."""
    try:
        return state_of(path.stat())
    except OSError:
        return None


def state_of(status: os.stat_result) -> FileState:
    """How a file was when it was looked at.

    One that is replaced has another inode, even if it has the same size and was written within the same tick of the clock.
    """
    return status.st_mtime_ns, status.st_size, status.st_ino
