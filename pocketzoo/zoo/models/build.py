"""Build a module from backbone and head, as resolved, or from a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from pocketzoo.core.errors import UnsupportedLayerError, message_of
from pocketzoo.core.reading.tensor_files import read_tensors
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.core.untrusted.limits import check_parameters
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.bundles.saved_plans import saved_plan
from pocketzoo.zoo.catalog.compressor import ModuleCompressor
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import HubFile
from pocketzoo.zoo.data.processors.open_processor import as_processor
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.hub.weights import load_state, read_weights
from pocketzoo.zoo.models.heads import build_head
from pocketzoo.zoo.models.resolver import Parts, Resolver, Structure
from pocketzoo.zoo.modules.features import FeatureChoice, check_features


class Model(nn.Module):
    """A backbone and the head that reads its features: one tensor, or those of several that ``choice`` says."""

    def __init__(self, backbone: nn.Module, head: nn.Module, choice: FeatureChoice | None = None) -> None:
        super().__init__()
        self.backbone, self.head, self.choice = backbone, head, choice

    def forward(self, *inputs: Tensor) -> Tensor:
        features = self.backbone(*inputs)  # (B, *size) each
        logits: Tensor = self.head(features if self.choice is None else self.choice(features))  # (B, outputs)
        return logits


@keywords_renamed(registry="resolver")
def resolve(ref: ModelRef, resolver: Registry | Resolver) -> Parts:
    """``Resolver.parts``."""
    return Resolver.of(resolver).parts(ref)


@keywords_renamed(registry="resolver")
def build(ref: ModelRef, resolver: Registry | Resolver) -> Model:
    """The structure alone, in eval mode; its weights are not the pretrained ones yet."""
    return build_parts(ref, resolve(ref, resolver))


def build_parts(ref: ModelRef, parts: Parts, stored: int = 0) -> Model:
    """``build``, of parts that are resolved; ``stored`` are the bytes of the model's weights, 0 if not known.

    Raises:
        UnsupportedModelError: a backbone of several features returns others than it states.
        TooLargeError: it has more parameters than the limit.
    """
    _check_parameters(ref, parts, stored)
    backbone = parts.backbone.build()
    if ref.cut:
        backbone = cut_after(backbone, ref.cut)
    if isinstance(parts.declared, Mapping):  # what lacks a name, or has another shape, would fail somewhere in the head
        with torch.no_grad():
            out = backbone.eval()(*example_inputs(parts.processor, 2).values())
        check_features(out, parts.declared, parts.backbone.name, 2)
    head = build_head(parts.head, parts.features, ref.outputs, ref.head_options)
    return Model(backbone, head, parts.choice).eval()


def _check_parameters(ref: ModelRef, parts: Parts, stored: int) -> None:
    """Refuse what is too large, from a model without memory: of some modules none can be made, and they are."""
    if parts.backbone.weights is not None and not stored:
        weights = parts.backbone.weights
        files = [file for file in (weights.file, *weights.shards) if isinstance(file, HubFile)]
        found = [Store().find(file.sha256) for file in files]  # what is not there yet is not fetched for this
        stored = sum(path.stat().st_size for path in found if path is not None)
    try:
        with torch.device("meta"):
            modules = (parts.backbone.build(), build_head(parts.head, parts.features, ref.outputs, ref.head_options))
    except (Exception, SystemExit):  # who builds it in earnest says what is wrong
        return
    check_parameters(sum(p.numel() for module in modules for p in module.parameters()), parts.backbone.name, stored)


@keywords_renamed(registry="resolver")
def load_pretrained(model: Model, ref: ModelRef, resolver: Registry | Resolver) -> None:
    """Fill in what there are pretrained weights for: the backbone, and a pretrained head."""
    parts = resolve(ref, resolver)
    if parts.backbone.weights is not None:
        state = read_weights(parts.backbone.weights)
        if ref.cut:  # what lies after the cut is gone
            own = model.backbone.state_dict()
            state = {key: value for key, value in state.items() if key in own}
        load_state(model.backbone, state, ref.backbone)
    if parts.head.weights is not None:
        load_state(model.head, read_weights(parts.head.weights), ref.head)


@keywords_renamed(registry="resolver")
def load_module(bundle: Bundle, resolver: Registry | Resolver) -> nn.Module:
    """The module of a bundle, in eval mode: ``module_of`` what a resolver, or one of a registry, finds for it.

    Raises:
        UnsupportedModelError: it came as an ONNX file.
    """
    return module_of(bundle, Resolver.of(resolver).structure(bundle))


def module_of(bundle: Bundle, structure: Structure) -> nn.Module:
    """The module of a bundle, in eval mode: structure from its parts, plans replayed, weights from safetensors."""
    weights = bundle.file("model.safetensors")
    module: nn.Module = build_parts(bundle.manifest.model, structure.parts, weights.stat().st_size)
    for step in bundle.manifest.steps:
        compressor = structure.compressors[step.compressor]
        if isinstance(compressor, ModuleCompressor):
            module = compressor.apply(module, saved_plan(bundle, step, compressor), None)
    load_state(module, read_tensors(weights), bundle.manifest.name)
    return module.eval()


def example_inputs(reads: Any, batch: int = 2) -> dict[str, Tensor]:
    """A batch of a processor, or of a config of one, with values in the right ranges, the same every time.

    Samples are of different lengths where they have some, and the longest of a batch depends on its size.
    """
    return {name: torch.from_numpy(x) for name, x in as_processor(reads).random(batch).items()}


def example(reads: Any, batch: int = 2) -> Tensor:
    """The first of ``example_inputs``: all that a model of one input reads."""
    return next(iter(example_inputs(reads, batch).values()))


class _Tracer(fx.Tracer):
    """Keeps convolutions and linear layers whole, subclasses too, so that the cut backbone can still be compressed."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.Linear) or super().is_leaf_module(m, module_qualified_name)


def cut_after(backbone: nn.Module, layer: str) -> nn.Module:
    """End a backbone after the submodule ``layer``; what comes later is removed.

    Raises:
        UnsupportedLayerError: the backbone cannot be traced, or the layer is not called on the way to its output.
    """
    try:
        tracer = _Tracer()
        traced = fx.GraphModule(backbone.eval(), tracer.trace(backbone.eval()))
    except (Exception, SystemExit) as error:  # tracing runs the model's own code, which may fail in any way
        raise UnsupportedLayerError(
            f"cannot cut this backbone: tracing it fails ({message_of(error)})", "use it whole, without a cut"
        ) from error
    inside = [n for n in traced.graph.nodes if n.op == "call_module" and f"{n.target}.".startswith(f"{layer}.")]
    # Functions called inside the layer (x + shortcut) have no target of their own, but know the module they ran in.
    inside += [
        n for n in traced.graph.nodes if layer in {path for path, _ in n.meta.get("nn_module_stack", {}).values()}
    ]
    if not inside:
        raise UnsupportedLayerError(f"no layer called {layer!r} runs in this backbone", "choose one of its cuts")
    order = list(traced.graph.nodes)
    last = max(inside, key=order.index)
    with traced.graph.inserting_after(last):
        traced.graph.output(last)
    for node in reversed(order):
        if node.op == "output":
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
