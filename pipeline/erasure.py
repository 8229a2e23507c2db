"""A visitor's request to be erased, carried out on a store that nobody else writes to."""

import time
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal, cast

from pipeline.errors import UserError
from pipeline.retention import correct_embedded
from pipeline.settings import Settings
from pipeline.store import erasure
from pipeline.store.client import open_store
from pipeline.store.recovery import read_standing
from pipeline.store.writer import store_errors

#: How long is waited for ClickHouse to take replaced parts off the disk, in seconds.
DISK_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased: by which digest the pseudonym is known, how many scans, and whether the disk is rid of them."""

    receipt: str
    digest: str
    scans: int
    off_the_disk: bool


def erase(settings: Settings, visitor: str, wait: float = DISK_SECONDS) -> Receipt:
    """Erase a visitor. May be broken off and called again. Raises UserError on a server's store; StoreUnavailableError."""
    if settings.clickhouse_url is not None:
        raise UserError("erase works on an embedded store: name it with --store")
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
            receipt = engine.erase(visitor)
        finally:
            engine.close()
        correct_embedded(settings)
        with store_errors():
            scans = client.query(
                "SELECT sum(scans) FROM removed_rows FINAL WHERE reason = 'erasure' AND key = {receipt:String}",
                {"receipt": receipt},
            ).result_rows[0][0]
        until = time.monotonic() + wait
        while (left := erasure.on_disk(client)) and time.monotonic() < until:
            time.sleep(1)
        erasure.hurry(client, on=False)
    return Receipt(receipt, erasure.digest_of(visitor.encode()).hex(), int(scans), not left)
