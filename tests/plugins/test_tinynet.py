"""The backbone inside the package: structure, weights, record, and the accuracy that the record claims."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from feeds import only
from safetensors.torch import load_file
from torch import nn

from pocketzoo.plugins import tinynet
from pocketzoo.plugins.datasets import FASHION_MNIST
from pocketzoo.plugins.tinynet.module import Block, TinyNet
from pocketzoo.zoo.hub.weights import locate

RECORD = json.loads(tinynet.RECORD.read_text("utf8"))
PATH = locate(tinynet.FILE)


def test_the_weights_are_the_recorded_ones():
    data = PATH.read_bytes()
    assert hashlib.sha256(data).hexdigest() == tinynet.FILE.sha256 == RECORD["sha256"]
    assert len(data) == RECORD["size"]


def test_the_weights_fit_exactly():
    state = load_file(PATH)
    model, head = TinyNet(), nn.Linear(128, 10)
    wanted = {f"backbone.{k}": v.shape for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    wanted |= {f"head.linear.{k}": v.shape for k, v in head.state_dict().items()}
    assert {k: v.shape for k, v in state.items() if not k.endswith("num_batches_tracked")} == wanted
    assert all(torch.isfinite(v).all() for v in state.values())


def test_it_is_as_large_as_its_summary_says(registry):
    count = sum(p.numel() for p in TinyNet().parameters())
    assert count == RECORD["parameters"]
    assert f"{round(count / 1000)} k parameters" in registry.get("backbone", "tinynet").summary
    assert f"{round(count / 1000)} k parameters" in TinyNet.__doc__


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_shapes_after_each_stage(batch):
    net, x = TinyNet().eval(), torch.zeros(batch, 1, 28, 28)
    for stage, shape in (("stem", (32, 28, 28)), ("stage1", (64, 14, 14)), ("stage2", (128, 7, 7))):
        x = getattr(net, stage)(x)
        assert tuple(x.shape) == (batch, *shape)


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride", "projected"), [(8, 8, 1, False), (8, 16, 1, True), (8, 8, 2, True)]
)
def test_a_block_projects_its_shortcut_only_where_the_shape_changes(in_channels, out_channels, stride, projected):
    block = Block(in_channels, out_channels, stride).eval()
    assert isinstance(block.shortcut, nn.Sequential) == projected
    assert block(torch.zeros(2, in_channels, 8, 8)).shape == (2, out_channels, 8 // stride, 8 // stride)


def test_a_block_with_silent_branch_is_its_shortcut():
    block = Block(4, 4, 1).eval()
    nn.init.zeros_(block.bn2.weight)
    nn.init.zeros_(block.bn2.bias)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), torch.relu(x))


def test_its_labels_are_those_of_its_data_set(registry):
    assert registry.get("head", "tinynet-fashion-mnist").labels() == tinynet.LABELS
    assert len(tinynet.LABELS) == 10


def test_its_licence_is_that_of_its_data(registry):
    assert registry.get("backbone", "tinynet").license == "MIT"
    assert "MIT" in RECORD["data"]


@pytest.mark.slow
@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_it_is_as_accurate_as_recorded(registry):
    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
    from pocketzoo.zoo.models.open_model import open_model

    spec, data = registry.get("backbone", "tinynet"), registry.get("dataset", "fashion-mnist").load()
    split = data.split("test")
    x = (split.samples[:, None] / 255.0 - spec.input.mean[0]) / spec.input.std[0]
    with OnnxRunner(open_model("tinynet", registry=registry).graph()) as runner:
        answers = [only(runner, x[i : i + 250].astype(np.float32)).argmax(-1) for i in range(0, len(x), 250)]
    right = int((np.concatenate(answers) == split.targets).sum())
    # Convolutions of another machine may tip a sample on the edge: one in a thousand, no more.
    assert abs(right / len(x) - RECORD["test_accuracy"]) <= 0.001
