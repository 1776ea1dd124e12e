"""What the plans of the compressors that ship say of each layer: for dry runs, reports and bundles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pocketzoo.compress.plans import Int8Plan, LowRankPlan, PrunePlan
from pocketzoo.zoo.catalog.compressor import LayerDecision


def describe_prune(plan: PrunePlan) -> Iterator[LayerDecision]:
    """Channels out and in, thresholds and patterns."""
    for name, axes in plan.axes.items():
        if name.endswith("weight") and axes:
            cuts = [f"{'out' if a.dim == 0 else 'in'} {a.size} -> {len(a.kept)}" for a in axes]
            yield LayerDecision(layer=_layer(name), what=", ".join(cuts))
    for name, value in plan.thresholds.items():
        yield LayerDecision(layer=_layer(name), what=f"|w| <= {value:.3g} becomes 0")
    for name, pattern in plan.patterns.items():
        yield LayerDecision(layer=_layer(name), what=f"{pattern} weights stay")
    yield from _unchanged(plan.dense, plan.left)


def describe_low_rank(plan: LowRankPlan) -> Iterator[LayerDecision]:
    """How each layer is factorized, and the parameters before and after."""
    for name, factor in plan.factors.items():
        ranks = " x ".join(map(str, factor.ranks))
        yield LayerDecision(layer=name, what=f"{factor.kind} {ranks}, {factor.parameters:,} -> {factor.after:,}")
    yield from _unchanged(plan.dense, plan.left)


def describe_int8(plan: Int8Plan) -> Iterator[LayerDecision]:
    """Which layers are in int8, and which of them with dynamic quantization where the target has it.

    Of layers of one name, in several branches, it is said what becomes int8.
    """
    said: dict[str, LayerDecision] = {}
    for decision in _describe_int8(plan):
        if decision.layer not in said or (decision.precision and not said[decision.layer].precision):
            said[decision.layer] = decision
    yield from said.values()


def _describe_int8(plan: Int8Plan) -> Iterator[LayerDecision]:
    dynamic = set(plan.dynamic)
    for name in plan.layers:
        what = "int8, dynamic where the target can" if name in dynamic else "int8"
        floats = {target: layers[name] for target, layers in plan.faster.items() if name in layers}
        what = f"{what}; float32 for {', '.join(floats)}" if floats else what
        yield LayerDecision(layer=name, what=what, precision="int8", floats=floats)
    for name in plan.excluded:
        yield LayerDecision(layer=name, what="stays in float", why="the budget excludes it")
    for body in plan.bodies.values():
        yield from _describe_int8(body)
    yield from _unchanged({}, plan.left)


def _unchanged(dense: Mapping[str, str], left: Mapping[str, str]) -> Iterator[LayerDecision]:
    for words, reasons in (("left alone", left), ("stays dense", dense)):
        for name, why in reasons.items():
            yield LayerDecision(layer=name, what=words, why=why)


def _layer(weight: str) -> str:
    return weight.removesuffix(".weight")
