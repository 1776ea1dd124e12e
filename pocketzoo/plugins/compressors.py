"""The compressors that ship with pocketzoo: prune, low-rank, distill, int8."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pocketzoo.compress.configs import DistillConfig, Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.plans import DistillPlan, Int8Plan, LowRankPlan, PrunePlan
from pocketzoo.plugins.plan_descriptions import describe_int8, describe_low_rank, describe_prune
from pocketzoo.zoo.catalog.compressor import Compressor, Distillation, GraphCompressor, ModuleCompressor
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.specs import Fp8Encoding, TargetSpec

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

    from pocketzoo.core.arrays import Arrays
    from pocketzoo.zoo.catalog.backend import GraphTimer


def _plan_prune(
    model: nn.Module,
    config: PruneConfig,
    samples: Iterable[Arrays],
    target: TargetSpec,
    *,
    shipped: Callable[[ModelProto], ModelProto] | None = None,
) -> PrunePlan:
    from pocketzoo.compress.pruning import prune

    return prune.plan(model, config, samples, target, shipped=shipped)


def _apply_prune(model: nn.Module, plan: PrunePlan, samples: Iterable[Arrays] | None = None) -> nn.Module:
    from pocketzoo.compress.pruning import prune

    return prune.apply(model, plan, samples)


def _plan_low_rank(
    model: nn.Module, config: LowRankConfig, samples: Iterable[Arrays], target: TargetSpec
) -> LowRankPlan:
    from pocketzoo.compress.low_rank import low_rank as lowrank

    return lowrank.plan(model, config, samples, target)


def _apply_low_rank(model: nn.Module, plan: LowRankPlan, samples: Iterable[Arrays] | None = None) -> nn.Module:
    from pocketzoo.compress.low_rank import low_rank as lowrank

    return lowrank.apply(model, plan, samples)


def _plan_distill(
    model: nn.Module, config: DistillConfig, samples: Iterable[Arrays], target: TargetSpec
) -> DistillPlan:
    from pocketzoo.compress.distillation import distill

    return distill.plan(model, config, samples, target)


def _apply_distill(model: nn.Module, plan: DistillPlan, samples: Iterable[Arrays] | None = None) -> nn.Module:
    from pocketzoo.compress.distillation import distill

    return distill.apply(model, plan, samples)


def _distill(model: nn.Module, plan: DistillPlan, samples: Iterable[Arrays], context: Distillation) -> nn.Module:
    from pocketzoo.compress.distillation import distill

    return distill.distill(model, plan, samples, context)


def _weaker_prune(config: PruneConfig, share: float) -> PruneConfig:
    """A budget moves towards everything, or else the ratio towards nothing."""
    budgets = {name: getattr(config, name) for name in ("macs", "parameters", "latency")}
    budget = {name: 1.0 - (1.0 - value) * share for name, value in budgets.items() if value is not None}
    return replace(config, **budget) if budget else replace(config, ratio=config.ratio * share)


def _weaker_low_rank(config: LowRankConfig, share: float) -> LowRankConfig:
    """What is kept moves towards everything."""
    budgets = {name: getattr(config, name) for name in ("parameters", "energy", "rank_fraction")}
    return replace(
        config, **{name: 1.0 - (1.0 - value) * share for name, value in budgets.items() if value is not None}
    )


def _plan_int8(model: ModelProto, config: Int8Config, samples: Iterable[Arrays]) -> Int8Plan:
    from pocketzoo.compress.quantization import int8

    return int8.plan(model, config, samples)


def _sketch_int8(model: ModelProto, config: Int8Config, samples: Iterable[Arrays]) -> Int8Plan:
    from pocketzoo.compress.quantization import int8

    return int8.plan(model, config, samples, refine=False)


def _apply_int8(model: ModelProto, plan: Int8Plan, target: TargetSpec) -> ModelProto:
    from pocketzoo.compress.quantization import int8

    return int8.apply(model, plan, target)


def _tune_int8(
    model: ModelProto, plan: Int8Plan, config: Int8Config, x: Arrays, target: TargetSpec, timer: GraphTimer
) -> Int8Plan:
    from pocketzoo.compress.quantization.precision import faster_in_float

    return faster_in_float.tune(model, plan, x, target, timer) if config.only_faster else plan


def _exclude_int8(plan: Int8Plan, layers: Collection[str]) -> Int8Plan:
    from pocketzoo.compress.quantization import int8

    return int8.exclude(plan, layers)


def _int8_for_graph(config: Int8Config, model: ModelProto) -> Int8Config:
    from pocketzoo.compress.quantization.skipped_layers import for_graph

    return for_graph(config, model)


def _fp8_of_int8(
    model: ModelProto, plan: Int8Plan, encoding: Fp8Encoding, samples: Iterable[Arrays]
) -> tuple[ModelProto, Any]:
    from pocketzoo.compress.quantization import fp8

    return fp8.apply(model, plan, encoding, samples)


def _before_int8(target: TargetSpec) -> TargetSpec:
    multiple = target.int8_multiple or target.channel_multiple
    depthwise = target.int8_depthwise_multiple or target.int8_multiple or target.depthwise_multiple
    return replace(target, channel_multiple=multiple, depthwise_multiple=depthwise, costs=target.int8_costs)


@hookimpl
def pocketzoo_compressors() -> list[Compressor]:
    return [
        ModuleCompressor(
            name="prune",
            synthetic="resembling",
            summary="remove channels, or set single weights to zero",
            config=PruneConfig,
            plan_type=PrunePlan,
            plan=_plan_prune,
            times_shipped=True,
            apply=_apply_prune,
            weaker=_weaker_prune,
            describe=describe_prune,
        ),
        ModuleCompressor(
            name="low-rank",
            synthetic="resembling",
            summary="replace layers by two or three smaller ones (SVD, Tucker-2, spatial)",
            config=LowRankConfig,
            plan_type=LowRankPlan,
            plan=_plan_low_rank,
            apply=_apply_low_rank,
            weaker=_weaker_low_rank,
            describe=describe_low_rank,
        ),
        ModuleCompressor(
            name="distill",
            summary="train the compressed model to reproduce the original's outputs",
            config=DistillConfig,
            plan_type=DistillPlan,
            plan=_plan_distill,
            apply=_apply_distill,
            distill=_distill,
        ),
        GraphCompressor(
            name="int8",
            synthetic="any",
            precision="int8",
            summary="quantize weights and activations to int8",
            config=Int8Config,
            plan_type=Int8Plan,
            plan=_plan_int8,
            sketch=_sketch_int8,
            tune=_tune_int8,
            apply=_apply_int8,
            describe=describe_int8,
            module_target=_before_int8,
            exclude=_exclude_int8,
            for_graph=_int8_for_graph,
            fp8=_fp8_of_int8,
        ),
    ]
