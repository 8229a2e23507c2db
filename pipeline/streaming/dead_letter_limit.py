"""When so much of what comes is refused that something else is wrong: a bad release of a producer, or of ours."""

from collections import Counter, deque
from collections.abc import Iterable

from pipeline.errors import UserError
from pipeline.settings import Settings


class DeadLetterLimit:
    """Counts records read and records refused over the last `dead_letter_window`. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._share = settings.dead_letter_share
        self._least = settings.dead_letter_least
        self._window = settings.dead_letter_window.total_seconds()
        self._batches: deque[tuple[float, int, Counter[str]]] = deque()
        self._read = 0
        self._refused: Counter[str] = Counter()

    def note(self, now: float, read: int, reasons: Iterable[str]) -> None:
        """Count a batch of records, of which some were refused; `now` in monotonic seconds.

        Raises UserError once more than `dead_letter_share` of the window is refused, and at least `dead_letter_least` of it.
        """
        refused = Counter(reasons)
        self._batches.append((now, read, refused))
        self._read += read
        self._refused += refused
        while self._batches[0][0] < now - self._window:
            _, old, gone = self._batches.popleft()
            self._read -= old
            self._refused -= gone
        count = self._refused.total()
        if count >= self._least and count > self._share * self._read:
            reason, most = self._refused.most_common(1)[0]
            raise UserError(
                f"{count:,} of the last {self._read:,} records of check-ins would be dead letters, {most:,} of them for {reason}"
                ": stopped before these are taken, mend the producer and start again; to take them as dead letters after all, "
                "start with PIPELINE_DEAD_LETTER_SHARE=1"
            )
