"""Compressors of graphs with one defect each, and one that has none. Part of wrong_zoo.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pocketzoo.zoo.catalog.compressor import GraphCompressor, LayerDecision


@dataclass(frozen=True)
class HalfConfig:
    factor: float = 0.5


@dataclass(frozen=True)
class HalfPlan:
    weights: tuple[str, ...] = ()
    factor: float = 0.5


def plan(model, config, samples):
    return HalfPlan(tuple(i.name for i in model.graph.initializer if len(i.dims) > 1), config.factor)


def apply(model, plan, target):
    import numpy as np
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.name in plan.weights:
            values = onnx.numpy_helper.to_array(tensor) * np.float32(plan.factor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return made


def loses_an_output(model, plan, target):
    made = apply(model, plan, target)
    del made.graph.output[1:]
    return made


def describe(plan):
    return [LayerDecision(layer=n.removesuffix(".weight"), what="halved", precision="half") for n in plan.weights]


def exclude(plan, layers):
    return replace(plan, weights=tuple(n for n in plan.weights if n.removesuffix(".weight") not in layers))


def weaker(config, fraction):
    return replace(config, factor=1 - fraction * (1 - config.factor))


FINE = GraphCompressor(
    name="fine-graph", summary="halves weights", config=HalfConfig, plan_type=HalfPlan, plan=plan, apply=apply,
    describe=describe, exclude=exclude, weaker=weaker,
)  # fmt: skip


def compressors():
    return [
        FINE,
        replace(FINE, name="loses-an-output", apply=loses_an_output),
        replace(FINE, name="says-it-twice", describe=lambda plan: [*describe(plan), *describe(plan)][:2] * 2,
                exclude=None),
        replace(FINE, name="excludes-none", exclude=lambda plan, layers: plan),
        replace(FINE, name="never-weaker", weaker=lambda config, fraction: config),
    ]  # fmt: skip
