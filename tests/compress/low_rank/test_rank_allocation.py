"""A budget is kept, and what it buys is never worse than the same share for every layer."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.compress.low_rank.factorizations import Option
from pocketzoo.compress.low_rank.rank_allocation import allocate, error

# Layers of up to five options, whatever they cost and lose.
LAYERS = st.lists(
    st.tuples(st.integers(10, 90), st.lists(st.tuples(st.integers(1, 89), st.floats(0, 1e3)), max_size=5)),
    min_size=1,
    max_size=4,
)


def problem(layers):
    sizes = {str(i): size for i, (size, _) in enumerate(layers)}
    options = {
        str(i): [Option("svd", (n,), n, lost) for n, lost in given_ if n < size]
        for i, (size, given_) in enumerate(layers)
    }
    return options, sizes


def cost(choice, sizes):
    return sum(sizes[n] if o is None else o.parameters for n, o in choice.items())


@given(LAYERS, st.floats(0.05, 1.0))
def test_the_budget_is_kept_where_it_can_be(layers, share):
    options, sizes = problem(layers)
    budget = share * sum(sizes.values())
    choice = allocate(options, sizes, budget)
    least = sum(min([o.parameters for o in options[n]] + [sizes[n]]) for n in sizes)
    assert cost(choice, sizes) <= max(budget, least)


@given(LAYERS, st.floats(0.05, 1.0))
def test_it_is_never_worse_than_the_same_share_for_all(layers, share):
    options, sizes = problem(layers)
    budget = share * sum(sizes.values())
    uniform = {}
    for n, size in sizes.items():
        fit = [o for o in options[n] if o.parameters <= budget / sum(sizes.values()) * size]
        if not fit and share < 1.0:
            return  # some layer cannot have that share
        uniform[n] = min(fit, key=lambda o: o.error) if share < 1.0 else None
    assert error(allocate(options, sizes, budget)) <= error(uniform) + 1e-9


@given(LAYERS)
def test_a_full_budget_leaves_all_as_it_is_or_costs_nothing(layers):
    options, sizes = problem(layers)
    assert error(allocate(options, sizes, sum(sizes.values()))) == 0.0


@given(LAYERS, st.floats(0.2, 0.9))
def test_it_is_the_best_there_is_for_what_it_spends_at_some_price(layers, share):
    """Against all combinations: none of the same or smaller cost is better by more than one layer's options differ."""
    options, sizes = problem(layers)
    budget = share * sum(sizes.values())
    choice = allocate(options, sizes, budget)
    every = [dict(zip(sizes, c, strict=True)) for c in product(*([*options[n], None] for n in sizes))]
    fit = [c for c in every if cost(c, sizes) <= budget]
    if not fit:
        return
    worst = max((o.error for each in options.values() for o in each), default=0.0)
    assert error(choice) <= min(map(error, fit)) + worst + 1e-9


@pytest.mark.parametrize(
    ("sizes", "curves", "budget", "least"),
    [
        # All by trying every combination.
        ((34, 26), [[(1, 88), (16, 69), (23, 37), (33, 8)], [(1, 65), (13, 33), (19, 72), (22, 89)]], 35.3, 65.0),
        ((28, 19, 31), [[(14, 19), (18, 46), (24, 78), (26, 69)], [(1, 44), (7, 60), (10, 23), (13, 24)],
                        [(1, 69), (10, 47), (12, 96), (26, 43)]], 42.8, 88.0),
        ((10, 10), [[(2, 8), (4, 4), (6, 2)], [(2, 80), (4, 40), (6, 20)]], 8.0, 28.0),
        ((10, 10), [[(2, 8), (4, 4), (6, 2)], [(2, 80), (4, 40), (6, 20)]], 12.0, 8.0),
        ((10, 10), [[(2, 8)], [(2, 80)]], 3.0, 88.0),  # nothing fits: the smallest
    ],
)  # fmt: skip
def test_small_budgets_are_spent_as_well_as_can_be(sizes, curves, budget, least):
    options = {str(i): [Option("svd", (n,), n, float(lost)) for n, lost in curve] for i, curve in enumerate(curves)}
    named = {str(i): size for i, size in enumerate(sizes)}
    every = [dict(zip(named, c, strict=True)) for c in product(*([*options[n], None] for n in named))]
    fit = [error(c) for c in every if cost(c, named) <= budget]
    assert min(fit, default=least) == least
    assert error(allocate(options, named, budget)) == least
