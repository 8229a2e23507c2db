"""The attack that keys cannot stop: who is who in the next period, by habits alone. Its success rate."""

from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.report import run, table

#: Kinds of place that people have habits of: how many there are, how many of them somebody goes to, visits in 14 days. Assumed.
_HABITS: Final = ((400, 1, 10), (1_000, 3, 6), (1_028, 8, 8))

Counts = NDArray[np.int64]


@click.command(epilog="Example: python -m benchmarks.linkage --persons 500")
@click.option("--persons", type=click.IntRange(10, 20_000), default=2_000, show_default=True, help="Who are linked.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
def command(persons: int, seed: int) -> None:
    """People with habits visit an office, minimarkets and other places in two periods; each period has pseudonyms of its own.

    The attacker holds every visit of both periods by pseudonym, weighs places by how few go there in the first, and links each
    pseudonym to the likest of the second, which is held out until then. Lower rows: only a share of the first period is known.
    """
    random = np.random.default_rng(seed)
    before, after = _two_periods(random, persons)
    rows = [["by guessing", f"{100 / persons:.2f} %"]]
    for share in (1.0, 0.5, 0.1):
        seen = random.binomial(before, share)
        rows.append([f"by habits, {share:.0%} of the first period known", f"{100 * _linked(seen, after):.1f} %"])
    click.echo(table(("linked to the right pseudonym of the next period", "persons"), rows))


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

    def direction(counts: Counts) -> NDArray[np.float64]:
        weighed = counts * rarity
        return np.asarray(weighed / np.maximum(np.linalg.norm(weighed, axis=1, keepdims=True), 1e-9))

    likeness = direction(before) @ direction(after).T
    return float((likeness.argmax(axis=1) == np.arange(len(before))).mean())


if __name__ == "__main__":
    run(command)
