"""A visitor's request to be erased: carried out on an embedded store that nobody else writes to, or beside a server's workers."""

import time
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from pipeline.errors import UserError
from pipeline.retention import correct_embedded
from pipeline.settings import Settings
from pipeline.store import erasure, repair
from pipeline.store.client import open_store
from pipeline.store.recovery import read_standing
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: How long is waited for ClickHouse to take replaced parts off the disk, in seconds.
DISK_SECONDS: Final = 120.0
#: After so long every worker on a server knows who is being erased: twice the time between its looks, in seconds …
NOTICED_SECONDS: Final = 10.0
#: … and so long is waited for each to correct its venues.
WORKERS_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased: by which digest the pseudonym is known, how many scans, and whether the disk is rid of them."""

    receipt: str
    digest: str
    scans: int
    off_the_disk: bool


def erase(settings: Settings, visitor: str) -> Receipt:
    """Erase a visitor. May be broken off and called again. Raises UserError, StoreUnavailableError.

    Called again for who is erased, it says whether the disk is rid of it by now.
    """
    return (
        _erase_here(settings, visitor) if settings.clickhouse_url is None else _erase_beside_workers(settings, visitor)
    )


def erased_already(settings: Settings, visitor: str) -> Receipt | None:
    """The receipt, as it is now, of a visitor who was erased and of whom nothing has come back; None for any other.

    Raises UserError, StoreUnavailableError.
    """
    with closing(open_store(settings, read_only=True)) as client:
        return _receipt(client, visitor) if erasure.is_gone(client, visitor) else None


def _receipt(client: Client, visitor: str) -> Receipt:
    receipt = erasure.receipt_of(client, visitor)
    return Receipt(
        receipt,
        erasure.digest_of(visitor.encode()).hex(),
        erasure.removed_under(client, receipt),
        not erasure.on_disk(client, visitor),
    )


def _erase_here(settings: Settings, visitor: str) -> Receipt:
    from pipeline.engine import open_engine  # loads the kernels

    with closing(open_store(settings)) as client:
        erasure.hurry(client, on=True)
        with store_errors():
            mode = client.query("SELECT mode FROM clock").result_rows[0][0] or "events"
        progress = read_standing(client).progress
        engine = open_engine(settings, clock=cast(Literal["wall", "events"], mode))
        try:
            for topic, rows in groupby(progress, lambda row: row.topic):
                engine.assign(topic, [row.partition for row in rows])
            engine.erase(visitor)
        finally:
            engine.close()
        correct_embedded(settings)
        until = time.monotonic() + DISK_SECONDS
        while erasure.on_disk(client, visitor) and time.monotonic() < until:
            time.sleep(1)
        erasure.hurry(client, on=False)
        return _receipt(client, visitor)


def _erase_beside_workers(settings: Settings, visitor: str) -> Receipt:
    # Each worker corrects its own venues, without the scans of whoever is on the list; only when all have, and so none has the
    # visitor in memory, do the scans go. Until then nothing is lost that somebody who breaks off here would need.
    with closing(open_store(settings, read_only=True)) as client:
        if erasure.is_gone(client, visitor):
            # Deleting nothing would replace parts all the same, and these would count as the visitor's. But if this was broken
            # off before, something may still be on its way, as below.
            time.sleep(NOTICED_SECONDS)
            if erasure.is_gone(client, visitor):
                return _receipt(client, visitor)
        receipt = erasure.begin(client, visitor, None)
        time.sleep(NOTICED_SECONDS)
        asked: set[tuple[str, str]] = set()
        while pairs := set(erasure.pairs_of(client, visitor)) - asked:
            repair.ask_owners(client, pairs)
            asked |= pairs
            _wait_for_workers(client, visitor)
        erasure.remove_scans(client, visitor, receipt)
        erasure.remove_rest(client, visitor)
        erasure.finish(client, visitor, receipt)
        # A pass of tracing that was under way may have stored what it had found, a slow insert what it held.
        time.sleep(NOTICED_SECONDS)
        erasure.remove_scans(client, visitor, receipt)
        erasure.remove_rest(client, visitor)
        # The parts that this has replaced are the visitor's, too.
        erasure.finish(client, visitor, receipt)
        return _receipt(client, visitor)


def _wait_for_workers(client: Client, visitor: str) -> None:
    until = time.monotonic() + WORKERS_SECONDS
    while left := erasure.asked_of(client, visitor):
        if time.monotonic() > until:
            raise UserError(
                f"{left} of the visitor's venues were not corrected within {WORKERS_SECONDS:.0f} s: see that workers run and "
                "read all partitions, and run the same command again; until then no new scan of the visitor is taken"
            )
        time.sleep(0.5)
