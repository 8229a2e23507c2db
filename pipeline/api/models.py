"""The API's answers. All instants are RFC 3339 in UTC; all figures are of persons unless they say otherwise."""

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.api.levels import Level

Ratio = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


def example(**values: Any) -> ConfigDict:
    """A frozen model with one example in the API's description."""
    return ConfigDict(frozen=True, json_schema_extra={"examples": [values]})


class Problem(BaseModel):
    """Why a request was not answered."""

    model_config = example(
        what="there is no venue 'mall-9'", where="venue_id", way_out="find it by its name: /api/v1/venues?q=NAME"
    )

    what: str
    where: str = Field(description="The parameter, or the part of the pipeline.")
    way_out: str


_ESTIMATE = {
    "expected": 140.2,
    "low": 118,
    "high": 162,
    "check_out_share": 0.31,
    "model_version": "2021-09-17-68f12a59",
}


class Estimate(BaseModel):
    """Who is really there, where many do not check out: by the model in force, at the end of the last full minute."""

    model_config = example(**_ESTIMATE)

    expected: Ratio = Field(
        description="Persons. Below 20 show only the range: the single number would feign precision."
    )
    low: Count = Field(description="Lower end of the 90 % interval.")
    high: Count = Field(description="Upper end of the 90 % interval.")
    check_out_share: float | None = Field(description="Share of the venue's visits that end with a check-out.")
    model_version: str | None


_VENUE: dict[str, Any] = {
    "venue_id": "mall-0042",
    "name": "Mall 42",
    "category": "mall",
    "area": "35.78",
    "timezone": "Asia/Jakarta",
    "occupancy": 212,
    "capacity": 400,
    "ratio": 0.53,
    "level": "busy",
    "estimate": _ESTIMATE,
}


class VenueNow(BaseModel):
    """A venue and how many are there."""

    model_config = example(**_VENUE)

    venue_id: str
    name: str
    category: str
    area: str | None
    timezone: str | None = Field(description="IANA name.")
    occupancy: Count = Field(description="Counted: checked in and neither checked out nor expired.")
    capacity: Count | None
    ratio: Ratio | None = Field(description="occupancy ÷ capacity.")
    level: Level = Field(
        description="By the counted ratio: quiet under 0.5, busy under 0.9, nearly_full under 1.0, else full; "
        "unknown without a capacity."
    )
    estimate: Estimate | None


class VenueStatus(VenueNow):
    """The public status of one venue."""

    model_config = example(**_VENUE, as_of="2021-09-19T10:30:00.000Z")

    as_of: datetime


class VenuePage(BaseModel):
    """Venues that were found."""

    model_config = example(items=[_VENUE], total=1, next=None, as_of="2021-09-19T10:30:00.000Z")

    items: list[VenueNow]
    total: Count = Field(description="How many were found on all pages.")
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")
    as_of: datetime


_POINT = {
    "at": "2021-09-19T10:29:00Z",
    "arrivals": 4,
    "departures": 2,
    "occupancy": 212.0,
    "peak": 213,
    "minutes_over_capacity": None,
    "person_contact_minutes": None,
    "estimate": None,
}


class HistoryPoint(BaseModel):
    """One minute or hour in which anything changed."""

    model_config = example(**_POINT)

    at: datetime = Field(description="Its start.")
    arrivals: Count
    departures: Count
    occupancy: Ratio = Field(description="Of a minute, at its end; of an hour, the time-weighted mean.")
    peak: Count
    minutes_over_capacity: Ratio | None = Field(description="Of an hour.")
    person_contact_minutes: Ratio | None = Field(description="Of an hour: Σ n(n−1)/2 over its minutes.")
    estimate: Estimate | None


class History(BaseModel):
    """A venue's past. Between two points the occupancy stays what it was."""

    model_config = example(
        venue_id="mall-0042",
        step="minute",
        since="2021-09-19T10:00:00Z",
        until="2021-09-19T11:00:00Z",
        before=208,
        items=[_POINT],
        next=None,
    )

    venue_id: str
    step: str
    since: datetime
    until: datetime = Field(description="Exclusive.")
    before: Count = Field(description="Counted occupancy just before `since`.")
    items: list[HistoryPoint]
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")


_AREA = {
    "area": "35.78",
    "venues": 1028,
    "open": 640,
    "people": 14212,
    "expected": 9811.4,
    "capacity": 80000,
    "ratio": 0.18,
    "full": 3,
}


class Area(BaseModel):
    """An administrative area's sums."""

    model_config = example(**_AREA)

    area: str = Field(description="Administrative code; empty for venues without one.")
    venues: Count
    open: Count = Field(description="Venues with anybody in them.")
    people: Count
    expected: Ratio | None = Field(description="Sum of the estimates; venues without one count as counted.")
    capacity: Count
    ratio: Ratio | None = Field(description="People at venues with a capacity ÷ their capacity.")
    full: Count = Field(description="Venues at or over their capacity.")


class AreaPage(BaseModel):
    """Areas, by most people."""

    model_config = example(items=[_AREA], total=1, next=None, as_of="2021-09-19T10:30:00.000Z")

    items: list[Area]
    total: Count
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")
    as_of: datetime


class CategoryPage(BaseModel):
    """Categories of venues."""

    model_config = example(items=["mall", "minimarket", "office"])

    items: list[str]


_ALERT = {
    "alert_id": "5f0c8a52d1e94b7e",
    "venue_id": "mall-0042",
    "name": "Mall 42",
    "level": "warning",
    "raised_at": "2021-09-19T05:41:00.000Z",
    "cleared_at": None,
    "peak": 463,
    "capacity": 400,
}


class Alert(BaseModel):
    """A venue was, or is, crowded."""

    model_config = example(**_ALERT)

    alert_id: str
    venue_id: str
    name: str
    level: str
    raised_at: datetime
    cleared_at: datetime | None = Field(description="Null while it lasts.")
    peak: Count
    capacity: Count


class AlertPage(BaseModel):
    """Crowding alerts, newest first."""

    model_config = example(available=True, items=[_ALERT], next=None)

    available: bool = Field(description="False where this store has no crowding alerts at all.")
    items: list[Alert]
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")


class Health(BaseModel):
    """How the pipeline does."""

    model_config = example(
        store_answers=True,
        store_problem=None,
        seconds_since_answer=0.4,
        read_seconds=0.05,
        data_age_seconds=3,
        stale_after_seconds=120,
        stale=False,
        clock="wall",
        as_of="2021-09-19T10:30:00.000Z",
        newest_scan_at="2021-09-19T10:29:58.120Z",
        scans={"consumed": 100, "accepted": 99, "stored": 95, "duplicates": 4, "dead_lettered": 1},
        worker={"lag_scans": 0, "delay_p50_seconds": 0.4, "delay_p99_seconds": 0.9},
    )

    store_answers: bool
    store_problem: str | None
    seconds_since_answer: Ratio | None
    read_seconds: Ratio = Field(description="How long the present took to read.")
    data_age_seconds: Ratio | None = Field(
        description="On the clock `wall` since the newest scan occurred, on `events` since another one was stored."
    )
    stale_after_seconds: Ratio
    stale: bool
    clock: str | None
    as_of: datetime | None
    newest_scan_at: datetime | None
    scans: dict[str, int] | None = Field(description="Since the beginning; consumed = accepted + dead_lettered.")
    worker: dict[str, Any] | None = Field(description="Lag and delays; null where no worker runs in this process.")


_CELL = {
    "weekday": 7,
    "hour": 13,
    "days": 2,
    "mean_people": 5190.2,
    "mean_ratio": 0.41,
    "expected_people": 2880.4,
    "expected_ratio": 0.23,
    "p95_peak_ratio": 0.97,
}


class WeekHour(BaseModel):
    """One hour of the week, on the venues' own clocks."""

    model_config = example(**_CELL)

    weekday: int = Field(ge=1, le=7, description="1 = Monday.")
    hour: int = Field(ge=0, le=23)
    days: Count = Field(description="Days of this weekday that the figures rest on.")
    mean_people: Ratio
    mean_ratio: Ratio = Field(description="mean_people ÷ the capacity of all these venues.")
    expected_people: Ratio | None = Field(
        description="mean_people by the model of presence, an hour without an estimate as counted; null without any estimate."
    )
    expected_ratio: Ratio | None = Field(description="expected_people ÷ the capacity of all these venues.")
    p95_peak_ratio: Ratio = Field(
        description="95 % of venues' hours had a peak at or below this share of their capacity."
    )


_HEADROOM = {
    "area": "35.78",
    "venues": 1028,
    "capacity": 80000,
    "p95_people": 31000.5,
    "p95_expected": 17200.0,
    "headroom_ratio": 0.61,
    "minutes_over_capacity": 310.5,
}


class AreaHeadroom(BaseModel):
    """How much room an area's busy hours leave."""

    model_config = example(**_HEADROOM)

    area: str
    venues: Count
    capacity: Count
    p95_people: Ratio = Field(description="In 95 % of hours at most so many people were there on average.")
    p95_expected: Ratio | None = Field(
        description="p95_people by the model of presence, an hour without an estimate as counted; null without any estimate."
    )
    headroom_ratio: float = Field(description="1 − p95_people ÷ capacity; negative where the area is too small.")
    minutes_over_capacity: Ratio


class Planning(BaseModel):
    """How well capacity fits, over venues that have one, by counted occupancy."""

    model_config = example(
        since="2021-08-22T11:00:00Z",
        until="2021-09-19T11:00:00Z",
        first_hour="2021-09-12T00:00:00Z",
        venues=1028,
        arrivals=146583,
        p95_peak_ratio=0.93,
        minutes_over_capacity=310.5,
        venues_over_90=41,
        counted_to_expected=1.8,
        week=[_CELL],
        areas=[_HEADROOM],
    )

    since: datetime
    until: datetime = Field(description="Exclusive.")
    first_hour: datetime | None = Field(description="The first hour that anything is known of; null if there is none.")
    venues: Count
    arrivals: Count
    p95_peak_ratio: Ratio | None
    minutes_over_capacity: Ratio
    venues_over_90: Count = Field(description="Venues whose highest peak reached 90 % of their capacity.")
    counted_to_expected: Ratio | None = Field(
        description="People counted ÷ people expected, over the hours with an estimate; null without any."
    )
    week: list[WeekHour]
    areas: list[AreaHeadroom]


_PLAN = {
    "venue_id": "mall-0042",
    "name": "Mall 42",
    "category": "mall",
    "area": "35.78",
    "capacity": 400,
    "arrivals": 9211,
    "highest_peak": 463,
    "highest_expected": 310.5,
    "p95_peak_ratio": 1.02,
    "minutes_over_capacity": 96.5,
    "growth": 0.08,
    "capacity_for_90": 515,
}


class VenuePlan(BaseModel):
    """How well one venue's capacity fits."""

    model_config = example(**_PLAN)

    venue_id: str
    name: str
    category: str
    area: str | None
    capacity: Count
    arrivals: Count
    highest_peak: Count
    highest_expected: Ratio | None = Field(
        description="The most people expected in an hour, on average over it, by the model of presence; null without an estimate."
    )
    p95_peak_ratio: Ratio
    minutes_over_capacity: Ratio
    growth: float | None = Field(
        description="Arrivals of the last seven days ÷ those of the seven before, − 1; null if less is known."
    )
    capacity_for_90: Count = Field(
        description="The smallest capacity that would have kept every peak under 90 % of it."
    )


class VenuePlanPage(BaseModel):
    """Venues, those longest over their capacity first."""

    model_config = example(items=[_PLAN], next=None)

    items: list[VenuePlan]
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")


class OneVenuePlanning(BaseModel):
    """One venue's week and how well its capacity fits."""

    model_config = example(plan=_PLAN, week=[_CELL])

    plan: VenuePlan | None = Field(description="Null without a capacity, or without scans in the range.")
    week: list[WeekHour]


_RELEASE: dict[str, Any] = {
    "kind": "private",
    "day": "2021-09-19",
    "drawn_at": "2021-09-20T12:00:05Z",
    "epsilon": 1.0,
    "sha256": "bdf82b75b618976953726cdbaa4dd4f66406045091eba3a5d5ab633b6d36d51b",
}
_FIGURE = {"hour": "2021-09-19T10:00:00Z", "area": "35.78", "category": "mall", "arrivals": 213, "occupancy": 188}


class ReleaseNote(BaseModel):
    """That a day was released, once."""

    model_config = example(**_RELEASE)

    kind: Literal["suppressed", "private"]
    day: date = Field(description="A UTC day.")
    drawn_at: datetime
    epsilon: Ratio = Field(description="What it spent of a visitor's privacy that day; 0 of a table without noise.")
    sha256: str


class Releases(BaseModel):
    """Every release, the newest day first: the public ledger."""

    model_config = example(items=[_RELEASE])

    items: list[ReleaseNote]


class ReleasedFigure(BaseModel):
    """One number that was released."""

    model_config = example(**_FIGURE)

    hour: datetime
    area: str | None = Field(description="null: all areas; empty: venues without one.")
    category: str | None = Field(description="null: all categories.")
    arrivals: int | None = Field(description="null: hidden. With noise it may be negative.")
    occupancy: int | None = Field(
        description="At the end of the hour; null in the suppressed kind, which has arrivals only."
    )


class Released(BaseModel):
    """All that was released of a day in one way: persons in the suppressed kind, visitors in the private one."""

    model_config = example(note=_RELEASE, figures=[_FIGURE])

    note: ReleaseNote
    figures: list[ReleasedFigure]
