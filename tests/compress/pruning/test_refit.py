"""Refitted layers against least squares in closed form, in double precision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.compress.plans import Shortcut
from pocketzoo.compress.pruning.refit import refit, shift_output
from pocketzoo.compress.statistics.layerwise import walk


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
