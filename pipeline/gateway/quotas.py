"""How many scans a device or a venue may send: a bucket each, refilled steadily."""

from typing import Final

#: Buckets held before full ones are swept out.
_MOST: Final = 200_000


class Quotas:
    """A bucket of `burst` scans for each name, refilled at `rate` a second.

    Who has anything left may send a whole batch, and then waits until the debt is paid: so the rate holds in the long run,
    and no batch is too large to go through ever.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait(self, name: str, now: float) -> float:
        """Seconds until something may be sent; 0 if it may now. `now` is any steady clock, in seconds."""
        return max(0.0, (1 - self._left(name, now)) / self._rate)

    def take(self, name: str, count: int, now: float) -> None:
        """Count what is sent."""
        if name not in self._buckets and len(self._buckets) >= _MOST:
            self._sweep(now)
        self._buckets[name] = (self._left(name, now) - count, now)

    def _left(self, name: str, now: float) -> float:
        left, at = self._buckets.get(name, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate)

    def _sweep(self, now: float) -> None:
        self._buckets = {name: each for name, each in self._buckets.items() if self._left(name, now) < self._burst}
        while len(self._buckets) >= _MOST:
            del self._buckets[next(iter(self._buckets))]
