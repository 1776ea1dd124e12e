from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from feeds import only
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import BundleError, DataError, MemoryShortError, MissingDependencyError
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.signature import TensorSpec

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
    assert runner.signature.inputs == (TensorSpec(name="x", shape=("batch", 3)),)
    assert runner.signature.outputs == tuple(TensorSpec(name=name, shape=("batch", 2)) for name in "yz")


@pytest.mark.parametrize("batch", [1, 2, 17])
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_it_computes(graph, batch, threads):
    x = np.random.default_rng(0).normal(size=(batch, 3)).astype(np.float32)
    with OnnxRunner(graph, threads=threads) as runner:
        given = runner.infer({"x": x})
        np.testing.assert_allclose(only(runner, x), x @ W, rtol=1e-5)
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
    with refused(BundleError, f"onnxruntime does not load {path}", hint="rebuild the graph"):
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
        only(runner, np.zeros((1, 3), np.float32))


def test_an_error_inside_passes_through(graph):
    with pytest.raises(KeyError), OnnxRunner(graph):
        raise KeyError("mine")


def test_without_onnxruntime_the_extra_is_named(graph, monkeypatch, refused):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with refused(MissingDependencyError, "'onnxruntime'", hint="pip install 'pocketzoo[edge]'"):
        OnnxRunner(graph)


def huge(path: Path) -> Path:
    """A graph that copies each sample 2^40 times: 4 TB of floats."""
    made = helper.make_graph(
        [helper.make_node("Expand", ["x", "shape"], ["y"]), helper.make_node("Neg", ["y"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", None])],
        [numpy_helper.from_array(np.array([1, 2**40]), "shape")],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(("batch", "hint"), [(1, "smaller model"), (8, "batches of 4")])
def test_a_lack_of_memory_says_how_much_and_offers_a_smaller_batch(batch, hint, tmp_path, refused):
    with (
        OnnxRunner(huge(tmp_path / "g.onnx"), threads=1) as runner,
        refused(MemoryShortError, f"batch of {batch}", f"{batch * 2**42 / 1e6:,.0f} MB", hint=hint),
    ):
        only(runner, np.zeros((batch, 1), np.float32))


def test_values_that_a_graph_cannot_take_are_named(tmp_path, refused):
    made = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.zeros((4, 2), np.float32), "table")],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "g.onnx")
    with OnnxRunner(tmp_path / "g.onnx", threads=1) as runner:
        assert only(runner, np.array([3])).shape == (1, 2)
        with refused(DataError, "x int64 (1,)", "4", hint="values"):
            only(runner, np.array([4]))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
def test_it_reads_all_types_that_models_here_have(dtype, tmp_path, refused):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    values = [helper.make_tensor_value_info(name, kind, ["batch", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    path = tmp_path / "g.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    x = np.array([[1, 2], [3, 4]], dtype)
    with OnnxRunner(path) as runner:
        np.testing.assert_array_equal(runner.infer({"x": x})["y"], x)
        assert runner.infer({"x": x})["y"].dtype == dtype
        with refused(DataError, "input 'x' is int16", f"the graph expects {dtype}", hint="convert"):
            runner.infer({"x": x.astype(np.int16)})
