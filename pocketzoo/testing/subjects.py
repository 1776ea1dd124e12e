"""What the checks run on: a backbone built once, with its weights where available, and a head that fits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig
from pocketzoo.core.arrays import Arrays, rows
from pocketzoo.core.errors import HubError, MissingDependencyError, message_of
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.catalog.compressor import Compressor
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import BackboneSpec, FeatureSpec, HeadSpec, Input, Weights
from pocketzoo.zoo.hub.weights import load_state, locate, read_weights
from pocketzoo.zoo.models.build import Model, example_inputs
from pocketzoo.zoo.models.export_graph import onnx_from_model
from pocketzoo.zoo.models.heads import build_head, feature_choice

HEAD, OUTPUTS = "linear", 5  # it takes features of every kind
BATCHES = (1, 3)
# What a compressor that ships is tried with; any other is tried with the defaults of its config.
CONFIGS = {
    "prune": PruneConfig(ratio=0.25),
    "low-rank": LowRankConfig(energy=0.9, only_faster=False),
    "int8": Int8Config(),
}


class OfEvery(nn.Module):
    """The means of all features of a backbone alongside one another, then one linear layer: (B, outputs)."""

    def __init__(self, features: Mapping[str, FeatureSpec], outputs: int) -> None:
        super().__init__()
        self.features = dict(features)
        self.linear = nn.Linear(sum(each.channels for each in features.values()), outputs)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        means = []
        for name, spec in self.features.items():
            x = features[name].float()
            if spec.kind == "mask":
                x = x[..., None]  # (B, T, 1)
            means.append(x if x.ndim == 2 else x.mean(1) if x.ndim == 3 else x.mean((2, 3)))
        logits: Tensor = self.linear(torch.cat(means, 1))
        return logits


# The head that a backbone of several features is tried with: heads that ship read one.
EVERY = HeadSpec(
    name="of-every",
    summary="the means of all features, then one linear layer",
    takes=("map", "vector", "sequence", "mask"),
    reads=("*",),
    task="*-classification",
    build=OfEvery,
)


class Backbone:
    """A registered backbone; whatever is made of it is made once."""

    def __init__(self, spec: BackboneSpec, registry: Registry, folder: Path) -> None:
        self.spec, self.registry, self.folder = spec, registry, folder

    def build(self) -> nn.Module:
        """A fresh one in eval mode, with the same random weights each time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = self.spec.build()
        if not isinstance(module, nn.Module):
            raise TypeError(f"it returns a {type(module).__name__}, no torch.nn.Module")
        return module.eval()

    @cached_property
    def built(self) -> nn.Module | Exception:
        """With its own weights, where they can be had and fit."""
        try:
            module = self.build()
        except Exception as error:  # one check says so, all others are left out
            return error
        if self.spec.weights is not None and not self.without_weights:
            load_state(module, read_weights(self.spec.weights), self.spec.name)
        return module

    @cached_property
    def without_weights(self) -> str:
        """Why it runs on random weights."""
        if self.spec.weights is None:
            return "it declares none"
        try:
            load_state(self.build(), read_weights(self.spec.weights), self.spec.name)
        except (Exception, SystemExit) as error:  # test_its_weights_fit says whether that is the plugin's fault
            return f"{type(error).__name__}: {message_of(error)}"
        return ""

    @property
    def module(self) -> nn.Module:
        """The module to look at; a check of a backbone that cannot be built is skipped."""
        if isinstance(self.built, Exception):
            pytest.skip("it cannot be built (see test_it_builds)")
        return self.built

    @cached_property
    def model(self) -> Model:
        """The pretrained backbone with a head of random weights."""
        module = self.module
        if self.spec.weights is not None and self.without_weights:
            pytest.skip(f"its weights cannot be had: {self.without_weights}")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            several = isinstance(self.spec.features, Mapping)
            spec = EVERY if several else self.registry.get("head", HEAD)
            choice = feature_choice(spec, self.spec, self.spec.features)
            head = build_head(spec, choice.built_on, OUTPUTS)
        return Model(copy.deepcopy(module), head, choice).eval()

    @cached_property
    def exported(self) -> onnx.ModelProto | Exception:
        """The graph of ``model``, or why there is none."""
        path = self.folder / f"{self.spec.name}.onnx"
        try:
            onnx_from_model(self.model, self.spec.input, path)
        except Exception as error:  # test_it_exports says so
            return error
        return onnx.load(path)

    def exported_in(self, opset: int) -> onnx.ModelProto:
        """The graph of ``model`` in an opset, as compression writes it for a target."""
        if isinstance(self.exported, Exception):
            raise self.exported
        if opset == self.exported.opset_import[0].version:
            return self.exported
        path = self.folder / f"{self.spec.name}-{opset}.onnx"
        if not path.exists():
            onnx_from_model(self.model, self.spec.input, path, opset=opset)
        return onnx.load(path)


def unavailable(weights: Weights) -> str:
    """Why the file cannot be had here, where that is nobody's fault; empty where it can, or is not the pinned one."""
    try:
        locate(weights.file)
    except MissingDependencyError as error:
        return f"{error.message} ({error.hint})"
    except HubError as error:
        return error.message if "connection" in error.hint or error.message.endswith("gated") else ""
    except Exception:  # reading them fails in the same way, and that is reported
        return ""
    return ""


def samples(spec: Input) -> list[Arrays]:
    """Four samples in two batches, drawn from the input's range: enough to run, and large inputs take long."""
    batch = {name: x.numpy() for name, x in example_inputs(spec, 4).items()}
    return [rows(batch, slice(2)), rows(batch, slice(2, 4))]


def config_of(compressor: Compressor) -> Any:
    """A config to try a compressor with; skips where its defaults are none."""
    if compressor.name in CONFIGS:
        return CONFIGS[compressor.name]
    try:
        return compressor.config()
    except Exception as error:
        pytest.skip(f"its config has no defaults to try it with: {message_of(error)}")


def shape_of(value: object) -> str:
    """A tensor's shape in words, or what the value is instead."""
    return " x ".join(map(str, value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def fits(value: object, features: FeatureSpec, batch: int) -> bool:
    """Whether a tensor has the stated shape; axes with a name may be of any length."""
    if not isinstance(value, Tensor) or value.ndim != len(features.shape):
        return False
    stated = (batch, *features.shape[1:])
    return all(isinstance(want, str) or want == have for want, have in zip(stated, value.shape, strict=True))


def logits(graph: onnx.ModelProto, x: Arrays) -> np.ndarray:
    """What onnxruntime's CPU kernels give as the first output."""
    out: np.ndarray = open_session(graph).run(None, dict(x))[0]
    return out
