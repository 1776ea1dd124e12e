"""int8 whose ranges are always percentiles: a compressor that takes the config of another, under its own name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pocketzoo.api import (
    Compressor,
    GraphCompressor,
    Int8Config,
    Int8Plan,
    LayerDecision,
    Samples,
    TargetSpec,
    default_registry,
    hookimpl,
)

if TYPE_CHECKING:
    from onnx import ModelProto


def _int8() -> GraphCompressor[Int8Config, Int8Plan]:
    """The step that ships. Looked up when it is needed: while plugins declare themselves there is no registry yet."""
    compressor: Any = default_registry().get("compressor", "int8")
    return compressor


def _plan(model: ModelProto, config: Int8Config, samples: Samples) -> Int8Plan:
    return _int8().plan(model, replace(config, ranges="percentile"), samples)


def _apply(model: ModelProto, plan: Int8Plan, target: TargetSpec) -> ModelProto:
    return _int8().apply(model, plan, target)


def _exclude(plan: Int8Plan, layers: Collection[str]) -> Int8Plan:
    exclude = _int8().exclude
    assert exclude is not None
    return exclude(plan, layers)


def _describe(plan: Int8Plan) -> Iterable[LayerDecision]:
    return _int8().decisions(plan)


@hookimpl
def pocketzoo_compressors() -> list[Compressor]:
    return [
        GraphCompressor(
            name="int8-percentile",
            summary="quantize weights and activations to int8, with ranges that are percentiles",
            config=Int8Config,
            plan_type=Int8Plan,
            precision="int8",
            plan=_plan,
            apply=_apply,
            exclude=_exclude,
            describe=_describe,
        )
    ]
