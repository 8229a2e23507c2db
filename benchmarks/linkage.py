"""Two attacks that keys cannot stop, and their success rates: who is who in the next period, by habits alone; and where somebody
goes next, by venues' minutes alone."""

from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.report import ROOT, run, setting, table, write_between
from pipeline.simulate.day import DayPlan
from pipeline.simulate.options import MINUTE, SimulationOptions

#: Kinds of place that people have habits of: how many there are, how many of them somebody goes to, visits in 14 days. Assumed.
_HABITS: Final = ((400, 1, 10), (1_000, 3, 6), (1_028, 8, 8))
#: Where the figures are told.
PAGE: Final = ROOT / "docs" / "security.md"
#: Within how many minutes the next visit is looked for, and how long the way takes: lognormal, as the simulator has it.
_AHEAD: Final = 90
_WAY_MEDIAN, _WAY_SIGMA = 15, 0.5

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@click.command(epilog="Example: python -m benchmarks.linkage --persons 500 --check-ins 20000")
@click.option("--persons", type=click.IntRange(10, 20_000), default=2_000, show_default=True, help="Who are linked.")
@click.option(
    "--check-ins", type=click.IntRange(1_000), default=200_000, show_default=True, help="Of the day of visits."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--write", is_flag=True, help="Write the figures into docs/security.md.")
def command(persons: int, check_ins: int, seed: int, write: bool) -> None:
    """First, people with habits visit an office, minimarkets and other places in two periods with pseudonyms of their own each.

    The attacker holds every visit of both periods by pseudonym, weighs places by how few go there in the first, and links each
    pseudonym to the likest of the second, which is held out until then. Lower rows: only a share of the first period is known.

    Second, somebody is seen to leave a venue of one city in a simulated day. The attacker knows how many arrive at which venue
    in which minute, as a viewer does, and how long ways take, and says where they went; or has numbers by hour, area and
    category alone, as they are released.
    """
    told = setting(f"python -m benchmarks.linkage --persons {persons} --check-ins {check_ins} --seed {seed}")
    text = "\n\n".join([told, *tables(persons, check_ins, seed)])
    click.echo(text)
    if write:
        write_between("linkage", text, PAGE)


def tables(persons: int, check_ins: int, seed: int) -> list[str]:
    """The success of both attacks, in Markdown: the same for the same numbers."""
    random = np.random.default_rng(seed)
    rows = [["by guessing", f"{100 / persons:.2f} %"]]
    rows += [
        [f"by habits, {share:.0%} of the first period known", f"{100 * rate:.1f} %"]
        for share, rate in habits(random, persons).items()
    ]
    rates = sequences(random, check_ins, seed)
    return [
        table(("linked to the right pseudonym of the next period", "persons"), rows),
        table(("told rightly where somebody goes next", "moves"), [[n, f"{100 * r:.2f} %"] for n, r in rates.items()]),
    ]


def habits(random: np.random.Generator, persons: int) -> dict[float, float]:
    """The share of people who are linked, by the share of the first period that is known."""
    before, after = _two_periods(random, persons)
    return {share: _linked(random.binomial(before, share), after) for share in (1.0, 0.5, 0.1)}


def sequences(random: np.random.Generator, check_ins: int, seed: int) -> dict[str, float]:
    """The share of moves from a venue to the next that are told rightly, by what is known."""
    plan = DayPlan(SimulationOptions(check_ins=check_ins, seed=seed, city="32.73"))
    visits, count = plan.visits, len(plan.registry.area)
    today = visits.days_before == 0
    venue, visitor = visits.venue[today], visits.visitor[today]
    begins, ends = ((times[today] - visits.entered.min()) // MINUTE for times in (visits.entered, visits.left))
    arrivals = np.zeros((count, int(ends.max()) + _AHEAD + 2))
    np.add.at(arrivals, (venue, begins), 1)
    order = np.lexsort((begins, visitor))
    one, other = order[:-1], order[1:]
    moved = (visitor[one] == visitor[other]) & (begins[other] >= ends[one]) & (begins[other] - ends[one] <= _AHEAD)
    moves = np.flatnonzero(moved & (venue[one] != venue[other]))
    moves = random.choice(moves, min(2_000, len(moves)), replace=False)
    ahead = np.arange(1, _AHEAD + 1)
    likely = np.exp(-(np.log(ahead / _WAY_MEDIAN) ** 2) / (2 * _WAY_SIGMA**2)) / ahead
    kind = plan.registry.category
    right = {"by minutes of venues": 0.0, "by hours of areas and categories": 0.0}
    for move in moves:
        here, left, there = venue[one[move]], int(ends[one[move]]), int(venue[other[move]])
        weight = arrivals[:, left + 1 : left + 1 + _AHEAD] @ likely
        weight[here] = 0
        right["by minutes of venues"] += (int(weight.argmax()) == there) / len(moves)
        # The likeliest category of that hour, and one venue of it like the other.
        hour = arrivals[:, left + 1 : left + 61].sum(axis=1)
        best = np.bincount(kind, hour).argmax()
        right["by hours of areas and categories"] += float((kind[there] == best) / (kind == best).sum() / len(moves))
    return {"by guessing": 1 / (count - 1), **right}


def _two_periods(random: np.random.Generator, persons: int) -> tuple[Counts, Counts]:
    """Visits by person and place in each period, people in one order: the attacker is not told it."""
    parts = []
    for places, favourites, visits in _HABITS:
        chosen = np.argsort(random.random((persons, places)), axis=1)[:, :favourites]
        weights = np.zeros((persons, places))
        np.put_along_axis(weights, chosen, random.dirichlet(np.ones(favourites), persons), axis=1)
        parts.append([random.poisson(visits * weights) for _ in range(2)])
    before, after = (np.concatenate([part[which] for part in parts], axis=1) for which in range(2))
    return before, after


def _linked(before: Counts, after: Counts) -> float:
    """The share of people whose likest of the second period is themselves: cosine of visits, rare places weighing more."""
    rarity = np.log1p(len(before) / (1 + (before > 0).sum(axis=0)))

    def direction(counts: Counts) -> Floats:
        weighed = counts * rarity
        return np.asarray(weighed / np.maximum(np.linalg.norm(weighed, axis=1, keepdims=True), 1e-9))

    likeness = direction(before) @ direction(after).T
    return float((likeness.argmax(axis=1) == np.arange(len(before))).mean())


if __name__ == "__main__":
    run(command)
