"""Costs are what least squares says: they can be computed again by solving the problem from scratch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketzoo.compress.pruning.saliency import ChannelReader, HeldOutCost, eliminate


def problem(outputs: int, channels: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A weight (O, n * b), second moments of its inputs, and the energy of its output."""
    g = torch.Generator().manual_seed(seed)
    size = channels * width
    weight = torch.randn(outputs, size, generator=g, dtype=torch.float64)
    x = torch.randn(4 * size, size, generator=g, dtype=torch.float64)
    x = x @ torch.randn(size, size, generator=g, dtype=torch.float64)
    second = x.T @ x / len(x)
    return weight, second, float(torch.einsum("oi,ij,oj->", weight, second, weight))


def least_error(weight: torch.Tensor, second: torch.Tensor, gone: list[int]) -> float:
    """The smallest E|W x - W' x'|^2 where x' lacks the inputs ``gone``: a Schur complement between two W_B."""
    kept = [i for i in range(len(second)) if i not in gone]
    corner = second[gone][:, gone]
    if kept:
        cross = second[gone][:, kept]
        corner = corner - cross @ torch.linalg.solve(second[kept][:, kept], cross.T)
    return float(torch.einsum("ob,bc,oc->", weight[:, gone], corner, weight[:, gone]))


@given(outputs=st.integers(1, 4), channels=st.integers(2, 7), width=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_the_cost_of_one_channel_is_the_error_that_refitting_leaves(outputs, channels, width, seed):
    weight, second, total = problem(outputs, channels, width, seed)
    found = ChannelReader(weight, second, range(channels), total).costs()
    assert len(found) == channels
    for c in range(channels):
        gone = [c * width + k for k in range(width)]
        assert float(found[c]) == pytest.approx(least_error(weight, second, gone) / total, rel=1e-5, abs=1e-9)


@settings(max_examples=40)
@given(outputs=st.integers(1, 4), channels=st.integers(2, 7), width=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_costs_add_up_to_the_error_of_removing_all_of_them(outputs, channels, width, seed):
    """One at a time, each refitted: the sum is the error of the whole, whatever the order."""
    weight, second, total = problem(outputs, channels, width, seed)
    found = eliminate(range(channels), [ChannelReader(weight, second, range(channels), total)], channels - 1)
    for count in range(1, channels):
        gone = [c * width + k for c in found.order[:count] for k in range(width)]
        assert found.costs[count - 1] == pytest.approx(least_error(weight, second, gone) / total, rel=1e-4, abs=1e-8)


@given(outputs=st.integers(1, 3), channels=st.integers(2, 6), width=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_the_weights_left_are_the_least_squares_ones(outputs, channels, width, seed):
    weight, second, total = problem(outputs, channels, width, seed)
    reader = ChannelReader(weight, second, range(channels), total)
    reader.remove([0])
    kept = list(range(width, channels * width))
    wanted = torch.linalg.solve(second[kept][:, kept], second[kept] @ weight.T).T
    torch.testing.assert_close(reader.weight[:, kept], wanted, rtol=1e-5, atol=1e-6)
    assert not reader.weight[:, :width].any()
    torch.testing.assert_close(reader.inverse, torch.linalg.inv(second[kept][:, kept]), rtol=1e-5, atol=1e-6)


@given(channels=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_every_channel_goes_once_and_costs_only_grow(channels, seed):
    weight, second, total = problem(2, channels, 1, seed)
    found = eliminate(
        range(100, 100 + channels), [ChannelReader(weight, second, range(100, 100 + channels), total)], channels
    )
    assert sorted(found.order) == list(range(100, 100 + channels))
    assert list(found.costs) == sorted(found.costs)
    assert found.costs[-1] == pytest.approx(1.0, rel=0.2)  # nothing left: all of the output is lost


@pytest.mark.parametrize("factors", [[3.0, 0.1, 2.0, 0.5], [0.0, 1.0, 0.0, 2.0], [5.0, 4.0, 3.0, 2.0]])
def test_uncorrelated_channels_go_in_the_order_of_their_energy(factors):
    second = torch.diag(torch.tensor(factors, dtype=torch.float64) ** 2 + 1e-12)
    weight = torch.ones(2, 4, dtype=torch.float64)
    found = eliminate(range(4), [ChannelReader(weight, second, range(4), 1.0)], 4)
    assert [factors[c] for c in found.order] == sorted(factors)


def test_a_channel_that_another_one_can_stand_in_for_goes_first():
    """Two nearly equal channels of much energy, one of little: one of the two is free."""
    g = torch.Generator().manual_seed(0)
    base = torch.randn(500, 2, generator=g, dtype=torch.float64)
    noise = torch.randn(500, generator=g, dtype=torch.float64)
    x = torch.stack([base[:, 0], base[:, 0] + 1e-4 * noise, 0.1 * base[:, 1]], 1)
    weight = torch.ones(1, 3, dtype=torch.float64)
    found = eliminate(range(3), [ChannelReader(weight, x.T @ x / 500, range(3), 1.0)], 2)
    assert found.order[0] in (0, 1)
    assert found.order[1] == 2
    assert found.costs[0] < 1e-6


def test_what_several_layers_read_costs_the_sum():
    parts = [problem(2, 5, 1, seed) for seed in (1, 2)]
    alone = [ChannelReader(w, h, range(5), t).costs() for w, h, t in parts]
    found = eliminate(range(5), [ChannelReader(w, h, range(5), t) for w, h, t in parts], 1)
    summed = alone[0] + alone[1]
    assert found.order == (int(summed.argmin()),)
    assert found.costs[0] == pytest.approx(float(summed.min()))


def test_a_layer_that_reads_a_channel_twice_counts_it_twice():
    weight, second, total = problem(2, 4, 1, 0)
    reader = ChannelReader(weight, second, [7, 8, 7, 9], total)
    costs = reader.costs()
    assert reader.places == {7: [0, 2], 8: [1], 9: [3]}
    found = eliminate([7, 8, 9], [ChannelReader(weight, second, [7, 8, 7, 9], total)], 1)
    wanted = {7: float(costs[0] + costs[2]), 8: float(costs[1]), 9: float(costs[3])}
    assert found.order == (min(wanted, key=wanted.get),)


def test_a_channel_nobody_reads_is_free():
    weight, second, total = problem(2, 3, 1, 0)
    found = eliminate([0, 1, 2, 99], [ChannelReader(weight, second, range(3), total)], 4)
    assert found.order[0] == 99
    assert found.costs[0] == 0.0


def test_the_weight_given_is_not_changed():
    weight, second, total = problem(2, 4, 1, 0)
    before = weight.clone(), second.clone()
    eliminate(range(4), [ChannelReader(weight, second, range(4), total)], 3)
    assert torch.equal(weight, before[0])
    assert torch.equal(second, before[1])


def test_nothing_asked_for_is_nothing_gone():
    weight, second, total = problem(2, 4, 1, 0)
    found = eliminate(range(4), [ChannelReader(weight, second, range(4), total)], 0)
    assert (found.order, found.costs) == ((), ())


@pytest.mark.parametrize("channels", [33, 64, 100])
def test_many_channels_go_a_few_at_a_time(channels):
    """In rounds, for speed: the order is still a good one."""
    weight, second, total = problem(3, channels, 1, 5)
    found = eliminate(range(channels), [ChannelReader(weight, second, range(channels), total)], channels // 2)
    assert len(set(found.order)) == channels // 2
    gone = list(found.order)
    generator = np.random.default_rng(0)
    chance = [least_error(weight, second, generator.permutation(channels)[: channels // 2].tolist()) for _ in range(20)]
    assert least_error(weight, second, gone) < min(chance)


# -- what others say of what was refitted


def judged(
    channels: int, width: int, seed: int
) -> tuple[ChannelReader, HeldOutCost, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    weight, second, total = problem(3, channels, width, seed)
    _, one, _ = problem(3, channels, width, seed + 1)
    _, other, _ = problem(3, channels, width, seed + 2)
    judge = HeldOutCost(ChannelReader(weight, one, range(channels), total), other)
    return ChannelReader(weight, second, range(channels), total), judge, weight, one, other, total


def missed(weight, one, other, gone: list[int], total: float) -> float:
    """Fitted on one half, and its error on the other, from scratch."""
    kept = [i for i in range(len(one)) if i not in gone]
    less = torch.zeros_like(weight)
    less[:, kept] = torch.linalg.solve(one[kept][:, kept], one[kept] @ weight.T).T
    lost = weight - less
    return float(torch.einsum("oi,ij,oj->", lost, other, lost)) / total


@pytest.mark.parametrize(("channels", "width", "seed"), [(5, 1, 0), (13, 1, 1), (13, 2, 2), (30, 1, 3)])
def test_judges_say_what_it_costs_and_readers_how_it_comes_about_in_between(channels, width, seed):
    """After the first four, the sixth, the eighth ... and the last round; costs never fall."""
    reader, judge, weight, one, other, total = judged(channels, width, seed)
    assert judge.error() == 0.0
    alone = eliminate(range(channels), [copy.deepcopy(reader)], channels - 1)
    found = eliminate(range(channels), [reader], channels - 1, [judge])
    assert found.order == alone.order, "readers alone decide what goes next"
    own = np.diff(alone.costs, prepend=0.0)
    wanted, asked = [], 0
    for turn in range(1, channels):
        if turn in (1, 2, 3, 4, 6, 8, 11, 15, 20, 26, channels - 1):
            gone = [c * width + k for c in found.order[:turn] for k in range(width)]
            before = wanted[-1] if wanted else 0.0
            now = max(missed(weight, one, other, gone, total), before)
            parts = own[asked:turn]
            wanted += [before + (now - before) * part / parts.sum() for part in parts.cumsum()]
            asked = turn
    np.testing.assert_allclose(found.costs, wanted, rtol=1e-4, atol=1e-9)


def test_what_costs_the_readers_nothing_is_shared_out_evenly():
    """Weights that are zero: no reader says a thing, and no judge either."""
    reader, judge, *_ = judged(4, 1, 0)
    reader.weight_left.zero_()
    judge.reader.weight_left.zero_()
    assert eliminate(range(4), [reader], 3, [HeldOutCost(judge.reader, judge.second)]).costs == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("count", "rounds"), [(1, 1), (32, 32), (33, 17), (64, 32), (65, 22)])
def test_no_more_rounds_are_taken_than_there_are(count, rounds):
    weight, second, total = problem(1, count + 1, 1, 0)
    reader, taken = ChannelReader(weight, second, range(count + 1), total), []
    remove = reader.remove
    reader.remove = lambda channels: (taken.append(len(channels)), remove(channels))
    eliminate(range(count + 1), [reader], count)
    assert (len(taken), sum(taken)) == (rounds, count)
    assert len(set(taken[:-1])) <= 1


def test_an_output_without_energy_divides_by_next_to_nothing():
    weight, second, _ = problem(2, 3, 1, 0)
    for total, wanted in ((0.0, 1e-30), (-1.0, 1e-30), (0.5, 0.5), (1e-29, 1e-29)):
        assert ChannelReader(weight, second, range(3), total).total == wanted


def test_costs_below_zero_count_as_nothing():
    """As rounding leaves them; the order is still theirs."""
    weight, second, total = problem(2, 4, 1, 0)
    reader = ChannelReader(weight, second, range(4), total)
    reader.inverse = -torch.eye(4, dtype=torch.float64)
    cheapest = int(reader.costs().argmin())
    found = eliminate(range(4), [reader], 2)
    assert found.costs == (0.0, 0.0)
    assert found.order[0] == cheapest


def test_equal_costs_go_by_their_place():
    second = torch.eye(5, dtype=torch.float64)
    weight = torch.ones(2, 5, dtype=torch.float64)
    found = eliminate([4, 9, 2, 7, 3], [ChannelReader(weight, second, [4, 9, 2, 7, 3], 10.0)], 4)
    assert found.order == (2, 3, 4, 7)
    assert found.costs == pytest.approx((0.2, 0.4, 0.6, 0.8))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_what_is_gone_costs_nothing_and_the_rest_stays_in_its_place(width):
    weight, second, total = problem(2, 4, width, 1)
    reader = ChannelReader(weight, second, [5, 6, 7, 8], total)
    reader.remove([6, 99])
    assert reader.left.tolist() == [0, 2, 3]
    assert reader.weight.shape == weight.shape
    gone = slice(width, 2 * width)
    assert not reader.weight[:, gone].any()
    assert reader.costs()[1] == 0.0
    assert (reader.costs()[[0, 2, 3]] > 0).all()
    before = reader.weight.clone()
    reader.remove([99])
    reader.remove([])
    assert torch.equal(reader.weight, before)


def test_a_judge_errs_by_what_the_weight_lost():
    second = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    reader = ChannelReader(torch.tensor([[3.0, 5.0]], dtype=torch.float64), second, [0, 1], 2.0)
    judge = HeldOutCost(reader, 10 * second)
    reader.remove([1])
    assert judge.error() == pytest.approx(10 * 4 * 25 / 2)
