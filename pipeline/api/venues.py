"""Routes of venues, areas and alerts."""

from typing import Annotated, Any, Final, Literal

import numpy as np
import pyarrow.compute
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.answers import answer, from_cursor, instant, seconds, to_cursor
from pipeline.api.errors import RequestError, no_venue, not_ready
from pipeline.api.front import CACHE_CONTROL
from pipeline.api.levels import LEVELS, Level
from pipeline.api.live import Live, alert_shown
from pipeline.api.models import (
    Alert,
    AlertPage,
    Area,
    AreaPage,
    CategoryPage,
    Estimate,
    History,
    HistoryPoint,
    VenueNow,
    VenuePage,
    VenueStatus,
)
from pipeline.api.params import Cursor, Limit, Since, Until, VenueId
from pipeline.api.questions import Row, alerts, history
from pipeline.api.reader import Reader
from pipeline.api.snapshot import Snapshot
from pipeline.api.status import StatusBook
from pipeline.api.view import area_figures, iso, venue_now

#: The longest range of a history, in days.
LONGEST_DAYS: Final = 92

Sort = Literal["name", "venue_id", "occupancy", "ratio"]


def venue_routes(live: Live, reader: Reader, book: StatusBook) -> APIRouter:
    """Routes over the present in `live`, and over the past through `reader`."""
    router = APIRouter()

    def snapshot() -> Snapshot:
        if live.snapshot is None:
            raise not_ready()
        return live.snapshot

    def known(venue_id: str) -> Snapshot:
        found = snapshot()
        if found.row(venue_id) is None:
            raise no_venue(venue_id)
        return found

    @router.get("/venues", tags=["venues"], summary="Find venues", response_model=VenuePage)
    async def venues(
        request: Request,
        q: Annotated[str, Query(max_length=100, description="Part of the name, or the beginning of the id.")] = "",
        area: Annotated[str | None, Query(max_length=64, description="Administrative code.")] = None,
        category: Annotated[str | None, Query(max_length=64)] = None,
        level: Annotated[Level | None, Query(description="How full it is.")] = None,
        sort: Annotated[Sort, Query(description="occupancy and ratio: the highest first.")] = "name",
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """By name, area, category or fullness. Figures are those of the last second."""
        found = snapshot()
        after = from_cursor(cursor, str if sort in ("name", "venue_id") else float, str)

        def page() -> VenuePage:
            rows = _search(found, q, area, category, level)
            keys, rows = _sorted(found, rows, sort)
            start = _start(found, keys, rows, after, descending=sort in ("occupancy", "ratio"))
            shown = rows[start : start + limit]
            more = start + limit < len(rows)
            last = start + len(shown) - 1
            return VenuePage(
                items=[VenueNow(**venue_now(found, row)) for row in shown.tolist()],
                total=len(rows),
                next=to_cursor(_key(keys[last]), found.places.ids[int(rows[last])].as_py()) if more else None,
                as_of=iso(found.standing.as_of),  # type: ignore[arg-type]
            )

        return answer(request, await reader.compute(page), 1)

    @router.get("/venues/{venue_id}/now", tags=["venues"], summary="How full one venue is", response_model=VenueStatus)
    async def now(request: Request, venue_id: VenueId) -> Response:
        """The public status: counted, capacity, level, and the estimate where a model is in force. At most a second old."""
        body, tag = book.status(venue_id)
        headers = {"ETag": tag, "Cache-Control": CACHE_CONTROL}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    @router.get("/venues/{venue_id}/history", tags=["venues"], summary="One venue's past", response_model=History)
    async def past(
        request: Request,
        venue_id: VenueId,
        since: Since = None,
        until: Until = None,
        step: Annotated[Literal["minute", "hour"], Query(description="What one point is.")] = "minute",
        limit: Annotated[int, Query(ge=1, le=5_000)] = 1_500,
        cursor: Cursor = None,
    ) -> Response:
        """Minutes or hours in which anything changed, of [since, until); the last 24 hours if not told."""
        found = known(venue_id)
        place = from_cursor(cursor, int)
        last = seconds(until, "until") if until else found.standing.as_of // 1000 + 60
        first = seconds(since, "since") if since else last - 86_400
        check_range(first, last)
        begin = first if place is None else max(first, place[0])
        rows, before = await reader.ask(lambda client: history(client, venue_id, begin, last, step, limit + 1))
        more = len(rows) > limit
        model = History(
            venue_id=venue_id,
            step=step,
            since=instant(first),
            until=instant(last),
            before=before,
            items=[_point(row) for row in rows[:limit]],
            next=to_cursor(rows[limit]["at"]) if more else None,
        )
        return answer(request, model, 5)

    @router.get("/areas", tags=["areas"], summary="Areas and their sums", response_model=AreaPage)
    async def areas(request: Request, limit: Limit = 50, cursor: Cursor = None) -> Response:
        """Administrative areas, those with the most people first."""
        found = snapshot()
        after = from_cursor(cursor, int, str)
        rows = await reader.compute(lambda: area_figures(found))
        start = 0
        if after is not None:
            start = next((i for i, row in enumerate(rows) if row["area"] == after[1]), after[0]) + 1
        shown = rows[start : start + limit]
        model = AreaPage(
            items=[Area(**row) for row in shown],
            total=len(rows),
            next=to_cursor(start + limit - 1, shown[-1]["area"]) if start + limit < len(rows) and shown else None,
            as_of=iso(found.standing.as_of),  # type: ignore[arg-type]
        )
        return answer(request, model, 1)

    @router.get("/categories", tags=["areas"], summary="Categories of venues", response_model=CategoryPage)
    async def categories(request: Request) -> Response:
        """Every category that a venue has, by name: what `category` may be elsewhere."""
        found = snapshot()
        names = await reader.compute(lambda: pyarrow.compute.unique(found.places.texts["category"]).to_pylist())
        return answer(request, CategoryPage(items=sorted(names)), 60)

    @router.get("/alerts", tags=["alerts"], summary="Crowding alerts", response_model=AlertPage)
    async def crowding(
        request: Request,
        active: Annotated[bool, Query(description="Only those that last.")] = False,
        venue_id: Annotated[str, Query(max_length=64, description="Of one venue.")] = "",
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """Raised because a venue was crowded, newest first."""
        place = from_cursor(cursor, int, str)
        before = (place[0], place[1]) if place is not None else None
        rows = await reader.ask(
            lambda client: alerts(client, active=active, venue=venue_id, before=before, limit=limit + 1)
        )
        shown = (rows or [])[:limit]
        more = rows is not None and len(rows) > limit
        model = AlertPage(
            available=rows is not None,
            items=[Alert(**alert_shown(row, live.snapshot)) for row in shown],
            next=to_cursor(shown[-1]["raised_at"], shown[-1]["alert_id"]) if more else None,
        )
        return answer(request, model, 1)

    return router


def check_range(first: int, last: int) -> None:
    """Refuse a range that is empty or too long."""
    if first >= last:
        raise RequestError(422, "the range is empty", "since, until", "give a `since` before `until`")
    if last - first > LONGEST_DAYS * 86_400:
        raise RequestError(422, f"the range is longer than {LONGEST_DAYS} days", "since, until", "ask for a part of it")


def _search(
    snapshot: Snapshot, q: str, area: str | None, category: str | None, level: Level | None
) -> NDArray[np.int64]:
    places = snapshot.places
    wanted = np.ones(len(snapshot), np.bool_)
    if q.strip():
        names = pyarrow.compute.match_substring(places.texts["name"], q.strip(), ignore_case=True)
        ids = pyarrow.compute.starts_with(places.ids, q.strip(), ignore_case=True)
        wanted &= _bools(names) | _bools(ids)
    for column, value in (("area", area), ("category", category)):
        if value is not None:
            wanted &= _bools(pyarrow.compute.equal(places.texts[column], value))
    if level is not None:
        wanted &= snapshot.level == LEVELS.index(level)
    return np.flatnonzero(wanted)


def _bools(column: Any) -> NDArray[np.bool_]:
    return np.asarray(pyarrow.compute.fill_null(column, False).to_numpy(zero_copy_only=False), np.bool_)


def _sorted(snapshot: Snapshot, rows: NDArray[np.int64], sort: Sort) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The rows in order and their keys: rows are by id already, so a stable sort leaves equal keys in that order."""
    if sort == "venue_id":
        return np.array(snapshot.places.ids.take(rows).to_pylist(), np.object_), rows
    if sort == "name":
        names = np.array(snapshot.places.texts["name"].take(rows).to_pylist(), np.object_)
        order = np.argsort(names, kind="stable")
        return names[order], rows[order]
    value = snapshot.occupancy[rows]
    if sort == "ratio":
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(snapshot.capacity[rows] > 0, value / snapshot.capacity[rows], -1.0)
    order = np.argsort(-value, kind="stable")
    return value[order], rows[order]


def _start(
    snapshot: Snapshot, keys: NDArray[Any], rows: NDArray[np.int64], after: tuple[Any, ...] | None, *, descending: bool
) -> int:
    """Where the page behind `after` (a key and an id) begins, even if that venue's figures have changed since."""
    if after is None:
        return 0
    key, venue = after
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high) // 2
        here = keys[middle]
        behind = (here < key if descending else here > key) or (
            here == key and snapshot.places.ids[int(rows[middle])].as_py() > venue
        )
        low, high = (low, middle) if behind else (middle + 1, high)
    return low


def _key(key: Any) -> Any:
    return key if isinstance(key, str) else float(key)


def _point(row: Row) -> HistoryPoint:
    estimate = None
    if row["expected"] is not None:
        estimate = Estimate(**{name: row[name] for name in Estimate.model_fields})
    figures = {name: row[name] for name in HistoryPoint.model_fields if name not in ("at", "estimate")}
    return HistoryPoint(at=instant(row["at"]), estimate=estimate, **figures)
