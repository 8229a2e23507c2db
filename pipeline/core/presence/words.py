"""An estimate for people to read."""

from typing import Final

#: Below so many people expected, only the interval is shown: the middle of it would seem to say more than is known.
FEWEST_SHOWN: Final = 20.0


def shown(counted: int, expected: float, low: int, high: int, share: float, model_version: str) -> str:
    """An estimate for people to read: "Counted 212 · expected 140 (118–162) · 31% check out · model 2021-09-18-1f0c…".

    Under FEWEST_SHOWN people expected, the range alone. share: of visits with a check-out, 0–1.
    """
    middle = f"expected {expected:.0f} ({low}–{high})" if expected >= FEWEST_SHOWN else f"expected {low}–{high}"
    return f"Counted {counted:,} · {middle} · {share:.0%} check out · model {model_version}"
