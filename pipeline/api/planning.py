"""Routes of capacity planning: when it is full, where it is tight, and how large places would have to be."""

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.answers import answer, from_cursor, instant, seconds, to_cursor
from pipeline.api.errors import no_venue, not_ready
from pipeline.api.live import Live
from pipeline.api.models import AreaHeadroom, OneVenuePlanning, Planning, VenuePlan, VenuePlanPage, WeekHour
from pipeline.api.params import Cursor, Limit, Since, Until, VenueId
from pipeline.api.questions import Row, planning_parameters, sql
from pipeline.api.reader import Reader, ask_rows
from pipeline.api.venues import check_range
from pipeline.query import answer as write_answer
from pipeline.store.writer import quoted

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: Days looked back if not told.
DAYS: Final = 28
#: Rows of a download at most: more venues than any of these systems had.
DOWNLOAD_ROWS: Final = 200_000
_MAX_AGE: Final = 60

Format = Literal["csv", "parquet"]
_MEDIA: Final[dict[str, str]] = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}

AreaFilter = Annotated[str, Query(max_length=64, description="Only this administrative code.")]
CategoryFilter = Annotated[str, Query(max_length=64, description="Only this category.")]


@dataclass(frozen=True, slots=True)
class _Scope:
    since: int
    until: int
    area: str = ""
    category: str = ""
    venue: str = ""

    def parameters(self, client: Client) -> Row:
        return planning_parameters(
            client,
            since=self.since,
            until=self.until,
            venue=self.venue,
            area=self.area,
            category=self.category,
        )


def planning_routes(live: Live, reader: Reader) -> APIRouter:
    """Routes over the store's hours."""
    router = APIRouter(tags=["planning"])

    def scope(since: Any, until: Any, **filters: str) -> _Scope:
        if live.snapshot is None:
            raise not_ready()
        hour = 3_600
        last = seconds(until, "until") if until else (live.snapshot.standing.as_of // 1000 // hour + 1) * hour
        first = seconds(since, "since") if since else last - DAYS * 86_400
        check_range(first, last)
        return _Scope(first, last, **filters)

    @router.get("/planning", summary="Use of capacity by hour of the week, and by area", response_model=Planning)
    async def planning(
        request: Request,
        since: Since = None,
        until: Until = None,
        area: AreaFilter = "",
        category: CategoryFilter = "",
    ) -> Response:
        """Over venues with a capacity, of [since, until); the last 28 days if not told. Hours are the venues' local ones."""
        asked = scope(since, until, area=area, category=category)

        def question(client: Client) -> Planning:
            parameters = asked.parameters(client)
            summary = ask_rows(client, sql("planning_summary"), parameters)[0]
            there = summary["venues"] > 0
            return Planning(
                since=instant(asked.since),
                until=instant(asked.until),
                first_hour=instant(summary["first_hour"]) if there else None,
                venues=summary["venues"],
                arrivals=summary["arrivals"],
                p95_peak_ratio=summary["p95_peak_ratio"] if there else None,
                minutes_over_capacity=summary["minutes_over_capacity"],
                venues_over_90=summary["venues_over_90"],
                counted_to_expected=summary["counted_to_expected"],
                week=_week(client, parameters) if there else [],
                areas=[AreaHeadroom(**row) for row in ask_rows(client, sql("planning_areas"), parameters)],
            )

        return answer(request, await reader.ask(question), _MAX_AGE)

    @router.get("/planning/venues", summary="Venue by venue", response_model=VenuePlanPage)
    async def venues(
        request: Request,
        since: Since = None,
        until: Until = None,
        area: AreaFilter = "",
        category: CategoryFilter = "",
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """Those longest over their capacity first, with the capacity that would have kept their peaks under 90 %."""
        asked = scope(since, until, area=area, category=category)
        place = from_cursor(cursor, int)
        offset = min(max(place[0], 0), DOWNLOAD_ROWS) if place is not None else 0
        rows = await reader.ask(
            lambda client: ask_rows(
                client, sql("planning_venues"), {**asked.parameters(client), "limit": limit + 1, "offset": offset}
            )
        )
        model = VenuePlanPage(
            items=[_plan(row) for row in rows[:limit]],
            next=to_cursor(offset + limit) if len(rows) > limit else None,
        )
        return answer(request, model, _MAX_AGE)

    @router.get(
        "/planning/download",
        summary="Venue by venue, as a file",
        response_class=Response,
        responses={200: {"content": {media: {} for media in _MEDIA.values()}}},
    )
    async def download(
        form: Annotated[Format, Query(alias="format", description="csv, safe for spreadsheets, or parquet.")] = "csv",
        since: Since = None,
        until: Until = None,
        area: AreaFilter = "",
        category: CategoryFilter = "",
    ) -> Response:
        """All venues of the table. In CSV, text that a spreadsheet would run as a formula begins with an apostrophe."""
        asked = scope(since, until, area=area, category=category)

        def question(client: Client) -> bytes:
            values = {**asked.parameters(client), "limit": DOWNLOAD_ROWS, "offset": 0}
            out = io.BytesIO()
            write_answer(client, _with_values(sql("planning_venues"), values), form, out)
            return out.getvalue()

        name = f"capacity-planning-{instant(asked.until):%Y-%m-%d}.{form}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": f"max-age={_MAX_AGE}"}
        return Response(await reader.ask(question), media_type=_MEDIA[form], headers=headers)

    @router.get("/venues/{venue_id}/planning", summary="One venue's week and capacity", response_model=OneVenuePlanning)
    async def venue(request: Request, venue_id: VenueId, since: Since = None, until: Until = None) -> Response:
        """The last 28 days if not told."""
        asked = scope(since, until, venue=venue_id)
        if live.snapshot is None or live.snapshot.row(venue_id) is None:
            raise no_venue(venue_id)

        def question(client: Client) -> OneVenuePlanning:
            parameters = asked.parameters(client)
            rows = ask_rows(client, sql("planning_venues"), {**parameters, "limit": 1, "offset": 0})
            week = _week(client, parameters) if rows else []
            return OneVenuePlanning(plan=_plan(rows[0]) if rows else None, week=week)

        return answer(request, await reader.ask(question), _MAX_AGE)

    return router


def _week(client: Client, parameters: Row) -> list[WeekHour]:
    rows = ask_rows(client, sql("planning_week"), parameters)
    return [WeekHour(**{**row, "hour": row["hour_of_day"]}) for row in rows]


def _plan(row: Row) -> VenuePlan:
    return VenuePlan(**{name: row[name] for name in VenuePlan.model_fields})


def _with_values(statement: str, values: Row) -> str:
    """The statement with its parameters written into it as literals, for what takes text only."""

    def literal(value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(literal, value))}]"
        return quoted(value) if isinstance(value, str) else str(int(value))

    return re.sub(r"\{(\w+):([\w()]+)\}", lambda match: f"CAST({literal(values[match[1]])}, '{match[2]}')", statement)
