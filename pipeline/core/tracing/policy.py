"""What counts as an exposure: a policy is data, versioned and dated, and this is every field that it has.

A file says all of it: there are no defaults to look up, and what a policy does not know of is refused. Minutes are whole.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pipeline.core.pools import I64, MINUTE

#: Weights are counted in thousandths, so that sums of minutes × weight stay integers.
WEIGHT_UNIT: Final = 1000
#: The tier of pairs that reach no threshold, code 0 of every policy.
BELOW: Final = "below"
#: The tier of an exposure that was published and no longer holds; no policy may call one so.
WITHDRAWN: Final = "withdrawn"
#: The category that stands for all that a table does not name.
OTHERS: Final = "default"


class Boundary(StrEnum):
    """When the case's interval and the other's visit meet. Starts and ends are compared to the millisecond."""

    #: Both [start, end): later start < earlier end. Visits that touch do not meet, nor do visits of no length.
    HALF_OPEN = "half_open"
    #: Both [start, end]: later start ≤ earlier end. Visits that touch meet.
    CLOSED = "closed"
    #: start < the other's check-in < end of the case's interval; how long the other stayed does not matter.
    STRICT_CHECK_IN = "strict_check_in"
    #: start ≤ the other's check-in ≤ end of the case's interval.
    CLOSED_CHECK_IN = "closed_check_in"


class Cumulative(StrEnum):
    """The window in which minutes are added up; the largest sum of any such window counts."""

    #: [τ, τ + 24 h) for any instant τ.
    ROLLING_24H = "rolling_24h"
    #: A day of the setting `timezone`.
    CALENDAR_DAY = "calendar_day"
    #: Everything.
    INFECTIOUS_PERIOD = "infectious_period"


class Rounding(StrEnum):
    """How the case's interval is rounded after it was cut to the infectious window. Slots are aligned with the epoch, UTC."""

    NONE = "none"
    #: The start down to the quarter hour, the end up to the next one: 15:15 becomes 15:30.
    OUTWARD_15 = "outward_15"
    #: The nearest whole number of 10-minute intervals, halves up; it ends with the end's interval where the end reaches
    #: further into that than the start leaves of its own, else it begins with the start's.
    NEAREST_10 = "nearest_10"
    #: The half hour of the check-in and `slots` more on each side, however long the stay.
    SLOTS_30 = "slots_30"


class Expiry(StrEnum):
    """What the minutes of a visit without a check-out rest on."""

    #: It ends after the expected stay of its category, or at its automatic end if that is sooner.
    EXPECTED = "expected"
    #: It ends at its automatic end.
    FULL = "full"
    #: It makes no exposure.
    DROP = "drop"


def _date(value: object) -> object:
    # A TOML date-time is a date for Python.
    if type(value) is not date:
        raise PydanticCustomError("rule", "must be a date such as 2021-05-11")
    return value


#: Words of a file become members of an enumeration.
_OF_WORDS = Field(strict=False)
_Text = Annotated[str, Field(min_length=1, max_length=2000)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
_Days = Annotated[int, Field(ge=0, le=60)]
_Minutes = Annotated[int, Field(ge=0, le=1440)]
_Weight = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Infectious(_Section):
    """The days on which a case is taken to be infectious: from `before` to `after` the day, both inclusive."""

    days_before_onset: _Days
    days_after_onset: _Days
    #: For a case without a day of onset.
    days_before_specimen: _Days
    days_after_specimen: _Days
    #: What a case must be reported as to make exposures.
    statuses: Annotated[list[Literal["suspected", "confirmed"]], Field(min_length=1)]


class LookBack(_Section):
    """Backwards: a case was infected at most `days` days before the day of onset, or of the specimen, and at the latest on it."""

    days: Annotated[int, Field(ge=1, le=60)]


class Exposing(_Section):
    """How a case's visit becomes an interval, and when another's visit meets it."""

    boundary: Annotated[Boundary, _OF_WORDS]
    cumulative: Annotated[Cumulative, _OF_WORDS]
    #: Stays of the case that are shorter make no exposure.
    minimum_stay_minutes: _Minutes
    #: How long the air stays dangerous after the case has left; both are added.
    aerosol_minutes: _Minutes
    #: As long as the stay, up to this.
    aerosol_up_to_stay_minutes: _Minutes
    rounding: Annotated[Rounding, _OF_WORDS]
    #: By category, with rounding slots_30 only: half hours on each side of the check-in's.
    slots: dict[_Name, Annotated[int, Field(ge=0, le=48)]] | None = None

    @model_validator(mode="after")
    def _slots_belong_to_slots(self) -> Self:
        if (self.rounding is Rounding.SLOTS_30) != (self.slots is not None):
            raise PydanticCustomError("rule", "slots and rounding slots_30 need each other")
        if self.slots is not None:
            _needs_default("slots", self.slots)
            if self.minimum_stay_minutes or self.aerosol_minutes or self.aerosol_up_to_stay_minutes:
                raise PydanticCustomError("rule", "with slots neither a minimum stay nor an aerosol tail can be given")
        return self


class Weights(_Section):
    """How much a minute counts for the tier, by the day relative to onset, or to the specimen if that is all there is."""

    onset: dict[str, _Weight]
    specimen: dict[str, _Weight]
    #: On the days that are not named.
    otherwise: _Weight

    @model_validator(mode="after")
    def _days_and_thousandths(self) -> Self:
        for name, days in (("onset", self.onset), ("specimen", self.specimen)):
            for day, weight in days.items():
                if not day.removeprefix("-").isdecimal() or str(int(day)) != day:
                    raise PydanticCustomError("rule", "{name} must name days as whole numbers", {"name": name})
                _needs_thousandths(weight)
        _needs_thousandths(self.otherwise)
        return self

    def of(self, relative_to: Literal["onset", "specimen"], day: int) -> int:
        """The weight of a day in thousandths; `day` 0 is that of onset or specimen, negative ones come before."""
        days = self.onset if relative_to == "onset" else self.specimen
        return round(WEIGHT_UNIT * days.get(str(day), self.otherwise))


class Tier(_Section):
    """A degree of exposure, from so many (weighted) minutes on, within the cumulative window."""

    name: _Name
    at_least_minutes: _Minutes | None = None
    more_than_minutes: _Minutes | None = None

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if (self.at_least_minutes is None) == (self.more_than_minutes is None):
            raise PydanticCustomError("rule", "needs either at_least_minutes or more_than_minutes")
        if self.name in (BELOW, WITHDRAWN):
            raise PydanticCustomError("rule", "no tier can be called below or withdrawn")
        return self

    @property
    def needed(self) -> int:
        """The smallest sum that reaches it, in ms × thousandths."""
        if self.at_least_minutes is not None:
            return self.at_least_minutes * MINUTE * WEIGHT_UNIT
        assert self.more_than_minutes is not None
        return self.more_than_minutes * MINUTE * WEIGHT_UNIT + 1


class AutomaticExpiry(_Section):
    """What is assumed of visits that nobody checked out of."""

    treatment: Annotated[Expiry, _OF_WORDS]
    #: By category.
    expected_minutes: dict[_Name, Annotated[int, Field(ge=0, le=1440)]]

    @model_validator(mode="after")
    def _has_a_default(self) -> Self:
        _needs_default("expected_minutes", self.expected_minutes)
        return self


def _needs_default(name: str, table: Mapping[str, object]) -> None:
    if OTHERS not in table:
        raise PydanticCustomError(
            "rule", "{name} needs a default, for the categories that it does not name", {"name": name}
        )


def _needs_thousandths(weight: float) -> None:
    if abs(WEIGHT_UNIT * weight - round(WEIGHT_UNIT * weight)) > 1e-9:
        raise PydanticCustomError("rule", "weights have at most three decimals")


class Policy(_Section):
    """One version of a policy."""

    id: _Name
    version: _Name
    #: It holds for cases reported from 00:00 UTC of this day on, until a newer version does.
    effective_from: Annotated[date, BeforeValidator(_date)]
    title: _Text
    #: Where it comes from.
    source: _Text
    #: What the source asks that visits cannot show, and what is ours.
    reading: _Text
    infectious: Infectious
    look_back: LookBack
    exposure: Exposing
    weights: Weights | None = None
    #: From the lowest threshold to the highest.
    tiers: Annotated[list[Tier], Field(min_length=1, max_length=100)]
    #: By category: how many cases at once make a cluster.
    clusters: dict[_Name, Annotated[int, Field(ge=2, le=1000)]]
    automatic_expiry: AutomaticExpiry

    @model_validator(mode="after")
    def _tiers_rise(self) -> Self:
        _needs_default("clusters", self.clusters)
        needed = [tier.needed for tier in self.tiers]
        if any(after <= before for before, after in pairwise(needed)):
            raise PydanticCustomError("rule", "tiers must come with rising thresholds")
        if len({tier.name for tier in self.tiers}) < len(self.tiers):
            raise PydanticCustomError("rule", "two tiers have one name")
        return self

    @property
    def tier_names(self) -> tuple[str, ...]:
        """The tiers by their code: 0 is `below`, the highest comes last."""
        return (BELOW, *(tier.name for tier in self.tiers))

    @property
    def minimum_ms(self) -> int:
        """The shortest unweighted overlap that reaches the lowest tier, at least 1 ms."""
        return max(-(-self.tiers[0].needed // WEIGHT_UNIT), 1)

    def counts(self, status: str) -> bool:
        """Whether cases of this status (`suspected`, `confirmed`, `withdrawn`) make exposures."""
        return status in self.infectious.statuses

    def expected_stays(self, categories: Sequence[str]) -> I64:
        """The expected stay by category code, in ms."""
        return _column(self.automatic_expiry.expected_minutes, categories) * MINUTE

    def slots(self, categories: Sequence[str]) -> I64:
        """Half hours on each side of a check-in's, by category code."""
        return _column(self.exposure.slots or {OTHERS: 0}, categories)

    def cluster_sizes(self, categories: Sequence[str]) -> I64:
        """How many cases at once make a cluster, by category code."""
        return _column(self.clusters, categories)


def _column(table: Mapping[str, int], categories: Sequence[str]) -> I64:
    return np.array([table.get(category, table[OTHERS]) for category in categories], np.int64)


def parse_policy(document: Mapping[str, Any], where: str) -> Policy:
    """The policy in a parsed TOML document; `where` names it in errors.

    Raises ValueError: one sentence with `where`, the field and what is wrong with it.
    """
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        wrong = "is not a field of a policy" if first["type"] == "extra_forbidden" else first["msg"]
        raise ValueError(f"{where}: {field + ': ' if field else ''}{wrong}") from None
