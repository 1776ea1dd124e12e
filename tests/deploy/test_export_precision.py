"""What an export in another precision says, held against a count of its own."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from told import Told

from pocketzoo.deploy.export import export
from pocketzoo.zoo.tasks.agreement import sqnr


@pytest.fixture
def graph(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    generator = np.random.default_rng(2)
    weights = {"w": generator.normal(0, 0.3, (12, 32)), "v": generator.normal(0, 0.3, (32, 5))}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Tanh", ["a"], ["b"]),
             helper.make_node("MatMul", ["b", "v"], ["y"])]  # fmt: skip
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=generator.normal(size=(200, 12)).astype(np.float32))
    return tmp_path / "m.onnx"


def measured(graph, written) -> float:
    x = np.load(graph.with_name("d.npz"))["x"]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    ours, theirs = (
        onnxruntime.InferenceSession(str(path), options).run(None, {"x": x})[0] for path in (written, graph)
    )
    return sqnr(ours, theirs)


@pytest.mark.parametrize("precision", ["int8", "int8-fp16"])
def test_what_int8_costs_is_told_of_the_model_that_was_given(precision, graph, tmp_path):
    told, data = Told(), graph.with_name("d.npz")
    export(
        graph, to="onnx", target="tensorrt-rtx", precision=precision, data=data, out=tmp_path / "q.onnx", progress=told
    )
    line = "int8: " if precision == "int8" else "fp16 and what was quantized before: "
    (said,) = [text.removeprefix(line) for text in told.said if text.startswith(line)]
    decibels = re.match(r"(\d+) dB from fp32", said)
    assert float(decibels[1]) == pytest.approx(measured(graph, tmp_path / "q.onnx"), abs=2.0)  # of other samples
