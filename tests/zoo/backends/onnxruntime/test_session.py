"""Sessions are made in one place, with the options that are asked for."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import pocketzoo
from pocketzoo.core.errors import MissingDependencyError
from pocketzoo.zoo.backends.onnxruntime.session import LEVELS, open_session

ROOT = Path(pocketzoo.__file__).parent
HERE = "zoo/backends/onnxruntime/session.py"


def uses(tree: ast.AST, name: str) -> bool:
    """Whether a name is used, besides as a type."""
    return any(isinstance(n, ast.Attribute) and n.attr == name for n in ast.walk(tree)) or any(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name for n in ast.walk(tree)
    )


@pytest.mark.parametrize("name", ["InferenceSession", "SessionOptions"])
def test_sessions_are_made_in_one_file(name):
    trees = {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text("utf8")) for p in ROOT.rglob("*.py")}
    assert [path for path, tree in trees.items() if uses(tree, name)] == [HERE]


REWRITTEN = {
    "none": ["Add", "Identity", "MatMul", "Add", "Unsqueeze", "Conv", "Relu"],
    "basic": ["Gemm", "Unsqueeze", "Conv", "Relu"],
    "all": ["Gemm", "Unsqueeze", "FusedConv"],
}


@pytest.fixture
def model() -> onnx.ModelProto:
    """More nodes the less of it is rewritten: constants to fold, a bias to take up, an activation to fuse."""
    one = numpy_helper.from_array(np.ones(4, np.float32), "one")
    nodes = [
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("MatMul", ["same", "w"], ["m"]),
        helper.make_node("Add", ["m", "two"], ["s"]),
        helper.make_node("Unsqueeze", ["s", "axes"], ["image"]),
        helper.make_node("Conv", ["image", "k"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 4])
    arrays = {"w": np.eye(4, dtype=np.float32), "k": np.ones((3, 1, 1), np.float32), "axes": np.int64([1])}
    constants = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], [one, *constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_graph_comes_from_a_file_or_from_memory(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    one, two = (open_session(graph).run(None, {"x": x})[0] for graph in (model, tmp_path / "m.onnx"))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("level", LEVELS)
def test_it_is_rewritten_as_far_as_is_asked(model, level, tmp_path):
    session = open_session(model, optimization=level, optimized=tmp_path / "out.onnx")
    nodes = [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node]
    assert nodes == REWRITTEN[level]
    assert session.session.get_session_options().graph_optimization_level.name == LEVELS[level]


def test_what_is_left_out_is_as_onnxruntime_has_it(model):
    import onnxruntime

    plain = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    here = open_session(model).session
    ours = ("log_severity_level",)  # it prints nothing
    names = [
        name for name in dir(plain.get_session_options()) if not name.startswith(("_", "add_", "get_", "regi", *ours))
    ]
    for name in names:
        a, b = (getattr(session.get_session_options(), name) for session in (plain, here))
        assert callable(a) or a == b, name
    assert here.get_providers() == plain.get_providers()


def ranging():
    """The numbers below its input: more than any memory holds where that is large."""
    n = helper.make_tensor_value_info("n", TensorProto.INT64, [])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    ends = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in (("zero", 0), ("one", 1))]
    made = helper.make_graph([helper.make_node("Range", ["zero", "n", "one"], ["y"])], "g", [n], [y], ends)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_nothing_is_printed_besides_the_error(capfd):
    """onnxruntime's own log has colors, and names of the graph, which may be anything."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", ["a", "b"]), ("y", None))
    )

    def graph(operator):
        made = helper.make_graph([helper.make_node(operator, ["x", "x"], ["y"], name="\x1b[31mred")], "g", [x], [y])
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    with pytest.raises(Exception, match="MatMul"):
        open_session(graph("MatMul")).run(None, {"x": np.zeros((2, 3), np.float32)})
    with pytest.raises(Exception, match="Unknown"):
        open_session(graph("Unknown"))
    many = np.array(2**62, np.int64)
    with pytest.raises(Exception, match="overflowed"):
        open_session(ranging()).run(None, {"n": many})
    assert capfd.readouterr() == ("", "")


def test_options_are_passed_on(model, tmp_path):
    session = open_session(model, threads=1, arena=False, profile=f"{tmp_path}/run")
    options = session.session.get_session_options()
    assert (options.intra_op_num_threads, options.enable_cpu_mem_arena) == (1, False)
    session.run(None, {"x": np.ones((1, 4), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text("utf8"))
    assert any(event["cat"] == "Node" for event in events)
    assert list(tmp_path.glob("run*.json"))


def test_without_onnxruntime_the_error_says_what_to_install(model, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with refused(MissingDependencyError, "onnxruntime", hint="pocketzoo[edge]"):
        open_session(model)
    with refused(MissingDependencyError, "onnxruntime", hint="pocketzoo[compress]"):
        open_session(model, extra="compress")


def test_providers_are_the_ones_that_are_asked_for(model):
    with pytest.warns(UserWarning, match="'SomeExecutionProvider' is not in available provider names"):
        open_session(model, providers=["SomeExecutionProvider", "CPUExecutionProvider"])
