"""A budget is kept, and what it buys is never worse than the same share for every layer."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.compress.low_rank import rank_allocation
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


def option(parameters: int, lost: float) -> Option:
    return Option("svd", (parameters,), parameters, lost)


def test_errors_and_costs_are_sums():
    choice = {"a": option(3, 2.0), "b": None, "c": option(5, 0.5)}
    assert error(choice) == 2.5
    assert error({"b": None}) == 0
    assert rank_allocation._cost(choice, {"a": 10, "b": 20, "c": 30}) == 3 + 20 + 5


@pytest.mark.parametrize(
    ("price", "taken"),
    [(0.0, None), (1.0, None), (1.24, None), (1.25, None), (1.26, 6), (1.5, 6), (1.51, 2), (9.0, 2)],
)
def test_at_a_price_each_layer_takes_what_is_cheapest_and_stays_where_it_costs_the_same(price, taken):
    """10 as it is; 6 for an error of 5, and 2 for one of 11: changes at 5 / 4 and 6 / 4."""
    options = {"a": [option(6, 5.0), option(2, 11.0)], "b": []}
    found = rank_allocation._at_price(options, {"a": 10, "b": 7}, price)
    if price == 1.5:
        taken = 2  # of two that cost the same the one with fewer parameters
    assert found == {"a": next((o for o in options["a"] if o.parameters == taken), None), "b": None}


def test_of_two_that_lose_and_cost_the_same_the_smaller_is_taken():
    options = {"a": [option(4, 1.0), option(2, 3.0), option(3, 2.0)]}
    assert rank_allocation._at_price(options, {"a": 100}, 1.0) == {"a": option(2, 3.0)}


@pytest.mark.parametrize(
    ("budget", "wanted"),
    [
        (3, (1, 2)),  # nothing is left
        (4, (2, 2)),  # 8 for one parameter
        (5, (2, 2)),  # what costs two more, 10 for a, no longer fits; b's next costs three
        (6, (4, 2)),
        (8, (None, 2)),
        (9, (None, 2)),
        (11, (None, 5)),
        (14, (None, 5)),
        (16, (None, None)),
    ],
)
def test_what_is_left_goes_to_what_saves_most_for_a_parameter(budget, wanted):
    options = {"a": [option(1, 20.0), option(2, 12.0), option(4, 4.0)], "b": [option(2, 6.0), option(5, 3.0)]}
    sizes = {"a": 6, "b": 10}
    start = {"a": options["a"][0], "b": options["b"][0]}
    found = rank_allocation._spend(dict(start), options, sizes, budget)
    assert tuple(None if o is None else o.parameters for o in found.values()) == wanted
    assert rank_allocation._spend({"a": None, "b": None}, options, sizes, 99) == {"a": None, "b": None}


def test_what_saves_and_costs_less_is_taken_first_and_what_saves_nothing_never():
    options = {"a": [option(5, 3.0), option(4, 1.0), option(6, 1.0)]}
    assert rank_allocation._spend({"a": options["a"][0]}, options, {"a": 20}, 5) == {"a": option(4, 1.0)}
    assert rank_allocation._spend({"a": options["a"][1]}, options, {"a": 20}, 19) == {"a": option(4, 1.0)}
    assert rank_allocation._spend({"a": options["a"][1]}, options, {"a": 20}, 20) == {"a": None}


@pytest.mark.parametrize(
    ("share", "wanted"),
    [(1.0, None), (1.5, None), (0.99, 8), (0.8, 8), (0.79, 4), (0.4, 4), (0.39, 3), (0.29, 2), (0.1, 2)],
)
def test_the_same_share_for_all_is_the_best_that_fits_and_else_the_smallest(share, wanted):
    options = {"a": [option(4, 3.0), option(2, 9.0), option(8, 1.0), option(3, 4.0)], "b": []}
    found = rank_allocation._uniform(options, {"a": 10, "b": 5}, share)
    assert found["b"] is None
    assert (found["a"] and found["a"].parameters) == wanted


def test_uniform_ranks_are_taken_only_where_they_fit_and_are_better(monkeypatch):
    options, sizes = {"a": [option(4, 4.0)], "b": [option(4, 5.0)]}, {"a": 10, "b": 10}
    best = allocate(options, sizes, 14)
    assert best == {"a": options["a"][0], "b": None}
    for same, taken in (
        ({"a": option(4, 3.9), "b": None}, True),
        ({"a": option(4, 4.0), "b": None}, False),
        ({"a": option(5, 3.0), "b": None}, False),
    ):
        shares = []
        monkeypatch.setattr(
            rank_allocation, "_uniform", lambda *given, same=same, shares=shares: shares.append(given) or same
        )
        assert allocate(options, sizes, 14) == (same if taken else best)
        assert shares == [(options, sizes, 0.7)]


def test_a_budget_that_a_steep_price_alone_keeps_is_kept():
    """An error of 1e9 is borne where the budget leaves nothing else, and one of 1e40 where nothing is smaller."""
    for lost in (1e9, 1e20):
        assert allocate({"a": [option(1, lost)]}, {"a": 10}, 5) == {"a": option(1, lost)}
    assert allocate({"a": [option(9, 1.0), option(8, 2.0)]}, {"a": 10}, 5) == {"a": option(8, 2.0)}
    assert allocate({}, {}, 0) == {}
