from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper, numpy_helper
from told import Told

from pocketzoo.core.errors import PocketzooError
from pocketzoo.deploy.check.check_model import check_graph
from pocketzoo.plugins.targets import NOT_IN_RTX
from pocketzoo.zoo.backends.tensorrt.build_engine import save_engine
from pocketzoo.zoo.graphs.foreign.refused_operators import say_refused
from pocketzoo.zoo.graphs.rewriting.half_precision import plan_half
from pocketzoo.zoo.graphs.rewriting.half_writer import to_half

NVIDIAS = ("tensorrt", "tensorrt-10", "tensorrt-11", "tensorrt-rtx", "jetson-orin", "jetson-thor")


@pytest.mark.parametrize("name", ["cpu", *NVIDIAS])
def test_the_encoding_of_a_target(registry, name):
    target = registry.get("target", name)
    nvidia = name != "cpu"
    assert target.int8.activations == ("int8" if nvidia else "uint8")
    assert target.int8.symmetric == nvidia
    assert target.int8.int32_bias != nvidia, "NVIDIA's parsers refuse an int32 DequantizeLinear"
    assert target.int8.fuses_add == nvidia
    assert target.channel_multiple == (16 if nvidia else 8)
    assert target.int8.required == nvidia
    assert target.backend == (name if name == "tensorrt-rtx" else "tensorrt" if nvidia else "onnxruntime")
    assert target.timed_here != nvidia


def test_devices_know_what_they_are(registry):
    orin, thor = registry.get("target", "jetson-orin"), registry.get("target", "jetson-thor")
    assert (orin.facts.machine, orin.facts.capability, "fp8" in orin.precisions) == ("aarch64", "8.7", False)
    assert (thor.facts.machine, thor.facts.capability, "fp8" in thor.precisions) == ("aarch64", "11.0", True)
    assert (orin.fp8, thor.fp8) == (None, registry.get("target", "tensorrt").fp8)
    assert orin.facts.dla is not None
    assert thor.facts.dla is None


@pytest.mark.parametrize("name", NVIDIAS)
def test_operators_are_those_of_onnx(registry, name):
    target = registry.get("target", name)
    known = {schema.name for schema in defs.get_all_schemas_with_history() if schema.domain == ""}
    assert {*target.refuses, *target.slow, *target.keeps_fp32} <= known
    assert {*target.lacks_kernels} <= {*target.precisions}
    assert {op for operators in target.lacks_kernels.values() for op in operators} <= known
    assert target.facts.dla is None or set(target.facts.dla.operators) <= known


@pytest.mark.engine
@pytest.mark.parametrize(("precision", "builds"), [("bf16", False), ("fp16", True)])
def test_rtx_builds_no_transposed_convolution_in_bf16(registry, tmp_path, precision, builds):
    """Of a block as detectors end with; with that one node in float32 there is an engine."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)
    target = registry.get("target", "tensorrt-rtx")
    stored = [
        numpy_helper.from_array(np.ones(dims, np.float32), name) for name, dims in (("w", (8, 4, 2, 2)), ("b", (4,)))
    ]
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["a"], strides=[2, 2])
    made = helper.make_graph(
        [node, helper.make_node("Relu", ["a"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])], stored,
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    plan = plan_half(model, target, precision)
    assert ("a" in plan.in_float32) != builds
    onnx.save(to_half(model, plan), tmp_path / "kept.onnx")
    save_engine(tmp_path / "kept.onnx", tmp_path / "kept.engine", target)
    every = plan_half(model, replace(target, lacks_kernels={}), precision)
    onnx.save(to_half(model, every), tmp_path / "all.onnx")
    if builds:
        save_engine(tmp_path / "all.onnx", tmp_path / "all.engine", target)
    else:
        with pytest.raises(PocketzooError, match="cannot build"):
            save_engine(tmp_path / "all.onnx", tmp_path / "all.engine", target)


@pytest.mark.engine
def test_what_rtx_refuses_is_what_its_parser_refuses(registry):
    """Operator by operator: nothing is said to be refused that is not, and nothing refused is forgotten."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    names = {schema.name for schema in defs.get_all_schemas() if schema.domain == ""}
    unknown = {name for name in names if not parser.supports_operator(name)}
    assert set(registry.get("target", "tensorrt-rtx").refuses) - set(NOT_IN_RTX) == unknown


def of_boxes(op: str) -> onnx.ModelProto:
    """A graph of one operator that the parser says it knows."""
    inputs, outputs, constants, attributes = {
        "NonMaxSuppression": (
            {"boxes": [1, 8, 4], "scores": [1, 2, 8]}, {"y": ["m", 3]},
            {"most": np.array([4]), "iou": np.array([0.5], np.float32), "least": np.array([0.2], np.float32)}, {},
        ),
        "NonZero": ({"x": [4, 4]}, {"y": [2, "m"]}, {}, {}),
        "RoiAlign": (
            {"x": [1, 3, 8, 8], "boxes": [5, 4]}, {"y": [5, 3, 2, 2]}, {"of": np.zeros(5, np.int64)},
            {"output_height": 2, "output_width": 2},
        ),
        "TopK": ({"x": [4, 8]}, {"y": [4, 2], "at": [4, 2]}, {"k": np.array([2])}, {"axis": 1}),
    }[op]  # fmt: skip
    kinds = {"y": TensorProto.FLOAT if op in ("RoiAlign", "TopK") else TensorProto.INT64, "at": TensorProto.INT64}
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, [*inputs, *constants], [*outputs], **attributes)], "g",
        [info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
        [info(name, kinds[name], dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.engine
@pytest.mark.parametrize("op", [*NOT_IN_RTX, "TopK"])
def test_what_rtx_says_it_knows_and_does_not_build(registry, tmp_path, op):
    """A selection of a constant count has an engine."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)
    target = registry.get("target", "tensorrt-rtx")
    onnx.save(of_boxes(op), tmp_path / "m.onnx")
    assert check_graph(tmp_path / "m.onnx", target).refused == (op in NOT_IN_RTX)
    if op not in NOT_IN_RTX:
        save_engine(tmp_path / "m.onnx", tmp_path / "m.engine", target)
        return
    with pytest.raises(PocketzooError) as caught:
        save_engine(tmp_path / "m.onnx", tmp_path / "m.engine", target)
    assert caught.value.hint == f"tensorrt-rtx has no {op}: {NOT_IN_RTX[op]}"


@pytest.mark.parametrize("op", [*NOT_IN_RTX, "TopK"])
def test_what_a_target_refuses_is_said_before_anything_is_made(registry, tmp_path, op):
    onnx.save(of_boxes(op), tmp_path / "m.onnx")
    told = Told()
    say_refused([tmp_path / "m.onnx"], [registry.get("target", name) for name in ("cpu", "tensorrt-rtx")], told)
    line = f"tensorrt-rtx has no {op}: {NOT_IN_RTX.get(op)}"
    assert told.said == ([line] if op in NOT_IN_RTX else [])
