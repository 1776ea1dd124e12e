"""Each layer with weights is changed, or its plan names it with the reason: nothing stays as it is without a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from pocketzoo.compress.configs import LowRankConfig, PruneConfig
from pocketzoo.compress.low_rank import low_rank as lowrank
from pocketzoo.compress.pruning import prune
from pocketzoo.compress.statistics.eligible_layers import layers_of

WIDTH, LENGTH = 8, 6
Wiring = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """``a`` to WIDTH channels, what the wiring makes of them, then two layers that can always lose channels."""

    def __init__(self, wiring: Wiring, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.wiring = wiring
        self.a = nn.Linear(5, WIDTH)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.free, self.out = nn.Linear(WIDTH, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.free(self.wiring(self, self.a(x).relu())).relu())


class Matrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(WIDTH, WIDTH) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


def attention(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.qkv(x).chunk(3, -1)
    return net.proj((q @ k.transpose(1, 2) / 3).softmax(-1) @ v)


def line(make: Callable[[], nn.Module] | None = None, **settings: Any) -> tuple[Wiring, dict[str, Any]]:
    made = make or (lambda: nn.Conv1d(WIDTH, WIDTH, 3, padding=1, **settings))
    return lambda net, x: net.c(x.transpose(1, 2)).transpose(1, 2), {"c": made}


def linear(inputs: int = WIDTH, out: int = WIDTH) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(inputs, out)


TABLE: dict[str, tuple[Wiring, dict[str, Callable[[], nn.Module]], dict[str, str]]] = {
    # name: what is wired, of which layers, and whom pruning leaves with which word in the reason
    "nothing": (lambda net, x: x, {}, {}),
    "bilinear": (lambda net, x: net.b(x, x), {"b": lambda: nn.Bilinear(WIDTH, WIDTH, WIDTH)},
                 {"a": "'bilinear'", "b": "a Bilinear"}),
    "flip": (lambda net, x: x.flip(-1), {}, {"a": "'flip'"}),
    "roll": (lambda net, x: x.roll(1, -1), {}, {"a": "'roll'"}),
    "chunk": (lambda net, x: torch.cat(x.chunk(2, -1)[::-1], -1), {}, {"a": "'chunk'"}),
    "running sum": (lambda net, x: x.cumsum(-1), {}, {"a": "'cumsum'"}),
    "layer norm": (lambda net, x: net.n(x), {"n": lambda: nn.LayerNorm(WIDTH)}, {"a": "'layer_norm'"}),
    "einsum": (lambda net, x: torch.einsum("btc,bsc->bts", x, x) @ x, {}, {"a": ""}),
    "sorted": (lambda net, x: x.sort(-1).values, {}, {"a": "'sort'"}),
    "one module twice": (lambda net, x: net.b(net.b(x).relu()), {"b": linear()}, {}),
    "one module twice, reading what is not followed": (
        lambda net, x: net.b(net.b(x.flip(-1)).relu()), {"b": linear()}, {"a": "'flip'", "b": ""}),
    "attention by hand": (attention, {"qkv": linear(WIDTH, 3 * WIDTH), "proj": linear()}, {}),
    "lstm": (lambda net, x: net.r(x)[0], {"r": lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True)},
             {"a": "'lstm'", "r": "an LSTM"}),
    "table": (lambda net, x: x + net.e(x.argmax(-1)), {"e": lambda: nn.Embedding(WIDTH, WIDTH)},
              {"a": "", "e": "an Embedding"}),
    "a matrix of a module": (lambda net, x: net.m(x), {"m": Matrix}, {"a": "", "m": "a Matrix"}),
    "never run": (lambda net, x: x, {"b": linear()}, {"b": "nothing that it computes"}),
    "a single channel": (lambda net, x: x * net.b(x.flip(-1)), {"b": linear(WIDTH, 1)}, {"a": "'flip'", "b": ""}),
    "weight read": (lambda net, x: F.linear(net.b(x).relu(), net.b.weight), {"b": linear()}, {"b": "reads its weight"}),
    "line": (*line(), {}),
    "line of normed weights": (
        *line(lambda: parametrizations.weight_norm(nn.Conv1d(WIDTH, WIDTH, 3, padding=1))),
        {"a": "", "c": "its weight is computed"}),
    "line around": (*line(padding_mode="circular"), {"a": "", "c": "'circular'"}),
    "line twice": (lambda net, x: net.d(net.c(x.transpose(1, 2))).transpose(1, 2), {}, {"a": "", "c": "same module"}),
    "transposed": (*line(lambda: nn.ConvTranspose1d(WIDTH, WIDTH, 3, padding=1)),
                   {"a": "", "c": "a ConvTranspose1d: only Conv1d, Conv2d and Linear"}),
}  # fmt: skip


def _net(name: str) -> Net:
    wiring, layers, _ = TABLE[name]
    torch.manual_seed(0)
    made = {layer: make() for layer, make in layers.items()}
    if name == "line twice":
        made["c"] = made["d"] = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
    return Net(wiring, made).eval()


@pytest.mark.parametrize("name", TABLE)
def test_pruning_changes_a_layer_or_names_it(name, batches, free):
    net, samples = _net(name), batches((LENGTH, 5), 16)
    plan = prune.plan(net, PruneConfig(ratio=0.5, multiple=1, scope="uniform"), samples, free)
    changed = {parameter.rpartition(".")[0] for parameter in plan.axes}
    assert {layer for layer in layers_of(net) if layer not in changed} <= set(plan.left)
    assert {"free", "out"} <= changed
    assert not any(reason == "" or reason.endswith(" ") for reason in plan.left.values())
    for layer, word in TABLE[name][2].items():
        assert word in plan.left[layer], layer
    made = prune.apply(net, plan, samples)
    before, after = net.state_dict(), made.state_dict()
    for layer in set(plan.left) - changed:
        assert all(after[key].shape == value.shape for key, value in before.items() if key.startswith(f"{layer}."))


@pytest.mark.parametrize("name", TABLE)
def test_low_rank_changes_a_layer_or_names_it(name, batches, free):
    net, samples = _net(name), batches((LENGTH, 5), 16)
    plan = lowrank.plan(net, LowRankConfig(parameters=0.6, only_faster=False, multiple=1), samples, free)
    assert set(layers_of(net)) == {*plan.factors, *plan.dense, *plan.left}
    assert all("Conv1d, Conv2d" not in reason for reason in plan.left.values())
    assert all(plan.dense.values())
    assert all(plan.left.values())


def test_the_sentence_of_what_is_supported_is_of_the_step(batches, free):
    net, samples = _net("transposed"), batches((LENGTH, 5), 16)
    channels = prune.plan(net, PruneConfig(ratio=0.5, multiple=1), samples, free)
    weights = prune.plan(net, PruneConfig(ratio=0.5, granularity="weight"), samples, free)
    ranks = lowrank.plan(net, LowRankConfig(parameters=0.6, only_faster=False, multiple=1), samples, free)
    said = [plan.left["c"] for plan in (channels, weights, ranks)]
    assert said == [
        "a ConvTranspose1d: only Conv1d, Conv2d and Linear are supported",
        *["a ConvTranspose1d: only Conv2d and Linear are supported"] * 2,
    ]


def test_what_a_cast_was_traced_with_holds_no_channels(batches, free):
    class Casts(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x.to(self.weight.dtype), self.weight, self.bias)

    torch.manual_seed(0)
    net = Net(lambda net, x: net.b(x), {"b": Casts(WIDTH, WIDTH)}).eval()
    plan = prune.plan(net, PruneConfig(ratio=0.5, multiple=1, scope="uniform"), batches((LENGTH, 5), 16), free)
    assert not plan.left
    assert {"a.weight", "b.weight", "free.weight", "out.weight"} <= set(plan.axes)
