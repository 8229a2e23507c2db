"""The API's answers about cases and persons. All instants are RFC 3339 in UTC."""

from datetime import datetime
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, Field

from pipeline.api.models import Count, example
from schemas.fields import Identifier

_CASE: dict[str, Any] = {
    "case_id": "c-17",
    "infectious_from": "2021-09-16T17:00:00.000Z",
    "infectious_until": "2021-09-28T17:00:00.000Z",
    "policy": "who",
    "policy_version": "2021-10-14",
    "status": "confirmed",
    "reported_at": "2021-09-20T02:00:00.000Z",
}
_EXPOSURE: dict[str, Any] = {
    "exposure_id": "9f86d081884c7d65",
    "visitor_id": "p-0b1d22",
    "venue_id": "mall-0042",
    "overlap_from": "2021-09-18T10:00:00.000Z",
    "overlap_until": "2021-09-18T10:40:00.000Z",
    "minutes": 40.0,
    "minutes_low": 40.0,
    "minutes_high": 40.0,
    "cumulative_minutes": 55.0,
    "tier": "exposed",
    "tier_basis": "exact",
    "party_size": 2,
    "policy": "who",
    "policy_version": "2021-10-14",
}
_VENUE: dict[str, Any] = {
    "venue_id": "mall-0042",
    "name": "Mall 42",
    "category": "mall",
    "first": "2021-09-18T10:00:00.000Z",
    "last": "2021-09-18T12:00:00.000Z",
    "visitors": 31,
    "exposed": 12,
}
_CALL: dict[str, Any] = {
    "visitor_id": "p-0b1d22",
    "tier": "exposed",
    "cumulative_minutes": 55.0,
    "last_exposed": "2021-09-18T10:40:00.000Z",
    "persons": 2,
}


class CaseShown(BaseModel):
    """A case as it was traced last."""

    model_config = example(**_CASE)

    case_id: str
    infectious_from: datetime
    infectious_until: datetime = Field(description="The first moment that is no longer infectious.")
    policy: str
    policy_version: str
    status: str = Field(description="suspected, confirmed or withdrawn.")
    reported_at: datetime


class CasePage(BaseModel):
    """Cases, the newest report first."""

    model_config = example(items=[_CASE], next=None)

    items: list[CaseShown]
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")


class TierCount(BaseModel):
    """Whom a case exposed in one tier."""

    tier: str
    visitors: Count
    persons: Count = Field(description="With those whom one scan stands for.")


class CaseDetail(CaseShown):
    """A case, its visitor, and how many it exposed."""

    model_config = example(**_CASE, visitor_id="p-7f3a9c", tiers=[{"tier": "exposed", "visitors": 12, "persons": 15}])

    visitor_id: str = Field(description="The pseudonym of the case's own scans.")
    tiers: list[TierCount]


class Exposure(BaseModel):
    """One pair of visits at one place and time: a venue exposure, no proof that two people met."""

    model_config = example(**_EXPOSURE)

    exposure_id: str
    visitor_id: str
    venue_id: str
    overlap_from: datetime
    overlap_until: datetime
    minutes: float
    minutes_low: float = Field(description="If nobody who did not check out stayed at all.")
    minutes_high: float = Field(description="If all of them stayed until the automatic end.")
    cumulative_minutes: float = Field(description="The most within a window of the policy.")
    tier: str
    tier_basis: str = Field(description="exact, or how the policy treats visits without a check-out.")
    party_size: Count
    policy: str
    policy_version: str


class ExposurePage(BaseModel):
    """Exposures by a case, in the order of their ids."""

    model_config = example(items=[_EXPOSURE], next=None)

    items: list[Exposure]
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")


class CaseVenue(BaseModel):
    """Where a case exposed others."""

    model_config = example(**_VENUE)

    venue_id: str
    name: str
    category: str
    first: datetime
    last: datetime
    visitors: Count = Field(description="Who were there with the case.")
    exposed: Count = Field(description="Those of them above the policy's threshold.")


class CaseVenues(BaseModel):
    """Venues of a case, those with the most exposed first."""

    model_config = example(items=[_VENUE])

    items: list[CaseVenue]


class Call(BaseModel):
    """One visitor to call."""

    model_config = example(**_CALL)

    visitor_id: str
    tier: str
    cumulative_minutes: float
    last_exposed: datetime
    persons: Count


class CallList(BaseModel):
    """Whom to call, the most urgent first."""

    model_config = example(items=[_CALL], left_out=3)

    items: list[Call]
    left_out: Count = Field(description="Exposed visitors beyond the capacity.")


class ErasureRequest(BaseModel):
    """Whom to erase."""

    model_config = example(visitor_id="p-7f3a9c")

    visitor_id: Identifier


class Erased(BaseModel):
    """Nothing of the visitor is in any view."""

    model_config = example(
        receipt="3b1f0c9d5e7a2846", digest=sha256(b"p-7f3a9c").hexdigest(), scans=31, off_the_disk=False
    )

    receipt: str = Field(
        description="What the scans that went are accounted for under; keep it. Asked again, it stays the same."
    )
    digest: str = Field(description="The SHA-256 of the pseudonym, in hex, which is all that stays of it.")
    scans: Count = Field(description="How many scans went.")
    off_the_disk: bool = Field(
        description="Whether ClickHouse has taken all parts off its disk that held the visitor; until then ask again."
    )


class ReportState(BaseModel):
    """What became of a report."""

    model_config = example(case_id="c-17", state="sent")

    case_id: str
    state: str = Field(description="sent, or: waits for a second person.")


_ENTRY: dict[str, Any] = {
    "log": "5f2b9c0d1e8a7746",
    "number": 4711,
    "at": "2021-09-20T02:00:00.000+00:00",
    "who": "token:district-7",
    "action": "api exposures",
    "purpose": "contact-tracing",
    "case": "c-17",
    "persons": 12,
    "what": "",
    "previous": "6f0c…",
    "hash": "b81d…",
}


class AuditEntry(BaseModel):
    """One entry of the audit log: who read or did what about persons, why, when, and of how many."""

    model_config = example(**_ENTRY)

    log: str = Field(description="Which log: by the machine and the file where it began.")
    number: int = Field(ge=1, description="From 1 on, without gaps.")
    at: str = Field(description="RFC 3339, as it stands in the log and in its hash.")
    who: str = Field(description="token:NAME, oidc:SUBJECT or cli:USER; by sudo cli:root (sudo USER).")
    action: str
    purpose: str
    case: str | None
    persons: int | None = Field(
        description="Of how many (at most) the answer told; null: not known, of all of them perhaps."
    )
    what: str = Field(description="The question, of the command line; without any pseudonym.")
    previous: str = Field(description="The hash of the entry before.")
    hash: str = Field(description="SHA-256 of this entry without it.")


class AuditPage(BaseModel):
    """Entries of the audit log, the newest first."""

    model_config = example(items=[_ENTRY], next=None)

    items: list[AuditEntry]
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")


class AuditVerdict(BaseModel):
    """Whether the audit log is whole."""

    model_config = example(entries=4711, faults=[])

    entries: Count
    faults: list[str] = Field(description="Every change and gap that shows, in sentences; none in a log that is whole.")
