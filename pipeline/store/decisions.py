"""What was decided once and follows from no scan, kept outside an embedded store, too: who was erased, and what was released.

A lost store is built anew from the log, which holds an erased visitor's scans still; and a day that was drawn with noise must not
be drawn again. So these are written here first, nothing is ever changed or taken out, and a store that lacks them is given them
as it is opened. The folder lies beside the store's, by its name and `.decisions`:

- `erased.jsonl`: a line for each pseudonym that was or is being erased, its digest and the receipt;
- `private-DAY.json`, `suppressed-DAY.json`: a release, as a row of `release_rows`.
"""

import json
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import StoreUnavailableError, UserError
from pipeline.privacy.secret_files import make_folder
from pipeline.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

_RELEASE: Final = re.compile(r"(private|suppressed)-(\d{4}-\d\d-\d\d)\.json")


class Decisions:
    """One folder; not there before there is something to keep. Files are for their owner alone, and on the disk when noted.

    Whatever notes raises StoreUnavailableError where that cannot be written; whatever reads, UserError.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._erased = folder / "erased.jsonl"

    def erased(self) -> dict[str, str]:
        """The digest (hex) of each pseudonym that was or is being erased, with its receipt."""
        try:
            text = self._erased.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UserError(f"{self._erased} cannot be read ({error.strerror}): it says who was erased") from None
        # What a crash left of a last line was never taken for noted.
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        try:
            return {str(line["digest"]): str(line["receipt"]) for line in map(json.loads, lines)}
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{self._erased} is damaged: it says who was erased; put back a copy of it before the store is used"
            ) from None

    def note_erased(self, receipts: Iterable[tuple[str, str]]) -> None:
        """Note digests and their receipts; one that is noted stays as it is."""
        known = self.erased()
        lines = [
            json.dumps({"digest": digest, "receipt": receipt}) + "\n"
            for digest, receipt in receipts
            if digest not in known
        ]
        if not lines:
            return
        try:
            make_folder(self._folder)
            descriptor = os.open(self._erased, os.O_CREAT | os.O_RDWR, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                flock(file, LOCK_EX)
                text = file.read()
                file.seek(text.rfind(b"\n") + 1)
                file.truncate()
                file.write("".join(lines).encode())
                file.flush()
                os.fsync(file.fileno())
            self._sync_folder()
        except OSError as error:
            raise StoreUnavailableError(f"{self._erased} cannot be written: {error.strerror or error}") from error

    def releases(self) -> set[tuple[str, str]]:
        """The kind and the day of each release."""
        try:
            found = [_RELEASE.fullmatch(path.name) for path in self._folder.iterdir()]
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise UserError(f"{self._folder} cannot be read ({error.strerror}): it says what was released") from None
        return {(match[1], match[2]) for match in found if match}

    def release(self, kind: str, day: str) -> bytes:
        """The row of a release, as JSON."""
        path = self._path(kind, day)
        try:
            row = path.read_bytes()
            json.loads(row)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): it is what was released") from None
        except ValueError:
            raise UserError(f"{path} is damaged: it is what was released; put back a copy of it") from None
        return row

    def keep_release(self, kind: str, day: str, row: bytes) -> bytes:
        """Keep the row of a release, unless its day has one of its kind; returns the one that holds."""
        path = self._path(kind, day)
        new = path.with_name(f".{path.name}.new")
        try:
            make_folder(self._folder)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(row)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(new, path)  # fails where there is one: nothing is ever replaced
            except FileExistsError:
                row = self.release(kind, day)
            new.unlink()
            self._sync_folder()
        except OSError as error:
            raise StoreUnavailableError(f"{path} cannot be written: {error.strerror or error}") from error
        return row

    def _path(self, kind: str, day: str) -> Path:
        return self._folder / f"{kind}-{day}.json"

    def _sync_folder(self) -> None:
        # The names of new files are in the folder, and the folder's own name is in the one above.
        for folder in (self._folder, self._folder.parent):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def decisions_of(settings: Settings) -> Decisions | None:
    """Those beside an embedded store; None of a server, whose backups must hold them."""
    if settings.clickhouse_url is not None:
        return None
    store = settings.store_path
    return Decisions(store.with_name(f"{store.name}.decisions"))


def share_decisions(client: Client, decisions: Decisions) -> None:
    """Give a store and the folder beside it what either lacks. Raises what the driver raises, and UserError."""
    try:
        _share(client, decisions)
    except StoreUnavailableError as error:
        raise UserError(f"what must outlive the store is not safe: {error}; make room, or the folder yours") from None


def _share(client: Client, decisions: Decisions) -> None:
    stored = dict(client.query("SELECT digest, any(receipt) FROM erased_rows GROUP BY digest").result_rows)
    kept = decisions.erased()
    now = as_stored(datetime.now(UTC))
    # Ended: of whoever is missing in the store's list there is nothing, unless an older copy was put back, which is looked at
    # whenever an erasure is asked for again.
    lacking = [
        json.dumps({"digest": digest, "receipt": receipt, "erased_at": now, "finished": 1})
        for digest, receipt in kept.items()
        if digest not in stored
    ]
    if lacking:
        client.raw_insert("erased_rows", insert_block="\n".join(lacking), fmt="JSONEachRow")
    decisions.note_erased(stored.items())
    rows = client.query("SELECT DISTINCT toString(kind), toString(day) FROM release_rows").result_rows
    known, held = decisions.releases(), {(kind, day) for kind, day in rows}
    for kind, day in sorted(known - held):
        insert_release(client, decisions.release(kind, day))
    for kind, day in sorted(held - known):
        row = client.raw_query(
            f"SELECT * FROM release_rows FINAL WHERE kind = '{kind}' AND day = '{day}'",
            fmt="JSONEachRow",
            settings={"output_format_json_quote_64bit_integers": 0},
        )
        decisions.keep_release(kind, day, row)


def as_stored(at: datetime) -> str:
    """A time in UTC as it stands in a row of JSON."""
    return at.isoformat(" ", "milliseconds").removesuffix("+00:00")


def insert_release(client: Client, row: bytes) -> None:
    """Put a row of `release_rows`, as JSON, into the store. Raises what the driver raises."""
    client.raw_insert("release_rows", insert_block=row, fmt="JSONEachRow")
