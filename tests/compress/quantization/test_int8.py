from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from feeds import arrays
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Int8Plan, Range
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.plan_trial import FEW, MANY
from pocketzoo.compress.quantization.qdq import activation_parameters
from pocketzoo.core.errors import DataError, ExportError, UnknownNameError
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.plugins.targets import NVIDIA, ONNXRUNTIME, pocketzoo_targets
from pocketzoo.zoo.catalog.specs import InputSpec, Int8Encoding
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.graphs.cost import layer_costs
from pocketzoo.zoo.models.export_graph import onnx_from_model

ALL = {t.name: t for t in pocketzoo_targets()}
# One of each way to write int8, which is all that the step knows of a target.
TARGETS = {name: ALL[name] for name in ("cpu", "openvino", "tensorrt-rtx")}
# A third way to write int8, which no built-in target asks for: affine and signed.
AFFINE = Int8Encoding(activations="int8", symmetric=False, int32_bias=False, fuses_add=False)
TARGETS["affine"] = replace(TARGETS["cpu"], name="affine", int8=AFFINE)
NAMES = ["residual", "projection", "depthwise", "concat", "pools", "plain", "gemms", "shared", "ends in conv",
         "ends in relu", "gates", "tokens"]  # fmt: skip
SQNR = 35.0  # dB; measured: 39.4 and more over all graphs and targets


@pytest.fixture(scope="module")
def encoded(graphs, plans):
    return {(n, t): int8.apply(graphs[n], plans[n], TARGETS[t]) for n in graphs for t in TARGETS}


@pytest.fixture(scope="module")
def digits(fitted):
    """The fitted tinynet's float graph, 64 training samples in batches, its test samples and their classes."""
    data = load_data("digits")
    spec = fitted.manifest.input
    train = [x for x, _ in arrays(Batches(data.split("train"), spec, limit=64))]
    x, y = next(iter(arrays(Batches(data.split("test"), spec, size=400))))
    return onnx.load(fitted.graph("")), train, x, y


def run(model: onnx.ModelProto, x: np.ndarray, optimized: Path | None = None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def sqnr(wanted: np.ndarray, given: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / max(np.square(wanted - given).sum(), 1e-30)))


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def weights(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, str]]:
    """Each layer's node with the name of its weight."""
    known = constants(model)
    return [
        (n, n.input[1]) for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in known
    ]


def pairs(model: onnx.ModelProto, op: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(input, scale, zero point) of each node of type ``op``."""
    known = constants(model)
    return [(n.input[0], known[n.input[1]], known[n.input[2]]) for n in model.graph.node if n.op_type == op]


def count(model: onnx.ModelProto) -> Counter:
    return Counter(n.op_type for n in model.graph.node)


# -- numbers


@given(low=st.floats(-1e4, 0.0), high=st.floats(0.0, 1e4), encoding=st.sampled_from([ONNXRUNTIME, NVIDIA, AFFINE]))
def test_zero_is_represented_exactly_and_the_range_is_covered(low, high, encoding):
    magnitude = max(-low, high)
    scale, zero = activation_parameters(Range(low=low, high=high, magnitude=magnitude), encoding)
    least, most = (0, 255) if encoding.activations == "uint8" else (-128, 127)
    assert zero.dtype == (np.uint8 if encoding.activations == "uint8" else np.int8)
    assert least <= int(zero) <= most
    assert scale > 0
    assert scale == float(np.float32(scale))
    # Zero quantises to the zero point, and that means zero again.
    quantized = round(0.0 / scale) + int(zero)
    assert (quantized - int(zero)) * scale == 0.0
    if encoding.symmetric:
        assert int(zero) == 0
        assert 127 * scale == pytest.approx(magnitude, rel=1e-6, abs=1e-9)
    else:
        # The ends are off by half a step at the most: the zero point is a whole number.
        assert (least - int(zero)) * scale <= low + 0.5001 * scale
        assert (most - int(zero)) * scale >= high - 0.5001 * scale


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_the_weights_in_a_graph_are_whole_steps_of_their_channel(name, target, graphs, encoded):
    known = constants(encoded[name, target])
    checked = 0
    for node, weight in weights(graphs[name]):
        levels, scale, zero = (known[f"{weight}_{part}"] for part in ("quantized", "scale", "zero"))
        before = constants(graphs[name])[weight]
        axis = {"Conv": 0, "MatMul": 1}.get(node.op_type)
        if axis is None:
            axis = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
        assert levels.dtype == np.int8
        assert np.abs(levels.astype(int)).max() <= 127
        assert scale.shape == zero.shape == (before.shape[axis],)
        assert not zero.any()
        others = tuple(i for i in range(before.ndim) if i != axis)
        np.testing.assert_allclose(scale, np.abs(before).max(axis=others) / 127, rtol=1e-6)
        checked += 1
    assert checked == len(weights(graphs[name])) > 1


# -- graphs


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_a_graph_runs_at_any_batch_and_is_near_the_float_one(name, target, graphs, encoded, samples):
    onnx.checker.check_model(encoded[name, target], full_check=True)
    for batch in (1, 2, 5):
        x = samples[0][:batch]
        wanted = run(graphs[name], x)
        given_ = run(encoded[name, target], x)
        assert given_.shape == wanted.shape
        assert given_.shape[0] == batch
        assert sqnr(wanted, given_) > SQNR - 5  # few samples vary more
    x = np.concatenate(samples)
    assert sqnr(run(graphs[name], x), run(encoded[name, target], x)) > SQNR


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_outputs_stay_float_and_keep_their_names(name, target, graphs, encoded):
    for before, after in zip(
        [*graphs[name].graph.input, *graphs[name].graph.output],
        [*encoded[name, target].graph.input, *encoded[name, target].graph.output],
        strict=True,
    ):
        assert after == before


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_operators_are_the_float_ones_plus_pairs(name, target, graphs, encoded):
    before, after = count(graphs[name]), count(encoded[name, target])
    for added in ("QuantizeLinear", "DequantizeLinear"):
        assert after.pop(added) > 0
    gates = before.get("HardSigmoid", 0) if "HardSigmoid" in TARGETS[target].int8.operators else 0
    changed = {"HardSigmoid": before.get("HardSigmoid", 0) - gates, "Add": before.get("Add", 0) + gates}
    assert {**after, **{kind: after.get(kind, 0) for kind in changed}} == {**before, **changed}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_names_are_unique_and_everything_is_used(name, target, encoded):
    graph = encoded[name, target].graph
    made = [o for n in graph.node for o in n.output] + [t.name for t in graph.initializer] + ["x"]
    assert len(made) == len(set(made))
    read = {i for n in graph.node for i in n.input} | {o.name for o in graph.output}
    assert {t.name for t in graph.initializer} <= read
    assert set(made) <= read


@pytest.mark.parametrize("name", NAMES)
def test_the_float_weights_are_gone(name, graphs, encoded):
    for target in TARGETS:
        known = constants(encoded[name, target])
        assert not {w for _, w in weights(graphs[name])} & set(known)


@pytest.mark.parametrize("name", NAMES)
def test_the_cpu_encoding_has_uint8_activations_and_int32_biases(name, graphs, plans, encoded):
    model = encoded[name, "cpu"]
    known = constants(model)
    assert {zero.dtype for _, _, zero in pairs(model, "QuantizeLinear")} == {np.dtype(np.uint8)}
    wide = [(i, s, z) for i, s, z in pairs(model, "DequantizeLinear") if z.dtype == np.int32]
    assert len(wide) == len([n for n, _ in weights(graphs[name]) if n.op_type != "MatMul"])  # all take a correction
    made = {o: n for n in model.graph.node for o in n.output}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
            continue
        x, weight, bias = (made[i] for i in node.input)
        assert x.op_type == weight.op_type == bias.op_type == "DequantizeLinear"
        step = known[x.input[1]].astype(np.float64) * known[weight.input[1]]
        np.testing.assert_allclose(known[bias.input[1]], step, rtol=1e-6)
        assert not known[bias.input[2]].any()
        corrected = plans[name].tensors[f"{node.output[0]}.bias"]
        np.testing.assert_allclose(known[bias.input[0]] * step, corrected, atol=float(step.max()) * 0.51)


@pytest.mark.parametrize("name", NAMES)
def test_the_nvidia_encoding_is_int8_and_symmetric_throughout(name, encoded):
    model = encoded[name, "tensorrt-rtx"]
    for op in ("QuantizeLinear", "DequantizeLinear"):
        for source, scale, zero in pairs(model, op):
            assert zero.dtype == np.int8, source
            assert not zero.any(), source
            assert (scale > 0).all(), source
    assert not any(t.data_type in (TensorProto.UINT8, TensorProto.INT32) for t in model.graph.initializer)


@pytest.mark.parametrize("target", ALL)
def test_targets_of_one_encoding_get_the_same_graph(target, graphs, plans, encoded):
    """So that each encoding is tested once; whether others are refused says nothing of how it is written."""
    encoding = replace(ALL[target].int8, required=False)
    alike = next(name for name, spec in TARGETS.items() if replace(spec.int8, required=False) == encoding)
    assert int8.apply(graphs["residual"], plans["residual"], ALL[target]) == encoded["residual", alike]


@pytest.mark.parametrize("name", NAMES)
def test_every_pair_uses_one_scale_and_zero_point_on_both_sides(name, encoded):
    for target in TARGETS:
        model = encoded[name, target]
        undone = {n.input[0]: list(n.input[1:]) for n in model.graph.node if n.op_type == "DequantizeLinear"}
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear" and not node.input[0].endswith("_sum"):  # a gate: test_elementwise.py
                assert undone[node.output[0]] == list(node.input[1:])


@pytest.mark.parametrize("name", NAMES)
def test_scales_are_those_of_the_planned_ranges(name, plans, encoded):
    for target, spec in TARGETS.items():
        for source, scale, zero in pairs(encoded[name, target], "QuantizeLinear"):
            if source.endswith("_sum"):  # a gate: test_elementwise.py
                continue
            wanted = activation_parameters(plans[name].ranges[source], spec.int8)
            assert (float(scale), int(zero)) == (wanted[0], int(wanted[1]))


# -- where the pairs stand


def quantized(model: onnx.ModelProto) -> set[str]:
    return {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}


@pytest.mark.parametrize(
    ("name", "between"),
    [
        ("residual", ["conv_4"]),  # stem conv 0, relu 1, conv1 2, relu 3, conv2 4, add 5
        ("projection", ["conv_4"]),  # the first summand; the other side is quantized
        ("plain", []),
        ("concat", []),
    ],
)
def test_nvidia_leaves_what_lies_between_convolution_and_sum_in_float(name, between, graphs, encoded):
    """One summand at the most: the fused kernel wants the other one in int8."""
    cpu, nvidia = quantized(encoded[name, "cpu"]), quantized(encoded[name, "tensorrt-rtx"])
    assert sorted(cpu - nvidia) == between
    assert nvidia <= cpu
    adds = [n for n in encoded[name, "tensorrt-rtx"].graph.node if n.op_type == "Add"]
    for add in adds:
        floats = [i for i in add.input if not i.endswith("_dequantized")]
        assert floats == between


def test_a_convolution_that_two_operators_read_is_quantized(graph_builder, samples):
    """Only a tensor that the sum alone reads may stay float."""
    g = graph_builder()
    a = g.conv("x", "a")
    b = g.node("Relu", [g.conv(g.node("Relu", [a]), "b")])
    out = g.node("Add", [a, b])
    model = g.model(g.gemm(g.pool_and_flatten(out), "fc", 8, 5))
    made = int8.apply(model, int8.plan(model, Int8Config(), samples), TARGETS["tensorrt-rtx"])
    assert a in quantized(made)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["residual", "projection", "depthwise", "concat", "pools", "shared"])
def test_an_activation_is_quantized_behind_its_relu_only(name, target, graphs, encoded):
    made = {o: n for n in graphs[name].graph.node for o in n.output}
    readers = Counter(i for n in graphs[name].graph.node for i in n.input)
    for source in quantized(encoded[name, target]):
        behind = [n for n in graphs[name].graph.node if source in n.input and n.op_type in ("Relu", "Clip")]
        assert not behind or readers[source] > 1, (source, made[source].op_type)


@pytest.mark.parametrize("name", ["pools", "residual"])
def test_moving_values_keeps_their_range(name, graphs, plans):
    for node in graphs[name].graph.node:
        if node.op_type in ("MaxPool", "Flatten") and node.output[0] in plans[name].ranges:
            assert plans[name].ranges[node.output[0]] == plans[name].ranges[node.input[0]]


@pytest.mark.parametrize("name", NAMES)
def test_the_output_of_the_graph_is_not_quantized(name, graphs, encoded, plans):
    out = graphs[name].graph.output[0].name
    assert out not in plans[name].ranges
    for target in TARGETS:
        assert out not in quantized(encoded[name, target])


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("ends")])
def test_onnxruntime_fuses_every_layer_into_an_integer_kernel(name, graphs, encoded, samples, tmp_path):
    run(encoded[name, "cpu"], samples[0], tmp_path / "optimized.onnx")
    before, after = count(graphs[name]), count(onnx.load(tmp_path / "optimized.onnx"))
    assert after["QLinearConv"] == before["Conv"]
    assert after["QGemm"] == before["Gemm"]
    assert after["QLinearMatMul"] + after["MatMulIntegerToFloat"] == before["MatMul"]
    assert after["QLinearConcat"] == before["Concat"]
    assert after["QLinearAveragePool"] == before["AveragePool"]
    assert after["QLinearGlobalAveragePool"] == before["GlobalAveragePool"]
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Relu", "Clip"} & set(after)


@pytest.mark.parametrize("name", ["ends in conv", "ends in relu"])
def test_only_a_layer_that_is_the_output_is_computed_in_float(name, encoded, samples, tmp_path):
    run(encoded[name, "cpu"], samples[0], tmp_path / "optimized.onnx")
    after = count(onnx.load(tmp_path / "optimized.onnx"))
    assert after["QLinearConv"] == 1
    assert after["Conv"] + after["FusedConv"] == 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (0.0, 1.0), (-1.0, 1.0), (None, 2.0), (0.0, None), (-0.5, 3.0)])
def test_clips_of_any_kind_are_followed(low, high, graph_builder, samples, tmp_path):
    g = graph_builder()
    y = g.clip(g.conv("x", "a"), low, high)
    model = g.model(g.gemm(g.pool_and_flatten(g.clip(g.conv(y, "b"), low, high)), "fc", 8, 5))
    plan = int8.plan(model, Int8Config(), samples)
    x = np.concatenate(samples)
    for target in TARGETS.values():
        made = int8.apply(model, plan, target)
        assert sqnr(run(model, x), run(made, x)) > 30
        assert not [s for s in quantized(made) if s.startswith("conv")]
    assert (plan.ranges[y].low >= (low or 0)) if low is not None else True
    assert plan.ranges[y].high <= (high if high is not None else np.inf)


def test_a_saturated_relu6_still_fuses(graph_builder, samples, tmp_path):
    """Values that reach 6: the calibrated range is 0 to 6, and the clip disappears into the kernel."""
    g = graph_builder()
    y = g.clip(g.conv("x", "a"), 0.0, 6.0)
    g.constants["a.weight"] *= 20
    model = g.model(g.gemm(g.pool_and_flatten(g.node("Relu", [g.conv(y, "b")])), "fc", 8, 5))
    made = int8.apply(model, int8.plan(model, Int8Config(), samples), TARGETS["cpu"])
    run(made, samples[0], tmp_path / "optimized.onnx")
    after = count(onnx.load(tmp_path / "optimized.onnx"))
    assert after["QLinearConv"] == 2
    assert "Clip" not in after


# -- hard numbers


@pytest.mark.parametrize("size", [1e-5, 1e-8, 1e-12, 1e-20, 1e-38, 1e-43, 0.0])
def test_a_dead_channel_keeps_its_bias(size, graph_builder, samples):
    """Filters that weight decay or a norm folded to nothing: only the bias is left of them, and it counts.

    An int32 bias in steps of scale(x) * scale(w) saturates where scale(w) is tiny.
    """
    g = graph_builder()
    y = g.node("Relu", [g.conv("x", "a")])
    g.constants["a.weight"][2] *= np.float32(size)
    g.constants["a.bias"][2] = 0.75
    z = g.conv(y, "b", 4)
    g.constants["b.weight"][1] *= np.float32(size)
    g.constants["b.bias"][1] = -1.25
    model = g.model(g.gemm(g.pool_and_flatten(z), "fc", 4, 5))
    made = int8.apply(model, int8.plan(model, Int8Config(), samples), TARGETS["cpu"])
    x = np.concatenate(samples)
    assert sqnr(run(model, x), run(made, x)) > 30


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["conv", "gemm"])
def test_a_single_layer_between_input_and_output_works(kind, target, graph_builder, samples):
    g = graph_builder()
    if kind == "conv":
        model, x = g.model(g.conv("x", "a"), 4), np.concatenate(samples)
    else:
        g = graph_builder((12,))
        x = np.random.default_rng(0).normal(size=(32, 12)).astype(np.float32)
        model = g.model(g.gemm("x", "fc", 12, 5))
    plan = int8.plan(model, Int8Config(), [x])
    assert set(plan.ranges) == {"x"}
    assert sqnr(run(model, x), run(int8.apply(model, plan, TARGETS[target]), x)) > SQNR


@pytest.mark.parametrize("target", TARGETS)
def test_a_constant_input_works(target, graphs):
    model = graphs["residual"]
    for value in (0.0, 1.0):
        samples = [np.full((2, 3, 10, 10), value, np.float32)]
        made = int8.apply(model, int8.plan(model, Int8Config(), samples), TARGETS[target])
        assert np.isfinite(run(made, samples[0])).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(bad, graphs, samples, refused):
    broken = [samples[0].copy()]
    broken[0][1, 0, 2, 2] = bad
    with refused(DataError, "not finite", hint="NaN"):
        int8.plan(graphs["residual"], Int8Config(), broken)


def test_no_samples_are_refused(graphs, refused):
    with refused(DataError, "no samples"):
        int8.plan(graphs["residual"], Int8Config(), [])


def test_weights_that_two_layers_share_are_written_once(encoded):
    for target in TARGETS:
        model = encoded["shared", target]
        assert [t.name for t in model.graph.initializer].count("twice.weight_quantized") == 1
        readers = [n for n in model.graph.node if n.op_type == "Conv" and n.input[1] == "twice.weight_dequantized"]
        assert len(readers) == 2


# -- reshapes whose shape is computed


def test_a_shape_that_is_computed_is_not_quantized(graph_builder, samples):
    """x.view(x.shape[0], ...) with a free batch: the shape is a tensor of integers made by the graph itself."""
    g = graph_builder()
    y = g.node("Relu", [g.conv("x", "a")])
    batch = g.node("Shape", [y], start=0, end=1)
    shape = g.node("Concat", [batch, g.constant("rest", np.array([800], np.int64))], axis=0)
    model = g.model(g.gemm(g.node("Reshape", [y, shape]), "fc", 800, 5))
    plan = int8.plan(model, Int8Config(), samples)
    assert set(plan.ranges) == {"x", y, "reshape_4"}
    for target in TARGETS.values():
        made = int8.apply(model, plan, target)
        for size in (1, 2, 5):
            x = samples[0][:size]
            assert sqnr(run(model, x), run(made, x)) > 30


class Attention(nn.Module):
    """One block of a vision transformer on 3 x 12 x 12 images."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
        self.qkv, self.proj, self.fc = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c))
        return self.fc(x.mean(1))


@pytest.fixture(scope="module")
def transformer(tmp_path_factory) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("transformer") / "model.onnx"
    spec = InputSpec(shape=("batch", 3, 12, 12), mean=(0.5,) * 3, std=(0.25,) * 3, resize=12)
    onnx_from_model(Attention(), spec, path)
    return onnx.load(path), [np.random.default_rng(0).normal(size=(16, 3, 12, 12)).astype(np.float32)]


@pytest.mark.parametrize("target", TARGETS)
def test_attention_as_torch_exports_it_is_quantized(target, transformer):
    """Its graph computes the shapes of q and k: tensors of integers between Shape, Concat and Reshape."""
    model, samples = transformer
    plan = int8.plan(model, Int8Config(), samples)
    made = int8.apply(model, plan, TARGETS[target])
    for size in (1, 2, 5):
        x = samples[0][:size]
        assert sqnr(run(model, x), run(made, x)) > 25


@pytest.mark.parametrize("name", ["patch", "qkv", "proj", "fc"])
def test_layers_on_sequences_are_skipped_by_their_own_names(name, transformer):
    """torch stores the weight of such a layer transposed, under a name of its own making."""
    model, samples = transformer
    every = int8.plan(model, Int8Config(), samples).layers
    assert set(every) == {"patch", "qkv", "proj", "fc"}
    assert set(int8.plan(model, Int8Config(skip=(name,)), samples).layers) == set(every) - {name}


# -- skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("skip", "left"),
    [(("stem",), {"stem"}), (("conv?",), {"conv1", "conv2"}), (("fc",), {"fc"}), (("stem", "fc"), {"stem", "fc"})],
)
def test_skipped_layers_stay_float(skip, left, target, graphs, samples):
    plan = int8.plan(graphs["residual"], Int8Config(skip=skip), samples)
    assert set(plan.layers) == {"stem", "conv1", "conv2", "fc"} - left
    made = int8.apply(graphs["residual"], plan, TARGETS[target])
    before, known = constants(graphs["residual"]), constants(made)
    for name in left:
        np.testing.assert_array_equal(known[f"{name}.weight"], before[f"{name}.weight"])
        np.testing.assert_array_equal(known[f"{name}.bias"], before[f"{name}.bias"])
    for name in plan.layers:
        assert f"{name}.weight" not in known
    x = np.concatenate(samples)
    assert sqnr(run(graphs["residual"], x), run(made, x)) > SQNR


@pytest.mark.parametrize("name", ["plain", "gemms", "ends in conv"])
def test_skipping_everything_leaves_the_graph_as_it_is(name, graphs, samples):
    plan = int8.plan(graphs[name], Int8Config(skip=("*",)), samples)
    assert plan.layers == ()
    for target in TARGETS.values():
        made = int8.apply(graphs[name], plan, target)
        assert not {"QuantizeLinear", "DequantizeLinear"} & set(count(made)) or "GlobalAveragePool" in count(made)
        x = samples[0]
        assert sqnr(run(graphs[name], x), run(made, x)) > SQNR


@pytest.mark.parametrize(("typo", "near"), [("conv3", "conv"), ("stemm", "stem"), ("fcc", "fc")])
def test_a_skip_that_names_nothing_is_refused_with_the_nearest(typo, near, graphs, samples, refused):
    with refused(UnknownNameError, f"{typo!r}", hint=near):
        int8.plan(graphs["residual"], Int8Config(skip=(typo,)), samples)


# -- plans


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_read_back_encodes_to_the_same_graphs(name, graphs, plans, encoded):
    data = json.loads(json.dumps(to_plain(plans[name])))
    assert "tensors" not in data
    read = from_plain(Int8Plan, data)
    assert read == plans[name]
    read = replace(read, tensors=load(save(dict(plans[name].tensors))))
    for target, spec in TARGETS.items():
        assert int8.apply(graphs[name], read, spec) == encoded[name, target]


@pytest.mark.parametrize("name", ["residual", "tokens"])
@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse"])
def test_two_runs_agree(name, ranges, graphs, samples):
    before = graphs[name].SerializeToString()
    config = Int8Config(ranges=ranges)
    first, second = (int8.plan(graphs[name], config, samples) for _ in range(2))
    assert first == second
    assert first.samples == 32
    for target in TARGETS.values():
        one, two = (int8.apply(graphs[name], first, target) for _ in range(2))
        assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)
    assert graphs[name].SerializeToString() == before


@pytest.mark.parametrize("ranges", ["auto", "minmax", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_gives_a_good_graph(name, ranges, graphs, samples):
    plan = int8.plan(graphs[name], Int8Config(ranges=ranges), samples)
    x = np.concatenate(samples)
    for target in ("cpu", "tensorrt-rtx"):
        made = int8.apply(graphs[name], plan, TARGETS[target])
        # Entropy cuts tails that a few samples of a small graph cannot spare.
        assert sqnr(run(graphs[name], x), run(made, x)) > (20 if ranges == "entropy" else 32)


@pytest.mark.parametrize("name", NAMES)
def test_costs_of_the_int8_graph_are_those_of_the_float_one_in_a_quarter(name, graphs, encoded, tmp_path):
    def costs(model: onnx.ModelProto) -> dict:
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        together = {}  # a layer that two nodes read has a row for each
        for cost in layer_costs(path):
            first = together.get(cost.layer)
            added = ("parameters", "macs", "bytes") if first else ()
            together[cost.layer] = replace(cost, **{each: getattr(first, each) + getattr(cost, each) for each in added})
        return together

    wanted = costs(graphs[name])
    # A bias is added where there was none: it takes up what rounding did to the mean.
    bare = {
        w.removesuffix(".weight"): n for n, w in weights(graphs[name]) if n.op_type != "MatMul" and len(n.input) < 3
    }
    for target in ("cpu", "tensorrt-rtx"):
        found = costs(encoded[name, target])
        assert list(found) == list(wanted)
        for layer, cost in found.items():
            assert cost.precision == "int8"
            outputs = len(constants(encoded[name, target])[f"{layer}.weight_scale"]) if layer in bare else 0
            if (name, layer) == ("shared", "twice"):
                outputs = 8  # of one bias for two nodes each has its own, in the steps of what it reads
            assert (cost.parameters, cost.macs, cost.op) == (
                wanted[layer].parameters + outputs,
                wanted[layer].macs,
                wanted[layer].op,
            )
            assert cost.bytes < wanted[layer].bytes


# -- a real model


@pytest.fixture(scope="module")
def digits_plan(digits):
    """It is common to all targets."""
    return int8.plan(digits[0], Int8Config(), digits[1])


@pytest.mark.parametrize("target", TARGETS)
def test_tinynet_on_digits_keeps_its_answers(target, digits, digits_plan, tmp_path):
    model, _, x, y = digits
    plan = digits_plan
    assert len(plan.layers) == len(weights(model))
    made = int8.apply(model, plan, TARGETS[target])
    wanted, given_ = run(model, x), run(made, x, tmp_path / "optimized.onnx")
    assert sqnr(wanted, given_) > 20  # measured: about 30
    assert np.mean(wanted.argmax(1) == given_.argmax(1)) > 0.98
    assert abs(np.mean(wanted.argmax(1) == y) - np.mean(given_.argmax(1) == y)) < 0.015
    if target == "cpu":
        after = count(onnx.load(tmp_path / "optimized.onnx"))
        assert after["QLinearConv"] == count(model)["Conv"]
        assert after["QGemm"] == count(model)["Gemm"]
        assert not {"Conv", "FusedConv", "Gemm", "Relu", "Add"} & set(after)


@pytest.mark.parametrize("count_", [1, 2, 5])
def test_tinynet_runs_at_any_batch(count_, digits, digits_plan):
    model, _, x, _ = digits
    made = int8.apply(model, digits_plan, TARGETS["cpu"])
    assert run(made, x[:count_]).shape == (count_, 10)


# -- NVIDIA's own parser and builder, which need no GPU


@pytest.mark.engine
@pytest.mark.parametrize("name", NAMES)
def test_an_engine_is_built_of_the_nvidia_encoding(name, encoded, tmp_path):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    from pocketzoo.zoo.backends.tensorrt.build_engine import layer_precisions, save_engine

    graph, engine = tmp_path / "model.onnx", tmp_path / "model.engine"
    onnx.save(encoded[name, "tensorrt-rtx"], graph)
    save_engine(graph, engine, TARGETS["tensorrt-rtx"])
    assert engine.stat().st_size > 1000
    assert "INT8" in layer_precisions(graph, TARGETS["tensorrt-rtx"]).values()


@pytest.mark.engine
@pytest.mark.parametrize("name", NAMES)
def test_the_cpu_encoding_is_refused_by_nvidia(name, encoded, tmp_path, refused):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    from pocketzoo.zoo.backends.tensorrt.build_engine import save_engine

    graph, engine = tmp_path / "model.onnx", tmp_path / "model.engine"
    onnx.save(encoded[name, "cpu"], graph)
    with refused(ExportError, "parser refuses model.onnx", hint="--target tensorrt-rtx"):
        save_engine(graph, engine, TARGETS["tensorrt-rtx"])
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(("target", "kinds"), [("cpu", ["Sum", "Add"]), ("tensorrt-rtx", ["Add", "Add"])])
def test_an_addition_that_only_a_layer_norm_reads_is_not_fused_with_it_for_onnxruntime(target, kinds, tmp_path):
    """The second one is read by an output too, as in transformers that normalize first."""
    rng = np.random.default_rng(0)
    inits = {"w": (8, 8), "v": (8, 8), "one": (8,), "zero": (8,)}
    inits = {name: rng.normal(size=shape).astype(np.float32) for name, shape in inits.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "x"], ["b"]),
        helper.make_node("LayerNormalization", ["b", "one", "zero"], ["c"]),
        helper.make_node("MatMul", ["c", "v"], ["d"]),
        helper.make_node("Add", ["d", "c"], ["e"]),
        helper.make_node("LayerNormalization", ["e", "one", "zero"], ["f"]),
        helper.make_node("Mul", ["e", "f"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", "length", 8]) for n in "xy"]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [numpy_helper.from_array(v, n) for n, v in inits.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = rng.normal(size=(4, 3, 8)).astype(np.float32)
    plan = int8.plan(model, Int8Config(), [x])
    made = int8.apply(model, plan, TARGETS[target])
    makers = {out: node.op_type for node in made.graph.node for out in node.output}
    norms = [node for node in made.graph.node if node.op_type == "LayerNormalization"]
    assert [makers[node.input[0]] for node in norms] == kinds
    assert sqnr(run(model, x), run(made, x, tmp_path / "o.onnx")) > 25
    fused = count(onnx.load(tmp_path / "o.onnx"))["SkipLayerNormalization"]
    assert fused < len(norms) if target == "cpu" else fused


@pytest.mark.parametrize("target", TARGETS)
def test_what_stands_around_attention_stays_float(target, transformer):
    """Scores under a mask, a sum before a layer norm, a product before its bias: no integer kernel reads them."""
    model, samples = transformer
    made = int8.apply(model, int8.plan(model, Int8Config(activations="static", smooth=False), samples), TARGETS[target])
    makers = {out: node.op_type for node in made.graph.node for out in node.output}
    rounded = {makers.get(node.input[0]) for node in made.graph.node if node.op_type == "QuantizeLinear"}
    assert "LayerNormalization" in rounded
    assert not rounded & {"MatMul", "Softmax", "Add", "Mul"}


@pytest.mark.parametrize(("op", "quantized"), [("Conv", True), ("Gemm", False), ("MatMul", False)])
def test_the_output_of_a_product_stays_float_where_no_layer_reads_it(op, quantized, graph_builder):
    g = graph_builder((6, 4, 4) if op == "Conv" else (6,))
    out = g.conv("x", "a") if op == "Conv" else (g.gemm if op == "Gemm" else g.matmul)("x", "a", 6, 8)
    model = g.model(g.node("Softmax", [out], axis=1), 4 if op == "Conv" else 2)
    x = np.random.default_rng(0).normal(size=(16, *g.shape)).astype(np.float32)
    assert (out in int8.plan(model, Int8Config(activations="static"), [x]).ranges) is quantized


def test_a_digest_is_of_names_types_shapes_and_numbers_in_any_order():
    one, two = np.arange(6, dtype=np.int8).reshape(2, 3), np.ones(2, np.float32)
    known = int8.digest({"a": one, "b": two})
    assert known == int8.digest({"b": two, "a": one}) == int8.digest({"a": np.asfortranarray(one), "b": two})
    assert len(known) == 64
    others = [{"a": one}, {"a": one, "c": two}, {"a": one.reshape(3, 2), "b": two}, {"a": one.view(np.uint8), "b": two},
              {"a": one, "b": 2 * two}]  # fmt: skip
    assert len({known, *map(int8.digest, others)}) == 6
    assert int8.digest({}) == ""


def test_what_the_two_ways_to_quantize_activations_are_compared_in():
    assert (FEW, MANY, int8.DIVISOR) == (6, 16, ".divisor")
    assert (int8.BOTH.activations, int8.BOTH.symmetric) == ("uint8", False)
    assert (int8.BOTH.int32_bias, int8.BOTH.fuses_add, int8.BOTH.dynamic) == (True, False, True)


@pytest.mark.parametrize(
    ("op", "attributes", "takes"),
    [
        ("Conv", {}, True),
        ("MatMul", {}, False),
        ("Gemm", {}, True),
        ("Gemm", {"alpha": 1.0, "beta": 1.0}, True),
        ("Gemm", {"alpha": 2.0}, False),
        ("Gemm", {"beta": 0.5}, False),
    ],
)
def test_which_layers_add_a_bias_as_it_is(op, attributes, takes):
    assert int8._takes_bias(onnx.helper.make_node(op, ["x", "w", "b"], ["y"], **attributes)) == takes


def test_a_scale_is_so_large_that_a_bias_fits_into_32_bits():
    """A bias of 3 in steps of 2 / 255 of what is read, times the scale: 2^30 at the most."""
    from types import SimpleNamespace

    bias = onnx.numpy_helper.from_array(np.array([3.0, -6.0, 0.0, 1.0], np.float32), "b")
    index = SimpleNamespace(constants={"b": bias})
    node = onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"])
    range_ = SimpleNamespace(low=-0.5, high=1.5)
    found = int8._least_scale(index, node, {"x": range_}, (2, 2))
    step = 2.0 / 255 * 2.0**30
    np.testing.assert_allclose(found, [[3 / step, 6 / step], [0.0, 1 / step]], rtol=1e-6)
    assert found.dtype == np.float32
    flat = int8._least_scale(index, node, {"x": SimpleNamespace(low=0.0, high=0.0)}, (1, 4))
    np.testing.assert_allclose(flat[0], np.array([3.0, 6.0, 0.0, 1.0]) / (1e-12 / 255 * 2.0**30), rtol=1e-6)
    zeros = np.zeros((1, 4))
    np.testing.assert_array_equal(int8._least_scale(index, node, {}, (1, 4)), zeros)
    np.testing.assert_array_equal(int8._least_scale(index, node, {"x": range_}, (1, 3)), zeros[:, :3])
    for inputs in (["x", "w"], ["x", "w", "computed"]):
        bare = onnx.helper.make_node("Conv", inputs, ["y"])
        np.testing.assert_array_equal(int8._least_scale(index, bare, {"x": range_}, (1, 4)), zeros)
