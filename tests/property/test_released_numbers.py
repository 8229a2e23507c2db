"""No hidden number of a released table can be worked out: neither by the solver that we check with, nor by trying every table."""

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.release.attack import deduce
from pipeline.release.publish import exposed
from pipeline.release.suppression import Hidden, protect, rounded
from pipeline.release.table import Cell, Layout, layout_of
from pipeline.store.releases import Figure

BELOW = 10


def table_of(counts: dict[tuple[str, str], int]) -> tuple[Layout, np.ndarray]:
    """The layout of some pairs, and their counts with all totals."""
    layout = layout_of(counts)

    def sum_of(cell: Cell) -> int:
        return sum(
            count
            for (area, category), count in counts.items()
            if cell.area in (None, area) and cell.category in (None, category)
        )

    return layout, np.array([sum_of(cell) for cell in layout.cells], np.int64)


def shown(layout: Layout, found: Hidden) -> list[tuple[Cell, int | None]]:
    """What is published."""
    return [
        (cell, None if hidden else int(value))
        for cell, value, hidden in zip(layout.cells, found.values, found.hidden, strict=True)
    ]


#: Small counts, and some that are not: up to 5 areas by 4 categories, with gaps.
TABLES = st.dictionaries(
    st.tuples(st.sampled_from("abcde"), st.sampled_from("wxyz")),
    st.one_of(st.integers(0, 14), st.integers(0, 400)),
    min_size=1,
)
BASES = st.sampled_from([5, 10])


@given(TABLES, BASES)
@settings(max_examples=60)
def test_rounded_numbers_add_up_and_are_next_to_the_true_ones(counts: dict[tuple[str, str], int], base: int) -> None:
    layout, true = table_of(counts)
    found = protect(layout, true, true < BELOW, BELOW, base)
    assert not np.any(found.values % base)
    assert np.all(np.abs(found.values - true) < base)
    for total, parts in layout.sums:
        assert found.values[total] == found.values[list(parts)].sum()


@given(TABLES, BASES)
@example({("a", "w"): 3}, 5)
@example({("a", "w"): 9, ("a", "x"): 20, ("b", "w"): 30, ("b", "x"): 40}, 5)
@settings(max_examples=60)
def test_a_small_number_may_be_nothing_or_not_small_whatever_is_shown(
    counts: dict[tuple[str, str], int], base: int
) -> None:
    layout, true = table_of(counts)
    small = true < BELOW
    found = protect(layout, true, small, BELOW, base)
    assert np.all(found.hidden[small])
    deduced = {each.cell: each for each in deduce(shown(layout, found), base)}
    for cell in np.flatnonzero(small):
        each = deduced[layout.cells[cell]]
        assert each.least == 0, each
        assert each.most >= BELOW, each
    assert not any(each.tells(BELOW) for each in deduced.values())


@given(TABLES, BASES)
@settings(max_examples=40)
def test_the_solver_never_excludes_the_truth(counts: dict[tuple[str, str], int], base: int) -> None:
    layout, true = table_of(counts)
    small = true < BELOW
    # Without the second step, so that the ranges are narrow.
    careless = protect(layout, true, small, BELOW, base)
    rows = shown(layout, Hidden(careless.values, small, small))
    truth = dict(zip(layout.cells, true, strict=True))
    for each in deduce(rows, base):
        assert each.least <= truth[each.cell] <= each.most


#: Visitors of a pair, and the persons whom they brought.
PARTIES = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("wxy")),
    st.one_of(st.integers(0, 14), st.integers(0, 60)).flatmap(
        lambda visitors: st.tuples(st.just(visitors), st.integers(visitors, 50 * visitors))
    ),
    min_size=1,
)


@given(PARTIES, BASES)
@example({("a", "w"): (4, 45), ("a", "x"): (20, 20), ("b", "w"): (30, 30), ("b", "x"): (40, 40)}, 5)
@settings(max_examples=60)
def test_few_visitors_are_hidden_however_many_persons_they_bring(
    parties: dict[tuple[str, str], tuple[int, int]], base: int
) -> None:
    layout, persons = table_of({pair: persons for pair, (_, persons) in parties.items()})
    _, visitors = table_of({pair: visitors for pair, (visitors, _) in parties.items()})
    small = visitors < BELOW
    rows = shown(layout, protect(layout, persons, small, BELOW, base))
    figures = [Figure(0, *cell, value) for cell, value in rows]
    assert exposed(figures, base, {(0, layout.cells[place]) for place in np.flatnonzero(small)}) == []
    deduced = {each.cell: each for each in deduce(rows, base)}
    for place in np.flatnonzero(small):
        each = deduced[layout.cells[place]]
        assert each.least == 0, each
        assert each.most >= BELOW, each


@pytest.mark.parametrize("persons", [4, 45, 300])
def test_a_small_number_of_any_size_that_is_hidden_alone_or_shown_is_found_out(persons: int) -> None:
    layout, true = table_of({("a", "w"): persons, ("a", "x"): 20, ("b", "w"): 30, ("b", "x"): 40})
    cell = Cell("a", "w")
    small = np.array([each == cell for each in layout.cells])
    values = rounded(layout, true, 5) * 5
    alone = [Figure(0, *each, value) for each, value in shown(layout, Hidden(values, small, small))]
    assert [line for line in exposed(alone, 5) if "a, w" in line]
    everything = [Figure(0, *each, int(value)) for each, value in zip(layout.cells, values, strict=True)]
    assert exposed(everything, 5, {(0, cell)}) == ["1970-01-01 00:00 a, w: shown"]


def test_a_small_number_that_cannot_have_been_nothing_is_found_out_by_who_knows_that_it_is_small() -> None:
    # Of two hidden numbers in one line either may be less, but not nothing: the line is known.
    rows = [
        *((Cell("a", category), None) for category in "wx"),
        *((Cell("b", category), None) for category in "wx"),
        *((Cell(area, None), total) for area, total in (("a", 300), ("b", 40))),
        *((Cell(None, category), total) for category, total in (("w", 200), ("x", 140))),
        (Cell(None, None), 340),
    ]
    figures = [Figure(0, *cell, value) for cell, value in rows]
    assert exposed(figures, 5) == []
    assert exposed(figures, 5, {(0, Cell("a", "w"))}) == ["1970-01-01 00:00 a, w: between 156 and 204"]


def test_hiding_the_small_number_alone_is_found_out() -> None:
    """The check can fail: a total less its other parts is the hidden one."""
    layout, true = table_of({("a", "w"): 4, ("a", "x"): 20, ("b", "w"): 30, ("b", "x"): 40})
    small = true < BELOW
    naive = protect(layout, true, small, BELOW, 5)
    (told,) = deduce(shown(layout, Hidden(naive.values, small, small)), 5)
    assert told.cell == Cell("a", "w")
    assert told.tells(BELOW)
    assert naive.hidden.sum() > 1


@given(
    st.lists(st.integers(0, 24), min_size=4, max_size=4).filter(
        lambda values: any(value < BELOW for value in values) and sum(values) >= BELOW
    )
)
@settings(max_examples=40)
def test_every_table_that_could_be_says_the_same_as_the_solver(values: list[int]) -> None:
    """Two by two, by trying all tables of multiples that agree with what is shown."""
    pairs = list(product("ab", "wx"))
    layout, true = table_of(dict(zip(pairs, values, strict=True)))
    found = protect(layout, true, true < BELOW, BELOW, 5)
    rows = shown(layout, found)
    # Beyond this nothing new is possible: either the total bounds a number, or nothing does.
    guesses = np.stack(np.meshgrid(*[np.arange(0, 61, 5)] * 4), -1).reshape(-1, 4)
    counted = guesses @ np.array([table_of({pair: int(pair == one) for pair in pairs})[1] for one in pairs])
    public = np.array([-1 if value is None else value for _, value in rows])
    counted = counted[np.all((public == -1) | (counted == public), axis=1)]
    possible = {cell: set(counted[:, place].tolist()) for place, cell in enumerate(layout.cells)}
    for each in deduce(rows, 5):
        assert max(min(possible[each.cell]) - 4, 0) == each.least
        assert each.most > 60 or max(possible[each.cell]) + 4 == each.most
        if true[layout.cells.index(each.cell)] < BELOW:
            assert {0, 5, 10} <= possible[each.cell]


def test_what_does_not_add_up_is_refused() -> None:
    layout, true = table_of({("a", "w"): 30, ("b", "w"): 40})
    true[0] += 1
    with pytest.raises(ValueError, match="not the sum of its parts"):
        protect(layout, true, true < BELOW, BELOW, 5)
    with pytest.raises(ValueError, match="no table is possible"):
        deduce([(Cell("a", "w"), None), (Cell("a", None), 5), (Cell(None, "w"), 10), (Cell(None, None), 5)], 5)
