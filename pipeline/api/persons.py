"""Routes about persons: from a case, and from nothing else. For the role tracer with a purpose; in the audit log first.

There is no look-up by visitor: a pseudonym is an answer here, never a question, but in a case's report.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Depends, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.answers import from_cursor, to_cursor
from pipeline.api.asking import Asker, Purpose, Register, read_body
from pipeline.api.errors import RequestError
from pipeline.api.guard import tracer
from pipeline.api.models import Problem
from pipeline.api.params import Cursor, Limit
from pipeline.api.person_models import CallList, CaseDetail, CasePage, CaseVenues, ExposurePage, ReportState
from pipeline.api.reader import Reader, ask_rows
from pipeline.audit import AuditLog
from pipeline.case_changes import action_of, request_of, takes_back
from pipeline.case_reports import Case, CaseJudge, Refusal
from pipeline.core.tracing.queue import work_queue
from pipeline.errors import UserError
from pipeline.settings import Settings
from pipeline.topics import CASE_REPORTS
from schemas.case_report import CaseReport

#: The body of a report, for the API's description.
_REPORT_BODY: Final = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": CaseReport.model_json_schema()}}}
}
_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    413: {"model": Problem, "description": "The report is too long"},
    429: {"model": Problem, "description": "Too many requests about persons"},
}
#: The most exposures whose calls are ranked at once.
_MOST_EXPOSED: Final = 200_000

CaseId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+$", description="The case's id.")]
#: Sends a record with its key to case-reports and returns once Kafka has it. Raises UserError.
SendReport = Callable[[bytes, bytes], None]


def person_routes(settings: Settings, reader: Reader, send: SendReport, register: Register) -> APIRouter:
    """The routes; cases are read through `reader`, reports leave through `send`."""
    router = APIRouter(tags=["cases"], responses=_REFUSED)
    judge, noted = CaseJudge(settings), register.note

    def allowed(request: Request, purpose: Purpose) -> Asker:
        return register.admit(tracer(request), purpose)

    asking = Annotated[Asker, Depends(allowed)]

    async def rows(sql: str, **parameters: Any) -> list[dict[str, Any]]:
        return await reader.ask(lambda client: ask_rows(client, sql, parameters))

    async def known(asker: Asker, action: str, case_id: str) -> dict[str, Any]:
        found = await rows(_CASE, case=case_id)
        if not found:
            await noted(asker, action, case_id, 0)
            raise RequestError(404, "there is no such case", "case_id", "see /api/v1/cases")
        return found[0]

    async def traced(case_id: str) -> Case | Refusal | None:
        found = await rows(_TRACED, case=case_id)
        return judge.judge(found[0]["report"].encode()) if found else None

    @router.get("/cases", summary="Cases, the newest first, without pseudonyms", response_model=CasePage)
    async def cases(asker: asking, limit: Limit = 50, cursor: Cursor = None) -> Response:
        """What has been reported and traced."""
        moment, last = from_cursor(cursor, int, str) or (2**53 - 1, "")
        found = await rows(_CASES, before=moment, last=last, limit=limit + 1)
        page = found[:limit]
        await noted(asker, "cases", None, len(page))
        onward = to_cursor(page[-1].pop("order"), page[-1]["case_id"]) if len(found) > limit else None
        for row in page:
            row.pop("order", None)
        return _told({"items": page, "next": onward})

    @router.get(
        "/cases/{case_id}", summary="A case: its window, its policy, whom it exposed by tier", response_model=CaseDetail
    )
    async def case(case_id: CaseId, asker: asking) -> Response:
        """Counts of visitors and persons; who they are is in its exposures."""
        found = await known(asker, "case", case_id)
        tiers = await rows(_TIERS, case=case_id)
        await noted(asker, "case", case_id, 1)
        return _told({**found, "tiers": tiers})

    @router.get(
        "/cases/{case_id}/exposures",
        summary="Whom a case exposed, pair of visits by pair of visits",
        response_model=ExposurePage,
    )
    async def exposures(case_id: CaseId, asker: asking, limit: Limit = 100, cursor: Cursor = None) -> Response:
        """Being at one place at one time is a venue exposure, no proof that two people met."""
        await known(asker, "exposures", case_id)
        (after,) = from_cursor(cursor, str) or ("",)
        found = await rows(_EXPOSURES, case=case_id, after=after, limit=limit + 1)
        page = found[:limit]
        await noted(asker, "exposures", case_id, len({row["visitor_id"] for row in page}))
        return _told({"items": page, "next": to_cursor(page[-1]["exposure_id"]) if len(found) > limit else None})

    @router.get("/cases/{case_id}/venues", summary="Where a case exposed others, and when", response_model=CaseVenues)
    async def venues(case_id: CaseId, asker: asking) -> Response:
        """Venues with the number of those exposed there."""
        await known(asker, "venues", case_id)
        found = await rows(_VENUES, case=case_id)
        await noted(asker, "venues", case_id, 1)
        return _told({"items": found})

    @router.get("/cases/{case_id}/queue", summary="Whom to call first", response_model=CallList)
    async def queue(case_id: CaseId, asker: asking, capacity: Annotated[int, Query(ge=1, le=10_000)] = 50) -> Response:
        """One call a visitor, by tier, minutes and recency, as many as can be made."""
        found = await known(asker, "queue", case_id)
        exposed = await rows(_EXPOSED, case=case_id, limit=_MOST_EXPOSED)
        names = judge.tiers_of(found["policy"], found["policy_version"])
        calls = work_queue(
            np.array([row["visitor_id"] for row in exposed], object),
            np.array([names.index(row["tier"]) for row in exposed], np.int64),
            np.array([row["cumulative_ms"] for row in exposed], np.int64),
            np.array([row["until_ms"] for row in exposed], np.int64),
            np.array([row["party_size"] for row in exposed], np.int64),
            capacity,
        )
        await noted(asker, "queue", case_id, len(calls.visitor))
        items = [
            {
                "visitor_id": visitor,
                "tier": names[tier],
                "cumulative_minutes": minutes / 60_000,
                "last_exposed": datetime.fromtimestamp(last / 1000, UTC),
                "persons": persons,
            }
            for visitor, tier, minutes, last, persons in zip(
                calls.visitor.tolist(),
                calls.tier.tolist(),
                calls.cumulative_ms.tolist(),
                calls.last_exposed.tolist(),
                calls.persons.tolist(),
                strict=True,
            )
        ]
        return _told({"items": items, "left_out": calls.left_out})

    @router.post(
        "/case-reports",
        status_code=202,
        response_model=ReportState,
        summary="Report a case, a newer state of it, or its withdrawal",
        openapi_extra=_REPORT_BODY,
    )
    async def report(request: Request, asker: asking) -> Response:
        """A case report as the topic case-reports has it. 202: Kafka has it; its exposures follow within seconds.

        Where a second person must agree, what takes back exposures of a case (a withdrawal; a report of another visitor, a
        narrower window, another policy, or a status that does not count) waits for the same report by somebody else.
        """
        verdict = judge.judge(await read_body(request, "the report"))
        if not isinstance(verdict, Case):
            raise RequestError(422, verdict.detail, "the report", "see /api/docs for what it may be")
        case_id = verdict.report.case_id
        if settings.closing_by_second_person and takes_back(await traced(case_id), verdict):
            asks, what = request_of(verdict), _meaning(verdict)
            first = await run_in_threadpool(_asked_first, register.audit, case_id, asks, what)
            if first in (None, asker.who):
                await noted(asker, asks, case_id, 1, what)
                return _told({"case_id": case_id, "state": "waits for a second person"}, 202)
        await noted(asker, action_of(verdict), case_id, 1)
        try:
            await run_in_threadpool(send, case_id.encode(), verdict.canonical.encode())
        except UserError:
            raise RequestError(503, "Kafka does not take the report", "Kafka", "send it again", retry_after=5) from None
        return _told({"case_id": case_id, "state": "sent"}, 202)

    return router


def kafka_sender(settings: Settings) -> SendReport:
    """Sends to the topic case-reports as `pipeline case report` does."""

    def send(key: bytes, record: bytes) -> None:
        from pipeline.produce import ScanProducer  # the client takes a moment to load

        with ScanProducer(settings.kafka_access, CASE_REPORTS) as producer:
            producer.send(key, record)

    return send


def _meaning(case: Case) -> str:
    # Withdrawals of a case are all one. Two who change it must mean the same report: by its hash, as the log holds no pseudonym.
    return "" if case.report.status == "withdrawn" else sha256(case.canonical.encode()).hexdigest()


def _asked_first(audit: AuditLog, case_id: str, asks: str, what: str) -> str | None:
    # Who asked for this first, with no report of the case having been sent since.
    first = None
    for entry in audit.entries():
        if entry["case"] == case_id:
            if (entry["action"], entry["what"]) == (f"api {asks}", what):
                first = first or entry["who"]
            elif entry["action"] in ("api withdraws", "api reports"):
                first = None
    return first


def _told(content: Any, status: int = 200) -> Response:
    text = json.dumps(content, default=_spelt, ensure_ascii=False)
    return Response(text, status, {"Cache-Control": "no-store"}, "application/json")


def _spelt(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


_COLUMNS: Final = "case_id, infectious_from, infectious_until, policy, policy_version, status, reported_at"
_CASES: Final = f"""
SELECT {_COLUMNS}, toUnixTimestamp64Milli(reported_at) AS order FROM cases
WHERE order < {{before:Int64}} OR (order = {{before:Int64}} AND case_id > {{last:String}})
ORDER BY order DESC, case_id LIMIT {{limit:UInt32}}
"""
_CASE: Final = f"SELECT {_COLUMNS}, visitor_id FROM cases WHERE case_id = {{case:String}}"
_TRACED: Final = "SELECT report FROM case_rows FINAL WHERE case_id = {case:String}"
_TIERS: Final = """
SELECT tier, count() AS visitors, sum(persons) AS persons
FROM
(
    SELECT visitor_id, any(tier) AS tier, max(party_size) AS persons
    FROM exposures WHERE case_id = {case:String} GROUP BY visitor_id
)
GROUP BY tier ORDER BY tier
"""
_EXPOSURES: Final = """
SELECT exposure_id, visitor_id, venue_id, overlap_from, overlap_until, minutes, minutes_low, minutes_high, cumulative_minutes,
       tier, tier_basis, party_size, policy, policy_version
FROM exposures WHERE case_id = {case:String} AND exposure_id > {after:String} ORDER BY exposure_id LIMIT {limit:UInt32}
"""
_VENUES: Final = """
SELECT venue_id, any(v.name) AS name, any(v.category) AS category, min(overlap_from) AS first, max(overlap_until) AS last,
       uniqExact(visitor_id) AS visitors, uniqExactIf(visitor_id, tier != 'below') AS exposed
FROM exposures AS e LEFT JOIN venues AS v USING (venue_id)
WHERE case_id = {case:String} GROUP BY venue_id ORDER BY exposed DESC, venue_id
"""
_EXPOSED: Final = """
SELECT visitor_id, tier, toInt64(round(cumulative_minutes * 60000)) AS cumulative_ms,
       toUnixTimestamp64Milli(overlap_until) AS until_ms, party_size
FROM exposures WHERE tier != 'below' AND case_id = {case:String} LIMIT {limit:UInt32}
"""
