"""The venue registry: which rules hold for a venue. Stored in ClickHouse, so that every worker knows every venue."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from pydantic import ValidationError

from pipeline.core.levels import Rule
from pipeline.core.pools import NONE
from pipeline.core.shard import VenueRules
from pipeline.dead_letters import DeadLetter
from pipeline.settings import Settings
from pipeline.store.stays import OTHERS
from pipeline.store.writer import store_errors
from schemas.fields import refusal_detail
from schemas.venue import Venue

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

_COLUMNS = (
    ("venue_id", pa.string()),
    ("name", pa.string()),
    ("category", pa.string()),
    ("capacity", pa.uint32()),
    ("area", pa.string()),
    ("latitude", pa.float64()),
    ("longitude", pa.float64()),
    ("timezone", pa.string()),
    ("air_changes_per_hour", pa.float64()),
    ("floor_area_m2", pa.float64()),
)

_NAME, _CATEGORY, _AREA, _TIMEZONE = (
    next(i for i, column in enumerate(_COLUMNS) if column[0] == name)
    for name in ("name", "category", "area", "timezone")
)

#: The category of a venue that nobody registered (contract, section 4).
UNKNOWN_CATEGORY = "unknown"

_MAX_BYTES = 65_536


class LogPosition(NamedTuple):
    """Where in Kafka's topic a record of the registry stands; partition −1 for one that did not come from there."""

    partition: int = -1
    offset: int = -1
    #: Kafka's timestamp of the record, in ms since the epoch (UTC).
    timestamp_ms: int = 0

    def is_before(self, other: "LogPosition") -> bool:
        """Whether the other is the newer record for certain.

        Offsets begin anew where a topic is made anew, and a venue changes partition where partitions are added: then only
        the timestamp tells. Of two positions at most one is before the other, and there are no circles.
        """
        if min(self.partition, other.partition) < 0:
            return False
        if self.partition == other.partition:
            return self.offset < other.offset and self.timestamp_ms <= other.timestamp_ms
        return self.timestamp_ms < other.timestamp_ms


_Record = tuple[Any, ...] | None


class Registry:
    """What this process knows of the registry, and the way to the rest of it."""

    def __init__(self, client: Client, settings: Settings) -> None:
        """Nothing is read before `refresh`."""
        self._client = client
        self._settings = settings
        self._rules: dict[bytes, VenueRules] = {}
        self._crowding: dict[tuple[str, str], tuple[Rule, ...]] = {}
        #: The newest record of each venue, as `_COLUMNS`; None for one that was deleted.
        self._records: dict[str, _Record] = {}
        self._positions: dict[str, LogPosition] = {}
        #: The version of the newest record read, 0 for none.
        self.version = 0
        self._versions: dict[str, int] = {}
        # The rules as they were when `take_changed` was last called, of venues read again since.
        self._before: dict[bytes, VenueRules] = {}
        # Venues whose record in the store may be an older one than what is known here.
        self._set_back: set[str] = set()
        self._unknown = self._rules_of("", UNKNOWN_CATEGORY, None, None)

    def _rules_of(self, venue: str, category: str, capacity: int | None, zone: str | None) -> VenueRules:
        stay = int(self._settings.stay_of(category).total_seconds() * 1000)
        crowding: tuple[Rule, ...] = ()
        if capacity is not None:
            key = category, venue if venue in self._settings.crowding_by_venue else ""
            crowding = self._crowding.get(key) or self._crowding.setdefault(key, self._settings.crowding_of(*key))
        return VenueRules(stay, NONE if capacity is None else capacity, (category, zone), crowding)

    @property
    def stays(self) -> dict[str, int]:
        """The max stay that the settings give, in ms: by category, and of the others."""
        by_category = {OTHERS: self._settings.max_stay, **self._settings.max_stay_by_category}
        return {category: stay // timedelta(milliseconds=1) for category, stay in by_category.items()}

    def rules(self, venue: bytes) -> VenueRules:
        """The rules of a venue; those of category `unknown` if it is not registered."""
        return self._rules.get(venue, self._unknown)

    def knows(self, venue: bytes) -> bool:
        """Whether the venue is registered."""
        return venue in self._rules

    def place(self, venue: str) -> tuple[str, str | None]:
        """A venue's category and time zone."""
        return self.rules(venue.encode()).place

    def sign(self, venue: str) -> tuple[str, str | None]:
        """A venue's name, its id if it is not registered, and its area."""
        record = self._records.get(venue)
        return (venue, None) if record is None else (str(record[_NAME]), _text_or_none(record[_AREA]))

    def refresh(self) -> None:
        """Read what was registered since the last call, by whomever. Raises StoreUnavailableError.

        Of a worker that reads the topic from its beginning, an older record may have come in after a newer one: that is set
        right here.
        """
        columns = ", ".join(name for name, _ in _COLUMNS)
        with store_errors():
            rows = self._client.query(
                f"SELECT {columns}, partition, offset, timestamp_ms, is_deleted, version FROM registry_rows "
                f"WHERE version > {self.version} ORDER BY version"
            ).result_rows
        for *record, partition, offset, timestamp_ms, is_deleted, version in rows:
            self._take(
                str(record[0]),
                None if is_deleted else tuple(record),
                LogPosition(int(partition), int(offset), int(timestamp_ms)),
                int(version),
            )
        if self._set_back:
            self._insert({venue: (self._records[venue], self._positions[venue]) for venue in self._set_back})
            self._set_back.clear()
            self.refresh()

    def _take(self, venue: str, record: _Record, position: LogPosition, version: int) -> None:
        self.version = version
        held = self._positions.get(venue, LogPosition())
        if position.is_before(held):
            self._set_back.add(venue)
            return
        if held.is_before(position) and version == self._versions[venue]:
            # Two workers stored at the same instant: which of the two rows a merge keeps is not known.
            self._set_back.add(venue)
        else:
            self._set_back.discard(venue)
        name = venue.encode()
        self._before.setdefault(name, self.rules(name))
        self._versions[venue], self._positions[venue], self._records[venue] = version, position, record
        if record is None:
            self._rules.pop(name, None)
        else:
            self._rules[name] = self._rules_of(
                venue, str(record[_CATEGORY]), record[3], _text_or_none(record[_TIMEZONE])
            )

    def _insert(self, rows: Mapping[str, tuple[_Record, LogPosition]]) -> None:
        with store_errors():
            self._client.insert_arrow("registry_rows", _table(rows, self.version + 1))

    def take_changed(self) -> dict[bytes, VenueRules]:
        """The venues whose rules changed since the last call; asks nobody, so that none is lost with a store that goes away."""
        changed = {name: self.rules(name) for name, rules in self._before.items() if self.rules(name) != rules}
        self._before.clear()
        return changed

    def changed_since(self, version: int) -> set[str]:
        """The venues with a record newer than a version."""
        return {venue for venue, newest in self._versions.items() if newest > version}

    def load(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None], positions: Sequence[LogPosition] = ()
    ) -> list[DeadLetter]:
        """Store registry records, in order; one without a value deletes the venue that its key names.

        With `positions`, what is older than what is stored is left alone: the registry is read from its beginning whenever a
        worker starts. Without, as from a file, what differs is stored.
        Returns what was refused (`offset` = index in `values`). Raises StoreUnavailableError, and may then be called again.
        """
        self.refresh()
        newest: dict[str, tuple[_Record, LogPosition]] = {}
        letters = []
        for i, (value, key) in enumerate(zip(values, keys, strict=True)):
            position = positions[i] if positions else LogPosition()
            if value is None:
                if key is not None:
                    newest[key.decode(errors="replace")] = None, position
                continue
            read = _read(value)
            if isinstance(read, Venue):
                newest[read.venue_id] = tuple(getattr(read, name) for name, _ in _COLUMNS), position
            else:
                letters.append(DeadLetter("venues", 0, i, *read, key, value, 0))
        rows = {venue: row for venue, row in newest.items() if self._is_news(venue, *row)}
        if rows:
            self._insert(rows)
        self.refresh()
        return letters

    def _is_news(self, venue: str, record: _Record, position: LogPosition) -> bool:
        held = self._positions.get(venue, LogPosition())
        # The same record at a later place is stored, too: what stands between the two must not come back.
        is_further = position.partition >= 0 and position != held
        return not position.is_before(held) and (self._records.get(venue) != record or is_further)


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _read(value: bytes) -> Venue | tuple[str, str]:
    # A venue, or (reason, detail) why it is refused.
    if len(value) > _MAX_BYTES:
        return "too_large", f"more than {_MAX_BYTES} bytes"
    try:
        return Venue.model_validate_json(value)
    except ValidationError as error:
        if error.errors(include_input=False)[0]["type"] == "json_invalid":
            return "not_json", "not a JSON object"
        return "schema", refusal_detail(Venue, error)


def _table(rows: Mapping[str, tuple[_Record, LogPosition]], version: int) -> pa.Table:
    blank: tuple[object, ...] = ("", "", "", *([None] * (len(_COLUMNS) - 3)))
    records = [record or (venue, *blank[1:]) for venue, (record, _) in rows.items()]
    columns = {name: pa.array([record[i] for record in records], kind) for i, (name, kind) in enumerate(_COLUMNS)}
    positions = [position for _, position in rows.values()]
    columns["partition"] = pa.array([each.partition for each in positions], pa.int32())
    columns["offset"] = pa.array([each.offset for each in positions], pa.int64())
    columns["timestamp_ms"] = pa.array([each.timestamp_ms for each in positions], pa.int64())
    columns["version"] = pa.array(range(version, version + len(records)), pa.uint64())
    columns["is_deleted"] = pa.array([int(record is None) for record, _ in rows.values()], pa.uint8())
    return pa.table(columns)
