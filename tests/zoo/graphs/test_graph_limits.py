"""Graphs that are small as files and huge once a runtime has them: refused before one is asked."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import TooLargeError, UnsafeFileError
from pocketzoo.deploy.check.check_model import check
from pocketzoo.zoo.backends.onnxruntime.batch_axes import fillings, guesses
from pocketzoo.zoo.backends.onnxruntime.bounded_session import ArenaFullError
from pocketzoo.zoo.graphs.files.load_graph import load_graph
from pocketzoo.zoo.graphs.function_calls import MANY
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.safety import check_graph, references
from pocketzoo.zoo.graphs.signature import signature_of
from pocketzoo.zoo.models.import_onnx import open_graph

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("l", 1)]
FLOAT = TensorProto.FLOAT


def saved(path, nodes, constants=(), functions=(), sparse=()):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("i", FLOAT, ["b", 4])],
        [helper.make_tensor_value_info("o", FLOAT, ["b", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(constants).items()],
    )  # fmt: skip
    graph.sparse_initializer.extend(sparse)
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=8, functions=list(functions))
    onnx.save(model, path)
    return path


def function(name, calls, times=1):
    """A function that calls another, one after the other; or, where that is "", negates."""
    names = ["x", *(f"t{i}" for i in range(times - 1)), "y"]
    domain = "l" if calls else ""
    nodes = [helper.make_node(calls or "Neg", [a], [b], domain=domain) for a, b in pairwise(names)]
    return helper.make_function("l", name, ["x"], ["y"], nodes, OPSETS)


def chain(length, times):
    return [function(f"F{i}", f"F{i - 1}" if i else "", times if i else 1) for i in range(length)]


CALL = [helper.make_node("F29", ["i"], ["o"], domain="l")]
WAYS = {
    "safety": check_graph,
    "load": load_graph,
    "import": open_graph,
    "check": lambda path: check(path, "cpu"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("times", [2, 3, 7])
def test_functions_that_call_functions_are_counted_before_they_are_expanded(way, times, tmp_path, refused):
    path = saved(tmp_path / "bomb.onnx", CALL, functions=chain(30, times))
    assert references(path).nodes == min(times**29, MANY)
    with refused(TooLargeError, "bomb.onnx has", "nodes, more than 500,000", hint="POCKETZOO_MAX_NODES"):
        WAYS[way](path)


def test_the_order_in_which_functions_are_written_does_not_matter(tmp_path):
    functions = chain(30, 2)
    for order in (functions, functions[::-1], functions[::2] + functions[1::2]):
        assert references(saved(tmp_path / "g.onnx", CALL, functions=order)).nodes == 2**29


@pytest.mark.parametrize("loop", [{"A": "A"}, {"A": "B", "B": "A"}, {"A": "B", "B": "C", "C": "B"}])
def test_a_function_that_calls_itself_is_no_graph(loop, tmp_path, refused):
    functions = [function(name, calls) for name, calls in loop.items()]
    path = saved(tmp_path / "g.onnx", [helper.make_node("A", ["i"], ["o"], domain="l")], functions=functions)
    with refused(UnsafeFileError, "calls itself"):
        references(path)


def test_functions_in_functions_are_as_deep_as_the_limit_and_no_deeper(tmp_path, monkeypatch, refused):
    path = saved(tmp_path / "g.onnx", CALL, functions=chain(30, 1))
    assert references(path).nesting == 30
    check_graph(path)
    monkeypatch.setenv("POCKETZOO_MAX_NESTING", "29")
    with refused(TooLargeError, "has 30 levels", hint="POCKETZOO_MAX_NESTING"):
        check_graph(path)


def test_a_chain_of_a_hundred_thousand_functions_is_counted(tmp_path, refused):
    many = 100_000
    path = saved(tmp_path / "g.onnx", [helper.make_node(f"F{many - 1}", ["i"], ["o"], domain="l")],
                 functions=chain(many, 1))  # fmt: skip
    assert references(path).nesting == many
    with refused(TooLargeError, "100,000 levels"):
        check_graph(path)


def test_the_limit_of_nodes_is_raised_by_its_variable(tmp_path, monkeypatch, refused):
    path = saved(tmp_path / "g.onnx", [helper.make_node("F10", ["i"], ["o"], domain="l")], functions=chain(11, 2))
    check_graph(path)
    for limit in ("1023", "1"):
        monkeypatch.setenv("POCKETZOO_MAX_NODES", limit)
        with refused(TooLargeError, "has 1,024 nodes"):
            check_graph(path)
    monkeypatch.setenv("POCKETZOO_MAX_NODES", "1024")
    check_graph(path)


def constant(shape):
    return {"s": np.array(shape, np.int64)}


MAXIMUM = helper.make_node("ReduceMax", ["c"], ["m"], keepdims=0)
ADD = helper.make_node("Add", ["i", "m"], ["o"])
HUGE = {
    "a constant of a shape": ([helper.make_node("ConstantOfShape", ["s"], ["c"]), MAXIMUM, ADD], constant([2**33])),
    "an expansion": ([helper.make_node("Expand", ["i", "s"], ["c"]), MAXIMUM, ADD], constant([10**6, 10**5, 1, 4])),
    "padding": ([helper.make_node("Pad", ["i", "s"], ["c"]), MAXIMUM, ADD], constant([0, 0, 0, 2**40])),
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("way", ["import", "check"])
def test_a_tensor_that_a_graph_would_compute_is_too_large(name, way, tmp_path, refused):
    nodes, constants = HUGE[name]
    with refused(TooLargeError, "the tensor 'c'", "values, more than", hint="POCKETZOO_MAX_TENSOR_VALUES"):
        WAYS[way](saved(tmp_path / "g.onnx", nodes, constants))


def test_constants_that_are_made_when_the_graph_is_loaded_count_together(tmp_path, refused):
    nodes = []
    for i in range(20):
        nodes += [
            helper.make_node("ConstantOfShape", ["s"], [f"c{i}"]),
            helper.make_node("ReduceMax", [f"c{i}"], [f"m{i}"], keepdims=0),
            helper.make_node("Add", [f"x{i}" if i else "i", f"m{i}"], ["o" if i == 19 else f"x{i + 1}"]),
        ]
    path = saved(tmp_path / "g.onnx", nodes, constant([2**27]))
    with refused(TooLargeError, "2,684,354,580 values in tensors that depend on no input"):
        open_graph(path)


def test_a_tensor_that_is_declared_and_not_stored_is_too_large(tmp_path, refused):
    gather = [helper.make_node("Gather", ["w", "z"], ["m"]), ADD]
    sparse = onnx.SparseTensorProto(dims=[2**40, 4])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64)))
    paths = [saved(tmp_path / "sparse.onnx", gather, {"z": 0}, sparse=[sparse]), tmp_path / "dense.onnx"]
    model = onnx.load(saved(paths[1], gather, {"z": 0}))
    model.graph.initializer.append(TensorProto(name="w", data_type=FLOAT, dims=[2**40, 4]))
    onnx.save(model, paths[1])
    for path in paths:
        for way in WAYS.values():
            with refused(TooLargeError, "4,398,046,511,104 values in one tensor", hint="POCKETZOO_MAX_TENSOR_VALUES"):
                way(path)


LENGTHS = {
    "stored": ([], {"z": 2**31}),
    "downwards": ([], {"z": -(2**31), "d": -1}),
    "in small steps": ([], {"a": np.float32(0), "z": np.float32(2), "d": np.float32(1e-9)}),
    "added": ([helper.make_node("Add", ["y", "y"], ["z"])], {"y": 2**30}),
    "multiplied": ([helper.make_node("Mul", ["y", "y"], ["z"])], {"y": 2**16}),
    "cast": ([helper.make_node("Cast", ["y"], ["z"], to=TensorProto.INT64)], {"y": np.float32(2**31)}),
    "in an attribute": ([helper.make_node("Constant", [], ["z"], value_int=2**31)], {}),
}


@pytest.mark.parametrize("way", LENGTHS)
def test_shape_inference_lists_no_numbers_of_a_long_range(way):
    """It would take a hundred gigabytes, whatever the limit of memory of this process."""
    nodes, constants = LENGTHS[way]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Range", ["a", "z", "d"], ["k"]), helper.make_node("Add", ["k", "d"], ["o"])],
        "g", [],
        [helper.make_tensor_value_info("o", TensorProto.INT64, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in {"a": 0, "d": 1, **constants}.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=OPSETS[:1], ir_version=8)
    before = model.SerializeToString()
    shapes = GraphIndex(model).shapes
    assert model.SerializeToString() == before
    assert shapes.get("k") in (None, [2**31], ["unk__0"]) or shapes["k"][0] > 2**30


def test_shape_inference_follows_a_range_that_is_short():
    graph = helper.make_graph(
        [helper.make_node("Range", ["a", "z", "d"], ["k"]), helper.make_node("Add", ["k", "d"], ["o"])], "g", [],
        [helper.make_tensor_value_info("o", TensorProto.INT64, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in {"a": 1, "z": 4, "d": 1}.items()],
    )  # fmt: skip
    assert GraphIndex(helper.make_model(graph, opset_imports=OPSETS[:1], ir_version=8)).shapes["o"] == [3]


def test_a_size_that_the_inputs_say_is_bounded_while_it_runs(tmp_path, refused):
    """Shape inference knows nothing of it."""
    nodes = [
        helper.make_node("Cast", ["i"], ["c"], to=TensorProto.INT64), helper.make_node("Abs", ["c"], ["a"]),
        helper.make_node("ReduceMax", ["a"], ["top"], keepdims=0), helper.make_node("Add", ["top", "big"], ["q"]),
        helper.make_node("Reshape", ["q", "one"], ["shape"]), helper.make_node("ConstantOfShape", ["shape"], ["m"]),
        helper.make_node("ReduceMean", ["m"], ["r"], keepdims=0), helper.make_node("Add", ["i", "r"], ["o"]),
    ]  # fmt: skip
    path = saved(tmp_path / "g.onnx", nodes, {"big": 2**33, "one": [1]})
    with refused(ArenaFullError, "takes more memory than foreign graphs may", hint="POCKETZOO_MAX_IMPORT_BYTES"):
        open_graph(path)
    small = saved(tmp_path / "small.onnx", nodes, {"big": 4, "one": [1]})
    assert open_graph(small).manifest.signature.outputs


def test_inputs_that_no_memory_holds_are_refused(tmp_path, refused):
    shape = [helper.make_tensor_value_info(name, FLOAT, ["b", 2**31]) for name in "io"]
    graph = helper.make_graph([helper.make_node("Tanh", ["i"], ["o"])], "g", shape[:1], shape[1:])
    onnx.save(helper.make_model(graph, opset_imports=OPSETS[:1], ir_version=8), tmp_path / "g.onnx")
    with refused(TooLargeError, "2,147,483,648 values"):
        open_graph(tmp_path / "g.onnx")


def test_an_input_of_fixed_size_may_be_large(tmp_path):
    """Larger than what is tried of those that are free: four images of 1,100 x 1,100 pixels."""
    shape = [helper.make_tensor_value_info(name, FLOAT, ["b", 1, 1100, 1100]) for name in "io"]
    graph = helper.make_graph([helper.make_node("Tanh", ["i"], ["o"])], "g", shape[:1], shape[1:])
    onnx.save(helper.make_model(graph, opset_imports=OPSETS[:1], ir_version=8), tmp_path / "g.onnx")
    assert open_graph(tmp_path / "g.onnx").manifest.signature.inputs[0].shape == ("batch", 1, 1100, 1100)


def test_four_free_axes_are_not_all_as_long_as_an_image(tmp_path):
    """Of 224 each they would be 45 million numbers for each of four samples."""
    shape = [helper.make_tensor_value_info(name, FLOAT, ["b", "c", "d", "e"]) for name in "io"]
    graph = helper.make_graph([helper.make_node("Tanh", ["i"], ["o"])], "g", shape[:1], shape[1:])
    onnx.save(helper.make_model(graph, opset_imports=OPSETS[:1], ir_version=8), tmp_path / "g.onnx")
    axes = batched_axes(signature_of(onnx.load(tmp_path / "g.onnx")).inputs)
    assert all(filling.image < 224 for filling in axes)
    assert open_graph(tmp_path / "g.onnx").manifest.signature.inputs[0].shape == ("batch", "c", "d", "e")


def batched_axes(inputs):
    return [filling for guess in guesses(inputs) for filling in fillings(inputs, guess, 4)]


def test_a_loop_without_end_is_ended_by_the_clock(tmp_path, monkeypatch, refused):
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Tanh", ["v"], ["w"])], "body",
        [helper.make_tensor_value_info("n", TensorProto.INT64, []), helper.make_tensor_value_info("go", 9, []),
         helper.make_tensor_value_info("v", FLOAT, None)],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("w", FLOAT, None)],
    )  # fmt: skip
    path = saved(tmp_path / "g.onnx", [helper.make_node("Loop", ["n", "go", "i"], ["o"], body=body)],
                 {"n": 2**60, "go": True})  # fmt: skip
    monkeypatch.setenv("POCKETZOO_MAX_IMPORT_SECONDS", "1")
    with refused(TooLargeError, "runs longer than 1 second", hint="POCKETZOO_MAX_IMPORT_SECONDS"):
        open_graph(path)
