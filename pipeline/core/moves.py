"""The log of moves: who came to a venue, and who was seen to have left it. From it a model tells who was there at any minute.

A visit's moves are its arrival (+ persons) and, once something shows that it is over, its closing (− persons). Automatic ends are
no moves: they are nobody's observation. What turns out not to be so is answered by its opposite, never searched, so the log is a
signed multiset: neither the order of its rows nor how often something was taken back matters to a sum over them.
"""

from typing import Final

from pipeline.core.jit import kernel, wide
from pipeline.core.pools import I64, MINUTE, NONE, Moves, Venues
from pipeline.core.presence.model import BINS

#: The widest arrival bin of a model, in minutes.
_WIDEST_BIN: Final = 16
#: From so many minutes after its arrival on, a visit is in none of those bins, however wide they are and wherever they begin.
REACH: Final = (BINS + 1) * _WIDEST_BIN


@kernel
def note(venues: Venues, moves: Moves, cells_from: int, venue: int, at: int, began: int, persons: int) -> None:
    """Log that `persons` of a visit that began at `began` came (> 0) or left (< 0) at `at`; both in ms. Needs room for one move.

    Does nothing where no log is kept, nor for what changes no minute from `cells_from` (ms) on.
    """
    if moves.used[1] == 0:
        return
    minute = at // MINUTE
    arrival = began // MINUTE
    since = cells_from // MINUTE
    if minute - arrival >= REACH or arrival + REACH <= since:
        return
    row = moves.used[0]
    moves.used[0] = row + 1
    moves.rows[row].at = minute
    moves.rows[row].age = minute - arrival
    moves.rows[row].persons = persons
    moves.rows[row].next = venues.rows[venue].moves
    venues.rows[venue].moves = row
    venues.rows[venue].moved = min(wide(venues.rows[venue].moved), max(minute, since))
    venues.rows[venue].moved_to = max(wide(venues.rows[venue].moved_to), arrival + REACH - 1)


@kernel
def note_visit(
    venues: Venues, moves: Moves, cells_from: int, venue: int, start: int, closed: int, persons: int
) -> None:
    """Log a visit's moves, or with negative `persons` their opposite; `closed` in ms, NONE if it is open. Room for two."""
    note(venues, moves, cells_from, venue, start, start, persons)
    if closed != NONE:
        note(venues, moves, cells_from, venue, closed, start, -persons)


@kernel
def order_moves(venue_count: int, cells_from: int, venues: Venues, moves: Moves, ordered: Moves) -> None:
    """Copy the moves that still matter from `cells_from` (ms) on into an empty pool with room for all, venue by venue.

    What lies side by side is read many times faster than what is scattered over memory.
    """
    since = cells_from // MINUTE
    for venue in range(venue_count):
        move = venues.rows[venue].moves
        last = NONE
        venues.rows[venue].moves = NONE
        while move != NONE:
            at = wide(moves.rows[move].at)
            if at >= since or at - moves.rows[move].age + REACH > since:
                row = ordered.used[0]
                ordered.used[0] = row + 1
                ordered.rows[row].at = at
                ordered.rows[row].age = moves.rows[move].age
                ordered.rows[row].persons = moves.rows[move].persons
                ordered.rows[row].next = NONE
                if last == NONE:
                    venues.rows[venue].moves = row
                else:
                    ordered.rows[last].next = row
                last = row
            move = moves.rows[move].next


@kernel
def add_moves(venues: Venues, moves: Moves, cells_from: int, venue: I64, start: I64, closed: I64, persons: I64) -> None:
    """Log many visits' moves, or with negative persons their opposite, as `note_visit`. Needs room for two each."""
    for i in range(len(venue)):
        note_visit(venues, moves, cells_from, venue[i], start[i], closed[i], persons[i])
