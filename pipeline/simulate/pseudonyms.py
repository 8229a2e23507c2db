"""Numbers to ids that tell nothing: keyed, and no two alike."""

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Multipliers of SplitMix64 (Steele, Lea, Flood 2014). Its steps can be undone: different numbers stay different.
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def pseudonyms(seed: int, purpose: str, numbers: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """A distinct 64-bit id for each number, from a key of (seed, purpose).

    Good enough to keep made-up people apart; no protection for real ones.
    """
    digest = blake2b(purpose.encode(), key=str(seed).encode()[:64], digest_size=16).digest()
    value = numbers.astype(np.uint64)
    for key in np.frombuffer(digest, "<u8"):
        value += key
        value ^= value >> np.uint64(30)
        value *= _FIRST
        value ^= value >> np.uint64(27)
        value *= _SECOND
        value ^= value >> np.uint64(31)
    return value
