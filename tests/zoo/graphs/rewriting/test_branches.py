"""If nodes that lengths settle: what is put in their place computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.fresh_names import graphs
from pocketzoo.zoo.graphs.rewriting.branches import settled

FLOAT = TensorProto.FLOAT
N = helper.make_node


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def branch(nodes, out, rank=2, **constants):
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    return helper.make_graph(nodes, out, [], [value(out, [None] * rank)], stored)


def model(nodes, shape=("batch", 4, "length"), rank=3, opset=17, extra=(), **constants):
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "g", [value("x", shape), *extra], [value("y", [None] * rank)], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def run(graph, **feed):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {each.name: feed[each.name] for each in session.get_inputs()})[0]


def ifs(graph):
    return sum(node.op_type == "If" for each in graphs(graph.graph) for node in each.node)


def squeezed(**names):
    """What torch exports of ``squeeze(-1)``: without the last axis where it is 1."""
    then = branch([N("Squeeze", ["x", "last"], ["s"]), N("Mul", ["s", "two"], ["t"])], "t", two=np.float32(2))
    other = branch([N("Identity", ["x"], ["t_else"])], "t_else", rank=3)
    return [
        N("Shape", ["x"], ["shape"]),
        N("Gather", ["shape", "last"], ["length_of_x"]),
        N("Equal", ["length_of_x", "one"], ["is"]),
        N("If", ["is"], ["y"], then_branch=then, else_branch=other),
    ]


CONSTANTS = {"last": np.array([-1]), "one": np.array([1])}


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_length_that_is_known_settles_which_branch_runs(length):
    graph = model(squeezed(), **CONSTANTS)
    made = settled(graph, {"length": length})
    assert ifs(made) == 0
    assert [d.dim_param or d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        4,
        "length",
    ]
    x = np.random.default_rng(0).normal(size=(3, 4, length)).astype(np.float32)
    assert run(made, x=x).shape == ((3, 4) if length == 1 else (3, 4, length))
    np.testing.assert_array_equal(run(made, x=x), run(graph, x=x))
    assert ifs(graph) == 1  # the one that was given is as it was


def test_what_is_not_known_is_asked_when_it_runs():
    graph = model(squeezed(), **CONSTANTS)
    assert ifs(settled(graph, {})) == ifs(settled(graph, {"batch": 1})) == 1


def test_a_graph_without_branches_is_the_one_that_was_given():
    graph = model([N("Relu", ["x"], ["y"])])
    assert settled(graph, {"length": 4}) is graph


CONDITIONS = {
    "slice": ([N("Slice", ["s", "i1", "i2"], ["a"]), N("Equal", ["a", "c4"], ["is"])], True),
    "backwards": ([N("Slice", ["s", "neg1", "least", "i0", "neg1"], ["a"]), N("Gather", ["a", "zero"], ["b"]),
                   N("Equal", ["b", "c2"], ["is"])], True),
    "size of a shape": ([N("Size", ["s"], ["a"]), N("Equal", ["a", "scalar3"], ["e"]), N("Not", ["e"], ["is"])], False),
    "arithmetic": ([N("Gather", ["s", "scalar2"], ["a"]), N("Sub", ["a", "scalar3"], ["b"]),
                    N("Div", ["b", "scalar2"], ["c"]), N("Less", ["c", "zero"], ["is"])], False),
    "casts": ([N("Gather", ["s", "scalar2"], ["a"]), N("Cast", ["a"], ["b"], to=TensorProto.INT32),
               N("Cast", ["b"], ["is"], to=TensorProto.BOOL)], True),
    "both": ([N("Gather", ["s", "i2"], ["a"]), N("Greater", ["a", "c4"], ["p"]),
              N("GreaterOrEqual", ["a", "c2"], ["q"]), N("Or", ["p", "q"], ["is"])], True),
    "rank of another": ([N("Unsqueeze", ["x", "i1"], ["u"]), N("Shape", ["u"], ["us"]), N("Size", ["us"], ["n"]),
                         N("Equal", ["n", "scalar3"], ["is"])], False),
    "padding": ([N("ConstantOfShape", ["i2"], ["z"], value=numpy_helper.from_array(np.array([0]))),
                 N("Concat", ["z", "i1", "z", "i0"], ["k"], axis=0), N("Gather", ["k", "scalar2"], ["a"]),
                 N("Equal", ["a", "scalar2"], ["is"])], False),
}  # fmt: skip


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_of_every_kind_are_as_onnxruntime_computes_them(name):
    nodes, expected = CONDITIONS[name]
    own = [branch([N(op, ["x"], [op.lower()])], op.lower(), rank=3) for op in ("Neg", "Abs")]
    graph = model(
        [N("Shape", ["x"], ["s"]), *nodes, N("If", ["is"], ["y"], then_branch=own[0], else_branch=own[1])],
        i0=np.array([0]), i1=np.array([1]), i2=np.array([2]), neg1=np.array([-1]), least=np.array([-(2**63) + 1]),
        c2=np.array([2]), c4=np.array([4]), scalar2=np.array(2), scalar3=np.array(3), zero=np.array(0),
    )  # fmt: skip
    made = settled(graph, {"length": 2})
    assert ifs(made) == 0
    x = np.ones((2, 4, 2), np.float32)
    np.testing.assert_array_equal(run(made, x=x), run(graph, x=x))
    assert (run(made, x=x) < 0).all() == expected


def test_two_branches_that_call_their_own_alike_do_not_meet():
    nodes = [N("Shape", ["x"], ["s"]), N("Gather", ["s", "last"], ["n"]), N("Equal", ["n", "one"], ["is"])]
    for i, before in enumerate(("x", "y0")):
        own = [
            branch(
                [N("Mul", [before, "c"], ["inner"]), N(op, ["inner"], [f"out{op}"])],
                f"out{op}",
                rank=3,
                c=np.float32(i + 2),
            )
            for op in ("Neg", "Relu")
        ]
        nodes.append(N("If", ["is"], ["y0" if i == 0 else "y"], then_branch=own[0], else_branch=own[1]))
    graph = model(nodes, **CONSTANTS)
    for length in (1, 3):
        made = settled(graph, {"length": length})
        onnx.checker.check_model(made)
        assert ifs(made) == 0
        x = np.random.default_rng(1).normal(size=(2, 4, length)).astype(np.float32)
        np.testing.assert_array_equal(run(made, x=x), run(graph, x=x))


def test_branches_inside_branches():
    inner = [branch([N(op, ["x"], [f"{op}_in"])], f"{op}_in", rank=3) for op in ("Neg", "Abs")]
    asks = N("If", ["is"], ["inner_y"], then_branch=inner[0], else_branch=inner[1])
    outer = [
        branch([asks, N("Relu", ["inner_y"], ["o"])], "o", rank=3),
        branch([N("Relu", ["x"], ["p"])], "p", rank=3),
    ]  # fmt: skip
    nodes = [N("Shape", ["x"], ["s"]), N("Gather", ["s", "last"], ["n"]), N("Equal", ["n", "one"], ["is"])]
    known = model([*nodes, N("If", ["is"], ["y"], then_branch=outer[0], else_branch=outer[1])], **CONSTANTS)
    asked = model(
        [*nodes, N("If", ["given"], ["y"], then_branch=outer[0], else_branch=outer[1])],
        extra=[value("given", [], TensorProto.BOOL)], **CONSTANTS,
    )  # fmt: skip
    x = np.random.default_rng(1).normal(size=(2, 4, 1)).astype(np.float32)
    assert ifs(settled(known, {"length": 1})) == 0
    np.testing.assert_array_equal(run(settled(known, {"length": 1}), x=x), run(known, x=x))
    made = settled(asked, {"length": 1})
    assert ifs(made) == 1  # of what the graph is told when it runs
    for given in (True, False):
        feed = {"x": x, "given": np.array(given)}
        np.testing.assert_array_equal(run(made, **feed), run(asked, **feed))


def test_the_only_branch_that_runs_is_taken_and_of_two_none():
    """One branch wants other lengths, as the two sampling rates of a speech model do."""
    fits = branch([N("Relu", ["x"], ["a"])], "a", rank=3)
    other = branch([N("MatMul", ["x", "w"], ["b"])], "b", rank=3, w=np.ones((7, 7), np.float32))
    graph = model(
        [N("If", ["given"], ["y"], then_branch=fits, else_branch=other)], extra=[value("given", [], TensorProto.BOOL)]
    )

    def runs(length):
        def check(each):
            try:
                run(each, x=np.ones((1, 4, length), np.float32), given=np.array(True))
            except Exception:
                return False
            return True

        return check

    made = settled(graph, {"length": 4}, runs(4))
    assert [node.op_type for node in made.graph.node] == ["Relu", "Identity"]
    assert ifs(settled(graph, {"length": 7}, runs(7))) == 1
    assert ifs(settled(graph, {"length": 7})) == 1
