"""Channels chosen by what left-out sources say of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from pocketzoo import default_registry
from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.pruning import left_out_sources, prune
from pocketzoo.compress.pruning.channels import Group
from pocketzoo.compress.pruning.gauss_newton import Sensitivity
from pocketzoo.compress.pruning.left_out_sources import ReadingLayer, folds_of, made_of, orders_by_sources, with_further
from pocketzoo.compress.statistics.sample_moments import SampleMoments
from pocketzoo.core.errors import DataError


@dataclass(frozen=True)
class Sourced:
    x: np.ndarray
    groups: np.ndarray

    def __iter__(self):
        return iter([self.x[:5], self.x[5:]])


def sourced(sources: int, each: int = 4, shape: tuple[int, ...] = (3, 12, 12)) -> Sourced:
    x = np.random.default_rng(0).uniform(-1, 1, (sources * each, *shape)).astype(np.float32)
    return Sourced(x, np.tile(np.arange(sources), each))


def moments(generator: torch.Generator, samples: int, inputs: int) -> SampleMoments:
    root = torch.randn(inputs, inputs, generator=generator)
    return SampleMoments(root @ root.T * samples, torch.randn(samples, inputs, generator=generator))


FOLDS = [
    (None, None),
    ([0] * 4, None),
    ([0, 1, 2], None),
    ([0, 0, 1, 1], 2),
    ([5, 3, 5, 9, 3, 9], 3),
    ([*range(6)] * 2, 4),
]


@pytest.mark.parametrize(("groups", "count"), FOLDS)
def test_folds_hold_whole_sources_of_few(groups, count):
    ids = None if groups is None else np.array(groups)
    given = Sourced(np.zeros((len(groups or [0]), 2), np.float32), ids)
    folds = folds_of(given)
    assert (None if folds is None else int(folds.max()) + 1) == count
    if folds is not None:
        assert all(len(set(folds[ids == source].tolist())) == 1 for source in set(groups))


def test_of_many_sources_second_moments_are_trusted(monkeypatch):
    monkeypatch.setattr(left_out_sources, "FEW", 3)
    assert folds_of(sourced(2)) is not None
    assert folds_of(sourced(3)) is None
    assert with_further(given := sourced(3)) is given


@pytest.mark.parametrize("shifts", [True, False])
def test_the_form_is_what_removal_does_to_the_output(shifts):
    """With errors that differ by position counted by ``each``, and those of a sample's mean by ``together``."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 8, generator=generator)
    roots = [torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    matter = Sensitivity(*(root.T @ root for root in roots))
    read = moments(generator, 5, 8)
    group = Group(("w",), np.array([4, 7, 9]))
    reader = ReadingLayer("l", weight, [4, 9, 9, 2], shifts)  # each as two inputs; channel 9 twice, 2 not of the group
    form = left_out_sources._form(group, reader, matter, read, read.mean)
    for gone, inputs in (([0], [0, 1]), ([2], [2, 3, 4, 5]), ([0, 1, 2], [0, 1, 2, 3, 4, 5])):
        lost = torch.zeros_like(weight)
        lost[:, inputs] = weight[:, inputs]
        lost = lost.double()
        means = read.means - read.mean if shifts else read.means
        wanted = ((roots[1] @ lost @ means.T.double()).square().sum() / 5) + (
            (roots[0] @ lost) @ (read.within.double() / 5) * (roots[0] @ lost)
        ).sum()
        assert float(form[gone][:, gone].sum()) == pytest.approx(float(wanted), rel=1e-5)
    assert not form[1].any()  # nothing reads channel 7
    diagonal = Sensitivity(*(matrix.diagonal() for matrix in (matter.each, matter.together)))
    whole = Sensitivity(*(matrix.diagonal().diag() for matrix in (matter.each, matter.together)))
    torch.testing.assert_close(*(left_out_sources._form(group, reader, m, read, read.mean) for m in (diagonal, whole)))


def test_an_order_takes_the_cheapest_next_and_costs_add_up():
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    form = root @ root.T
    order = left_out_sources._order(form)
    costs = left_out_sources._costs(form, order)
    assert len(set(order)) == 5
    for count in range(1, 6):
        gone = order[:count]
        assert costs[count - 1] == pytest.approx(float(form[gone][:, gone].sum()))
        others = [[*order[: count - 1], i] for i in range(6) if i not in order[: count - 1]]
        assert costs[count - 1] == pytest.approx(min(float(form[g][:, g].sum()) for g in others))


def fold(levels: list[list[float]]) -> dict[str, SampleMoments]:
    return {"l": SampleMoments(torch.zeros(3, 3), torch.tensor(levels))}


GROUP = Group(("w",), np.array([0, 1, 2]))
READER = ReadingLayer("l", torch.eye(3), [0, 1, 2], True)
MATTER = {"l": Sensitivity(torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))}


def test_what_is_dead_on_all_sources_but_one_is_no_longer_free():
    """Channel 0 is silent but for the second source; channel 1 is always a little alive, channel 2 much."""
    folds = [fold([[0.0, 0.1, 3.0], [0.0, -0.1, -3.0]]), fold([[2.0, 0.1, 3.0], [-2.0, -0.1, -3.0]])]
    (found,) = orders_by_sources([GROUP], [READER], MATTER, folds)
    assert found.order == (1, 0)
    # The first fold alone takes 0 for dead: the second, left out, is asked and says 4. And the other way round .01.
    assert found.costs[0] == pytest.approx((4.0 + 0.01) / 2)
    (own,) = orders_by_sources([GROUP], [READER], MATTER, [folds[0] | {"l": folds[0]["l"] + folds[1]["l"]}])
    assert own.costs[0] == pytest.approx(0.01)


@pytest.mark.parametrize(("level", "first"), [(2.0, 1), (0.0, 0)])
def test_made_samples_choose_where_the_first_fold_says_that_they_help(level, first):
    """Those that were made excite channel 0, which the other fold does not; the first fold does, or does not."""
    folds = [fold([[level, 0.1, 3.0], [-level, -0.1, -3.0]]), fold([[0.0, 0.1, 3.0], [0.0, -0.1, -3.0]])]
    made = fold([[5.0, 0.1, 3.0], [-5.0, -0.1, -3.0]])
    (found,) = orders_by_sources([GROUP], [READER], MATTER, folds, made)
    assert found.order[0] == first


def test_samples_are_made_of_those_that_are_asked_for():
    given = sourced(4)
    made = made_of(given, torch.from_numpy(given.groups > 1))
    assert made is not None
    assert made.count == len(given.x)
    assert set(made.groups) == {2, 3}
    first, again = (np.concatenate([next(iter(b.values())) for b in made]) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    joined = with_further(given)
    assert len(joined.groups) == 2 * len(given.x)
    assert made_of(sourced(4, shape=(6,)), torch.ones(16, dtype=torch.bool)) is None  # no images


@pytest.mark.parametrize("shape", [(3, 12, 12)])
def test_a_network_is_pruned_by_its_sources(shape):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip
    given, target = sourced(6), default_registry().get("target", "cpu")
    plan = prune.plan(model, PruneConfig(ratio=0.25, multiple=1), given, target)
    assert plan == prune.plan(model, PruneConfig(ratio=0.25, multiple=1), given, target)
    assert plan.savings["channels"].after == 24
    smaller = prune.apply(model, plan, given)
    with torch.no_grad():
        x = torch.from_numpy(given.x)
        error = (model(x) - smaller(x)).square().sum() / model(x).square().sum()
    assert 0 < float(error) < 0.05


def test_inputs_that_are_not_finite_are_refused():
    given = sourced(3)
    given.x[0, 0, 0, 0] = np.nan
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(256, 2)).eval()
    with pytest.raises(DataError, match="not finite"):
        prune.plan(model, PruneConfig(ratio=0.25), given, default_registry().get("target", "cpu"))
