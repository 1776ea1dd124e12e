"""Graphs as exporters of other years and frameworks write them: constants as inputs, sizes written into the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from told import Told

from pocketzoo.core.errors import BundleError, UnsupportedModelError
from pocketzoo.deploy.export import export_request
from pocketzoo.zoo.artifacts.drivers import artifact_of, open_artifact
from pocketzoo.zoo.backends.onnxruntime import tidied_graph
from pocketzoo.zoo.backends.onnxruntime.batch_axes import close
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata
from pocketzoo.zoo.graphs.foreign.raised_opset import raised
from pocketzoo.zoo.graphs.fresh_names import assigns_once
from pocketzoo.zoo.graphs.index import opset_of
from pocketzoo.zoo.models.import_onnx import open_graph


def weight(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def info(name: str, *dims: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], opset: int, ir: int, **constants: Any) -> Any:
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    if ir < 4:
        inputs = [*inputs, *(info(t.name, *t.dims, kind=t.data_type) for t in stored)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    onnx.checker.check_model(made, full_check=True)
    return made


def open_graph_of(made: Any, folder: Any) -> Any:
    onnx.save(made, folder / "m.onnx")
    return open_graph(folder / "m.onnx")


def imported(made: Any, folder: Any) -> Any:
    tidy = onnx.load(open_graph_of(made, folder).graph(""))
    onnx.checker.check_model(tidy, full_check=True)
    return tidy


@pytest.mark.parametrize("opset", [7, 8, 9, 12])
@pytest.mark.parametrize("ir", [3, 4, 8])
def test_constants_that_are_inputs_as_well_are_constants(opset, ir, tmp_path):
    made = model(
        [node("Conv", "x w b", "a"), node("Flatten", "a", "f"), node("Gemm", "f v c", "y", transB=1)],
        [info("x", "n", 3, 4, 4)], [info("y", "n", 5)], opset, ir,
        w=weight(2, 3, 3, 3), b=weight(2), v=weight(5, 8), c=weight(5),
    )  # fmt: skip
    tidy = imported(made, tmp_path)
    assert [value.name for value in tidy.graph.input] == ["x"]
    x = weight(3, 3, 4, 4, seed=1)
    given, wanted = (open_session(each, optimization="none").run(["y"], {"x": x})[0] for each in (tidy, made))
    np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)


def attention() -> Any:
    """One that onnxruntime writes the batch of 1 into: a bias after a product of three axes."""
    nodes = [
        node("MatMul", "x q", "qx"), node("Add", "qx b", "qb"), node("MatMul", "x k", "kx"),
        node("Transpose", "kx", "kt", perm=[0, 2, 1]), node("MatMul", "qb kt", "s"), node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p x", "y"),
    ]  # fmt: skip
    return model(
        nodes, [info("x", 1, 5, 4)], [info("y", 1, 5, 4)], 17, 8, q=weight(4, 6), b=weight(6), k=weight(4, 6, seed=1)
    )


def scan() -> Any:
    """A body whose shapes say the batch of 1."""
    rows = [info(name, 1, 4) for name in ("s", "r", "t", "o")]
    body = helper.make_graph(
        [node("MatMul", "s w", "p"), node("Add", "p r", "t"), node("Tanh", "t", "o")], "body", rows[:2], rows[2:]
    )
    nodes = [
        node("ReduceMean", "x", "first", axes=[1], keepdims=0),
        node("Scan", "first x", "last y", num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1], body=body),
    ]
    return model(nodes, [info("x", 1, 5, 4)], [info("y", 1, 5, 4)], 17, 8, w=weight(4, 4))


@pytest.mark.parametrize("of", [attention, scan])
def test_a_batch_that_is_fixed_is_made_free(of, tmp_path):
    made = of()
    tidy, x = imported(made, tmp_path), weight(3, 5, 4, seed=2)
    own = open_session(made, optimization="none")
    wanted = np.concatenate([own.run(["y"], {"x": each[None]})[0] for each in x])
    given = open_session(tidy, optimization="none").run(["y"], {"x": x})[0]
    np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrong", ["does not run", "computes something else"])
def test_an_opset_that_cannot_be_raised_rightly_is_kept(wrong, tmp_path, monkeypatch):
    """Whatever onnx's converter makes of a graph, it is held against the file."""

    def spoiled(given: Any, opset: int) -> Any:
        newer = raised(given, opset)
        assert newer is not None
        if wrong == "does not run":
            newer.graph.node[0].attribute.append(helper.make_attribute("value", 1.0))
        else:
            newer.graph.node[0].op_type = "Tanh"
        return newer

    monkeypatch.setattr(tidied_graph, "raised", spoiled)
    made = model([node("Sigmoid", "x", "y")], [info("x", "n", 5)], [info("y", "n", 5)], 9, 8)
    tidy, x = imported(made, tmp_path), weight(3, 5)
    assert opset_of(tidy) == 9
    given, wanted = (open_session(each, optimization="none").run(["y"], {"x": x})[0] for each in (tidy, made))
    np.testing.assert_allclose(given, wanted, rtol=1e-6)


@pytest.mark.parametrize("opset", [9, 17])
def test_what_nobody_reads_is_left_out(opset, tmp_path):
    """onnxruntime itself keeps it where it has no rewrite for it."""
    nodes = [
        node("Shape", "x", "s"), node("Gather", "s one", "g"), node("Cast", "g", "f", to=TensorProto.FLOAT),
        node("Mul", "u f", "v"), node("Conv", "x v", "dead"), node("Relu", "dead", "deader"),
        node("Conv", "x w", "y"),
    ]  # fmt: skip
    made = model(
        nodes, [info("x", "n", 3, 8)], [info("y", "n", 5, 6)], opset, 8,
        u=weight(5, 3, 3), w=weight(5, 3, 3, seed=1), one=np.array([1]),
    )  # fmt: skip
    tidy = imported(made, tmp_path)
    assert [each.op_type for each in tidy.graph.node] == ["Conv"]
    assert len(tidy.graph.initializer) == 1


def test_a_rewrite_that_makes_a_name_twice_is_not_taken(tmp_path):
    half = TensorProto.FLOAT16
    branches = [
        helper.make_graph([node("MatMul", f"g {w}", name)], name, [], [info(name, "n", 3, 5, kind=half)])
        for name, w in (("then", "w"), ("else", "v"))
    ]
    nodes = [
        node("Gather", "table x", "g"), node("Shape", "x", "n"), node("Size", "n", "r"), node("Greater", "r one", "c"),
        node("If", "c", "i", then_branch=branches[0], else_branch=branches[1]), node("MatMul", "g w", "m"),
        node("Add", "i m", "y"),
    ]  # fmt: skip
    made = model(
        nodes, [info("x", "n", 3, kind=TensorProto.INT64)], [info("y", "n", 3, 5, kind=half)], 17, 9,
        table=weight(9, 4, dtype=np.float16), w=weight(4, 5, dtype=np.float16), v=weight(4, 5, dtype=np.float16),
        one=np.array(1),
    )  # fmt: skip
    assert assigns_once(imported(made, tmp_path).graph)


def test_names_are_made_once_at_any_depth():
    def nested(inner: str, outer: str = "y") -> onnx.GraphProto:
        body = helper.make_graph([node("Relu", "x", inner)], "b", [], [info(inner)])
        return helper.make_graph([node("If", "c", outer, then_branch=body, else_branch=body)], "g", [info("x")], [])

    assert assigns_once(nested("a")), "branches beside one another may use one name"
    assert not assigns_once(nested("x")), "an input of the graph around"
    assert not assigns_once(nested("y")), "what the node itself makes"
    assert not assigns_once(helper.make_graph([node("Relu", "x", "y"), node("Abs", "x", "y")], "g", [info("x")], []))


@pytest.mark.parametrize(
    ("dtype", "difference", "same"),
    [("float16", 0.01, True), ("float16", 0.1, False), ("float32", 0.01, False), ("float64", 0.01, False)],
)
def test_outputs_are_compared_by_what_their_type_holds(dtype, difference, same):
    reference = np.ones(4, dtype)
    assert close((reference + difference).astype(dtype), reference) == same


@pytest.mark.parametrize("more", [b"", b"others"], ids=["alone", "before others"])
@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin", "./w.bin", "sub/./w.bin"])
def test_weights_are_read_from_wherever_they_lie_in_the_graph_s_folder(location, more, tmp_path):
    weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    (tmp_path / location).parent.mkdir(exist_ok=True)
    (tmp_path / location).write_bytes(weight.tobytes() + more)
    stored = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3], data_location=TensorProto.EXTERNAL)
    stored.external_data.add(key="location", value=location)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 4), ("y", 3)))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [stored])
    path = tmp_path / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    bundle = open_graph(str(path))  # as text, as every other function of the package takes a path
    rows = np.eye(4, dtype=np.float32)
    (out,) = open_session(bundle.graph()).run(None, {"x": rows})
    assert np.array_equal(out, weight)


def test_a_batch_that_is_mixed_and_a_state_with_its_samples_second(tmp_path):
    """What is divided by the largest of the whole batch is of no one sample; the state is (layers, batch, size)."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Div", ["x", "most"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("ReduceSum", ["h", "layers"], ["state"], keepdims=0),
        helper.make_node("Add", ["mean", "state"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", 4]),
        helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, "batch", 4]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])]
    layers = numpy_helper.from_array(np.array([0]), "layers")
    graph = helper.make_graph(nodes, "g", inputs, outputs, [layers])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "theirs.onnx")
    bundle = open_graph(tmp_path / "theirs.onnx")
    assert bundle.manifest.one_by_one
    shapes = {tensor.name: tensor.shape for tensor in bundle.manifest.signature.inputs}
    assert shapes == {"x": ("batch", "time", 4), "h": (2, 1, 4)}


def test_what_the_standard_does_not_allow_and_onnxruntime_runs_is_opened(tmp_path):
    made = model(
        [node("MatMul", "x w", "a"), node("Relu", "a", "y")], [info("x", "n", 3)], [info("y", "n", 2)], 17, 8,
        w=weight(3, 2),
    )  # fmt: skip
    expected = np.maximum(np.eye(3) @ weight(3, 2), 0).astype(np.float32)
    stored = helper.make_sparse_tensor(
        numpy_helper.from_array(weight(3, 2).reshape(-1), "w"), numpy_helper.from_array(np.arange(6), "w_at"), [3, 2]
    )
    made.graph.sparse_initializer.append(stored)
    del made.graph.initializer[:]
    made.graph.node.reverse()
    made.graph.output.add().CopyFrom(made.graph.output[0])
    bundle = open_graph_of(made, tmp_path)
    assert [tensor.name for tensor in bundle.manifest.signature.outputs] == ["y"]
    assert np.allclose(open_session(bundle.graph()).run(None, {"x": np.eye(3, dtype=np.float32)})[0], expected)


def test_a_graph_that_makes_random_numbers_is_refused_by_their_name(tmp_path, refused):
    nodes = [node("RandomNormalLike", "x", "e"), node("Add", "x e", "a"), node("MatMul", "a w", "y")]
    made = model(nodes, [info("x", "n", 3)], [info("y", "n", 2)], 17, 8, w=weight(3, 2))
    with refused(UnsupportedModelError, "RandomNormalLike 'e' makes random numbers", hint="as an input"):
        open_graph_of(made, tmp_path)


def test_a_weight_that_is_no_number_is_named(tmp_path):
    broken = weight(3, 2)
    broken[1, 1] = np.nan
    made = model([node("MatMul", "x w", "y")], [info("x", "n", 3)], [info("y", "n", 2)], 17, 8, w=broken)
    onnx.save(made, tmp_path / "m.onnx")
    told = Told()
    open_graph(tmp_path / "m.onnx", progress=told)
    assert "m.onnx has values in 'w' that are no numbers (NaN)" in told.said


@pytest.mark.parametrize("size", [4, 64])
def test_weights_that_are_computed_of_constants_are_said_to_be_stored(size, tmp_path):
    """Of one number: 64 x 64 floats are more than the file, 4 x 4 are not worth a word beside another weight."""
    nodes = [node("Expand", "one shape", "w"), node("MatMul", "x w", "a"), node("MatMul", "a v", "y")]
    wide = 2 if size == 64 else 400
    made = model(
        nodes, [info("x", "n", size)], [info("y", "n", wide)], 17, 8,
        one=np.float32(1.5), shape=np.array([size, size]), v=weight(size, wide),
    )  # fmt: skip
    onnx.save(made, tmp_path / "m.onnx")
    told = Told()
    stored = open_graph(tmp_path / "m.onnx", progress=told).graph("").stat().st_size
    said = [text for text in told.said if "computes weights of constants" in text]
    assert bool(said) == (size == 64) == (stored > 1.1 * (tmp_path / "m.onnx").stat().st_size)


@pytest.mark.parametrize("batch", ["n", 1], ids=["free", "fixed at one"])
@pytest.mark.parametrize("rows", [[-1], [-1, 3]], ids=["numbers", "rows of numbers"])
def test_an_output_of_several_rows_a_sample_is_not_cut_into_one_each(rows, batch, tmp_path):
    """A label for each of five tokens: of two samples there are ten in a row, and the second's are the last five."""
    size = rows[-1] if len(rows) > 1 else 1
    made = model(
        [node("MatMul", "x w", "a"), node("Reshape", "a rows", "y")],
        [info("x", batch, 5, 4)],
        [info("y", *("m", 3)[: len(rows)])],
        17,
        9,
        w=weight(4, size),
        rows=np.array(rows),
    )
    bundle, samples = open_graph_of(made, tmp_path), weight(3, 5, 4, seed=1)
    with open_artifact(artifact_of(bundle), OnnxRunner) as runner:
        answers = runner.infer({"x": samples})["y"]
    assert bundle.manifest.one_by_one
    usual = export_request(bundle, EngineOptions()).options.usual
    assert usual.get("n", (1, 1, 1)) == (1, 1, 1)  # an engine is built for what a run takes
    assert (batch == "n") == ("n" in usual)
    assert answers.shape == (3, 5, *rows[1:])
    np.testing.assert_allclose(answers.reshape(3, 5, size), samples @ weight(4, size), rtol=1e-5, atol=1e-5)


FEATURES = {
    "MatMul": ([node("MatMul", "x w", "y")], {"w": weight(37, 5)}),
    "Gemm": ([node("Gemm", "x w", "y", transB=1)], {"w": weight(5, 37)}),
    "Add": ([node("Add", "x w", "y")], {"w": weight(37)}),
    "Conv": (
        [node("Transpose", "x", "t", perm=[1, 0]), node("Unsqueeze", "t zero", "u"), node("Conv", "u w", "y")],
        {"zero": np.array([0]), "w": weight(5, 37, 3)},
    ),
    "LSTM": (
        [node("Unsqueeze", "x one", "u"), node("LSTM", "u w r", "h", hidden_size=5), node("Squeeze", "h inner", "y")],
        {"one": np.array([1]), "inner": np.array([1, 2]), "w": weight(1, 20, 37), "r": weight(1, 20, 5)},
    ),
}


@pytest.mark.parametrize("op", FEATURES)
def test_an_axis_that_only_weights_know_the_length_of_has_that_length(op, tmp_path):
    nodes, constants = FEATURES[op]
    made = model(nodes, [info("x", "a", "b")], [info("y", *"pqr"[: 3 if op == "Conv" else 2])], 17, 9, **constants)
    bundle = open_graph_of(made, tmp_path)
    assert bundle.manifest.counted_at["x"][-1] == 37


def test_a_length_that_nobody_knows_is_asked_for(tmp_path, refused):
    """Rows of 77 numbers in 7 of 11: neither a weight nor the file says so."""
    nodes = [node("Reshape", "x rows", "a"), node("Reshape", "a flat", "y")]
    rows = {"rows": np.array([-1, 7, 11]), "flat": np.array([-1, 77])}
    made = model(nodes, [info("x", "n", "features")], [info("y", "n", 77)], 17, 9, **rows)
    with refused(BundleError, "runs with no length of 'features' that was tried", hint="--axis features=N"):
        open_graph_of(made, tmp_path)
    bundle = open_graph(tmp_path / "m.onnx", OnnxMetadata(axes={"features": 77}))
    assert bundle.manifest.counted_at == {"x": (1, 77)}


def test_steps_of_a_state_without_an_axis_for_samples_are_counted(tmp_path):
    """Sums over time, begun with what the last call ended with: a sample is calls of (time, 4)."""
    nodes = [
        node("MatMul", "x w", "a"),
        node("CumSum", "a first", "sums"),
        node("Add", "sums h", "y"),
        node("Gather", "y last", "next", axis=0),
    ]
    made = model(
        nodes,
        [info("x", "time", 4), info("h", 5)],
        [info("y", "time", 5), info("next", 5)],
        17,
        9,
        w=weight(4, 5),
        first=np.array(0),
        last=np.array(-1),
    )
    onnx.save(made, tmp_path / "m.onnx")
    bundle = open_graph(tmp_path / "m.onnx", OnnxMetadata(states={"next": "h"}, axes={"time": 7}))
    assert bundle.manifest.one_by_one
    assert bundle.manifest.counted_at["x"][-2:] == (7, 4)
    assert bundle.manifest.macs == 7 * 4 * 5
