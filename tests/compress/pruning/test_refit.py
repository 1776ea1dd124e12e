"""Refitted layers against least squares in closed form, in double precision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.compress.plans import Shortcut
from pocketzoo.compress.pruning.refit import _phases, _refit_layer, _runs, refit, shift_output, shortcut_error
from pocketzoo.compress.statistics.layerwise import walk
from pocketzoo.zoo.data.grouping.left_out import held_out


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    for i, p in enumerate(module.parameters()):
        p.data = drawn(*p.shape, seed=100 * seed + i) / max(1.0, p[0].numel() ** 0.5 if p.ndim > 1 else 1.0)
    return module.eval()


def without_inputs(layer: nn.Module, kept: list[int]) -> nn.Module:
    """The layer with some of its inputs gone."""
    made = copy.deepcopy(layer)
    made.weight = nn.Parameter(layer.weight[:, kept].detach().clone())
    return made


def least_squares(x: Tensor, y: Tensor, *, shift: bool) -> tuple[np.ndarray, np.ndarray]:
    """(O, I) and (O,) with the least |y - x W - b|^2."""
    ones = torch.ones(len(x), 1) if shift else torch.zeros(len(x), 0)
    found = np.linalg.lstsq(torch.cat([x, ones], 1).double().numpy(), y.double().numpy(), rcond=None)[0]
    return (found[:-1].T, found[-1]) if shift else (found.T, np.zeros(y.shape[1]))


def missed(x: Tensor, y: Tensor, weight: np.ndarray, bias: np.ndarray) -> float:
    return float(np.square(y.double().numpy() - x.double().numpy() @ weight.T - bias).mean())


KEPT = [0, 2, 3, 6, 7]


def correlated(count: int, seed: int = 0) -> Tensor:
    """(count, 8) with much in common and means that are not zero: what goes can be made up for, not wholly."""
    mixed = drawn(count, 4, seed=seed) @ drawn(4, 8, seed=seed + 1) + 0.3 * drawn(count, 8, seed=seed + 2)
    return mixed + drawn(8, seed=seed + 3)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("rows", [None, (1, 2, 4)], ids=["all outputs", "three outputs"])
def test_a_linear_layer_gets_the_weights_of_least_squares(shift, rows):
    layer = filled(nn.Linear(8, 5))
    model, smaller = nn.Sequential(layer), without_inputs(layer, KEPT)
    if rows is not None:
        smaller.weight.data, smaller.bias.data = smaller.weight.data[list(rows)], smaller.bias.data[list(rows)]
    before = smaller.weight.detach().clone(), smaller.bias.detach().clone()

    class Picks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("0", smaller)

        def forward(self, x: Tensor) -> Tensor:
            return smaller(x[:, KEPT])

    x = correlated(512)
    refit(
        model,
        Picks(),
        ["0"],
        [x.numpy()],
        channels_left={} if rows is None else {"0.weight": rows},
        shifts={"0.weight": "0.bias"} if shift else {},
        shortcuts={},
    )
    y = (layer(x) - layer.bias).detach()
    y = y if rows is None else y[:, list(rows)]
    found = smaller.weight.detach().double().numpy(), (smaller.bias - before[1]).detach().double().numpy()
    limit = missed(x[:, KEPT], y, *least_squares(x[:, KEPT], y, shift=shift))
    assert missed(x[:, KEPT], y, *found) <= limit * 1.01
    assert missed(x[:, KEPT], y, before[0].double().numpy(), np.zeros(len(before[1]))) > 2 * limit
    if not shift:
        assert torch.equal(smaller.bias, before[1])


def test_a_convolution_gets_the_weights_of_least_squares():
    """Over the windows it reads, padding included; a mean that was lost goes to the norm behind it."""
    layer, norm = filled(nn.Conv2d(8, 5, 3, padding=1, bias=False)), filled(nn.BatchNorm2d(5), 1)
    smaller, less = without_inputs(layer, KEPT), copy.deepcopy(norm)
    before = smaller.weight.detach().clone()

    class Picks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = smaller, less

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x[:, KEPT]))

    whole = nn.Sequential()
    whole.add_module("conv", layer)
    whole.add_module("norm", norm)
    x = correlated(128 * 16).view(128, 16, 8).transpose(1, 2).reshape(128, 8, 4, 4).contiguous()
    refit(
        whole,
        Picks(),
        ["conv"],
        [x.numpy()],
        channels_left={},
        shifts={"conv.weight": "norm.running_mean"},
        shortcuts={},
    )
    windows = F.unfold(x[:, KEPT], 3, padding=1).transpose(1, 2).reshape(128 * 16, -1)
    y = layer(x).detach().movedim(1, -1).reshape(-1, 5)
    limit = missed(windows, y, *least_squares(windows, y, shift=True))
    shift = (norm.running_mean - less.running_mean).double().numpy()
    assert missed(windows, y, smaller.weight.detach().flatten(1).double().numpy(), shift) <= limit * 1.02
    assert missed(windows, y, before.flatten(1).double().numpy(), np.zeros(5)) > 2 * limit
    assert np.abs(shift).max() > 1e-2
    assert torch.equal(less.weight, norm.weight)


@pytest.mark.parametrize("normed", [False, True])
def test_the_error_of_a_shortcut_is_made_up_for_where_it_joins(normed, monkeypatch):
    """y + W x is what counts: what y lacks is part of what W' is fitted to, in the units before the norm."""

    class Joined(nn.Module):
        def __init__(self, kept: list[int]) -> None:
            super().__init__()
            self.kept, self.stem, self.reader = kept, nn.Identity(), nn.Identity()
            self.main = nn.Linear(8, 8, bias=False)
            self.norm = nn.BatchNorm1d(8) if normed else nn.Identity()
            self.last = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            beside = self.reader(x * self.mask())
            return self.last(beside + self.norm(self.main(x[:, self.kept])))

        def mask(self) -> Tensor:
            return torch.ones(8) if len(self.kept) == 8 else torch.tensor([1.0, 0, 1, 1, 0, 0, 1, 1])

    whole = filled(Joined(list(range(8))))
    if normed:
        whole.norm.running_var = torch.rand(8, generator=torch.Generator().manual_seed(3)) + 0.5
    less = Joined(KEPT)
    less.load_state_dict({**whole.state_dict(), "main.weight": whole.main.weight[:, :8]})
    less.main = without_inputs(whole.main, KEPT)
    less.eval()
    x = correlated(512)

    def error() -> float:
        with torch.no_grad():
            return float((whole(x) - less(x)).square().mean())

    alone = copy.deepcopy(less)
    given = {"channels_left": {}, "shifts": {}}
    refit(whole, alone, ["main"], [x.numpy()], **given, shortcuts={})
    with torch.no_grad():
        without = float((whole(x) - alone(x)).square().mean())
    shortcut = Shortcut(reader="reader", norm="norm" if normed else "")
    held = []

    def walking(runs, names, visit, **more) -> None:
        walk(runs, names, visit, **more)
        held.extend(more["held"])

    monkeypatch.setattr("pocketzoo.compress.pruning.refit.walk", walking)
    refit(whole, less, ["main"], [x.numpy()], **given, shortcuts={"main.weight": shortcut})
    assert held
    assert not any(held), "what was read alongside is let go of: it is large"
    scale = whole.norm.weight * (whole.norm.running_var + whole.norm.eps).rsqrt() if normed else torch.ones(8)
    with torch.no_grad():
        lacking = (x - x * less.mask()) / scale + x @ whole.main.weight.T
    best = least_squares(x[:, KEPT], lacking.detach(), shift=False)[0]
    limit = float(np.square((lacking.detach().double().numpy() - x[:, KEPT].double().numpy() @ best.T)
                            * scale.detach().double().numpy()).mean())  # fmt: skip
    assert error() <= limit * 1.02
    assert without > 1.2 * limit


def test_weights_that_are_zero_stay_so_and_the_others_make_up_for_them():
    """Each row for itself, over its own inputs."""
    layer = filled(nn.Linear(8, 5, bias=False))
    sparse = copy.deepcopy(layer)
    mask = drawn(5, 8, seed=9) > -0.3
    sparse.weight.data *= mask
    before = sparse.weight.detach().clone()
    x = correlated(512)
    refit(
        nn.Sequential(layer),
        nn.Sequential(sparse),
        ["0"],
        [x.numpy()],
        channels_left={},
        shifts={},
        shortcuts={},
        masked=True,
    )
    assert torch.equal(sparse.weight != 0, mask)
    y = layer(x).detach()
    for i, free in enumerate(mask):
        best, nothing = least_squares(x[:, free], y[:, i : i + 1], shift=False)
        limit = missed(x[:, free], y[:, i : i + 1], best, nothing)
        found = sparse.weight.detach()[i : i + 1, free].double().numpy()
        assert missed(x[:, free], y[:, i : i + 1], found, nothing) <= limit * 1.02 + 1e-9
        assert missed(x[:, free], y[:, i : i + 1], before[i : i + 1, free].double().numpy(), nothing) > limit


def test_layers_that_are_not_named_stay_as_they_are():
    model = filled(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)))
    other = copy.deepcopy(model)
    other[0].weight.data *= 0.5
    wanted = other[0].weight.detach().clone()
    refit(model, other, ["2"], [correlated(64).numpy()], channels_left={}, shifts={}, shortcuts={})
    assert torch.equal(other[0].weight, wanted)
    assert not torch.equal(other[2].weight, model[2].weight)


def test_what_is_not_finite_is_left_as_it_was():
    model = filled(nn.Sequential(nn.Linear(8, 5)))
    other = copy.deepcopy(model)
    other[0].weight.data[:, 0] = 0.0
    wanted = other[0].weight.detach().clone()
    x = correlated(64)
    x[3] = float("nan")
    refit(model, other, ["0"], [x.numpy()], channels_left={}, shifts={"0.weight": "0.bias"}, shortcuts={})
    assert torch.equal(other[0].weight, wanted)


@pytest.mark.parametrize(("name", "sign"), [("0.bias", 1), ("1.running_mean", -1)])
def test_a_shift_raises_what_comes_out(name, sign):
    """On a bias it is added; a mean is subtracted, so there it is taken away."""
    model = filled(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    model[1].running_var = torch.ones(2) - model[1].eps
    model[1].weight.data = torch.ones(2)
    x = drawn(5, 3)
    before = model(x)
    shift_output(model, name, torch.tensor([0.5, -2.0], dtype=torch.float64))
    torch.testing.assert_close(model(x), before + torch.tensor([0.5, -2.0]))


# -- samples and rows, counted


@pytest.mark.parametrize(
    ("batches", "count", "sizes"),
    [
        ([64], 64, [8] * 8),
        ([64, 64], 128, [16] * 8),
        ([512], 512, [16] * 32),
        ([10], 10, [1] * 10),
        ([16], 16, [2] * 8),
        ([23], 23, [2] * 11 + [1]),
        ([24], 24, [3, 3, 3, 3, 3, 1, 3, 3, 2]),
        ([1], 16, [1]),
        ([64], 16, [2] * 8),
        ([5, 5, 5], 12, [1] * 12),
    ],
)
def test_samples_come_in_eight_batches_at_the_least(batches, count, sizes):
    """Of sixteen samples at most; a forward pass of few samples is a judge of its own."""
    numbered = np.arange(sum(batches), dtype=np.float32)[:, None]
    found, sides = _runs(np.split(numbered, np.cumsum(batches)[:-1]), count)
    assert sides == [i % 2 for i in range(len(sizes))]
    assert [len(x) for (x,) in found] == sizes
    assert torch.cat([x for (x,) in found]).ravel().tolist() == list(range(sum(sizes)))


class Sourced(list):
    """Batches, and the source of each of their samples."""

    groups = None


@given(st.lists(st.integers(2, 9), min_size=2, max_size=9), st.integers(1, 50), st.integers(0, 99))
def test_samples_of_one_source_judge_or_fit_and_not_both(sizes, batch, seed):
    ids = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    numbered = np.arange(len(ids), dtype=np.float32)[:, None]
    samples = Sourced(np.split(numbered, range(batch, len(ids), batch)))
    samples.groups = ids
    found, sides = _runs(samples, 512)
    rows = [x.ravel().long().tolist() for (x,) in found]
    assert sorted(row for run in rows for row in run) == list(range(len(ids)))
    halves = [{int(ids[row]) for run, side in zip(rows, sides, strict=True) if side == half for row in run}
              for half in (0, 1)]  # fmt: skip
    if held_out(ids, len(ids), 2) is None:  # sources that differ too much in size
        assert sides == [i % 2 for i in range(len(sides))]
    else:
        assert halves[0]
        assert halves[1]
        assert not halves[0] & halves[1]


@pytest.mark.parametrize(
    ("sizes", "beside", "phases"),
    [
        # Numbers that wait at each layer for a sample: what 250 MB hold of twice as many floats, as a power of two.
        ([10], None, [(512, ["0"])]),
        ([61_035], None, [(512, ["0"])]),
        ([61_036], None, [(256, ["0"])]),
        ([200_000], None, [(128, ["0"])]),
        ([2_000_000], None, [(16, ["0"])]),
        ([200_000, 10], None, [(128, ["0"]), (512, ["1"])]),
        ([10, 200_000], None, [(128, ["0", "1"])]),
        ([100_000, 200_000, 10, 20], None, [(128, ["0", "1"]), (512, ["2", "3"])]),
        ([2_000_000, 100_000, 10], None, [(16, ["0"]), (256, ["1"]), (512, ["2"])]),
        ([200_000, 10], "1", [(128, ["0", "1"])]),
    ],
)
def test_layers_are_refitted_in_phases_of_as_many_samples_as_memory_holds(sizes, beside, phases):
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i in range(len(sizes)):
                self.add_module(str(i), nn.Identity())

        def forward(self, x: Tensor) -> Tensor:
            for i, size in enumerate(sizes):
                self.get_submodule(str(i))(torch.empty(1, size))
            return x

    shortcuts = {} if beside is None else {beside: Shortcut(reader="0")}
    names = [str(i) for i in range(len(sizes))]
    assert _phases(Chain(), names, [np.zeros((3, 2), np.float32)], shortcuts) == phases
    if beside is not None:  # the one beside need not be refitted itself
        assert _phases(Chain(), ["1"], [np.zeros((3, 2), np.float32)], shortcuts) == [(128, ["1"])]


@pytest.mark.parametrize(
    ("inputs", "count", "limit"),
    [(8, 512, 64), (100, 512, 150), (2000, 16, 1171), (2000, 512, 292), (4, 16, 64), (1000, 16, 2343), (100, 16, 600)],
)
def test_rows_are_taken_for_each_input_as_far_as_memory_allows(inputs, count, limit, monkeypatch):
    """Forty-eight for each input over all forward passes, sixty-four of each at the least, 150 MB of a layer."""
    asked = {}

    def walking(runs, names, visit, **more) -> None:
        asked.update(more["limits"])
        assert (more["until"], len(runs)) == ("0", 2 * len(more["held"]) // 2)

    monkeypatch.setattr("pocketzoo.compress.pruning.refit.walk", walking)
    model = nn.Sequential(nn.Linear(inputs, 1))
    x = np.zeros((count, inputs), np.float32)
    refit(model, copy.deepcopy(model), ["0"], [x], channels_left={}, shifts={}, shortcuts={})
    runs = max(8, count // 16)
    assert limit == max(min(48 * inputs, 150_000_000 // (8 * inputs)) // runs, 64)
    assert asked == {"0": limit}


@pytest.mark.parametrize("convolution", [True, False])
@pytest.mark.parametrize("rows", [None, (2, 0)])
@pytest.mark.parametrize("norm", ["", "norm"])
def test_what_a_shortcut_lacks_is_row_by_row_what_the_layer_would_have_to_give(convolution, rows, norm):
    kept = 4 if rows is None else len(rows)
    pruned = nn.Module()
    pruned.layer = nn.Conv2d(3, 4, 1) if convolution else nn.Linear(3, 4)
    pruned.norm = nn.BatchNorm2d(kept)
    pruned.norm.running_var = torch.tensor([4.0, 0.25, 1.0, 100.0])[:kept] - pruned.norm.eps
    pruned.norm.weight.data = torch.tensor([3.0, 1e-4, 1.0, 5.0])[:kept]
    full, less = drawn(2, 4, 5, 3), drawn(2, 4, 5, 3, seed=1)[:, :kept]
    wanted = (full if rows is None else full[:, list(rows)]) - less
    wanted = wanted.movedim(1, -1).reshape(-1, kept)
    if not convolution:
        full, less = full.movedim(1, -1), less.movedim(1, -1)
    if norm:  # what the second channel's norm makes of it is nothing
        wanted = wanted / torch.tensor([1.5, 1.0, 1.0, 0.5])[:kept]
        wanted[:, 1] = 0.0
    shortcut = Shortcut(reader="reader", norm=norm)
    given = ({"reader": full}, {"reader": less}, rows)
    found = shortcut_error(pruned, "layer", shortcut, *given, 30, 1000)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert not found.requires_grad
    thinned = shortcut_error(pruned, "layer", shortcut, *given, 10, 10)
    torch.testing.assert_close(thinned, wanted[::3], rtol=1e-5, atol=1e-5)
    assert shortcut_error(pruned, "layer", shortcut, *given, 29, 1000) is None
    assert shortcut_error(pruned, "layer", shortcut, {}, {"reader": less}, rows, 30, 1000) is None
    assert shortcut_error(pruned, "layer", shortcut, {"reader": full}, {}, rows, 30, 1000) is None
    assert shortcut_error(pruned, "layer", shortcut, {"reader": full}, {"reader": less[:1]}, rows, 15, 1000) is None


def test_a_norm_without_a_scale_divides_by_its_deviation_alone():
    pruned = nn.Module()
    pruned.layer, pruned.norm = nn.Linear(3, 2), nn.BatchNorm1d(2, affine=False)
    pruned.norm.running_var = torch.tensor([4.0, 0.25]) - pruned.norm.eps
    full, less = drawn(5, 2), drawn(5, 2, seed=1)
    found = shortcut_error(
        pruned, "layer", Shortcut(reader="r", norm="norm"), {"r": full}, {"r": less}, None, 5, 1000
    )  # fmt: skip
    torch.testing.assert_close(found, (full - less) * torch.tensor([2.0, 0.5]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_every_other_run_is_fitted_and_judges_the_others(runs, monkeypatch):
    """Of the runs the first half is the original's, the second the smaller model's; sums are by turns."""
    model, smaller = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(2, 2))
    taken = []
    monkeypatch.setattr(
        "pocketzoo.compress.pruning.refit.regress",
        lambda now, halves, **more: taken.append((now, halves, more)),
    )
    full, less = [drawn(6, 4, seed=i) for i in range(runs)], [drawn(6, 2, seed=9 + i) for i in range(runs)]
    held = [{} for _ in range(2 * runs)]
    before = smaller[0].weight.detach().clone()
    _refit_layer(
        "0",
        [*full, *less],
        [i % 2 for i in range(len(full))],
        held,
        model,
        smaller,
        {"0.weight": (0, 2)},
        {"0.weight": "0.bias"},
        None,
        False,
        99,
    )
    (now, halves, more), weight = taken[0], model[0].weight.detach()[[0, 2]]
    torch.testing.assert_close(now, before.double())
    assert more == {"shifts": True, "mask": None}
    for i, sums in enumerate(halves):
        x, y = (torch.cat([torch.empty(0, n), *part[i::2]]) for n, part in ((2, less), (4, full)))
        assert sums.count == len(x)
        torch.testing.assert_close(sums.gram, (x.T @ x).double(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sums.cross, (weight @ y.T @ x).double(), rtol=1e-5, atol=1e-5)
    assert torch.equal(smaller[0].weight, before), "nothing was found that is better"
    sides = [i % 2 for i in range(len(full))]
    _refit_layer("0", [*full, *less], sides, held, model, smaller, {"0.weight": (0, 2)}, {}, None, True, 99)
    assert not taken[1][2]["shifts"]
    assert torch.equal(taken[1][2]["mask"], before != 0)


def test_a_bias_that_is_not_named_keeps_its_values():
    model, smaller = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(2, 3))
    bias = smaller[0].bias.detach().clone()
    full = [drawn(60, 4, seed=i) for i in range(2)]
    less = [x[:, :2].contiguous() for x in full]
    _refit_layer("0", [*full, *less], [0, 1], [{}] * 4, model, smaller, {}, {}, None, False, 99)
    assert torch.equal(smaller[0].bias, bias)
    torch.testing.assert_close(smaller[0].weight, model[0].weight[:, :2], rtol=0, atol=0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_shift_is_of_the_type_that_it_is_added_to(dtype):
    model = nn.Sequential(nn.Linear(3, 2).to(dtype))
    model[0].bias.data.zero_()
    shift_output(model, "0.bias", torch.tensor([0.5, -2.0], dtype=torch.float64))
    assert model[0].bias.dtype == dtype
    assert model[0].bias.tolist() == [0.5, -2.0]
    own = nn.BatchNorm1d(2)
    shift_output(own, "running_mean", torch.tensor([1.0, 2.0]))
    assert own.running_mean.tolist() == [-1.0, -2.0]


def test_the_error_of_a_shortcut_beside_a_convolution_is_made_up_for():
    """At each place for itself, channel by channel."""

    class Joined(nn.Module):
        def __init__(self, kept: list[int]) -> None:
            super().__init__()
            self.kept, self.reader, self.main = kept, nn.Identity(), nn.Conv2d(8, 8, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            mask = torch.tensor([float(i in self.kept) for i in range(8)]).view(8, 1, 1)
            return self.reader(x * mask) + self.main(x[:, self.kept])

    whole, less = filled(Joined(list(range(8)))), Joined(KEPT).eval()
    less.main = without_inputs(whole.main, KEPT)
    x = correlated(128 * 6).view(128, 2, 3, 8).permute(0, 3, 1, 2).contiguous()
    shortcuts = {"main.weight": Shortcut(reader="reader")}
    refit(whole, less, ["main"], [x.numpy()], channels_left={}, shifts={}, shortcuts=shortcuts)
    rows = x.movedim(1, -1).reshape(-1, 8)
    mask = torch.tensor([float(i in KEPT) for i in range(8)])
    lacking = rows - rows * mask + (rows @ whole.main.weight.detach().flatten(1).T)
    best = least_squares(rows[:, KEPT], lacking, shift=False)
    found = less.main.weight.detach().flatten(1).double().numpy()
    assert missed(rows[:, KEPT], lacking, found, np.zeros(8)) <= 1.02 * missed(rows[:, KEPT], lacking, *best)
