"""Steps on modules that use their weights in unusual ways: the same outputs where nothing is lost, or left by name.

The oracles are true by mathematics. Channels that no layer reads have no effect, so that a model without them gives the
same; a weight of rank 2 is the product of its factors; and what is left alone keeps every number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from pocketzoo.compress.configs import LowRankConfig, PruneConfig
from pocketzoo.compress.low_rank import low_rank
from pocketzoo.compress.pruning import prune
from pocketzoo.compress.statistics.eligible_layers import left_alone, weighted_layers
from pocketzoo.core.errors import PocketzooError
from pocketzoo.zoo.modules.module_macs import module_macs

IMAGES, ROWS, TEXTS, IDS = (4, 3, 8, 8), (8, 16), (4, 6, 16), (4, 6)
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:DeprecationWarning"),
]


class Of(nn.Module):
    """A model of named parts and a function of them and the input."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (std + 1e-5), self.bias, self.stride, self.padding)


class Cosine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / self.weight.norm(dim=1, keepdim=True), self.bias)


class Gated(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


@dataclass
class Features:
    last: Tensor
    all: tuple[Tensor, ...]


class Inner(nn.Module):
    """A module inside another, which returns what is no tensor."""

    def __init__(self, n: int, give: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.give = nn.Linear(n, n), give

    def forward(self, x: Tensor) -> Any:
        return self.give(F.relu(self.layer(x)))


@dataclass(frozen=True)
class Kind:
    make: Callable[[int], nn.Module]  # of a width, a multiple of 4
    shape: tuple[int, ...]
    left: frozenset[str] = field(default_factory=frozenset)  # what every step names


KINDS: dict[str, Kind] = {}


def kind(shape: tuple[int, ...], *left: str) -> Callable[[Callable[[int], nn.Module]], Callable[[int], nn.Module]]:
    def add(make: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
        KINDS[make.__name__] = Kind(make, shape, frozenset(left))
        return make

    return add


def images(n: int, layer: Callable[..., nn.Module], wrapped: Callable[[nn.Module], nn.Module] = lambda m: m) -> Any:
    return nn.Sequential(
        nn.Conv2d(3, n, 3), nn.ReLU(), wrapped(layer(n, n, 3, padding=1)), nn.ReLU(), nn.Conv2d(n, n, 3), nn.ReLU(),
        nn.Conv2d(n, n, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 5),
    )  # fmt: skip


@kind(IMAGES)
def plain(n):
    return images(n, nn.Conv2d)


@kind(IMAGES, "2")
def weight_norm(n):
    return images(n, nn.Conv2d, parametrizations.weight_norm)


@kind(IMAGES, "2")
def weight_norm_by_a_hook(n):
    return images(n, nn.Conv2d, nn.utils.weight_norm)


@kind(IMAGES, "2")
def spectral_norm(n):
    return images(n, nn.Conv2d, parametrizations.spectral_norm)


@kind(IMAGES, "2")
def spectral_norm_by_a_hook(n):
    return images(n, nn.Conv2d, nn.utils.spectral_norm)


@kind(IMAGES, "2")
def standardized(n):
    return images(n, Standardized)


@kind(IMAGES, "2")
def transposed_convolution(n):
    return images(n, nn.ConvTranspose2d)


@kind(IMAGES, "2")
def a_hook_that_doubles(n):
    net = images(n, nn.Conv2d)
    net[2].register_forward_hook(lambda module, inputs, out: 2 * out)
    return net


@kind(IMAGES, "a")
def convolution_by_a_function(n):
    def run(s, x):
        h = F.relu(F.conv2d(x, s.a.weight, s.a.bias, padding=1))
        return s.c(F.relu(s.b(h)).mean((2, 3)))

    return Of(run, a=nn.Conv2d(3, n, 3), b=nn.Conv2d(n, n, 3), c=nn.Linear(n, 5))


def rows(n: int, first: nn.Module, **more: nn.Module) -> dict[str, nn.Module]:
    return {"a": first, "b": nn.Linear(n, n), "c": nn.Linear(n, 5), **more}


def chain(s, x):
    return s.c(F.relu(s.b(F.relu(s.a(x)))))


@kind(ROWS, "a")
def cosine(n):
    return Of(chain, **rows(n, Cosine(16, n)))


@kind(ROWS, "a")
def gated(n):
    return Of(chain, **rows(n, Gated(16, n)))


@kind(ROWS, "a")
def orthogonal(n):
    return Of(chain, **rows(n, parametrizations.orthogonal(nn.Linear(16, n))))


@kind(ROWS, "a")
def tied_and_transposed(n):
    return Of(lambda s, x: s.c(F.linear(F.relu(s.a(x)), s.a.weight.t())), a=nn.Linear(16, n), c=nn.Linear(16, 5))


@kind(ROWS, "a")
def multiplied_by_its_weight(n):
    return Of(lambda s, x: s.c(F.relu(s.a(x)) @ s.a.weight), a=nn.Linear(16, n), c=nn.Linear(16, 5))


@kind(ROWS, "a")
def part_of_a_weight(n):
    half = n // 2
    run = lambda s, x: s.c(F.relu(F.linear(x, s.a.weight[:half], s.a.bias[:half])))  # noqa: E731
    return Of(run, a=nn.Linear(16, n), c=nn.Linear(half, 5))


@kind(ROWS, "a")
def penalized(n):
    return Of(lambda s, x: chain(s, x) + s.a.weight.norm(), **rows(n, nn.Linear(16, n)))


@kind(ROWS, "a", "twin")
def sum_of_two_weights(n):
    run = lambda s, x: s.c(F.relu(s.b(F.linear(x, s.a.weight + s.twin.weight))))  # noqa: E731
    return Of(run, **rows(n, nn.Linear(16, n), twin=nn.Linear(16, n)))


@kind(ROWS, "m")
def bilinear(n):
    run = lambda s, x: s.c(F.relu(s.b(F.relu(s.m(F.relu(s.a(x)), x)))))  # noqa: E731
    return Of(run, **rows(n, nn.Linear(16, n), m=nn.Bilinear(n, 16, n)))


@kind(ROWS)
def called_three_times(n):
    def run(s, x):
        h = F.relu(s.a(x))
        for _ in range(3):
            h = F.relu(s.b(h))
        return s.c(h)

    return Of(run, **rows(n, nn.Linear(16, n)))


@kind(ROWS)
def asked_for_its_size(n):
    return Of(lambda s, x: s.c(F.relu(s.a(x)).reshape(-1, s.a.out_features)), **rows(n, nn.Linear(16, n)))


@kind(ROWS)
def scaled_by_its_size(n):
    return Of(lambda s, x: s.c(F.relu(s.a(x))) * s.c.in_features**-0.5, **rows(n, nn.Linear(16, n)))


@kind(ROWS)
def a_size_that_is_written_down(n):
    return Of(lambda s, x: s.c(F.relu(s.b(F.relu(s.a(x)).reshape(-1, n)))), **rows(n, nn.Linear(16, n)))


@kind(ROWS)
def inner_tuple(n):
    return Of(lambda s, x: s.c(s.i(F.relu(s.a(x)))[1]), **rows(n, nn.Linear(16, n), i=Inner(n, lambda h: (h.sum(), h))))


@kind(ROWS)
def inner_dict(n):
    give = lambda h: {"h": h, "none": None}  # noqa: E731
    return Of(lambda s, x: s.c(s.i(F.relu(s.a(x)))["h"]), **rows(n, nn.Linear(16, n), i=Inner(n, give)))


@kind(ROWS)
def inner_dataclass(n):
    give = lambda h: Features(h, (h, h))  # noqa: E731
    return Of(lambda s, x: s.c(s.i(F.relu(s.a(x))).last), **rows(n, nn.Linear(16, n), i=Inner(n, give)))


@kind(ROWS)
def several_outputs(n):
    def run(s, x):
        h = F.relu(s.b(F.relu(s.a(x))))
        return {"y": s.c(h), "z": s.d(h)}

    return Of(run, **rows(n, nn.Linear(16, n), d=nn.Linear(n, 3)))


@kind(ROWS)
def a_parameter_in_a_list(n):
    lists = nn.ParameterList([nn.Parameter(torch.randn(n, 16) / 4)])
    return Of(lambda s, x: s.c(F.relu(s.b(F.relu(F.linear(x, s.p[0]))))), **rows(n, nn.Linear(16, n), p=lists))


@kind(IDS, "head")
def embedding_tied_to_the_head(n):
    net = Of(
        lambda s, x: s.head(F.relu(s.b(F.relu(s.a(s.table(x)))))),
        table=nn.Embedding(20, n), a=nn.Linear(n, n), b=nn.Linear(n, n), head=nn.Linear(n, 20, bias=False),
    )  # fmt: skip
    net.head.weight = net.table.weight
    return net


def texts(n: int, middle: nn.Module, width: int) -> dict[str, nn.Module]:
    return {"a": nn.Linear(16, n), "m": middle, "b": nn.Linear(width, n), "c": nn.Linear(n, 5)}


def through(s, x):
    return s.c(F.relu(s.b(s.m(F.relu(s.a(x)))[0])))


@kind(TEXTS, "m")
def lstm(n):
    return Of(through, **texts(n, nn.LSTM(n, 6, batch_first=True), 6))


@kind(TEXTS, "m")
def gru(n):
    return Of(through, **texts(n, nn.GRU(n, 6, bidirectional=True, batch_first=True), 12))


@kind(ROWS, "m")
def lstm_cell(n):
    return Of(through, **texts(n, nn.LSTMCell(n, 6), 6))


@kind(TEXTS, "m", "m.out_proj")
def attention(n):
    def run(s, x):
        h = F.relu(s.a(x))
        return s.c(F.relu(s.b(s.m(h, h, h)[0])))

    return Of(run, **texts(n, nn.MultiheadAttention(n, 4, batch_first=True), n))


@kind(TEXTS, "self_attn", "self_attn.out_proj")
def encoder_layer(n):
    return nn.TransformerEncoderLayer(16, 4, n, batch_first=True)


def heads(t: Tensor) -> Tensor:
    return t.unflatten(-1, (4, -1)).transpose(1, 2)


@kind(TEXTS)
def packed_and_chunked(n):
    def run(s, x):
        q, k, v = map(heads, s.m(x).chunk(3, -1))
        return s.c(F.relu(s.b(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))))

    return Of(run, m=nn.Linear(16, 3 * n), b=nn.Linear(n, n), c=nn.Linear(n, 5))


@kind(TEXTS)
def packed_and_reshaped(n):
    def run(s, x):
        batch, count, _ = x.shape
        q, k, v = s.m(x).reshape(batch, count, 3, 4, n // 4).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.mT * (n // 4) ** -0.5).softmax(-1) @ v
        return s.c(F.relu(s.b(mixed.transpose(1, 2).reshape(batch, count, n))))

    return Of(run, m=nn.Linear(16, 3 * n), b=nn.Linear(n, n), c=nn.Linear(n, 5))


@kind(TEXTS, "2")
def convolutions_of_sequences(n):
    return nn.Sequential(
        nn.Conv1d(6, n, 3), nn.ReLU(), nn.ConvTranspose1d(n, n, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 5),
    )  # fmt: skip


@kind((2, 2, 5, 5, 5), "0", "2")
def convolutions_of_volumes(n):
    return nn.Sequential(
        nn.Conv3d(2, n, 3), nn.ReLU(), nn.ConvTranspose3d(n, n, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 5),
    )  # fmt: skip


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@dataclass
class Case:
    kind: Kind
    model: nn.Module
    samples: list[np.ndarray]

    def outputs(self, model: nn.Module) -> Mapping[str, Tensor]:
        with torch.no_grad():
            out = model.eval()(torch.from_numpy(self.samples[0]))
        return out if isinstance(out, Mapping) else {"": out}

    def same(self, model: nn.Module) -> None:
        for name, wanted in self.outputs(self.model).items():
            scale = float(wanted.abs().max())
            torch.testing.assert_close(self.outputs(model)[name], wanted, atol=2e-3 * scale, rtol=0)

    def untouched(self, model: nn.Module, left: Mapping[str, str]) -> None:
        """Every number of what was left alone is what it was."""
        assert set(left) >= self.kind.left
        assert all(left.values())
        for layer in self.kind.left:
            before, after = self.model.get_submodule(layer), model.get_submodule(layer)
            assert before.state_dict().keys() == after.state_dict().keys()
            for name, tensor in before.state_dict().items():
                assert torch.equal(tensor, after.state_dict()[name])


@pytest.fixture(params=SEEDS)
def case(request, name):
    made = KINDS[name]
    torch.manual_seed(request.param)
    generator = np.random.default_rng(request.param)
    width = 4 * int(generator.integers(3, 7))
    model = made.make(width).eval()
    shape = made.shape
    samples = [
        generator.integers(0, 20, shape) if shape == IDS else generator.normal(size=shape).astype(np.float32)
        for _ in range(2)
    ]
    case = Case(made, model, samples)
    case.outputs(model)  # old norms compute their weight when they run
    return case


def plain_weights(case: Case) -> dict[str, Tensor]:
    """Those of layers that steps may change."""
    left = left_alone(case.model, (torch.from_numpy(case.samples[0]),))
    return {name: layer.weight.data for name, layer in weighted_layers(case.model).items() if name not in left}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_channels_that_nobody_reads_are_pruned_without_a_change(case, scope, cpu):
    for weight in plain_weights(case).values():
        weight[:, 1::2] = 0.0
    config = PruneConfig(ratio=0.25, scope=scope, multiple=1)
    plan = prune.plan(case.model, config, case.samples, cpu)
    for samples in (None, case.samples):
        pruned = prune.apply(case.model, plan, samples)
        case.same(pruned)
        case.untouched(pruned, plan.left)
    if "macs" in plan.savings:
        x = torch.from_numpy(case.samples[0])
        saving = plan.savings["macs"]
        counted = [module_macs(each, [x]).total // len(x) for each in (case.model, pruned)]
        assert [saving.before, saving.after] == counted


@pytest.mark.parametrize("name", KINDS)
def test_weights_of_low_rank_are_factorized_without_a_change(case, cpu):
    for weight in plain_weights(case).values():
        flat = weight.flatten(1)
        factors = torch.randn(len(flat), 2), torch.randn(2, flat.shape[1])
        weight.copy_((factors[0] @ factors[1] / flat.shape[1] ** 0.5).view_as(weight))
    config = LowRankConfig(energy=1 - 1e-6, only_faster=False, multiple=1)
    plan = low_rank.plan(case.model, config, case.samples, cpu)
    for samples in (None, case.samples):
        factored = low_rank.apply(case.model, plan, samples)
        case.same(factored)
        case.untouched(factored, plan.left)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("pattern", ["", "2:4"])
def test_single_weights_that_are_nothing_are_set_to_nothing(case, pattern, cpu):
    """A quarter of what may be pruned is nearly zero already, of every four neighbors two."""
    for weight in plain_weights(case).values():
        weight[:, ::4] *= 1e-7
        weight[:, 1::4] *= 1e-7
    config = PruneConfig(ratio=0.2, granularity="weight", pattern=pattern)
    plan = prune.plan(case.model, config, case.samples, cpu)
    pruned = prune.apply(case.model, plan, case.samples)
    case.same(pruned)
    case.untouched(pruned, plan.left)


@pytest.mark.parametrize(
    "give", [lambda h: (h, h), lambda h: Features(h, ()), lambda h: {"h": h, "none": None}, lambda h: [h]]
)
@pytest.mark.parametrize("step", ["prune", "low-rank"])
def test_a_model_whose_outputs_have_no_names_is_refused(give, step, cpu):
    model = nn.Sequential(nn.Linear(16, 8), Inner(8, give))
    samples = [np.ones(ROWS, np.float32)]
    module, config = (prune, PruneConfig(ratio=0.5)) if step == "prune" else (low_rank, LowRankConfig(parameters=0.5))
    with pytest.raises(PocketzooError):
        module.plan(model, config, samples, cpu)


@pytest.mark.parametrize("name", ["scaled_by_its_size", "a_size_that_is_written_down"])
def test_what_the_code_asks_the_size_of_keeps_it_and_is_named(name, cpu):
    made = KINDS[name]
    samples = [np.random.default_rng(0).normal(size=made.shape).astype(np.float32)]
    plan = prune.plan(made.make(16).eval(), PruneConfig(ratio=0.5), samples, cpu)
    assert plan.left["a"] == "the code around it relies on how many channels it has"
    assert "a.weight" not in plan.axes
