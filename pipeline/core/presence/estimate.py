"""From the open visits and a model to the people really there: expected, and an interval of 90 %.

An open visit of age a is that of somebody who checks out later, or of somebody who never will, present or gone:

    w = [p·S(a') + (1−p)·Sₙ(a')] / [p·S(a') + (1−p)·O(a')],   a' = a·e^(−stretch)

with the share p that checks out, the curves S, Sₙ, O of `Model` and the venue's stretch (a mixture cure model, after Peng & Yu).
The number of people present is then a sum of independent trials (Poisson-binomial: Hong 2013), of which what the model itself
does not know is the larger part of the uncertainty. All sums are integers, so they don't depend on an order or on shards.
"""

from dataclasses import astuple, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.core.jit import array_kernel, kernel, sort_first, wide
from pipeline.core.pools import I32, NONE, Moves
from pipeline.core.presence.calibration import Hidden
from pipeline.core.presence.grid import BLOCK_OF_MINUTE, BLOCKS, MINUTES_OF_DAY, STEP, STEPS, Integers
from pipeline.core.presence.model import BINS, MOST_ODDS, MOST_STRETCH, ODDS_STEP, ONE, Model, Source

#: Classes of log odds, and of ages, with one more at either end for the differences between neighbours.
_ODDS: Final = 2 * MOST_ODDS + 3
_MARGIN: Final = MOST_STRETCH + 1
#: Edge of the age grid that is nearest to an age in half minutes; the first below 1½, the last from e^7.2 minutes on.
_EDGE_OF_HALF_MINUTES: Final[Integers] = np.clip(
    np.rint(np.log(np.maximum(np.arange(2 * (BINS + 1) * 16), 1) / 2) / STEP), 0, STEPS
).astype(np.int64)
#: Columns of the sums.
PERSONS, SQUARES, SQUARED_WEIGHTS, BY_STRETCH, BY_ODDS, BY_TILT = range(6)
#: Two-sided 90 % of a normal distribution.
NINETY: Final = 1.645


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights, ready to be looked up: `here` in 1/65535, and half the difference that the tilt's spread makes.

    Shape (C · blocks, classes of log odds, ages), the ages with a margin for the stretch.
    """

    here: npt.NDArray[np.uint16]
    by_tilt: npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Estimate:
    """People present by venue, (V,). `low` and `high` hold 90 %, in whole persons. −1 where there is no estimate."""

    expected: npt.NDArray[np.float64]
    low: Integers
    high: Integers


def weights_of(model: Model) -> Weights:
    """The weights of every category, block, class of log odds and age: once a model, 4 bytes for each."""
    strata = len(model.source) * BLOCKS
    ages = np.clip(np.arange(STEPS + 1 + 2 * _MARGIN) - _MARGIN, 0, STEPS)
    # 20 bits: a share of check-outs near 1 must not become 1.
    odds = np.exp(ODDS_STEP * (np.arange(_ODDS) - _ODDS // 2))
    share = np.rint(2**20 * odds / (1 + odds)).astype(np.int64)[None, :, None]

    def curve(values: npt.NDArray[np.uint16]) -> Integers:
        return values.reshape(strata, 1, STEPS + 1)[:, :, ages].astype(np.int64)

    checked = share * curve(model.checked)
    still_open = np.maximum(checked + (2**20 - share) * curve(model.open_others), 1)

    def weight(others: npt.NDArray[np.uint16]) -> Integers:
        return ONE * (checked + (2**20 - share) * curve(others)) // still_open

    by_tilt = (weight(model.others_high) - weight(model.others_low)) // 2
    return Weights(weight(model.others).astype(np.uint16), by_tilt.astype(np.int16))


def bin_of(minute: Integers | int, bin_minutes: Integers | int) -> Integers:
    """The column of `open_persons` in which an arrival belongs, 0–63; minutes since the epoch, UTC."""
    return np.asarray(minute, np.int64) // np.asarray(bin_minutes, np.int64) % BINS


def sums(
    model: Model,
    weights: Weights,
    open_persons: npt.NDArray[np.integer],
    open_squares: npt.NDArray[np.integer],
    offset: npt.NDArray[np.integer],
    minute: int,
) -> Integers:
    """The exact sums over each venue's open visits, shape (V, 6); see the constants above for the columns.

    open_persons, open_squares: persons named in open visits and the sum over visits of their squares, by `bin_of` the arrival,
    (V, 64); a column must be empty of visits older than 64 bins. offset: minutes of local time east of UTC, (V,).
    minute: now, in whole minutes since the epoch, UTC: arrivals up to its end are in.
    """
    out = np.zeros((len(open_persons), 6), np.int64)
    _sums(
        open_persons,
        open_squares,
        offset,
        minute,
        model.category,
        model.bin_minutes,
        model.stretch,
        model.odds,
        weights.here,
        weights.by_tilt,
        BLOCK_OF_MINUTE,
        _EDGE_OF_HALF_MINUTES,
        out,
    )
    return out


def sums_at(
    model: Model,
    weights: Weights,
    log: tuple[I32, Moves],
    offset: npt.NDArray[np.integer],
    venue: npt.NDArray[np.integer],
    minute: npt.NDArray[np.integer],
    place: npt.NDArray[np.integer],
    out: Integers,
) -> None:
    """Add the sums of some minutes (since the epoch, at their ends), each of a venue, to the rows `place` of `out` (…, 6).

    log: of each venue of the model the first row of its moves, and these. venue, minute, place: in order of venue and minute.
    offset: minutes of local time east of UTC, (V,).
    """
    heads, moves = log
    _walk(
        heads,
        moves,
        venue,
        minute,
        place,
        offset,
        model.category,
        model.bin_minutes,
        model.stretch,
        model.odds,
        weights.here,
        weights.by_tilt,
        BLOCK_OF_MINUTE,
        _EDGE_OF_HALF_MINUTES,
        out,
    )


def estimate(
    model: Model, summed: Integers, hidden: Hidden | None = None, venue: Integers | None = None, minutes: int = 1
) -> Estimate:
    """Expected people and the interval from the sums: chance, hidden people, and what the model does not know.

    hidden: holds for all categories in place of the model's own. venue: whose sums each row has; the model's venues in order
    if None. minutes: how many minutes were summed; the estimate is of their mean, and the interval takes the minutes' chances
    for one and the same, which makes it wider rather than narrower.
    """
    venue = np.arange(len(summed)) if venue is None else venue
    mean, square, product, spread = model.hidden[model.category[venue]].T / 1000 if hidden is None else astuple(hidden)
    of = summed / minutes
    # Differences between neighbours: of two steps of the stretch, of two of the log odds.
    stretch = of[:, BY_STRETCH] / (2 * STEP) * (model.stretch_spread[venue] / 1000)
    odds = of[:, BY_ODDS] / (2 * ODDS_STEP) * (model.odds_spread[venue] / 1000)
    tilt = of[:, BY_TILT]
    expected = mean * of[:, PERSONS] / ONE
    # Over visits, the variance of M·(there or not) − mean·m·w.
    chance = square * of[:, SQUARES] / ONE
    chance += (mean**2 - 2 * mean * product) * of[:, SQUARED_WEIGHTS] / ONE**2
    unknown = (mean / ONE) ** 2 * (stretch**2 + odds**2 + tilt**2) + (spread * expected) ** 2
    half = NINETY * np.sqrt(np.maximum(chance, 0.0) + unknown)
    low = np.floor(np.maximum(expected - half, 0.0)).astype(np.int64)
    high = np.ceil(expected + half).astype(np.int64)
    known = model.source[model.category[venue]] != Source.NONE
    return Estimate(np.where(known, expected, -1.0), np.where(known, low, -1), np.where(known, high, -1))


@kernel
def _sums(
    open_persons: npt.NDArray[np.integer],
    open_squares: npt.NDArray[np.integer],
    offset: npt.NDArray[np.integer],
    minute: int,
    category: npt.NDArray[np.int16],
    bin_minutes: npt.NDArray[np.uint8],
    stretch: npt.NDArray[np.int8],
    odds: npt.NDArray[np.int8],
    here: npt.NDArray[np.uint16],
    by_tilt: npt.NDArray[np.int16],
    block_of_minute: Integers,
    edge_of_half_minutes: Integers,
    out: Integers,
) -> None:
    for v in range(len(open_persons)):
        _add_sums(
            open_persons[v],
            open_squares[v],
            minute,
            offset[v],
            wide(category[v]),
            wide(bin_minutes[category[v]]),
            wide(stretch[v]),
            wide(odds[v]),
            here,
            by_tilt,
            block_of_minute,
            edge_of_half_minutes,
            out[v],
        )


@kernel
def _add_sums(
    open_persons: npt.NDArray[np.integer],
    open_squares: npt.NDArray[np.integer],
    minute: int,
    offset: int,
    category: int,
    width: int,
    stretch: int,
    odds: int,
    here: npt.NDArray[np.uint16],
    by_tilt: npt.NDArray[np.int16],
    block_of_minute: Integers,
    edge_of_half_minutes: Integers,
    out: Integers,
) -> None:
    newest = minute // width
    row_of_odds = odds + _ODDS // 2
    shift = _MARGIN - stretch
    for back in range(BINS):
        slot = (newest - back) % BINS
        persons = np.int64(open_persons[slot])
        if persons == 0:
            continue
        start = (newest - back) * width
        # The middle of the bin, or of what has passed of it: now is the end of the minute.
        passed = min(width, minute + 1 - start)
        age = edge_of_half_minutes[2 * (minute + 1 - start) - passed] + shift
        row = category * BLOCKS + block_of_minute[(start + offset) % MINUTES_OF_DAY]
        weight = np.int64(here[row, row_of_odds, age])
        squares = np.int64(open_squares[slot])
        out[PERSONS] += persons * weight
        out[SQUARES] += squares * weight
        out[SQUARED_WEIGHTS] += squares * weight * weight
        out[BY_STRETCH] += persons * (
            np.int64(here[row, row_of_odds, age - 1]) - np.int64(here[row, row_of_odds, age + 1])
        )
        out[BY_ODDS] += persons * (
            np.int64(here[row, row_of_odds + 1, age]) - np.int64(here[row, row_of_odds - 1, age])
        )
        out[BY_TILT] += persons * np.int64(by_tilt[row, row_of_odds, age])


@array_kernel
def _walk(
    heads: I32,
    moves: Moves,
    venue: npt.NDArray[np.integer],
    minute: npt.NDArray[np.integer],
    place: npt.NDArray[np.integer],
    offset: npt.NDArray[np.integer],
    category: npt.NDArray[np.int16],
    bin_minutes: npt.NDArray[np.uint8],
    stretch: npt.NDArray[np.int8],
    odds: npt.NDArray[np.int8],
    here: npt.NDArray[np.uint16],
    by_tilt: npt.NDArray[np.int16],
    block_of_minute: Integers,
    edge_of_half_minutes: Integers,
    out: Integers,
) -> None:
    persons = np.zeros(BINS, np.int64)
    squares = np.zeros(BINS, np.int64)
    later = np.zeros(256, np.int64)
    i = 0
    while i < len(venue):
        v = venue[i]
        until = i
        while until < len(venue) and venue[until] == v:
            until += 1
        width = wide(bin_minutes[category[v]])
        first = wide(minute[i])
        newest = first // width
        persons[:] = 0
        squares[:] = 0
        # What happened up to the first minute is added up in any order; what is later is put in order.
        count = 0
        move = heads[v]
        while move != NONE:
            at = wide(moves.rows[move].at)
            size = wide(moves.rows[move].persons)
            arrived = (at - moves.rows[move].age) // width
            if at <= first:
                if newest - arrived < BINS:
                    persons[arrived % BINS] += size
                    squares[arrived % BINS] += size * abs(size)
            elif at <= minute[until - 1]:
                if count == len(later):
                    longer = np.zeros(2 * count, np.int64)
                    longer[:count] = later
                    later = longer
                later[count] = (at << 32) | (wide(moves.rows[move].age) << 16) | (size + 128)
                count += 1
            move = moves.rows[move].next
        sort_first(later, count)
        k = 0
        for j in range(i, until):
            now = wide(minute[j])
            # The bins that begin since the last minute take the place of those that are too old by now.
            for fresh in range(max(newest + 1, now // width - BINS + 1), now // width + 1):
                persons[fresh % BINS] = 0
                squares[fresh % BINS] = 0
            newest = now // width
            while k < count and later[k] >> 32 <= now:
                size = (later[k] & 0xFFFF) - 128
                arrived = ((later[k] >> 32) - (later[k] >> 16 & 0xFFFF)) // width
                if newest - arrived < BINS:
                    persons[arrived % BINS] += size
                    squares[arrived % BINS] += size * abs(size)
                k += 1
            _add_sums(
                persons,
                squares,
                now,
                offset[v],
                wide(category[v]),
                width,
                wide(stretch[v]),
                wide(odds[v]),
                here,
                by_tilt,
                block_of_minute,
                edge_of_half_minutes,
                out[place[j]],
            )
        i = until
