"""What a venue's crowding is measured by. No compiled code here: the settings need it, and start without."""

from typing import Final, NamedTuple

#: The levels, each a machine of its own, from mild to grave.
LEVELS: Final = ("warning", "critical")

#: What may be compared with the capacity: the persons counted, or what an estimate says of those really there.
BASES: Final = ("counted", "expected", "high", "probability")

#: By probability a level is raised at the first of these or more, and cleared under the second (docs/decisions/015).
RAISED_AT_PROBABILITY: Final = 0.5
CLEARED_BELOW_PROBABILITY: Final = 0.2

#: A hold (`raise_for`, `clear_for`) is at most this long, in ms: memory keeps that much of a venue's past beside what scans
#: can change.
LONGEST_HOLD: Final = 3_600_000


class Rule(NamedTuple):
    """When one level is raised and cleared; shares of the capacity in thousandths, holds in ms.

    Raised once occupancy ≥ raise_at for raise_for; cleared once occupancy < clear_below for clear_for. clear_below ≤ raise_at.
    """

    raise_at: int
    raise_for: int
    clear_below: int
    clear_for: int
