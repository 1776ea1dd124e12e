from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.compress.configs import LowRankConfig
from pocketzoo.compress.low_rank import factorizations as factors
from pocketzoo.compress.low_rank import layer_timing
from pocketzoo.compress.low_rank import low_rank as lowrank
from pocketzoo.compress.low_rank.factorizations import Option, parameters
from pocketzoo.compress.low_rank.kronecker_factors import KroneckerFactors
from pocketzoo.compress.plans import Factor, LowRankPlan
from pocketzoo.core.errors import UnknownNameError
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.models.export_graph import onnx_from_model

SHAPE = (6, 12, 12)


class SamePad(nn.Conv2d):
    """Pads on its own, as timm's Conv2dSame does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 1, 0)), self.weight, self.bias, self.stride)


CONVOLUTIONS = {
    "3x3": lambda: nn.Conv2d(6, 20, 3, padding=1),
    "1x1": lambda: nn.Conv2d(6, 20, 1),
    "5x5 strided": lambda: nn.Conv2d(6, 20, 5, stride=2, padding=2),
    "1x1 strided": lambda: nn.Conv2d(6, 20, 1, stride=3),
    "dilated": lambda: nn.Conv2d(6, 20, 3, dilation=2, padding=2),
    "oblong": lambda: nn.Conv2d(6, 20, (1, 5), padding=(0, 2), stride=(2, 1)),
    "without bias": lambda: nn.Conv2d(6, 20, 3, bias=False),
    "same": lambda: nn.Conv2d(6, 20, 3, padding="same"),
    "valid": lambda: nn.Conv2d(6, 20, 3, padding="valid"),
    "circular": lambda: nn.Conv2d(6, 20, 3, padding=1, padding_mode="circular"),
    "reflect": lambda: nn.Conv2d(6, 20, 3, padding=1, padding_mode="reflect"),
    "own padding": lambda: SamePad(6, 20, 2, stride=2),
}


def config_of(**fields) -> LowRankConfig:
    """Without a clock: plans that do not vary."""
    return LowRankConfig(**fields, only_faster=False)


def hand(name: str, layer: nn.Module, *ranks: int, kind: str = "svd") -> LowRankPlan:
    """A plan for one layer, by hand."""
    factor = Factor(kind=kind, ranks=ranks, error=0.0, parameters=layer.weight.numel(),
                    after=parameters(layer, kind, ranks))  # fmt: skip
    return LowRankPlan(factors={name: factor})


def product(pair: nn.Sequential) -> Tensor:
    """The weight that two layers in a row amount to, flattened (O, I * k)."""
    return factors.product(pair, "svd")


def full_rank(layer: nn.Module) -> int:
    return min(layer.weight.flatten(1).shape)


def same_state(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(6, 32, 3, padding=1)
        self.deep = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.mix = nn.Sequential(nn.Conv2d(32, 32, 1), nn.BatchNorm2d(32))
        self.wide = nn.Conv2d(32, 48, 3, stride=2, padding=1, bias=False)
        self.fc1, self.fc2 = nn.Linear(48, 40), nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.mix(F.relu(self.deep(F.relu(self.stem(x))))))
        return self.fc2(F.relu(self.fc1(F.relu(self.wide(y)).mean((2, 3)))))


@pytest.fixture(scope="module")
def net(randomised):
    return randomised(Net())


@pytest.fixture(scope="module")
def samples(batches):
    return batches(SHAPE)


# -- one layer


@pytest.mark.parametrize("make", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_full_rank_reproduces_a_convolution(make, randomised, samples):
    model = randomised(nn.Sequential(make()))
    full = min(model[0].weight.flatten(1).shape)
    for given_samples in (None, samples):
        pair = lowrank.apply(model, hand("0", model[0], full), given_samples)
        x = torch.from_numpy(samples[0])
        with torch.no_grad():
            torch.testing.assert_close(pair(x), model(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(product(pair[0]), model[0].weight.detach().flatten(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_two_convolutions_are_the_product_of_their_weights(make, rank, randomised, samples):
    model = randomised(nn.Sequential(make()))
    pair = lowrank.apply(model, hand("0", model[0], rank), samples)
    down, up = pair[0]
    assert type(down) is type(model[0])
    assert (down.out_channels, down.bias, up.kernel_size, up.in_channels) == (rank, None, (1, 1), rank)
    assert (down.stride, down.padding, down.dilation) == (model[0].stride, model[0].padding, model[0].dilation)
    merged = copy.deepcopy(model[0])
    merged.weight.data = product(pair[0]).view_as(merged.weight)
    merged.bias = up.bias
    x = torch.from_numpy(samples[0])
    with torch.no_grad():
        torch.testing.assert_close(pair(x), merged(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_without_samples_the_bias_is_kept_bit_for_bit(make, randomised):
    model = randomised(nn.Sequential(make()))
    pair = lowrank.apply(model, hand("0", model[0], 4))[0]
    assert pair[0].bias is None
    if model[0].bias is None:
        assert pair[1].bias is None
    else:
        assert torch.equal(pair[1].bias, model[0].bias)
        assert pair[1].bias is not model[0].bias


@given(
    rows=st.integers(2, 24),
    columns=st.integers(2, 24),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 10**6),
)
def test_a_truncated_layer_is_off_by_the_singular_values_it_dropped(rows, columns, share, seed):
    """Eckart and Young 1936: |W - W_r|_F = sqrt(sum of the squares of what was dropped)."""
    layer = nn.Linear(columns, rows)
    layer.weight.data = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    rank = max(1, round(share * min(rows, columns)))
    pair = lowrank.apply(nn.Sequential(layer), hand("0", layer, rank))[0]
    s = torch.linalg.svdvals(layer.weight.detach().double())
    error = torch.linalg.norm(layer.weight.detach().double() - product(pair).double())
    assert float(error) == pytest.approx(float(s[rank:].square().sum().sqrt()), abs=2e-5 * float(s[0]))
    assert pair[0].weight.shape == (rank, columns)
    assert pair[1].weight.shape == (rows, rank)


@pytest.mark.parametrize("make", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("rank", [1, 4])
def test_a_truncated_convolution_is_off_by_the_singular_values_it_dropped(make, rank, randomised):
    model = randomised(nn.Sequential(make()))
    pair = lowrank.apply(model, hand("0", model[0], rank))[0]
    weight = model[0].weight.detach().flatten(1)
    s = torch.linalg.svdvals(weight)
    error = torch.linalg.norm(weight - product(pair))
    assert float(error) == pytest.approx(float(s[rank:].square().sum().sqrt()), rel=1e-4)


@pytest.mark.parametrize("shape", [(8,), (5, 8), (3, 4, 8)])
def test_linear_layers_on_sequences(shape, randomised):
    model = randomised(nn.Sequential(nn.Linear(8, 24)))
    x = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    pair = lowrank.apply(model, hand("0", model[0], 8), [x.numpy()])
    with torch.no_grad():
        torch.testing.assert_close(pair(x), model(x), rtol=1e-4, atol=1e-4)


def test_both_factors_have_the_same_scale(randomised):
    """The square root of each singular value goes to either side, so that both quantize well."""
    model = randomised(nn.Sequential(nn.Linear(8, 12)))
    down, up = lowrank.apply(model, hand("0", model[0], 5))[0]
    torch.testing.assert_close(down.weight.norm(dim=1), up.weight.norm(dim=0), rtol=1e-4, atol=1e-5)


# -- plans


@pytest.mark.parametrize("multiple", [1, 8])
def test_more_energy_takes_more_parameters(multiple, net, samples, free):
    last: dict[str, int] = {}
    for energy in np.linspace(0.05, 1.0, 7):
        plan = lowrank.plan(net, config_of(energy=float(energy), multiple=multiple), samples, free)
        sizes = {n: plan.factors[n].after if n in plan.factors else 10**6 for n in (*plan.factors, *plan.dense)}
        assert all(sizes[n] >= last.get(n, 0) for n in sizes), energy
        last = sizes


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_each_layer_keeps_its_energy(energy, multiple, net, samples, free):
    plan = lowrank.plan(net, config_of(energy=energy, multiple=multiple), samples, free)
    for name, factor in plan.factors.items():
        layer = net.get_submodule(name)
        assert factor.error <= 1 - energy + 1e-12
        assert factor.parameters == layer.weight.numel()
        assert factor.after == parameters(layer, factor.kind, factor.ranks) < factor.parameters


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0])
def test_the_budget_is_kept_by_all_layers_together(share, multiple, net, samples, free):
    plan = lowrank.plan(net, config_of(parameters=share, multiple=multiple), samples, free)
    smaller = lowrank.apply(net, plan, None)
    names = [n for n in (*plan.factors, *plan.dense) if plan.dense.get(n) != "grouped convolution"]
    before = sum(net.get_submodule(n).weight.numel() for n in names)
    after = sum(p.numel() for n in names for k, p in smaller.get_submodule(n).named_parameters() if "weight" in k)
    assert after <= share * before
    assert (share < 1.0) == bool(plan.factors)
    for name, factor in plan.factors.items():
        assert sum(m.weight.numel() for m in smaller.get_submodule(name)) == factor.after


@pytest.mark.parametrize(("share", "rank"), [(0.1, 4), (0.25, 10), (0.5, 20)])
def test_a_share_of_the_singular_values_is_kept(share, rank, net, samples, free):
    plan = lowrank.plan(net, config_of(rank_fraction=share), samples, free)
    dense = rank * (48 + 40) >= 48 * 40
    assert ("fc1" in plan.dense) == dense
    if not dense:
        assert (plan.factors["fc1"].kind, plan.factors["fc1"].ranks) == ("svd", (rank,))


def test_what_is_not_faster_stays_dense(net, samples, cpu):
    """A clock that nothing can beat, and one that everything beats."""
    for slow, times in ((True, (1.0, 2.0)), (False, (2.0, 1.0))):
        found = {n: list(factors.options(m, factors.plain_metric(m), 4, factors.kinds(m)))
                 for n, m in {"wide": net.wide, "fc1": net.fc1}.items()}  # fmt: skip

        class Clock:
            def time(self, name, option, times=times):
                return times

        dense: dict[str, str] = {}
        choice = lowrank._without_slow(
            lambda left: {n: o[0] if o else None for n, o in left.items()}, found, Clock(), dense
        )
        assert all((option is None) == slow for option in choice.values())
        assert set(dense) == (set(found) if slow else set())
        assert all("ms instead of" in why for why in dense.values())


def test_layers_are_timed_by_default(net, samples, cpu, nvidia):
    """Which of them win is the machine's; each is factored or says what was measured. Engines are not timed here."""
    plan = lowrank.plan(net, LowRankConfig(rank_fraction=0.2), samples, cpu)
    untimed = lowrank.plan(net, config_of(rank_fraction=0.2), samples, cpu)
    slow = {n for n, why in plan.dense.items() if "ms instead of" in why}
    assert set(plan.factors) | slow == set(untimed.factors)
    assert lowrank.plan(net, LowRankConfig(rank_fraction=0.2), samples, nvidia) == lowrank.plan(
        net, config_of(rank_fraction=0.2), samples, nvidia
    )


def test_energy_one_means_full_rank_which_is_never_smaller(net, samples, free):
    plan = lowrank.plan(net, config_of(energy=1.0), samples, free)
    assert plan.factors == {}
    assert same_state(lowrank.apply(net, plan, samples), net)
    assert all("needs fewer parameters" in plan.dense[n] for n in ("stem", "wide", "fc1", "fc2", "mix.0"))


def test_a_layer_of_low_rank_is_found(randomised, samples, free):
    """A weight of rank 4 in a 32 x 48 layer: energy 0.999999 keeps 4, and nothing is lost."""
    model = randomised(nn.Sequential(nn.Conv2d(6, 32, 3, padding=1), nn.Conv2d(32, 48, 1)))
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(48, 4, generator=generator) @ torch.randn(4, 32, generator=generator)
    model[1].weight.data = low.view(48, 32, 1, 1)
    plan = lowrank.plan(model, config_of(energy=0.999999, multiple=1), samples, free)
    assert plan.factors["1"].ranks == (4,)
    x = torch.from_numpy(samples[0])
    smaller = lowrank.apply(model, LowRankPlan(factors={"1": plan.factors["1"]}), samples)
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), model(x), rtol=1e-3, atol=1e-3)


def test_every_layer_is_factored_or_dense_with_a_reason(net, samples, cpu):
    plan = lowrank.plan(net, config_of(energy=0.8), samples, cpu)
    layers = {n for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert set(plan.factors) | set(plan.dense) == layers
    assert not set(plan.factors) & set(plan.dense)
    assert plan.dense["deep"] == "grouped convolution"
    assert all(plan.dense.values())


@pytest.mark.parametrize("target", ["cpu", "nvidia", "free"])
def test_the_target_decides_the_multiple(target, request, net, samples):
    spec = request.getfixturevalue(target)
    plan = lowrank.plan(net, config_of(energy=0.6), samples, spec)
    assert plan.factors
    assert all(r % spec.channel_multiple == 0 for f in plan.factors.values() for r in f.ranks)


@pytest.mark.parametrize(
    ("skip", "left"),
    [(("fc1",), {"fc1"}), (("fc*",), {"fc1", "fc2"}), (("mix.0", "wide"), {"mix.0", "wide"}), (("*",), None)],
)
def test_skipped_layers_stay_dense(skip, left, net, samples, free):
    plan = lowrank.plan(net, config_of(energy=0.5, skip=skip), samples, free)
    for name in left or [n for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]:
        assert name not in plan.factors
        assert "skip" in plan.dense[name]
    if left is None:
        assert plan.factors == {}


@pytest.mark.parametrize(("typo", "nearest"), [("fc3", "fc"), ("mix", "mix.0"), ("wyde", "wide"), ("stemm", "stem")])
def test_a_skip_that_names_nothing_is_refused_with_the_nearest(typo, nearest, net, samples, cpu, refused):
    with refused(UnknownNameError, f"{typo!r}", hint=nearest):
        lowrank.plan(net, config_of(energy=0.5, skip=(typo,)), samples, cpu)


# -- the whole


CONFIGS = [config_of(energy=0.8), config_of(energy=0.95, multiple=1), config_of(parameters=0.4)]


@pytest.mark.parametrize("config", CONFIGS, ids=["energy", "fine", "parameters"])
def test_the_model_given_is_not_changed(config, randomised, samples, cpu):
    model = randomised(Net())
    before = copy.deepcopy(model)
    lowrank.apply(model, lowrank.plan(model, config, samples, cpu), samples)
    assert same_state(model, before)
    assert repr(model) == repr(before)
    assert all(not m._forward_pre_hooks for m in model.modules())


def test_a_model_in_training_mode_is_not_changed(randomised, samples, cpu):
    """Its batch norm must not learn from calibration samples."""
    model = randomised(Net()).train()
    before = copy.deepcopy(model)
    lowrank.plan(model, config_of(energy=0.8), samples, cpu)
    assert same_state(model, before)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]


@pytest.mark.parametrize("config", CONFIGS, ids=["energy", "fine", "parameters"])
def test_two_runs_agree_bit_for_bit(config, randomised, samples, cpu):
    runs = []
    for _ in range(2):
        model = randomised(Net())
        plan = lowrank.plan(model, config, samples, cpu)
        runs.append((plan, lowrank.apply(model, plan, samples)))
    assert runs[0][0] == runs[1][0]
    assert same_state(runs[0][1], runs[1][1])


@pytest.mark.parametrize("config", CONFIGS, ids=["energy", "fine", "parameters"])
def test_a_saved_plan_replayed_without_samples_gives_the_same_structure(config, net, samples, cpu):
    plan = lowrank.plan(net, config, samples, cpu)
    fitted = lowrank.apply(net, plan, samples)
    read = from_plain(LowRankPlan, json.loads(json.dumps(to_plain(plan))))
    assert read == plan
    fresh = lowrank.apply(Net().eval(), read, None)
    fresh.load_state_dict(fitted.state_dict())
    x = torch.from_numpy(samples[0])
    with torch.no_grad():
        assert torch.equal(fresh(x), fitted(x))
    assert repr(fresh) == repr(fitted)


def test_more_energy_is_nearer_to_the_model(net, samples, free):
    x = torch.from_numpy(np.concatenate(samples))
    errors = []
    for energy in (0.5, 0.8, 0.95, 0.99):
        plan = lowrank.plan(net, config_of(energy=energy, multiple=1), samples, free)
        with torch.no_grad():
            errors.append(float((lowrank.apply(net, plan, samples)(x) - net(x)).square().sum()))
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("samples", [
    [np.zeros((4, *SHAPE), np.float32)],
    [np.ones((4, *SHAPE), np.float32)],
    [np.full((4, *SHAPE), np.nan, np.float32)],
    [np.full((4, *SHAPE), np.inf, np.float32)],
], ids=["zeros", "constant", "nan", "inf"])  # fmt: skip
def test_samples_that_say_little_give_finite_factors(samples, net, cpu):
    plan = lowrank.plan(net, config_of(energy=0.8), samples, cpu)
    smaller = lowrank.apply(net, plan, samples)
    assert all(torch.isfinite(p).all() for p in smaller.parameters())
    assert smaller(torch.zeros(2, *SHAPE)).shape == (2, 5)


@pytest.mark.parametrize("size", [1, 2])
def test_a_map_smaller_than_the_kernel_works(size, randomised, free):
    """padding="same" and layers that pad on their own: the last maps of a network are often that small."""
    model = randomised(nn.Sequential(nn.Conv2d(6, 24, 3, padding="same"), nn.ReLU(), nn.Conv2d(24, 4, 1)))
    samples = [np.random.default_rng(0).normal(size=(8, 6, size, size)).astype(np.float32)]
    plan = lowrank.plan(model, config_of(energy=0.5), samples, free)
    assert lowrank.apply(model, plan, samples)(torch.from_numpy(samples[0])).shape == (8, 4, size, size)


def test_a_layer_that_never_runs_is_decomposed_plainly(randomised, samples, free):
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(6, 4, 1), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model = randomised(Idle())
    plan = lowrank.plan(model, config_of(energy=0.6, multiple=1), samples, free)
    smaller = lowrank.apply(model, plan, samples)
    s = torch.linalg.svdvals(model.idle.weight.detach())
    (rank,) = plan.factors["idle"].ranks
    lost = float(s[rank:].square().sum() / s.square().sum())
    assert plan.factors["idle"].error == pytest.approx(lost, rel=1e-5)
    error = torch.linalg.norm(model.idle.weight.detach() - product(smaller.idle))
    assert float(error) == pytest.approx(float(s[rank:].square().sum().sqrt()), rel=1e-4)


def test_a_layer_of_zeros_works(randomised, samples, free):
    model = randomised(nn.Sequential(nn.Conv2d(6, 32, 3, padding=1), nn.Conv2d(32, 32, 1)))
    model[1].weight.data.zero_()
    plan = lowrank.plan(model, config_of(energy=0.9), samples, free)
    smaller = lowrank.apply(model, plan, samples)
    with torch.no_grad():
        out = smaller(torch.from_numpy(samples[0]))
    torch.testing.assert_close(out, model[1].bias.view(1, -1, 1, 1).expand_as(out))


def test_double_precision_stays_double(randomised):
    model = randomised(nn.Sequential(nn.Linear(8, 12))).double()
    pair = lowrank.apply(model, hand("0", model[0], 3))[0]
    assert {p.dtype for p in pair.parameters()} == {torch.float64}


def test_the_result_exports(net, samples, cpu, tmp_path):
    smaller = lowrank.apply(net, lowrank.plan(net, config_of(energy=0.8), samples, cpu), samples)
    spec = InputSpec(shape=("batch", *SHAPE), mean=(0.5,) * 6, std=(0.25,) * 6, resize=12)
    assert onnx_from_model(smaller, spec, tmp_path / "model.onnx") < 1e-4


@pytest.mark.parametrize(
    ("share", "multiple", "rank"),
    [(0.5, 8, 32), (0.3, 8, 16), (0.01, 8, 8), (0.3, 1, 19), (0.3, 5, 20), (0.4, 7, 28), (0.49, 16, 32), (0.1, 48, 48)],
)
def test_a_share_of_the_singular_values_is_rounded_to_the_multiple(share, multiple, rank, randomised, free):
    """64 x 256 has 64: the nearest multiple to the share of them, and one at the least."""
    model = randomised(nn.Sequential(nn.Linear(256, 64)))
    x = [np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)]
    plan = lowrank.plan(model, LowRankConfig(rank_fraction=share, multiple=multiple, only_faster=False), x, free)
    assert plan.factors["0"].ranks == (rank,)
    assert (plan.factors["0"].parameters, plan.factors["0"].after) == (64 * 256, rank * (64 + 256))


def test_why_layers_stay_dense_is_said(randomised, free):
    model = randomised(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 300)))
    x = [np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)]

    def dense(**fields: object) -> str:
        return lowrank.plan(model, LowRankConfig(**fields, only_faster=False), x, free).dense["0"]

    assert dense(rank_fraction=0.9) == "rank 7 needs 140 parameters instead of 96"
    assert dense(rank_fraction=0.9, multiple=16) == "rank 8 needs 160 parameters instead of 96"
    assert dense(parameters=0.5, multiple=6) == "rank 6 already needs as many parameters as the 96 it has"
    assert dense(energy=1.0) == "no rank that keeps 1 of its energy needs fewer parameters than the 96 it has"
    assert dense(energy=0.5, skip=("0",)) == "skipped by the recipe"


class Again(nn.Module):
    """One layer in two places, and one behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.once = nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.once(F.relu(self.twice(F.relu(self.twice(x)))))


@pytest.mark.parametrize("kind", ["numbers", "infinite", "zeros"])
def test_a_layer_in_two_places_is_refitted_on_what_both_read(kind, randomised):
    model = randomised(Again())
    x = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)
    x = {"numbers": x, "infinite": np.where(x > 2, np.inf, x), "zeros": np.zeros_like(x)}[kind]
    plan = hand("twice", model.twice, 4)
    made, plain = lowrank.apply(model, plan, [x]), lowrank.apply(model, plan)
    assert all(torch.isfinite(p).all() for p in made.parameters())
    same = all(torch.equal(a, b) for a, b in zip(made.parameters(), plain.parameters(), strict=True))
    assert same == (kind == "infinite"), "samples that say nothing that is finite change nothing"
    if kind == "numbers":
        outputs = [m(torch.from_numpy(x)).detach() for m in (model, made, plain)]
        assert (outputs[1] - outputs[0]).square().mean() < (outputs[2] - outputs[0]).square().mean()


def test_how_much_is_refitted_on_and_tried():
    assert (lowrank.IMAGES, lowrank.TEXTS, lowrank.ROUNDS) == (64, 256, 12)
    assert (layer_timing.SECONDS, layer_timing.LEAST, layer_timing.MOST) == (0.05, 9, 200)


@pytest.mark.parametrize(
    ("sizes", "dtype", "taken"),
    [
        ([40, 40, 40], np.float32, [40, 24]),
        ([40, 24, 40], np.float32, [40, 24]),
        ([63], np.float32, [63]),
        ([64, 1], np.float32, [64]),
        ([100], np.float32, [64]),
        ([100, 100, 100, 1], np.int64, [100, 100, 56]),
        ([256, 3], np.int64, [256]),
        ([], np.float32, []),
    ],
)
def test_the_first_samples_are_taken_by_what_they_are(sizes, dtype, taken):
    batches = [np.full((size, 2), i, dtype) for i, size in enumerate(sizes)]
    found = lowrank._first(iter(batches))
    assert [len(x) for (x,) in found] == taken
    assert [float(x[0, 0]) for (x,) in found] == [float(i) for i in range(len(taken))]


def option(*ranks: int, kind: str = "svd", error: float = 0.0, size: int = 10) -> Option:
    return Option(kind, ranks, size, error)


class Timed:
    """A clock that knows which options are slow."""

    def __init__(self, times: dict[object, tuple[float, float] | None]) -> None:
        self.times, self.asked = times, []

    def time(self, name, option):
        self.asked.append((name, option.kind, option.ranks))
        return self.times.get((name, option.kind, option.ranks), (2.0, 1.0))


def first_of(found):
    return {name: each[0] if each else None for name, each in found.items()}


def test_what_is_as_slow_or_slower_goes_with_what_is_larger_in_every_rank():
    larger, mixed, smaller, other = option(5, 6), option(7, 2), option(3, 4), option(9, kind="tucker")
    slow = option(4, 4)
    found = {"a": [slow, option(4, 4), larger, mixed, smaller, other], "b": [option(2)], "c": []}
    clock = Timed({("a", "svd", (4, 4)): (1.0, 1.0)})
    dense = {"a": "old", "b": "old", "c": "kept"}
    choice = lowrank._without_slow(first_of, found, clock, dense)
    assert found["a"] == [mixed, smaller, other]
    assert choice == {"a": mixed, "b": option(2), "c": None}
    assert dense == {"c": "kept"}
    assert clock.asked == [("a", "svd", (4, 4)), ("b", "svd", (2,)), ("a", "svd", (7, 2)), ("b", "svd", (2,))]


def test_what_is_slow_says_how_slow():
    found = {"a": [option(4, 8, kind="tucker")], "b": [option(3)]}
    dense: dict[str, str] = {}
    clock = Timed({("a", "tucker", (4, 8)): (0.25, 0.5), ("b", "svd", (3,)): None})
    assert lowrank._without_slow(first_of, found, clock, dense) == {"a": None, "b": option(3)}
    assert dense == {"a": "tucker of rank 4 x 8 takes 0.5000 ms instead of 0.2500 ms"}
    assert found == {"a": [], "b": [option(3)]}


def test_without_a_clock_nothing_is_slow():
    found, dense = {"a": [option(4)], "b": []}, {"a": "old", "b": "why"}
    assert lowrank._without_slow(first_of, found, None, dense) == {"a": option(4), "b": None}
    assert dense == {"b": "why"}


@pytest.mark.parametrize("count", [11, 12, 13, 20])
def test_after_twelve_rounds_what_is_slow_still_stays_dense(count):
    """Each round finds the next of them slow, from the largest down."""
    every = [option(rank) for rank in range(count, 0, -1)]
    found = {"slow": list(every), "fast": [option(1)]}
    times = {("slow", "svd", o.ranks): (1.0, 2.0) for o in every}
    dense: dict[str, str] = {}
    choice = lowrank._without_slow(first_of, found, Timed(times), dense)
    assert choice == {"slow": None, "fast": option(1)}
    assert found["slow"] == every[12:]
    assert dense == {"slow": f"svd of rank {max(count - 11, 1)} takes 2.0000 ms instead of 1.0000 ms"}
    times[("slow", "svd", (1,))] = (1.0, 0.5)
    found = {"slow": list(every), "fast": [option(1)]}
    choice = lowrank._without_slow(first_of, found, Timed(times), dense)
    assert choice["slow"] == (option(1) if count <= 13 else None)
    assert ("slow" in dense) == (count > 13)


def test_a_kind_of_layer_is_timed_once_and_only_on_what_it_reads(monkeypatch):
    raced = []

    def race(before, after, shape):
        raced.append((type(before).__name__, [tuple(m.weight.shape) for m in after], shape))
        return 3.0, float(len(raced))

    monkeypatch.setattr(lowrank, "race", race)
    layers = {"a": nn.Linear(8, 6), "b": nn.Linear(8, 6), "c": nn.Linear(8, 6), "d": nn.Linear(8, 6),
              "small": nn.Conv2d(2, 4, 3)}  # fmt: skip
    clock = lowrank._Clock(layers, {"a": (8,), "b": (8,), "c": (5, 8), "d": (), "small": (2, 2, 3)})
    assert [clock.time(name, option(2)) for name in "aabcda"] == [(3.0, 1.0)] * 3 + [(3.0, 2.0), None, (3.0, 1.0)]
    assert clock.time("b", option(3)) == (3.0, 3.0)
    assert clock.time("small", option(2)) is None
    pair = [(2, 8), (6, 2)]
    assert raced == [("Linear", pair, (8,)), ("Linear", pair, (5, 8)), ("Linear", [(3, 8), (6, 3)], (8,))]


@pytest.mark.parametrize(
    ("layer", "shape", "large"),
    [
        (nn.Linear(3, 3), (1,), True),
        (nn.Conv2d(2, 4, 3), (2, 3, 3), True),
        (nn.Conv2d(2, 4, 3), (2, 2, 3), False),
        (nn.Conv2d(2, 4, 3), (2, 3, 2), False),
        (nn.Conv2d(2, 4, (5, 3), padding=(1, 0)), (2, 3, 3), True),
        (nn.Conv2d(2, 4, (5, 3), padding=(1, 0)), (2, 2, 3), False),
        (nn.Conv2d(2, 4, 3, dilation=2), (2, 5, 5), True),
        (nn.Conv2d(2, 4, 3, dilation=2), (2, 5, 4), False),
        (nn.Conv2d(2, 4, 3, padding="same"), (2, 1, 1), True),
    ],
)
def test_a_map_is_large_enough_for_its_kernel_with_its_padding(layer, shape, large):
    assert layer_timing.fits(layer, shape) == large


@pytest.mark.parametrize(
    ("layer", "attributes"),
    [
        (nn.Conv2d(4, 4, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 3), groups=2),
         {"strides": [2, 1], "dilations": [1, 3], "group": 2, "pads": [1, 2, 1, 2]}),
        (nn.Conv2d(4, 4, 3, padding="same"),
         {"strides": [1, 1], "dilations": [1, 1], "group": 1, "auto_pad": "SAME_UPPER"}),
        (nn.Conv2d(4, 4, 3, padding="valid"),
         {"strides": [1, 1], "dilations": [1, 1], "group": 1, "auto_pad": "VALID"}),
    ],
)  # fmt: skip
def test_a_convolution_is_timed_as_it_is(layer, attributes):
    assert layer_timing._attributes(layer) == attributes


@pytest.mark.parametrize("bias", [False, True])
def test_what_is_timed_computes_what_the_layers_do(bias):
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 5, (1, 2), bias=bias))
    linear = nn.Sequential(nn.Linear(6, 3, bias=False), nn.Linear(3, 5, bias=bias))
    for module, shape in ((convolutions, (3, 6, 6)), (linear, (2, 6)), (linear[1], (3,))):
        graph = layer_timing._graph(module, (1, *shape))
        x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
        (found,) = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {"x": x})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), module(torch.from_numpy(x)), rtol=1e-4, atol=1e-5)


def test_a_race_is_the_fastest_run_of_each(monkeypatch):
    asked = []

    def time_in_turn(runs, seconds, **limits):
        asked.append((len(runs), seconds, limits))
        assert [run()[0].shape for run in runs] == [(1, 4), (1, 4)]
        return [SimpleNamespace(wall=[3.0, 2.0, 5.0]), SimpleNamespace(wall=[4.0, 7.0])]

    monkeypatch.setattr(layer_timing, "time_in_turn", time_in_turn)
    pair = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 4))
    assert layer_timing.race(nn.Linear(6, 4), pair, (6,)) == (2.0, 4.0)
    assert asked == [(2, 0.05, {"least": 9, "most": 200})]


def test_which_rows_have_an_effect_is_told_batch_by_batch():
    live = [torch.tensor([i % 2 == 0] * 3) for i in range(5)]
    own = KroneckerFactors.__new__(KroneckerFactors)
    own.live = []
    assert lowrank._live(own, [2, 1]) == [None, None]
    own.live = live
    found = lowrank._live(own, [2, 1, 2])
    assert [m.tolist() for m in found] == [
        [True] * 3 + [False] * 3,
        [True] * 3,
        [False] * 3 + [True] * 3,
    ]
    own.live = [torch.arange(lowrank.POSITIONS * 2 + 1) % 3 == 0]
    (found,) = lowrank._live(own, [1])
    assert found.tolist() == [i % 3 == 0 for i in range(0, lowrank.POSITIONS * 2 + 1, 3)]


def wanted_of(every, config, total=10.0, multiple=1):
    dense: dict[str, str] = {}
    found = lowrank._wanted(every, config, total, nn.Linear(100, 40), multiple, dense, "a")
    return found, dense.get("a")


def test_of_those_that_keep_the_energy_the_smallest_is_taken_and_of_those_the_best():
    exact, worse, large = option(3, error=2.5, size=50), option(3, error=2.6, size=20), option(9, error=0.0, size=90)
    config = config_of(energy=0.75)
    assert wanted_of([large, exact, worse], config) == ([exact], None)
    better = option(4, error=1.0, size=50, kind="tucker")
    assert wanted_of([exact, better, large], config) == ([better], None)
    reason = "no rank that keeps 0.75 of its energy needs fewer parameters than the 4,000 it has"
    assert wanted_of([worse], config) == ([], reason)
    reason = "no rank that keeps 0.1235 of its energy needs fewer parameters than the 4,000 it has"
    assert wanted_of([], config_of(energy=0.123456)) == ([], reason)
    assert wanted_of([option(1, error=0.0)], config_of(energy=1.0))[0] == []


def test_a_budget_takes_all_options():
    every = [option(1), option(2)]
    assert wanted_of(every, config_of(parameters=0.5)) == (every, None)
    reason = "rank {} already needs as many parameters as the 4,000 it has"
    assert wanted_of([], config_of(parameters=0.5), multiple=8) == ([], reason.format(8))
    assert wanted_of([], config_of(parameters=0.5), multiple=48) == ([], reason.format(40))


def test_the_budget_is_of_all_layers_that_may_be_factored():
    sizes = {"a": 100, "b": 300}
    found = {"a": [option(1, error=1.0, size=40)], "b": [option(2, error=5.0, size=100)]}
    choose = lowrank._chooser(config_of(parameters=0.5), sizes)
    assert choose(found) == {"a": None, "b": found["b"][0]}  # 100 + 100 of 200
    choose = lowrank._chooser(config_of(parameters=0.49), sizes)
    assert choose(found) == {name: each[0] for name, each in found.items()}
    choose = lowrank._chooser(config_of(energy=0.5), sizes)
    assert choose({"a": [option(1), option(2)], "b": []}) == {"a": option(1), "b": None}


def test_a_plan_says_of_every_layer_what_became_of_it(randomised, free, samples):
    model = randomised(Net())
    plan = lowrank.plan(model, config_of(parameters=1.0, skip=("fc2",)), samples, free)
    spent = "the parameter budget is better spent on this layer than on others"
    assert plan.dense == {"stem": spent, "deep": "grouped convolution", "mix.0": spent, "wide": spent, "fc1": spent,
                          "fc2": "skipped by the recipe"}  # fmt: skip
    assert list(plan.dense) == ["stem", "deep", "mix.0", "wide", "fc1", "fc2"]
    plan = lowrank.plan(model, config_of(energy=0.5, skip=("deep",)), samples, free)
    assert plan.dense["deep"] == "skipped by the recipe"
    assert plan.left == {}


def test_the_error_of_a_factor_is_a_share_of_the_whole(randomised, free):
    """Plain weights: a layer that never runs has the identity for its metric."""
    model = randomised(Again())
    model.idle = nn.Linear(16, 24)
    x = np.random.default_rng(0).normal(size=(16, 12)).astype(np.float32)
    plan = lowrank.plan(model, config_of(rank_fraction=0.25, multiple=1), [x], free)
    squares = torch.linalg.svdvals(model.idle.weight.detach().double()).square()
    assert plan.factors["idle"].ranks == (4,)
    assert plan.factors["idle"].error == pytest.approx(float(squares[4:].sum() / squares.sum()), rel=1e-6)
    assert (plan.factors["idle"].parameters, plan.factors["idle"].after) == (16 * 24, 4 * 40)
