"""What of the visits is scanned, how often, and when it arrives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import facts
from pipeline.simulate.options import DAY, MINUTE, SECOND, SimulationOptions
from pipeline.simulate.pseudonyms import pseudonyms
from pipeline.simulate.registry import Registry
from pipeline.simulate.visits import Bools, Ints, Visits

#: Rows that are worked on at once, so that temporary columns stay small.
_ROWS: Final = 1 << 19
#: The arrival of a scan that comes after the day's end: it is in tomorrow's file.
_TOMORROW: Final = np.iinfo(np.int32).max
#: The least delay between the door and us, in seconds. Assumption.
_LEAST_DELAY: Final = 0.05


@dataclass(frozen=True, slots=True)
class Scans:
    """Every scan that arrives on the day as columns. Times are ms from the options' midnight, UTC."""

    visit: Ints
    is_check_out: Bools
    second_app: Bools
    #: What the event_id is made from; the same for a scan and its retries.
    number: Ints
    #: As the phone's clock has it.
    occurred: Ints
    arrival: Ints
    #: The rows in order of arrival; what is missing here does not arrive on the day.
    order: Ints
    #: Whether each visit's check-in and check-out arrive on the day.
    check_in_arrives: Bools
    check_out_arrives: Bools


@dataclass(frozen=True, slots=True)
class Phones:
    """What depends on a visitor's phone alone."""

    clock_error_ms: Ints
    local_time: Bools
    #: Leaves out what has a default; sends a field that we do not know; is not a phone but a reader at the door.
    lean: Bools
    newer: Bools
    gate: Bools


def phones(options: SimulationOptions, visitor: Ints) -> Phones:
    """The habits of the visitors' phones: the same visitor, the same phone."""
    bits = pseudonyms(options.seed, "phone", visitor)
    clock, magnitude, habit, times = (((bits >> np.uint64(16 * part)) & np.uint64(0xFFFF)) / 65536 for part in range(4))
    wrong = clock < facts.WRONG_CLOCKS
    least, most = facts.WRONG_CLOCK_SECONDS
    error = least * (most / least) ** magnitude * SECOND * np.where(clock < facts.WRONG_CLOCKS / 2, -1, 1)
    lean, newer = facts.LEAN_PHONES, facts.LEAN_PHONES + facts.NEWER_PHONES
    return Phones(
        clock_error_ms=np.where(wrong, error, 0).astype(np.int32),
        local_time=times < facts.LOCAL_TIMES,
        lean=habit < lean,
        newer=(habit >= lean) & (habit < newer),
        gate=habit >= 1 - facts.GATES,
    )


def plan_scans(options: SimulationOptions, registry: Registry, visits: Visits) -> Scans:
    """Draw the day's scans and put them in order of arrival."""
    rng = options.rng("scans")
    count = len(visits.venue)
    out_rows = np.flatnonzero(visits.checks_out).astype(np.int32)
    visit = np.concatenate([np.arange(count, dtype=np.int32), out_rows])
    is_check_out = np.arange(len(visit)) >= count
    occurred = np.concatenate([visits.entered, visits.left[out_rows]])
    day_end = DAY - registry.utc_offset
    earlier = visits.days_before[visit]
    arrival = _arrivals(rng, options, registry, occurred, earlier)
    arrival[arrival >= day_end[visits.venue[visit]]] = _TOMORROW
    arrived = arrival != _TOMORROW
    check_out_arrives = np.zeros(count, np.bool_)
    check_out_arrives[out_rows] = arrived[count:]

    rescanned = _pick(rng, arrived[:count], facts.RESCANS)
    stay = np.minimum(visits.left[rescanned] - visits.entered[rescanned], facts.RESCAN_MINUTES * MINUTE)
    again = visits.entered[rescanned] + (stay * (0.02 + 0.97 * rng.random(len(rescanned)))).astype(np.int32)
    visit = np.append(visit, rescanned)
    is_check_out = np.append(is_check_out, np.zeros(len(rescanned), np.bool_))
    occurred = np.append(occurred, again)
    arrival = np.append(arrival, _arrivals(rng, options, registry, again, visits.days_before[rescanned]))
    second_app = np.zeros(len(visit), np.bool_)
    number = np.arange(len(visit), dtype=np.int32)

    twice = _pick(rng, arrival != _TOMORROW, facts.SECOND_APPS)
    retried = _pick(rng, arrival != _TOMORROW, facts.RETRIES)
    copied = np.concatenate([twice, retried])
    longest = np.repeat((5 * SECOND, facts.RETRY_SECONDS * SECOND), (len(twice), len(retried)))
    visit = np.append(visit, visit[copied])
    is_check_out = np.append(is_check_out, is_check_out[copied])
    occurred = np.append(occurred, occurred[copied])
    second_app = np.append(second_app, np.arange(len(copied)) < len(twice))
    number = np.concatenate([number, np.arange(len(twice), dtype=np.int32) + len(number), number[retried]])
    arrival = np.append(arrival, arrival[copied] + rng.integers(1, longest, dtype=np.int32))

    for part in _slices(len(visit)):
        arrival[part][arrival[part] >= day_end[visits.venue[visit[part]]]] = _TOMORROW
        occurred[part] += phones(options, visits.visitor[visit[part]]).clock_error_ms
    order = np.argsort(arrival, kind="stable").astype(np.int32)
    return Scans(
        visit=visit,
        is_check_out=is_check_out,
        second_app=second_app,
        number=number,
        occurred=occurred,
        arrival=arrival,
        order=order[: int((arrival != _TOMORROW).sum())],
        check_in_arrives=arrived[:count].copy(),
        check_out_arrives=check_out_arrives,
    )


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS))


def _pick(rng: np.random.Generator, among: Bools, share: float) -> Ints:
    return np.flatnonzero(among & (rng.random(len(among), np.float32) < share)).astype(np.int32)


def _arrivals(
    rng: np.random.Generator,
    options: SimulationOptions,
    registry: Registry,
    occurred: Ints,
    days_before: NDArray[np.uint8],
) -> Ints:
    """When scans of visits of today, or of so many days before, reach us today."""
    bounds = np.cumsum([share for share, _ in facts.LATENESS])
    least = np.array([_LEAST_DELAY, *(limit for _, limit in facts.LATENESS[:-1])])
    most = np.array([limit for _, limit in facts.LATENESS])
    first_midnight, last_midnight = -int(registry.utc_offset.max()), DAY - int(registry.utc_offset.min())
    stall_rng = options.rng("stalls")
    begins = np.sort(stall_rng.integers(first_midnight, last_midnight, facts.STALLS))
    ends = begins + stall_rng.uniform(*facts.STALL_SECONDS, facts.STALLS) * SECOND
    arrival = np.empty(len(occurred), np.int32)
    for part in _slices(len(occurred)):
        count = part.stop - part.start
        kind = np.searchsorted(bounds[:-1], rng.random(count) * bounds[-1], "right")
        # Any delay within its class is as likely on a logarithmic scale.
        delay = least[kind] * (most[kind] / least[kind]) ** rng.random(count) * SECOND
        time = occurred[part] + days_before[part].astype(np.int32) * DAY + delay
        stall = np.maximum(np.searchsorted(begins, time, "right") - 1, 0)
        held_up = (time >= begins[stall]) & (time < ends[stall])
        released = ends[stall] - (ends[stall] - time) / facts.STALL_RATE
        arrival[part] = np.where(held_up, released, time)
    return arrival
