"""How likely a venue holds more people than it may, from an estimate: what crowding rules can be judged by."""

from math import erfc, sqrt

from pipeline.core.presence.estimate import NINETY


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
