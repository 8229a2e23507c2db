"""Who may still be there: each venue's open visits by when they began, from which a model estimates who really is."""

from typing import Final

from pipeline.core.jit import kernel, wide
from pipeline.core.pools import I32, I64, MINUTE, NONE, Pairs

#: Arrival bins kept apart; a visit that began longer ago than all of them is of nobody who is still there.
BINS: Final = 64


@kernel
def count_open(pairs: Pairs, minute: int, width: I64, persons: I32, squares: I32) -> None:
    """Add every open visit to persons[venue, bin] (persons) and squares[venue, bin] (persons², of each visit).

    A visit is open that no scan has closed: check-outs count, automatic ends do not. The bin of an arrival is its minute since
    the epoch, UTC, over width[venue] (minutes), modulo BINS. Visits that begin after `minute` (since the epoch), or BINS bins
    or more before its own, are left out. One pass over the pairs: nothing is kept from call to call, so the counts follow from
    the set of scans alone.
    """
    for row in range(pairs.used[0]):
        opened = pairs.rows[row].opened
        if opened == NONE:
            continue
        arrival = opened // MINUTE
        venue = pairs.rows[row].key >> 32
        at = arrival // width[venue]
        if arrival <= minute and minute // width[venue] - at < BINS:
            party = wide(pairs.rows[row].party)
            persons[venue, at % BINS] += party
            squares[venue, at % BINS] += party * party
