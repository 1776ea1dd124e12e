"""What learns is taken out and put back whole, also what lies in no layer."""

from __future__ import annotations

import torch
from torch import nn

from pocketzoo.train.snapshot import state_of
from pocketzoo.train.trainable_parameters import Learning
from pocketzoo.zoo.models.backbone_blocks import blocks


class Net(nn.Module):
    """A backbone with a token of its own and batch norms, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(4))
        self.first, self.last = (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x + self.token))


def learning(net: Net, last: int) -> Learning:
    return Learning(net, net.head, blocks(net.backbone.eval(), torch.zeros(1, 4))[-last:])


def spoil(net: Net) -> None:
    with torch.no_grad():
        for value in net.state_dict().values():
            value.add_(1)


def test_all_that_learns_comes_back():
    net = Net()
    found, before = learning(net, 4), state_of(net)
    assert list(before) == found.names
    kept = found.state()
    spoil(net)
    found.load(kept)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_is_frozen_stays():
    net = Net()
    found, before = learning(net, 1), state_of(net)
    assert found.names == [name for name in before if name.startswith(("backbone.last", "head"))]
    kept = found.state()
    spoil(net)
    found.load(kept)
    same = [name for name, value in net.state_dict().items() if torch.equal(value, before[name])]
    assert same == found.names


def test_only_what_learns_has_gradients():
    net = Net()
    found = learning(net, 1)
    found.begin()
    with_gradients = [name for name, p in net.named_parameters() if p.requires_grad]
    assert with_gradients == [name for name in found.names if "running" not in name and "num_batches" not in name]
    assert net.backbone.last[1].training
    assert not net.backbone.first[1].training
