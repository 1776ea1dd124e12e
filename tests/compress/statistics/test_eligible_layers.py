"""Layers are told apart by what they do with their weight, and by who else does something with it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as masks

from pocketzoo.compress.configs import DistillConfig, LowRankConfig, PruneConfig
from pocketzoo.compress.distillation import distill
from pocketzoo.compress.low_rank import low_rank as lowrank
from pocketzoo.compress.pruning import prune
from pocketzoo.compress.statistics import eligible_layers
from pocketzoo.compress.statistics.eligible_layers import copied, left_alone, shared_parameters, weighted_layers
from pocketzoo.core.progress import SILENT
from pocketzoo.zoo.catalog.compressor import Distillation

SHAPE = (8, 12, 12)


def standardized(w: Tensor) -> Tensor:
    return (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, standardized(self.weight), self.bias, self.stride, self.padding)


class StandardisedInside(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, standardized(weight), bias)


class Scaled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0.5


class ReadsScaled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2)


class TwoProducts(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.conv2d(x, self.weight, None, self.stride, self.padding)


class OtherStride(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, 2, self.padding)


class Mirrors(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.weight, self.bias)


class PadsItself(nn.Conv2d):
    """As TensorFlow pads: what the layer states of its padding is nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def listed(layer: nn.Conv2d) -> nn.Conv2d:
    """As EfficientNet's layers state it."""
    layer.stride = list(layer.stride)
    return layer


class Renamed(nn.Conv2d):
    pass


class Casts(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x.to(self.weight.dtype), self.weight, self.bias)


class Adapted(nn.Linear):
    def __init__(self, inner: int, out: int) -> None:
        super().__init__(inner, out)
        self.down, self.up = nn.Parameter(torch.randn(2, inner)), nn.Parameter(torch.randn(out, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


def old(norm: Callable) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return norm(nn.Conv2d(8, 8, 3))

    return make


def hooked(kind: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = nn.Conv2d(8, 8, 3)
        if kind == "before":
            layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0] * 2,))
        else:
            layer.register_forward_hook(lambda layer, inputs, out: out * 2)
        return layer

    return make


COMPUTED, OWN, HOOK, KIND = "weight is computed", "overrides how the weight is used", "a hook", "only Conv2d and Linear"
ALONE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "weight norm": (lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), COMPUTED),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)), COMPUTED),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Conv2d(8, 8, 3)), COMPUTED),
    "weight norm by a hook": (old(nn.utils.weight_norm), COMPUTED),
    "spectral norm by a hook": (old(nn.utils.spectral_norm), COMPUTED),
    "masked": (lambda: masks.random_unstructured(nn.Conv2d(8, 8, 3), "weight", 0.3), COMPUTED),
    "standardized": (lambda: Standardised(8, 8, 3), OWN),
    "standardized inside": (lambda: StandardisedInside(8, 8, 3), OWN),
    "scaled": (lambda: Scaled(8, 8, 3), OWN),
    "reads scaled": (lambda: ReadsScaled(8, 8, 3), OWN),
    "two products": (lambda: TwoProducts(8, 8, 3), OWN),
    "another stride": (lambda: OtherStride(8, 8, 3), OWN),
    "mirrors": (lambda: Mirrors(8, 8, 3), OWN),
    "a hook before": (hooked("before"), HOOK),
    "a hook behind": (hooked("behind"), HOOK),
    "transposed": (lambda: nn.ConvTranspose2d(8, 8, 3), KIND),
    "plain": (lambda: nn.Conv2d(8, 8, 3), ""),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8), ""),
    "renamed": (lambda: Renamed(8, 8, 3), ""),
    "pads itself": (lambda: PadsItself(8, 8, 3, stride=2), ""),
    "pads itself, its stride in a list": (lambda: listed(PadsItself(8, 8, 3, stride=2)), ""),
    "casts": (lambda: Casts(8, 8, 3, stride=2, dilation=2), ""),
    "circular": (lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), ""),
}


class Net(nn.Module):
    """The layer between others that a step would like to change."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Conv2d(8, 8, 3), layer, nn.Conv2d(8, 16, 3, padding=1)
        self.wide, self.fc = nn.Conv2d(16, 16, 3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.layer(self.first(x).relu()).relu()).relu()
        return self.fc(self.wide(x).relu().mean((2, 3)))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def net() -> Callable[[str], nn.Module]:
    return lambda name: Net(ALONE[name][0]()).eval()


@pytest.fixture(scope="module")
def samples(batches) -> list[np.ndarray]:
    return batches(SHAPE, 16)


@pytest.mark.parametrize("name", ALONE)
def test_a_layer_is_judged_by_what_it_computes(name, net, samples):
    model, why = net(name), ALONE[name][1]
    left = left_alone(model, (torch.from_numpy(samples[0]),), replaced=True)
    assert set(left) == ({"layer"} if why else set())
    assert why in left.get("layer", "")
    assert ("layer" in weighted_layers(model)) == (not why)


STEPS = {
    "prune": (prune, PruneConfig(ratio=0.4, multiple=1)),
    "low rank": (lowrank, LowRankConfig(parameters=0.6, only_faster=False, multiple=1)),
    "zeros": (prune, PruneConfig(ratio=0.4, granularity="weight")),
    "2:4": (prune, PruneConfig(pattern="2:4", granularity="weight")),
}


def ratio(model: nn.Module, made: nn.Module, samples: list[np.ndarray]) -> float:
    x = torch.from_numpy(np.concatenate(samples))
    with torch.no_grad():
        wanted, given = model(x), made(x)
    return float(10 * torch.log10(wanted.square().sum() / (wanted - given).square().sum().clamp_min(1e-30)))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ALONE)
def test_steps_leave_such_a_layer_as_it_is_and_change_others(step, name, net, samples, free):
    model, (module, config) = net(name), STEPS[step]
    before = copied(model).state_dict()
    plan = module.plan(model, config, samples, free)
    made = module.apply(model, plan, samples)
    assert ratio(model, made, samples) > 3
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    if not ALONE[name][1]:
        assert not plan.left
        return
    assert "layer" in plan.left
    now = made.state_dict()
    for key, value in before.items():
        if key.startswith("layer.") and not key.endswith(("_u", "_v", "bias")):  # biases take shifts
            assert torch.equal(now[key], value)
    again = module.apply(model, plan, None)  # how a bundle is loaded
    again.load_state_dict(now)
    assert ratio(made, again, samples) > 100


@pytest.mark.parametrize("name", ["weight norm", "weight norm by a hook", "standardized", "transposed", "plain"])
@pytest.mark.parametrize("quantized", [False, True])
def test_healing_trains_what_it_cannot_round(name, quantized, net, samples, free, tmp_path):
    model = net(name)
    plan = distill.plan(model, DistillConfig(epochs=1, quantized=quantized), samples, free)
    made = distill.distill(model, plan, samples, Distillation(net(name), tmp_path, SILENT))
    assert ratio(model, made, samples) > 0


# -- who else reads a weight


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.wide = nn.Linear(12, 24), nn.Linear(24, 24)
        self.bias = nn.Parameter(torch.zeros(24))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(self.into(x).relu(), self.wide.weight.t(), self.bias), self.into.weight.t())


class OneParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.fc = (nn.Linear(12, 12) for _ in range(4))
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.c(self.b(self.a(x).relu()).relu()).relu())


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.fc = nn.TransformerEncoderLayer(12, 2, 32, batch_first=True), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(x[:, None]).mean(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.attention, self.fc = nn.Linear(12, 24), nn.MultiheadAttention(24, 2), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)[None]
        return self.fc(self.attention(x, x, x)[0][0])


class Helper(nn.Module):
    """A function that is no module's reads the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(product(self.b, self.a(x).relu()).relu())


def product(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


class AsksForTheType(Helper):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.a(x).relu().to(self.b.weight.dtype)).relu())


class AsksForTheSize(Helper):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.a(x).reshape(-1, self.a.out_features).relu()).relu())


class TwoNames(Helper):
    def __init__(self) -> None:
        super().__init__()
        self.again = self.b

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.again(self.b(self.a(x).relu()).relu()))


class OwnParameter(Helper):
    """A weight that is the model's own: there is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(24, 24) / 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.linear(self.b(self.a(x).relu()).relu(), self.matrix).relu())


class TiedTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.out = nn.Embedding(30, 16), nn.Linear(16, 16), nn.Linear(16, 30)
        self.out.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.a(self.table(x.abs().mul(9).long().clamp(max=29))).relu().mean(1))


AROUND: dict[str, tuple[type[nn.Module], set[str], set[str]]] = {  # left where weights change, and where layers do
    "tied transpose": (Tied, {"into", "wide"}, {"into", "wide"}),
    "one parameter of two": (OneParameter, {"a", "b"}, {"a", "b"}),
    "encoder layer": (Encoder, {"encoder.self_attn", "encoder.self_attn.out_proj"},
                      {"encoder.self_attn", "encoder.self_attn.out_proj", "encoder.linear1", "encoder.linear2"}),
    "attention": (Attention, {"attention", "attention.out_proj"}, {"attention", "attention.out_proj"}),
    "a function": (Helper, {"b"}, {"b"}),
    "the type of a weight": (AsksForTheType, set(), {"b"}),
    "the size of a layer": (AsksForTheSize, set(), {"a"}),
    "two names": (TwoNames, set(), {"b"}),
    "a parameter of the model": (OwnParameter, set(), set()),
    "a table's": (TiedTable, {"out", "table"}, {"out", "table"}),
}  # fmt: skip


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("name", AROUND)
def test_who_else_reads_a_weight_is_found(name, replaced, batches):
    make, *wanted = AROUND[name]
    model, x = make().eval(), torch.from_numpy(batches((12,), 4)[0])
    state = copy.deepcopy(model.state_dict())
    assert set(left_alone(model, (x,), replaced=replaced)) == wanted[replaced]
    assert all(type(m) is type(n) for m, n in zip(model.modules(), make().modules(), strict=True))
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", AROUND)
def test_steps_leave_such_weights_as_they_are(name, step, batches, free):
    make, *wanted = AROUND[name]
    model, samples, (module, config) = make().eval(), batches((12,), 16), STEPS[step]
    plan = module.plan(model, config, samples, free)
    made = module.apply(model, plan, samples)
    assert ratio(model, made, samples) > 3
    left = wanted[step == "low rank"]
    assert left <= set(plan.left)
    for layer in left:
        after = dict(made.get_submodule(layer).named_parameters(recurse=False))
        before = dict(model.get_submodule(layer).named_parameters(recurse=False))
        assert before.keys() == after.keys()
        assert all(torch.equal(after[each], before[each]) for each in before)


def test_parameters_that_two_modules_have_go_by_all_their_names():
    assert shared_parameters(OneParameter()) == {"a.weight", "b.weight"}
    assert shared_parameters(TwoNames()) == set()


# -- kinds that no step knows


class Volume(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        make = {"1": nn.Conv1d, "3": nn.Conv3d}[kind[0]]
        self.rank = int(kind[0])
        self.f = nn.Sequential(make(1, 12, 3), nn.ReLU(), make(12, 12, 3), nn.ReLU())
        self.a, self.b = nn.Linear(12, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), 1, *[round(x.shape[1] ** (1 / self.rank))] * self.rank)
        return self.b(self.a(self.f(x).flatten(2).mean(2)).relu())


@pytest.mark.parametrize("kind", ["1", "3"])
@pytest.mark.parametrize("step", STEPS)
def test_convolutions_without_a_saliency_are_left_alone_and_the_rest_is_not(kind, step, batches, free):
    if kind == "1" and step == "prune":
        pytest.skip("a Conv1d is pruned as a Conv2d")
    model, samples, (module, config) = Volume(kind).eval(), batches((125,), 16), STEPS[step]
    plan = module.plan(model, config, samples, free)
    made = module.apply(model, plan, samples)
    assert {"f.0", "f.2"} <= set(plan.left)
    assert all(f"Conv{kind}d" in plan.left[name] for name in ("f.0", "f.2"))
    for name in ("f.0", "f.2"):
        assert torch.equal(made.get_submodule(name).weight, model.get_submodule(name).weight)
    if step != "2:4":
        assert not torch.equal(made(torch.from_numpy(samples[0])), model(torch.from_numpy(samples[0])))


def test_a_layer_that_shares_channels_with_one_that_is_left_alone_is_left_whole(batches, free):
    """The sum ties what a known layer makes to what is read by a kind that no step knows."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(12, 24), nn.Linear(24, 24), nn.Conv3d(24, 8, 1)
            self.d = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.d(self.c((y + self.b(y.relu()))[:, :, None, None, None])[:, :, 0, 0, 0])

    model, samples = Sum().eval(), batches((12,), 16)
    plan = prune.plan(model, PruneConfig(ratio=0.5, multiple=1), samples, free)
    assert not plan.axes
    assert set(plan.left) == {"a", "b", "c", "d"}
    assert "c" in plan.left["a"]


def test_a_budget_of_macs_counts_weights_that_are_computed(batches, free, net):
    model, samples = net("weight norm"), batches(SHAPE, 8)
    plain = net("plain")
    plans = [prune.plan(m, PruneConfig(macs=0.7, multiple=1), samples, free) for m in (model, plain)]
    assert plans[0].savings["macs"].before == plans[1].savings["macs"].before


@pytest.mark.parametrize("name", ALONE)
def test_a_copy_is_one_even_where_torch_makes_none(name, net, samples):
    model = net(name)
    model(torch.from_numpy(samples[0]))  # a hook leaves a weight that torch does not copy
    twin = copied(model)
    assert ratio(model, twin, samples) > 100
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in twin.parameters()}


# -- reasons and products, one by one


def _with(forward: Callable, layer: nn.Module) -> nn.Module:
    """A layer of a class of its own that multiplies as ``forward`` says."""
    layer.__class__ = type("Own", (type(layer),), {"forward": forward})
    return layer


def _product(m, x, **more):
    given = {"stride": m.stride, "padding": m.padding, "dilation": m.dilation, "groups": m.groups, **more}
    return F.conv2d(x, m.weight, m.bias, **given)


CONVOLUTION: dict[str, tuple[Callable, bool]] = {
    "as it is": (_product, True),
    "torch's own": (lambda m, x: torch.conv2d(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups), True),
    "another padding": (lambda m, x: _product(m, x, padding=2), True),
    "another dilation": (lambda m, x: _product(m, x, dilation=1), False),
    "another stride on one axis": (lambda m, x: _product(m, x, stride=(2, 1)), False),
    "a number for both axes": (lambda m, x: _product(m, x, stride=2, dilation=2), True),
    "lists": (lambda m, x: _product(m, x, stride=[2, 2], dilation=[2, 2]), True),
    "no groups": (lambda m, x: F.conv2d(x[:, :2], m.weight, m.bias, 2, 1, 2), False),
    "no bias": (lambda m, x: F.conv2d(x, m.weight, None, m.stride, m.padding, m.dilation, m.groups), False),
    "another weight": (lambda m, x: F.conv2d(x, m.weight * 1, m.bias, m.stride, m.padding, m.dilation, 2), False),
    "zeros before": (lambda m, x: _product(m, F.pad(x, (1, 1, 1, 1))), True),
    "zeros by name": (lambda m, x: _product(m, F.pad(x, (1, 1), mode="constant", value=0.0)), True),
    "zeros in place": (lambda m, x: _product(m, F.pad(x, (1, 1), "constant", 0)), True),
    "ones before": (lambda m, x: _product(m, F.pad(x, (1, 1), value=1.0)), False),
    "ones in place": (lambda m, x: _product(m, F.pad(x, (1, 1), "constant", 1)), False),
    "edges before": (lambda m, x: _product(m, F.pad(x, (1, 1), "replicate")), False),
    "edges by name": (lambda m, x: _product(m, F.pad(x, (1, 1), mode="replicate")), False),
    "twice padded": (lambda m, x: _product(m, F.pad(F.pad(x, (1, 1)), (0, 0, 1, 1))), True),
    "padded behind": (lambda m, x: F.pad(_product(m, x), (1, 1)), False),
    "another padded": (lambda m, x: (F.pad(x * 2, (1, 1)), _product(m, x))[1], False),
    "cast": (lambda m, x: _product(m, x.to(m.weight.dtype).to(x.device)), True),
    "through a view": (lambda m, x: _product(m, x.view(x.shape)), False),
    "fails": (lambda m, x: _product(m, x[0, 0]), False),
    "nothing": (lambda m, x: x, False),
    "names": (lambda m, x: F.conv2d(input=x, weight=m.weight, bias=m.bias, stride=2, dilation=2, groups=2), True),
}  # fmt: skip
LINEAR: dict[str, tuple[Callable, bool]] = {
    "as it is": (lambda m, x: F.linear(x, m.weight, m.bias), True),
    "by name": (lambda m, x: F.linear(input=x, bias=m.bias, weight=m.weight), True),
    "no bias": (lambda m, x: F.linear(x, m.weight), False),
    "another bias": (lambda m, x: F.linear(x, m.weight, m.bias * 2), False),
    "turned": (lambda m, x: F.linear(x, m.weight.t(), m.bias), False),
    "a product": (lambda m, x: x @ m.weight.t() + m.bias, False),
    "another function": (lambda m, x: F.bilinear(x, x, m.weight[:, None] * torch.ones(1, 4, 1), m.bias), False),
    "more behind": (lambda m, x: F.linear(x, m.weight, m.bias).relu(), False),
}


@pytest.mark.parametrize("name", CONVOLUTION)
def test_a_convolution_with_code_of_its_own_pads_zeros_at_most(name):
    forward, plain = CONVOLUTION[name]
    layer = _with(forward, nn.Conv2d(4, 4, 3, stride=2, padding=1, dilation=2, groups=2))
    assert left_alone(nn.Sequential(layer), None) == (
        {} if plain else {"0": "its class overrides how the weight is used"}
    )


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_layer_with_code_of_its_own_multiplies_only(name):
    forward, plain = LINEAR[name]
    layer = _with(forward, nn.Linear(4, 4))
    assert set(weighted_layers(nn.Sequential(layer))) == ({"0"} if plain else set())


def test_a_method_that_is_set_on_a_layer_is_code_of_its_own():
    layer = nn.Linear(4, 4)
    layer.forward = lambda x: F.linear(x, layer.weight * 2, layer.bias)
    assert weighted_layers(nn.Sequential(layer)) == {}


def test_looking_at_a_layer_leaves_it_as_it_is():
    layer = _with(CONVOLUTION["as it is"][0], nn.Conv2d(4, 4, 3)).train()
    before = copy.deepcopy(layer.state_dict())
    left_alone(nn.Sequential(layer), None)
    assert layer.training
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())


def test_reasons_are_said_whole_and_in_the_order_of_the_layers():
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.Linear(4, 4)
            self.read, self.norm = nn.Linear(4, 4), parametrizations.weight_norm(nn.Linear(4, 4))
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.own = nn.Linear(4, 4)
            self.matrix = self.own.weight
            self.hook = nn.Linear(4, 4)
            self.hook.register_forward_hook(lambda layer, inputs, out: out)
            self.up, self.line, self.space = nn.ConvTranspose2d(1, 1, 1), nn.Conv1d(1, 1, 1), nn.Conv3d(1, 1, 1)
            self.both = nn.Bilinear(4, 4, 4)
            self.sized, self.again = nn.Linear(4, 4), self.plain

        def forward(self, x: Tensor) -> Tensor:
            x = self.b(self.a(self.norm(F.linear(x, self.read.weight)))) + self.plain(x)
            return self.sized(x.view(-1, self.sized.in_features))

    model, x = Many().eval(), torch.zeros(2, 4)
    alone = {
        "norm": "its weight is computed",
        "a": "it shares parameters with b",
        "b": "it shares parameters with a",
        "own": "it shares parameters with the model",
        "hook": "a hook changes its inputs or outputs",
        "up": "a ConvTranspose2d: only Conv2d and Linear are supported",
        "line": "a Conv1d: only Conv2d and Linear are supported",
        "space": "a Conv3d: only Conv2d and Linear are supported",
        "both": "a Bilinear: only Conv2d and Linear are supported",
    }
    around = {"read": "the code around it reads its weight"}
    replaced = {
        "plain": "it is the same module as again",
        "sized": "the code around it reads its in_features",
    }
    order = ["plain", "read", "norm", "a", "b", "own", "hook", "up", "line", "space", "both", "sized"]
    for given, more, wanted in ((None, False, alone), ((x,), False, {**alone, **around}),
                                ((x,), True, {**alone, **around, **replaced}),
                                (None, True, {**alone, "plain": replaced["plain"]})):  # fmt: skip
        found = left_alone(model, given, replaced=more)
        assert found == wanted
        assert list(found) == [name for name in order if name in wanted]
    assert list(weighted_layers(model)) == ["plain", "read", "sized"]
    assert shared_parameters(model) == {"a.weight", "b.weight", "own.weight", "matrix"}
    model(x)  # nothing is left behind of what watched it
    assert not any(isinstance(m, nn.Linear) and m._forward_pre_hooks for m in model.modules())


def test_all_tensors_are_found_in_lists_and_mappings():
    a, b, c = (torch.zeros(i) for i in range(3))
    nested = [a, (b, {"x": [c], "y": 3, "z": None}), "text"]
    assert [len(t) for t in eligible_layers._tensors(nested)] == [0, 1, 2]
    assert eligible_layers._tensors(a)[0] is a
    assert eligible_layers._tensors("text") == eligible_layers._tensors(None) == eligible_layers._tensors({}) == []


@pytest.mark.parametrize(("value", "pair"), [(2, (2, 2)), ((2, 3), (2, 3)), ([2, 3], (2, 3)), ("same", ("same",) * 2)])
def test_a_number_is_one_for_both_axes(value, pair):
    assert eligible_layers._pair(value) == pair


def test_a_copy_runs_in_eval_mode_and_is_of_its_own():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    twin = copied(model)
    assert [m.training for m in twin.modules()] == [False] * 3
    assert [m.training for m in model.modules()] == [True] * 3
    twin[0].weight.data.zero_()
    assert model[0].weight.abs().sum() > 0


class AsksForAName(Helper):
    """Other code asks the layer for an attribute of some name, which a layer in its place would not have."""

    def __init__(self, attribute: str) -> None:
        super().__init__()
        self.attribute = attribute
        setattr(self.b, attribute, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.a(x).relu() * getattr(self.b, self.attribute)).relu())


@pytest.mark.parametrize(
    ("attribute", "left"),
    [("scale", {"b"}), ("scale_", {"b"}), ("in_features", {"b"}), ("_scale", set()), ("_scale_", set()),
     ("training", set())],
)  # fmt: skip
def test_what_only_a_layer_has_is_what_is_public_and_not_of_every_module(attribute, left, batches):
    model, x = AsksForAName(attribute).eval(), torch.from_numpy(batches((12,), 4)[0])
    model.b.in_features = 24
    assert set(left_alone(model, (x,), replaced=True)) == left
    assert left_alone(model, (x,), replaced=False) == {}
