"""The venue registry: which rules hold for a venue. Stored in ClickHouse, so that every worker knows every venue."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import ValidationError

from pipeline.core.pools import NONE
from pipeline.core.shard import VenueRules
from pipeline.dead_letters import DeadLetter
from pipeline.settings import Settings
from pipeline.store.writer import store_errors
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

#: The category of a venue that nobody registered (contract, section 4).
UNKNOWN_CATEGORY = "unknown"

_MAX_BYTES = 65_536


class Registry:
    """What this process knows of the registry, and the way to the rest of it."""

    def __init__(self, client: Client, settings: Settings) -> None:
        """Nothing is read before `refresh`."""
        self._client = client
        self._settings = settings
        self._rules: dict[bytes, VenueRules] = {}
        self._seen_version = 0
        self._unknown = self._rules_of(UNKNOWN_CATEGORY, None)

    def _rules_of(self, category: str, capacity: int | None) -> VenueRules:
        stay = int(self._settings.stay_of(category).total_seconds() * 1000)
        return VenueRules(stay, NONE if capacity is None else capacity)

    def rules(self, venue: bytes) -> VenueRules:
        """The rules of a venue; those of category `unknown` if it is not registered."""
        return self._rules.get(venue, self._unknown)

    def knows(self, venue: bytes) -> bool:
        """Whether the venue is registered."""
        return venue in self._rules

    def refresh(self) -> dict[bytes, VenueRules]:
        """Read what was registered since the last call, by whomever. Returns the venues whose rules changed."""
        with store_errors():
            rows = self._client.query(
                "SELECT venue_id, argMax(category, version), argMax(tuple(capacity), version).1, "
                "argMax(is_deleted, version), max(version) AS newest FROM registry_rows "
                f"GROUP BY venue_id HAVING newest > {self._seen_version}"
            ).result_rows
        changed = {}
        for venue, category, capacity, is_deleted, version in rows:
            name = str(venue).encode()
            rules = self._unknown if is_deleted else self._rules_of(category, capacity)
            if self.rules(name) != rules:
                changed[name] = rules
            if is_deleted:
                self._rules.pop(name, None)
            else:
                self._rules[name] = rules
            self._seen_version = max(self._seen_version, version)
        return changed

    def load(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None]
    ) -> tuple[dict[bytes, VenueRules], list[DeadLetter]]:
        """Store registry records, in order; one without a value deletes the venue that its key names.

        Returns the venues whose rules changed, and what was refused (`offset` = index in `values`).
        """
        changed = self.refresh()
        rows: list[dict[str, object]] = []
        letters = []
        for i, (value, key) in enumerate(zip(values, keys, strict=True)):
            version = self._seen_version + 1 + i
            if value is None:
                if key is not None:
                    rows.append({"venue_id": key.decode(errors="replace"), "version": version, "is_deleted": 1})
                continue
            refused = None
            try:
                if len(value) > _MAX_BYTES:
                    refused = ("too_large", f"more than {_MAX_BYTES} bytes")
                else:
                    venue = Venue.model_validate_json(value)
                    rows.append({**venue.model_dump(), "version": version, "is_deleted": 0})
            except ValidationError as error:
                first = error.errors(include_input=False, include_context=False, include_url=False)[0]
                field = ".".join(str(part) for part in first["loc"])
                refused = (
                    ("not_json", "not JSON")
                    if first["type"] == "json_invalid"
                    else ("schema", f"{field}: {first['msg']}")
                )
            if refused is not None:
                letters.append(DeadLetter("venues", 0, i, *refused, key, value, 0))
        self._insert(rows)
        return changed | self.refresh(), letters

    def _insert(self, rows: Sequence[Mapping[str, object]]) -> None:
        if not rows:
            return
        columns = {
            name: pa.array([row.get(name, "" if name in ("name", "category") else None) for row in rows], kind)
            for name, kind in _COLUMNS
        }
        columns["version"] = pa.array([row["version"] for row in rows], pa.uint64())
        columns["is_deleted"] = pa.array([row["is_deleted"] for row in rows], pa.uint8())
        with store_errors():
            self._client.insert_arrow("registry_rows", pa.table(columns))
