"""Words and colours for how full, how fresh and how right something is: never a colour without its word."""

from collections.abc import Mapping
from typing import Final

from grafana_foundation_sdk.models.dashboard import (
    DashboardRangeMapOptions,
    RangeMap,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

from pipeline.api.levels import BOUNDS

#: How full a venue is, as a word: those of the live page and the API, and from 1.1 of capacity on, where a critical alert is
#: raised, one more.
FULLNESS: Final = {
    "critical": "dark-red",
    "full": "orange",
    "nearly full": "yellow",
    "busy": "green",
    "quiet": "blue",
    "no capacity known": "text",
}

BUSY, NEARLY_FULL, FULL = BOUNDS
CRITICAL: Final = 1.1

#: The same bounds as steps of a colour.
STEPS: Final = ((None, "blue"), (BUSY, "green"), (NEARLY_FULL, "yellow"), (FULL, "orange"), (CRITICAL, "dark-red"))

#: The levels of a crowding alert. A venue that is critical has its warning open as well.
ALERTS: Final = {"critical": "dark-red", "warning": "orange"}

#: How old the data are, as a word; `history` where the clock is the data's own.
FRESHNESS: Final = {"fresh": "green", "late": "orange", "stale": "red", "history": "blue"}


def fullness(ratio: str) -> str:
    """SQL that puts a share of capacity into words."""
    return (
        f"multiIf({ratio} IS NULL, 'no capacity known', {ratio} >= {CRITICAL}, 'critical', {ratio} >= {FULL}, 'full', "
        f"{ratio} >= {NEARLY_FULL}, 'nearly full', {ratio} >= {BUSY}, 'busy', 'quiet')"
    )


def words(colours: Mapping[str, str]) -> list[ValueMapping]:
    """A mapping that gives each word its colour and leaves it as it is."""
    results = {
        word: ValueMappingResult(text=word, color=colour, index=index)
        for index, (word, colour) in enumerate(colours.items())
    }
    return [ValueMap(options=results)]


def zero_is(word: str) -> list[ValueMapping]:
    """Zero is a green word."""
    return [ValueMap(options={"0": ValueMappingResult(text=word, color="green", index=0)})]


def none_is_good() -> list[ValueMapping]:
    """Zero is the green word none, everything above a red number."""
    red = ValueMappingResult(color="red", index=1)
    return [*zero_is("none"), RangeMap(options=DashboardRangeMapOptions(from_val=0, to=None, result=red))]
