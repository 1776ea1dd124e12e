"""What third parties add, from their declaration to the report, and without them: the right result, or two lines.

The plugins here import ``pocketzoo.api`` alone, as any would.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import smallnet

import pocketzoo
from pocketzoo.api import (
    GraphCompressor,
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
