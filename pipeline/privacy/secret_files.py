"""Files that nobody else may read: checked when read, and replaced whole when written; and folders that are closed to others."""

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeline.errors import UserError

log = logging.getLogger(__name__)

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_secret_file(path: Path) -> str:
    """The text of a file that belongs to us (or root) and that nobody else can read or write. Raises UserError otherwise."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_uid not in (os.getuid(), 0):
                raise UserError(
                    f"{path} belongs to another user, who could read or change it; make it yours with: chown"
                )
            if found.st_mode & _OTHERS:
                raise UserError(f"{path} can be opened by others than its owner; close it with: chmod 600 {path}")
            return file.read().decode()
    except FileNotFoundError:
        raise UserError(f"there is no {path}; make it with: pipeline keys create") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is not text; put back its copy") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def make_secret_folder(folder: Path) -> None:
    """Make the folder, and those above it that are not there, for us alone; what is there stays as it is. Raises UserError."""
    try:
        make_folder(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror or error}") from None


def make_folder(folder: Path) -> None:
    """What `make_secret_folder` does. Raises OSError."""
    # Not by `parents`, which closes the last one alone.
    for each in reversed((folder, *folder.parents)):
        if not each.is_dir():
            each.mkdir(mode=0o700, exist_ok=True)


def close_folder(folder: Path) -> None:
    """Have a folder that only we write to be for us alone: make it, or close one that others can open, and say so in the log.

    One that cannot be closed, as it is another user's or its file system knows no rights, is used all the same: the log says what
    to do. Raises OSError where it cannot be made.
    """
    make_folder(folder)
    found = folder.stat()
    if not found.st_mode & _OTHERS:
        return
    if found.st_uid == os.getuid():
        with suppress(OSError):
            folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
    if folder.stat().st_mode & _OTHERS:
        log.warning(
            "other users of this machine may read what is in %s, and we cannot close it: have its owner run chmod 700 on it, or "
            "use a folder of our own",
            folder,
        )
    else:
        log.warning("closed %s to other users of this machine: its mode was %03o", folder, stat.S_IMODE(found.st_mode))


def write_secret_file(path: Path, text: str) -> None:
    """Put the text in the file's place, for us alone; whoever reads sees the old file or the new one, also after a crash."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
