from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper, numpy_helper

from pocketzoo.core.errors import PocketzooError
from pocketzoo.zoo.backends.tensorrt.build_engine import save_engine
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
    assert set(registry.get("target", "tensorrt-rtx").refuses) == {n for n in names if not parser.supports_operator(n)}
