"""The audit log: who read what about persons, why and when, and of how many. Append-only, each entry chained to the one before.

A file of JSON lines. An entry is on the disk before its answer is given; if it cannot be written, there is no answer. `hash` is
the SHA-256 of the entry without it, which holds the hash of the entry before: no entry can be changed or taken out of the middle
without changing all later ones. A cut tail, or a log written anew, is found by the heads told to Kafka (topic `audit-heads`).

A last line without an end is no change: its write was broken off, so nothing was answered. The next entry takes its place, after
one that says so.
"""

import json
import os
import pwd
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_SH, LOCK_UN, flock
from hashlib import sha256
from io import FileIO
from pathlib import Path
from socket import gethostname
from typing import Any, BinaryIO, Final

from pipeline.errors import UserError
from pipeline.privacy.secret_files import make_folder

#: What the first entry of a log is chained to.
_BEGINNING: Final = "0" * 64
_TAIL_BYTES: Final = 65_536
#: An entry's fields, as every line has them.
_FIELDS: Final = ("log", "number", "at", "who", "action", "purpose", "case", "persons", "what", "previous", "hash")

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

        `persons`: of how many (at most) the answer tells; None: that is not known. `what`: the question, which must hold no
        pseudonym.
        """
        return self._append(who, [_about(action, purpose, case, persons, what)])[-1]

    def append_cases(self, who: str, cases: Iterable[tuple[str, str]], *, purpose: str) -> None:
        """Write an entry for each (action, case), of one person each, as `append` does, but with one wait for the disk.

        Raises what it raises. An entry for all would be found by none of the cases, and could be longer than one is read back.
        """
        self._append(who, [_about(action, purpose, case, 1) for action, case in cases])

    def _append(self, who: str, abouts: Iterable[Entry]) -> list[Entry]:
        written: list[Entry] = []
        try:
            make_folder(self._path.parent)
            descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                flock(file, LOCK_EX)
                last, unfinished = _end(file)
                if unfinished:
                    what = f"{len(unfinished)} bytes of an unfinished entry taken off, SHA-256 {sha256(unfinished).hexdigest()}"
                    abouts = [_about("mends the log", "audit", None, 0, what), *abouts]
                    file.truncate(file.seek(0, os.SEEK_END) - len(unfinished))
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
                    written.append(entry)
                    last = entry
                _write(file, b"".join(map(_line, written)))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"the audit log {self._path} cannot be written ({error}): without it nothing about persons is read, and nothing "
                "about access is changed"
            ) from None
        return written

    def _place(self) -> str:
        # What a log that begins here is called: one that is written anew has the name of the one before.
        return sha256(f"{gethostname()}:{self._path.absolute()}".encode()).hexdigest()[:16]

    def entries(self) -> Iterator[Entry]:
        """All entries, oldest first; none without a file. Raises UserError at a line that is no entry."""
        for number, line in enumerate(self._lines(), 1):
            if line.endswith(b"\n"):
                yield self._entry(number, line)

    def head(self) -> Head | None:
        """The last entry's; None of an empty log. Raises UserError if it cannot be read."""
        try:
            with self._path.open("rb") as file:
                last, _ = _end(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"the audit log {self._path} cannot be read ({error})") from None
        return Head(last["log"], last["number"], last["hash"]) if last else None

    def reading(self) -> "Reading":
        """What the log says by itself. Raises UserError at a line that is no entry."""
        found, previous, hashes = [], _BEGINNING, {}
        log = None
        for count, line in enumerate(self._lines(), 1):
            if not line.endswith(b"\n"):
                found.append(
                    f"the last line, {count}, is unfinished: its write was broken off (a full disk, a power cut), and nothing "
                    "was answered; the next entry takes it off, and says so"
                )
                break
            entry = self._entry(count, line)
            log = log or entry["log"]
            if entry["number"] != count:
                found.append(f"entry {count} has the number {entry['number']}: entries are missing or were added")
                break
            if entry["previous"] != previous or entry["log"] != log:
                found.append(f"entry {count} does not follow from the one before it")
            if entry["hash"] != _hash(entry) or entry.keys() != set(_FIELDS) or line != _line(entry):
                found.append(f"entry {count} was changed")
            previous = hashes[count] = entry["hash"]
        return Reading(self._path, log, hashes, found)

    def faults(self) -> tuple[int, list[str]]:
        """How many entries there are, and every change or gap that shows by the log itself. Raises what `reading` raises."""
        reading = self.reading()
        return len(reading.hashes), list(reading.faults)

    def _lines(self) -> Iterator[bytes]:
        """All lines as they stand; the last may lack its end, if nobody is about to write it."""
        try:
            with self._path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        flock(file, LOCK_SH)
                        line += file.readline()
                        flock(file, LOCK_UN)
                    yield line
        except FileNotFoundError:
            return

    def _entry(self, number: int, line: bytes) -> Entry:
        try:
            entry: Entry = json.loads(line)
            entry["hash"], entry["number"], entry["log"], entry["previous"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self._path}: line {number} is no entry: the log was changed") from None
        return entry


@dataclass(frozen=True, slots=True)
class Reading:
    """What a log says by itself: its name (None: it is empty), each entry's hash by its number, and every change or gap."""

    path: Path
    log: str | None
    hashes: Mapping[int, str]
    faults: Sequence[str]


@dataclass(frozen=True, slots=True)
class ToldHead:
    """A head that Kafka was told of, and where it has it: `partition/offset`."""

    head: Head
    place: str


def unaccounted(readings: Sequence[Reading], told: Sequence[ToldHead], elsewhere: Collection[str] = ()) -> list[str]:
    """What Kafka was told of and these logs do not bear out, in sentences; `elsewhere`: names of logs that others verify.

    A log that was cut or written anew, one that is not there any more, and one that Kafka has heard nothing of.
    """
    newest: dict[tuple[str, int], ToldHead] = {}
    for each in told:
        head = each.head
        here = [place for place, reading in enumerate(readings) if reading.log == head.log]
        wrong = [place for place in here if readings[place].hashes.get(head.number) != head.hash]
        for place in wrong or ([] if here or head.log in elsewhere else [-1]):
            before = newest.setdefault((head.log, place), each)
            if head.number > before.head.number:
                newest[head.log, place] = each
    found = []
    for (log, place), each in newest.items():
        number = each.head.number
        if place < 0:
            found.append(
                f"Kafka was told of a log {log}, up to entry {number} (at {each.place}), that is not verified here: it was "
                "deleted, replaced or renamed. If another machine keeps it, verify it there and name it here with "
                f"--elsewhere {log}, or give a copy of it with --log"
            )
        else:
            what = "not there" if number > len(readings[place].hashes) else "another one"
            found.append(
                f"{readings[place].path}: Kafka was told of an entry {number} (at {each.place}) that is {what}: the log was cut "
                "or written anew"
            )
    heard = {each.head.log for each in told}
    found += [
        f"{reading.path}: Kafka has no head of this log, {reading.log}: if it was never told of one, do so with `pipeline audit "
        "anchor`; if it was, heads were deleted, and a cut would not be found"
        for reading in readings
        if reading.log is not None and reading.log not in heard
    ]
    return found


def operator() -> str:
    """Who calls a command, for the log: the user of this machine whose process it is, and who became root for it by sudo.

    By the system's own account of it: the environment could name anybody.
    """
    uid = os.getuid()
    caller = os.environ.get("SUDO_UID", "") if uid == 0 else ""
    by = f" (sudo {_user(int(caller))})" if caller.isascii() and caller.isdecimal() else ""
    return f"cli:{_user(uid)}{by}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def _about(action: str, purpose: str, case: str | None, persons: int | None, what: str = "") -> Entry:
    return {"action": action, "purpose": purpose, "case": case, "persons": persons, "what": what}


def _hash(entry: Entry) -> str:
    content = {name: value for name, value in entry.items() if name != "hash"}
    return sha256(json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _line(entry: Entry) -> bytes:
    """An entry as it stands in the log, and in no other spelling."""
    # In ASCII: who asked is named by others, and must not begin a line or steer the terminal of who reads it.
    return json.dumps({name: entry[name] for name in _FIELDS}, separators=(",", ":")).encode() + b"\n"


def _write(file: BinaryIO | FileIO, lines: bytes) -> None:
    """Put lines at the end and have them on the disk, all or none."""
    end = file.seek(0, os.SEEK_END)
    try:
        left = lines
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except BaseException:
        file.truncate(end)
        raise


def _end(file: BinaryIO | FileIO) -> tuple[Entry | None, bytes]:
    """The last entry (None: there is none), and what stands after it, of a line whose write was broken off."""
    size, back = file.seek(0, os.SEEK_END), _TAIL_BYTES
    while True:
        start = max(0, size - back)
        file.seek(start)
        lines, newline, unfinished = file.read().rpartition(b"\n")
        if not start or b"\n" in lines:
            break
        back *= 2
    last: Entry | None = json.loads(lines.rsplit(b"\n", 1)[-1]) if newline else None
    return last, unfinished
