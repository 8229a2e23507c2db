"""What tells whether a file has changed since it was read: keys, tokens, certificates and registries are read anew then."""

from pathlib import Path

#: Last change in ns, size in bytes, inode.
FileState = tuple[int, int, int]


def file_state(path: Path) -> FileState | None:
    """How the file is now; None if it cannot be looked at.

    A file that is replaced has another inode, even if it has the same size and was written within the same tick of the clock.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
