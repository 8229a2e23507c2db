"""Routes of released numbers: what `pipeline release` has made, and nothing that is made on request.

Those with noise, and the ledger of what they spent, are for everybody: they are answered without a token.
"""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.answers import answer
from pipeline.api.errors import RequestError
from pipeline.api.models import Released, ReleasedFigure, ReleaseNote, Releases
from pipeline.api.reader import Reader
from pipeline.store.releases import Kind, Release, released_days, stored_release

if TYPE_CHECKING:
    from pipeline.store.releases import Listed

_MAX_AGE = 300

_Day = Annotated[date, Path(description="A UTC day.", examples=["2021-09-19"])]


def released_routes(reader: Reader, settled: float) -> APIRouter:
    """Routes over the store's releases that were there `settled` seconds ago: before that another may take their place."""
    router = APIRouter(prefix="/released", tags=["released"])

    @router.get("", summary="Which days were released, and what they spent", response_model=Releases)
    async def ledger(request: Request) -> Response:
        """The budget of privacy: one release of a kind for a day, ever."""
        listed = await reader.ask(lambda client: released_days(client, settled))
        return answer(request, Releases(items=[_note(each) for each in listed]), _MAX_AGE)

    @router.get("/{kind}/{day}", summary="A day's released numbers", response_model=Released)
    async def figures(request: Request, kind: Kind, day: _Day) -> Response:
        """suppressed: rounded, small numbers hidden; private: with noise. Both are as they were made, whatever came later."""
        return await _figures_of(request, reader, kind, day, settled)

    return router


def public_routes(reader: Reader, settled: float) -> APIRouter:
    """Routes for everybody: the ledger of releases with noise, and their numbers. `settled`: as in `released_routes`."""
    router = APIRouter(prefix="/released", tags=["for everybody"])

    @router.get("", summary="The public ledger: what each day's release with noise spent", response_model=Releases)
    async def ledger(request: Request) -> Response:
        """The budget of privacy: one release for a day, ever. Its sha256 is that of the file that is published."""
        listed = await reader.ask(lambda client: released_days(client, settled))
        return answer(request, Releases(items=[_note(each) for each in listed if each.kind == "private"]), _MAX_AGE)

    @router.get("/{day}", summary="A day's numbers, with noise", response_model=Released)
    async def figures(request: Request, day: _Day) -> Response:
        """Visitors who arrived, and who were there at the hour's end, by area, category and hour."""
        return await _figures_of(request, reader, "private", day, settled)

    return router


async def _figures_of(request: Request, reader: Reader, kind: Kind, day: date, settled: float) -> Response:
    found = await reader.ask(lambda client: stored_release(client, kind, day, settled))
    if found is None:
        listed = request.url.path.rpartition("/released")[0] + "/released"
        raise RequestError(404, f"{day} has no release of this kind", "day", f"see which there are: {listed}")
    return answer(request, Released(note=_note(found), figures=_figures(found)), _MAX_AGE)


def _note(found: "Release | Listed") -> ReleaseNote:
    return ReleaseNote(
        kind=found.kind, day=found.day, drawn_at=found.drawn_at, epsilon=found.epsilon, sha256=found.digest
    )


def _figures(found: Release) -> list[ReleasedFigure]:
    return [
        ReleasedFigure(
            hour=datetime.fromtimestamp(each.hour, UTC),
            area=each.area,
            category=each.category,
            arrivals=each.arrivals,
            occupancy=each.occupancy,
        )
        for each in found.figures
    ]
