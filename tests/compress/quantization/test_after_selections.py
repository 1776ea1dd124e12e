"""What comes after a selection, where nothing is compared: it computes as it did, in every encoding and precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from detectorgraphs import detector, head_of, images, node, second_stage
from onnx import TensorProto, helper, version_converter

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization import fp8, int8
from pocketzoo.compress.quantization.calibration_cache import plan_by_scales
from pocketzoo.deploy.half_precision_export import half
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.graphs.foreign.selections import with_outputs
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.rewriting.half_writer import simulated
from pocketzoo.zoo.tasks.agreement import sqnr

TARGETS = {target.name: target for target in pocketzoo_targets()}
WHY = "it comes after NonMaxSuppression, where nothing can be compared"
SAMPLES = [{"image": image[None]} for image in images(8)]
SECOND_STAGE = {"second", "third"}


@pytest.fixture(scope="module")
def model():
    return detector("two stages")


def check_head(written: onnx.ModelProto) -> None:
    """The second stage makes of the boxes that it is given what it makes of them in float."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(with_outputs(written, ["found"]).SerializeToString(), options)
    runs = [session.run(["found", "head"], x) for x in SAMPLES]
    found, head = (np.concatenate([run[i] for run in runs]).astype(np.float32) for i in (0, 1))
    assert len(found) > 20
    assert sqnr(head, head_of(found)) > 100


def test_the_second_stage_would_be_ruined(model):
    """By the steps of 8 bits of what it reads, and by 16 bits of what it computes."""
    found = np.random.default_rng(0).uniform(0, 16, (200, 4)).astype(np.float32)
    weights = second_stage()
    read = found * weights["wide"]
    step = read.max() / 255
    rounded = np.maximum(np.round(read / step) * step @ weights["second"], 0) @ weights["third"]
    assert sqnr(rounded, head_of(found)) < 10
    far = np.float16(weights["far"])
    back = (found.astype(np.float16) + far) - far
    assert sqnr(back.astype(np.float32), found) < 20


@pytest.mark.parametrize("activations", ["static", "dynamic", "auto"])
def test_layers_after_a_selection_stay_in_float_by_name(activations, model):
    plan = int8.plan(model, Int8Config(activations=activations), SAMPLES)
    assert {name: plan.left[name] for name in SECOND_STAGE} == dict.fromkeys(SECOND_STAGE, WHY)
    assert len(plan.layers) >= 3
    assert not SECOND_STAGE & {*plan.layers, *plan.dynamic}
    assert plan.tables == ()
    for target in ("cpu", "openvino", "tensorrt-rtx"):
        check_head(int8.apply(model, plan, TARGETS[target]))


def test_a_layer_that_some_output_shows_may_be_in_int8(model):
    """The same weight where all boxes come out is measured; where it is read after the selection too it is not."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    seen.graph.node.append(node("MatMul", "boxes second", "all"))
    seen.graph.output.append(helper.make_tensor_value_info("all", TensorProto.FLOAT, [1, 16, 8]))
    assert int8.plan(seen, Int8Config(), SAMPLES).left["second"] == WHY
    del seen.graph.output[:2]
    left = int8.plan(seen, Int8Config(), SAMPLES).left
    assert WHY not in left.values()


def test_a_cache_of_scales_plans_no_layer_after_a_selection(model):
    scales = dict.fromkeys(("image", "a1", "d1", "widened", "hidden1"), 0.1)
    plan = plan_by_scales(model, scales)
    assert plan.left.items() >= dict.fromkeys(SECOND_STAGE, WHY).items()
    check_head(int8.apply(model, plan, TARGETS["tensorrt-rtx"]))


def test_a_branch_after_a_selection_stays_in_float():
    model = detector("gathered")
    inner = helper.make_graph(
        [node("MatMul", "found second", "then_out")], "then", [],
        [helper.make_tensor_value_info("then_out", TensorProto.FLOAT, ["m", 8])],
    )  # fmt: skip
    other = onnx.GraphProto()
    other.CopyFrom(inner)
    other.name, other.node[0].output[0], other.output[0].name = "else", "else_out", "else_out"
    weight = second_stage()["second"].astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "second"))
    model.graph.node.extend([
        node("Shape", "found", "dims"), node("ReduceMax", "dims", "largest", keepdims=0),
        node("Greater", "largest one", "some"),
        helper.make_node("If", ["some"], ["branched"], then_branch=inner, else_branch=other),
    ])  # fmt: skip
    model.graph.output.append(helper.make_tensor_value_info("branched", TensorProto.FLOAT, ["m", 8]))
    plan = int8.plan(model, Int8Config(), SAMPLES)
    assert plan.left["second"] == WHY
    assert plan.bodies == {}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_keeps_it_in_32_bits(precision, model):
    plan, converted = half(model, TARGETS["tensorrt-rtx"], precision, SAMPLES)
    assert {why for name, why in plan.in_float32.items() if name in ("hidden", "head", "back")} == {WHY}
    assert {"a", "d", "box", "class"} <= {*plan.computing}
    check_head(simulated(model, plan))
    types = {value.name: value.type.tensor_type.elem_type for value in converted.graph.output}
    assert types["head"] == TensorProto.FLOAT


def test_fp8_keeps_it_in_32_bits(model):
    model = version_converter.convert_version(model, 19)  # the first with float8
    plan = int8.plan(model, Int8Config(), SAMPLES)
    target = TARGETS["tensorrt-rtx"]
    encoded, layers = fp8.apply(model, plan, replace(target.fp8, conv_channels=1, matmul_channels=1), SAMPLES)
    assert {*layers.layers} == {"w", "v", "b", "c"}
    assert not SECOND_STAGE & {*layers.layers}
    written = half(encoded, target, "fp16", SAMPLES)[1]
    index = GraphIndex(written)
    assert index.types["hidden"] == TensorProto.FLOAT
    assert index.types["back"] == TensorProto.FLOAT
