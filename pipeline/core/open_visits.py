"""Who may still be there: each venue's open visits by their age, from which a model estimates who really is."""

from typing import Final

from pipeline.core.jit import kernel, wide
from pipeline.core.pools import I32, I64, MINUTE, NONE, Pairs

#: Ages are told apart in so many steps; a visit older than all of them is of nobody who is still there.
AGES: Final = 64


@kernel
def count_open(pairs: Pairs, as_of: int, width: I64, persons: I32, squares: I32) -> None:
    """Add every open visit to persons[venue, age] (persons) and squares[venue, age] (persons², of each visit).

    A visit is open that no scan has closed: check-outs count, automatic ends do not. Its age at `as_of` (ms) is in whole steps
    of width[venue] minutes, rounded down. Visits that begin after `as_of`, or are older than AGES steps, are left out.
    One pass over the pairs: nothing is kept from call to call, so the counts follow from the set of scans alone.
    """
    for row in range(pairs.used[0]):
        opened = pairs.rows[row].opened
        if opened == NONE or opened > as_of:
            continue
        venue = pairs.rows[row].key >> 32
        age = (as_of - opened) // (width[venue] * MINUTE)
        if age < AGES:
            party = wide(pairs.rows[row].party)
            persons[venue, age] += party
            squares[venue, age] += party * party
