"""Tracing without a broker: reports straight into a store, and everything that follows from them."""

from collections.abc import Callable, Sequence
from contextlib import closing

from pipeline.settings import Settings
from pipeline.tracing.tracer import open_tracer

#: Where such reports are said to come from.
TOPIC = "replay"


def trace_all(
    settings: Settings, reports: Sequence[bytes], progress: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Store reports, all valid, and trace every case of the store that may have changed, in one go.

    Nothing is published; a worker that opens the store later does that. `progress` is told how many cases are left. Returns the
    reported cases whose visitor has no visit in the infectious window, sorted. Raises StoreUnavailableError.
    """
    with closing(open_tracer(settings)) as tracer:
        tracer.own((), everything=True)
        if reports:
            count = len(reports)
            letters = tracer.load(TOPIC, 0, (), [0] * count, [None] * count, reports)
            assert not letters, f"a report was refused that was valid: {letters[0].detail}"
        while tracer.trace_some():
            progress(tracer.due)
        return tracer.strangers(reports)
