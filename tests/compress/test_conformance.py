"""What every compressor promises, whoever wrote it: run over all registered ones and two of a plugin declared here."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
import smallnet
import torch
from onnx import numpy_helper
from rehearsal import rehearse
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo import hookimpl
from pocketzoo.compress.configs import DistillConfig, Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.compress.plans import LowRankPlan, PrunePlan
from pocketzoo.core.errors import RecipeError
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.zoo.bundles.bundle import graph_name
from pocketzoo.zoo.catalog.compressor import GraphCompressor, ModuleCompressor
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.export_graph import onnx_from_model

SPEC = InputSpec(shape=("batch", 3, 12, 12), mean=(0.5,) * 3, std=(0.25,) * 3, resize=12)


# -- a plugin as anyone may write it


@dataclass(frozen=True, slots=True, kw_only=True)
class NoBiasConfig:
    below: float = 0.1  # biases whose largest value is smaller go


@dataclass(frozen=True, slots=True, kw_only=True)
class NoBiasPlan:
    layers: tuple[str, ...] = ()


def _plan_no_bias(model, config, samples, target) -> NoBiasPlan:
    layers = [(n, m.bias) for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    return NoBiasPlan(
        layers=tuple(n for n, b in layers if b is not None and float(b.detach().abs().max()) < config.below)
    )


def _apply_no_bias(model, plan, samples=None) -> nn.Module:
    made = copy.deepcopy(model)
    for name in plan.layers:
        made.get_submodule(name).bias = None
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundConfig:
    bits: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    steps: dict[str, float]  # weight -> the size of a step


def _plan_round(model, config, samples) -> RoundPlan:
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith(".weight")}
    return RoundPlan(steps={n: float(np.abs(a).max()) / 2 ** (config.bits - 1) for n, a in arrays.items()})


def _apply_round(model, plan, target) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.name in plan.steps:
            step = np.float32(plan.steps[tensor.name])
            rounded = np.round(numpy_helper.to_array(tensor) / step) * step
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    return made


def third_party() -> ModuleType:
    plugin = ModuleType("shrinkers")

    @hookimpl
    def pocketzoo_compressors() -> Iterable[object]:
        return [
            ModuleCompressor(
                name="no-bias",
                summary="drop small biases",
                config=NoBiasConfig,
                plan_type=NoBiasPlan,
                plan=_plan_no_bias,
                apply=_apply_no_bias,
            ),
            GraphCompressor(
                name="round",
                summary="round weights",
                config=RoundConfig,
                plan_type=RoundPlan,
                plan=_plan_round,
                apply=_apply_round,
            ),
        ]

    plugin.pocketzoo_compressors = pocketzoo_compressors
    return plugin


CONFIGS = {
    "prune": PruneConfig(ratio=0.3),
    "low-rank": LowRankConfig(parameters=0.5, only_faster=False),
    "distill": DistillConfig(epochs=2),
    "int8": Int8Config(),
    "no-bias": NoBiasConfig(below=10.0),
    "round": RoundConfig(),
}
MODULE, GRAPH = ("prune", "low-rank", "distill", "no-bias"), ("int8", "round")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.a, self.b = nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 16, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(16, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = F.relu(y + self.b(F.relu(self.a(y))))
        return self.fc2(F.relu(self.fc1(y.mean((2, 3)))))


@pytest.fixture(scope="module")
def everyone() -> Registry:
    return Registry(create_manager(points=[], extra=[third_party(), smallnet]))


@pytest.fixture(scope="module")
def model(randomised) -> nn.Module:
    return randomised(Net())


@pytest.fixture(scope="module")
def samples(batches):
    return batches((3, 12, 12))


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx_from_model(model, SPEC, path)
    return onnx.load(path)


def snapshot(module: nn.Module) -> dict[str, tuple]:
    return {k: (v.shape, v.dtype, v.numpy().tobytes()) for k, v in module.state_dict().items()}


def logits(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {model.graph.input[0].name: x})[0]


def test_every_registered_compressor_is_tested_here(everyone, registry):
    assert set(everyone.entries("compressor")) == set(CONFIGS)
    assert set(registry.entries("compressor")) == set(CONFIGS) - {"no-bias", "round"}
    assert {e.name: e.spec.form for e in everyone.entries("compressor").values()} == {
        **dict.fromkeys(MODULE, "module"), **dict.fromkeys(GRAPH, "graph")
    }  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_it_says_what_it_does_and_takes_its_own_config(name, everyone):
    spec = everyone.get("compressor", name)
    assert spec.summary
    assert type(CONFIGS[name]) is spec.config
    assert from_plain(spec.config, to_plain(CONFIGS[name])) == CONFIGS[name]


@pytest.mark.parametrize("name", MODULE)
def test_the_module_given_is_not_changed(name, everyone, model, samples, cpu):
    spec = everyone.get("compressor", name)
    before, text = snapshot(model), repr(model)
    plan = spec.plan(model, CONFIGS[name], samples, cpu)
    assert snapshot(model) == before
    made = spec.apply(model, plan, samples)
    assert snapshot(model) == before
    assert repr(model) == text
    assert made is not model
    for parameter in made.parameters():  # writing to the new one must not reach the old one
        parameter.data.add_(1.0)
    assert snapshot(model) == before


@pytest.mark.parametrize("name", MODULE)
def test_the_samples_are_not_changed(name, everyone, model, samples, cpu):
    spec = everyone.get("compressor", name)
    before = [x.tobytes() for x in samples]
    spec.apply(model, spec.plan(model, CONFIGS[name], samples, cpu), samples)
    assert [x.tobytes() for x in samples] == before


@pytest.mark.parametrize("name", MODULE)
def test_two_runs_on_a_module_agree_bit_for_bit(name, everyone, model, samples, cpu):
    spec = everyone.get("compressor", name)
    plans = [spec.plan(copy.deepcopy(model), CONFIGS[name], samples, cpu) for _ in range(2)]
    assert plans[0] == plans[1]
    assert snapshot(spec.apply(model, plans[0], samples)) == snapshot(spec.apply(model, plans[1], samples))


@pytest.mark.parametrize("name", MODULE)
def test_a_plan_saved_as_json_replays_the_structure(name, everyone, model, samples, cpu):
    spec = everyone.get("compressor", name)
    plan = spec.plan(model, CONFIGS[name], samples, cpu)
    made = spec.apply(model, plan, samples)
    read = spec.read_plan(json.loads(json.dumps(to_plain(plan))))
    assert read == plan
    fresh = spec.apply(Net().eval(), read, None)
    fresh.load_state_dict(made.state_dict())
    assert snapshot(fresh) == snapshot(made)
    x = torch.from_numpy(samples[0])
    with torch.no_grad():
        assert torch.equal(fresh(x), made(x))


@pytest.mark.parametrize("name", MODULE)
def test_it_makes_the_module_smaller_and_keeps_its_outputs_shape(name, everyone, model, samples, cpu):
    spec = everyone.get("compressor", name)
    made = spec.apply(model, spec.plan(model, CONFIGS[name], samples, cpu), samples)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, made))
    assert after == before if name == "distill" else after < before
    assert not made.training
    for batch in (1, 2, 5):
        with torch.no_grad():
            out = made(torch.zeros(batch, 3, 12, 12))
        assert out.shape == (batch, 5)
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", MODULE)
def test_the_result_exports(name, everyone, model, samples, cpu, tmp_path):
    spec = everyone.get("compressor", name)
    made = spec.apply(model, spec.plan(model, CONFIGS[name], samples, cpu), samples)
    assert onnx_from_model(made, SPEC, tmp_path / "model.onnx") < 1e-4


@pytest.mark.parametrize("name", GRAPH)
def test_the_graph_given_is_not_changed(name, everyone, graph, samples, cpu):
    spec = everyone.get("compressor", name)
    before = graph.SerializeToString(deterministic=True)
    plan = spec.plan(graph, CONFIGS[name], samples)
    spec.apply(graph, plan, cpu)
    assert graph.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", GRAPH)
def test_two_runs_on_a_graph_agree(name, everyone, graph, samples, cpu, nvidia):
    spec = everyone.get("compressor", name)
    plans = [spec.plan(graph, CONFIGS[name], samples) for _ in range(2)]
    assert plans[0] == plans[1]
    for target in (cpu, nvidia):
        one, two = (spec.apply(graph, p, target).SerializeToString(deterministic=True) for p in plans)
        assert one == two


@pytest.mark.parametrize("name", GRAPH)
def test_a_graph_plan_saved_as_json_encodes_the_same(name, everyone, graph, samples, cpu, nvidia):
    spec = everyone.get("compressor", name)
    plan = spec.plan(graph, CONFIGS[name], samples)
    read = spec.read_plan(json.loads(json.dumps(to_plain(plan))), getattr(plan, "tensors", None))
    assert read == plan
    for target in (cpu, nvidia):
        assert spec.apply(graph, read, target) == spec.apply(graph, plan, target)


@pytest.mark.parametrize("name", GRAPH)
def test_a_compressed_graph_runs_at_any_batch_and_is_near(name, everyone, graph, samples, cpu, nvidia):
    spec = everyone.get("compressor", name)
    plan = spec.plan(graph, CONFIGS[name], samples)
    for target in (cpu, nvidia):
        made = spec.apply(graph, plan, target)
        onnx.checker.check_model(made, full_check=True)
        for batch in (1, 2, 5):
            wanted, given = logits(graph, samples[0][:batch]), logits(made, samples[0][:batch])
            assert given.shape == wanted.shape == (batch, 5)
            noise = np.square(wanted - given).sum() / np.square(wanted).sum()
            assert 0 < noise < 0.05


# -- through the pipeline


@pytest.mark.parametrize("name", MODULE)
def test_the_report_equals_a_recount(name, everyone, small):
    """Numbers of the report against parameters counted on modules made here."""
    steps = rehearse(small.path, data="digits", steps=[CONFIGS[name]], samples=8, registry=everyone)
    assert [s.compressor for s in steps] == [name]
    before = load_module(small, everyone)
    spec = everyone.get("compressor", name)
    after = spec.apply(before, spec.read_plan(steps[0].plan), None)
    for when, module in (("before", before), ("after", after)):
        assert getattr(steps[0].report.parameters, when) == sum(p.numel() for p in module.parameters())
    assert steps[0].config == to_plain(CONFIGS[name])


def test_a_plugins_steps_go_into_a_bundle_and_come_back(everyone, small, tmp_path):
    """Two steps nobody here knows, by recipe; the bundle opens again with the plugin's code."""
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[step]]\nkind = "no-bias"\nbelow = 100.0\n[[step]]\nkind = "round"\nbits = 5\n')
    bundle = compress(
        small.path, tmp_path / "out", data="digits", recipe=recipe, targets=("tensorrt",), samples=8, registry=everyone
    )
    assert [s.compressor for s in bundle.manifest.steps] == ["no-bias", "round"]
    assert bundle.manifest.steps[1].config == {"bits": 5}
    module = load_module(bundle, everyone)
    assert sum(p.numel() for p in module.parameters()) == bundle.manifest.parameters
    assert all(m.bias is None for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    rounded = onnx.load(bundle.graph("tensorrt"))
    for tensor in rounded.graph.initializer:
        if tensor.name.endswith(".weight"):
            assert len(np.unique(numpy_helper.to_array(tensor))) <= 2**5 + 1
    # What it made is no int8 graph, and must not be called one.
    entry = next(e for e in bundle.manifest.files.values() if e.target == "tensorrt")
    assert entry.precision != "int8"
    assert graph_name("tensorrt") not in bundle.manifest.files


def test_without_the_plugin_its_recipe_is_refused(registry, fitted, tmp_path, refused):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[step]]\nkind = "no-bias"\n')
    with refused(RecipeError, "no step is of kind 'no-bias'"):
        rehearse(fitted.path, data="digits", recipe=recipe, registry=registry)
    with refused(RecipeError, "no compressor is configured by NoBiasConfig"):
        rehearse(fitted.path, data="digits", steps=[NoBiasConfig()], registry=registry)


def test_plan_types_are_the_ones_of_the_bundle(registry):
    plans = {e.name: e.spec.plan_type for e in registry.entries("compressor").values()}
    assert (plans["prune"], plans["low-rank"]) == (PrunePlan, LowRankPlan)
