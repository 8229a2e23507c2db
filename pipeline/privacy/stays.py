"""Who is still inside: what an app or a gate remembers, so that a stay over a period's edge keeps one pseudonym.

A scan says with `stay_began_at` which stay it goes on with, or ends; its pseudonym is of the period in which that stay began. So
the rule depends on the scan alone, never on what a gateway has seen: order, repeats and restarts change nothing.
"""

from collections.abc import Hashable
from datetime import timedelta
from typing import Final, Literal

from pipeline.settings import HARD_LIMIT

_MS: Final = timedelta(milliseconds=1)
_HARD_LIMIT_MS: Final = HARD_LIMIT // _MS


class Stays:
    """The open stays of one sender; a key is whatever tells a person at a venue apart. In memory only.

    With `longest` at least the longest `max_stay` of any category, visits paired over an edge are exactly those that one
    pseudonym for ever would have given, as long as nobody goes on scanning in for more than 24 h without a check-out.
    """

    def __init__(self, longest: timedelta) -> None:
        self._longest_ms = longest // _MS
        #: By key: when the stay began, and when it was last scanned into; in the order of the latter.
        self._open: dict[Hashable, tuple[int, int]] = {}

    def began_at(self, key: Hashable, event_type: Literal["check_in", "check_out"], at: int) -> int | None:
        """The `stay_began_at` of a scan at `at` (ms since the epoch), to be told in order of time; None begins a stay."""
        began = self.look(key, event_type, at)
        self.note(key, event_type, at, began)
        return began

    def look(self, key: Hashable, event_type: Literal["check_in", "check_out"], at: int) -> int | None:
        """What `began_at` returns, of a scan that may still be refused and is not to be remembered then."""
        began, last = self._open.get(key, (at, at - _HARD_LIMIT_MS - 1))
        if event_type == "check_out":
            return began if last <= at <= last + _HARD_LIMIT_MS else None
        # No longer than a hard limit from the beginning: somebody who never checks out must not keep a pseudonym for ever.
        goes_on = last <= at < last + self._longest_ms and at <= began + _HARD_LIMIT_MS
        return began if goes_on else None

    def note(self, key: Hashable, event_type: Literal["check_in", "check_out"], at: int, began: int | None) -> None:
        """Remember what a scan did to a stay; `began`: what `look` says of it."""
        self._open.pop(key, None)
        if event_type == "check_in":
            self._open[key] = (at if began is None else began, at)
            self._forget(at)

    def _forget(self, now: int) -> None:
        while self._open:
            oldest = next(iter(self._open))
            if self._open[oldest][1] + _HARD_LIMIT_MS >= now:
                return
            del self._open[oldest]
