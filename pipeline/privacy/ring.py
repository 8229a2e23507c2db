"""The ring of keys: one random secret for each period, wrapped by the master key, in one file.

A period's secret is drawn, not derived: when its wrapped copy is gone, nobody can make it again, whoever has the master key.
Periods follow one another without gaps, half-open [starts_at, ends_at), in ms since the epoch, UTC; each begins on a whole
minute.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import UserError
from pipeline.privacy.derive import KEY_BYTES, derive
from pipeline.privacy.master import MasterKey, Scope
from pipeline.privacy.secret_files import make_secret_folder, read_secret_file, write_secret_file
from pipeline.settings import HARD_LIMIT
from schemas.fields import EARLIEST, LATEST, format_instant

RING_FILE: Final = "ring.json"
_LOCK_FILE: Final = "ring.lock"
_RECEIPTS: Final = "receipts"

#: One pseudonym for each retention period, and edges at 03:00 in Jakarta on a Monday, when hardly anybody is anywhere.
DEFAULT_LENGTH: Final = timedelta(days=14)
DEFAULT_EDGE: Final = int(datetime(1970, 1, 11, 20, tzinfo=UTC).timestamp() * 1000)
#: How many whole periods ahead have their keys already, so that a gateway never waits for one.
_AHEAD: Final = 2
#: A stay that began within a period may go on into the next: two hard limits (a chain of rescans, and its check-out).
OVERLAP: Final = 2 * HARD_LIMIT
#: An edge moved by hand must be known to every gateway, and lie beyond the scans that fast clocks have sent already.
LEAST_NOTICE: Final = timedelta(minutes=10)

_MS: Final = timedelta(milliseconds=1)
_MINUTE_MS: Final = 60_000
_FORBID: Final = ConfigDict(extra="forbid", frozen=True)


class Period(BaseModel):
    """One period and its wrapped secret; None once that is destroyed."""

    model_config = _FORBID

    starts_at: int
    ends_at: int
    wrapped: str | None
    fingerprint: str
    destroyed_at: int | None = None

    @property
    def id(self) -> str:
        """When it begins, as YYYYMMDDhhmm in UTC; it stands in each of the period's pseudonyms."""
        return datetime.fromtimestamp(self.starts_at / 1000, UTC).strftime("%Y%m%d%H%M")

    def state(self, now: int, retention: timedelta) -> Literal["future", "current", "past", "over", "destroyed"]:
        """Where it stands: `past` while scans of it may still come or be stored, then `over`: time to destroy its key."""
        if self.wrapped is None:
            return "destroyed"
        if now < self.starts_at:
            return "future"
        if now < self.ends_at:
            return "current"
        return "past" if now < self.ends_at + (retention + OVERLAP) // _MS else "over"


class Identity(BaseModel):
    """The wrapped secret that identifiers are hashed with; the same in all periods, so that the tracer can link them."""

    model_config = _FORBID

    wrapped: str
    fingerprint: str


class Receipt(BaseModel):
    """What a destruction leaves behind: no key, and enough to show which one it was."""

    model_config = _FORBID

    ring: str
    period: str
    starts_at: str
    ends_at: str
    fingerprint: str
    destroyed_at: str
    how: str
    keys_left: list[str]
    ring_sha256: str


class _File(BaseModel):
    model_config = _FORBID

    version: Literal[1]
    ring: str
    edge: int
    length_ms: int
    identity: Identity
    periods: list[Period]


class KeyRing:
    """The ring in a folder. What changes it holds a lock and replaces the file whole.

    `first` is called before each change, once it is known to be allowed; what it raises prevents the change.
    """

    def __init__(self, folder: Path, file: _File, first: Callable[[], object] = lambda: None) -> None:
        self._folder = folder
        self._file = file
        self._first = first

    @classmethod
    def open(cls, folder: Path, first: Callable[[], object] = lambda: None) -> Self:
        """The ring as it is now; nothing is unwrapped. Raises UserError."""
        path = folder / RING_FILE
        text = read_secret_file(path)
        try:
            return cls(folder, _File.model_validate_json(text), first)
        except ValidationError:
            raise UserError(f"{path} is damaged: it is no ring of keys; put back its copy") from None

    @classmethod
    def create(
        cls,
        folder: Path,
        master: MasterKey,
        now: int,
        retention: timedelta,
        length: timedelta,
        edge: int,
        first: Callable[[], object] = lambda: None,
    ) -> Self:
        """A new ring with keys from the retention before `now` until two periods ahead. Raises UserError if there is one.

        Edges are `edge` and every multiple of `length` before and after it.
        """
        length_ms = length // _MS
        if length < timedelta(days=1) or length_ms % _MINUTE_MS or edge % _MINUTE_MS:
            raise UserError("a period must last a day at least, and begin on a whole minute")
        make_secret_folder(folder)
        with _locked(folder):
            if (folder / RING_FILE).exists():
                raise UserError(
                    f"{folder / RING_FILE} is there already: a second ring would give everybody new pseudonyms"
                )
            ring = secrets.token_hex(4)
            secret = secrets.token_bytes(KEY_BYTES)
            identity = Identity(wrapped=master.wrap("identity", ring, secret), fingerprint=_fingerprint(secret))
            begins = _edge_before(now - (retention + OVERLAP) // _MS, edge, length_ms)
            empty = _File(version=1, ring=ring, edge=edge, length_ms=length_ms, identity=identity, periods=[])
            opened = cls(folder, empty, first)
            first()
            opened._extend(master, begins, now)
            return opened

    @property
    def ring(self) -> str:
        """What this ring is called, in the names of its keys and in receipts."""
        return self._file.ring

    @property
    def identity(self) -> Identity:
        """The wrapped identity secret."""
        return self._file.identity

    @property
    def periods(self) -> list[Period]:
        """All periods ever, in their order, the destroyed ones too."""
        return self._file.periods

    @property
    def length(self) -> timedelta:
        """How long a period is."""
        return self._file.length_ms * _MS

    def identity_secret(self, master: MasterKey) -> bytes:
        """Unwrap the identity secret. Raises UserError."""
        return master.unwrap("identity", self.ring, self.identity.wrapped)

    def period_secret(self, master: MasterKey, period: Period) -> bytes:
        """Unwrap a period's secret. Raises UserError, also for a destroyed one."""
        if period.wrapped is None:
            raise UserError(f"the key of the period {period.id} is destroyed")
        return master.unwrap("period", self._name(period.id), period.wrapped)

    def extend(self, master: MasterKey, now: int) -> list[Period]:
        """Draw the keys that are lacking until two periods ahead of `now`; returns the new ones."""
        with self._changing():
            before = len(self.periods)
            if self.periods[-1].ends_at <= self._enough(now):
                self._first()
            self._extend(master, self.periods[-1].ends_at, now)
            return self.periods[before:]

    def cut(self, master: MasterKey, at: int, now: int) -> Period:
        """End at `at` the period that it lies in, and begin another, with a key of its own. Returns the new one.

        Raises UserError where `at` is too soon, no whole minute, or an edge already.
        """
        if at % _MINUTE_MS:
            raise UserError("a period begins on a whole minute: leave out the seconds")
        if at < now + LEAST_NOTICE // _MS:
            raise UserError(
                f"a new period may begin {LEAST_NOTICE // timedelta(minutes=1)} minutes from now at the soonest: "
                "every gateway must know before the first scan"
            )
        with self._changing():
            found = next((i for i, each in enumerate(self.periods) if each.starts_at < at < each.ends_at), None)
            if found is None:
                raise UserError(
                    f"{format_instant(at)} is an edge already, or beyond the last period: pipeline keys list"
                )
            self._first()
            old = self.periods[found]
            new = self._drawn(master, at, old.ends_at)
            shorter = old.model_copy(update={"ends_at": at})
            self._save([*self.periods[:found], shorter, new, *self.periods[found + 1 :]])
            return new

    def destroy(self, master: MasterKey, period_id: str, now: int, retention: timedelta, early: bool) -> Receipt:
        """Destroy a period's key, also for who has copies of the ring, as far as the master key can (`MasterKey.forget`).

        The receipt is kept beside the ring, and nothing else says that a destruction is finished: one that was broken off is
        gone on with. Raises UserError for a period that is unknown, destroyed already, not over (unless `early`: its scans can
        no longer be taken, its pseudonyms no longer linked), or current; and where the destruction could not be finished.
        """
        with self._changing():
            period = next((each for each in self.periods if each.id == period_id), None)
            if period is None:
                raise UserError(f"the ring has no period {period_id}; see: pipeline keys list")
            state = period.state(now, retention)
            if state == "destroyed" and not self._broken_off(period):
                raise UserError(
                    f"the key of the period {period_id} is destroyed already; see {self._receipt_file(period_id)}"
                )
            if state == "current":
                raise UserError(
                    f"the period {period_id} is the current one; end it first with: pipeline keys rotate --at TIME"
                )
            if state not in ("over", "destroyed") and not early:
                over = format_instant(period.ends_at + (retention + OVERLAP) // _MS)
                raise UserError(
                    f"scans of the period {period_id} may still come or be stored until {over}; to destroy its key all the "
                    "same add --early"
                )
            # Another vault, or another prefix in it, would say truthfully that it has no such key.
            self.identity_secret(master)
            self._first()
            if period.wrapped is not None:
                # A receipt from before a copy of the ring was put back, or of another ring, says nothing of this destruction.
                self._receipt_file(period_id).unlink(missing_ok=True)
            try:
                return self._destroy(master, period, now)
            except UserError as error:
                raise UserError(
                    f"the destruction of the period {period_id} is not finished, copies of the ring may still open its key: "
                    f"{error}; then go on with: pipeline keys destroy {period_id}"
                ) from None

    def to_destroy(self, now: int, retention: timedelta) -> list[str]:
        """The ids of the periods that are over, and of those whose destruction was broken off."""
        return [each.id for each in self.periods if each.state(now, retention) == "over" or self._broken_off(each)]

    def renew(self, master: MasterKey) -> None:
        """Wrap everything with a new master key and forget the old one.

        With a key from the environment, NEW,OLD: wraps everything with NEW, after which OLD can be left out. With a vault: with
        the newest versions of its keys. Raises UserError where no key is newer than what everything is wrapped with.
        """
        with self._changing():
            self._first()
            if master.renewable:
                self._renew(master, self.periods)
                return
            wrapped: list[tuple[Scope, str, str]] = [("identity", self.ring, self.identity.wrapped)]
            wrapped += [
                ("period", self._name(each.id), each.wrapped) for each in self.periods if each.wrapped is not None
            ]
            if all(master.is_newest(scope, name, text) for scope, name, text in wrapped):
                raise UserError(f"the master key has not changed, so nothing was done: {master.how_to_renew}")
            self._save(self._rewrapped(master, self.periods))

    def _destroy(self, master: MasterKey, period: Period, now: int) -> Receipt:
        """Every step, whatever was done of them before; the receipt last. Its instant is when they were all done."""
        gone = period.model_copy(update={"wrapped": None, "destroyed_at": period.destroyed_at or now})
        periods = [gone if each.id == period.id else each for each in self.periods]
        if master.renewable:
            self._renew(master, periods)
        else:
            self._save(periods)
        how = master.forget("period", self._name(period.id))
        receipt = Receipt(
            ring=self.ring,
            period=period.id,
            starts_at=format_instant(period.starts_at),
            ends_at=format_instant(period.ends_at),
            fingerprint=period.fingerprint,
            destroyed_at=format_instant(now),
            how=how,
            keys_left=[each.id for each in self.periods if each.wrapped is not None],
            ring_sha256=sha256((self._folder / RING_FILE).read_bytes()).hexdigest(),
        )
        make_secret_folder(self._folder / _RECEIPTS)
        write_secret_file(self._receipt_file(period.id), receipt.model_dump_json(indent=2) + "\n")
        return receipt

    def _broken_off(self, period: Period) -> bool:
        return period.wrapped is None and not self._receipt_file(period.id).exists()

    def _receipt_file(self, period_id: str) -> Path:
        return self._folder / _RECEIPTS / f"{period_id}.json"

    def _renew(self, master: MasterKey, periods: list[Period]) -> None:
        # Broken off anywhere, the file of the master key can open whatever the ring is wrapped with.
        master.begin_renewal()
        self._save(self._rewrapped(master, periods))
        master.finish_renewal()

    def _rewrapped(self, master: MasterKey, periods: list[Period]) -> list[Period]:
        identity = master.wrap("identity", self.ring, self.identity_secret(master))
        self._file = self._file.model_copy(update={"identity": self.identity.model_copy(update={"wrapped": identity})})
        return [
            each
            if each.wrapped is None
            else each.model_copy(
                update={"wrapped": master.wrap("period", self._name(each.id), self.period_secret(master, each))}
            )
            for each in periods
        ]

    def _extend(self, master: MasterKey, starts_at: int, now: int) -> None:
        periods = list(self.periods)
        while starts_at <= self._enough(now):
            ends_at = _edge_before(starts_at, self._file.edge, self._file.length_ms) + self._file.length_ms
            periods.append(self._drawn(master, starts_at, ends_at))
            starts_at = ends_at
        self._save(periods)

    def _enough(self, now: int) -> int:
        """Until when there is to be a key."""
        return now + _AHEAD * self._file.length_ms

    def _drawn(self, master: MasterKey, starts_at: int, ends_at: int) -> Period:
        if not EARLIEST <= starts_at < ends_at <= LATEST:
            raise UserError("a period must lie between 1970-01-02 and 2106-01-01")
        secret = secrets.token_bytes(KEY_BYTES)
        empty = Period(starts_at=starts_at, ends_at=ends_at, wrapped=None, fingerprint=_fingerprint(secret))
        return empty.model_copy(update={"wrapped": master.wrap("period", self._name(empty.id), secret)})

    def _name(self, period_id: str) -> str:
        return f"{self.ring}-{period_id}"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with _locked(self._folder):
            self._file = type(self).open(self._folder)._file
            yield

    def _save(self, periods: list[Period]) -> None:
        self._file = self._file.model_copy(update={"periods": periods})
        text = json.dumps(self._file.model_dump(mode="json"), indent=1)
        write_secret_file(self._folder / RING_FILE, text + "\n")


def _fingerprint(secret: bytes) -> str:
    """Tells keys apart, and nothing else about them."""
    return derive(secret, "fingerprint", "").hex()[:16]


def _edge_before(at: int, edge: int, length_ms: int) -> int:
    return at - (at - edge) % length_ms


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Of several that change one ring at once, one does it after the other."""
    try:
        descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(f"{folder} holds no ring that can be changed: {error.strerror or error}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
