from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization import dynamic_quantization as dynamic
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.gptq import nearest, widest_scale
from pocketzoo.compress.quantization.plan_trial import MANY
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.graphs.cost import layer_costs
from pocketzoo.zoo.graphs.index import GraphIndex

TARGETS = {t.name: t for t in pocketzoo_targets()}


@pytest.fixture
def two(graph_builder) -> onnx.ModelProto:
    """Two linear layers that read one tensor of a sequence."""
    g = graph_builder((6, 8))
    g.channels["x"] = 8
    return g.model(g.node("Add", [g.matmul("x", "left", 8, 12), g.matmul("x", "right", 8, 12)]), 3)


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Integers and scales of every weight, rounded to nearest."""
    found = {}
    for tensor in model.graph.initializer:
        matrix = numpy_helper.to_array(tensor).T[None]
        scale = widest_scale(matrix)
        found |= {f"{tensor.name}.levels": nearest(matrix, scale)[0].T, f"{tensor.name}.scale": scale[0]}
    return found


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_one_sample_gives_what_static_ranges_from_itself_give(two):
    """Least and largest of the one calibration sample are what the dynamic layer finds again."""
    x = np.random.default_rng(0).normal(size=(1, 6, 8)).astype(np.float32)
    graphs = {}
    for how in ("static", "dynamic"):
        config = Int8Config(activations=how, ranges="minmax", smooth=False)
        plan = int8.plan(two, config, [x])
        assert set(plan.dynamic) == (set(plan.layers) if how == "dynamic" else set())
        graphs[how] = int8.apply(two, plan, TARGETS["cpu"])
    np.testing.assert_allclose(run(graphs["dynamic"], x), run(graphs["static"], x), rtol=1e-4, atol=1e-4)
    # Another sample, ten times as large, saturates one of them and not the other.
    wanted = run(two, 10 * x)
    assert np.abs(run(graphs["dynamic"], 10 * x) - wanted).max() < 0.05 * np.abs(wanted).max()
    assert np.abs(run(graphs["static"], 10 * x) - wanted).max() > 0.5 * np.abs(wanted).max()


def test_layers_that_read_the_same_share_its_integers(two):
    dynamic.quantize(two, ["left", "right"], stored(two))
    onnx.checker.check_model(two, full_check=True)
    count = Counter(n.op_type for n in two.graph.node)
    assert count == {"DynamicQuantizeLinear": 1, "MatMulInteger": 2, "Cast": 2, "Mul": 4, "Add": 1}
    assert {t.name: t.data_type for t in two.graph.initializer}["left.weight_quantized"] == TensorProto.INT8


def test_onnxruntime_fuses_what_is_written(two, tmp_path):
    dynamic.quantize(two, ["left", "right"], stored(two))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    onnxruntime.InferenceSession(two.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = {n.op_type for n in onnx.load(tmp_path / "fused.onnx").graph.node}
    assert "MatMulInteger" not in left
    assert left & {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}


def test_layers_named_nowhere_stay_float(two):
    before = two.SerializeToString()
    dynamic.quantize(two, [], stored(two))
    assert two.SerializeToString() == before


def test_a_layer_suits_that_multiplies_rows(graphs):
    index = GraphIndex(graphs["tokens"])
    assert dynamic.suits(index, ["patch.weight", "fc1.weight", "head.weight"]) == ["fc1.weight"]


def test_a_weight_suits_with_all_that_have_its_layer_s_name():
    """``a`` is read by what has no dynamic form as well, and ``a.weight`` is of the layer ``a`` too."""
    names = ["a", "a.weight", "b"]
    nodes = [helper.make_node("MatMul", ["x", name], [f"y_{name}"]) for name in names]
    nodes += [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Sum", [*(f"y_{n}" for n in names), "r"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, 8])],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), name) for name in names],
    )  # fmt: skip
    index = GraphIndex(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert dynamic.suits(index, names) == ["b"]


def test_targets_without_its_kernels_get_static_pairs_of_the_same_plan(graphs, batches):
    plan = int8.plan(graphs["tokens"], Int8Config(activations="dynamic"), batches((3, 10, 10)))
    assert plan.dynamic == ("fc1", "fc2")
    kinds = {t: Counter(n.op_type for n in int8.apply(graphs["tokens"], plan, TARGETS[t]).graph.node) for t in TARGETS}
    assert kinds["cpu"]["MatMulInteger"] == 2
    assert kinds["tensorrt-rtx"]["MatMulInteger"] == kinds["tensorrt"]["DynamicQuantizeLinear"] == 0
    assert kinds["tensorrt-rtx"]["MatMul"] == 2


def test_auto_takes_the_plan_that_errs_less(graphs, batches):
    """Of samples whose reach differs a hundredfold, those of small reach vanish in one static step."""
    samples = [s * scale for s, scale in zip(batches((3, 10, 10)), (0.01, 1.0, 0.02, 0.5), strict=True)]
    plan = int8.plan(graphs["tokens"], Int8Config(), samples)
    assert plan.dynamic in ((), ("fc1", "fc2"))
    plans = [int8.plan(graphs["tokens"], Int8Config(activations=how), samples) for how in ("static", "dynamic")]
    x = np.concatenate([b[i : i + 1] for b in samples for i in range(len(b))][:MANY])
    wanted = run(graphs["tokens"], x)
    errors = []
    for p in plans:
        encoded = int8.apply(graphs["tokens"], p, TARGETS["cpu"])
        errors.append(sum(np.square(run(encoded, x[i : i + 1]) - wanted[i]).sum() for i in range(len(x))))
    assert plan == plans[int(np.argmin(errors))]


def test_costs_are_counted_of_integer_layers_too(two, tmp_path):
    onnx.save(two, tmp_path / "float.onnx")
    dynamic.quantize(two, ["left", "right"], stored(two))
    onnx.save(two, tmp_path / "int8.onnx")
    before, after = (layer_costs(tmp_path / f"{name}.onnx") for name in ("float", "int8"))
    assert [(c.layer, c.macs, c.parameters) for c in before] == [(c.layer, c.macs, c.parameters) for c in after]
    assert {c.op for c in after} == {"MatMulInteger"}
    assert {c.precision for c in after} == {"int8"}
    assert sum(c.bytes for c in before) == 4 * sum(c.bytes for c in after)
