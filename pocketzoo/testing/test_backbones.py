"""Conformance of backbones: stated input and features, cuts, export to a graph, compression."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from pocketzoo.core.errors import HeadMismatchError, UnsupportedLayerError, message_of
from pocketzoo.core.names import RULE, is_name
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.testing.subjects import (
    BATCHES,
    CONFIGS,
    OUTPUTS,
    Backbone,
    config_of,
    fits,
    logits,
    samples,
    shape_of,
    unavailable,
)
from pocketzoo.zoo.catalog.compressor import Compressor, ModuleCompressor
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import FEATURES, FeatureSpec, InputSpec, TextSpec
from pocketzoo.zoo.data.processors.open_processor import open_config
from pocketzoo.zoo.hub.weights import load_state, read_weights
from pocketzoo.zoo.models.build import cut_after, example_inputs
from pocketzoo.zoo.models.export_graph import onnx_from_model
from pocketzoo.zoo.models.heads import feature_choice

RANK = {"map": 4, "vector": 2, "sequence": 3, "mask": 2}


def test_its_input_is_sane(backbone: Backbone) -> None:
    """An image or a text can become what the input states."""
    spec, reads = backbone.spec, backbone.spec.input
    if isinstance(reads, TextSpec):
        if not 0 <= reads.pad <= reads.vocabulary or reads.max_length < 1:
            wrong(
                f"{spec.name} pads with {reads.pad} of {reads.vocabulary} ids",
                "give one of them, or the first after",
            )
        return
    if not isinstance(reads, InputSpec):  # of another processor, whose own checks say more
        with blaming(
            f"no processor makes the inputs of {spec.name}", "declare the one whose config it has as its input"
        ):
            open_config(reads, spec.files, backbone.registry).random(1)
        return
    if len(reads.shape) == 2 and isinstance(reads.shape[0], str) and _positive(reads.shape[1:]):
        return  # vectors, which come as they are
    if len(reads.shape) != 4 or not isinstance(reads.shape[0], str) or not _positive(reads.shape[1:]):
        wrong(f"{spec.name} reads {reads.shape}", 'state ("batch", channels, height, width) with numbers above 0')
    channels, height, width = reads.size
    if not len(reads.mean) == len(reads.std) == channels:
        wrong(
            f"{spec.name} has {len(reads.mean)} means and {len(reads.std)} stds for {channels} channels",
            "give one of each for every channel",
        )
    if not all(math.isfinite(m) for m in reads.mean) or not all(0 < s < math.inf for s in reads.std):
        wrong(
            f"{spec.name} has the mean {reads.mean} and std {reads.std}",
            "give finite means, and stds above 0",
        )
    if reads.resize < min(height, width):
        wrong(
            f"{spec.name} resizes to {reads.resize} and cuts out {height} x {width}",
            "resize is the shorter side before the center is cut out: make it at least as large",
        )
    if not reads.value_range[0] < reads.value_range[1]:
        wrong(f"{spec.name} has the value range {reads.value_range}", "give (low, high), such as (0.0, 1.0)")
    if (reads.layout, reads.dtype) != ("NCHW", "float32"):
        wrong(f"{spec.name} reads {reads.dtype} as {reads.layout}", "permute or convert inside the module")


def test_its_features_are_stated_whole(backbone: Backbone) -> None:
    """The kind and the shape belong together, for the backbone and all its cuts."""
    named = named_features(backbone)
    if bad := [name for name in named if not is_name(name)]:
        wrong(f"it calls features {bad[0]!r}", RULE)
    if not named:
        wrong("it states no features", "give a FeatureSpec, or a mapping of names to them")
    own = [(f"its {name}" if len(named) == 1 else f"its features {name!r}", spec) for name, spec in named.items()]
    for place, features in [*own, *((c.layer, c.features) for c in backbone.spec.cuts)]:
        rank = RANK.get(features.kind)
        if rank is None:
            wrong(f"{place} are a {features.kind!r}", f"state one of: {', '.join(RANK)}")
        if len(features.shape) != rank or not isinstance(features.shape[0], str) or features.channels < 1:
            wrong(
                f"{place}: a {features.kind} of shape {features.shape}",
                f'state {rank} axes, the first of them "batch", the others in numbers',
            )
    axes = {spec.shape[1] for spec in named.values() if spec.kind == "sequence"}
    for name, spec in named.items():
        if spec.kind == "mask" and spec.shape[1] not in axes:
            wrong(
                f"the mask {name!r} is {spec.shape}, and no sequence of it has an axis {spec.shape[1]!r}",
                "call the axis of tokens the same in the sequence and its mask",
            )
    layers = [cut.layer for cut in backbone.spec.cuts]
    if len(set(layers)) != len(layers):
        wrong(f"its cuts are {', '.join(layers)}", "state each layer once")


def test_its_source_is_named(backbone: Backbone) -> None:
    """Who trained the weights, and how, can be read somewhere."""
    if backbone.spec.weights is None:
        pytest.skip("it declares no weights")
    if not re.match(r"https?://", backbone.spec.source):
        wrong(f"the source of its weights is {backbone.spec.source!r}", "give the address of the paper or home page")


def test_it_builds(backbone: Backbone) -> None:
    """``build`` takes nothing and returns a torch module."""
    with blaming(f"{backbone.spec.name}: build() fails", "let build take no arguments and return the untrained module"):
        backbone.build()


def test_its_weights_fit(backbone: Backbone) -> None:
    """The pinned file is the one that is there, and holds this structure's state dict."""
    weights = backbone.spec.weights
    if weights is None:
        pytest.skip("it declares no weights")
    if reason := unavailable(weights):
        pytest.skip(reason)
    with blaming("its weights do not fit", "pin the file that build() belongs to; prefix and read rename its keys"):
        load_state(backbone.module, read_weights(weights), backbone.spec.name)


@pytest.mark.parametrize("batch", BATCHES)
def test_its_features_have_the_stated_shape(backbone: Backbone, batch: int) -> None:
    """At any batch size, finite, as one tensor or by the names that it states."""
    for name, out in _run(backbone.module, backbone, batch).items():
        features = named_features(backbone)[name]
        of = "" if len(named_features(backbone)) == 1 else f" as {name!r}"
        if not fits(out, features, batch):
            wrong(
                f"at batch {batch} it gives {shape_of(out)}{of}, and states a {features.kind} {features.shape}",
                "correct features=FeatureSpec(...), or what the module returns",
            )
        typed = out.dtype == torch.float32 or features.kind == "mask"
        if not typed or not torch.isfinite(out).all():
            wrong(
                f"its features{of} are {out.dtype}{'' if torch.isfinite(out).all() else ' and not finite'}",
                "return finite float32 values",
            )


def test_it_gives_the_same_twice(backbone: Backbone) -> None:
    """In eval mode nothing is left to chance."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one = _run(backbone.module, backbone, 2)
        torch.manual_seed(2)
        two = _run(backbone.module, backbone, 2)
    # Values that are not finite are another check's.
    if any(not torch.equal(one[name].nan_to_num(), two[name].nan_to_num()) for name in one):
        wrong("two runs on one input differ", "switch off dropout and other chance unless self.training")


def test_its_cuts_give_the_stated_shapes(backbone: Backbone) -> None:
    """Every layer that is declared as a cut exists and can be the last one."""
    if not backbone.spec.cuts:
        pytest.skip("it declares no cuts")
    for cut in backbone.spec.cuts:
        known = [name for name, _ in backbone.module.named_modules() if name]
        if cut.layer not in known:
            wrong(f"it has no layer {cut.layer!r}", f"name one of its modules: {', '.join(known[:12])}, ...")
        with blaming(f"cut after {cut.layer!r}", "leave this cut out, or make forward traceable by torch.fx"):
            short = cut_after(copy.deepcopy(backbone.module), cut.layer).eval()
        out = _out(short, backbone, 2)
        if not fits(out, cut.features, 2):
            wrong(
                f"cut after {cut.layer!r} it gives {shape_of(out)}, and states {cut.features.shape}",
                "correct the cut's FeatureSpec",
            )


def test_its_head_is_there(backbone: Backbone, registry: Registry) -> None:
    """The classifier it was pretrained with is registered, and can read its features."""
    if not backbone.spec.head:
        pytest.skip("it names no head")
    with blaming(f"its head {backbone.spec.head!r}", "declare that head in pocketzoo_heads"):
        head = registry.get("head", backbone.spec.head)
    try:
        feature_choice(head, backbone.spec, backbone.spec.features)
    except HeadMismatchError as error:
        wrong(f"its {error.message}", f"correct takes, reads or backbone of it, or features of {backbone.spec.name}")


def test_it_exports(backbone: Backbone) -> None:
    """With a head, to an ONNX graph that gives what torch gives, at any batch size."""
    with blaming("it does not become an ONNX graph", "write its forward with operators that torch.onnx.export knows"):
        if isinstance(backbone.exported, Exception):
            raise backbone.exported


@pytest.mark.parametrize("name", CONFIGS)
def test_it_survives(backbone: Backbone, name: str, registry: Registry, tmp_path: Path) -> None:
    """Compressed by what ships, it still exports, runs and gives finite values."""
    compressor = registry.get("compressor", name)
    with blaming(f"{name} fails on it", "write it with nn.Conv2d, nn.Linear and plain functions between them"):
        try:
            graphs = _compressed(backbone, compressor, registry, tmp_path / "model.onnx")
        except UnsupportedLayerError as refusal:  # said before anything is lost, so no defect
            pytest.skip(f"{name} refuses it: {message_of(refusal)}")
        for graph in graphs:
            for batch in BATCHES:
                out = logits(graph, {n: x.numpy() for n, x in example_inputs(backbone.spec.input, batch).items()})
                if out.shape != (batch, OUTPUTS) or not np.isfinite(out).all():
                    wrong(
                        f"after {name} it gives {out.shape} with {np.count_nonzero(~np.isfinite(out))} values that are "
                        f"not finite, instead of {(batch, OUTPUTS)}",
                        "see which layer's weights or activations overflow",
                    )


def _compressed(backbone: Backbone, compressor: Compressor, registry: Registry, path: Path) -> list[onnx.ModelProto]:
    """The graphs after one step: of a compressor of graphs, one for each way to write them."""
    config, data = config_of(compressor), samples(backbone.spec.input)
    if isinstance(compressor, ModuleCompressor):
        plan = compressor.plan(backbone.model, config, data, registry.get("target", "cpu"))
        onnx_from_model(compressor.apply(backbone.model, plan, data), backbone.spec.input, path)
        return [onnx.load(path)]
    _ = backbone.model  # skips where there is none
    if isinstance(backbone.exported, Exception):
        pytest.skip("it does not export (see test_it_exports)")
    plan = compressor.plan(backbone.exported, config, data)
    return [compressor.apply(backbone.exported, plan, registry.get("target", name)) for name in ("cpu", "tensorrt")]


def named_features(backbone: Backbone) -> Mapping[str, FeatureSpec]:
    """What it states of its features, by name."""
    features = backbone.spec.features
    return features if isinstance(features, Mapping) else {FEATURES: features}


def _run(module: nn.Module, backbone: Backbone, batch: int) -> dict[str, Tensor]:
    out = _out(module, backbone, batch)
    named = named_features(backbone)
    if not isinstance(backbone.spec.features, Mapping):
        if not isinstance(out, Tensor):
            wrong(f"it returns a {type(out).__name__}", "return one tensor: the features alone")
        return dict.fromkeys(named, out)
    if not isinstance(out, Mapping) or set(out) != set(named) or not all(isinstance(x, Tensor) for x in out.values()):
        returned = f"{', '.join(map(str, out))}" if isinstance(out, Mapping) else f"a {type(out).__name__}"
        wrong(f"it returns {returned}, and states {', '.join(named)}", "return a dict of a tensor for each name")
    return dict(out)


def _out(module: nn.Module, backbone: Backbone, batch: int) -> Any:
    with blaming("it does not run on its own input", "let forward take a tensor for each input"), torch.no_grad():
        return module(*example_inputs(backbone.spec.input, batch).values())


def _positive(shape: tuple[object, ...]) -> bool:
    return all(isinstance(d, int) and d > 0 for d in shape)
