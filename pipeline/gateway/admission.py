"""From a scan with a raw identifier to the record that goes to Kafka: the same for the gateway and the producer library."""

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from pydantic_core import to_json

from pipeline.gateway.known_venues import KnownVenues
from pipeline.gateway.problems import CODE, IDENTIFIER, INVALID, NO_KEY, TIME, ProblemError
from pipeline.privacy.canonical import CanonicalError, canonical
from pipeline.privacy.pseudonyms import NoKeyError, Pseudonymiser
from pipeline.privacy.ring import OVERLAP
from pipeline.settings import Settings
from pipeline.venue_codes import CodeError, VenueCode, VenueCodes
from schemas.fields import format_instant
from schemas.gateway_scan import GatewayScan, IdentifierKind

#: How far a sender's clock may be ahead, as the worker judges it too (contract, section 5).
SKEW_MS: Final = 300_000
_MS: Final = timedelta(milliseconds=1)
_KEY_RETRY_SECONDS: Final = 60
#: The end of a number tells whose it is, with or without a country's prefix.
_TELLING: Final = 8
_SEPARATORS: Final = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Record:
    """A pseudonymised scan, ready for the topic check-ins."""

    key: bytes
    value: bytes
    event_id: str
    visitor_id: str
    code: VenueCode | None


@dataclass(frozen=True, slots=True)
class Judged:
    """What a good scan is of: the venue by its code or its id, and the person in the canonical spelling, to be kept nowhere."""

    venue_id: str
    code: VenueCode | None
    person: str = field(repr=False)


class Admission:
    """Judges scans and pseudonymises them. Holds no state: the same scan always becomes the same record."""

    def __init__(
        self,
        settings: Settings,
        pseudonymiser: Pseudonymiser,
        codes: VenueCodes | None,
        venues: KnownVenues | None,
    ) -> None:
        self._pseudonymiser = pseudonymiser
        self._codes = codes
        self._venues = venues
        self._required = settings.venue_codes != "optional"
        self._country = settings.phone_country
        self._retention_ms = settings.retention // _MS

    def admit(self, scan: GatewayScan, sender: str, received_at: int) -> Record:
        """The record of a scan that came from `sender` at `received_at`, ms since the epoch.

        Raises ProblemError, whose text holds no value of the scan.
        """
        return self.pseudonymise(scan, self.judge(scan, received_at), scan.stay_began_at, sender)

    def judge(self, scan: GatewayScan, received_at: int) -> Judged:
        """The first half of `admit`: what the scan is of. Raises ProblemError where it cannot be taken."""
        self._check_times(scan, received_at)
        venue_id, code = self._venue(scan, received_at)
        raw = scan.identifier
        try:
            person = canonical(raw.kind, raw.value, self._country)
        except CanonicalError as error:
            raise ProblemError(IDENTIFIER, f"identifier: {error}") from None
        if _holds(venue_id, raw.kind, person):
            raise ProblemError(INVALID, "venue_id: holds the identifier")
        return Judged(venue_id, code, person)

    def pseudonymise(self, scan: GatewayScan, judged: Judged, stay_began_at: int | None, sender: str) -> Record:
        """The second half: the record of a scan that was judged, and of the stay that began then; None: with it.

        Raises ProblemError where its period has no key.
        """
        at = scan.occurred_at
        began = at if stay_began_at is None else stay_began_at
        try:
            visitor_id = self._pseudonymiser.visitor_id(scan.identifier.kind, judged.person, began)
            event_id = self._pseudonymiser.event_id(sender, scan.event_id, began)
        except NoKeyError as error:
            if error.lasting:
                raise ProblemError(TIME, f"occurred_at: {error}") from None
            raise ProblemError(NO_KEY, f"{error}; send it again later", _KEY_RETRY_SECONDS) from None
        value = to_json(
            {
                "event_id": event_id,
                "event_type": scan.event_type,
                "venue_id": judged.venue_id,
                "visitor_id": visitor_id,
                "occurred_at": format_instant(at),
                "party_size": scan.party_size,
                "source": scan.source,
            }
        )
        return Record(judged.venue_id.encode(), value, event_id, visitor_id, judged.code)

    def _check_times(self, scan: GatewayScan, received_at: int) -> None:
        at, began = scan.occurred_at, scan.stay_began_at
        # The worker would put these into dead-letters, where nobody tells the sender.
        if at > received_at + SKEW_MS:
            raise ProblemError(TIME, "occurred_at: lies more than 5 minutes ahead; set the clock")
        if at < received_at - self._retention_ms:
            raise ProblemError(TIME, "occurred_at: lies before what is kept; there is no use in sending it again")
        if began is not None and not at - OVERLAP // _MS <= began <= at:
            raise ProblemError(TIME, "stay_began_at: must lie in the 48 hours before occurred_at")

    def _venue(self, scan: GatewayScan, received_at: int) -> tuple[str, VenueCode | None]:
        if scan.venue_code is None:
            if self._required:
                raise ProblemError(CODE, "venue_code: is missing; scan the venue's signed code")
            assert scan.venue_id is not None, "the schema wants one of the two"
            if self._venues is not None and scan.venue_id not in self._venues:
                raise ProblemError(INVALID, "venue_id: is no venue that is known here")
            return scan.venue_id, None
        if self._codes is None:
            raise ProblemError(CODE, "venue_code: cannot be checked here; send venue_id")
        try:
            code = self._codes.verify(scan.venue_code, scan.occurred_at, received_at)
        except CodeError as error:
            raise ProblemError(CODE, f"venue_code: {error}") from None
        return code.venue_id, code


def _holds(venue_id: str, kind: IdentifierKind, person: str) -> bool:
    """Whether a venue's name is this scan's own identifier, by mistake or to get it through: it would stand in Kafka in clear.

    Anybody else's identifier, or another of the same person, cannot be told from a venue's name: only known venues or codes can.
    """
    telling = _SEPARATORS.sub("", person).lower()
    return (telling if kind == "email" else telling[-_TELLING:]) in _SEPARATORS.sub("", venue_id).lower()
