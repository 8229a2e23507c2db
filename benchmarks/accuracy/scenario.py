"""Days of visits whose truth is known: what people do, and what they scan of it.

Categories, their dwell, hours and mix are those of `pipeline.simulate.facts`; every figure here is an assumption of its own.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.presence.estimate import Hidden
from pipeline.core.presence.evidence import Visits
from pipeline.simulate.facts import CATEGORIES, HOURLY_SHARES, LONGEST_STAY

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

VENUES: Final = 300
#: No category has fewer venues; sizes within a category are lognormal with this sigma.
_FEWEST_VENUES: Final = 12
_SIZE_SIGMA: Final = 0.8
#: Parties that come in a day, and how often somebody goes on to another venue, up to four: 172,000 visits, of which 54 % are
#: followed by another.
_PARTIES: Final = 82_000
_GOES_ON: Final = 0.62
_MOST_VISITS: Final = 4
#: Minutes from leaving to the next check-in: lognormal.
_WALK: Final = (20.0, 0.6)
#: Party sizes 1–4 and how often; the share of larger parties whose scan says one person, so that 10 % of people are hidden, and
#: how much that share differs from venue to venue.
_SIZES: Final = ((1, 2, 3, 4), (0.60, 0.22, 0.10, 0.08))
HIDDEN_PEOPLE: Final = 0.10
_HIDDEN_DIFFERS: Final = 0.24
#: Spreads: of the log stay between venues and between a venue's days, of the log odds of a check-out between venues.
_VENUE_STAY: Final = 0.2
_VENUE_DAY: Final = 0.08
_VENUE_ODDS: Final = 0.5

_MEDIANS: Final = np.log([category.dwell_median for category in CATEGORIES])
_SIGMAS: Final = np.array([category.dwell_sigma for category in CATEGORIES])
_CLOSES: Final = np.array([60 * (category.closes or 48) for category in CATEGORIES])
_MALL, _RESTAURANT = (
    next(i for i, one in enumerate(CATEGORIES) if one.name == name) for name in ("mall", "restaurant")
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is assumed of people and scans."""

    name: str
    missing: float = 0.70
    #: Change of the log odds of a check-out by one standard deviation of the log stay.
    informative: float = 0.0
    #: How much more it is in every second category, and less in the others.
    differs: float = 0.0
    #: Share of mall stays in which the visitor checks in at a restaurant, and stays in the mall.
    nested: float = 0.0
    #: Amplitude of the log stay over the day: longest for arrivals at 8, shortest at 20.
    by_hour: float = 0.0
    #: Factor of all stays on the tested day.
    shifted: float = 1.0
    goes_on: float = _GOES_ON
    #: Factor of the walk of those who do not check out.
    slower: float = 1.0
    #: Whether head counts have told how many people are hidden behind the scans.
    hidden_known: bool = True

    def slopes(self) -> Floats:
        """The change of the log odds by category, (C,)."""
        return self.informative + self.differs * (np.arange(len(CATEGORIES)) % 2 * 2.0 - 1.0)

    def at(self, missing: float) -> "Scenario":
        """The same with another share of check-outs missing."""
        return replace(self, missing=missing)


SCENARIOS: Final = (
    Scenario("main"),
    Scenario("long stays check out less", informative=-1.0),
    Scenario("long stays check out more", informative=1.0),
    Scenario("check-ins inside malls", nested=0.25),
    Scenario("stays differ by hour", by_hour=0.4),
    Scenario("all stays × 1.3 that day", shifted=1.3),
    Scenario("few move on", goes_on=0.165),
    Scenario("others walk 1.5 × slower", slower=1.5),
    Scenario("less, and few move on", informative=-1.0, goes_on=0.165),
    Scenario("less in some categories, more in others", differs=0.75),
    Scenario("hidden people not known", hidden_known=False),
    Scenario("all mixed", informative=-0.5, nested=0.25, by_hour=0.25, shifted=1.1, goes_on=0.4, slower=1.2),
)


@dataclass(frozen=True, slots=True)
class Day:
    """A day's visits, by arrival in minutes since midnight; all columns of equal length."""

    venue: Integers
    category: Integers
    arrival: Floats
    stay: Floats
    checks_out: Flags
    #: Minutes to the visitor's next check-in, infinite without one; its category, −1 without.
    next_after: Floats
    next_category: Integers
    #: People who came, and those whom the scan names.
    people: Integers
    named: Integers
    #: Median of the log stay of such visits, truth.
    log_median: Floats

    def visits(self, which: Flags | slice = slice(None)) -> Visits:
        """What the scans tell at the end of the day, in whole minutes, of all or some visits."""
        columns = (
            self.venue,
            self.category,
            self.arrival.astype(np.int64),
            np.where(self.checks_out, self.stay, -1).astype(np.int64),
            np.where(np.isfinite(self.next_after), self.next_after, -1).astype(np.int64),
            self.next_category,
        )
        return Visits(*(column[which] for column in columns))


class _Round(NamedTuple):
    """Columns of some visits, before they are put in order."""

    visitor: Integers
    venue: Integers
    category: Integers
    arrival: Floats
    stay: Floats
    checks_out: Flags
    people: Integers
    named: Integers
    log_median: Floats


class World:
    """300 venues of a scenario, and their days. The same seed gives the same."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self._random = random = np.random.default_rng(seed)
        shares = np.array([category.share for category in CATEGORIES])
        counts = np.maximum((VENUES * shares).astype(np.int64), _FEWEST_VENUES)
        counts[0] += VENUES - counts.sum()
        self.category: Integers = np.repeat(np.arange(len(CATEGORIES)), counts)
        sizes = np.exp(random.normal(0, _SIZE_SIGMA, VENUES))
        self._sizes = [np.cumsum(np.where(self.category == c, sizes, 0.0)) for c in range(len(CATEGORIES))]
        self._log_stay: Floats = random.normal(0, _VENUE_STAY, VENUES)
        self._slope: Floats = scenario.slopes()[self.category]
        middles = np.array([_log_odds(scenario.missing, slope) for slope in scenario.slopes()])
        self.log_odds: Floats = middles[self.category] + random.normal(0, _VENUE_ODDS, VENUES)
        sizes_of_parties, often = np.array(_SIZES)
        in_larger = (sizes_of_parties - 1) @ often
        hides = HIDDEN_PEOPLE * (sizes_of_parties @ often) / in_larger
        self._hides = np.clip(hides * (1 + random.normal(0, _HIDDEN_DIFFERS, VENUES)), 0, 1)
        # What head counts would give: a larger party says one with probability `hides`, the truth otherwise.
        squares = sizes_of_parties**2 @ often
        named_squares = squares - hides * ((sizes_of_parties**2 - 1) @ often)
        products = squares - hides * ((sizes_of_parties**2 - sizes_of_parties) @ often)
        counted = Hidden(1 / (1 - HIDDEN_PEOPLE), float(squares / named_squares), float(products / named_squares))
        self.hidden = counted if scenario.hidden_known else Hidden()

    def day(self, *, tested: bool) -> Day:
        """One more day; `tested`: the one on which the scenario's stays are shifted."""
        s, random = self.scenario, self._random
        longer = self._log_stay + random.normal(0, _VENUE_DAY, VENUES) + (np.log(s.shifted) if tested else 0.0)
        minutes = np.repeat(np.array(HOURLY_SHARES) / sum(HOURLY_SHARES), 60) / 60
        visitor = np.arange(_PARTIES)
        arrival = random.choice(1440, _PARTIES, p=minutes) + random.random(_PARTIES)
        rounds: list[_Round] = []
        for _ in range(_MOST_VISITS):
            category = self._categories(arrival)
            visit = self._visits(visitor, category, arrival, longer)
            rounds.append(visit)
            if s.nested:
                rounds.append(self._nested(visit, longer))
            walk = np.exp(random.normal(np.log(_WALK[0]), _WALK[1], len(visitor)))
            following = arrival + visit.stay + walk * np.where(visit.checks_out, 1.0, s.slower)
            goes_on = (random.random(len(visitor)) < s.goes_on) & (following < 1440)
            visitor, arrival = visitor[goes_on], following[goes_on]
        return self._ordered(rounds)

    def present_if_open(self, day: Day, age: Floats) -> Floats:
        """The true probability that who has not checked out at an age is still there: what no estimator can beat.

        It knows each venue's true odds and median and the true law of stays, but not who leaves when.
        """
        step, ends = 0.02, 6.0
        z = np.arange(-ends, ends, step) + step / 2
        density = np.exp(-0.5 * z**2)
        density /= density.sum()
        silent = 1 / (1 + np.exp(self.log_odds[:, None] + self._slope[:, None] * z))
        gone_silent = np.cumsum(density * silent, axis=1)
        longer = np.maximum(1 - np.cumsum(density), 0.0)
        here = longer / np.maximum(longer + gone_silent, 1e-300)
        at = (np.log(np.maximum(age, 1e-3)) - day.log_median) / _SIGMAS[day.category]
        found: Floats = here[day.venue, np.clip(np.floor((at + ends) / step), 0, len(z) - 1).astype(np.int64)]
        return found

    def _categories(self, arrival: Floats) -> Integers:
        eager = np.array([[one.share * int(digit) for digit in one.eagerness] for one in CATEGORIES])
        upto = np.cumsum(eager / eager.sum(axis=0), axis=0)[:, (arrival // 60).astype(np.int64)]
        drawn: Integers = (self._random.random(len(arrival)) > upto).sum(axis=0)
        return np.minimum(drawn, len(CATEGORIES) - 1)

    def _visits(self, visitor: Integers, category: Integers, arrival: Floats, longer: Floats) -> _Round:
        random, n = self._random, len(visitor)
        venue = np.empty(n, np.int64)
        for c, upto in enumerate(self._sizes):
            here = category == c
            venue[here] = np.searchsorted(upto, random.random(here.sum()) * upto[-1], "right")
        hour = self.scenario.by_hour * np.cos(np.pi * (arrival / 60 - 8) / 12)
        log_median = _MEDIANS[category] + longer[venue] + hour
        z = random.normal(0, 1, n)
        stay = np.minimum(np.exp(log_median + _SIGMAS[category] * z), 60 * LONGEST_STAY)
        stay = np.minimum(stay, np.maximum(_CLOSES[category] - arrival, 1.0))
        log_odds = self.log_odds[venue] + self._slope[venue] * z
        checks_out = random.random(n) < 1 / (1 + np.exp(-log_odds))
        people = random.choice(_SIZES[0], n, p=_SIZES[1])
        named = np.where(random.random(n) < self._hides[venue], 1, people)
        return _Round(visitor, venue, category, arrival, stay, checks_out, people, named, log_median)

    def _nested(self, mall: _Round, longer: Floats) -> _Round:
        """Restaurant visits during some of the mall stays."""
        inside = (mall.category == _MALL) & (self._random.random(len(mall.category)) < self.scenario.nested)
        arrival, stay = mall.arrival[inside], mall.stay[inside]
        begins = arrival + self._random.uniform(0.1, 0.6, len(arrival)) * stay
        begins = np.minimum(begins, 1439.0)
        restaurant = np.full(len(begins), _RESTAURANT)
        visit = self._visits(mall.visitor[inside], restaurant, begins, longer)
        return visit._replace(stay=np.minimum(visit.stay, arrival + stay - begins))

    @staticmethod
    def _ordered(rounds: list[_Round]) -> Day:
        columns = [np.concatenate(column) for column in zip(*rounds, strict=True)]
        order = np.lexsort((columns[3], columns[0]))
        visitor, venue, category, arrival, stay, checks_out, people, named, log_median = (c[order] for c in columns)
        same = np.append(visitor[1:] == visitor[:-1], False)
        next_after = np.where(same, np.append(arrival[1:], 0.0) - arrival, np.inf)
        next_category = np.where(same, np.append(category[1:], -1), -1)
        return Day(venue, category, arrival, stay, checks_out, next_after, next_category, people, named, log_median)


def _log_odds(missing: float, slope: float) -> float:
    """The middle log odds of a check-out at which such a share is missing."""
    spread = np.hypot(_VENUE_ODDS, slope)
    z = np.linspace(-5, 5, 1001)
    density = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    low, high = -10.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        if density @ (1 / (1 + np.exp(middle + spread * z))) > missing:
            low = middle
        else:
            high = middle
    return middle
