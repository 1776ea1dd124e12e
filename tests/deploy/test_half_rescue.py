"""Where rounding makes the error of a graph in half precision, and what stays in 32 bits for it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from told import Told

from pocketzoo.core.errors import ExportError, UnknownNameError
from pocketzoo.deploy.export import export
from pocketzoo.deploy.half_precision_export import compare_outputs, convert_half, half, told_each
from pocketzoo.deploy.half_rescue import fewest_nodes, noisy_nodes
from pocketzoo.deploy.known_types import with_types
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.graphs.rewriting.half_precision import plan_half
from pocketzoo.zoo.graphs.rewriting.half_writer import simulated

RTX = next(t for t in pocketzoo_targets() if t.name == "tensorrt-rtx")
N = helper.make_node


def value(name, shape=("batch", 16)):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def graph(nodes, outputs=("y",), **constants):
    stored = [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in constants.items()]
    made = helper.make_graph(nodes, "g", [value("x")], [value(name) for name in outputs], stored)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples(count=4):
    return [{"x": np.random.default_rng(0).uniform(0.5, 1, (count, 16)).astype(np.float32)}]


def long_chain(lossy_at):
    """Forty layers, at one of which a number is added that leaves x four bits."""
    nodes, last = [], "x"
    for i in range(40):
        nodes.append(N("Mul", [last, "near_one"], [f"s{i}"]))
        last = f"s{i}"
        if i == lossy_at:
            nodes += [N("Add", [last, "much"], ["sum"]), N("Sub", ["sum", "much"], ["difference"])]
            last = "difference"
    return graph([*nodes, N("Neg", [last], ["y"])], much=np.arange(60, 76), near_one=np.linspace(0.97, 1.03, 16))


@pytest.mark.parametrize("place", [0, 17, 39])
def test_the_one_lossy_place_of_a_long_graph_is_found(place):
    model = long_chain(place)
    plan = plan_half(model, RTX, "fp16")
    found = noisy_nodes(model, plan, {"x": samples(1)[0]["x"]}, wanted=1e-9, room=3)
    assert {"sum", "difference"} <= set(found)
    assert "rounding sum makes" in found["sum"]
    assert len(found) <= 3


def test_no_more_nodes_are_named_than_there_is_room_for():
    model = long_chain(17)
    plan = plan_half(model, RTX, "fp16")
    assert noisy_nodes(model, plan, samples(1)[0], wanted=1e-9, room=1) == {}  # the sum and who reads it are two
    assert noisy_nodes(model, plan, samples(1)[0], wanted=1e-9, room=0) == {}
    assert noisy_nodes(model, plan, samples(1)[0], wanted=1.0, room=9) == {}  # it is good enough


@pytest.mark.parametrize("needed", [set(), {"a0"}, {"a7"}, {"a0", "a3"}, {f"a{i}" for i in range(8)}])
def test_nodes_that_were_chosen_and_turn_out_not_to_be_needed_are_let_go(needed):
    chosen = {f"a{i}": f"reason {i}" for i in range(8)} | {"twin": "reason 7"}
    found = fewest_nodes(chosen, lambda those: set(those) if needed <= set(those) else None, most=40)
    kept = needed | ({"twin"} if "a7" in needed else set())  # of the same reason
    assert found == (None if kept == set(chosen) else kept)
    tried = []
    assert fewest_nodes(chosen, tried.append, most=5) is None
    assert len(tried) == 5


def test_what_is_more_than_the_wanted_ratio_asks_for_is_not_kept():
    """Of sixteen places alike, enough stay in 32 bits for 40 dB: with one fewer it would be less."""
    model = graph(
        [
            node
            for i in range(16)
            for node in (
                N("Add", ["x", f"much{i}"], [f"s{i}"]),
                N("Sub", [f"s{i}", f"much{i}"], [f"d{i}"]),
            )
        ]
        + [N("Sum", [f"d{i}" for i in range(16)], ["y"])],
        **{f"much{i}": np.full(16, 100.0 + i) for i in range(16)},
    )
    plan, made = half(model, RTX, "fp16", samples())
    assert compare_outputs(model, made, samples())["y"] >= 40
    chosen = dict.fromkeys(name for name in plan.in_float32 if name[0] == "s")
    assert chosen
    for name in chosen:
        rest = {n: "chosen" for n in plan.in_float32 if n not in (name, f"d{name[1:]}")}
        fewer = plan_half(model, RTX, "fp16", float32=rest)
        assert compare_outputs(model, simulated(model, fewer), samples())["y"] < 40


def two_outputs():
    """y is exact in half precision but for its own rounding, z is not."""
    nodes = [N("Relu", ["x"], ["y"]), N("Add", ["x", "much"], ["sum"]), N("Sub", ["sum", "much"], ["z"])]
    return graph(nodes, ("y", "z"), much=np.full(16, 1000.0))


@pytest.mark.parametrize(("outputs", "kept"), [((), {"sum", "z"}), (("z",), {"sum", "z"}), (("y",), set())])
def test_only_outputs_that_are_held_to_it_cost_nodes_in_32_bits(outputs, kept):
    model = two_outputs()
    plan, made = half(model, RTX, "fp16", samples(), outputs=outputs)
    assert set(plan.in_float32) == kept
    ratios = compare_outputs(model, made, samples())
    assert all(ratios[name] >= 40 for name in outputs or ("y", "z"))


def test_export_takes_the_outputs_to_hold(tmp_path):
    source, data = tmp_path / "two.onnx", tmp_path / "two.npz"
    onnx.save(two_outputs(), source)
    np.savez(data, **samples()[0])
    options = {"target": "tensorrt-rtx", "precision": "fp16", "data": data, "out": tmp_path / "half.onnx"}
    with pytest.raises(UnknownNameError, match="no output 'w'"):
        export(source, outputs=["w"], **options)
    assert not options["out"].exists()
    types = {}
    for outputs in (["y"], ["z"]):
        made = onnx.load(export(source, outputs=outputs, **options))
        casts = [node for node in made.graph.node if node.op_type == "Add" and "fp16" in node.output[0]]
        types[outputs[0]] = len(casts)
    assert types == {"y": 1, "z": 0}
    with pytest.raises(ExportError, match="fp32"):
        export(source, outputs=["y"], **(options | {"precision": "fp32"}))


def test_int8_is_held_to_the_outputs_too(tmp_path):
    onnx.save(two_outputs(), tmp_path / "two.onnx")
    np.savez(tmp_path / "two.npz", **samples()[0])
    with pytest.raises(UnknownNameError, match="no output 'w'"):
        export(
            tmp_path / "two.onnx", outputs=["w"], target="cpu", precision="int8", data=tmp_path / "two.npz",
            out=tmp_path / "small.onnx",
        )  # fmt: skip


# -- graphs that are not all float32, or not all ONNX's


def contributed():
    """An operator of onnxruntime's own between two of ONNX's."""
    nodes = [
        N("MatMul", ["x", "w"], ["a"]),
        N("FusedMatMul", ["a", "w"], ["b"], domain="com.microsoft", alpha=0.5),
        N("MatMul", ["b", "w"], ["y"]),
    ]
    made = graph(nodes, w=np.random.default_rng(1).normal(size=(16, 16)))
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


def test_what_an_operator_of_another_domain_makes_is_known_to_be_floats():
    model = contributed()
    plan, made = half(model, RTX, "fp16", samples())
    assert set(plan.in_float32) == {"b"}
    assert "FusedMatMul" in plan.in_float32["b"]
    assert plan.nodes_of_floats == ("a", "y")
    assert compare_outputs(model, made, samples())["y"] >= 40


def test_types_that_onnx_knows_are_left_alone():
    model = two_outputs()
    assert with_types(model) is model
    typed = with_types(contributed())
    assert [(v.name, v.type.tensor_type.elem_type) for v in typed.graph.value_info] == [("b", TensorProto.FLOAT)]


@pytest.mark.parametrize(("kind", "word"), [(TensorProto.FLOAT16, "float16"), (TensorProto.DOUBLE, "float64")])
def test_a_graph_without_float32_stays_as_it_is_and_that_is_said(kind, word, tmp_path):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    eye = numpy_helper.from_array(np.eye(4, dtype=dtype), "w")
    made = helper.make_model(
        helper.make_graph(
            [N("MatMul", ["x", "w"], ["y"])], "g", [helper.make_tensor_value_info("x", kind, ["n", 4])],
            [helper.make_tensor_value_info("y", kind, ["n", 4])], [eye],
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    onnx.save(made, tmp_path / "m.onnx")
    told = Told()
    x = np.ones((1, 4), dtype)
    convert_half(tmp_path / "m.onnx", tmp_path / "out.onnx", RTX, "fp16", [{"x": x}], progress=told)
    assert any(f"but in {word}" in line for line in told.said)
    assert {t.data_type for t in onnx.load(tmp_path / "out.onnx").graph.initializer} == {kind}


def test_a_target_that_lacks_a_precision_names_those_that_have_it(tmp_path):
    with pytest.raises(ExportError, match="cpu does not compute in fp16") as caught:
        export(tmp_path / "none.onnx", precision="fp16")  # before the file is looked at
    assert "targets for fp16: " in caught.value.hint
    assert "tensorrt-rtx" in caught.value.hint


def test_a_ratio_is_a_number_or_words():
    assert told_each({"a": np.inf}) == "equal to fp32"
    assert told_each({"a": 41.2, "b": np.inf}) == "a 41 dB from fp32, b equal to fp32"
    assert told_each({"a": 41.2, "b": 60.0}) == "a 41, b 60 dB from fp32"
    assert told_each(None) == "onnxruntime's CPU kernels do not run it"
