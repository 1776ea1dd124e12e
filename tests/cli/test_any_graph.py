"""Graphs of the forms that people have, through every command that takes a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from detectorgraphs import detector as selecting_detector
from detectorgraphs import images
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(0)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def floats(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def value(name: str, dims: list[Any] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], opset: int = 17, **constants: Any) -> Any:
    stored = [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


Form = tuple[Any, tuple[str, ...], dict[str, np.ndarray]]


def speech() -> Form:
    """All in an If, on a rate that is one number; a state whose batch is second."""
    branches = []
    for wide in (1, 0):
        names = [f"{part}{wide}" for part in ("a", "s", "n", "y", "o")]
        a, s, n, y, o = names
        nodes = [
            node("MatMul", f"x w{wide}", a),
            node("Add", f"{a} h", s),
            node("Tanh", s, n),
            node("ReduceMean", n, y, axes=[0], keepdims=0),
            node("MatMul", f"{y} v", o),
        ]
        branches.append(helper.make_graph(nodes, f"b{wide}", [], [value(o, None), value(n, None)]))
    nodes = [
        node("Constant", "", "rate", value_int=16000),
        node("Equal", "sr rate", "wide"),
        node("If", "wide", "out hn", then_branch=branches[0], else_branch=branches[1]),
    ]
    inputs = [value("x", ["n", "t"]), value("h", [2, "n", 8]), value("sr", [], INT64)]
    made = model(
        nodes, inputs, [value("out", None), value("hn", None)], w1=floats(16, 8), w0=floats(16, 8), v=floats(8, 1)
    )
    options = ("--state", "hn=h", "--set", "sr=16000", "--axis", "t=16")
    return made, options, {"x": floats(20, 3, 16)}


def detector() -> Form:
    """Images of any size, to maps of their size."""
    nodes = [
        node("Conv", "x w b", "a", pads=[1] * 4),
        node("HardSigmoid", "a", "g"),
        node("Mul", "a g", "r"),
        node("Conv", "r v", "m", pads=[1] * 4),
        node("Sigmoid", "m", "y"),
    ]
    inputs = [value("x", ["?", 3, "?", "?"])]
    made = model(nodes, inputs, [value("y", None)], w=floats(8, 3, 3, 3), b=floats(8), v=floats(1, 8, 3, 3))
    return made, ("--size", "16x24"), {"x": floats(20, 3, 16, 24)}


def music() -> Form:
    """Sound as (N, T, 1), and three outputs of other sizes."""
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("Conv", "t w", "a", strides=[4]),
        node("Relu", "a", "first"),
        node("Sigmoid", "a", "second"),
        node("ReduceMean", "first", "third", axes=[2], keepdims=0),
    ]
    outputs = [value(name, None) for name in ("first", "second", "third")]
    return model(nodes, [value("x", ["n", 64, 1])], outputs, w=floats(8, 1, 8)), (), {"x": floats(20, 64, 1)}


def bytes_of_files() -> Form:
    nodes = [
        node("Gather", "table bytes", "e"),
        node("ReduceMean", "e", "m", axes=[1], keepdims=0),
        node("MatMul", "m w", "z"),
        node("Softmax", "z", "y"),
    ]
    inputs = [value("bytes", ["n", 32], TensorProto.INT32)]
    data = {"bytes": RANDOM.integers(0, 257, (20, 32)).astype(np.int32)}
    return model(nodes, inputs, [value("y", ["n", 5])], table=floats(257, 16), w=floats(16, 5)), (), data


def of_one_sample() -> Form:
    """A batch of one is fixed inside: what is put to the channels has it."""
    nodes = [
        node("Expand", "c s", "e"),
        node("Concat", "x e", "k", axis=1),
        node("Conv", "k w", "a", pads=[1] * 4),
        node("Relu", "a", "r"),
        node("Reshape", "r flat", "f"),
        node("MatMul", "f v", "y"),
    ]
    made = model(
        nodes, [value("x", [1, 2, 8, 8])], [value("y", [1, 4])],
        c=floats(1, 1, 1, 1), s=np.array([1, 1, 8, 8]), w=floats(4, 3, 3, 3), flat=np.array([1, 256]),
        v=floats(256, 4),
    )  # fmt: skip
    return made, (), {"x": floats(20, 2, 8, 8)}


def over_the_batch() -> Form:
    """Normalized by the mean of the batch, which each sample is alone."""
    nodes = [
        node("Conv", "x w", "a", pads=[1] * 4),
        node("ReduceMean", "a", "m", axes=[0, 2, 3], keepdims=1),
        node("Sub", "a m", "c"),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f v", "y"),
    ]
    made = model(nodes, [value("x", ["n", 3, 8, 8])], [value("y", ["n", 4])], w=floats(8, 3, 3, 3), v=floats(8, 4))
    return made, (), {"x": floats(20, 3, 8, 8)}


def selecting() -> Form:
    """Ends in what it selects, of another length for each image."""
    return selecting_detector(), (), {"image": images(20)}


COMMANDS = (
    "open {m} -o opened", "info {m}", "verify {m}", "predict {m} {d}",
    "bench {m} --data {d} --seconds 0 --no-memory", "bench {m} --seconds 0 --batch 1 --no-memory",
    "profile {m} --seconds 0", "check {m} --target cpu", "report {m} --data {d} -o report.html",
    "export {m} -o out.onnx", "compress {m} --int8 --data {d} -o small --keep-slower --accept", "predict small {d}",
)  # fmt: skip


FORMS = [speech, detector, music, bytes_of_files, of_one_sample, over_the_batch, selecting]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_graph_goes_through_every_command(form: Callable[[], Form], tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    made, options, data = form()
    onnx.save(made, "m.onnx")
    np.savez("d.npz", **data)
    for command in COMMANDS:
        words = command.format(m="m.onnx", d="d.npz").split()
        result = run(*words, *(options if "m.onnx" in words else ()))
        assert result.exit_code == 0, (command, result.stdout, result.stderr)
    small = onnx.load("small/model.int8.cpu.onnx")
    assert any(each.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for each in small.graph.node)
