from __future__ import annotations

import pytest
from onnx import defs

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
    assert target.facts.dla is None or set(target.facts.dla.operators) <= known


@pytest.mark.engine
def test_what_rtx_refuses_is_what_its_parser_refuses(registry):
    """Operator by operator: nothing is said to be refused that is not, and nothing refused is forgotten."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    names = {schema.name for schema in defs.get_all_schemas() if schema.domain == ""}
    assert set(registry.get("target", "tensorrt-rtx").refuses) == {n for n in names if not parser.supports_operator(n)}
