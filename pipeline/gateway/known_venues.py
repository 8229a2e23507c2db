"""Which venues there are, by the file that the registry is loaded from: a name that is not there might be somebody's number."""

from pathlib import Path

from pipeline.errors import UserError
from pipeline.file_state import FileState, file_state
from pipeline.venues import read_venues, refusals


class KnownVenues:
    """The ids of a registry's file, as `pipeline venues load` takes it."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises UserError."""
        self._path = path
        self._ids: frozenset[str] = frozenset()
        self._seen: FileState | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the file again, if it has changed. Raises UserError, and keeps what it had."""
        # To judge a nation's venues takes a second.
        state = file_state(self._path)
        if state is None or state != self._seen:
            self._ids, self._seen = _read(self._path), state

    def __contains__(self, venue_id: str) -> bool:
        return venue_id in self._ids


def _read(path: Path) -> frozenset[str]:
    rows = read_venues(path)
    if refused := refusals(path, rows):
        raise UserError(f"{refused[0]}; scans of that venue would be refused: mend the file")
    if not rows:
        raise UserError(f"{path} holds no venue, so every scan would be refused: give the file that the registry is in")
    return frozenset(row.key.decode() for row in rows)
