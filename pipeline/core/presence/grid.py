"""The steps in which stays, ages and arrival times are counted. All curves and histograms share them."""

from typing import Final

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

MINUTES_OF_DAY: Final = 1440

#: Stays and ages count in steps of 0.05 in log minutes, from 1 minute to e^7.2 = 1339; what is outside goes to the ends. A venue
#: whose people stay longer by 5 % is one step further on the same curve.
STEP: Final = 0.05
STEPS: Final = 144
#: Steps in one bin of the table of stays and walks: 48 bins of either.
STAY_BIN: Final = 3
WALK_BIN: Final = 3

#: Local minutes of the day at which a block of arrivals begins: the night, two hours each, and one hour each in the evening,
#: where the closing hour cuts stays.
BLOCK_STARTS: Final = (0, 360, 480, 600, 720, 840, 960, 1080, 1140, 1200, 1260, 1320)
#: What follows a stay is compared for arrivals before 16:00 only, the blocks before this one: later it is the closing hour that
#: ends a stay, and the end of the day that leaves it without a next.
COMPARED_BLOCKS: Final = 6
BLOCKS: Final = len(BLOCK_STARTS)

#: Block of a local minute of the day, shape (1440,).
BLOCK_OF_MINUTE: Final[Integers] = np.searchsorted(BLOCK_STARTS, np.arange(MINUTES_OF_DAY), "right") - 1

#: A stay of n whole minutes lasted n + ½ on average.
_MIDDLES = np.log(np.arange(MINUTES_OF_DAY) + 0.5)
#: Step of a stay by its whole minutes, shape (1440,). In SQL: least(greatest(floor(20 * log(minutes + 0.5)), 0), 143).
STEP_OF_MINUTE: Final[Integers] = np.clip(np.floor(_MIDDLES / STEP), 0, STEPS - 1).astype(np.int64)
#: Log stay in thousandths by its whole minutes, shape (1440,). In SQL: round(1000 * log(minutes + 0.5)).
MILLI_LOG_OF_MINUTE: Final[Integers] = np.rint(1000 * _MIDDLES).astype(np.int64)

#: Log minutes at the edges of the steps, shape (145,), and in their middles, shape (144,).
EDGES: Final = STEP * np.arange(STEPS + 1)
CENTRES: Final = EDGES[:-1] + STEP / 2
