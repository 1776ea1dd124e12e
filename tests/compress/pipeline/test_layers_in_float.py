"""Every layer of a graph is either compressed or named with the reason why it is not, for each target."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.compress_model import compress, dry_run
from pocketzoo.compress.pipeline.settings import CompressSettings
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.data.batches import from_arrays

COMPUTES = {"Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "Einsum", "LSTM", "GRU", "RNN"}
TARGETS = ("cpu", "tensorrt-rtx")
RNG = np.random.default_rng(5)


def weight(*shape: int) -> np.ndarray:
    return (RNG.normal(size=shape) / np.prod(shape[1:] or shape) ** 0.5).astype(np.float32)


def branch(name: str, scale: float) -> onnx.GraphProto:
    """A branch with a layer of its own."""
    nodes = [helper.make_node("MatMul", ["flat", f"{name}.weight"], [name])]
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4])
    return helper.make_graph(nodes, name, [], [out], [numpy_helper.from_array(weight(16, 4) * scale, f"{name}.weight")])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> object:
    """Layers of every fate: quantized, without an 8-bit form, of two activations, skipped, in branches."""
    info = helper.make_tensor_value_info
    constants = {
        "stem.weight": weight(8, 3, 3, 3), "mid.weight": weight(8, 8, 3, 3), "up.weight": weight(8, 4, 2, 2),
        "query.weight": weight(4, 16), "turned.weight": weight(4, 4), "zero": np.array(0),
        "shape": np.array([0, 4, -1]),        "flatten": np.array([0, 16]), "skipped.weight": weight(4, 4, 1, 1),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "mid.weight"], ["c"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("ConvTranspose", ["c", "up.weight"], ["d"], strides=[2, 2]),
        helper.make_node("Conv", ["d", "skipped.weight"], ["e"]),
        helper.make_node("AveragePool", ["e"], ["f"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Reshape", ["f", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["rows", "columns"], ["scores"], name="attention"),
        helper.make_node("MatMul", ["turned.weight", "scores"], ["turned"]),
        helper.make_node("Reshape", ["turned", "flatten"], ["flat"]),
        helper.make_node("MatMul", ["flat", "query"], ["y"]),
        helper.make_node("Transpose", ["query.weight"], ["query"]),
        helper.make_node("Size", ["x"], ["size"]),
        helper.make_node("Greater", ["size", "zero"], ["some"]),
        helper.make_node("If", ["some"], ["chosen"], then_branch=branch("yes", 1.0), else_branch=branch("no", 2.0)),
        helper.make_node("Add", ["y", "chosen"], ["out"]),
    ]
    nodes.insert(11, nodes.pop(12))
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [info("out", TensorProto.FLOAT, ["n", 4])],
        initializers,
    )
    path = tmp_path_factory.mktemp("mixed") / "mixed.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def images() -> Dataset:
    return from_arrays("images", (), RNG.normal(size=(60, 3, 8, 8)).astype(np.float32), None, 0)


def graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    inner = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [graph, *(each for inside in inner for each in graphs(inside))]


def walk(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for each in graphs(graph) for node in each.node]


def quantized(path: object) -> int:
    """Layers whose weight is a constant of 8 bits, by a walk of its own."""
    graph = onnx.load(path).graph
    nodes = walk(graph)
    made = {out: node for node in nodes for out in node.output}
    stored = {t.name: t for each in graphs(graph) for t in each.initializer}
    count = 0
    for node in nodes:
        for name in node.input[1:2] if node.op_type in COMPUTES else ():
            origin = made[name].input[0] if name in made and made[name].op_type == "DequantizeLinear" else name
            count += origin in stored and stored[origin].data_type in (TensorProto.INT8, TensorProto.UINT8)
    return count


@pytest.mark.usefixtures("untimed")
def test_what_is_quantized_and_what_is_left_are_all_layers(mixed, images, tmp_path, run):
    given = {"steps": (Int8Config(skip=("skipped",)),), "targets": TARGETS, "samples": 16, "keep_slower": True}
    bundle = compress(mixed, tmp_path / "out", data=images, accept=True, **given)
    report = bundle.manifest.steps[-1].report
    everything = sum(node.op_type in COMPUTES for node in walk(onnx.load(bundle.graph("")).graph))
    assert everything == 9
    for target in TARGETS:
        left = report.in_float[target]
        assert quantized(bundle.graph(target)) + len(left) == everything
        assert quantized(bundle.graph(target)) >= 3
        assert all(left.values())
        assert left["no"] == "it is inside a node of If: no calibration sample reaches it"
        assert "yes" not in left
        assert "ConvTranspose" in left["up"]
        assert left["skipped"] == "the recipe skips it"
        assert left["turned"] == "its weight comes first"
        assert left["attention"] == "its operands are computed, none a weight"
    planned = dry_run(mixed, CompressSettings(**given), data=images)
    assert planned[-1].report.in_float == report.in_float
    np.savez(tmp_path / "x.npz", x=np.concatenate([images.split(s).samples for s in ("train", "val", "test")]))
    result = run("compress", mixed, "--int8", "--dry-run", "--data", tmp_path / "x.npz", "--samples", 8, "--json")
    told = json.loads(result.stdout)[-1]["report"]["in_float"]["cpu"]
    assert told == {name: why for name, why in report.in_float["cpu"].items() if name != "skipped"}
