"""Graphs in 16 bits: what changes, what stays, and that the answers do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from feeds import arrays, only
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from told import Told

from pocketzoo.core.errors import ExportError
from pocketzoo.deploy.half_precision_export import check_ratio, write_half_precision
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.dataset import Split
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.graphs.rewriting.half_limits import LARGEST, Seen
from pocketzoo.zoo.graphs.rewriting.half_precision import check_precision, modern, plan_half
from pocketzoo.zoo.graphs.rewriting.half_writer import to_half
from pocketzoo.zoo.tasks.agreement import sqnr

TARGETS = {t.name: t for t in pocketzoo_targets()}
RTX = TARGETS["tensorrt-rtx"]
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def graph(*nodes, shape=("batch", 4), out=FLOAT, **constants):
    """x through the nodes, which make y."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", out, ["batch", *[None] * (len(shape) - 1)])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs, [output], output, **attributes)


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def halved(model, precision="fp16", target=RTX, **options):
    model = modern(model, precision, target)
    plan = plan_half(model, target, precision, **options)
    made = to_half(model, plan)
    onnx.checker.check_model(made, full_check=True)
    return plan, made


def types(model):
    inferred = onnx.shape_inference.infer_shapes(model)
    return {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}


W = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)


def test_weights_and_activations_are_halves_and_the_ends_stay():
    model = graph(node("MatMul", ["x", "w"], "a"), node("Relu", ["a"], "y"), w=W)
    plan, made = halved(model)
    assert plan.nodes == ("a", "y")
    assert plan.in_float32 == {}
    assert [t.data_type for t in made.graph.initializer] == [HALF]
    assert types(made)["a_fp16"] == HALF
    assert [n.op_type for n in made.graph.node] == ["Cast", "MatMul", "Relu", "Cast"]
    assert made.graph.output[0].type.tensor_type.elem_type == FLOAT


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_numbers_of_few_bits_survive_exactly(precision):
    """Sums of small whole numbers are the same in 16 bits as in 32."""
    model = graph(node("Add", ["x", "w"], "a"), node("Relu", ["a"], "y"), w=np.arange(4, dtype=np.float32))
    _, made = halved(model, precision)
    if precision == "bf16":  # no kernels here: what the initializer holds is enough
        kept = [numpy_helper.to_array(t).astype(np.float32) for t in made.graph.initializer]
        np.testing.assert_array_equal(kept[0], np.arange(4))
        return
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(run(made, x), run(model, x))


def test_softmax_and_norms_stay_in_32_bits():
    model = graph(
        node("MatMul", ["x", "w"], "a"), node("Softmax", ["a"], "s"), node("Relu", ["s"], "y"), w=W
    )  # fmt: skip
    plan, made = halved(model)
    assert plan.in_float32 == {"s": "Softmax needs the range"}
    assert plan.nodes == ("a", "y")
    assert types(made)["s"] == FLOAT
    assert [n.op_type for n in made.graph.node] == ["Cast", "MatMul", "Cast", "Softmax", "Cast", "Relu", "Cast"]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (1e5, "values up to 1e+05"),
        (np.nextafter(np.float32(65504), np.float32(1e9)), "values up to 6.55e+04"),
        (-65504.0, ""),
        (LARGEST["fp16"], ""),
        (1e-12, "is 1e-12"),
        (2.0**-14, ""),  # the smallest with all bits of its mantissa
        (-(2.0**-15), "is 3.05e-05"),
        (np.nextafter(np.float32(2.0**-14), np.float32(0)), "is 6.1e-05"),
        (0.0, ""),
        (-np.inf, ""),
    ],
)
def test_constants_that_16_bits_cannot_hold(value, kept):
    model = graph(node("Add", ["x", "c"], "y"), c=np.array([value], np.float32))
    plan, _ = halved(model)
    assert bool(plan.in_float32) == bool(kept)
    assert all(kept in reason for reason in plan.in_float32.values())


def test_a_mask_of_the_lowest_number_reaches_its_reader_whole():
    """As attention writes it: 0 where a token is, the lowest float32 where none is."""
    lowest = np.finfo(np.float32).min
    model = graph(
        node("Greater", ["x", "zero"], "is"),
        node("Where", ["is", "zero", "lowest"], "mask"),
        node("Add", ["x", "mask"], "y"),
        zero=np.float32(0), lowest=np.float32(lowest),
    )  # fmt: skip
    plan, made = halved(model)
    assert set(plan.in_float32) == {"mask", "y"}
    x = np.array([[1, -1, 2, -2]], np.float32)
    np.testing.assert_array_equal(run(made, x), run(model, x))


def test_values_that_were_seen_to_be_large_stay():
    model = graph(node("Mul", ["x", "w"], "a"), node("Relu", ["a"], "y"), w=np.full(4, 100, np.float32))
    assert halved(model)[0].in_float32 == {}
    plan, made = halved(model, largest={"a": 4e4})  # less than 65,504, and too near
    assert set(plan.in_float32) == {"a", "y"}
    x = np.full((1, 4), 1000, np.float32)
    np.testing.assert_array_equal(run(made, x), 1e5)


def test_only_what_onnx_defines_in_16_bits_changes():
    """The scales of a Resize are in 32 bits by ONNX, and shapes are whole numbers."""
    model = graph(
        node("Resize", ["x", "", "scales"], "big", mode="nearest"),
        node("Shape", ["big"], "shape"),
        node("ConstantOfShape", ["shape"], "ones", value=numpy_helper.from_array(np.ones(1, np.float32))),
        node("Add", ["big", "ones"], "y"),
        scales=np.array([1, 2], np.float32),
    )
    plan, made = halved(model)
    assert plan.in_float32 == {}
    assert {t.name: t.data_type for t in made.graph.initializer} == {"scales": FLOAT}
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(run(made, x), np.full((1, 8), 2))


def test_what_graphs_inside_read_keeps_its_name():
    inner = [
        helper.make_graph(
            [node("Add", ["a", "w"], name)], name, [], [helper.make_tensor_value_info(name, FLOAT, [None, None])]
        )
        for name in ("then", "else")
    ]
    model = graph(
        node("Relu", ["x"], "a"), node("If", ["yes"], "y", then_branch=inner[0], else_branch=inner[1]),
        w=np.ones(4, np.float32), yes=np.array(True),
    )  # fmt: skip
    plan, made = halved(model)
    assert set(plan.nodes) == {"a", "then", "else"}  # inside it is converted too, what is captured is not cast twice
    assert sum(n.op_type == "Cast" and n.output[0] == "a_fp16_cast" for n in made.graph.node) == 0
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(run(made, x), run(model, x))


TAKEN = [f"{tensor}_fp16{end}" for tensor in ("x", "w", "a", "b", "s", "y") for end in ("", "_cast", "_back", "_1")]


@pytest.mark.parametrize("role", ["constants", "outputs of nodes", "nodes", "branches"])
def test_names_that_are_taken_are_left_to_who_has_them(role):
    nodes, last = [], "b"
    constants = {"w": np.eye(4, dtype=np.float32) * 2, "zero": np.float32(0)}
    for i, name in enumerate(TAKEN if role != "branches" else ()):
        if role == "constants":
            constants[name] = np.float32(1 - i / 64)
            nodes.append(node("Mul", [last, name], f"chain{i}"))
            last = f"chain{i}"
        else:
            out = name if role == "outputs of nodes" else f"chain{i}"
            nodes.append(helper.make_node("Neg", [last], [out], name=name))
            last = out
    if role == "branches":
        inside = [node("Neg", [TAKEN[i - 1] if i else "b"], name) for i, name in enumerate(TAKEN)]
        value = helper.make_tensor_value_info
        one = helper.make_graph(inside, "one", [], [value(TAKEN[-1], FLOAT, None)])
        two = helper.make_graph([node("Identity", ["b"], "c2")], "two", [], [value("c2", FLOAT, None)])
        nodes = [node("ReduceMax", ["x"], "m", keepdims=0), node("Greater", ["m", "zero"], "c"),
                 node("If", ["c"], "z", then_branch=one, else_branch=two)]  # fmt: skip
        last = "z"
    model = graph(
        node("MatMul", ["x", "w"], "a"),
        node("Relu", ["a"], "b"),
        *nodes,
        node("Softmax", [last], "s"),
        node("Add", ["s", "b"], "y"),
        **constants,
    )
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    plan, made = halved(model)
    assert {"a", "b"} <= set(plan.nodes)
    assert sqnr(run(made, x), run(model, x)) > 50


def test_a_pair_whose_scale_would_lose_bits_takes_its_layer_along():
    def pair(scale):
        return graph(
            node("DequantizeLinear", ["q", "scale", "zero"], "w"), node("MatMul", ["x", "w"], "m"),
            node("Relu", ["m"], "y"),
            q=np.ones((4, 4), np.int8), scale=np.float32(scale), zero=np.int8(0),
        )  # fmt: skip

    assert halved(pair(0.01))[0].nodes == ("w", "m", "y")
    plan, made = halved(pair(1e-5))
    assert plan.nodes == ("y",)
    assert plan.in_float32 == {"w": "its scale would lose bits", "m": "it is fused with nodes that stay in fp32"}
    assert [n.op_type for n in made.graph.node][:2] == ["DequantizeLinear", "MatMul"]


def test_one_scale_that_loses_bits_goes_through_all_pairs_that_are_read_together():
    """Each product reads two pairs, each pair is read by two products: from one to the next, whichever is first."""
    count = 40
    pairs = [node("DequantizeLinear", [f"q{i}", f"scale{i}", "zero"], f"w{i}") for i in range(count)]
    products = [node("Mul", [f"w{i}", f"w{i + 1}"], f"m{i}") for i in range(count - 1)]
    constants = {f"q{i}": np.ones((4, 4), np.int8) for i in range(count)}
    for bad in (0, count // 2, count - 1):
        scales = {f"scale{i}": np.float32(1e-5 if i == bad else 0.01) for i in range(count)}
        model = graph(
            *pairs, *products, node("Sum", [f"m{i}" for i in range(count - 1)], "s"), node("MatMul", ["x", "s"], "y"),
            **constants, **scales, zero=np.int8(0),
        )  # fmt: skip
        plan = halved(model)[0]
        assert set(plan.nodes) == {"s", "y"}
        assert plan.in_float32.pop(f"w{bad}") == "its scale would lose bits"
        assert set(plan.in_float32.values()) == {"it is fused with nodes that stay in fp32"}


def test_convolutions_in_bf16_want_a_newer_opset():
    model = graph(node("Conv", ["x", "k"], "y"), shape=("batch", 4, 8, 8), k=np.ones((4, 4, 1, 1), np.float32))
    plan, made = halved(model, "bf16")
    assert plan.nodes == ("y",)
    assert made.opset_import[0].version == 22
    plan, _ = halved(model, "bf16", TARGETS["jetson-orin"])
    assert plan.in_float32 == {"y": "ONNX has no Conv in bf16 in opset 20"}


def test_the_graph_that_is_given_stays_as_it_is():
    model = graph(node("MatMul", ["x", "w"], "y"), w=W)
    before = model.SerializeToString(deterministic=True)
    halved(model)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("target", "precision", "what", "hint"),
    [
        ("cpu", "fp16", "cpu does not compute in fp16", "fp32, int8"),
        ("jetson-orin", "fp8", "does not compute in fp8", "fp16"),
        ("openvino", "fp8", "does not compute in fp8", "fp16"),
        ("tensorrt", "int8", "cannot be converted to int8", "--int8"),
    ],
)
def test_a_precision_that_cannot_be_is_refused(target, precision, what, hint, refused):
    with refused(ExportError, what, hint=hint):
        check_precision(precision, TARGETS[target])


# -- real models


def test_accuracy_in_fp16_is_that_of_fp32(fitted, compressed, tmp_path):
    """Scored by onnxruntime on digits: the float graph, and the int8 one whose floats become halves."""
    data = load_data("digits").split("test")
    x, y = next(iter(arrays(Batches(data, fitted.manifest.input))))
    for number, path in enumerate([fitted.graph(""), compressed.graph("tensorrt-rtx")]):
        out, heard = tmp_path / f"{number}.onnx", Told()
        plan = write_half_precision(path, out, RTX, "fp16", fitted.manifest.input, progress=heard)
        assert len(plan.nodes) >= 20
        assert heard.said[0].startswith(f"fp16: {len(plan.computing)} of ")
        right = [
            (onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"]).run(None, {"image": x})[0]
             .argmax(-1) == y).mean() for p in (path, out)
        ]  # fmt: skip
        assert abs(right[0] - right[1]) <= 0.01
        assert out.stat().st_size < path.stat().st_size


def test_every_number_in_16_bits_still_gives_the_answers(fitted, tmp_path):
    """onnxruntime keeps 32 bits between nodes; the reference implementation of ONNX rounds after each."""
    write_half_precision(fitted.graph(""), tmp_path / "m.onnx", RTX, "fp16", fitted.manifest.input)
    x, _ = next(iter(arrays(Batches(load_data("digits").split("test"), fitted.manifest.input))))
    with OnnxRunner(fitted.graph("")) as runner:
        wanted = only(runner, x[:2])
    (given,) = ReferenceEvaluator(onnx.load(tmp_path / "m.onnx")).run(None, {"image": x[:2]})
    assert sqnr(given, wanted) > 40


def on_images(fitted, *nodes, **constants):
    """A graph that reads what the bundle reads."""
    shape = tuple(d if isinstance(d, str) else int(d) for d in fitted.manifest.input.shape)
    return graph(*nodes, shape=shape, **constants)


def reads(fitted):
    """The processor of ``on_images``."""
    return replace(fitted.manifest.input, name="x")


def test_values_that_samples_show_to_be_large_stay(tmp_path, fitted):
    """A product of 80,000 is beyond 16 bits: white pixels go there, and black ones do not."""
    source, out = tmp_path / "in.onnx", tmp_path / "m.onnx"
    nodes = node("Mul", ["x", "big"], "a"), node("Mul", ["a", "small"], "y")
    onnx.save(on_images(fitted, *nodes, big=np.float32(4e4), small=np.float32(1e-3)), source)
    assert "a" in write_half_precision(source, out, RTX, "fp16", reads(fitted)).in_float32
    zeros = Batches(Split(samples=np.zeros((4, 28, 28), np.uint8)), reads(fitted))
    assert write_half_precision(source, out, RTX, "fp16", reads(fitted), zeros).in_float32 == {}


def test_infinite_values_may_come_and_go(tmp_path, fitted):
    """As the logarithm of a distance of none in T5: 16 bits hold infinity."""
    source, out = tmp_path / "in.onnx", tmp_path / "m.onnx"
    nodes = (
        node("Mul", ["x", "none"], "zeros"), node("Abs", ["zeros"], "positive"), node("Log", ["positive"], "far"),
        node("Max", ["far", "least"], "near"), node("Add", ["x", "near"], "y"),
    )  # fmt: skip
    onnx.save(on_images(fitted, *nodes, none=np.float32(0), least=np.float32(-2)), source)
    assert write_half_precision(source, out, RTX, "fp16", reads(fitted)).in_float32 == {}


def test_what_loses_the_answers_stays_in_32_bits(tmp_path, fitted):
    """2049 is 2048 in 16 bits, and their difference nothing."""
    source, out = tmp_path / "in.onnx", tmp_path / "out" / "m.onnx"
    nodes = node("Sub", ["one", "other"], "a"), node("Mul", ["x", "a"], "y")
    onnx.save(on_images(fitted, *nodes, one=np.float32(2049), other=np.float32(2048)), source)
    plan = write_half_precision(source, out, RTX, "fp16", reads(fitted))
    assert "of the error" in plan.in_float32["a"]
    x = np.linspace(-1, 1, 784, dtype=np.float32).reshape(1, 1, 28, 28)
    np.testing.assert_allclose(run(onnx.load(out), x), x, rtol=2**-10)


def test_answers_that_are_lost_are_refused(refused):
    check_ratio(20.0, 20.0, "fp16")
    check_ratio(None, 20.0, "fp16")
    with refused(ExportError, "the outputs differ", hint="--data"):
        check_ratio(19.9, 20.0, "fp16")


# -- thresholds and words


@pytest.mark.parametrize(
    ("precision", "seen", "kept"),
    [
        ("fp16", 32752.0, ""),  # half of 65,504
        ("fp16", 32753.0, "x reached 3.28e+04"),
        ("bf16", 1.65e38, ""),
        ("bf16", 1.66e38, "x reached 1.66e+38"),
    ],
)
def test_twice_what_was_seen_has_to_fit(precision, seen, kept):
    model = graph(node("Relu", ["x"], "y"))
    for name in ("x", "y"):
        found = plan_half(model, RTX, precision, largest={name: seen}).in_float32
        assert found == ({"y": kept.replace("x reached", f"{name} reached")} if kept else {})


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (3.3e38, ""), (3.35e38, "its constant c has values up to 3.35e+38"), (-3.35e38, "its constant c has values up"),
        (1.3e-38, ""), (1.1e-38, "its constant c is 1.1e-38"), (0.0, ""),
    ],
)  # fmt: skip
def test_constants_that_bf16_cannot_hold(value, kept):
    found = plan_half(graph(node("Add", ["x", "c"], "y"), c=np.float32(value)), RTX, "bf16").in_float32
    assert bool(found) == bool(kept)
    assert all(reason.startswith(kept) for reason in found.values())


def test_a_small_number_among_others_is_no_reason():
    found = plan_half(graph(node("Add", ["x", "c"], "y"), c=np.array([1e-9, 1, 2, 3], np.float32)), RTX, "fp16")
    assert found.in_float32 == {}
    wide = graph(node("Add", ["x", "c"], "y"), c=np.array([np.inf, 70000, 2, 3], np.float32))
    assert plan_half(wide, RTX, "fp16").in_float32 == {"y": "its constant c has values up to 7e+04"}


@pytest.mark.parametrize(
    ("op", "reads", "wide"),
    [("Mul", ["x", "c"], True), ("Sub", ["x", "c"], True), ("Add", ["x", "c"], False),
     ("Where", ["is", "x", "c"], True), ("Max", ["x", "c"], False)],
)  # fmt: skip
def test_what_comes_of_a_large_constant_is_large_where_it_is_handed_on(op, reads, wide):
    model = graph(
        node(op, reads, "a"), node("Flatten", ["a"], "b"), node("Relu", ["b"], "c2"), node("Neg", ["c2"], "y"),
        c=np.float32(1e6), **{"is": np.array(True)},
    )  # fmt: skip
    found = plan_half(model, RTX, "fp16").in_float32
    outside = ", outside the range of fp16"
    handed = {"b": f"it reads a{outside}", "c2": f"it reads b{outside}"} if wide else {}
    assert found == {"a": "its constant c has values up to 1e+06", **handed}


@pytest.mark.parametrize(
    ("constant", "nodes", "kept"),
    [
        (1e-10, ["Log"], {"a", "b"}),  # 0 in fp16, of which the logarithm is infinite
        (1e-10, ["Abs", "Sqrt"], {"a", "b", "c"}),
        (1e-4, ["Log"], set()),
        (1e-5, ["Log"], {"a"}),  # as good as itself: 1.0013e-05
        (1e-10, ["Sqrt", "Log"], {"a", "b"}),  # of which the root is 1e-05
        (1e-10, ["Erf"], set()),  # nobody asks how near to zero it is
        (1e-10, ["Relu", "Log"], {"a", "b", "c"}),
    ],
)
def test_what_a_small_constant_keeps_above_zero_stays_as_far_as_that_matters(constant, nodes, kept):
    chain = [node("Add", ["x", "tiny"], "a")]
    for i, op in enumerate(nodes):
        chain.append(node(op, ["abcd"[i]], "bcd"[i]))
    model = graph(*chain, node("Neg", ["abcd"[len(nodes)]], "y"), tiny=np.float32(constant))
    seen = {name: Seen(largest=5.0, rounding=70.0, size=4) for name in "xabcd"}
    found = plan_half(model, RTX, "fp16", seen=seen).in_float32
    assert set(found) == kept
    x = np.array([[0, 0, 1, 4]], np.float32)
    assert np.isfinite(run(halved(model, seen=seen)[1], x)).all()


@pytest.mark.parametrize(
    ("last", "factor", "kept"),
    [("Tanh", 0.5, False), ("Sigmoid", 0.5, False), ("Relu", 0.5, True), ("Tanh", 0.0, True)],
)
def test_values_beyond_the_range_may_be_infinite_where_they_saturate(last, factor, kept):
    """As GELU has it: tanh((x + x^3) / 2) is 1 from 1e1 on, and of infinity too; no number comes of it times zero."""
    model = graph(
        node("Mul", ["x", "x"], "s"), node("Mul", ["s", "x"], "cube"), node("Add", ["x", "cube"], "a"),
        node("Mul", ["a", "c"], "h"), node(last, ["h"], "y"), c=np.float32(factor),
    )  # fmt: skip
    large = {"cube": 1e6, "a": 1e6, "h": 5e5}
    seen = {
        name: Seen(largest=large.get(name, 1e2), rounding=70.0, size=4) for name in ("x", "s", "cube", "a", "h", "y")
    }
    plan, made = halved(model, seen=seen)
    assert bool(plan.in_float32) == kept
    x = np.array([[-100, -0.5, 0.25, 100]], np.float32)
    if last != "Relu":
        np.testing.assert_allclose(run(made, x), run(model, x), atol=2e-3)


@pytest.mark.parametrize(("last", "kept"), [(("Tanh", "Sigmoid"), False), (("Tanh", "Relu"), True)])
def test_what_is_split_saturates_where_every_part_does(last, kept):
    """As the gates of a recurrent cell have it."""
    model = graph(
        node("Mul", ["x", "c"], "s"), helper.make_node("Split", ["s"], ["a", "b"], axis=1, num_outputs=2),
        node(last[0], ["a"], "t"), node(last[1], ["b"], "u"), node("Concat", ["t", "u"], "y", axis=1),
        c=np.float32(1e3),
    )  # fmt: skip
    seen = {
        name: Seen(largest=1e5 if name in "sab" else 1e2, rounding=70.0, size=4) for name in ("x", *"sabtuy")
    }  # fmt: skip
    plan, made = halved(model, seen=seen)
    assert bool(plan.in_float32) == kept
    x = np.array([[-100, -0.001, 0.002, 100]], np.float32)
    if not kept:
        np.testing.assert_allclose(run(made, x), run(model, x), atol=2e-3)


def test_nodes_that_move_values_are_not_counted_as_those_that_compute():
    model = graph(
        node("Reshape", ["x", "four"], "r"), node("Exp", ["r"], "e"), node("Transpose", ["e"], "t"),
        node("Softmax", ["t"], "p"), node("Concat", ["p"], "y", axis=0), four=np.array([4, -1]),
    )  # fmt: skip
    plan = plan_half(model, RTX, "fp16", float32={"e": "so", "t": "too"})
    assert plan.computing_in_float32 == ("e", "p")
    assert set(plan.in_float32) == {"e", "t", "p"}
    assert plan.computing == ()
    assert plan.nodes_of_floats == ("r", "y")


@pytest.mark.parametrize(
    ("op", "attributes", "kept"),
    [("LayerNormalization", {}, False), ("LayerNormalization", {"stash_type": HALF}, True),
     ("InstanceNormalization", {}, True)],
)  # fmt: skip
def test_norms_that_onnx_has_sum_in_float32_need_no_range_of_their_own(op, attributes, kept):
    reads = ["x", "w"] if op == "LayerNormalization" else ["x", "w", "w"]
    shape = ("batch", 4) if op == "LayerNormalization" else ("batch", 4, 4)
    model = graph(node(op, reads, "y", **attributes), shape=shape, w=np.ones(4, np.float32))
    seen = {name: Seen(largest=3e3, rounding=70.0, size=16) for name in "xy"}
    assert bool(plan_half(model, RTX, "fp16", seen=seen).in_float32) == kept


def test_why_a_node_stays_is_said():
    branch = helper.make_graph(
        [node("Identity", ["x"], "z")], "b", [], [helper.make_tensor_value_info("z", FLOAT, [None, None])]
    )
    model = graph(
        node("If", ["yes"], "i", then_branch=branch, else_branch=branch),
        node("Shape", ["i"], "s"),
        node("Erf", ["i"], "e"),
        node("Softmax", ["e"], "y"),
        yes=np.array(True),
    )
    plan = plan_half(model, RTX, "fp16")
    assert plan.in_float32 == {"y": "Softmax needs the range"}  # "s" makes no floats
    assert plan.nodes == ("z", "z_1", "e")  # both branches, which call theirs alike
    assert plan.precision == "fp16"


def test_a_scale_has_to_be_one_that_fp16_holds():
    def made(scale, precision="fp16", start=()):
        nodes = (*start, node("QuantizeLinear", ["x", "scale", "zero"], "q"),
                 node("DequantizeLinear", ["q", "scale", "zero"], "y"))  # fmt: skip
        given = {} if start else {"scale": np.float32(scale)}
        return plan_half(graph(*nodes, zero=np.int8(0), **given, s=np.float32(scale)), RTX, precision)

    assert made(2.0**-14).nodes == ("q", "y")
    lost = {"y": "its scale would lose bits"}
    assert (made(2.0**-15).nodes, made(2.0**-15).in_float32) == ((), lost)
    assert made(-(2.0**-15)).nodes == ()
    assert made(0.5, "bf16").in_float32 == lost
    assert made(0.5, start=(node("Abs", ["s"], "scale"),)).in_float32 == lost


@pytest.mark.parametrize(
    ("newest", "opset", "wanted"), [(0, 20, 22), (22, 20, 22), (21, 20, 20), (25, 20, 22), (0, 23, 23)]
)
def test_for_bf16_the_opset_is_22_where_the_target_reads_it(newest, opset, wanted):
    model = graph(node("Relu", ["x"], "y"))
    model.opset_import[0].version = opset
    target = replace(RTX, newest_opset=newest)
    assert modern(model, "fp16", target) is model
    found = modern(model, "bf16", target)
    assert found.opset_import[0].version == wanted
    assert (found is model) == (wanted == opset)


def test_what_the_converter_does_not_know_stays_in_its_opset():
    model = graph(helper.make_node("Odd", ["x"], ["y"], domain="elsewhere"))
    model.graph.node[0].domain = ""
    assert modern(model, "bf16", RTX) is model


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_numbers_beyond_the_range_become_its_ends_and_infinity_stays(precision):
    from pocketzoo.zoo.graphs.rewriting.half_limits import DTYPES, KINDS
    from pocketzoo.zoo.graphs.rewriting.half_precision import HalfPlan
    from pocketzoo.zoo.graphs.rewriting.half_writer import HalfWriter

    writer = HalfWriter(graph(node("Relu", ["x"], "y")), HalfPlan(precision=precision))
    given = np.array([3.39e38, -3.39e38, np.inf, -np.inf, 1.5], np.float32)
    tensor = writer._array(given, "named")
    top = LARGEST[precision]
    wanted = np.array([top, -top, np.inf, -np.inf, 1.5]).astype(DTYPES[precision])
    assert (tensor.name, tensor.data_type) == ("named", KINDS[precision])
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.float32), wanted.astype(np.float32))


def test_types_in_attributes_become_halves():
    """Of a Cast to floats, a random number and a constant; whole numbers stay what they are."""
    model = graph(
        node("Cast", ["x"], "whole", to=TensorProto.INT64),
        node("Cast", ["whole"], "back", to=FLOAT),
        node("Constant", [], "one", value=numpy_helper.from_array(np.float32(1.5), "own")),
        node("RandomNormalLike", ["back"], "chance", dtype=FLOAT),
        node("Add", ["back", "one"], "sum"),
        node("Add", ["sum", "chance"], "y"),
    )
    plan, made = halved(model)
    assert plan.in_float32 == {}
    found = {n.op_type + n.output[0]: {a.name: a for a in n.attribute} for n in made.graph.node}
    assert found["Castwhole"]["to"].i == TensorProto.INT64
    assert found["Castback_fp16"]["to"].i == HALF
    assert found["RandomNormalLikechance_fp16"]["dtype"].i == HALF
    value = found["Constantone_fp16"]["value"].t
    assert (value.name, value.data_type, numpy_helper.to_array(value).item()) == ("own", HALF, 1.5)


def test_each_tensor_is_cast_once_and_a_constant_two_read_is_there_twice_only_if_it_must():
    model = graph(
        node("Add", ["x", "w"], "a"), node("Mul", ["x", "w"], "b"), node("Softmax", ["w"], "c"),
        node("Softmax", ["a"], "d"), node("Exp", ["a"], "e"), node("Sum", ["a", "b", "c", "d", "e"], "y"),
        w=np.ones((1, 4), np.float32),
    )  # fmt: skip
    target = replace(RTX, keeps_fp32=("Softmax", "Exp"))
    made = to_half(model, plan_half(model, target, "fp16"))
    onnx.checker.check_model(made, full_check=True)
    casts = [(n.input[0], n.output[0]) for n in made.graph.node if n.op_type == "Cast"]
    assert casts == [
        ("x", "x_fp16"),
        ("a_fp16", "a"),
        ("c", "c_fp16"),
        ("d", "d_fp16"),
        ("e", "e_fp16"),
        ("y_fp16", "y"),
    ]
    assert [(t.name, t.data_type) for t in made.graph.initializer] == [("w", FLOAT), ("w_fp16", HALF)]
    assert not made.graph.value_info
    names = [n.name for n in made.graph.node if n.op_type == "Cast"]
    assert names[:2] == ["x_fp16_cast", "a_fp16_back"]


def test_no_fp8_where_no_kernels_are_known(refused):
    target = replace(RTX, precisions=("fp32", "fp8"), fp8=None)
    with refused(ExportError, f"{RTX.name} does not compute in fp8", hint="it does in: fp32, fp8"):
        check_precision("fp8", target)
    check_precision("fp32", target)
    check_precision("fp16", RTX)
