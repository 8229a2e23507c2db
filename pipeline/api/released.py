"""Routes of released numbers: what `pipeline release` has made, and nothing that is made on request.

Those with noise, and the ledger of what they spent, are for everybody: they are answered without a token.
"""

import asyncio
from collections import OrderedDict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.answers import answer, answer_bytes
from pipeline.api.errors import RequestError
from pipeline.api.models import Released, ReleasedFigure, ReleaseNote, Releases
from pipeline.api.reader import Reader
from pipeline.store.releases import Kind, Release, released_days, stored_release

if TYPE_CHECKING:
    from pipeline.store.releases import Listed

#: What is under this is for everybody, without a token.
PUBLIC: Final = "/released"
_MAX_AGE = 300
#: A nation's day is some megabytes.
_MOST_BYTES: Final = 64 << 20

_Day = Annotated[date, Path(description="A UTC day.", examples=["2021-09-19"])]


class Bodies:
    """Days' released numbers as JSON: each made once, in a thread of the reader's, and kept, those asked for last.

    A release stays as it is once it is told, so of one that is kept the store is not asked. For one event loop.
    """

    def __init__(self, reader: Reader, settled: float) -> None:
        """Of the store's releases that were there `settled` seconds ago: before that another may take their place."""
        self.reader = reader
        self.settled = settled
        self._kept: OrderedDict[tuple[Kind, date], tuple[bytes, str]] = OrderedDict()
        self._made: dict[tuple[Kind, date], asyncio.Task[tuple[bytes, str] | None]] = {}

    async def of(self, kind: Kind, day: date) -> tuple[bytes, str] | None:
        """A day's numbers and the digest of their release; None if there is none. Raises RequestError, as the reader does."""
        key = kind, day
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return kept
        # Whoever asks meanwhile waits for the same.
        task = self._made.get(key)
        if task is None:
            task = self._made[key] = asyncio.create_task(self._make(kind, day))
            task.add_done_callback(lambda _: self._made.pop(key, None))
        return await asyncio.shield(task)

    async def _make(self, kind: Kind, day: date) -> tuple[bytes, str] | None:
        made = await self.reader.ask(lambda client: _body(stored_release(client, kind, day, self.settled)))
        if made is not None:
            self._kept[kind, day] = made
            while sum(len(body) for body, _ in self._kept.values()) > _MOST_BYTES and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return made


def released_routes(bodies: Bodies) -> APIRouter:
    """Routes over the store's releases, of both kinds."""
    router = APIRouter(prefix="/released", tags=["released"])

    @router.get("", summary="Which days were released, and what they spent", response_model=Releases)
    async def ledger(request: Request) -> Response:
        """The budget of privacy: one release of a kind for a day, ever."""
        listed = await bodies.reader.ask(lambda client: released_days(client, bodies.settled))
        return answer(request, Releases(items=[_note(each) for each in listed]), _MAX_AGE)

    @router.get("/{kind}/{day}", summary="A day's released numbers", response_model=Released)
    async def figures(request: Request, kind: Kind, day: _Day) -> Response:
        """suppressed: rounded, small numbers hidden; private: with noise. Both are as they were made, whatever came later."""
        return await _figures_of(request, bodies, kind, day)

    return router


def public_routes(bodies: Bodies) -> APIRouter:
    """Routes for everybody: the ledger of releases with noise, and their numbers."""
    router = APIRouter(prefix=PUBLIC, tags=["for everybody"])

    @router.get("", summary="The public ledger: what each day's release with noise spent", response_model=Releases)
    async def ledger(request: Request) -> Response:
        """The budget of privacy: one release for a day, ever. Its sha256 is that of the file that is published."""
        listed = await bodies.reader.ask(lambda client: released_days(client, bodies.settled))
        return answer(request, Releases(items=[_note(each) for each in listed if each.kind == "private"]), _MAX_AGE)

    @router.get("/{day}", summary="A day's numbers, with noise", response_model=Released)
    async def figures(request: Request, day: _Day) -> Response:
        """Visitors who arrived, and who were there at the hour's end, by area, category and hour."""
        return await _figures_of(request, bodies, "private", day)

    return router


async def _figures_of(request: Request, bodies: Bodies, kind: Kind, day: date) -> Response:
    found = await bodies.of(kind, day)
    if found is None:
        listed = request.url.path.rpartition("/released")[0] + "/released"
        raise RequestError(404, f"{day} has no release of this kind", "day", f"see which there are: {listed}")
    return answer_bytes(request, *found, _MAX_AGE)


def _body(found: Release | None) -> tuple[bytes, str] | None:
    if found is None:
        return None
    return Released(note=_note(found), figures=_figures(found)).model_dump_json().encode(), found.digest


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
