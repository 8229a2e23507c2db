"""Opening a store that may be away: a worker that starts before its server waits for it, as it waits for Kafka."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import StoreAwayError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Between two tries, in seconds.
PAUSE_SECONDS = 2.0


def opened_patiently(open_: Callable[[], T]) -> T:
    """What `open_` returns, as soon as it does not raise StoreAwayError. Raises whatever else it raises."""
    away_since: float | None = None
    while True:
        try:
            opened = open_()
        except StoreAwayError as error:
            if away_since is None:
                away_since = time.monotonic()
                log.warning("%s; waiting for it", error)
            time.sleep(PAUSE_SECONDS)
            continue
        if away_since is not None:
            log.warning("ClickHouse is there after %.1f s", time.monotonic() - away_since)
        return opened
