"""Recompute the estimates of who is really there from the views and the models alone, visit by visit, and compare.

No sum, bin or log of the streaming path is used here: every open visit's probability is computed from the model's curves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.presence import Place, Places, Presence
from pipeline.store.closed_days import utc_offset
from pipeline.store.models import ModelUse, stored_model, used_models
from pipeline.store.verify import EXAMPLES, Check, cuts

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

#: All rows are compared up to so many visits; beyond, those of the venues whose hash says so.
_VISITS: Final = 200_000
#: Pairs of a row's minute and a visit that are looked at together.
_PAIRS: Final = 2_000_000
#: No visit counts that began so many minutes ago: 64 bins of 16 minutes.
_LONGEST: Final = 64 * 16
_HAIR: Final = 1e-6
_TIMES: Final = {
    "occupancy_minutes": "intDiv(toUnixTimestamp(minute), 60)",
    "occupancy_hours": "intDiv(toUnixTimestamp(hour), 60)",
    "rolling_occupancy": "intDiv(toUnixTimestamp(window_end), 60) - 1",
    "occupancy_now": "intDiv(toUnixTimestamp64Milli(as_of), 60000) - 1",
}


@dataclass(slots=True)
class _Tally:
    rows: int = 0
    differences: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Visits:
    """In order of venue and arrival (minutes since the epoch); `closed` is far off where nothing shows it."""

    venue: Integers
    arrived: Integers
    closed: Integers
    persons: Integers


def check_estimates(client: Client) -> Check | None:
    """Compare the estimates of all rows, or of a fixed sample of the venues; None where no model was ever in force.

    Raises ClickHouseError and StoreUnavailableError where a query fails.
    """
    columns = "SELECT count() FROM system.columns WHERE database = 'checkins' AND table = 'model_use_rows' AND name = 'said_at'"
    if not client.query(columns).result_rows[0][0]:
        return None
    uses = used_models(client)
    if not uses:
        return None
    count = client.query("SELECT count() FROM checkins.visits").result_rows[0][0]
    one_in = -(-max(count, 1) // _VISITS)
    some = f"cityHash64(venue_id) % {one_in} = 0"
    places = client.query(
        "SELECT venue_id, any(category), any(timezone) FROM (SELECT venue_id, category, timezone FROM checkins.venues "
        f"UNION ALL SELECT DISTINCT venue_id, '', NULL FROM checkins.visits) WHERE {some} GROUP BY venue_id ORDER BY venue_id"
    ).result_rows
    venues = [str(row[0]) for row in places]
    registered = [(str(row[1]) or "unknown", row[2] or None) for row in places]
    visits = _read_visits(client, some, venues)
    closed_before, _ = cuts(client)
    ready: dict[str, Presence | None] = {}
    tally = _Tally()
    for view, time in _TIMES.items():
        rows = client.query_arrow(
            f"SELECT venue_id, {time} AS minute, expected, low, high, check_out_share, model_version FROM checkins.{view} "
            f"WHERE {some} AND venue_id IN (SELECT venue_id FROM checkins.scans WHERE {some}) "
            f"AND minute >= {closed_before // 60_000}"
        )
        if not rows.num_rows:
            continue
        venue, minute = _codes(rows["venue_id"], venues), rows["minute"].to_numpy().astype(np.int64)
        use = _use_of(uses, minute)
        for group in np.unique(np.stack([use, minute // 1440]), axis=1).T:
            version = uses[group[0]].version if group[0] >= 0 else ""
            if version not in ready:
                stored = stored_model(client, version) if version else None
                ready[version] = Presence(stored) if stored else None
            where = np.flatnonzero((use == group[0]) & (minute // 1440 == group[1]))
            part, presence = rows.take(pa.array(where)), ready[version]
            if presence is None:
                wrong = np.asarray(pc.is_valid(part["model_version"]))
                exact = np.zeros((len(where), 3))
            else:
                noon = datetime.fromtimestamp((2 * int(group[1]) + 1) * 43_200, UTC)
                here = presence.places(
                    [
                        Place(name, category, 0 if zone is None else utc_offset(zone, noon))
                        for name, (category, zone) in zip(venues, registered, strict=True)
                    ]
                )
                inside = np.arange(4, 60, 5) if view == "occupancy_hours" else np.zeros(1, np.int64)
                exact = _exact(here, visits, venue[where], minute[where], inside)
                wrong = _wrong(part, exact, here, venue[where], presence.version)
            tally.rows += len(where)
            tally.differences += int(wrong.sum())
            for i in np.flatnonzero(wrong)[: EXAMPLES - len(tally.examples)]:
                at = datetime.fromtimestamp(int(minute[where[i]]) * 60, UTC).isoformat()
                shown = {name: part[name][int(i)].as_py() for name in part.column_names[2:]}
                right = f"{exact[i, 0]:.2f} ({exact[i, 1]:.2f} to {exact[i, 2]:.2f})" if version else "none"
                tally.examples.append(f"{view} {venues[venue[where[i]]]} at {at}: stored {shown}; recomputed {right}")
    name = "estimates" if one_in == 1 else f"estimates, 1 in {one_in}"
    return Check(name, tally.rows, tally.differences, tuple(tally.examples))


def _codes(names: pa.ChunkedArray, venues: list[str]) -> Integers:
    return np.asarray(pc.index_in(names.cast(pa.string()), pa.array(venues, pa.string())), np.int64)


def _use_of(uses: list[ModelUse], minute: Integers) -> Integers:
    # Of the uses that hold for a minute the one said last; −1 where none does.
    found = np.full(len(minute), -1)
    for i, use in enumerate(uses):
        found[minute >= use.minute] = i
    return found


def _read_visits(client: Client, some: str, venues: list[str]) -> _Visits:
    table = client.query_arrow(
        "SELECT venue_id, visitor_id, toUnixTimestamp64Milli(checked_in_at) AS start, toUnixTimestamp64Milli(left_at) AS left, "
        f"ended_by = 'check_out' AS out, party_size FROM checkins.visits WHERE {some} "
        "ORDER BY venue_id, visitor_id, checked_in_at"
    )
    venue = _codes(table["venue_id"], venues)
    visitor = table["visitor_id"].cast(pa.string()).combine_chunks().dictionary_encode()
    visitor = visitor.combine_chunks() if isinstance(visitor, pa.ChunkedArray) else visitor
    who = np.asarray(visitor.indices, np.int64)
    start, left, out, persons = (
        table[name].to_numpy().astype(np.int64) for name in ("start", "left", "out", "party_size")
    )
    closed = np.full(len(start), np.iinfo(np.int64).max)
    again = np.flatnonzero((venue[1:] == venue[:-1]) & (who[1:] == who[:-1]))
    closed[again] = start[again + 1]
    closed[out == 1] = left[out == 1]
    order = np.lexsort((start, venue))
    return _Visits(venue[order], start[order] // 60_000, closed[order] // 60_000, persons[order])


def _exact(here: Places, visits: _Visits, venue: Integers, minute: Integers, inside: Integers) -> Floats:
    """(expected, low, high) before rounding, as the mean over the ends of the minutes `inside` after each row's."""
    rows = np.repeat(np.arange(len(venue)), len(inside))
    at = (minute[:, None] + inside).ravel()
    key = visits.venue << 32 | visits.arrived
    first = np.searchsorted(key, venue[rows] << 32 | (at - _LONGEST - 16))
    last = np.searchsorted(key, venue[rows] << 32 | at, "right")
    sums = np.zeros((len(venue), 6))
    for cut in _cuts(last - first):
        count = (last - first)[cut]
        asked = np.repeat(np.arange(len(count)), count)
        visit = np.arange(len(asked)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first[cut], count)
        _add(here, visits, visit, at[cut][asked], rows[cut][asked], sums)
    persons, squares, squared, by_stretch, by_odds, by_tilt = sums.T / len(inside)
    model = here.model
    mean, square, product, spread = model.hidden[model.category[venue]].T / 1000
    expected = mean * persons / 65535
    deviations = (
        mean * by_stretch / 0.1 * model.stretch_spread[venue] / 1000 / 65535,
        mean * by_odds / 0.25 * model.odds_spread[venue] / 1000 / 65535,
        mean * by_tilt / 65535,
        spread * expected,
    )
    chance = square * squares / 65535 + (mean**2 - 2 * mean * product) * squared / 65535**2
    half = 1.645 * np.sqrt(np.maximum(chance, 0) + sum(each**2 for each in deviations))
    return np.stack([expected, np.maximum(expected - half, 0), expected + half], axis=1)


def _cuts(counts: Integers) -> Iterator[slice]:
    until = np.cumsum(counts)
    start = 0
    while start < len(counts):
        stop = max(int(np.searchsorted(until, until[start] - counts[start] + _PAIRS, "right")), start + 1)
        yield slice(start, stop)
        start = stop


def _add(here: Places, visits: _Visits, visit: Integers, at: Integers, row: Integers, sums: Floats) -> None:
    width = here.width[visits.venue[visit]]
    still = (visits.closed[visit] > at) & (at // width - visits.arrived[visit] // width < 64)
    visit, at, row, width = visit[still], at[still], row[still], width[still]
    venue, persons, model = visits.venue[visit], visits.persons[visit], here.model
    began = visits.arrived[visit] // width * width
    # Ages count from the middle of the bin, or of what has passed of it, to the end of the minute.
    age = (at + 1 - began) - np.minimum(width, at + 1 - began) / 2
    step = np.clip(np.rint(20 * np.log(np.maximum(age, 0.5))), 0, 144).astype(np.int64) - model.stretch[venue]
    local = (began + here.offset[venue]) % 1440
    block = np.searchsorted([0, 360, 480, 600, 720, 840, 960, 1080, 1140, 1200, 1260, 1320], local, "right") - 1
    category = model.category[venue].astype(np.int64)

    def weight(others: NDArray[np.uint16], longer: int = 0, more: int = 0) -> Integers:
        edge = np.clip(step + longer, 0, 144)
        odds = np.exp((model.odds[venue].astype(np.int64) + more) / 8)
        share = np.rint(2**20 * odds / (1 + odds)).astype(np.int64)
        checked = share * model.checked[category, block, edge]
        rest = 2**20 - share
        found: Integers = (65535 * (checked + rest * others[category, block, edge])) // np.maximum(
            checked + rest * model.open_others[category, block, edge], 1
        )
        return found

    there = weight(model.others)
    for column, values in enumerate(
        (
            persons * there,
            persons**2 * there,
            persons**2 * there**2,
            persons * (weight(model.others, -1) - weight(model.others, 1)),
            persons * (weight(model.others, 0, 1) - weight(model.others, 0, -1)),
            persons * ((weight(model.others_high) - weight(model.others_low)) // 2),
        )
    ):
        sums[:, column] += np.bincount(row, values, len(sums))


def _wrong(rows: pa.Table, exact: Floats, here: Places, venue: Integers, version: str) -> NDArray[np.bool_]:
    # A hair's breadth is left to the order in which the computer adds.
    known = here.model.source[here.model.category[venue]] != 0
    valid = np.asarray(pc.is_valid(rows["model_version"]))
    expected, low, high, share = (
        np.asarray(rows[name].cast(pa.float64()).fill_null(np.nan)) for name in rows.column_names[2:6]
    )
    right = (
        (np.abs(expected - exact[:, 0]) <= 0.05 + _HAIR)
        & (low <= exact[:, 1] + _HAIR)
        & (low > exact[:, 1] - 1 - _HAIR)
        & (high >= exact[:, 2] - _HAIR)
        & (high < exact[:, 2] + 1 + _HAIR)
        & (np.abs(share - here.share[venue]) <= 0.0005 + _HAIR)
        & np.asarray(pc.equal(rows["model_version"].cast(pa.string()), version).fill_null(False))
    )
    wrong: NDArray[np.bool_] = np.where(known, ~right, valid)
    return wrong
