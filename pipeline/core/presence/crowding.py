"""How likely a venue holds more people than it may, from an estimate: what crowding rules can be judged by."""

from math import erfc, sqrt
from typing import Final

from pipeline.core.presence.estimate import NINETY

#: Below so many people expected, only the interval is shown: the middle of it would seem to say more than is known.
FEWEST_SHOWN: Final = 20.0


def probability_over(expected: float, high: float, capacity: int) -> float:
    """The probability, 0–1, that more than `capacity` persons are present.

    expected and high: of one estimate, in persons; `high` is the upper end of its 90 % interval, rounded up, so that the
    probability errs to the high side where it is under a half. The number present is taken for normal around `expected`, as the
    interval is, and a whole number: more than 10 is 10.5 and more. Raises ValueError if `high` is under `expected`.
    """
    if high < expected:
        raise ValueError("the upper end of an interval is not under its middle")
    deviation = (high - expected) / NINETY
    over = expected - capacity - 0.5
    return float(over > 0) if deviation == 0 else erfc(-over / deviation / sqrt(2)) / 2


def shown(counted: int, expected: float, low: int, high: int, share: float, model_version: str) -> str:
    """An estimate for people to read: "Counted 212 · expected 140 (118–162) · 31% check out · model 2021-09-18-1f0c…".

    Under FEWEST_SHOWN people expected, the range alone. share: of visits with a check-out, 0–1.
    """
    middle = f"expected {expected:.0f} ({low}–{high})" if expected >= FEWEST_SHOWN else f"expected {low}–{high}"
    return f"Counted {counted:,} · {middle} · {share:.0%} check out · model {model_version}"
