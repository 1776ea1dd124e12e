"""The signature of a module is that of the graph that it is exported as."""

from __future__ import annotations

import random

import imageandtable
import pytest
import severalfeatures
import torch
from torch import Tensor, nn

from pocketzoo.core.errors import ExportError, UnsupportedModelError
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.graphs.signature import signature_of
from pocketzoo.zoo.models.build import build, resolve
from pocketzoo.zoo.models.export_graph import onnx_from_model
from pocketzoo.zoo.modules.signature import signature_of_module

ROW = TensorSpec(name="row", shape=("batch", 4))
TOKENS = TensorSpec(name="tokens", shape=("batch", "length", 4))
IDS = TensorSpec(name="ids", shape=("batch", "length"), dtype="int64")
OTHER = TensorSpec(name="other", shape=("batch", "frames", 4))
MAP = TensorSpec(name="map", shape=("batch", 3, 5, 6))
INPUTS = [ROW, TOKENS, IDS, OTHER, MAP]


class Made(nn.Module):
    """Outputs made by functions of the inputs and a linear layer."""

    def __init__(self, outputs) -> None:
        super().__init__()
        self.linear, self.outputs = nn.Linear(4, 4), outputs

    def forward(self, *inputs: Tensor):
        if callable(self.outputs):
            return self.outputs(self.linear, *inputs)
        return {name: make(self.linear, *inputs) for name, make in self.outputs.items()}


def spec(*inputs: TensorSpec) -> ArraysSpec:
    return ArraysSpec(inputs=inputs)


# Of one input, (linear, x) -> an output.
ONE = {
    "as it is": lambda linear, x: x * 1,
    "whole": lambda linear, x: (x > 0).sum(-1),
    "flags": lambda linear, x: x > 0,
    "double": lambda linear, x: x.double(),
    "half": lambda linear, x: x.half(),
    "int": lambda linear, x: x.int(),
    "mean": lambda linear, x: x.float().mean(tuple(range(x.ndim))),
    "of no sample": lambda linear, x: linear.weight * 2,
    "stacked": lambda linear, x: torch.stack([x, x + 1]),
    "twice": lambda linear, x: torch.cat([x, x], 1),
    "flat": lambda linear, x: x.reshape(-1, x.shape[-1]),
    "one longer": lambda linear, x: torch.cat([x, x[:, :1]], 1),
}


@pytest.mark.parametrize("seed", range(6))
def test_it_is_that_of_the_exported_graph(seed, tmp_path):
    """Of one to three inputs, in any order, and up to four outputs of any type."""
    chance = random.Random(seed)
    inputs = chance.sample(INPUTS, 1 + seed % 3)
    names = chance.sample(sorted(ONE), 4)
    # The layer is called, so that there is a weight; each input is in some output, else its axes are nobody's.
    outputs = {f"sum {i}": (lambda linear, *x, i=i: x[i].float().sum()) for i in range(len(inputs))}
    for name in names:
        place = chance.randrange(len(inputs))
        outputs[name] = lambda linear, *x, make=ONE[name], place=place: make(linear, x[place])
    outputs["layer"] = lambda linear, *x: linear(x[0].float().mean(tuple(range(1, x[0].ndim)))[:, None].expand(-1, 4))
    module = Made(outputs).eval()
    signature = signature_of_module(module, spec(*inputs))
    onnx_from_model(module, spec(*inputs), tmp_path / "m.onnx")
    assert signature == signature_of(tmp_path / "m.onnx")
    assert [tensor.name for tensor in signature.outputs] == list(outputs)


@pytest.mark.parametrize(
    ("make", "shape", "batch"),
    [
        (lambda linear, x: linear(x), ("batch", "length", 4), 0),
        (lambda linear, x: torch.cat([x, x, x[:, :1]], 1), ("batch", "2*length + 1", 4), 0),
        (lambda linear, x: x[:, 1:], ("batch", "length - 1", 4), 0),
        (lambda linear, x: x[:, ::2], ("batch", "logits_1", 4), 0),
        (lambda linear, x: x.reshape(-1), ("4*batch*length",), 0),
        (lambda linear, x: x.mean(1).T @ x.mean(1), (4, 4), None),
        (lambda linear, x: x.mean((1, 2)).outer(x.mean((1, 2))), ("batch", "batch"), 0),
        (lambda linear, x: x.mean(), (), None),
    ],
)
def test_axes_are_named_by_what_they_are_as_long_as(make, shape, batch):
    (out,) = signature_of_module(Made(make), spec(TOKENS)).outputs
    assert (out.name, out.shape, out.dtype, out.batch) == ("logits", shape, "float32", batch)


def test_axes_of_two_inputs_are_told_apart():
    outputs = {
        "first": lambda linear, tokens, other: tokens,
        "second": lambda linear, tokens, other: other,
        "both": lambda linear, tokens, other: tokens @ other.transpose(1, 2),
        "joined": lambda linear, tokens, other: torch.cat([tokens, other], 1),
    }
    found = signature_of_module(Made(outputs), spec(TOKENS, OTHER))
    assert {tensor.name: tensor.shape for tensor in found.outputs} == {
        "first": ("batch", "length", 4),
        "second": ("batch", "frames", 4),
        "both": ("batch", "length", "frames"),
        "joined": ("batch", "joined_1", 4),
    }


@pytest.mark.parametrize("out", [lambda linear, x: (x, x), lambda linear, x: {"a": [x]}, lambda linear, x: {}])
def test_what_has_no_names_is_refused_by_both(out, tmp_path):
    """With the same words."""
    module = Made(out).eval()
    with pytest.raises(UnsupportedModelError) as one:
        signature_of_module(module, spec(ROW))
    with pytest.raises(ExportError) as two:
        onnx_from_model(module, spec(ROW), tmp_path / "m.onnx")
    assert (one.value.message, one.value.hint) == (two.value.message, two.value.hint)


def test_a_module_is_left_as_it_was():
    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.modes = nn.BatchNorm1d(4), set()

        def forward(self, x: Tensor) -> Tensor:
            self.modes.add(self.training)
            return self.norm(x)

    module = Noting().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    signature_of_module(module, spec(ROW))
    assert (module.training, module.modes) == (True, {False})
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("backbone", "head"), [("tinynet", "linear"), ("tokens", "each-token"), ("encoders", "all-of-them")]
)
def test_models_of_backbone_and_head_have_one(backbone, head, tmp_path):
    registry = severalfeatures.registry()
    ref = ModelRef(backbone=backbone, head=head, outputs=3)
    module, processor = build(ref, registry), resolve(ref, registry).processor
    onnx_from_model(module, processor, tmp_path / "m.onnx")
    signature = signature_of_module(module, processor)
    assert isinstance(signature, ModelSignature)
    assert signature == signature_of(tmp_path / "m.onnx")
    assert [tensor.name for tensor in signature.inputs] == [tensor.name for tensor in processor.inputs]


def test_a_processor_or_its_config_says_what_is_read():
    image = InputSpec(shape=("batch", 1, 4, 4), mean=(0.0,), std=(1.0,), resize=4, name="pixels")
    (out,) = signature_of_module(nn.Flatten(), image).outputs
    assert out.shape == ("batch", 16)
    text = TextSpec(vocabulary=9, pad=0, max_length=4)
    (ids,) = signature_of_module(nn.Embedding(9, 2), text).inputs
    assert (ids.name, ids.dtype, ids.shape) == ("input_ids", "int64", ("batch", "sequence"))
    pair = imageandtable.registry().get("backbone", "digits-and-measures")
    assert [tensor.name for tensor in signature_of_module(pair.build(), pair.input).inputs] == ["image", "measures"]
