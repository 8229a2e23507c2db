"""The producer library: for gates and kiosks that speak to Kafka themselves, and may hold the keys of pseudonyms.

    with EdgeProducer(load_settings(), "gate-7") as producer:
        producer.send(GatewayScan(event_id="1", event_type="check_in", venue_id="mall-0042", identifier=…, occurred_at=ms))

The same judgement and the same pseudonyms as the gateway's; a raw identifier ends in this process.
"""

import time
from types import TracebackType
from typing import Self

from pipeline.gateway.admission import Admission
from pipeline.gateway.server import REFRESH_SECONDS, open_codes, open_pseudonymiser, open_venues
from pipeline.privacy.canonical import CanonicalError, canonical
from pipeline.privacy.stays import Stays
from pipeline.produce import ScanProducer
from pipeline.settings import Settings
from pipeline.topics import CHECK_INS
from schemas.gateway_scan import GatewayScan


class EdgeProducer:
    """Pseudonymises scans and sends them to the topic check-ins. Not to be shared between threads.

    It remembers who is inside, and so fills in `stay_began_at` where a scan has none: give it scans in order of time.
    """

    def __init__(self, settings: Settings, sender: str) -> None:
        """Read the keys and the venues, connect to Kafka. Raises UserError."""
        self._pseudonymiser = open_pseudonymiser(settings)
        self._admission = Admission(settings, self._pseudonymiser, open_codes(settings), open_venues(settings))
        self._stays = Stays(settings.longest_stay)
        self._country = settings.phone_country
        self._sender = sender
        self._refreshed = time.monotonic()
        self._producer = ScanProducer(settings.kafka_access, CHECK_INS)

    def send(self, scan: GatewayScan) -> str:
        """Queue one scan; returns the event id that it has in Kafka.

        Raises ProblemError, which says without any value what is wrong with the scan, and UserError where Kafka or the ring has
        failed.
        """
        if time.monotonic() - self._refreshed > REFRESH_SECONDS:
            self._pseudonymiser.refresh()
            self._refreshed = time.monotonic()
        now = time.time_ns() // 1_000_000
        record = self._admission.admit(self._with_stay(scan), self._sender, now)
        self._producer.send(record.key, record.value, now)
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

    def _with_stay(self, scan: GatewayScan) -> GatewayScan:
        if scan.stay_began_at is not None:
            return scan
        try:
            person = canonical(scan.identifier.kind, scan.identifier.value, self._country)
        except CanonicalError:
            return scan  # refused by the admission, in the same words as at the gateway
        key = hash((scan.identifier.kind, person, scan.venue_id or scan.venue_code))
        began = self._stays.began_at(key, scan.event_type, scan.occurred_at)
        return scan if began is None else scan.model_copy(update={"stay_began_at": began})
