"""What a simulated day is made from."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

import numpy as np

from pipeline.errors import UserError
from pipeline.simulate import facts

#: Milliseconds.
SECOND: Final = 1_000
MINUTE: Final = 60_000
HOUR: Final = 3_600_000
DAY: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """Same options, same bytes (with the same numpy on the same kind of processor).

    `check_ins` counts visits: rescans and duplicates come on top. `date` is the local day of every venue; `missing` the
    share of visits without a check-out; `venues` how many venues (None: one for each 143 check-ins); `city` the
    administrative code of the only city (None: the nation); `batch_lines` the valid scans of one ArrivalBatch.

    Raises UserError if one of them makes no sense.
    """

    check_ins: int = 100_000
    seed: int = 1
    date: date = facts.BUSY_SUNDAY
    missing: float = facts.MISSING_CHECK_OUTS
    venues: int | None = None
    city: str | None = None
    batch_lines: int = 20_000

    def __post_init__(self) -> None:
        if not 1 <= self.check_ins <= facts.MOST_CHECK_INS:
            raise UserError(f"cannot simulate {self.check_ins:,} check-ins: ask for 1 to {facts.MOST_CHECK_INS:,}")
        if not 0 <= self.missing <= 1:
            raise UserError(f"cannot leave out {self.missing} of the check-outs: give a share from 0 to 1")
        if self.venues is not None and not 1 <= self.venues <= min(self.check_ins, 999_999):
            raise UserError(f"cannot spread {self.check_ins:,} check-ins over {self.venues:,} venues: ask for fewer")
        if not 1971 <= self.date.year < 2105:
            raise UserError(f"cannot simulate {self.date}: choose a day from 1971 to 2104")
        if not self.areas:
            codes = ", ".join(area.code for area in facts.AREAS)
            raise UserError(f"there is no city {self.city}: choose one of {codes}")
        if self.seed < 0 or self.batch_lines < 1:
            raise UserError("the seed must be 0 or more and a batch at least one line")

    @property
    def areas(self) -> tuple[facts.Area, ...]:
        """The cities in play."""
        return tuple(area for area in facts.AREAS if self.city in (None, area.code))

    @property
    def venue_count(self) -> int:
        """How many venues there are."""
        return self.venues or max(1, round(self.check_ins / facts.CHECK_INS_PER_VENUE))

    @property
    def midnight(self) -> int:
        """00:00 UTC of the date, in ms since the epoch: what every time within the simulator counts from."""
        return int(datetime(self.date.year, self.date.month, self.date.day, tzinfo=UTC).timestamp()) * SECOND

    def rng(self, purpose: str) -> np.random.Generator:
        """The random numbers for one purpose, independent of all others, so that adding one changes no other."""
        return np.random.default_rng([self.seed, *purpose.encode()])
