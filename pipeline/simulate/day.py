"""One simulated day of check-ins: its venues, its truth, and its lines in order of arrival. Pure: no I/O, no clock."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.simulate import facts
from pipeline.simulate.malformed import malformed
from pipeline.simulate.options import HOUR, SimulationOptions
from pipeline.simulate.pseudonyms import pseudonyms
from pipeline.simulate.registry import Registry, make_registry, venue_records
from pipeline.simulate.scans import Scans, phones, plan_scans
from pipeline.simulate.text import (
    APP,
    GATE,
    SECOND_APP,
    ScanBatch,
    arrow_table,
    arrow_times,
    arrow_venue_ids,
    arrow_visitor_ids,
    json_lines,
    venue_keys,
)
from pipeline.simulate.visits import Bools, Visits, plan_visits
from schemas.venue import Venue

#: Rows of the truth at a time.
_TRUTH_ROWS: Final = 250_000

TRUTH_SCHEMA: Final = pa.schema(
    [
        pa.field("venue_id", pa.string(), nullable=False),
        pa.field("visitor_id", pa.string(), nullable=False),
        pa.field("entered_at", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("left_at", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("persons", pa.uint8(), nullable=False),
        pa.field("party_size", pa.uint8(), nullable=False),
        pa.field("check_in_scanned", pa.bool_(), nullable=False),
        pa.field("check_out_scanned", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class ArrivalBatch:
    """Some records in order of arrival: the lines without line ends, the Kafka keys, and when each arrives.

    `arrival_ms` is in ms since the epoch, UTC, and never falls. `malformed` marks the lines that are no scan.
    """

    lines: list[bytes]
    keys: list[bytes | None]
    arrival_ms: NDArray[np.int64]
    malformed: Bools


class DayPlan:
    """A whole day drawn as compact columns (about 60 bytes a check-in); its text is only made batch by batch."""

    def __init__(self, options: SimulationOptions, registry: Registry | None = None) -> None:
        """`registry`: the venues of another plan with as many, for another day of theirs, drawn from another seed."""
        self.options = options
        self.registry: Registry = make_registry(options) if registry is None else registry
        self.visits: Visits = plan_visits(options, self.registry)
        self.scans: Scans = plan_scans(options, self.registry, self.visits)
        count = len(self.scans.order)
        rng = options.rng("malformed")
        #: After which scans, by order of arrival, a malformed line comes.
        self.malformed_after = np.sort(rng.integers(0, max(count, 1), round(count * facts.MALFORMED)))

    @property
    def visitor_count(self) -> int:
        """How many people are about."""
        return int(self.visits.visitor.max()) + 1

    @property
    def line_count(self) -> int:
        """How many lines the batches hold together."""
        return len(self.scans.order) + len(self.malformed_after)

    def venues(self) -> Iterator[Venue]:
        """The venue registry, in the order of the ids."""
        return venue_records(self.options, self.registry)

    def batches(self) -> Iterator[ArrivalBatch]:
        """The day's lines in order of arrival, malformed ones among them."""
        for part in self._parts():
            yield self._batch(part)

    def tables(self) -> Iterator[Any]:
        """The day's valid scans in order of arrival, as pyarrow.Table of text.ARROW_SCHEMA."""
        for part in self._parts():
            yield arrow_table(self._columns(part))

    def truth(self) -> Iterator[Any]:
        """Every true visit, as pyarrow.Table of TRUTH_SCHEMA.

        Visits are [entered_at, left_at), by the right time; `persons` came, `party_size` is what the scans say;
        `check_in_scanned` and `check_out_scanned` tell whether that scan is among the day's lines.
        """
        visits, scans, midnight = self.visits, self.scans, self.options.midnight
        for start in range(0, len(visits.venue), _TRUTH_ROWS):
            part = slice(start, start + _TRUTH_ROWS)
            yield pa.table(
                [
                    arrow_venue_ids(visits.venue[part]),
                    arrow_visitor_ids(pseudonyms(self.options.seed, "visitor", visits.visitor[part])),
                    arrow_times(visits.entered[part], midnight),
                    arrow_times(visits.left[part], midnight),
                    pa.array(visits.persons[part]),
                    pa.array(visits.party[part]),
                    pa.array(scans.check_in_arrives[part]),
                    pa.array(scans.check_out_arrives[part]),
                ],
                schema=TRUTH_SCHEMA,
            )

    def _parts(self) -> Iterator[slice]:
        count, step = len(self.scans.order), self.options.batch_lines
        return (slice(start, min(start + step, count)) for start in range(0, count, step))

    def _columns(self, part: slice) -> ScanBatch:
        scans, visits, seed = self.scans, self.visits, self.options.seed
        rows = scans.order[part]
        visit = scans.visit[rows]
        venue = visits.venue[visit]
        visitor = visits.visitor[visit]
        phone = phones(self.options, visitor)
        second_app = scans.second_app[rows]
        hours = self.registry.utc_offset[venue] // np.int32(HOUR)
        return ScanBatch(
            event_id=pseudonyms(seed, "event", scans.number[rows]),
            is_check_out=scans.is_check_out[rows],
            venue=venue,
            visitor_id=pseudonyms(seed, "visitor", visitor),
            occurred=scans.occurred[rows],
            midnight=self.options.midnight,
            hours=np.where(phone.local_time & ~second_app, hours, np.int32(0)),
            party=visits.party[visit],
            source=np.where(second_app, SECOND_APP, np.where(phone.gate, GATE, APP)).astype(np.uint8),
            lean=phone.lean,
            newer=phone.newer,
        )

    def _batch(self, part: slice) -> ArrivalBatch:
        columns = self._columns(part)
        lines = json_lines(columns)
        keys: list[bytes | None] = list(venue_keys(columns.venue))
        arrival = self.scans.arrival[self.scans.order[part]].astype(np.int64) + self.options.midnight
        first, last = np.searchsorted(self.malformed_after, (part.start, part.stop))
        after = self.malformed_after[first:last] - part.start
        # From the back, so that the places of those still to come stay right.
        for number in range(int(last) - 1, int(first) - 1, -1):
            at = int(self.malformed_after[number]) - part.start
            random = Random(f"{self.options.seed} malformed {number}")
            lines.insert(at + 1, malformed(lines[at], random))
            # A phone that cannot write a scan may well not know its venue either.
            keys.insert(at + 1, keys[at] if random.random() < 0.5 else None)
        return ArrivalBatch(
            lines=lines,
            keys=keys,
            arrival_ms=np.insert(arrival, after + 1, arrival[after]),
            malformed=np.insert(np.zeros(len(arrival), np.bool_), after + 1, True),
        )


def simulate_day(options: SimulationOptions) -> Iterator[ArrivalBatch]:
    """The day's lines in order of arrival. Same options, same bytes."""
    return DayPlan(options).batches()


def venues(options: SimulationOptions) -> Iterator[Venue]:
    """The day's venue registry, without planning the day."""
    return venue_records(options, make_registry(options))


def truth(options: SimulationOptions) -> Iterator[Any]:
    """The day's true visits, as pyarrow.Table of TRUTH_SCHEMA: see DayPlan.truth."""
    return DayPlan(options).truth()
