"""The visits that were open at some venues at times past, by what scans told until then."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.pools import MINUTE
from pipeline.core.presence.model import BINS
from pipeline.store.closed_days import presence_sql
from pipeline.store.tables import integers
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: No open visit is older: arrival bins of the widest, 16 minutes.
_LONGEST: Final = 16 * BINS * MINUTE


class OpenVisits(NamedTuple):
    """Visits of one venue: open in (start, closed], ms since the epoch, UTC; columns of equal length."""

    start: NDArray[np.int64]
    closed: NDArray[np.int64]
    party: NDArray[np.int64]


_NONE: Final[NDArray[np.int64]] = np.zeros(0, np.int64)
NO_VISITS: Final = OpenVisits(_NONE, _NONE, _NONE)


def read_open_visits(client: Client, venues: list[str], since: int, until: int) -> dict[str, OpenVisits]:
    """By venue, every visit that can be open at a time in [since, until] (ms). Raises StoreUnavailableError."""
    parameters = {"venues": venues, "since": since - _LONGEST, "until": until}
    with store_errors():
        table = client.query_arrow(presence_sql("open_visits"), parameters, use_strings=True)
    if not table.num_rows:
        return {}
    names = np.array(table["venue_id"].to_pylist())
    start, closed, party = (integers(table, name) for name in ("start", "closed", "party"))
    cuts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    return {str(names[a]): OpenVisits(start[a:b], closed[a:b], party[a:b]) for a, b in pairwise(cuts)}


def open_in_bins(visits: OpenVisits, minute: int, width: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Persons and persons² in visits open at the end of a minute since the epoch, by arrival bin of `width` minutes, (64,) each.

    The same bins as those of `open_visits_at` of the shard.
    """
    end = (minute + 1) * MINUTE
    arrival = visits.start // MINUTE // width
    still = (visits.start < end) & (visits.closed >= end) & (minute // width - arrival < BINS)
    at, party = arrival[still] % BINS, visits.party[still]
    persons, squares = (np.bincount(at, party**power, BINS).astype(np.int32) for power in (1, 2))
    return persons, squares
