"""A compressor that lets the weights of each layer share a few values: what it says of itself, without numpy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import log2
from typing import TYPE_CHECKING, Any

from pocketzoo.api import Compressor, GraphCompressor, LayerDecision, Samples, TargetSpec, check_field, hookimpl

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Cluster the weights of each layer."""

    values: int = 16  # that the weights of a layer share, 2 to 256
    skip: tuple[str, ...] = ()  # layers to leave in float, by name or glob
    max_drop: float | None = None  # maximum loss of the metric against the float graph, 0-1

    def __post_init__(self) -> None:
        check_field(self, "values", 2 <= self.values <= 256, "at least 2 and at most 256: an index is one byte")
        check_field(self, "max_drop", self.max_drop is None or 0.0 <= self.max_drop < 1.0, "at least 0 and below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """``values``: layer -> how many values its weights share. ``left``: layer -> why it stays as it is.

    ``tensors``: ``LAYER.codebook``, float32 (values,), and ``LAYER.indices``, uint8 of the weight's shape.
    """

    values: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False, metadata={"separate": True})


def _plan(model: ModelProto, config: ClusterConfig, samples: Samples) -> ClusterPlan:
    from pocketzoo_cluster_weights.clustering import plan

    return plan(model, config)


def _apply(model: ModelProto, plan: ClusterPlan, target: TargetSpec) -> ModelProto:
    from pocketzoo_cluster_weights.clustering import apply

    return apply(model, plan)


def _weaker(config: ClusterConfig, share: float) -> ClusterConfig:
    """More values: the bits of an index move towards 8."""
    return replace(config, values=round(2 ** (8 - (8 - log2(config.values)) * share)))


def _exclude(plan: ClusterPlan, layers: Collection[str]) -> ClusterPlan:
    return replace(
        plan,
        values={layer: count for layer, count in plan.values.items() if layer not in layers},
        left={**plan.left, **{layer: "the budget excludes it" for layer in plan.values if layer in layers}},
        tensors={name: value for name, value in plan.tensors.items() if name.rpartition(".")[0] not in layers},
    )


def _describe(plan: ClusterPlan) -> Iterator[LayerDecision]:
    for layer, count in plan.values.items():
        yield LayerDecision(layer=layer, what=f"{count} values", precision="codebook")
    for layer, why in plan.left.items():
        yield LayerDecision(layer=layer, what="stays in float", why=why)


@hookimpl
def pocketzoo_compressors() -> list[Compressor]:
    return [
        GraphCompressor(
            name="cluster-weights",
            summary="let the weights of each layer share a few values (k-means)",
            config=ClusterConfig,
            plan_type=ClusterPlan,
            precision="codebook",
            price="bytes",
            plan=_plan,
            apply=_apply,
            weaker=_weaker,
            exclude=_exclude,
            describe=_describe,
        )
    ]
