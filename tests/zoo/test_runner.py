from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.errors import BundleError, DataError, MissingDependencyError
from pocketzoo.zoo.runner import OnnxRunner

W = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Path:
    """x @ W, and twice that as a second output."""
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"]), helper.make_node("Add", ["y", "y"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in "yz"],
        [numpy_helper.from_array(W, "W")],
    )
    path = tmp_path_factory.mktemp("graph") / "g.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def runner(graph):
    with OnnxRunner(graph) as runner:
        yield runner


def test_names_and_shapes_come_from_the_file(runner):
    assert runner.inputs == {"x": ["batch", 3]}
    assert runner.outputs == ["y", "z"]


@pytest.mark.parametrize("batch", [1, 2, 17])
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_it_computes(graph, batch, threads):
    x = np.random.default_rng(0).normal(size=(batch, 3)).astype(np.float32)
    with OnnxRunner(graph, threads=threads) as runner:
        given = runner.infer({"x": x})
        np.testing.assert_allclose(runner.logits(x), x @ W, rtol=1e-5)
    np.testing.assert_allclose(given["y"], x @ W, rtol=1e-5)
    np.testing.assert_allclose(given["z"], 2 * (x @ W), rtol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (1, 2), (1, 4), (1, 3, 1), ()])
def test_another_shape_is_refused(runner, refused, shape):
    with refused(DataError, "input 'x'", str(shape), "('batch', 3)", hint="reshape"):
        runner.infer({"x": np.zeros(shape, np.float32)})


def test_a_missing_input_is_named(runner, refused):
    with refused(DataError, "input 'x' is None"):
        runner.infer({})


def test_an_unknown_input_is_named(runner, refused):
    with refused(DataError, "'image'"):
        runner.infer({"x": np.zeros((1, 3), np.float32), "image": np.zeros(1, np.float32)})


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int64])
def test_another_type_is_refused(runner, refused, dtype):
    with refused(DataError, "'x'", np.dtype(dtype).name):
        runner.infer({"x": np.zeros((1, 3), dtype)})


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\0" * 100])
def test_a_file_that_is_no_graph_is_named(tmp_path, refused, data):
    path = tmp_path / "g.onnx"
    path.write_bytes(data)
    with refused(BundleError, f"onnxruntime does not load {path}", hint="make the graph again"):
        OnnxRunner(path)


def test_a_graph_cut_short_is_named(graph, tmp_path, refused):
    path = tmp_path / "g.onnx"
    path.write_bytes(graph.read_bytes()[:-20])
    with refused(BundleError, path):
        OnnxRunner(path)


def test_a_graph_that_is_not_there_is_named(tmp_path, refused):
    with refused(BundleError, tmp_path / "g.onnx"):
        OnnxRunner(tmp_path / "g.onnx")


def test_a_runner_gives_its_memory_back(graph):
    with OnnxRunner(graph) as runner:
        pass
    with pytest.raises(AttributeError):
        runner.logits(np.zeros((1, 3), np.float32))


def test_an_error_inside_passes_through(graph):
    with pytest.raises(KeyError), OnnxRunner(graph):
        raise KeyError("mine")


def test_without_onnxruntime_the_extra_is_named(graph, monkeypatch, refused):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with refused(MissingDependencyError, "'onnxruntime'", hint="pip install 'pocketzoo[compress]'"):
        OnnxRunner(graph)
