"""The audit log: who read what about persons, why and when, and of how many. Append-only, each entry chained to the one before.

A file of JSON lines. An entry is on the disk before its answer is given; if it cannot be written, there is no answer. `hash` is
the SHA-256 of the entry without it, which holds the hash of the entry before: no entry can be changed or taken out of the middle
without changing all later ones. A cut tail, or a log written anew, is found by the heads told to Kafka (topic `audit-heads`).
"""

import getpass
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fcntl import LOCK_EX, flock
from hashlib import sha256
from pathlib import Path
from socket import gethostname
from typing import Any, Final

from pipeline.errors import UserError
from pipeline.privacy.secret_files import make_folder

#: What the first entry of a log is chained to.
_BEGINNING: Final = "0" * 64
_TAIL_BYTES: Final = 65_536

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a log: which log, its number, its hash."""

    log: str
    number: int
    hash: str


class AuditLog:
    """One file. Any number of processes may append to it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(
        self,
        who: str,
        action: str,
        *,
        purpose: str,
        case: str | None = None,
        persons: int | None = None,
        what: str = "",
    ) -> Entry:
        """Write an entry and have it on the disk. Raises UserError if it cannot be: then nothing may be answered.

        `persons`: of how many (at most) the answer tells. `what`: the question, which must hold no pseudonym.
        """
        about = {"action": action, "purpose": purpose, "case": case, "persons": persons, "what": what}
        return self._append(who, [about])[0]

    def append_cases(self, who: str, cases: Iterable[tuple[str, str]], *, purpose: str) -> None:
        """Write an entry for each (action, case), of one person each, as `append` does, but with one wait for the disk.

        Raises what it raises. An entry for all would be found by none of the cases, and could be longer than one is read back.
        """
        self._append(
            who,
            [{"action": action, "purpose": purpose, "case": case, "persons": 1, "what": ""} for action, case in cases],
        )

    def _append(self, who: str, abouts: Iterable[Entry]) -> list[Entry]:
        written: list[Entry] = []
        try:
            make_folder(self._path.parent)
            descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                flock(file, LOCK_EX)
                last = _last(file)
                for about in abouts:
                    entry: Entry = {
                        "log": last["log"] if last else self._place(),
                        "number": last["number"] + 1 if last else 1,
                        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                        "who": who,
                        **about,
                        "previous": last["hash"] if last else _BEGINNING,
                    }
                    entry["hash"] = _hash(entry)
                    # In ASCII: who asked is named by others, and must not begin a line or steer the terminal of who reads it.
                    file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
                    written.append(entry)
                    last = entry
                file.flush()
                os.fsync(file.fileno())
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"the audit log {self._path} cannot be written ({error}): nothing about persons is read without it"
            ) from None
        return written

    def _place(self) -> str:
        # What a log that begins here is called: one that is written anew has the name of the one before.
        return sha256(f"{gethostname()}:{self._path.absolute()}".encode()).hexdigest()[:16]

    def entries(self) -> Iterator[Entry]:
        """All entries, oldest first; none without a file. Raises UserError at a line that is no entry."""
        try:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    try:
                        entry = json.loads(line)
                        entry["hash"], entry["number"], entry["log"], entry["previous"]
                    except (ValueError, KeyError, TypeError):
                        raise UserError(f"{self._path}: line {number} is no entry: the log was changed") from None
                    yield entry
        except FileNotFoundError:
            return

    def head(self) -> Head | None:
        """The last entry's; None of an empty log. Raises UserError if it cannot be read."""
        try:
            with self._path.open("rb") as file:
                last = _last(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"the audit log {self._path} cannot be read ({error})") from None
        return Head(last["log"], last["number"], last["hash"]) if last else None

    def faults(self, heads: Iterable[Head] = ()) -> tuple[int, list[str]]:
        """How many entries there are, and every change, gap or cut tail that shows. `heads`: those that were told to Kafka."""
        count, found, previous, hashes = 0, [], _BEGINNING, {}
        log = None
        for count, entry in enumerate(self.entries(), 1):
            log = log or entry["log"]
            if entry["number"] != count:
                found.append(f"entry {count} has the number {entry['number']}: entries are missing or were added")
                break
            if entry["previous"] != previous or entry["log"] != log:
                found.append(f"entry {count} does not follow from the one before it")
            if entry["hash"] != _hash(entry):
                found.append(f"entry {count} was changed")
            previous = hashes[count] = entry["hash"]
        told: dict[str, int] = {}
        for head in heads:
            if head.log in (log, self._place()) and hashes.get(head.number) != head.hash:
                told[head.log] = max(told.get(head.log, 0), head.number)
        found += [
            f"Kafka was told of an entry {number} that is {'not there' if number > count else 'another one'}: "
            "the log was cut or written anew"
            for number in told.values()
        ]
        return count, found


def operator() -> str:
    """Who calls a command, for the log: the user of this machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"


def _hash(entry: Entry) -> str:
    content = {name: value for name, value in entry.items() if name != "hash"}
    return sha256(json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _last(file: Any) -> Entry | None:
    size = file.seek(0, os.SEEK_END)
    if not size:
        return None
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    if not tail.endswith(b"\n"):
        raise ValueError("its last line is not whole")
    last: Entry = json.loads(tail[:-1].rsplit(b"\n", 1)[-1])
    return last
