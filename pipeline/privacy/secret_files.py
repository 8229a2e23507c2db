"""Files that nobody else may read: checked when read, and replaced whole when written."""

import os
import stat
from pathlib import Path

from pipeline.errors import UserError


def read_secret_file(path: Path) -> str:
    """The text of a file that belongs to us (or root) and that nobody else can read or write. Raises UserError otherwise."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_uid not in (os.getuid(), 0):
                raise UserError(
                    f"{path} belongs to another user, who could read or change it; make it yours with: chown"
                )
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise UserError(f"{path} can be opened by others than its owner; close it with: chmod 600 {path}")
            return file.read().decode()
    except FileNotFoundError:
        raise UserError(f"there is no {path}; make it with: pipeline keys create") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is not text; put back its copy") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def make_secret_folder(folder: Path) -> None:
    """Make the folder, for us alone, if it is not there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror or error}") from None


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
