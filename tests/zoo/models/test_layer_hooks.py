"""Watching layers: each call is seen under the layer's name, and afterwards nothing is left in the module."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pocketzoo.zoo.models.layer_hooks import after, before


class Twice(nn.Module):
    """Runs one layer two times."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Identity(), nn.Identity())
        self.unused = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x) + 1)


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_each_call_is_seen_in_order_with_what_the_layer_reads() -> None:
    model, seen = Twice(), []
    with before(model, ["inner.1", "inner", "unused"], lambda name, layer, x: seen.append((name, x[0].item()))):
        model(torch.tensor(5.0))
    assert seen == [("inner", 5.0), ("inner.1", 5.0), ("inner", 6.0), ("inner.1", 6.0)]
    assert hooks_of(model) == 0


def test_what_a_hook_returns_takes_the_place_of_the_output() -> None:
    model = Twice()
    with after(model, ["inner.0"], lambda name, layer, x, out: out * 10):
        assert model(torch.tensor(1.0)).item() == 110
    with after(model, ["inner.0"], lambda name, layer, x, out: None):
        assert model(torch.tensor(1.0)).item() == 2


def test_a_layer_reads_what_stands_in_for_its_input() -> None:
    model = Twice()
    with before(model, ["inner.1"], lambda name, layer, x: x[0] * 2):
        assert model(torch.tensor(1.0)).item() == 6
    assert hooks_of(model) == 0


def test_nothing_is_left_after_an_error() -> None:
    model = Twice()
    with pytest.raises(ZeroDivisionError), before(model, ["inner"], lambda name, layer, x: 1 / 0):
        model(torch.tensor(1.0))
    with pytest.raises(AttributeError), after(model, ["inner", "nowhere"], lambda *_: None):
        pass
    assert hooks_of(model) == 0
