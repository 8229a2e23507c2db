"""The producer library: for gates and kiosks that speak to Kafka themselves, and may hold the keys of pseudonyms.

    with EdgeProducer(load_settings(), "gate-7") as producer:
        producer.send(GatewayScan(event_id="1", event_type="check_in", venue_id="mall-0042", identifier=…, occurred_at=ms))

The same judgement and the same pseudonyms as the gateway's; a raw identifier ends in this process. It has no quotas: those are
against senders that are not trusted. Which event ids and displays' codes were used it remembers by itself, as each gateway does.
"""

import logging
import time
from types import TracebackType
from typing import Self

from pipeline.errors import UserError
from pipeline.gateway.admission import Admission
from pipeline.gateway.recent import Recent
from pipeline.gateway.server import REFRESH_SECONDS, open_codes, open_pseudonymiser, open_venues
from pipeline.privacy.stays import Stays
from pipeline.produce import ScanProducer
from pipeline.settings import Settings
from pipeline.topics import CHECK_INS
from schemas.gateway_scan import GatewayScan

log = logging.getLogger(__name__)


class EdgeProducer:
    """Pseudonymises scans and sends them to the topic check-ins. Not to be shared between threads.

    It remembers who is inside, and so fills in `stay_began_at` where a scan has none: give it scans in order of time.
    """

    def __init__(self, settings: Settings, sender: str) -> None:
        """Read the keys and the venues, connect to Kafka. Raises UserError."""
        pseudonymiser, codes, venues = open_pseudonymiser(settings), open_codes(settings), open_venues(settings)
        self._admission = Admission(settings, pseudonymiser, codes, venues)
        self._parts = [pseudonymiser.refresh, *(part.refresh for part in (codes, venues) if part is not None)]
        self._refreshed = time.monotonic()
        self._recent = Recent()
        self._stays = Stays(settings.longest_stay)
        self._sender = sender
        self._producer = ScanProducer(settings.kafka_access, CHECK_INS)

    def send(self, scan: GatewayScan) -> str:
        """Queue one scan; returns the event id that it has in Kafka. The same scan may be sent again: it is one scan.

        Raises ProblemError, which says without any value what is wrong with the scan, and UserError where Kafka has failed.
        """
        self._refresh()
        now = time.time_ns() // 1_000_000
        judged = self._admission.judge(scan, now)
        # Not by the code's text, which changes on a display; and a hash, as identifiers are kept nowhere.
        stay = hash((scan.identifier.kind, judged.person, judged.venue_id))
        began = scan.stay_began_at
        if began is None:
            began = self._stays.look(stay, scan.event_type, scan.occurred_at)
        record = self._admission.pseudonymise(scan, judged, began, self._sender)
        self._recent.has(record)
        self._recent.use_code(record, scan.event_type, now)
        self._producer.send(record.key, record.value, now)
        self._recent.remember(record)
        if scan.stay_began_at is None:
            self._stays.note(stay, scan.event_type, scan.occurred_at, began)
        return record.event_id

    def flush(self) -> None:
        """Wait until Kafka has everything sent so far. Raises UserError if it does not confirm it."""
        self._producer.flush()

    def close(self) -> None:
        """Flush, and part with Kafka."""
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refresh(self) -> None:
        """Read again every few seconds what may have changed, as a gateway does: keys, codes' keys, venues."""
        if time.monotonic() - self._refreshed <= REFRESH_SECONDS:
            return
        self._refreshed = time.monotonic()
        for part in self._parts:
            try:
                part()
            except UserError as error:
                log.warning("%s; going on with what was read before", error)
