"""What third parties add, from their declaration to the report, and without them: the right result, or two lines.

The plugins here import ``pocketzoo.api`` alone, as any would.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import smallnet
import torch
from torch import Tensor, nn

import pocketzoo
from pocketzoo.api import (
    FeatureSpec,
    GraphCompressor,
    HeadSpec,
    Int8Config,
    Int8Encoding,
    LayerDecision,
    MissingPluginError,
    PocketzooError,
    RecipeError,
    Registry,
    TargetSpec,
    UnknownNameError,
    hookimpl,
)
from pocketzoo.zoo.catalog.plugin_manager import create_manager

QUICK = {"data": "digits", "samples": 16, "keep_slower": True}


def registry_of(**hooks: Any) -> Registry:
    """What ships, the small backbone, and a plugin "acme" with these hooks."""
    acme = ModuleType("acme")
    for name, specs in hooks.items():
        setattr(acme, f"pocketzoo_{name}", hookimpl(lambda specs=specs: specs))
    return Registry(create_manager(points=[], extra=[smallnet, acme]))


# -- compressors


@dataclass(frozen=True, kw_only=True)
class RoundConfig:
    bits: int = 6


@dataclass(frozen=True, kw_only=True)
class FewerBits(Int8Config):
    """It extends the config of a compressor that ships, and is another's all the same."""

    bits: int = 4


@dataclass(frozen=True, kw_only=True)
class RoundPlan:
    steps: dict[str, float]
    bits: int = 6
    tensors: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False, metadata={"separate": True})


class Rounding:
    """A compressor's functions, which note who was called."""

    def __init__(self, name: str, config: type[Any], *, tensors: bool = False) -> None:
        self.name, self.config, self.tensors, self.calls = name, config, tensors, list[str]()

    def plan(self, model: onnx.ModelProto, config: Any, samples: Iterable[Any]) -> RoundPlan:
        self.calls.append("plan")
        weights = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer if len(i.dims) > 1}
        steps = {name: float(np.abs(w).max() / 2 ** (config.bits - 1)) for name, w in weights.items()}
        return RoundPlan(steps=steps, bits=config.bits, tensors={"t": np.zeros(3, np.float32)} if self.tensors else {})

    def apply(self, model: onnx.ModelProto, plan: RoundPlan, target: TargetSpec) -> onnx.ModelProto:
        self.calls.append("apply")
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for tensor in copy.graph.initializer:
            if tensor.name in plan.steps:
                step = np.float32(plan.steps[tensor.name])
                rounded = np.round(onnx.numpy_helper.to_array(tensor) / step) * step
                tensor.CopyFrom(onnx.numpy_helper.from_array(rounded.astype(np.float32), tensor.name))
        return copy

    def describe(self, plan: RoundPlan) -> Iterable[LayerDecision]:
        for name in plan.steps:
            yield LayerDecision(layer=name.removesuffix(".weight"), what=f"{plan.bits} bits", precision="int6")

    def exclude(self, plan: RoundPlan, layers: Collection[str]) -> RoundPlan:
        self.calls.append("exclude")
        return replace(plan, steps={n: s for n, s in plan.steps.items() if n.removesuffix(".weight") not in layers})

    def spec(self, **changes: Any) -> GraphCompressor[Any, RoundPlan]:
        return GraphCompressor(
            name=self.name, summary="rounds weights", config=self.config, plan_type=RoundPlan, plan=self.plan,
            apply=self.apply, precision="int6", describe=self.describe, **changes,
        )  # fmt: skip


def test_a_recipe_s_word_finds_the_compressor_and_a_shared_config_alone_does_not(small, tmp_path, refused, untimed):
    acme = Rounding("int8-acme", FewerBits)
    registry = registry_of(compressors=[replace(acme.spec(), config=Int8Config)])
    acme.plan = lambda model, config, samples: RoundPlan(steps={})  # type: ignore[method-assign]
    with refused(RecipeError, "Int8Config", hint="Step('int8"):
        pocketzoo.compress(small.path, tmp_path / "out", steps=[Int8Config()], registry=registry, **QUICK)
    assert not (tmp_path / "out").exists()


def test_each_of_two_under_one_config_does_its_own(small, tmp_path, untimed):
    acme = Rounding("rounded", RoundConfig)
    again = Rounding("rounded-again", RoundConfig)
    registry = registry_of(compressors=[acme.spec(), again.spec()])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[step]]\nkind = "rounded-again"\nbits = 5\n')
    bundle = pocketzoo.compress(small.path, tmp_path / "out", recipe=recipe, registry=registry, **QUICK)
    (record,) = bundle.manifest.steps
    assert record.compressor == "rounded-again"
    assert (acme.calls, again.calls[:2]) == ([], ["plan", "apply"])
    assert record.config["bits"] == 5


@pytest.mark.parametrize("budget", [{}, {"max_drop": 0.02}])
def test_a_config_that_extends_that_of_int8_is_its_own_compressor_s(budget, small, tmp_path, untimed):
    """With a budget as well: no search of int8's runs on its plan."""
    acme = Rounding("int4", FewerBits)
    registry = registry_of(compressors=[acme.spec(exclude=acme.exclude)])
    bundle = pocketzoo.compress(
        small.path, tmp_path / "out", steps=[FewerBits(bits=3)], registry=registry, accept=True, **budget, **QUICK
    )
    assert [step.compressor for step in (*bundle.manifest.steps, *bundle.manifest.rejected)] == ["int4"]
    assert "plan" in acme.calls
    if budget:
        assert "exclude" in acme.calls


def test_a_step_called_as_the_weights_are_writes_nothing_over_them(small, tmp_path, untimed):
    acme = Rounding("model", RoundConfig, tensors=True)
    registry = registry_of(compressors=[acme.spec()])
    weights = (small.path / "model.safetensors").read_bytes()
    bundle = pocketzoo.compress(small.path, tmp_path / "out", steps=[RoundConfig()], registry=registry, **QUICK)
    assert (bundle.path / "model.safetensors").read_bytes() == weights
    assert [step.compressor for step in bundle.manifest.steps] == ["model"]
    pocketzoo.verify(bundle.path)


def test_without_its_plugin_a_bundle_runs_and_says_what_to_install(small, small_registry, tmp_path, refused, untimed):
    acme = Rounding("rounded", RoundConfig)
    registry = registry_of(compressors=[acme.spec()])
    bundle = pocketzoo.compress(small.path, tmp_path / "out", steps=[RoundConfig()], registry=registry, **QUICK)
    page = pocketzoo.report([bundle.path], tmp_path / "report.html", registry=registry).read_text("utf8")
    assert "rounded" in page
    assert "int6" in page
    with pocketzoo.load_runtime(bundle.path, registry=small_registry) as runtime:
        assert runtime.file.name == "model.int6.cpu.onnx"
    with pytest.raises(PocketzooError) as error:
        pocketzoo.export(bundle.path, to="onnx", target="openvino", out=tmp_path / "o.onnx", registry=small_registry)
    assert isinstance(error.value, MissingPluginError)
    assert "rounded" in error.value.message
    assert error.value.hint
    assert not (tmp_path / "o.onnx").exists()


def test_without_the_plugin_of_its_backbone_what_needs_the_module_names_it(small, refused):
    from pocketzoo.zoo.models.build import load_module

    with refused(MissingPluginError, small.manifest.name, "smallnet", "not installed", hint="install it"):
        load_module(small, Registry(create_manager(points=[])))


# -- targets


INT8 = Int8Encoding(activations="int8", symmetric=True, int32_bias=False, fuses_add=False)


def test_a_target_whose_name_is_a_path_is_left_out_and_the_others_serve(small, tmp_path, refused, untimed):
    targets = [TargetSpec(name=name, summary="x", int8=INT8) for name in ("hexa", "a/b", "../c")]
    registry = registry_of(targets=targets)
    (reason,) = [plugin.reason for plugin in registry.plugins() if plugin.name == "acme"]
    assert "a target cannot be called 'a/b'" in reason
    with refused(UnknownNameError, "no target is called 'a/b'", hint="not in use: acme"):
        pocketzoo.compress(
            small.path, tmp_path / "c", steps=[Int8Config()], targets=["a/b"], registry=registry, **QUICK
        )
    out = pocketzoo.export(small.path, to="onnx", target="hexa", out=tmp_path / "o.onnx", registry=registry)
    assert out.is_file()


@pytest.mark.parametrize("precision", ["int/8", "../x", "INT8", "a.b", ""])
def test_a_precision_that_could_be_a_path_is_refused_where_it_is_declared(precision):
    registry = registry_of(compressors=[replace(Rounding("rounded", RoundConfig).spec(), precision=precision)])
    (reason,) = [plugin.reason for plugin in registry.plugins() if plugin.name == "acme"]
    assert f"GraphCompressor.precision of 'rounded' cannot be {precision!r}; use lower-case letters" in reason
    assert "rounded" not in registry.entries("compressor")


# -- a head, for a task whose metric is no accuracy


class Line(nn.Module):
    """The mean of each channel, and a linear layer, from features (B, C, H, W) to numbers (B, outputs)."""

    def __init__(self, features: FeatureSpec, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features.channels, outputs)
        self.register_buffer("offset", torch.zeros(outputs))
        self.register_buffer("scale", torch.ones(outputs))

    def standardize(self, offset: Tensor, scale: Tensor) -> None:
        self.get_buffer("offset").copy_(offset)
        self.get_buffer("scale").copy_(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_buffer("offset") + self.get_buffer("scale") * self.linear(x.mean((2, 3)))


LINE = HeadSpec(name="line", summary="s", takes=("map",), task="regression", build=Line, loss="mse_loss")


def brightness(path: Path, count: int = 240, by: float = 0.0) -> Path:
    """Images, and how bright each is, in a unit of its own."""
    generator = np.random.default_rng(0)
    level = generator.uniform(0.1, 0.9, count)
    x = level[:, None, None, None] + generator.normal(0, 0.1, (count, 1, 8, 8))
    np.savez(path, x=x.astype(np.float32), y=(300 + by + 50 * level).astype(np.float32))
    return path


@pytest.mark.slow
def test_the_metric_of_a_head_of_numbers_is_r2_all_the_way(tmp_path, untimed):
    """From fit over eval, a budget and bench to the report, without a word of accuracy."""
    registry, data = registry_of(heads=[LINE]), brightness(tmp_path / "levels.npz")
    common = {"data": data, "registry": registry}
    training = {"unfreeze": "all", "backbone_rate": 1.0}
    fitted = pocketzoo.fit("smallnet", tmp_path / "m", head="line", epochs=30, learning_rate=0.02,
                           training=training, **common)  # fmt: skip
    good = fitted.manifest.metrics["test_r2"]
    assert good > 0.8
    scores = pocketzoo.eval(fitted.path, **common)
    assert (scores["metric"], scores["r2"]) == ("r2", pytest.approx(good, abs=1e-5))

    small = pocketzoo.compress(fitted.path, tmp_path / "s", steps=[Int8Config()], samples=64, max_drop=0.05,
                               keep_slower=True, **common)  # fmt: skip
    (step,) = small.manifest.steps
    assert not small.manifest.rejected
    assert step.report.metric is not None
    assert (step.report.metric.name, step.report.metric.unit) == ("r2", "")
    assert small.manifest.metrics["test_r2_cpu"] >= good - 0.05

    before, after = pocketzoo.bench([fitted.path, small.path], seconds=0, save=True, **common)
    assert (before.metric.name, before.metric.value) == ("r2", pytest.approx(good, abs=1e-5))
    assert after.metric.value == pytest.approx(pocketzoo.eval(small.path, **common)["r2"], abs=1e-5)
    assert before.agreement is None or before.agreement == 1
    assert 0.9 < after.agreement <= 1  # of two models whose numbers are a few thousandths apart
    page = pocketzoo.report([small.path], tmp_path / "r.html", **common).read_text("utf8")
    assert "r2" in page
    assert "accuracy" not in page
    assert f"{100 * after.metric.value:.1f}" in page


@pytest.mark.parametrize("budget", [{}, {"max_drop": 0.01}])
def test_a_model_of_numbers_that_is_better_is_not_rejected(budget, tmp_path, untimed):
    """A step that mends what was wrong: R2 rises, however far the answers are from those before."""
    registry = registry_of(heads=[LINE], compressors=[SHIFT])
    there, moved = brightness(tmp_path / "there.npz"), brightness(tmp_path / "moved.npz", by=40.0)
    common = {"samples": 16, "keep_slower": True, "registry": registry}
    fitted = pocketzoo.fit("smallnet", tmp_path / "m", head="line", data=there, epochs=30, learning_rate=0.02,
                           training={"unfreeze": "all", "backbone_rate": 1.0}, registry=registry)  # fmt: skip
    steps = [ShiftConfig(by=40.0)]
    with pytest.raises(PocketzooError, match="r2 falls"):
        pocketzoo.compress(fitted.path, tmp_path / "w", data=there, steps=steps, **budget, **common)
    mended = pocketzoo.compress(fitted.path, tmp_path / "b", data=moved, steps=steps, **budget, **common)
    (step,) = mended.manifest.steps
    assert not mended.manifest.rejected
    assert step.report.metric.before < 0
    assert step.report.metric.after > 0.8


@dataclass(frozen=True, kw_only=True)
class ShiftConfig:
    by: float = 0.0  # is added to the answers


@dataclass(frozen=True, kw_only=True)
class ShiftPlan:
    by: float = 0.0


def shift(model: onnx.ModelProto, plan: ShiftPlan, target: TargetSpec) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (offset,) = [each for each in copy.graph.initializer if each.name.endswith("offset")]
    moved = onnx.numpy_helper.to_array(offset) + np.float32(plan.by)
    offset.CopyFrom(onnx.numpy_helper.from_array(moved, offset.name))
    return copy


SHIFT = GraphCompressor(
    name="shift",
    summary="adds to the answers",
    config=ShiftConfig,
    plan_type=ShiftPlan,
    plan=lambda model, config, samples: ShiftPlan(by=config.by),
    apply=shift,
    precision="shifted",
)
